"""People who sign, with a key in a folder of theirs or with a passkey in their browser.

A key in a folder is made by `zegel person request`; the consortium's reply is the certificate beside it. A passkey has
a certificate in the log and no file at all (`admin_api.passkeys`, `admin_api.signing`).

Certificates, statements and the log know people by person id; names stand beside the log (`audit.disclosure`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from admin_api.errors import ApprovalError
from audit.certificates import (
    PEOPLE,
    Identity,
    PrivateKey,
    load_certificate,
    relying_party_of,
    verify_certificate,
)
from audit.disclosure import COMMITTING, Disclosed
from audit.entry import CERTIFICATE_ISSUED
from audit.errors import AuditError
from audit.revocation import Revocations
from audit.signing_keys import load_private_key
from audit.statement import SignedStatement, sign_statement
from jobs.home import ConsortiumHome

KEY_FILE = "person.key"
CERTIFICATE_FILE = "person.crt"


@dataclass(frozen=True)
class Person:
    """An opened key with its certificate, verified against the root. Keep it no longer than needed."""

    identity: Identity
    key: PrivateKey
    certificate: x509.Certificate

    @property
    def certificate_digest(self) -> str:
        return self.identity.certificate_digest

    def require(self, *roles: str) -> None:
        """Raises ApprovalError unless the person has one of these roles."""
        check_role(self.identity, roles)

    def now(self, clock: Callable[[], datetime]) -> datetime:
        """The time that what they sign states."""
        return clock()

    def random_bytes(self, size: int) -> bytes:
        """Bytes that nobody can foresee."""
        return os.urandom(size)

    def sign(self, statement: Mapping[str, Any]) -> SignedStatement:
        """The person's signature over a statement. Raises StatementError for one that cannot be signed."""
        return sign_statement(statement, self.key, self.certificate)


def check_role(identity: Identity, roles: tuple[str, ...]) -> None:
    """Raises ApprovalError unless the person has one of these roles."""
    if identity.role not in roles:
        raise ApprovalError(f"{identity} may not do this; it needs the role {' or '.join(roles)}")


def open_person(
    folder: Path, *, passphrase: bytes, root: x509.Certificate, now: datetime, revocations: Revocations | None = None
) -> Person:
    """Open a person's key.

    Raises: ApprovalError on a wrong passphrase, a missing or an invalid certificate, or one that `revocations`, those
        in force now, do not let count.
    """
    try:
        certificate = load_certificate((folder / CERTIFICATE_FILE).read_bytes())
        identity = verify_certificate(certificate, root, at=now, roles=PEOPLE)
        if revocations is not None:
            revocations.check(identity.certificate_digest)
        key = load_private_key((folder / KEY_FILE).read_bytes(), passphrase)
    except FileNotFoundError as error:
        raise ApprovalError(
            f"{error.filename} is missing; `zegel person request` makes the key, and the consortium's reply is "
            f"{CERTIFICATE_FILE}"
        ) from None
    except (AuditError, OSError) as error:
        raise ApprovalError(f"{folder}: {error}") from None
    if relying_party_of(certificate) is not None:
        raise ApprovalError(f"{folder}: {CERTIFICATE_FILE} is a passkey's, which signs in a browser")
    if key.public_key() != certificate.public_key():
        raise ApprovalError(f"{folder}: {KEY_FILE} and {CERTIFICATE_FILE} do not belong together")
    return Person(identity, key, certificate)


def disclosed_now(home: ConsortiumHome) -> Disclosed:
    """The names and reasons that may be shown. Raises AuditError for a damaged log, or a damaged file beside it."""
    with home.log() as log:
        return home.disclosures().disclosed(each for kind in COMMITTING for each in log.entries(kind=kind))


def people_of(home: ConsortiumHome) -> list[dict[str, str]]:
    """Every person's certificate with the name, where it is not erased, in the order of issue. Raises AuditError."""
    said = disclosed_now(home)
    with home.log() as log:
        bodies = [entry.body for _, entry in log.entries(kind=CERTIFICATE_ISSUED)]
    return [
        {
            "person": body["name"],
            "name": said.value(body["holder"]),
            "organisation": body["organisation"],
            "role": body["role"],
            "until": body["not_after"],
            "certificate": body["digest"],
            "commitment": body["holder"],
        }
        for body in bodies
        if body["holder"] is not None
    ]


def is_called(said: Disclosed, holder: str, name: str) -> bool:
    """Whether a certificate's holder goes by `name`: a hospital's name, a person id, or a person's name."""
    return holder == name or said.name(holder).casefold() == name.casefold()
