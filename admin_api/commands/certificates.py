"""`zegel consortium` commands about certificates: approve, renew, list, suspend and revoke them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    Refuse,
    Yes,
    answer,
    open_home,
    open_signer,
    passphrase,
    told,
)

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from admin_api.onboarding import Request
    from jobs.home import ConsortiumHome

Fingerprint = Annotated[
    str | None, typer.Option(help="The key's fingerprint as the requester read it to you; refused if it differs.")
]
ValidDays = Annotated[int, typer.Option(help="How long the certificate is valid.", min=1, max=3650)]
OneCertificate = Annotated[
    str | None, typer.Option("--certificate", help="Only this one of the holder's certificates, by its digest.")
]
Holder = Annotated[str, typer.Argument(help="The person's or hospital's name, as on the certificate.")]


def consortium_approve(
    request: Annotated[Path, typer.Argument(help="NAME.request.zip of a hospital or person.request.json.")],
    out: Annotated[Path, typer.Option(help="Where to write the reply (NAME.signed.zip, or a person's person.crt).")],
    fingerprint: Fingerprint = None,
    valid_days: ValidDays = 365,
    yes: Yes = False,
    passphrase_file: PassphraseFile = None,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Look at a certificate request, compare its fingerprint with the requester, and sign it.

    Two people must have approved it first with `zegel consortium decide`, once there are two who can. The certificate
    is written to the audit log before the reply can be handed out.
    """
    from admin_api.onboarding import approve

    _answer_request(approve, request, out, fingerprint, valid_days, yes, passphrase_file, home, as_json)


def consortium_decide(
    request: Annotated[Path, typer.Argument(help="NAME.request.zip of a hospital, or a person's request.")],
    signer: PersonFolder,
    fingerprint: Fingerprint = None,
    reason: Reason = "",
    refuse: Refuse = False,
    yes: Yes = False,
    passphrase_file: PersonPassphrase = None,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Sign a decision about a certificate request, before `zegel consortium approve` or `renew` issues it.

    A consortium admin and a privacy officer or somebody of the authority must approve, of two organisations, within 30
    days. Only while there are no two such people yet does the root's passphrase suffice; the log says so then.
    """
    from admin_api.onboarding import decide_request, description_of, read_request
    from admin_api.people import disclosed_now

    with told(home):
        consortium = open_home(home)
        asked = read_request(request)
        name = _shown(consortium, asked, as_json)
        if not refuse:
            _compare(asked, fingerprint, yes)
        described = description_of(consortium, asked)
        person = open_signer(consortium, signer, passphrase_file)
        decide_request(consortium, described.digest, person, approve=not refuse, reason=reason)
        said = disclosed_now(consortium)
    verb = "refused" if refuse else "approved"
    answer(
        {"digest": described.digest, "decision": verb, "by": said.name(person.identity.name),
         "person": person.identity.name, "role": person.identity.role},
        [said.in_words(f"{person.identity} {verb} {name}'s request; the log keeps it.")],
        as_json,
    )  # fmt: skip


def _answer_request(
    issue: Callable[..., Certificate],
    request: Path,
    out: Path,
    fingerprint: str | None,
    valid_days: int,
    yes: bool,
    passphrase_file: Path | None,
    home: Path,
    as_json: bool,
) -> None:
    """Show a request, have its fingerprint compared, and answer it as `issue` does."""
    from admin_api.onboarding import check_quorum, read_request

    with told(home):
        consortium = open_home(home)
        asked = read_request(request)
        name = _shown(consortium, asked, as_json)
        _compare(asked, fingerprint, yes)
        if not check_quorum(consortium, asked):
            typer.echo(
                "Nobody can approve requests yet: the root's passphrase alone signs, and the log says so.", err=True
            )
        secret = passphrase(passphrase_file, ROOT_VARIABLE, "Passphrase of the root key")
        certificate = issue(consortium, asked, passphrase=secret, out=out, valid_days=valid_days)
    answer(
        {
            "name": name,
            "organisation": asked.organisation,
            "role": asked.role,
            "fingerprint": asked.fingerprint,
            "valid_until": f"{certificate.not_valid_after_utc:%Y-%m-%d}",
            "reply": str(out),
        },
        [f"Signed, valid until {certificate.not_valid_after_utc:%Y-%m-%d}. Send {out} back to {name}."],
        as_json,
    )


def _shown(home: ConsortiumHome, asked: Request, as_json: bool) -> str:
    """Tell what is asked for; returns the name of whoever asks."""
    from admin_api.people import disclosed_now

    name = disclosed_now(home).name(asked.name)  # a renewal names the person id
    with_passkey = "" if asked.relying_party is None else f", with a passkey for {asked.relying_party}"
    typer.echo(f"{name} of {asked.organisation} asks for a certificate as {asked.role}{with_passkey}.", err=as_json)
    typer.echo(f"Fingerprint of its key: {asked.fingerprint}", err=as_json)
    return name


def _compare(asked: Request, fingerprint: str | None, yes: bool) -> None:
    """Have the fingerprint compared with the one that the requester read out."""
    from admin_api.errors import OnboardingError

    if fingerprint is not None and fingerprint.strip().lower() != asked.fingerprint:
        raise OnboardingError(
            f"the fingerprints differ: read to you {fingerprint}, in the request {asked.fingerprint}; "
            "nothing was signed. Ask the requester for the file again, by another way"
        )
    if fingerprint is None and not yes:
        if not sys.stdin.isatty():
            raise OnboardingError("give --fingerprint as the requester read it to you, or --yes")
        typer.confirm("Did the requester read the same fingerprint to you?", abort=True, err=True)


def consortium_renew(
    request: Annotated[Path, typer.Argument(help="The request of `zegel site renew` or `zegel person renew`.")],
    out: Annotated[Path, typer.Option(help="Where to write the reply (NAME.signed.zip, or a person's person.crt).")],
    fingerprint: Fingerprint = None,
    valid_days: ValidDays = 365,
    yes: Yes = False,
    passphrase_file: PassphraseFile = None,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Issue a further certificate to a hospital or person who has one: same name, organisation and role, a new key.

    The old one counts until it ends; nobody else has to do anything. It is logged before the reply is written.
    """
    from admin_api.renewing import renew

    _answer_request(renew, request, out, fingerprint, valid_days, yes, passphrase_file, home, as_json)


def consortium_renew_own(
    within_days: Annotated[int, typer.Option(help="Renew those that end within so many days.", min=1)] = 90,
    passphrase_file: PassphraseFile = None,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Renew the certificates of the server, its account and the log. The server must be stopped.

    They keep their keys, so hospitals connect again by themselves and the log stays the log.
    """
    from admin_api.renewing import renew_own

    with told(home):
        consortium = open_home(home)
        secret = passphrase(passphrase_file, ROOT_VARIABLE, "Passphrase of the root key")
        own = renew_own(consortium, passphrase=secret, within_days=within_days)
    answer(
        {
            "certificates": [
                {"name": each.name, "role": each.role, "ends": f"{each.ends:%Y-%m-%d}", "renewed": each.renewed}
                for each in own
            ]
        },
        [f"{each.name} ({each.role}): {'renewed, ' if each.renewed else ''}valid until {each.ends:%Y-%m-%d}."
         for each in own],
        as_json,
    )  # fmt: skip


def consortium_certificates(home: Home = HERE, as_json: AsJson = False) -> None:
    """List every certificate with its state and the days it has left; what has to be renewed soon is named."""
    from admin_api.holders import holdings, warning_line

    with told(home):
        found = holdings(open_home(home))
    answer(
        {"certificates": [each.to_json() for each in found]},
        [
            *(
                f"{each.ends:%Y-%m-%d} {each.days:>5} days  {each.state:<13} {each.name} ({each.role}, "
                f"{each.organisation}) {each.digest}"
                for each in found
            ),
            *(warning_line(each) for each in found if each.warns),
        ],
        as_json,
    )


def consortium_suspend(
    name: Holder,
    signer: PersonFolder,
    reason: Reason = "",
    certificate: OneCertificate = None,
    passphrase_file: PersonPassphrase = None,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Suspend a person's or hospital's certificates until further notice. A consortium admin signs.

    Nothing they sign counts from here on; what the log holds already stays good.
    """
    _change(name, "suspended", signer, reason, certificate, passphrase_file, home, as_json)


def consortium_reinstate(
    name: Holder,
    signer: PersonFolder,
    reason: Reason = "",
    certificate: OneCertificate = None,
    passphrase_file: PersonPassphrase = None,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Take a suspension back. A consortium admin signs."""
    _change(name, "reinstated", signer, reason, certificate, passphrase_file, home, as_json)


def consortium_revoke(
    name: Holder,
    signer: PersonFolder,
    reason: Reason = "",
    certificate: OneCertificate = None,
    passphrase_file: PersonPassphrase = None,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Revoke a person's or hospital's certificates for ever. A consortium admin signs.

    Nothing they sign counts from here on; what the log holds already stays good. Whose certificates are all revoked
    needs a new one under another name to come back.
    """
    _change(name, "revoked", signer, reason, certificate, passphrase_file, home, as_json)


def _change(
    name: str,
    status: str,
    signer: Path,
    reason: str,
    certificate: str | None,
    passphrase_file: Path | None,
    home: Path,
    as_json: bool,
) -> None:
    from admin_api.revoking import change_status

    with told(home):
        consortium = open_home(home)
        admin = open_signer(consortium, signer, passphrase_file)
        changed = change_status(consortium, name, status=status, reason=reason, admin=admin, only=certificate)
    answer(
        {"name": name, "status": status, "certificates": list(changed)},
        [f"{name} is {status}; the log keeps it. Certificates: {', '.join(changed)}"],
        as_json,
    )


def consortium_revocations(
    out: Annotated[Path, typer.Option(help="Where to write the signed list.")],
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Write the list of suspended and revoked certificates, signed by the log, for those who have no log."""
    from admin_api.revoking import current_revocations, signed_revocations
    from audit.durable_file import write_durably

    with told(home):
        consortium = open_home(home)
        changes = len(current_revocations(consortium).changes)
        write_durably(out, signed_revocations(consortium))
    answer({"changes": changes, "out": str(out)}, [f"Wrote {changes} changes to {out}, signed by the log."], as_json)
