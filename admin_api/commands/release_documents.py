"""`zegel release notes-template` and `documents`: what goes into a candidate's documents, and reading them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from admin_api.commands.options import HERE, AsJson, Home, answer, open_home, told


def notes_template(
    out: Annotated[Path | None, typer.Option(help="Write to this file, which must not exist yet.")] = None,
) -> None:
    """Print release notes to fill in: intended use, exclusions, edition, known failures, drift, expiry.

    Every text between < and > is to be replaced; lists may grow or become empty. `zegel release propose --notes` takes
    the filled-in file. `coder_agreement` stays null, or says how often two human coders agree:
    {"share": .78, "lower": .74, "upper": .82, "admissions": 600, "source": "double coding 2025"}.
    """
    from admin_api.errors import ReleaseRefused
    from audit.documents.notes import notes_template as template

    if out is None:
        typer.echo(template(), nl=False)
        return
    with told():
        try:
            with out.open("x", encoding="utf-8") as file:
                file.write(template())
        except FileExistsError:
            raise ReleaseRefused(f"{out} exists already; choose another --out") from None
    typer.echo(f"wrote {out}; fill it in, then: zegel release propose NAME --run RUN --notes {out}", err=True)


def documents(
    release: Annotated[str, typer.Argument(help="The candidate's or certified release's name.")],
    out: Annotated[Path, typer.Option(help="A new folder for the documents.")],
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Write the documents that approvals of a release bind, to be read before deciding.

    candidate.html is the report with everything known so far. The release statement holds the digest of each, so
    nothing in them can change after the first approval.
    """
    from admin_api.errors import ReleaseRefused
    from admin_api.releasing import load_statement

    with told():
        consortium = open_home(home)
        statement = load_statement(consortium, release)
        if not statement.documents:
            raise ReleaseRefused(f"release {release!r} was proposed without documents")
        contents = {name: consortium.artifacts().get(digest) for name, digest in sorted(statement.documents.items())}
        try:
            out.mkdir()
        except FileExistsError:
            raise ReleaseRefused(f"{out} exists already; choose another --out") from None
        for name, content in contents.items():
            (out / name).write_bytes(content)
    answer(
        {"release": release, "folder": str(out), "documents": dict(statement.documents)},
        [f"{out / name}  {statement.documents[name]}" for name in contents],
        as_json,
    )


def register(app: typer.Typer) -> None:
    """Adds the commands to `zegel release`."""
    app.command("notes-template")(notes_template)
    app.command("documents")(documents)
