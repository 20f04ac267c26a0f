"""Running the pages: one or more worker processes on one socket, until somebody stops them.

TLS is the consortium's own (the certificate of its server kit, whose root hospitals have already), a proxy's, or
none on localhost. Settings travel to workers in the environment, which is where `Settings` reads them.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Callable
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from uvicorn.supervisors import Multiprocess

from admin_api.errors import WebError
from admin_api.web.app import create_app, make_workplace
from admin_api.web.observing import write_json_lines
from admin_api.web.settings import Settings


def app_from_environment() -> FastAPI:
    """The app of a worker process."""
    write_json_lines()
    return create_app(Settings())  # type: ignore[call-arg]  # from the environment


def environment(settings: Settings) -> dict[str, str]:
    """The variables from which a worker makes the same settings again."""
    made: dict[str, str] = {}
    for name, value in settings.model_dump(mode="json", exclude_defaults=True).items():
        if value is None:
            continue
        variable = f"ZEGEL_{name.upper()}"
        if name == "trusted_proxies":
            made[variable] = ",".join(value)
        else:
            made[variable] = value if isinstance(value, str) else json.dumps(value)
    return made


def serve(
    settings: Settings,
    *,
    host: str,
    port: int,
    workers: int,
    certificate: Path | None,
    key: Path | None,
    announce: Callable[[str], None],
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, then let running requests end (at most 10 seconds).

    `announce` is told the address once the socket listens, `progress` how far the log was read.
    Raises: WebError when it cannot listen, or for a certificate that cannot be used.
    """
    if certificate is not None:
        _check_pair(certificate, key)
    make_workplace(settings, progress).database.close()  # once, before several workers do it side by side
    os.environ.update(environment(settings))
    config = uvicorn.Config(
        "admin_api.web.serving:app_from_environment",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies) or None,
        ssl_certfile=None if certificate is None else str(certificate),
        ssl_keyfile=None if key is None else str(key),
        limit_concurrency=512,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=10,
    )
    write_json_lines()
    try:
        listening = config.bind_socket()
    except SystemExit:  # uvicorn's way to say that the address is taken; its log line has the reason
        raise WebError(f"cannot listen on {host} port {port}; choose another with --port") from None
    with listening:
        announce(f"{'https' if certificate else 'http'}://{host}:{listening.getsockname()[1]}")
        try:
            if workers > 1:
                Multiprocess(config, sockets=[listening]).run()
            else:
                uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:  # raised again by uvicorn after an orderly end
            return


def _check_pair(certificate: Path, key: Path | None) -> None:
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise WebError(f"TLS certificate {certificate}: {error}") from None
