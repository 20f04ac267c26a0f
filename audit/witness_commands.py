"""`zegel witness`: a stand-alone witness, for the authority or anybody who watches the log."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from audit.witness import Witness

PERSON_VARIABLE = "ZEGEL_PERSON_PASSPHRASE"

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines instead of text.")]
Home = Annotated[
    Path,
    typer.Option("--home", envvar="ZEGEL_WITNESS_HOME", help="The witness's folder: its key and its memory."),
]
LogKey = Annotated[str, typer.Argument(metavar="VKEY", help="A log's verifier key, as `zegel audit export` prints it.")]

witness_app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Cosign a log's checkpoints after checking that each continues the one before. It keeps one log from telling "
    "two stories.",
)


@witness_app.command("init")
def init(
    home: Home,
    name: Annotated[
        str, typer.Option(help="Its name for ever, like a URL without scheme: statistics.example/witness.")
    ],
    log: Annotated[
        list[str] | None, typer.Option(help="Verifier key of a log to watch; repeat it for several.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a witness: a new key, and an empty memory for each log.

    The folder must be backed up continuously or not at all: a witness put back to an old state has forgotten what it
    signed. One that lost its folder is replaced by a new witness with a new key.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from audit.note import VerifierKey
    from audit.witness import create_witness

    with _told():
        logs = [VerifierKey.parse(text) for text in log or []]
        witness = create_witness(home, name, logs, Ed25519PrivateKey.generate(), _now)
    lines = [f"witness {name} made in {home}", f"verifier key {witness.key}"]
    _answer({"witness": name, "vkey": str(witness.key), "logs": [str(each) for each in logs]}, lines, as_json)


@witness_app.command("key")
def key(home: Home, as_json: Json = False) -> None:
    """Print the witness's verifier key."""
    with _told():
        witness = _open(home)
    _answer({"witness": witness.name, "vkey": str(witness.key)}, [str(witness.key)], as_json)


@witness_app.command("trust")
def trust(vkey: LogKey, home: Home, as_json: Json = False) -> None:
    """Watch one more log, starting from nothing seen."""
    from audit.note import VerifierKey

    with _told():
        log = VerifierKey.parse(vkey)
        _open(home).trust(log)
    _answer({"log": log.name, "vkey": vkey}, [f"watching {log.name}"], as_json)


@witness_app.command("enrol")
def enrol(
    home: Home,
    consortium: Annotated[str, typer.Option(help="The consortium's name, as its log says it.")],
    certificate: Annotated[
        Path,
        typer.Option(exists=True, dir_okay=False, help="Certificate of the hospital or the authority, in PEM."),
    ],
    signing_key: Annotated[
        Path, typer.Option("--key", exists=True, dir_okay=False, help="The certificate's private key, in PEM.")
    ],
    out: Annotated[Path, typer.Option(help="The file to write; give it to the consortium.")],
    passphrase_file: Annotated[
        Path | None,
        typer.Option(help=f"File with the key's passphrase; else {PERSON_VARIABLE}; a key may have none."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say, signed with a certificate, whose witness this is.

    Both the certificate's key and the witness's sign. The consortium logs the statement with `zegel audit witness add`;
    only then the witness counts.
    """
    from audit.canonical import canonical_json
    from audit.certificates import identity_of, load_certificate
    from audit.durable_file import write_durably
    from audit.enrolment import ENROLLING_ROLES, enrolment_statement
    from audit.errors import CertificateError
    from audit.signing_keys import load_private_key
    from audit.statement import sign_statement

    with _told():
        witness = _open(home)
        cert = load_certificate(certificate.read_bytes())
        identity = identity_of(cert)
        if identity.role not in ENROLLING_ROLES:
            raise CertificateError(
                f"{certificate}: expected role {' or '.join(sorted(ENROLLING_ROLES))}, got {identity.role}; a witness "
                "belongs to a hospital or the authority"
            )
        secret = _passphrase(passphrase_file)
        statement = enrolment_statement(
            consortium, witness.name, identity.organisation, witness.private_key, datetime.now(UTC)
        )
        signed = sign_statement(statement, load_private_key(signing_key.read_bytes(), secret), cert)
        write_durably(out, canonical_json(signed.to_json()))
    _answer(
        {"enrolment": str(out), "witness": witness.name, "organisation": identity.organisation},
        [f"{out} enrols {witness.name} for {identity.organisation}; give it to the consortium"],
        as_json,
    )


@witness_app.command("serve")
def serve(
    home: Home,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for every one of this machine.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port; 0 takes a free one.")] = 8444,
) -> None:
    """Cosign on request, as C2SP tlog-witness says, until stopped.

    POST /add-checkpoint cosigns; GET /<SHA-256 of the log's origin>/checkpoint shows what was cosigned last. It speaks
    plain HTTP: put the web server that holds your TLS certificate in front of it. What it refuses is on standard error.
    """
    from audit.http_server import serve_app
    from audit.witness_server import witness_app as app_of

    with _told():
        witness = _open(home)

        def announce(url: str) -> None:
            typer.echo(f"witness {witness.name} on {url}, watching {len(witness.logs())} logs", err=True)

        serve_app(app_of(witness), host, port, announce)


@witness_app.command("status")
def status(home: Home, as_json: Json = False) -> None:
    """Show what was cosigned of each log, and what was refused and kept."""
    from audit.canonical import format_time
    from audit.cosignature import verify_cosignature
    from audit.note import parse_note

    with _told():
        witness = _open(home)
        logs: list[dict[str, Any]] = []
        for log in witness.logs():
            memory = witness.memory(log.name)
            time: str | None = None
            if memory.note is not None:
                parsed = parse_note(memory.note)
                own = next(line for line in parsed.signatures if line.by(witness.key))
                time = format_time(verify_cosignature(parsed.text, own, witness.key).time)
            size, root = memory.checkpoint.size, memory.checkpoint.root.hex()
            logs.append({"origin": log.name, "vkey": str(log), "size": size, "root": root, "time": time})
        incidents = [
            {"file": str(path), "kind": each.kind, "time": format_time(each.time)} for path, each in witness.incidents()
        ]
    lines = [f"witness {witness.name}, verifier key {witness.key}"]
    lines += [
        f"{log['origin']}: cosigned {log['size']} entries at {log['time']}"
        if log["time"]
        else f"{log['origin']}: nothing yet"
        for log in logs
    ]
    lines += [f"INCIDENT {each['kind']} at {each['time']}: {each['file']}" for each in incidents]
    _answer({"witness": witness.name, "vkey": str(witness.key), "logs": logs, "incidents": incidents}, lines, as_json)


@witness_app.command("judge")
def judge(
    incident: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="An incident file of a witness.")],
    log: Annotated[str, typer.Option(help="The log's verifier key.")],
    export: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="An exported log to compare with.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say whether an incident proves that the log showed two histories.

    Needs neither the witness nor its word: the log's own signatures on the two checkpoints speak. Exit code 1 when it
    is proved.
    """
    from audit import incident as incidents
    from audit.export import exported_hashes, verify_export
    from audit.note import VerifierKey

    with _told():
        key = VerifierKey.parse(log)
        found = incidents.Incident.from_bytes(incident.read_bytes())
        if export is None:
            verdict = incidents.judge(found, key)
        else:
            size = verify_export(export, key).size
            verdict = incidents.judge(found, key, exported_hashes(export, size), size)
    _answer({"proved": verdict.proved, "kind": found.kind, "words": verdict.words}, [verdict.words], as_json)
    if verdict.proved:
        raise typer.Exit(1)


def _now() -> datetime:
    return datetime.now(UTC)


def _open(home: Path) -> Witness:
    from audit.witness import Witness

    return Witness(home, _now)


def _passphrase(file: Path | None) -> bytes | None:
    from audit.errors import CertificateError

    if file is not None:
        lines = file.read_bytes().splitlines()
        if not lines or not lines[0]:
            raise CertificateError(f"passphrase file {file}: its first line is empty; write the passphrase there")
        return lines[0]
    return os.environ[PERSON_VARIABLE].encode() if os.environ.get(PERSON_VARIABLE) else None


@contextmanager
def _told() -> Iterator[None]:
    """Our own errors, and files that cannot be used, end a command with a message and exit code 1."""
    from audit.errors import AuditError

    try:
        yield
    except (AuditError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


def _answer(value: dict[str, Any], lines: list[str], as_json: bool) -> None:
    typer.echo(json.dumps(value, sort_keys=True, ensure_ascii=False) if as_json else "\n".join(lines))
