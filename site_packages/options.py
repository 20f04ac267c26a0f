"""What the hospital's commands share: options, and how results and errors are told.

Results go to stdout, everything else to stderr, so that `--json` prints one JSON object and nothing more.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

Home = Annotated[
    Path,
    typer.Option("--home", envvar="ZEGEL_SITE_HOME", help="The hospital's folder.", show_default="."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines.")]
Officer = Annotated[str, typer.Option(help="The hospital's privacy officer, by name.")]
Yes = Annotated[bool, typer.Option("--yes", help="The officer has confirmed; do not ask.")]

HERE = Path()


@contextmanager
def told() -> Iterator[None]:
    """Our own errors, and files that cannot be read or written, end a command with a message and exit code 1.

    Any other exception is a defect and shows its trace.
    """
    from audit.errors import AuditError
    from jobs.errors import JobError
    from jobs.icd_coding.errors import CodingError
    from privacy.errors import PrivacyError
    from site_packages.errors import SitePackagesError

    try:
        yield
    except (SitePackagesError, JobError, CodingError, PrivacyError, AuditError, OSError) as error:
        typer.echo(f"zegel site: {error}", err=True)
        raise typer.Exit(1) from None


def answer(value: dict[str, Any], lines: list[str], as_json: bool) -> None:
    """Print one result, for people or for machines."""
    typer.echo(json.dumps(value) if as_json else "\n".join(lines))


def confirmed(question: str, *, yes: bool) -> None:
    """Ends the command unless the officer agrees, at the terminal or beforehand with --yes."""
    if yes:
        return
    if not sys.stdin.isatty():
        typer.echo("zegel site: the officer must confirm: run in a terminal, or pass --yes", err=True)
        raise typer.Exit(1)
    typer.confirm(question, abort=True, err=True)
