"""DSSE envelopes: a payload with its type, and the signatures of several people over both.

The signed bytes are DSSE's pre-authentication encoding, so a signature over one type of payload cannot pass as one
over another. Keys are named by the digest of the signer's certificate; the name is a hint, what counts is that the
certificate's key made the signature.

>>> pae("http://example.com/HelloWorld", b"hello world")
b'DSSEv1 29 http://example.com/HelloWorld 11 hello world'

Source: DSSE v1.0 protocol and envelope. P-256 signs with ECDSA over SHA-256, Ed25519 as it is, RSA with PSS as all of
our signatures do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509

from audit import schema
from audit.canonical import canonical_json, check_digest, decode_base64, encode_base64, parse_json_object
from audit.certificates import PrivateKey, certificate_digest, public_key_of, relying_party_of
from audit.errors import CanonicalError, DocumentError, EntryError, StatementError
from audit.signatures import sign_bytes, verify_bytes


@dataclass(frozen=True)
class Signature:
    """A signature, and the digest of the certificate that is said to have made it."""

    certificate: str
    signature: bytes


@dataclass(frozen=True)
class Envelope:
    """A payload and who signed it. Nothing is verified by making one."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]

    def to_json(self) -> dict[str, Any]:
        """The envelope's JSON form."""
        return {
            "payload": encode_base64(self.payload),
            "payloadType": self.payload_type,
            "signatures": [
                {"keyid": each.certificate, "sig": encode_base64(each.signature)} for each in self.signatures
            ],
        }

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return canonical_json(self.to_json())

    @classmethod
    def from_bytes(cls, data: bytes) -> Envelope:
        """Reads canonical bytes; raises DocumentError for any other form, no signature, or two by one certificate."""
        try:
            value = parse_json_object(data, "DSSE envelope")
            _ENVELOPE(value, "DSSE envelope")
            signatures = tuple(
                Signature(check_digest(item["keyid"], "keyid"), decode_base64(item["sig"], "sig"))
                for item in value["signatures"]
            )
            payload = decode_base64(value["payload"], "payload")
        except (CanonicalError, EntryError) as error:
            raise DocumentError(str(error)) from error
        if not signatures or len({each.certificate for each in signatures}) != len(signatures):
            raise DocumentError("DSSE envelope: expected signatures, one per certificate")
        return cls(value["payloadType"], payload, signatures)

    def verify(self, certificates: Mapping[str, x509.Certificate]) -> Sequence[x509.Certificate]:
        """The signers' certificates, in order. Raises DocumentError for an unknown certificate or a wrong signature.

        Whether a certificate was good for signing is the caller's to check.
        """
        found: list[x509.Certificate] = []
        for each in self.signatures:
            certificate = certificates.get(each.certificate)
            if certificate is None:
                raise DocumentError(
                    f"DSSE envelope: signed with certificate {each.certificate}, which is not known here"
                )
            if relying_party_of(certificate) is not None:
                raise DocumentError(f"DSSE envelope: {each.certificate} is a passkey's, which signs no envelopes")
            try:
                verify_bytes(public_key_of(certificate), each.signature, pae(self.payload_type, self.payload))
            except StatementError as error:
                raise DocumentError(f"DSSE envelope: signature by {each.certificate}: {error}") from error
            found.append(certificate)
        return found


def pae(payload_type: str, payload: bytes) -> bytes:
    """The pre-authentication encoding: the bytes that are signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign_envelope(payload_type: str, payload: bytes, key: PrivateKey, certificate: x509.Certificate) -> Signature:
    """One person's signature over a payload; raises DocumentError unless `key` is the certificate's and no passkey."""
    if key.public_key() != public_key_of(certificate):
        raise DocumentError("DSSE envelope: the private key does not belong to the certificate given")
    if relying_party_of(certificate) is not None:
        raise DocumentError("DSSE envelope: the certificate given is a passkey's, which signs no envelopes")
    return Signature(certificate_digest(certificate), sign_bytes(key, pae(payload_type, payload)))


_ENVELOPE = schema.fields_of(
    {
        "payload": schema.name,
        "payloadType": schema.name,
        "signatures": schema.list_of(schema.fields_of({"keyid": schema.digest, "sig": schema.name}, further=False)),
    },
    further=False,
)
