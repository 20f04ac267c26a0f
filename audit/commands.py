"""`zegel verify` and `zegel audit`.

Exit codes: 0 verified or shown, 1 refused or not found (the message on standard error), 2 wrong usage.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from audit.note import VerifierKey
    from audit.store import Log
    from audit.verify import Check
    from audit.wording import Branch

_MARK_OK, _MARK_FAILED = "ok    ", "FAILED"

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines instead of text.")]
Home = Annotated[
    Path,
    typer.Option(
        "--home",
        envvar="ZEGEL_CONSORTIUM_HOME",
        exists=True,
        file_okay=False,
        help="The consortium's folder, which holds consortium.json and log.db.",
    ),
]


def verify(
    dossier: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="The release's dossier, a .dossier file.")
    ],
    root: Annotated[
        Path,
        typer.Option(
            "--root",
            exists=True,
            dir_okay=False,
            help="The consortium's root certificate (rootCA.pem). Get it from the consortium, not from the "
            "dossier, and compare its fingerprint by telephone.",
        ),
    ],
    as_json: Json = False,
) -> None:
    """Check a release's dossier offline.

    Needs nothing but the two files: no network, database or account. Prints every check as it succeeds,
    then the release traced back to its approvals, metrics, runs, hospitals and rounds. Exit code 0 means
    that all of it holds.
    """
    from audit.errors import DossierError
    from audit.verify import verify_dossier

    try:
        report = verify_dossier(dossier.read_bytes(), root.read_bytes(), now=datetime.now(UTC))
    except DossierError as error:
        if as_json:
            typer.echo(_json({"verified": False, "check": error.check, "error": str(error)}))
        else:
            _print_checks(error.passed)
        typer.echo(f"{_MARK_FAILED} {error}", err=True)
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(_json(report.to_json()))
        return
    from audit.wording import trace_tree

    _print_checks(report.checks)
    typer.echo()
    _print_tree(trace_tree(report.trace))


audit_app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Read and check the audit log. What it holds can be added to, never changed; `check` proves that.",
)


@audit_app.command()
def check(home: Home, as_json: Json = False) -> None:
    """Derive every hash of the log again from its entries.

    Names the first row that does not fit, and refuses a log that does not continue the last signed
    checkpoint. Also compares every artifact on disk with its digest.
    """
    from audit.artifacts import Artifacts
    from audit.checkpoint import open_checkpoint

    with _opened(home) as (log, key):
        checkpoint = log.check(_progress() if not as_json and sys.stderr.isatty() else None)
        signed = log.last_checkpoint()
        covered = open_checkpoint(signed, key).size if signed is not None else 0
        artifacts = Artifacts(home / "artifacts")
        count = 0
        for digest in artifacts.digests():
            artifacts.get(digest)
            count += 1
    result = {
        "origin": checkpoint.origin,
        "size": checkpoint.size,
        "root": checkpoint.root.hex(),
        "signed_size": covered,
        "artifacts": count,
    }
    if as_json:
        typer.echo(_json(result))
        return
    typer.echo(f"{checkpoint.origin}: {checkpoint.size} entries, root {checkpoint.root.hex()}")
    typer.echo(f"the last signed checkpoint covers {covered} entries; {checkpoint.size - covered} came after it")
    typer.echo(f"{count} artifacts are what their digests say")


@audit_app.command(name="log")
def show_log(
    home: Home,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many of the newest entries.")] = 20,
    as_json: Json = False,
) -> None:
    """Show the newest entries in words, oldest first."""
    from audit.canonical import format_time
    from audit.wording import entry_words

    with _opened(home) as (log, _):
        entries = list(log.entries(since=max(0, log.size - count)))
    if as_json:
        listed = [
            {"index": i, "time": format_time(e.time), "kind": e.kind, "words": entry_words(e)} for i, e in entries
        ]
        typer.echo(_json({"entries": listed}))
        return
    for index, entry in entries:
        typer.echo(f"{index:>6}  {format_time(entry.time)}  {entry.kind:<19}  {entry_words(entry)}")


@audit_app.command(name="entry")
def show_entry(
    index: Annotated[int, typer.Argument(min=0, metavar="N", help="The entry's index; the first is 0.")],
    home: Home,
    as_json: Json = False,
) -> None:
    """Show one entry with the proof that it is in the log.

    The proof is a C2SP tlog-proof over the last signed checkpoint; an entry logged since then has none yet.
    """
    from audit.checkpoint import format_proof, open_checkpoint
    from audit.entry import Entry

    with _opened(home) as (log, key):
        data = log.entry_bytes(index)
        signed = log.last_checkpoint()
        covered = open_checkpoint(signed, key).size if signed is not None else 0
        proof: str | None = None
        if signed is not None and index < covered:
            proof = format_proof(index, log.inclusion_proof(index, covered), signed).decode()
    entry = Entry.from_bytes(data)
    if as_json:
        typer.echo(_json({"index": index, "entry": json.loads(data), "proof": proof}))
        return
    from audit.wording import entry_words

    typer.echo(entry_words(entry))
    typer.echo(json.dumps(json.loads(data), sort_keys=True))
    typer.echo()
    typer.echo(proof if proof is not None else f"no proof yet: the last signed checkpoint covers {covered} entries")


@contextmanager
def _opened(home: Path) -> Iterator[tuple[Log, VerifierKey]]:
    """The log in a consortium's folder, and the key its checkpoints must be signed with."""
    from audit.errors import AuditError, LogError
    from audit.note import VerifierKey

    try:
        config = home / "consortium.json"
        try:
            key = VerifierKey.parse(str(json.loads(config.read_text(encoding="utf-8"))["log_vkey"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LogError(f"{config} does not name the log's key (log_vkey): {error}") from error
        if not (home / "log.db").is_file():
            raise LogError(f"{home} holds no log.db; give the consortium's folder with --home")
        from audit.store import open_log

        with open_log(f"sqlite:///{home / 'log.db'}", origin=key.name) as log:
            yield log, key
    except AuditError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


def _progress() -> Any:
    def show(done: int, total: int) -> None:
        if done % 1000 == 0 or done == total:
            typer.echo(f"\r{done} of {total} entries", err=True, nl=done == total)

    return show


def _print_checks(checks: tuple[Check, ...]) -> None:
    for passed in checks:
        typer.echo(f"{_MARK_OK} {passed.name}: {passed.detail}")


def _print_tree(tree: Branch) -> None:
    if not sys.stdout.isatty():
        for line in tree.lines():
            typer.echo(line)
        return
    # Only a terminal pays for loading rich.
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

    def grow(branch: Branch, into: Tree) -> None:
        for each in branch.branches:
            grow(each, into.add(Text(each.text)))

    drawn = Tree(Text(tree.text, style="bold"))
    grow(tree, drawn)
    Console(highlight=False).print(drawn)


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
