"""`zegel audit trace`: a version or release followed back through the log, as a tree, JSON or a picture."""

from __future__ import annotations

import json
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class Format(StrEnum):
    """How a trace is shown."""

    TREE = "tree"
    JSON = "json"
    SVG = "svg"


def trace(
    version: Annotated[
        str,
        typer.Argument(
            metavar="VERSION|RELEASE",
            help="A release's name, or a version's digest: whole, or its first 8 or more digits.",
        ),
    ],
    home: Annotated[
        Path,
        typer.Option(
            "--home",
            envvar="ZEGEL_CONSORTIUM_HOME",
            exists=True,
            file_okay=False,
            help="The consortium's folder, which holds consortium.json and log.db.",
        ),
    ],
    shown_as: Annotated[
        Format, typer.Option("--format", help="A tree of lines, one JSON object, or a picture that any browser opens.")
    ] = Format.TREE,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", dir_okay=False, help="Write to this file, which must not exist yet."),
    ] = None,
) -> None:
    """Follow a version back: runs, rounds, hospitals, receipts, metrics, approvals.

    Works for every version in the log, certified or not. Signatures and the chain of versions are checked on the way,
    so a version whose story has a gap is told as an error. For a dossier somebody sent you, use `zegel verify` instead.

    Examples:

      zegel audit trace 2027.1 --home consortium

      zegel audit trace 3f2a9c01 --home consortium --format svg --output trace.svg
    """
    from audit.artifacts import Artifacts
    from audit.certificates import load_certificate
    from audit.commands import disclosed_in, opened, print_tree
    from audit.errors import AuditError
    from audit.evidence import Evidence
    from audit.version_trace import find_version, plan_hashes_behind, trace_any_version

    try:
        with opened(home) as (log, _):
            evidence = Evidence(log.entries(), load_certificate((home / "ca" / "rootCA.pem").read_bytes()))
            said = disclosed_in(home, log)
        digest = find_version(evidence, version)
        artifacts = Artifacts(home / "artifacts")
        plans = {each: artifacts.get(each) for each in plan_hashes_behind(evidence, digest)}
        found = trace_any_version(evidence, digest, plans)
    except (AuditError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    if shown_as is Format.TREE and output is None:
        from audit.wording import version_tree

        print_tree(version_tree(found).said(said))
        return
    if shown_as is Format.TREE:
        from audit.wording import version_tree

        data = ("\n".join(version_tree(found).said(said).lines()) + "\n").encode()
    elif shown_as is Format.JSON:
        from dataclasses import asdict

        data = (
            json.dumps(asdict(found) | {"disclosed": said.to_json()}, default=_time, sort_keys=True, ensure_ascii=False)
            + "\n"
        ).encode()
    else:
        from audit.documents.picture import version_picture

        data = version_picture(found)
    if output is None:
        typer.echo(data, nl=False)
        return
    try:
        with output.open("xb") as file:
            file.write(data)
    except FileExistsError:
        typer.echo(f"error: {output} exists already; choose another --output", err=True)
        raise typer.Exit(1) from None
    except OSError as error:
        typer.echo(f"error: {output}: {error.strerror}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"wrote {output}, {len(data)} bytes", err=True)


def _time(value: Any) -> str:
    from audit.canonical import format_time

    if isinstance(value, datetime):
        return format_time(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def register(app: typer.Typer) -> None:
    """Adds the command to `zegel audit`."""
    app.command(name="trace")(trace)
