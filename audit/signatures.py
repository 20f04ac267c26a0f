"""Signatures over bytes with the kinds of key our certificates hold.

RSA signs with PSS (SHA-256, MGF1 SHA-256, salt of 32 bytes), P-256 with ECDSA over SHA-256, Ed25519 as it
is. What the bytes say must be unmistakable: every user puts a prefix of its own before them.

Source: RFC 8017 section 8.1, FIPS 186-5, RFC 8032.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from audit.certificates import PrivateKey, PublicKey
from audit.errors import StatementError

_SALT_LENGTH = 32  # bytes, the digest's length


def sign_bytes(key: PrivateKey, data: bytes) -> bytes:
    """The signature of `data` by `key`."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, _pss(), hashes.SHA256())
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(data, ec.ECDSA(hashes.SHA256()))
    return key.sign(data)


def verify_bytes(key: PublicKey, signature: bytes, data: bytes) -> None:
    """Raises StatementError unless `signature` is `key`'s over `data`."""
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, data, _pss(), hashes.SHA256())
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
        else:
            key.verify(signature, data)
    except InvalidSignature:
        raise StatementError("the signature does not fit these bytes and this key") from None


def _pss() -> padding.PSS:
    return padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=_SALT_LENGTH)
