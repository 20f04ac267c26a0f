"""Passkeys of people who sign in a browser: whose certificates they have, and how a new one asks for one.

A registration with attestation `none` signs nothing, so it does not show that somebody holds the private key. A request
for a certificate is therefore signed by the new passkey itself, as an ordinary request is by its key: right after
`navigator.credentials.create`, the browser signs `PasskeyRequest.challenge` with `navigator.credentials.get`. Then the
request is a file as every other (`admin_api.onboarding.read_request`), and is approved as every other.

Source: WebAuthn Level 3 section 6.5.1.1 (COSE_Key examples), CTAP 2.1 section 8 (canonical CBOR), RFC 9053 section 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from admin_api.errors import ApprovalError, OnboardingError
from audit import schema
from audit.canonical import canonical_json, decode_base64, digest_of, encode_base64, parse_json_object
from audit.certificates import PEOPLE, Identity, public_key_of, relying_party_of, verify_certificate
from audit.durable_file import write_durably
from audit.errors import AuditError, StatementError
from audit.passkey import Assertion, AuthenticatorState, challenge_for, verify_assertion
from audit.relying_party import check_relying_party
from jobs.home import ConsortiumHome
from jobs.standing import certificate_evidence

SCHEMA = "zegel/passkey-request/v1"
_PREFIX = b"zegel passkey request v1\n"

PasskeyKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

# A COSE_Key has one spelling: canonical CBOR of its key type, algorithm, curve and coordinates.
_COSE_P256 = (b"\xa5\x01\x02\x03\x26\x20\x01\x21\x58\x20", b"\x22\x58\x20")  # EC2, ES256, P-256, x; y
_COSE_ED25519 = b"\xa4\x01\x01\x03\x27\x20\x06\x21\x58\x20"  # OKP, EdDSA, Ed25519, x


@dataclass(frozen=True)
class PasskeyHolder:
    """A person whose passkey's certificate counts now. They sign in a browser (`admin_api.signing`)."""

    identity: Identity
    certificate: x509.Certificate
    relying_party: str

    @property
    def certificate_digest(self) -> str:
        return self.identity.certificate_digest

    def check(self, challenge: bytes, signature: bytes, assertion: Assertion) -> AuthenticatorState:
        """Raises StatementError unless this passkey signed the challenge; for a statement and for signing in alike."""
        return verify_assertion(
            public_key_of(self.certificate),
            relying_party=self.relying_party,
            challenge=challenge,
            signature=signature,
            assertion=assertion,
        )


def open_passkey(home: ConsortiumHome, certificate_digest: str) -> PasskeyHolder:
    """The holder of a passkey, by its certificate.

    Raises: ApprovalError for a certificate that was not issued here, does not count now, or is no passkey's.
    """
    try:
        evidence = certificate_evidence(home)
        certificate = evidence.certificates.get(certificate_digest)
        if certificate is None:
            raise ApprovalError(f"certificate {certificate_digest} was not issued by this consortium")
        evidence.revocations.check(certificate_digest)
        identity = verify_certificate(certificate, home.root(), at=home.clock(), roles=PEOPLE)
        relying_party = relying_party_of(certificate)
    except AuditError as error:
        raise ApprovalError(str(error)) from None
    if relying_party is None:
        raise ApprovalError(f"{identity} signs with a key in a file, not in a browser")
    return PasskeyHolder(identity, certificate, relying_party)


def passkey_certificates(home: ConsortiumHome) -> dict[str, x509.Certificate]:
    """The certificates of passkeys by digest, in the order of issue; some may no longer count. Raises AuditError."""
    return {
        digest: certificate
        for digest, certificate in home.certificates().items()
        if relying_party_of(certificate) is not None
    }


def public_key_of_cose(cose: bytes) -> PasskeyKey:
    """The key of a registration's `credentialPublicKey`. Raises OnboardingError unless it is P-256 or Ed25519."""
    try:
        if len(cose) == 77 and cose.startswith(_COSE_P256[0]) and cose[42:45] == _COSE_P256[1]:
            x, y = int.from_bytes(cose[10:42]), int.from_bytes(cose[45:])
            return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
        if len(cose) == 42 and cose.startswith(_COSE_ED25519):
            return ed25519.Ed25519PublicKey.from_public_bytes(cose[10:])
    except ValueError as error:
        raise OnboardingError(f"the passkey's public key is no point of its curve: {error}") from None
    raise OnboardingError(
        f"the passkey's public key: expected P-256 with ES256 or Ed25519 with EdDSA in canonical CBOR, got {len(cose)} "
        "other bytes; make the passkey on another device"
    )


@dataclass(frozen=True)
class PasskeyRequest:
    """What somebody asks for with a new passkey. Making one raises OnboardingError for what cannot be asked."""

    name: str  # of the person; for a further certificate their person id will do
    organisation: str
    role: str
    relying_party: str
    key: PasskeyKey

    def __post_init__(self) -> None:
        for what, value in (("name", self.name), ("organisation", self.organisation)):
            if not value.strip() or not value.isprintable():
                raise OnboardingError(f"{what} {value!r}: expected printable text")
        if self.role not in PEOPLE:
            raise OnboardingError(f"role {self.role!r}: expected one of {', '.join(sorted(PEOPLE))}")
        try:
            check_relying_party(self.relying_party)
        except AuditError as error:
            raise OnboardingError(str(error)) from None

    @property
    def spki(self) -> bytes:
        """The public key as DER."""
        return self.key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)

    @property
    def fingerprint(self) -> str:
        """What the holder reads to whoever approves: `sha256:` of the key, as of every other request."""
        return digest_of(self.spki)

    @property
    def challenge(self) -> bytes:
        """What the new passkey signs: 32 bytes that stand for everything asked for."""
        return challenge_for(_PREFIX + canonical_json(self.to_json()))

    def to_json(self) -> dict[str, Any]:
        """What is asked for, without the signature."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "organisation": self.organisation,
            "role": self.role,
            "relying_party": self.relying_party,
            "key": encode_base64(self.spki),
        }


def write_passkey_request(path: Path, request: PasskeyRequest, signature: bytes, assertion: Assertion) -> Path:
    """Write a request with the new passkey's signature to a new file; returns its path.

    Raises: OnboardingError when the file is there already, or the signature is not the new passkey's over this request.
    """
    _check_possession(request, signature, assertion, "passkey request")
    if path.exists():
        raise OnboardingError(f"{path} exists already; choose another file")
    value = {**request.to_json(), "signature": encode_base64(signature), "passkey": assertion.to_json()}
    write_durably(path, canonical_json(value))
    return path


def is_passkey_request(value: Mapping[str, Any]) -> bool:
    """Whether the JSON of a request is a passkey's."""
    return value.get("schema") == SCHEMA


def read_passkey_request(data: bytes, what: str) -> PasskeyRequest:
    """The request in a file's bytes, signed by its own passkey. Raises OnboardingError naming `what`."""
    try:
        value = parse_json_object(data, what)
        _REQUEST(value, what)
        key = serialization.load_der_public_key(decode_base64(value["key"], "key"))
        signature = decode_base64(value["signature"], "signature")
        assertion = Assertion.from_json(value["passkey"])
    except (AuditError, ValueError, UnsupportedAlgorithm) as error:
        raise OnboardingError(f"{what} is not a passkey's request: {error}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        raise OnboardingError(f"{what}: expected a key of P-256 or Ed25519, got {type(key).__name__}")
    request = PasskeyRequest(value["name"], value["organisation"], value["role"], value["relying_party"], key)
    if request.to_json() != {name: value[name] for name in request.to_json()}:
        raise OnboardingError(f"{what}: the key is not in its one spelling (SubjectPublicKeyInfo)")
    _check_possession(request, signature, assertion, what)
    return request


def _check_possession(request: PasskeyRequest, signature: bytes, assertion: Assertion, what: str) -> None:
    try:
        verify_assertion(
            request.key,
            relying_party=request.relying_party,
            challenge=request.challenge,
            signature=signature,
            assertion=assertion,
        )
    except StatementError as error:
        raise OnboardingError(f"{what}: not signed by the passkey it is about: {error}") from None


_REQUEST = schema.fields_of(
    {
        "schema": schema.one_of(SCHEMA),
        "name": schema.name,
        "organisation": schema.name,
        "role": schema.name,
        "relying_party": schema.name,
        "key": schema.name,
        "signature": schema.name,
        "passkey": schema.mapping,
    },
    further=False,
)
