"""Renewing a person's certificate: a new key beside the old one, and from the old to the new when the reply is there.

    renewal/    the new key, its request and, from the reply on, its certificate
    previous/   the old key and certificate, while they are replaced

Order of the change: the old files are copied to `previous`, the new key replaces the old, then the new certificate,
then `renewal` and `previous` are removed. A crash in between leaves a key and a certificate that do not belong
together, which opens nothing; installing again, which begins from `renewal`, completes it.
"""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path

from cryptography import x509

from admin_api.errors import ApprovalError, OnboardingError
from admin_api.people import CERTIFICATE_FILE, KEY_FILE
from admin_api.person_requests import write_person_request
from audit.certificates import PEOPLE, identity_of, load_certificate, verify_certificate
from audit.durable_file import write_durably
from audit.errors import AuditError
from audit.signing_keys import load_private_key

RENEWAL, PREVIOUS = "renewal", "previous"


def request_person_renewal(folder: Path, *, passphrase: bytes) -> Path:
    """Make a new key for the holder of the certificate in `folder`, and its request.

    The new key is encrypted with the same passphrase. Returns: the request's path; the same one again while it is not
        answered. Raises: ApprovalError when the folder holds no person's key, or the passphrase does not open it.
    """
    certificate = _certificate(folder)
    try:
        load_private_key((folder / KEY_FILE).read_bytes(), passphrase)
    except (AuditError, OSError) as error:
        raise ApprovalError(f"{folder}: {error}") from None
    renewal = folder / RENEWAL
    request = renewal / "person.request.json"
    if (renewal / KEY_FILE).exists():  # written last
        return request
    holder = identity_of(certificate)
    return write_person_request(
        renewal, name=holder.name, organisation=holder.organisation, role=holder.role, passphrase=passphrase
    )


def install_person_renewal(
    folder: Path, reply: Path, *, passphrase: bytes, root: x509.Certificate, now: datetime
) -> datetime:
    """Check the consortium's reply and put the renewed key and certificate in the place of the old ones.

    Returns: when the new certificate ends. Raises: OnboardingError for a certificate that is another's, not the new
        key's, not valid now or no longer than the old one; ApprovalError on a wrong passphrase. Nothing was changed.
    """
    renewal, previous = folder / RENEWAL, folder / PREVIOUS
    if not (renewal / KEY_FILE).exists():
        raise OnboardingError(f"{folder}: no renewal was asked for; `zegel person renew` does")
    try:
        new = load_certificate(reply.read_bytes())
        holder = verify_certificate(new, root, at=now, roles=PEOPLE)
        sealed = (renewal / KEY_FILE).read_bytes()
        key = load_private_key(sealed, passphrase)
    except (AuditError, OSError) as error:
        raise OnboardingError(f"{reply}: {error}; nothing was changed") from None
    # After a crash the certificate in place may be the new one already.
    old = _certificate(previous if (previous / CERTIFICATE_FILE).exists() else folder)
    before = identity_of(old)
    if (holder.person, holder.role) != (before.person, before.role):
        raise OnboardingError(f"{reply} is {holder}'s certificate, this folder is {before}'s; nothing was changed")
    if key.public_key() != new.public_key():
        raise OnboardingError(f"{reply} does not belong to the new key in {renewal}; nothing was changed")
    if new.not_valid_after_utc <= old.not_valid_after_utc:
        raise OnboardingError(f"{reply} ends no later than the certificate in use; nothing was changed")
    if not (previous / CERTIFICATE_FILE).exists():
        previous.mkdir(mode=0o700, exist_ok=True)
        write_durably(previous / KEY_FILE, (folder / KEY_FILE).read_bytes())
        write_durably(previous / CERTIFICATE_FILE, (folder / CERTIFICATE_FILE).read_bytes())
    write_durably(folder / KEY_FILE, sealed)
    write_durably(folder / CERTIFICATE_FILE, reply.read_bytes())
    shutil.rmtree(previous)
    shutil.rmtree(renewal)
    return new.not_valid_after_utc


def _certificate(folder: Path) -> x509.Certificate:
    try:
        return load_certificate((folder / CERTIFICATE_FILE).read_bytes())
    except (AuditError, OSError) as error:
        raise ApprovalError(f"{folder} holds no person's certificate: {error}") from None
