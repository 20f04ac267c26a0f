"""Private keys of people and of the log: making, storing and reading them, and asking for a certificate.

Invariants:
- A person's key is P-256, the log's Ed25519; both are stored as PEM PKCS8, encrypted when a passphrase is
  given.
- A key never travels: a request for a certificate holds the public key and a signature only.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from audit.canonical import shown
from audit.certificates import PrivateKey
from audit.errors import CertificateError


def generate_person_key() -> ec.EllipticCurvePrivateKey:
    """A new P-256 key from the operating system's randomness."""
    return ec.generate_private_key(ec.SECP256R1())


def generate_log_key() -> ed25519.Ed25519PrivateKey:
    """A new Ed25519 key from the operating system's randomness."""
    return ed25519.Ed25519PrivateKey.generate()


def private_key_pem(key: PrivateKey, passphrase: bytes | None = None) -> bytes:
    """PEM PKCS8; encrypted when `passphrase` is given. An empty passphrase is refused, not taken as none."""
    if passphrase == b"":
        raise CertificateError("passphrase is empty; give one, or None to store the key unencrypted")
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def load_private_key(pem: bytes, passphrase: bytes | None = None) -> PrivateKey:
    """The key; raises CertificateError for a wrong or missing passphrase and for key types we do not sign
    with.
    """
    try:
        key = serialization.load_pem_private_key(pem, passphrase)
    except TypeError as error:
        needed = (
            "a passphrase is needed" if passphrase is None else "the key is not encrypted; leave the passphrase out"
        )
        raise CertificateError(f"private key cannot be read: {needed}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError(f"private key cannot be read (wrong passphrase or damaged file): {error}") from error
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise CertificateError(f"private key: expected RSA, P-256 or Ed25519, got {type(key).__name__}")
    return key


def make_request(key: PrivateKey, name: str, organisation: str) -> x509.CertificateSigningRequest:
    """A certificate request for `key`. The role is not asked for: the consortium decides it."""
    try:
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, name),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
            ]
        )
    except ValueError as error:
        raise CertificateError(f"name {shown(name)} or organisation {shown(organisation)}: {error}") from error
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, algorithm)


def load_request(pem: bytes) -> x509.CertificateSigningRequest:
    """A request in PEM; raises CertificateError for anything else."""
    try:
        return x509.load_pem_x509_csr(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError(f"not a certificate request in PEM: {error}") from error
