"""Running one of our web applications until somebody stops it."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from audit.errors import AuditError


def serve_app(app: ASGIApp, host: str, port: int, announce: Callable[[str], None]) -> None:
    """Serves `app` until SIGINT or SIGTERM, then lets running requests end.

    `port` 0 takes a free one. `announce` is told the URL once connections are taken. Raises AuditError when the
    address cannot be used.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise AuditError(f"cannot listen on {host} port {port}: {error}; choose another with --port") from error
    with listening:
        name = f"[{host}]" if ":" in host else host
        config = uvicorn.Config(
            app,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=256,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=10,
        )
        try:
            announce(f"http://{name}:{listening.getsockname()[1]}")
            uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:  # uvicorn raises it again after an orderly end
            return
