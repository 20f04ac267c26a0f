"""`zegel verify` and `zegel audit`.

Exit codes: 0 verified or shown, 1 refused or not found (the message on standard error), 2 wrong usage.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audit import database_commands, export_commands, trace_commands

if TYPE_CHECKING:
    from audit.disclosure import Disclosed
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
    print_tree(trace_tree(report.trace).said(report.disclosed))


audit_app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Read and check the audit log. What it holds can be added to, never changed; `check` proves that.",
)


@audit_app.command()
def check(
    home: Home,
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="How many processes share the work; by default as many as pay.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Derive everything in the log again from its entries and compare.

    Every entry's form, every hash of the tree, every row of the lineage, the settings, the tables themselves and
    the triggers that keep their rows; then the signature on the last checkpoint, every name and reason beside the log
    and every artifact on disk. Names the first row or file that does not fit; exit code 0 means that all of it does.
    Changes nothing.
    """
    from audit.artifacts import Artifacts
    from audit.checkpoint import open_checkpoint
    from audit.disclosure_store import FOLDER, Disclosures
    from audit.errors import AuditError

    with opened(home) as (log, key):
        shown = sys.stderr.isatty() and not as_json
        try:
            found = log.check(_progress("entries") if shown else None, processes=processes)
            signed = log.last_checkpoint()
            if signed is not None:
                open_checkpoint(signed, key)
            said = disclosed_in(home, log)
            left = [each for each in Disclosures(home / FOLDER).commitments() if each not in said.values]
            artifacts = Artifacts(home / "artifacts")
            digests = list(artifacts.digests())
            progress = _progress("artifacts") if shown else None
            for count, digest in enumerate(digests, 1):
                artifacts.get(digest)
                if progress is not None:
                    progress(count, len(digests))
        except AuditError as error:
            if as_json:
                typer.echo(_json({"sound": False, "error": str(error)}))
            raise
    result = {
        "sound": True,
        "origin": found.origin,
        "size": found.size,
        "root": found.root.hex(),
        "signed_size": found.signed_size,
        "tree_hashes": found.nodes,
        "lineage": dict(found.lineage),
        "revision": found.revision,
        "artifacts": len(digests),
        "disclosures": len(said.values),
        "values_to_erase": left,
    }
    if as_json:
        typer.echo(_json(result))
        return
    typer.echo(f"{found.origin}: {found.size} entries, root {found.root.hex()}")
    typer.echo(
        f"the last signed checkpoint covers {found.signed_size} entries; {found.size - found.signed_size} came after it"
    )
    typer.echo(f"{found.nodes} tree hashes and {sum(found.lineage.values())} lineage rows follow from them")
    typer.echo(f"{len(digests)} artifacts are what their digests say")
    typer.echo(f"{len(said.values)} names and reasons beside the log open their commitments")
    for commitment in left:
        why = "erased in the log" if commitment in said.erased else "no entry knows it"
        typer.echo(f"  still here, though {why}: `zegel audit erase {commitment}` removes it")


@audit_app.command(name="log")
def show_log(
    home: Home,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many of the newest entries.")] = 20,
    as_json: Json = False,
) -> None:
    """Show the newest entries in words, oldest first."""
    from audit.canonical import format_time
    from audit.wording import entry_words

    with opened(home) as (log, _):
        entries = list(log.entries(since=max(0, log.size - count)))
        said = disclosed_in(home, log)
    if as_json:
        listed = [
            {"index": i, "time": format_time(e.time), "kind": e.kind, "words": entry_words(e, said)} for i, e in entries
        ]
        typer.echo(_json({"entries": listed}))
        return
    for index, entry in entries:
        typer.echo(f"{index:>6}  {format_time(entry.time)}  {entry.kind:<19}  {entry_words(entry, said)}")


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

    with opened(home) as (log, key):
        data = log.entry_bytes(index)
        signed = log.last_checkpoint()
        covered = open_checkpoint(signed, key).size if signed is not None else 0
        proof: str | None = None
        if signed is not None and index < covered:
            proof = format_proof(index, log.inclusion_proof(index, covered), signed).decode()
        said = disclosed_in(home, log)
    entry = Entry.from_bytes(data)
    if as_json:
        typer.echo(_json({"index": index, "entry": json.loads(data), "proof": proof}))
        return
    from audit.wording import entry_words

    typer.echo(entry_words(entry, said))
    typer.echo(json.dumps(json.loads(data), sort_keys=True))
    typer.echo()
    typer.echo(proof if proof is not None else f"no proof yet: the last signed checkpoint covers {covered} entries")


@contextmanager
def opened(home: Path) -> Iterator[tuple[Log, VerifierKey]]:
    """The log in a consortium's folder, and the key its checkpoints must be signed with."""
    from audit.errors import AuditError, LogError
    from audit.note import VerifierKey

    try:
        config = home / "consortium.json"
        try:
            values = json.loads(config.read_text(encoding="utf-8"))
            key = VerifierKey.parse(str(values["log_vkey"]))
            configured = values.get("log_url")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LogError(f"{config} does not name the log's key (log_vkey): {error}") from error
        from audit.database import LOG_FILE, log_url
        from audit.store import open_log

        if configured is None and not (home / LOG_FILE).is_file():
            raise LogError(f"{home} holds no {LOG_FILE}; give the consortium's folder with --home")
        url = log_url(home, configured)
        with open_log(url, origin=key.name, checkpoint_path=home / "log.checkpoint") as log:
            yield log, key
    except AuditError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


def disclosed_in(home: Path, log: Log) -> Disclosed:
    """The names and reasons beside the log that may be shown. Raises DisclosureError for a damaged one."""
    from audit.disclosure import COMMITTING
    from audit.disclosure_store import FOLDER, Disclosures

    return Disclosures(home / FOLDER).disclosed(each for kind in COMMITTING for each in log.entries(kind=kind))


def _progress(what: str) -> Callable[[int, int], None]:
    """Shows how many of `what` are done and how long the rest will take, on one line of standard error."""
    began = time.monotonic()

    def show(done: int, total: int) -> None:
        left = (time.monotonic() - began) * (total - done) / done
        line = f"\r{done} of {total} {what}, {left:.0f} s left"
        typer.echo(f"{line:<60}", err=True, nl=done == total)

    return show


def _print_checks(checks: tuple[Check, ...]) -> None:
    for passed in checks:
        typer.echo(f"{_MARK_OK} {passed.name}: {passed.detail}")


def print_tree(tree: Branch) -> None:
    """Prints a tree of lines, drawn with branches on a terminal."""
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


database_commands.register(audit_app)
export_commands.register(audit_app)
trace_commands.register(audit_app)
