"""`zegel consortium`: found it, approve and revoke certificates, log manifests, run its server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from admin_api.commands.options import (
    HERE,
    ROOT_VARIABLE,
    AsJson,
    Home,
    PassphraseFile,
    PersonFolder,
    PersonPassphrase,
    Reason,
    Yes,
    answer,
    open_home,
    open_signer,
    passphrase,
    told,
)

Holder = Annotated[str, typer.Argument(help="The person's or hospital's name, as on the certificate.")]

consortium_app = typer.Typer(no_args_is_help=True, help="Found the consortium, approve certificates, run its server.")


@consortium_app.command("init")
def consortium_init(
    name: Annotated[str, typer.Argument(help="The consortium's name: letters, digits, - and _.")],
    organisation: Annotated[str, typer.Option(help="Who runs it: letters, digits and _.")],
    server_host: Annotated[str, typer.Option(help="Name under which hospitals reach the server.")] = "localhost",
    fed_learn_port: Annotated[int, typer.Option(help="Port for hospitals.", min=1, max=65535)] = 8002,
    admin_port: Annotated[int, typer.Option(help="Port for the consortium's own account.", min=1, max=65535)] = 8003,
    passphrase_file: PassphraseFile = None,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Found a consortium: root certificate with an encrypted key, audit log, server kit.

    Tell hospitals the root's fingerprint by another channel than the one you send kits by.
    """
    from admin_api.founding import found
    from jobs.home import ConsortiumHome

    with told():
        secret = passphrase(passphrase_file, ROOT_VARIABLE, "Passphrase for the root key", confirm=True)
        config = found(
            ConsortiumHome(home),
            name=name,
            organisation=organisation,
            server_host=server_host,
            fed_learn_port=fed_learn_port,
            admin_port=admin_port,
            passphrase=secret,
        )
    answer(
        {
            "name": name,
            "root_fingerprint": config.root_fingerprint,
            "log_vkey": config.log_vkey,
            "home": str(home),
        },
        [
            f"Founded {name} in {home}.",
            f"Root fingerprint  {config.root_fingerprint}",
            f"Log's key         {config.log_vkey}",
            "Tell hospitals the fingerprint by telephone or on paper, not by the way you send replies.",
            "Next: people run `zegel person request`, hospitals `zegel site request`, you `zegel consortium start`.",
        ],
        as_json,
    )


@consortium_app.command("approve")
def consortium_approve(
    request: Annotated[Path, typer.Argument(help="NAME.request.zip of a hospital or person.request.json.")],
    out: Annotated[Path, typer.Option(help="Where to write the reply (NAME.signed.zip, or a person's person.crt).")],
    fingerprint: Annotated[
        str | None,
        typer.Option(help="The key's fingerprint as the requester read it to you; refused if it differs."),
    ] = None,
    valid_days: Annotated[int, typer.Option(help="How long the certificate is valid.", min=1, max=3650)] = 365,
    yes: Yes = False,
    passphrase_file: PassphraseFile = None,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Look at a certificate request, compare its fingerprint with the requester, and sign it.

    The certificate is written to the audit log before the reply can be handed out.
    """
    from admin_api.errors import OnboardingError
    from admin_api.onboarding import approve, read_request

    with told():
        consortium = open_home(home)
        asked = read_request(request)
        typer.echo(f"{asked.name} of {asked.organisation} asks for a certificate as {asked.role}.", err=as_json)
        typer.echo(f"Fingerprint of its key: {asked.fingerprint}", err=as_json)
        if fingerprint is not None and fingerprint.strip().lower() != asked.fingerprint:
            raise OnboardingError(
                f"the fingerprints differ: read to you {fingerprint}, in the request {asked.fingerprint}; "
                "nothing was signed. Ask the requester for the file again, by another way"
            )
        if fingerprint is None and not yes:
            if not sys.stdin.isatty():
                raise OnboardingError("give --fingerprint as the requester read it to you, or --yes")
            typer.confirm("Did the requester read the same fingerprint to you?", abort=True, err=True)
        secret = passphrase(passphrase_file, ROOT_VARIABLE, "Passphrase of the root key")
        certificate = approve(consortium, asked, passphrase=secret, out=out, valid_days=valid_days)
    answer(
        {
            "name": asked.name,
            "organisation": asked.organisation,
            "role": asked.role,
            "fingerprint": asked.fingerprint,
            "valid_until": f"{certificate.not_valid_after_utc:%Y-%m-%d}",
            "reply": str(out),
        },
        [f"Signed, valid until {certificate.not_valid_after_utc:%Y-%m-%d}. Send {out} back to {asked.name}."],
        as_json,
    )


@consortium_app.command("manifest")
def consortium_manifest(
    statement: Annotated[Path, typer.Argument(help="The signed statement a hospital made with `zegel site manifest`.")],
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Check a hospital's signed data manifest and write it to the audit log."""
    from admin_api.onboarding import log_manifest

    with told():
        signed = log_manifest(open_home(home), statement)
    said = signed.statement
    answer(
        dict(said),
        [f"{said['site']}: {said['patients']} patients, {said['admissions']} admissions, {said['period_first']} to "
         f"{said['period_last']}; logged."],
        as_json,
    )  # fmt: skip


@consortium_app.command("suspend")
def consortium_suspend(
    name: Holder,
    signer: PersonFolder,
    reason: Reason = "",
    passphrase_file: PersonPassphrase = None,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Suspend a person's or hospital's certificates until further notice. A consortium admin signs.

    Nothing they sign counts from here on; what the log holds already stays good.
    """
    _change(name, "suspended", signer, reason, passphrase_file, home, as_json)


@consortium_app.command("reinstate")
def consortium_reinstate(
    name: Holder,
    signer: PersonFolder,
    reason: Reason = "",
    passphrase_file: PersonPassphrase = None,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Take a suspension back. A consortium admin signs."""
    _change(name, "reinstated", signer, reason, passphrase_file, home, as_json)


@consortium_app.command("revoke")
def consortium_revoke(
    name: Holder,
    signer: PersonFolder,
    reason: Reason = "",
    passphrase_file: PersonPassphrase = None,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Revoke a person's or hospital's certificates for ever. A consortium admin signs.

    Nothing they sign counts from here on; what the log holds already stays good. They need a new key and certificate,
    under another name, to come back.
    """
    _change(name, "revoked", signer, reason, passphrase_file, home, as_json)


def _change(
    name: str, status: str, signer: Path, reason: str, passphrase_file: Path | None, home: Path, as_json: bool
) -> None:
    from admin_api.revoking import change_status

    with told():
        consortium = open_home(home)
        admin = open_signer(consortium, signer, passphrase_file)
        changed = change_status(consortium, name, status=status, reason=reason, admin=admin)
    answer(
        {"name": name, "status": status, "certificates": list(changed)},
        [f"{name} is {status}; the log keeps it. Certificates: {', '.join(changed)}"],
        as_json,
    )


@consortium_app.command("revocations")
def consortium_revocations(
    out: Annotated[Path, typer.Option(help="Where to write the signed list.")],
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Write the list of suspended and revoked certificates, signed by the log, for those who have no log."""
    from admin_api.revoking import current_revocations, signed_revocations
    from audit.durable_file import write_durably

    with told():
        consortium = open_home(home)
        changes = len(current_revocations(consortium).changes)
        write_durably(out, signed_revocations(consortium))
    answer({"changes": changes, "out": str(out)}, [f"Wrote {changes} changes to {out}, signed by the log."], as_json)


@consortium_app.command("start")
def consortium_start(home: Home = HERE, as_json: AsJson = False) -> None:
    """Start the federation's server. It keeps running after this command; refuses a loosened kit."""
    from admin_api.running import start_server

    with told():
        consortium = open_home(home)
        config = consortium.config()
        running = start_server(consortium)
    answer(
        {"pid": running.pid, "fed_learn_port": config.fed_learn_port},
        [
            f"The server runs as process {running.pid}; hospitals connect to "
            f"{config.server_host}:{config.fed_learn_port}.",
            f"Its own log is {consortium.server_kit / 'console.log'}.",
        ],
        as_json,
    )


@consortium_app.command("stop")
def consortium_stop(home: Home = HERE, as_json: AsJson = False) -> None:
    """Stop the federation's server and any job it runs."""
    from jobs.federation import process

    with told():
        was_running = process.stop(open_home(home).server_kit)
    answer(
        {"was_running": was_running},
        ["The server is stopped." if was_running else "The server was not running."],
        as_json,
    )


@consortium_app.command("status")
def consortium_status(
    wait: Annotated[int, typer.Option(help="Wait up to this many seconds for the server to answer.", min=0)] = 5,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Is the server up, and which hospitals are connected? Exit code 1 if it is not."""
    from jobs.federation import process
    from jobs.federation.session import open_session

    with told():
        consortium = open_home(home)
        running = process.find(consortium.server_kit)
        connected: tuple[str, ...] = ()
        if running is not None:
            with open_session(consortium, timeout_s=wait) as session:
                connected = session.connected()
    answer(
        {
            "running": running is not None,
            "pid": running.pid if running else None,
            "connected": list(connected),
        },
        [
            f"The server runs as process {running.pid}." if running else "The server does not run.",
            f"Connected: {', '.join(connected) or 'nobody'}.",
        ],
        as_json,
    )
    if running is None:
        raise typer.Exit(1)
