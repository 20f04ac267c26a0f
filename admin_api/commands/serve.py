"""`zegel consortium serve`: the pages and the API where the consortium is run."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from admin_api.commands.options import HERE, Home, open_home, told


def consortium_serve(
    home: Home = HERE,
    host: Annotated[str, typer.Option(help="Address to listen on; behind a proxy leave it.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8443,
    public_url: Annotated[
        str | None,
        typer.Option(
            help="How browsers reach the pages, https://zegel.example. Passkeys belong to its host name, so choose "
            "it once. Default: localhost, for this machine alone."
        ),
    ] = None,
    tls: Annotated[
        bool,
        typer.Option("--tls", help="Speak TLS with the certificate of the consortium's server; else a proxy does."),
    ] = False,
    database_url: Annotated[
        str | None,
        typer.Option(help="The pages' own database, postgresql://user@host/name. Default: web.db in the folder."),
    ] = None,
    trusted_proxies: Annotated[
        str, typer.Option(help="Addresses of proxies whose X-Forwarded-For is believed, comma-separated.")
    ] = "",
    workers: Annotated[int, typer.Option(help="Worker processes.", min=1, max=32)] = 1,
) -> None:
    """Serve the pages and the API until Ctrl-C. Further settings come from ZEGEL_ variables; docs/admin.md lists them.

    The first admin enrols with the link that `zegel consortium enrol` prints.
    """
    from pydantic import ValidationError

    from admin_api.errors import WebError
    from admin_api.web.serving import serve
    from admin_api.web.settings import Settings

    with told(home):
        consortium = open_home(home)
        given = {
            "home": consortium.path,
            "public_url": public_url or (f"http://localhost:{port}" if port else None),
            "database_url": database_url,
            "trusted_proxies": trusted_proxies or None,
        }
        try:
            settings = Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
        except ValidationError as error:
            raise WebError("; ".join(f"{each['loc'][0]}: {each['msg']}" for each in error.errors())) from None

        def read(done: int, of: int) -> None:
            if sys.stderr.isatty():
                typer.echo(f"\rreading the log: {done} of {of} entries", err=True, nl=done == of)

        kit = consortium.server_kit / "startup"
        serve(
            settings,
            host=host,
            port=port,
            workers=workers,
            certificate=kit / "server.crt" if tls else None,
            key=kit / "server.key" if tls else None,
            announce=lambda url: typer.echo(f"The pages are at {settings.public_url} (listening on {url}).", err=True),
            progress=read,
        )
