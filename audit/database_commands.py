"""`zegel audit database`: where the log is kept, and moving it to PostgreSQL.

SQLite needs none of this: a log's file is made and upgraded when it is opened.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines instead of text.")]
OwnerUrl = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="ZEGEL_LOG_OWNER_URL",
        help="The database, as the role that shall own the tables: postgresql://OWNER@HOST/DATABASE. No password in "
        "it: PostgreSQL takes one from PGPASSWORD or ~/.pgpass.",
    ),
]

database_app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Keep the log in PostgreSQL. A log in SQLite, log.db, needs nothing of this.",
)


@database_app.command()
def init(
    url: OwnerUrl,
    writer: Annotated[
        str, typer.Option(help="The role the consortium's processes use. It is made when it does not exist.")
    ],
    as_json: Json = False,
) -> None:
    """Make the log's tables in PostgreSQL, or bring them up to date, and give the writer its rights.

    Two roles, so that no process of the consortium can change what was logged: OWNER makes the tables and is used
    here only; WRITER may read and add rows, nothing else, and is what `log_url` in consortium.json names. Running
    it again is harmless; run it after an upgrade of Zegel when the log asks for it.
    """
    from audit.database_postgresql import PostgreSQL
    from audit.migrations import HEAD

    with _errors():
        database = _opened(url, PostgreSQL)
        try:
            database.initialise(writer=writer)
        finally:
            database.close()
    named = database.url.set(drivername="postgresql", username=writer).render_as_string()
    if as_json:
        typer.echo(json.dumps({"revision": HEAD, "writer": writer, "log_url": named}, sort_keys=True))
        return
    typer.echo(f"tables of revision {HEAD} are ready; {writer} may read them and add rows")
    typer.echo(f'put this into consortium.json: "log_url": "{named}"')


@database_app.command()
def copy(
    home: Annotated[
        Path,
        typer.Option(
            "--home", envvar="ZEGEL_CONSORTIUM_HOME", exists=True, file_okay=False, help="The consortium's folder."
        ),
    ],
    to: Annotated[
        str, typer.Option("--to", help="An empty log's database, as its writer: postgresql://WRITER@HOST/DATABASE.")
    ],
    as_json: Json = False,
) -> None:
    """Copy the consortium's log into another database, entry by entry, and compare the roots.

    Stop the consortium's server first. Nothing is changed in the old database or in consortium.json: when this has
    ended well, write the new URL into `log_url` yourself. A copy that was stopped goes on where it was.
    """
    from audit.commands import opened
    from audit.copying import copy_log
    from audit.database import log_url
    from audit.store import open_log

    with opened(home) as (source, key):
        log_url(home, to)  # no password in what will stand in consortium.json
        # The checkpoint is the folder's: the copy continues it, so it needs none of its own.
        with open_log(to, origin=key.name, checkpoint_path=home / "log.checkpoint.of-copy") as target:

            def show(done: int, of: int) -> None:
                if sys.stderr.isatty() and not as_json:
                    typer.echo(f"\r{done} of {of} entries", err=True, nl=done == of)

            copied = copy_log(source, target, progress=show)
            size = target.size
            root = target.root().hex()
        with open_log(to, origin=key.name, checkpoint_path=home / "log.checkpoint") as target:
            target.remember_signed()
    result: dict[str, Any] = {"size": size, "copied": copied, "root": root, "log_url": to}
    if as_json:
        typer.echo(json.dumps(result, sort_keys=True))
        return
    typer.echo(f"{size} entries, {copied} of them copied now; the root is {root} in both")
    typer.echo(f'put this into consortium.json: "log_url": "{to}"; then `zegel audit check`')


def register(audit_app: typer.Typer) -> None:
    """Adds the group to `zegel audit`."""
    audit_app.add_typer(database_app, name="database")


def _opened(url: str, kind: Any) -> Any:
    from audit.database import open_database
    from audit.errors import LogError

    database = open_database(url)
    if not isinstance(database, kind):
        database.close()
        raise LogError(f"{url}: expected postgresql://OWNER@HOST/DATABASE; a log in SQLite needs no preparation")
    return database


@contextmanager
def _errors() -> Iterator[None]:
    """What a database or the log refuses, as one line on standard error and exit code 1."""
    from sqlalchemy.exc import SQLAlchemyError

    from audit.errors import AuditError

    try:
        yield
    except (AuditError, SQLAlchemyError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
