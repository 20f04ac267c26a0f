"""`zegel consortium backup` and `restore`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from admin_api.commands.options import HERE, AsJson, Home, answer, open_home, told


def consortium_backup(
    target: Annotated[Path, typer.Argument(help="The backup to write, a tar file; must not exist.")],
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Write a backup of the consortium's folder while everything goes on.

    It holds the log's key, the server's key and the encrypted root key: keep it where only you can read it. The
    pages' own database is in it unless it is kept in PostgreSQL.
    """
    from admin_api.backup import back_up

    def show(done: int, of: int) -> None:
        if sys.stderr.isatty() and not as_json:
            typer.echo(f"\r{done} of {of}", err=True, nl=done == of)

    with told(home):
        made = back_up(open_home(home), target, progress=show)
    answer(
        {"path": str(made.path), "files": made.files, "log_size": made.log_size, "pages": made.pages},
        [
            f"{made.path}: {made.files} files, a log of {made.log_size} entries"
            + (", the pages' database." if made.pages else "; the pages' database is not in it."),
            "It holds keys; only you can read it. `zegel consortium restore` brings it back.",
        ],
        as_json,
    )


def consortium_restore(
    backup: Annotated[Path, typer.Argument(help="A backup made with `zegel consortium backup`.", exists=True)],
    home: Annotated[Path, typer.Option("--home", help="The folder to restore into; new or empty.")],
    seen: Annotated[
        list[Path] | None,
        typer.Option(
            help="A signed checkpoint that somebody else has: a witness's, a hospital's, an export's `checkpoint`. "
            "Give every one you can get.",
            exists=True,
        ),
    ] = None,
    nobody_saw_more: Annotated[
        bool, typer.Option("--nobody-saw-more", help="You know that nothing was signed after the backup.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring a backup back into a new folder, unless somebody has seen a newer log.

    A log that goes on from an old backup signs a second history over the first, and every witness would call it
    forged; so this asks for the newest checkpoint that others have, and refuses when the backup is older.
    """
    from admin_api.backup import restore

    with told():
        made = restore(backup, home, seen=[path.read_bytes() for path in seen or ()], nobody_saw_more=nobody_saw_more)
    answer(
        {"path": str(made.path), "files": made.files, "log_size": made.log_size, "pages": made.pages},
        [f"{made.path}: a log of {made.log_size} entries.", "Next: zegel audit check, then start the server."],
        as_json,
    )
