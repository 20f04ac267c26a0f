"""Signed statements: what a hospital or a person says, in one form for every kind.

The signed bytes are `b"zegel statement v1\\n"` and the statement's canonical JSON. The prefix keeps a
signature made for another purpose with the same key (TLS, a file) from passing as a statement, and the
statement's `type` and `consortium` keep one statement from passing as another.

Invariants:
- A statement is a JSON object with at least `type`, `consortium` and `time`.
- `certificate` is the digest of the signer's certificate; the verifier looks it up, it is never taken from
  the signer.
- RSA signs with PSS (SHA-256, MGF1 SHA-256, salt of 32 bytes), P-256 with ECDSA over SHA-256, Ed25519 as it
  is (`audit.signatures`).
- A passkey signs the SHA-256 of the same bytes as its challenge (`audit.passkey`). Then, and only then, the signed
  statement holds what else was signed, in `passkey`. The certificate says which of the two it must be.

Source: RFC 8785, WebAuthn Level 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography import x509

from audit.canonical import (
    canonical_json,
    check_digest,
    decode_base64,
    digest_of,
    encode_base64,
    parse_time,
    plain,
    shown,
)
from audit.certificates import (
    Identity,
    PrivateKey,
    certificate_digest,
    public_key_of,
    relying_party_of,
    verify_certificate,
)
from audit.errors import CanonicalError, StatementError
from audit.passkey import Assertion, challenge_for, verify_assertion
from audit.revocation import Revocations
from audit.signatures import sign_bytes, verify_bytes

PREFIX = b"zegel statement v1\n"
DATA_MANIFEST = "zegel/data-manifest/v1"
APPROVAL = "zegel/approval/v1"
ACCEPTANCE = "zegel/acceptance/v1"
REFUSAL = "zegel/refusal/v1"
RECEIPT = "zegel/receipt/v1"
METRICS = "zegel/metrics/v1"
PROPOSAL = "zegel/proposal/v1"
GATES = "zegel/gates/v1"
PRIVACY_AUDITED = "zegel/privacy-audited/v1"
CERTIFICATE_STATUS = "zegel/certificate-status/v1"
WITHDRAWAL = "zegel/withdrawal/v1"
SUPERSESSION = "zegel/supersession/v1"
WITNESS_ENROLMENT = "zegel/witness-enrolment/v1"
ERASURE = "zegel/erasure/v1"

_FIELDS = frozenset({"statement", "certificate", "signature"})
_PASSKEY = "passkey"


@dataclass(frozen=True)
class SignedStatement:
    """A statement, the digest of the signer's certificate and the signature. Nothing is verified by making
    one.
    """

    statement: Mapping[str, Any]
    certificate: str  # sha256:<hex>
    signature: bytes
    passkey: Assertion | None = None  # None: a private key in a file signed

    @property
    def type(self) -> str:
        """The statement's type, `zegel/<kind>/v1`."""
        return str(self.statement["type"])

    @property
    def time(self) -> datetime:
        """When the signer says it was made (UTC)."""
        return parse_time(self.statement["time"], "statement time")

    @property
    def digest(self) -> str:
        """Digest of the whole signed statement, by which others refer to it."""
        return digest_of(canonical_json(self.to_json()))

    def to_json(self) -> dict[str, Any]:
        """The JSON form that log entries embed."""
        value = {
            "statement": plain(self.statement),
            "certificate": self.certificate,
            "signature": encode_base64(self.signature),
        }
        return value if self.passkey is None else {**value, "passkey": self.passkey.to_json()}

    @classmethod
    def from_json(cls, value: object) -> SignedStatement:
        """Reads the JSON form; raises StatementError for missing or further fields and non-canonical base64.

        The result shares the statement with `value`; change neither.
        """
        if not isinstance(value, Mapping) or set(value) - {_PASSKEY} != _FIELDS:
            got = sorted(map(str, value)) if isinstance(value, Mapping) else type(value).__name__
            raise StatementError(f"signed statement: expected exactly {sorted(_FIELDS)}, got {got}")
        try:
            signature = decode_base64(value["signature"], "signature")
            certificate = check_digest(value["certificate"], "certificate")
            statement = value["statement"]
            _check(statement)
        except CanonicalError as error:
            raise StatementError(f"signed statement: {error}") from error
        passkey = Assertion.from_json(value[_PASSKEY]) if _PASSKEY in value else None
        return cls(statement, certificate, signature, passkey)


def one_or_list(items: Sequence[str]) -> str | list[str]:
    """How a statement says what it is about: the one, or a sorted list of several."""
    return items[0] if len(items) == 1 else sorted(items)


def listed(value: str | Sequence[str]) -> tuple[str, ...]:
    """What `one_or_list` wrote."""
    return (value,) if isinstance(value, str) else tuple(value)


def statement_bytes(statement: Mapping[str, Any]) -> bytes:
    """The bytes that are signed."""
    return PREFIX + canonical_json(dict(statement))


def _check(statement: object) -> None:
    if not isinstance(statement, Mapping):
        raise StatementError(f"statement: expected a JSON object, got {type(statement).__name__}")
    for field in ("type", "consortium", "time"):
        value = statement.get(field)
        if not isinstance(value, str) or not value:
            raise StatementError(f"statement: expected text in {field}, got {shown(value)}")
    parse_time(statement["time"], "statement time")


def sign_statement(statement: Mapping[str, Any], key: PrivateKey, certificate: x509.Certificate) -> SignedStatement:
    """Signs `statement` with `key`, the private key of `certificate`.

    Raises StatementError when the statement lacks type, consortium or time, has no canonical form, or when
    the key is not the certificate's, or that of a passkey.
    """
    if key.public_key() != public_key_of(certificate):
        raise StatementError("the private key does not belong to the certificate given")
    if relying_party_of(certificate) is not None:
        raise StatementError("the certificate given is a passkey's, which signs in a browser and nowhere else")
    copy = checked_statement(statement)
    return SignedStatement(copy, certificate_digest(certificate), sign_bytes(key, statement_bytes(copy)))


def checked_statement(statement: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a statement that may be signed.

    Raises StatementError when it lacks type, consortium or time, or has no canonical form.
    """
    try:
        copy: dict[str, Any] = plain(statement)
        _check(copy)
        statement_bytes(copy)
    except CanonicalError as error:
        raise StatementError(f"statement cannot be signed: {error}") from error
    return copy


def verify_statement(
    signed: SignedStatement,
    certificates: Mapping[str, x509.Certificate],
    root: x509.Certificate,
    *,
    at: datetime | None = None,
    expected_type: str,
    consortium: str,
    roles: frozenset[str] | None,
    revocations: Revocations | None = None,
) -> Identity:
    """Who signed.

    `certificates` maps digests to certificates; each is checked against its digest and against `root` at `at`
    (None: at the statement's own time). `expected_type` is the full type, such as `zegel/receipt/v1`.
    `revocations`, when given, are those in force now: a live check passes them, so that a stolen key ends with
    its revocation; whoever judges a logged statement asks them by the entry's index instead (`audit.evidence`).
    Raises StatementError for another type or consortium, an unknown certificate or a wrong signature, and
    CertificateError for a certificate that is not good for this.
    """
    what = f"statement {shown(signed.statement.get('type'))}"
    if signed.statement.get("type") != expected_type:
        raise StatementError(f"{what}: expected type {expected_type}")
    if signed.statement.get("consortium") != consortium:
        raise StatementError(
            f"{what}: expected consortium {consortium}, got {shown(signed.statement.get('consortium'))}"
        )
    certificate = certificates.get(signed.certificate)
    if certificate is None:
        raise StatementError(f"{what}: signed with certificate {signed.certificate}, which is not known here")
    if certificate_digest(certificate) != signed.certificate:
        raise StatementError(f"{what}: the certificate filed under {signed.certificate} is another one")
    try:
        moment = signed.time
        data = statement_bytes(signed.statement)
    except (CanonicalError, KeyError) as error:
        raise StatementError(f"{what}: {error}") from error
    identity = verify_certificate(certificate, root, at=moment if at is None else at, roles=roles)
    if revocations is not None:
        revocations.check(signed.certificate)
    _verify_signature(what, signed, certificate, identity, data)
    return identity


def _verify_signature(
    what: str, signed: SignedStatement, certificate: x509.Certificate, identity: Identity, data: bytes
) -> None:
    relying_party = relying_party_of(certificate)
    key = public_key_of(certificate)
    if relying_party is None:
        if signed.passkey is not None:
            raise StatementError(
                f"{what}: signed as by a passkey, but {identity.name}'s certificate is not a passkey's"
            )
        try:
            verify_bytes(key, signed.signature, data)
        except StatementError as error:
            raise StatementError(f"{what}: the signature is not {identity.name}'s over these bytes") from error
        return
    if signed.passkey is None:
        raise StatementError(
            f"{what}: expected an assertion of {identity.name}'s passkey for {relying_party}, got a plain signature"
        )
    try:
        verify_assertion(
            key,
            relying_party=relying_party,
            challenge=challenge_for(data),
            signature=signed.signature,
            assertion=signed.passkey,
        )
    except StatementError as error:
        raise StatementError(f"{what}: not signed by {identity.name} over these bytes: {error}") from error
