"""Certificates: who somebody is, decided from one self-signed root.

Invariants:
- Every certificate we accept is a leaf issued directly by the root; there are no intermediates.
- The role is the subject's UNSTRUCTURED_NAME (where NVFlare puts it), the person or machine its CN, the
  organisation its O; each occurs exactly once.
- People and the log hold certificates for signing documents only (KeyUsage digitalSignature and
  contentCommitment, EKU documentSigning), so that TLS refuses them; hospitals and the server hold NVFlare's.
- A renewed certificate is a new certificate: identity is compared by name and organisation, never by digest.
- A person's key is a private key in a file, or a passkey: then the certificate's one alternative name says for which
  relying party it signs (`audit.relying_party`), and only assertions of that kind count (`audit.passkey`).

Source: RFC 5280 (profile), RFC 9336 (documentSigning).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from audit.canonical import DIGEST_PREFIX, shown
from audit.errors import CertificateError
from audit.relying_party import SCHEME, relying_party_in, relying_party_uri

CLIENT = "client"
SERVER = "server"
CONSORTIUM_ADMIN = "consortium_admin"
PRIVACY_OFFICER = "privacy_officer"
RELEASE_MANAGER = "release_manager"
AUTHORITY = "authority"
LOG = "log"
PEOPLE = frozenset({CONSORTIUM_ADMIN, PRIVACY_OFFICER, RELEASE_MANAGER, AUTHORITY})
MACHINES = frozenset({CLIENT, SERVER})
ROLES = PEOPLE | MACHINES | {LOG}
PERSON_ID = re.compile(r"person-[0-9a-f]{16}", re.ASCII)  # a person's CN; the name stands beside the log

DOCUMENT_SIGNING = ObjectIdentifier("1.3.6.1.5.5.7.3.36")  # id-kp-documentSigning, RFC 9336
_TLS_PURPOSES = frozenset(
    {
        ExtendedKeyUsageOID.CLIENT_AUTH,
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
    }
)
_UNDERSTOOD = (x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage, x509.SubjectAlternativeName)
_MIN_RSA_BITS = 2048

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
RootKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Identity:
    """Whom a verified certificate names. All fields are public."""

    name: str  # subject CN; of a person the person id, never a name
    organisation: str  # subject O
    role: str  # subject UNSTRUCTURED_NAME
    certificate_digest: str  # sha256:<hex of the DER>

    @property
    def person(self) -> tuple[str, str]:
        """What makes two certificates belong to one person: the person id, wherever they work. Machines have name
        and organisation, letter case aside.
        """
        return (self.name.casefold(), "" if self.role in PEOPLE else self.organisation.casefold())

    def __str__(self) -> str:
        return f"{self.name} ({self.role}, {self.organisation})"


def person_id(random_bytes: bytes) -> str:
    """A new person's id, from 8 random bytes."""
    if len(random_bytes) != 8:
        raise ValueError(f"expected 8 random bytes, got {len(random_bytes)}")
    return f"person-{random_bytes.hex()}"


def load_certificate(data: bytes) -> x509.Certificate:
    """One certificate in PEM or DER; raises CertificateError for anything else, or for several."""
    try:
        if data.lstrip().startswith(b"-----BEGIN"):
            certificates = x509.load_pem_x509_certificates(data)
            if len(certificates) != 1:
                raise CertificateError(f"expected one certificate, got {len(certificates)}")
            return certificates[0]
        return x509.load_der_x509_certificate(data)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise CertificateError(f"not a certificate in PEM or DER: {error}") from error


def certificate_pem(certificate: x509.Certificate) -> str:
    """The certificate's one PEM spelling."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def certificate_digest(certificate: x509.Certificate) -> str:
    """`sha256:<hex>` of the certificate's DER."""
    der = certificate.public_bytes(serialization.Encoding.DER)
    return DIGEST_PREFIX + hashlib.sha256(der).hexdigest()


def root_fingerprint(root: x509.Certificate) -> str:
    """What people compare over the telephone: `sha256:<hex>` of the root certificate's DER."""
    return certificate_digest(root)


def public_key_of(certificate: x509.Certificate) -> PublicKey:
    """The key, if it is one we sign with: RSA of at least 2048 bits, P-256, or Ed25519."""
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError(f"certificate holds a key we cannot read: {error}") from error
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < _MIN_RSA_BITS:
            raise CertificateError(f"RSA key: expected at least {_MIN_RSA_BITS} bits, got {key.key_size}")
        return key
    if isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, ec.SECP256R1):
            raise CertificateError(f"elliptic curve: expected P-256, got {key.curve.name}")
        return key
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    raise CertificateError(f"key type: expected RSA, P-256 or Ed25519, got {type(key).__name__}")


def check_root(root: x509.Certificate) -> None:
    """Raises CertificateError unless `root` is a self-signed certificate authority."""
    _check_issued_by(root, root, "root certificate")
    constraints, usage, _ = _extensions(root, "root certificate")
    if constraints is None or not constraints.ca:
        raise CertificateError("root certificate: expected a certificate authority (CA:TRUE), got a leaf")
    if usage is not None and not usage.key_cert_sign:
        raise CertificateError("root certificate: key usage does not allow signing certificates")


def verify_certificate(
    certificate: x509.Certificate,
    root: x509.Certificate,
    *,
    at: datetime,
    roles: frozenset[str] | None = None,
) -> Identity:
    """Who the certificate names, when the root vouches for it.

    `at` is an aware datetime at which both certificates must be valid. `roles` are the roles allowed here;
    None allows every role we know. Raises CertificateError when the root is not a self-signed authority or
    did not sign the certificate, when it is itself an authority, outside its validity, of another role, not
    made for signing, or when its subject does not hold exactly one CN, O and role.
    """
    identity = _vouched(certificate, root)
    what = f"certificate of {identity.name}"
    _check_validity(root, at, "root certificate")
    _check_validity(certificate, at, what)
    allowed = ROLES if roles is None else roles
    if identity.role not in allowed:
        raise CertificateError(f"{what}: expected role {' or '.join(sorted(allowed))}, got {identity.role}")
    return identity


@lru_cache(maxsize=1024)
def _vouched(certificate: x509.Certificate, root: x509.Certificate) -> Identity:
    """What does not depend on time or use. Remembered: a dossier asks the same of a hospital for every
    round.
    """
    check_root(root)
    identity = _identity(certificate)
    what = f"certificate of {identity.name}"
    _check_issued_by(certificate, root, what)
    if identity.role not in ROLES:
        raise CertificateError(f"{what}: expected role {' or '.join(sorted(ROLES))}, got {identity.role}")
    if identity.role in PEOPLE and not PERSON_ID.fullmatch(identity.name):
        raise CertificateError(
            f"{what}: expected a person id (person- and 16 hex digits) as the name of a {identity.role}; the log "
            "cannot forget a real one"
        )
    _check_purpose(certificate, identity, what)
    relying_party_of(certificate)
    return identity


@lru_cache(maxsize=1024)
def relying_party_of(certificate: x509.Certificate) -> str | None:
    """For which relying party the key signs, when it is a passkey; None for a private key in a file.

    Raises CertificateError when the alternative names are not what they must be: none, or the one URI, of a person;
    whatever NVFlare writes, but nothing of ours, of others.
    """
    identity = _identity(certificate)
    what = f"certificate of {identity.name}"
    names = _alternative_names(certificate, what)
    ours = [name.value for name in names if isinstance(name, x509.UniformResourceIdentifier)]
    if identity.role not in PEOPLE:
        if any(value.casefold().startswith(SCHEME) for value in ours):
            raise CertificateError(f"{what}: role {identity.role} has no passkey, but an alternative name says so")
        return None
    if not names:
        return None
    if len(names) != 1 or len(ours) != 1:
        raise CertificateError(f"{what}: expected no alternative name, or the one of a passkey, got {len(names)} names")
    try:
        relying_party = relying_party_in(ours[0])
    except CertificateError as error:
        raise CertificateError(f"{what}: {error}") from error
    if isinstance(public_key_of(certificate), rsa.RSAPublicKey):
        raise CertificateError(f"{what}: expected a passkey of P-256 or Ed25519, got RSA")
    return relying_party


def _alternative_names(certificate: x509.Certificate, what: str) -> list[x509.GeneralName]:
    try:
        return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []
    except (ValueError, x509.DuplicateExtension) as error:
        raise CertificateError(f"{what}: extensions cannot be read: {error}") from error


def identity_of(certificate: x509.Certificate) -> Identity:
    """Who the certificate says it is. Nothing is verified: use `verify_certificate` to rely on it."""
    return _identity(certificate)


def _identity(certificate: x509.Certificate) -> Identity:
    try:
        subject = certificate.subject
    except ValueError as error:
        raise CertificateError(f"certificate subject cannot be read: {error}") from error
    return Identity(
        name=_one(subject, NameOID.COMMON_NAME, "name (CN)"),
        organisation=_one(subject, NameOID.ORGANIZATION_NAME, "organisation (O)"),
        role=_one(subject, NameOID.UNSTRUCTURED_NAME, "role (unstructuredName)"),
        certificate_digest=certificate_digest(certificate),
    )


def _one(subject: x509.Name, oid: ObjectIdentifier, what: str) -> str:
    values = [attribute.value for attribute in subject.get_attributes_for_oid(oid)]
    if len(values) != 1:
        raise CertificateError(f"certificate subject: expected exactly one {what}, got {len(values)}")
    value = values[0]
    # Printable only: names are shown on terminals and pages, where control characters could forge a line.
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise CertificateError(f"certificate subject: {what} is empty or not printable: {shown(value)}")
    return value


def _check_issued_by(certificate: x509.Certificate, root: x509.Certificate, what: str) -> None:
    try:
        algorithm = certificate.signature_hash_algorithm
        if not isinstance(algorithm, hashes.SHA256 | hashes.SHA384 | hashes.SHA512):
            name = "none" if algorithm is None else algorithm.name
            raise CertificateError(f"{what}: expected a signature over SHA-256 or longer, got {name}")
        certificate.verify_directly_issued_by(root)
    except InvalidSignature as error:
        raise CertificateError(f"{what}: not signed by the root certificate given") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateError(f"{what}: not issued by the root certificate given: {error}") from error


def _check_validity(certificate: x509.Certificate, at: datetime, what: str) -> None:
    if at.tzinfo is None:
        raise CertificateError(f"time {at} has no time zone; use an aware datetime in UTC")
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not first <= at <= last:
        raise CertificateError(f"{what}: expected a time from {first} to {last}, got {at}")


def _extensions(
    certificate: x509.Certificate, what: str
) -> tuple[x509.BasicConstraints | None, x509.KeyUsage | None, frozenset[ObjectIdentifier]]:
    constraints: x509.BasicConstraints | None = None
    usage: x509.KeyUsage | None = None
    purposes: frozenset[ObjectIdentifier] = frozenset()
    try:
        for extension in certificate.extensions:
            value = extension.value
            if isinstance(value, x509.BasicConstraints):
                constraints = value
            elif isinstance(value, x509.KeyUsage):
                usage = value
            elif isinstance(value, x509.ExtendedKeyUsage):
                purposes = frozenset(value)
            elif extension.critical and not isinstance(value, _UNDERSTOOD):
                # RFC 5280 4.2: a critical extension that is not understood means the certificate must be
                # refused.
                raise CertificateError(f"{what}: critical extension {extension.oid.dotted_string} is not understood")
    except (ValueError, x509.DuplicateExtension) as error:
        raise CertificateError(f"{what}: extensions cannot be read: {error}") from error
    return constraints, usage, purposes


def _check_purpose(certificate: x509.Certificate, identity: Identity, what: str) -> None:
    constraints, usage, purposes = _extensions(certificate, what)
    if constraints is not None and constraints.ca:
        raise CertificateError(f"{what}: expected a leaf, got a certificate authority")
    if usage is None or not usage.digital_signature:
        raise CertificateError(f"{what}: key usage does not allow digital signatures")
    if usage.key_cert_sign:
        raise CertificateError(f"{what}: expected a leaf, got a key that may sign certificates")
    key = public_key_of(certificate)
    if identity.role in MACHINES:
        return
    if DOCUMENT_SIGNING not in purposes:
        raise CertificateError(f"{what}: role {identity.role} needs the purpose document signing, which it lacks")
    if purposes & _TLS_PURPOSES:
        raise CertificateError(f"{what}: role {identity.role} must not also be usable for TLS")
    if identity.role == LOG and not isinstance(key, ed25519.Ed25519PublicKey):
        raise CertificateError(f"{what}: the log's key must be Ed25519")


def issue_certificate(
    subject_key: x509.CertificateSigningRequest | PublicKey,
    name: str,
    organisation: str,
    role: str,
    root_cert: x509.Certificate,
    root_key: RootKey,
    not_before: datetime,
    not_after: datetime,
    relying_party: str | None = None,
) -> x509.Certificate:
    """A certificate for a person or the log, signed by the root.

    Name, organisation and role are the issuer's decision; of a request only the key is taken, after its
    proof of possession has been checked. For a person `name` is the person id (`person_id`), for the log its
    origin (see `audit.checkpoint.log_origin`). `relying_party` is given for a person's passkey.
    Raises CertificateError for the roles NVFlare issues (client, server), an unsuitable key, or a validity that is
    empty or outlasts the root's.
    """
    if role not in PEOPLE | {LOG}:
        raise CertificateError(
            f"role: expected one of {', '.join(sorted(PEOPLE | {LOG}))}, got {role}; "
            "machines get their certificates from NVFlare's request flow"
        )
    if isinstance(subject_key, x509.CertificateSigningRequest):
        if not subject_key.is_signature_valid:
            raise CertificateError(f"request of {name}: not signed by the key it holds")
        public_key = cast(PublicKey, subject_key.public_key())
    else:
        public_key = subject_key
    if root_key.public_key() != root_cert.public_key():
        raise CertificateError("root key does not belong to the root certificate given")
    check_root(root_cert)
    if not not_before < not_after <= root_cert.not_valid_after_utc:
        raise CertificateError(
            f"validity of {name}: expected an end after {not_before} and by {root_cert.not_valid_after_utc}, "
            f"got {not_after}"
        )
    try:
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, name),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
                x509.NameAttribute(NameOID.UNSTRUCTURED_NAME, role),
            ]
        )
    except ValueError as error:
        raise CertificateError(f"name {shown(name)} or organisation {shown(organisation)}: {error}") from error
    root_public_key = cast(rsa.RSAPublicKey | ec.EllipticCurvePublicKey, root_cert.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(root_cert.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_signing_usage(), critical=True)
        .add_extension(x509.ExtendedKeyUsage([DOCUMENT_SIGNING]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_public_key), critical=False)
    )
    if relying_party is not None:
        uri = x509.UniformResourceIdentifier(relying_party_uri(relying_party))
        builder = builder.add_extension(x509.SubjectAlternativeName([uri]), critical=False)
    certificate = builder.sign(root_key, hashes.SHA256())
    # What we hand out must pass our own check.
    verify_certificate(certificate, root_cert, at=certificate.not_valid_before_utc, roles=frozenset({role}))
    return certificate


def _signing_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=True,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
