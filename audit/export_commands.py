"""`zegel audit export|check-export|serve|cosign|witness`: the log for others."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

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
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the exported log.")]
Host = Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for every one of this machine.")]


def export(home: Home, folder: Folder, as_json: Json = False) -> None:
    """Write the signed log as files that others can check, or bring such files up to date.

    DIR then holds the checkpoint with its cosignatures, the hashes as tiles and the entries, in the layout of C2SP
    tlog-tiles: any web server can serve it, any tlog tool can read it. Full tiles never change, so a second export only
    adds; one that was stopped goes on. Prints the log's verifier key, which whoever checks needs from somewhere else.
    """
    from audit.commands import opened
    from audit.cosigned import Cosigned
    from audit.errors import LogError
    from audit.export import write_export

    with opened(home) as (log, key):
        signed = log.last_checkpoint()
        if signed is None:
            raise LogError("nothing has been signed yet; `zegel audit cosign` signs the log")
        note = Cosigned(home / "cosigned").note(signed)
        done = write_export(log, note, key, folder, _progress("exported", as_json))
    result = {
        "origin": key.name,
        "vkey": str(key),
        "size": done.checkpoint.size,
        "root": done.checkpoint.root.hex(),
        "added": done.added,
        "files_written": done.written,
        "files_removed": done.removed,
    }
    lines = [
        f"{folder}: {done.checkpoint.size} entries of {key.name}, {done.added} new; {done.written} files written",
        f"root {done.checkpoint.root.hex()}",
        f"verifier key {key}",
    ]
    _answer(result, lines, as_json)


def check_export(
    folder: Folder,
    root: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="The consortium's root certificate; it leads to the key of the log."
        ),
    ] = None,
    vkey: Annotated[str | None, typer.Option(help="The log's verifier key, instead of the root certificate.")] = None,
    witnesses: Annotated[
        int, typer.Option(min=0, help="How many organisations' witnesses must have cosigned; needs --root.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Check an exported log offline, from the root certificate or the log's key alone.

    Derives every file from the entries and names the first that is missing, changed or strange. With --root it also
    checks the founding, every certificate announced, the approvals it rests on and every witness enrolled in the log,
    and says who cosigned.
    """
    from audit.canonical import format_time
    from audit.certificate_request import check_issued
    from audit.certificates import load_certificate
    from audit.enrolment import enrolments, witness_policy
    from audit.entry import CERTIFICATE_ISSUED, Entry
    from audit.evidence import Evidence
    from audit.export import CHECKPOINT, exported_entries, exported_founding, verify_export
    from audit.note import VerifierKey
    from audit.witness_policy import check_cosignatures

    if (root is None) == (vkey is None):
        raise typer.BadParameter("give either --root or --vkey, from another place than the exported log")
    if witnesses and root is None:
        raise typer.BadParameter("--witnesses needs --root: the log itself says whose keys the witnesses are")
    with _told():
        certificate = None if root is None else load_certificate(_bytes(root))
        if certificate is None:
            key = VerifierKey.parse(str(vkey))
        else:
            founding = Entry.from_bytes(exported_founding(folder))
            key = Evidence([(0, founding)], certificate).founding.log_key
        checkpoint = verify_export(folder, key, _progress("checked", as_json))
        result: dict[str, Any] = {
            "verified": True,
            "origin": key.name,
            "vkey": str(key),
            "size": checkpoint.size,
            "root": checkpoint.root.hex(),
        }
        lines = [f"{folder}: {checkpoint.size} entries of {key.name}, every file as signed"]
        lines += [f"root {checkpoint.root.hex()}", f"verifier key {key}"]
        if certificate is not None:
            entries = (Entry.from_bytes(data) for data in exported_entries(folder, checkpoint.size))
            evidence = Evidence(enumerate(entries), certificate)
            approved, alone = check_issued(evidence, evidence.of_kind(CERTIFICATE_ISSUED))
            result["certificates"] = {"approved": approved, "issued_alone": alone}
            lines.append(f"certificates approved by two organisations: {len(approved)}")
            if alone:
                where = ", ".join(map(str, alone))
                lines.append(
                    f"certificates issued by the root's holder alone, when nobody could approve: entries {where}"
                )
            enrolled = enrolments(evidence)
            policy = witness_policy(enrolled, 0)
            note = (folder / CHECKPOINT).read_bytes()
            if witnesses:
                check_cosignatures(note, witness_policy(enrolled, witnesses), datetime.now(UTC))
            found = check_cosignatures(note, policy, datetime.now(UTC))
            owners = {each.key: each.organisation for each in enrolled}
            result["witnesses"] = len(policy.witnesses)
            result["cosignatures"] = [
                {"witness": each.key.name, "organisation": owners[each.key], "time": format_time(each.time)}
                for each in found
            ]
            lines.append(f"cosigned by {len(found)} of {len(policy.witnesses)} witnesses enrolled")
            lines += [f"  {owners[each.key]} ({each.key.name}) {format_time(each.time)}" for each in found]
    _answer(result, lines, as_json)


def serve(
    home: Home,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port; 0 takes a free one.")] = 8443,
) -> None:
    """Serve the signed log over HTTP, read-only, until stopped.

    /checkpoint, /tile/... and /tile/entries/... as in C2SP tlog-tiles. It speaks plain HTTP: put the web server that
    holds your TLS certificate in front of it. Entries nobody has signed for are not served.
    """
    from audit.commands import opened
    from audit.cosigned import Cosigned
    from audit.http_server import serve_app
    from audit.serve import log_app

    with opened(home) as (log, key):
        cosigned = Cosigned(home / "cosigned")

        def checkpoint() -> bytes | None:
            signed = log.last_checkpoint()
            return None if signed is None else cosigned.note(signed)

        def announce(url: str) -> None:
            typer.echo(f"serving {key.name} on {url}; verifier key {key}", err=True)

        serve_app(log_app(log, checkpoint), host, port, announce)


def cosign(
    home: Home,
    at_least: Annotated[int, typer.Option(min=0, help="Fail unless this many witnesses cosigned.")] = 1,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for one witness.")] = 10.0,
    as_json: Json = False,
) -> None:
    """Sign the log as it is and ask every witness with a URL to cosign it, now.

    Cosignatures are kept beside the log and go into exports and dossiers. A witness that refuses because it saw another
    history is the most serious message this system has: keep the log and the witness's incident, and find out.
    """
    from audit.commands import opened
    from audit.cosigned import Cosigned
    from audit.errors import LogError
    from audit.witness_client import Asked, collect, over_http, read_addresses

    with opened(home) as (log, key):
        now = datetime.now(UTC)
        checkpoint = log.sign_checkpoint(_log_key(home), lambda: now)
        cosigned = Cosigned(home / "cosigned")
        addresses = read_addresses(home / "witnesses.json")
        if not addresses and at_least:
            raise LogError("no witness has a URL; enrol one with `zegel audit witness add ENROLMENT --url URL`")
        asked = [Asked(each.key, over_http(each.url, timeout), cosigned.seen_by(each.key)) for each in addresses]
        collected = collect(asked, log, checkpoint, now)
        cosigned.add(checkpoint, collected.cosignatures)
    names = [each.name for each, _ in collected.cosignatures]
    result = {
        "origin": key.name,
        "cosigned": names,
        "refused": {each.name: str(error) for each, error in collected.refusals},
    }
    if as_json or names:
        _answer(result, [f"cosigned by {name}" for name in names], as_json)
    for _, error in collected.refusals:
        typer.echo(f"error: {error}", err=True)
    if len(names) < at_least:
        typer.echo(f"error: expected cosignatures of at least {at_least} witnesses, got {len(names)}", err=True)
        raise typer.Exit(1)


witness_app = typer.Typer(
    no_args_is_help=True, help="Which witnesses cosign this log, and where they are. Enrolment is logged."
)


@witness_app.command("add")
def add_witness(
    enrolment: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="The file `zegel witness enrol` wrote.")
    ],
    home: Home,
    url: Annotated[
        str | None, typer.Option(help="Where it is asked over HTTP; without one, the federation carries the exchange.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Enrol a witness: check its statement, log it, and keep its URL.

    The statement is signed by the certificate of a hospital or the authority and by the witness's own key. From now on
    one cosignature of that organisation counts. Enrolled again with another URL, only the URL changes.
    """
    from audit.certificates import load_certificate
    from audit.commands import opened
    from audit.enrolment import check_new_enrolment, enrolled_key, enrolment_entry
    from audit.statement import SignedStatement
    from audit.witness_client import WitnessAddress, check_url, read_addresses, write_addresses

    with opened(home) as (log, _):
        if url is not None:
            check_url(url)
        signed = SignedStatement.from_json(_json_of(enrolment))
        now = datetime.now(UTC)
        entry = enrolment_entry(signed, now)
        key = enrolled_key(signed.statement)
        known = list(log.entries())
        logged = any(each.kind == entry.kind and each.body == entry.body for _, each in known)
        if not logged:
            check_new_enrolment(known, entry, load_certificate(_bytes(home / "ca" / "rootCA.pem")))
            log.append([entry], expected_size=len(known))
            log.sign_checkpoint(_log_key(home), lambda: now)
        if url is not None:
            path = home / "witnesses.json"
            others = [each for each in read_addresses(path) if each.key.public_key != key.public_key]
            write_addresses(path, [*others, WitnessAddress(key, url)])
    organisation = signed.statement["organisation"]
    where = f"asked at {url}" if url is not None else "asked through the federation"
    _answer(
        {"witness": key.name, "organisation": organisation, "vkey": str(key), "url": url, "logged": not logged},
        [f"{organisation}'s witness {key.name} is {'already enrolled' if logged else 'enrolled'}, {where}"],
        as_json,
    )


@witness_app.command("list")
def list_witnesses(
    home: Home,
    policy: Annotated[
        int | None, typer.Option(min=1, help="Print a C2SP tlog-policy that asks for this many instead.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the witnesses enrolled in the log, their URLs and what they cosigned last."""
    from audit.certificates import load_certificate
    from audit.commands import opened
    from audit.cosigned import Cosigned
    from audit.enrolment import enrolments, witness_policy
    from audit.evidence import Evidence
    from audit.witness_client import read_addresses

    with opened(home) as (log, key):
        enrolled = enrolments(Evidence(log.entries(), load_certificate(_bytes(home / "ca" / "rootCA.pem"))))
        counting = witness_policy(enrolled, 0).witnesses
        text = None if policy is None else witness_policy(enrolled, policy).to_text(key)
        urls = {each.key: each.url for each in read_addresses(home / "witnesses.json")}
        cosigned = Cosigned(home / "cosigned")
        rows = [
            {
                "witness": each.name,
                "organisation": each.organisation,
                "vkey": str(each.key),
                "url": urls.get(each.key),
                "counts": each.key in counting,
                "cosigned": cosigned.seen_by(each.key),
            }
            for each in enrolled
        ]
    if text is not None and not as_json:
        typer.echo(text, nl=False)
        return
    lines = [
        f"{row['organisation']}: {row['witness']}, {row['url'] or 'through the federation'}, "
        f"{'last cosigned ' + str(row['cosigned']) + ' entries' if row['cosigned'] else 'cosigned nothing yet'}"
        f"{'' if row['counts'] else ' (replaced by a later key)'}"
        for row in rows
    ]
    result: dict[str, Any] = {"witnesses": rows} | ({} if text is None else {"policy": text})
    _answer(result, lines or ["no witness is enrolled"], as_json)


def register(app: typer.Typer) -> None:
    """Puts these commands into `zegel audit`."""
    app.command()(export)
    app.command("check-export")(check_export)
    app.command()(serve)
    app.command()(cosign)
    app.add_typer(witness_app, name="witness")


@contextmanager
def _told() -> Iterator[None]:
    """Our own errors end a command with a message and exit code 1."""
    from audit.errors import AuditError

    try:
        yield
    except AuditError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


def _log_key(home: Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from audit.errors import LogError
    from audit.signing_keys import load_private_key

    key = load_private_key(_bytes(home / "log.key"))
    if not isinstance(key, Ed25519PrivateKey):
        raise LogError(f"{home / 'log.key'}: expected the log's Ed25519 key")
    return key


def _bytes(path: Path) -> bytes:
    from audit.errors import LogError

    try:
        return path.read_bytes()
    except OSError as error:
        raise LogError(f"{path} cannot be read: {error}") from error


def _json_of(path: Path) -> Any:
    from audit.errors import LogError

    try:
        return json.loads(_bytes(path))
    except ValueError as error:
        raise LogError(f"{path} is not JSON: {error}") from error


def _progress(verb: str, quiet: bool) -> Callable[[int, int], None] | None:
    """Shows how far long work is on a terminal's standard error, from 10,000 entries on."""
    if quiet or not sys.stderr.isatty():
        return None

    def show(done: int, total: int) -> None:
        if total >= 10_000:
            typer.echo(f"\r{verb} {done} of {total} entries", err=True, nl=done == total)

    return show


def _answer(value: dict[str, Any], lines: list[str], as_json: bool) -> None:
    typer.echo(json.dumps(value, sort_keys=True, ensure_ascii=False) if as_json else "\n".join(lines))
