"""Passkeys of accounts: which there are, which of them have a certificate, and what a new one asks for.

Invariants:
- A passkey is here only after it has signed (`admin_api.web.sign_in.passkey_ceremonies`); what it signed first is its
  own request for a certificate.
- No two passkeys share a key, across all accounts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlmodel import Session, col, select

from admin_api.passkeys import PasskeyRequest, passkey_certificates, public_key_of_cose
from admin_api.web.context import Workplace
from admin_api.web.database import Database, utc
from admin_api.web.language import _
from admin_api.web.sign_in.accounts import ACTIVE, Account, seen
from admin_api.web.sign_in.errors import NoSuch, SignInError
from admin_api.web.sign_in.recording import note_ended
from admin_api.web.sign_in.tables import AccountRow, PasskeyRow
from audit import access
from audit.canonical import decode_base64, digest_of
from audit.certificates import PEOPLE, PublicKey, public_key_of
from audit.passkey import Assertion


@dataclass(frozen=True)
class Passkey:
    """A passkey of an account. `name` is what its owner calls it."""

    credential_id: str  # base64url
    account: str
    name: str
    public_key: bytes  # COSE
    key_digest: str  # sha256:<hex> of its SubjectPublicKeyInfo: the fingerprint of its certificate request
    backed_up: bool
    made: datetime
    last_used: datetime | None


@dataclass(frozen=True)
class Waiting:
    """A passkey whose owner may sign once it has a certificate."""

    account: Account
    passkey: Passkey
    spki: bytes


def public_key_spki(passkey: Passkey) -> bytes:
    """The public key as a certificate holds it: SubjectPublicKeyInfo in DER."""
    return spki_of(public_key_of_cose(passkey.public_key))


def passkeys_of(database: Database, account_id: str) -> list[Passkey]:
    """An account's passkeys, oldest first."""
    with database.reading() as session:
        return [_seen(row) for row in rows_of(session, account_id)]


def passkey_of(here: Workplace, account_id: str, credential_id: str) -> Passkey:
    """One of an account's passkeys. Raises SignInError when it has no such one."""
    with here.database.reading() as session:
        return _seen(row_of(session, account_id, credential_id))


def certificates_of(here: Workplace, passkeys: list[Passkey]) -> dict[str, str]:
    """For each passkey that has a certificate: the newest one's digest, by credential id. Raises AuditError."""
    by_key = {
        digest_of(spki_of(public_key_of(certificate))): digest
        for digest, certificate in passkey_certificates(here.home).items()
    }
    return {each.credential_id: by_key[each.key_digest] for each in passkeys if each.key_digest in by_key}


def passkeys_without_certificate(here: Workplace) -> list[Waiting]:
    """Passkeys of active accounts of the four roles that no certificate names, oldest first. Raises AuditError."""
    query = (
        select(PasskeyRow, AccountRow)
        .where(PasskeyRow.account == AccountRow.id, AccountRow.state == ACTIVE, col(AccountRow.role).in_(PEOPLE))
        .order_by(col(PasskeyRow.made))
    )
    with here.database.reading() as session:
        found = [(seen(account), _seen(row)) for row, account in session.exec(query)]
    certified = certificates_of(here, [passkey for _, passkey in found])
    return [
        Waiting(account, passkey, public_key_spki(passkey))
        for account, passkey in found
        if passkey.credential_id not in certified
    ]


def signing_request(here: Workplace, account_id: str, credential_id: str) -> tuple[PasskeyRequest, bytes, Assertion]:
    """A passkey's request for a certificate with its signature, for `admin_api.passkeys.write_passkey_request`.

    Raises SignInError for a passkey that asks for none, such as a hospital contact's.
    """
    with here.database.reading() as session:
        row = row_of(session, account_id, credential_id)
        account = session.get(AccountRow, account_id)
        if row.proof is None or account is None:
            raise SignInError(_("this passkey signs people in and nothing else"))
        proof = json.loads(row.proof)
        request = PasskeyRequest(
            proof["name"],
            proof["organisation"],
            proof["role"],
            proof["relying_party"],
            public_key_of_cose(row.public_key),
        )
        return request, decode_base64(proof["signature"], "signature"), Assertion.from_json(proof["passkey"])


def rename(here: Workplace, account_id: str, credential_id: str, name: str) -> Passkey:
    """Call a passkey something else. Raises SignInError when the account has no such one."""
    with here.database.begin() as session:
        row = row_of(session, account_id, credential_id)
        row.name = name
        session.add(row)
        return _seen(row)


def remove(here: Workplace, account_id: str, credential_id: str) -> None:
    """Remove a passkey, not the last one. Its certificate stays until it is revoked. Raises SignInError."""
    with here.database.begin() as session:
        session.get(AccountRow, account_id, with_for_update=True)
        rows = rows_of(session, account_id)
        row = row_of(session, account_id, credential_id)
        if len(rows) == 1:
            raise SignInError(_("this is your only passkey; add another one first, or you cannot sign in again"))
        session.delete(row)
        note_ended(session, here, account_id, access.PASSKEY_REMOVED, by=account_id)


def rows_of(session: Session, account_id: str) -> list[PasskeyRow]:
    """An account's passkeys, oldest first."""
    query = select(PasskeyRow).where(PasskeyRow.account == account_id).order_by(col(PasskeyRow.made), PasskeyRow.id)
    return list(session.exec(query))


def row_of(session: Session, account_id: str, credential_id: str) -> PasskeyRow:
    """One of an account's passkeys. Raises NoSuch."""
    row = session.get(PasskeyRow, credential_id)
    if row is None or row.account != account_id:
        raise NoSuch(_("this account has no such passkey"))
    return row


def _seen(row: PasskeyRow) -> Passkey:
    return Passkey(
        credential_id=row.id,
        account=row.account,
        name=row.name,
        public_key=row.public_key,
        key_digest=row.key_digest,
        backed_up=row.backed_up,
        made=utc(row.made),
        last_used=None if row.last_used is None else utc(row.last_used),
    )


def spki_of(key: PublicKey) -> bytes:
    """A key as a certificate holds it: SubjectPublicKeyInfo in DER."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
