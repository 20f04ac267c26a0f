"""Passkey signatures: a browser's word that the holder of a passkey agreed to a challenge.

A passkey signs no bytes of ours. It signs

    authenticator data || SHA-256(client data)

where the client data, JSON that the browser makes, holds a challenge. For a signed statement the challenge is the
SHA-256 of the statement's bytes, so the signature covers the statement and, besides, from which page it was asked for
and that the person was verified (by fingerprint, face or PIN).

Invariants:
- Nothing is taken from the assertion that the certificate or the statement decides: key, relying party, challenge.
- User presence and user verification are demanded. What happened in a frame of another site is refused.
- Client data is JSON in UTF-8 without duplicate keys; keys we do not know are allowed, as the standard asks.

What it does not prove: that the person saw the statement. The page shows it, the authenticator does not. Nor is the
signature counter judged, which needs memory; who signs people in may.

All fields are public. Source: WebAuthn Level 3, sections 6.1 (authenticator data), 5.8.1 (client data), 7.2.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from audit.canonical import decode_base64, encode_base64, shown
from audit.certificates import PublicKey
from audit.errors import CanonicalError, StatementError
from audit.relying_party import check_origin
from audit.signatures import verify_bytes

MAX_CLIENT_DATA = 4096  # bytes
MAX_AUTHENTICATOR_DATA = 1024  # bytes
_FIXED = 37  # bytes: SHA-256 of the relying party, flags, counter
_GET = "webauthn.get"
_FIELDS = frozenset({"authenticator_data", "client_data"})

# Flags of authenticator data
USER_PRESENT = 0x01
USER_VERIFIED = 0x04
BACKUP_ELIGIBLE = 0x08
BACKED_UP = 0x10
ATTESTED_KEY = 0x40
EXTENSIONS = 0x80


@dataclass(frozen=True)
class Assertion:
    """What was signed besides the challenge, as the browser hands it over. Nothing is verified by making one."""

    authenticator_data: bytes
    client_data: bytes

    def to_json(self) -> dict[str, str]:
        """The form in a signed statement."""
        return {
            "authenticator_data": encode_base64(self.authenticator_data),
            "client_data": encode_base64(self.client_data),
        }

    @classmethod
    def from_json(cls, value: object) -> Assertion:
        """Reads that form; raises StatementError for other fields, other spellings of base64 and what is too long."""
        if not isinstance(value, Mapping) or set(value) != _FIELDS:
            got = sorted(map(str, value)) if isinstance(value, Mapping) else type(value).__name__
            raise StatementError(f"passkey: expected exactly {sorted(_FIELDS)}, got {shown(got)}")
        try:
            assertion = cls(
                decode_base64(value["authenticator_data"], "passkey: authenticator_data"),
                decode_base64(value["client_data"], "passkey: client_data"),
            )
        except CanonicalError as error:
            raise StatementError(str(error)) from error
        _check_sizes(assertion)
        return assertion


@dataclass(frozen=True)
class AuthenticatorState:
    """What an authenticator says about itself. Nothing of a statement's verification rests on it."""

    sign_count: int  # 0 where the authenticator does not count
    backup_eligible: bool  # the key may be synchronised to other devices
    backed_up: bool


def challenge_for(data: bytes) -> bytes:
    """The challenge by which a passkey signs `data`: 32 bytes."""
    return hashlib.sha256(data).digest()


def verify_assertion(
    key: PublicKey, *, relying_party: str, challenge: bytes, signature: bytes, assertion: Assertion
) -> AuthenticatorState:
    """Raises StatementError, naming what is wrong, unless `key` signed `challenge` for `relying_party`.

    `signature` is as browsers give it: DER of ECDSA over SHA-256 for P-256, 64 bytes for Ed25519.
    """
    _check_sizes(assertion)
    _check_client_data(assertion.client_data, relying_party, challenge)
    state = _check_authenticator_data(assertion.authenticator_data, relying_party)
    signed = assertion.authenticator_data + hashlib.sha256(assertion.client_data).digest()
    try:
        verify_bytes(key, signature, signed)
    except StatementError as error:
        raise StatementError(f"passkey: {error}") from error
    return state


def _check_sizes(assertion: Assertion) -> None:
    for what, content, least, most in (
        ("authenticator data", assertion.authenticator_data, _FIXED, MAX_AUTHENTICATOR_DATA),
        ("client data", assertion.client_data, 2, MAX_CLIENT_DATA),
    ):
        if not least <= len(content) <= most:
            raise StatementError(f"passkey: {what}: expected {least} to {most} bytes, got {len(content)}")


def _check_client_data(data: bytes, relying_party: str, challenge: bytes) -> None:
    said = _client_data(data)
    if said.get("type") != _GET:
        raise StatementError(f"passkey: client data: expected type {_GET}, got {shown(said.get('type'))}")
    expected = base64.urlsafe_b64encode(challenge).decode("ascii").rstrip("=")
    if said.get("challenge") != expected:
        raise StatementError(
            f"passkey: client data: expected challenge {expected}, which these bytes give, got "
            f"{shown(said.get('challenge'))}"
        )
    origin = said.get("origin")
    if not isinstance(origin, str):
        raise StatementError(f"passkey: client data: expected text in origin, got {shown(origin)}")
    try:
        check_origin(origin, relying_party)
    except StatementError as error:
        raise StatementError(f"passkey: client data: {error}") from error
    if said.get("crossOrigin", False) is not False or "topOrigin" in said:
        raise StatementError("passkey: client data: signed in a frame of another site's page")


def _client_data(data: bytes) -> Mapping[str, Any]:
    try:
        said = _JSON.decode(data.decode("utf-8"))
    except StatementError:
        raise
    except (ValueError, RecursionError) as error:
        raise StatementError(f"passkey: client data: not JSON in UTF-8: {error}") from error
    if not isinstance(said, dict):
        raise StatementError(f"passkey: client data: expected a JSON object, got {type(said).__name__}")
    return said


def _check_authenticator_data(data: bytes, relying_party: str) -> AuthenticatorState:
    if data[:32] != hashlib.sha256(relying_party.encode()).digest():
        raise StatementError(f"passkey: authenticator data: not made for the relying party {relying_party}")
    flags = data[32]
    for flag, what in ((USER_PRESENT, "nobody was present (UP)"), (USER_VERIFIED, "the user was not verified (UV)")):
        if not flags & flag:
            raise StatementError(f"passkey: authenticator data: {what}")
    if flags & BACKED_UP and not flags & BACKUP_ELIGIBLE:
        raise StatementError("passkey: authenticator data: backed up (BS), but not eligible for it (BE)")
    if flags & ATTESTED_KEY:
        raise StatementError("passkey: authenticator data: holds a new key (AT), as only registrations do")
    if bool(flags & EXTENSIONS) != (len(data) > _FIXED):
        raise StatementError(
            f"passkey: authenticator data: {len(data) - _FIXED} bytes of extensions, the flag (ED) says otherwise"
        )
    return AuthenticatorState(int.from_bytes(data[33:_FIXED]), bool(flags & BACKUP_ELIGIBLE), bool(flags & BACKED_UP))


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise StatementError("passkey: client data: an object holds the same key twice")
    return result


def _no_constant(text: str) -> NoReturn:
    raise StatementError(f"passkey: client data: {text} is not a JSON number")


_JSON = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
