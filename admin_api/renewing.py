"""Renewing certificates: for hospitals and people on request, for the consortium's own machines by themselves.

A renewed certificate is a new one for the same holder; the old one counts until it ends, so nobody else has to do
anything. Each is in the log before it is handed out or put in place.

A hospital and a person bring a new key; a passkey, which never leaves its device, is certified again as it is. The
consortium's server, its account and its log keep theirs: hospitals' open sessions rest on the server's key, and
everything ever logged on the log's. A stolen key of these three is not a case for renewal; the consortium is founded
anew.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from admin_api.errors import OnboardingError
from admin_api.founding import LOG_VALID_DAYS, issued_entry
from admin_api.onboarding import Request, issue, refuse_known_key
from admin_api.people import disclosed_now, is_called
from audit.certificates import LOG, certificate_pem, identity_of, issue_certificate, load_certificate, public_key_of
from audit.durable_file import write_durably
from audit.errors import AuditError
from audit.revocation import REINSTATED
from jobs.federation import process
from jobs.federation.kit import close_modes
from jobs.federation.provisioning import LEAF_VALID_DAYS, approve_request, build_kit, key_fingerprint, open_root_key
from jobs.home import ConsortiumHome
from jobs.standing import read_standing

RENEW_WITHIN_DAYS = 90  # of their end the consortium's own certificates are renewed


def renew(
    home: ConsortiumHome, request: Request, *, passphrase: bytes, out: Path, valid_days: int = LEAF_VALID_DAYS
) -> x509.Certificate:
    """Issue a further certificate to a holder who has one, log it, and write the reply to `out`.

    Raises: OnboardingError when nobody has this name, or not with this organisation and role; when one of the holder's
    certificates is suspended or revoked; when the key is not new; and whatever `approve` raises. Nothing was signed or
    logged then.
    """
    standing, said = read_standing(home), disclosed_now(home)
    held = {
        digest: certificate
        for digest, certificate in standing.certificates.items()
        if is_called(said, identity_of(certificate).name, request.name)
    }
    if not held:
        raise OnboardingError(f"{request.name!r} holds no certificate here; a first one is `zegel consortium approve`")
    asked = (request.organisation, request.role)
    fits = any((each.organisation, each.role) == asked for each in map(identity_of, held.values()))
    for digest, certificate in held.items():
        holder = identity_of(certificate)
        if not fits:
            raise OnboardingError(
                f"{request.path} asks for {request.name} ({request.role}, {request.organisation}), but the holder of "
                f"that name is {said.in_words(str(holder))}; nothing was signed"
            )
        change = standing.revocations.last(digest)
        if change is not None and change.status != REINSTATED:
            raise OnboardingError(
                f"{said.in_words(str(holder))} is {change.status} since entry {change.index} of the log; who "
                "is suspended is reinstated first, who is revoked does not come back under this name"
            )
    name = identity_of(next(iter(held.values()))).name  # a person's certificate holds the id
    for certificate in standing.certificates.values():
        if request.kind != "passkey" or identity_of(certificate).name != name:
            refuse_known_key(request, certificate)
    named = replace(request, name=name)
    return issue(home, named, passphrase=passphrase, out=out, valid_days=valid_days)


@dataclass(frozen=True)
class OwnCertificate:
    """One of the consortium's own, and what became of it."""

    name: str
    role: str
    ends: datetime
    renewed: bool


def renew_own(
    home: ConsortiumHome,
    *,
    passphrase: bytes,
    within_days: int = RENEW_WITHIN_DAYS,
    valid_days: int = LEAF_VALID_DAYS,
) -> list[OwnCertificate]:
    """Renew the server's, the account's and the log's certificate, those that end within so many days.

    The server's takes effect with its next start; hospitals connect again by themselves.
    Raises: OnboardingError while the server runs, ProvisioningError on a wrong passphrase.
    """
    if process.find(home.server_kit) is not None:
        raise OnboardingError("the server runs; `zegel consortium stop` first, it starts with the renewed certificate")
    home.sign_checkpoint()  # a log that cannot be signed must not be found out after a certificate is in it
    now = home.clock().replace(microsecond=0)
    soon = now + timedelta(days=within_days)
    done: list[OwnCertificate] = []
    for kind, file in (("server", "server.crt"), ("admin", "client.crt")):
        path = home.path / kind / "kit" / "startup" / file
        old = load_certificate(path.read_bytes())
        new = (
            _renewed_kit_certificate(home, kind, file, passphrase, valid_days)
            if old.not_valid_after_utc <= soon
            else old
        )
        done.append(_put_in_place(home, path, old, new))
    path = home.path / "log.crt"
    old = load_certificate(path.read_bytes())
    new = _renewed_log_certificate(home, old, passphrase, now) if old.not_valid_after_utc <= soon else old
    done.append(_put_in_place(home, path, old, new))
    return done


def _put_in_place(home: ConsortiumHome, path: Path, old: x509.Certificate, new: x509.Certificate) -> OwnCertificate:
    """Log a renewed certificate, then replace the old one's file in one step; one that ends no later is left."""
    holder = identity_of(old)
    if new.not_valid_after_utc <= old.not_valid_after_utc:
        return OwnCertificate(holder.name, holder.role, old.not_valid_after_utc, renewed=False)
    if key_fingerprint(new) != key_fingerprint(old) or identity_of(new).person != holder.person:
        raise OnboardingError(f"the renewed certificate is not {holder}'s; nothing was changed")
    home.record(issued_entry(new, home))
    write_durably(path, certificate_pem(new).encode("ascii"))
    return OwnCertificate(holder.name, holder.role, new.not_valid_after_utc, renewed=True)


def _renewed_kit_certificate(
    home: ConsortiumHome, kind: str, file: str, passphrase: bytes, valid_days: int
) -> x509.Certificate:
    """A new certificate on the request the kit was made with; NVFlare's flow as at the founding."""
    folder = home.path / kind / "request"
    request = next(folder.glob("*.request.zip"), None)
    if request is None:
        raise OnboardingError(f"{folder} lacks the request the {kind} was founded with; restore it from a backup")
    with tempfile.TemporaryDirectory(dir=home.path / kind) as scratch:
        reply = Path(scratch, f"{request.name.removesuffix('.request.zip')}.signed.zip")
        approve_request(
            request, ca=home.ca, profile=home.profile, passphrase=passphrase, out=reply, valid_days=valid_days
        )
        kit = Path(scratch, "kit")
        fingerprint = home.config().nvflare_fingerprint
        build_kit(reply, request_folder=folder, fingerprint=fingerprint, kit=kit)
        close_modes(folder)  # NVFlare unpacked the reply there
        return load_certificate((kit / "startup" / file).read_bytes())


def _renewed_log_certificate(
    home: ConsortiumHome, old: x509.Certificate, passphrase: bytes, now: datetime
) -> x509.Certificate:
    """A new certificate for the log's key, at most as long as the root lives."""
    root, holder = home.root(), identity_of(old)
    ends = min(now + timedelta(days=LOG_VALID_DAYS), root.not_valid_after_utc)
    if ends <= old.not_valid_after_utc:
        return old
    try:
        return issue_certificate(
            public_key_of(old),
            name=holder.name,
            organisation=holder.organisation,
            role=LOG,
            root_cert=root,
            root_key=open_root_key(home.ca, passphrase),
            not_before=now,
            not_after=ends,
        )
    except AuditError as error:
        raise OnboardingError(f"the log's certificate was not renewed: {error}") from None
