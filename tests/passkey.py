"""A passkey in software: what a browser and an authenticator do together, for one relying party.

It makes registrations and assertions as WebAuthn describes them. Tests that need a lie change one part of what it would
say; everything else stays consistent, and the signature covers the lie.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from audit.passkey import (
    ATTESTED_KEY,
    BACKED_UP,
    BACKUP_ELIGIBLE,
    USER_PRESENT,
    USER_VERIFIED,
    Assertion,
)

P256, ED25519 = "P-256", "Ed25519"


@dataclass
class SoftwarePasskey:
    """One credential. `sign_count` grows with each use, as that of a security key does."""

    relying_party: str = "consortium.example"
    algorithm: str = P256
    origin: str | None = None  # None: https and the relying party
    flags: int = USER_PRESENT | USER_VERIFIED | BACKUP_ELIGIBLE | BACKED_UP
    sign_count: int = 0
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey = field(init=False, repr=False)

    def __post_init__(self) -> None:
        ours = self.algorithm == P256
        self.key = ec.generate_private_key(ec.SECP256R1()) if ours else ed25519.Ed25519PrivateKey.generate()

    @property
    def public_key(self) -> ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey:
        return self.key.public_key()

    @property
    def credential_id(self) -> bytes:
        return hashlib.sha256(self.cose).digest()[:16]

    @property
    def cose(self) -> bytes:
        """The public key as a COSE_Key in CTAP2's canonical CBOR."""
        public = self.public_key
        if isinstance(public, ed25519.Ed25519PublicKey):
            return b"\xa4\x01\x01\x03\x27\x20\x06\x21\x58\x20" + public.public_bytes_raw()
        numbers = public.public_numbers()
        x, y = numbers.x.to_bytes(32), numbers.y.to_bytes(32)
        return b"\xa5\x01\x02\x03\x26\x20\x01\x21\x58\x20" + x + b"\x22\x58\x20" + y

    def register(self, challenge: bytes) -> tuple[bytes, bytes]:
        """Client data and attestation object (attestation `none`) of `navigator.credentials.create`."""
        data = self.authenticator_data(flags=self.flags | ATTESTED_KEY)
        data += bytes(16) + len(self.credential_id).to_bytes(2) + self.credential_id + self.cose
        # {"fmt": "none", "attStmt": {}, "authData": data}
        head = b"\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData"
        return self.client_data(challenge, type="webauthn.create"), head + b"\x59" + len(data).to_bytes(2) + data

    def assertion(self, challenge: bytes, /, **said: object) -> tuple[bytes, Assertion]:
        """Signature and assertion of `navigator.credentials.get`; `said` changes what the client data says."""
        self.sign_count += 1
        return self.signed(self.authenticator_data(), self.client_data(challenge, **said))

    def signed(self, authenticator_data: bytes, client_data: bytes) -> tuple[bytes, Assertion]:
        """These bytes, whatever they say, with a signature that fits them."""
        data = authenticator_data + hashlib.sha256(client_data).digest()
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            signature = self.key.sign(data)
        else:
            signature = self.key.sign(data, ec.ECDSA(hashes.SHA256()))
        return signature, Assertion(authenticator_data, client_data)

    def authenticator_data(self, *, flags: int | None = None, relying_party: str | None = None) -> bytes:
        """The part that every ceremony has: 37 bytes."""
        name = self.relying_party if relying_party is None else relying_party
        flags = self.flags if flags is None else flags
        return hashlib.sha256(name.encode()).digest() + bytes([flags]) + self.sign_count.to_bytes(4)

    def client_data(self, challenge: bytes, /, **said: object) -> bytes:
        """What a browser writes; a field of `said` that is None is left out."""
        fields: dict[str, object] = {
            "type": "webauthn.get",
            "challenge": base64url(challenge),
            "origin": self.origin or f"https://{self.relying_party}",
            "crossOrigin": False,
            **said,
        }
        present = {name: value for name, value in fields.items() if value is not None}
        return json.dumps(present, separators=(",", ":")).encode()


def base64url(data: bytes) -> str:
    """Without padding, as browsers write it."""
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")
