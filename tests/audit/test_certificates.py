"""Certificates: issue, verify, refuse."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from audit.certificates import (
    DOCUMENT_SIGNING,
    Identity,
    certificate_digest,
    certificate_pem,
    check_root,
    issue_certificate,
    load_certificate,
    root_fingerprint,
    verify_certificate,
)
from audit.errors import CertificateError
from audit.signing_keys import (
    generate_log_key,
    generate_person_key,
    load_private_key,
    load_request,
    make_request,
    private_key_pem,
)
from tests.audit.conftest import pseudonym

if TYPE_CHECKING:
    from tests.audit.conftest import Keys
else:
    Keys = object

DAY = timedelta(days=1)
SIGNING = x509.KeyUsage(True, True, False, False, False, False, False, False, False)
ENCIPHERING = x509.KeyUsage(False, False, True, False, False, False, False, False, False)
AUTHORITY = x509.KeyUsage(True, False, False, False, False, True, True, False, False)


def crafted(
    keys: Keys,
    *,
    subject: list[tuple[x509.ObjectIdentifier, str]] | None = None,
    usage: x509.KeyUsage | None = SIGNING,
    purposes: list[x509.ObjectIdentifier] | None = None,
    ca: bool = False,
    extra: list[tuple[x509.ExtensionType, bool]] | None = None,
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | None = None,
    issuer: x509.Name | None = None,
    signer: rsa.RSAPrivateKey | None = None,
) -> x509.Certificate:
    """A certificate with whatever the test wants wrong in it."""
    subject = subject or [
        (NameOID.COMMON_NAME, pseudonym("Eve")),
        (NameOID.ORGANIZATION_NAME, "Org"),
        (NameOID.UNSTRUCTURED_NAME, "privacy_officer"),
    ]
    start = keys.root.not_valid_before_utc + DAY
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(oid, value) for oid, value in subject]))
        .issuer_name(keys.root.subject if issuer is None else issuer)
        .public_key((key or generate_person_key()).public_key())
        .serial_number(7)
        .not_valid_before(start)
        .not_valid_after(start + 10 * DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if usage is not None:
        builder = builder.add_extension(usage, critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(purposes or [DOCUMENT_SIGNING]), critical=False)
    for extension, critical in extra or []:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(signer or keys.root_key, hashes.SHA256())


def refused(keys: Keys, certificate: x509.Certificate, message: str) -> None:
    at = keys.root.not_valid_before_utc + 2 * DAY
    with pytest.raises(CertificateError, match=message):
        verify_certificate(certificate, keys.root, at=at)


def test_people_and_machines_are_known(keys: Keys) -> None:
    at = keys.holders["Bob"].certificate.not_valid_before_utc
    bob = keys.holders["Bob"]
    assert verify_certificate(bob.certificate, keys.root, at=at) == Identity(
        pseudonym("Bob"), "Hospital A", "privacy_officer", bob.digest
    )
    site = verify_certificate(keys.holders["hospital-a"].certificate, keys.root, at=at, roles=frozenset({"client"}))
    assert (site.name, site.organisation, site.role) == ("hospital-a", "hospital_a", "client")


def test_a_crafted_certificate_is_good_when_nothing_is_wrong(keys: Keys) -> None:
    at = keys.root.not_valid_before_utc + 2 * DAY
    assert verify_certificate(crafted(keys), keys.root, at=at).name == pseudonym("Eve")


def test_role_and_time(keys: Keys) -> None:
    certificate = keys.holders["Bob"].certificate
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    with pytest.raises(CertificateError, match="expected role release_manager, got privacy_officer"):
        verify_certificate(certificate, keys.root, at=first, roles=frozenset({"release_manager"}))
    for at in (first - timedelta(seconds=1), last + timedelta(seconds=1)):
        with pytest.raises(CertificateError, match=r"certificate of person-[0-9a-f]{16}: expected a time from"):
            verify_certificate(certificate, keys.root, at=at)
    with pytest.raises(CertificateError, match="no time zone"):
        verify_certificate(certificate, keys.root, at=first.replace(tzinfo=None))
    verify_certificate(certificate, keys.root, at=last)


def test_wrong_purpose(keys: Keys) -> None:
    refused(keys, crafted(keys, usage=None), "key usage does not allow digital signatures")
    refused(keys, crafted(keys, usage=ENCIPHERING), "key usage does not allow digital signatures")
    refused(keys, crafted(keys, usage=AUTHORITY), "may sign certificates")
    refused(keys, crafted(keys, ca=True), "expected a leaf, got a certificate authority")
    refused(keys, crafted(keys, purposes=[ExtendedKeyUsageOID.CLIENT_AUTH]), "purpose document signing")
    both = [DOCUMENT_SIGNING, ExtendedKeyUsageOID.CLIENT_AUTH]
    refused(keys, crafted(keys, purposes=both), "must not also be usable for TLS")
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    refused(keys, crafted(keys, extra=[(unknown, True)]), "critical extension 1.2.3.4 is not understood")


def test_wrong_subject(keys: Keys) -> None:
    name, organisation = (NameOID.COMMON_NAME, pseudonym("Eve")), (NameOID.ORGANIZATION_NAME, "Org")
    role = (NameOID.UNSTRUCTURED_NAME, "privacy_officer")
    refused(keys, crafted(keys, subject=[organisation, role]), "exactly one name .CN., got 0")
    refused(keys, crafted(keys, subject=[name, role]), "exactly one organisation .O., got 0")
    refused(keys, crafted(keys, subject=[name, organisation]), "exactly one role .unstructuredName., got 0")
    two = [name, organisation, role, (NameOID.UNSTRUCTURED_NAME, "release_manager")]
    refused(keys, crafted(keys, subject=two), "exactly one role .unstructuredName., got 2")
    line = (NameOID.COMMON_NAME, "Eve\nok    trace")
    refused(keys, crafted(keys, subject=[line, organisation, role]), "not printable")
    other = (NameOID.UNSTRUCTURED_NAME, "lead")
    refused(keys, crafted(keys, subject=[name, organisation, other]), "expected role .* got lead")


def test_wrong_key(keys: Keys) -> None:
    refused(keys, crafted(keys, key=ec.generate_private_key(ec.SECP384R1())), "expected P-256, got secp384r1")
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - meant to be too small
    refused(keys, crafted(keys, key=small), "at least 2048 bits, got 1024")
    log = [
        (NameOID.COMMON_NAME, "zegel-log/x"),
        (NameOID.ORGANIZATION_NAME, "Org"),
        (NameOID.UNSTRUCTURED_NAME, "log"),
    ]
    refused(keys, crafted(keys, subject=log), "the log's key must be Ed25519")


def test_wrong_issuer(keys: Keys) -> None:
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    refused(keys, crafted(keys, signer=stranger), "not signed by the root")
    other = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Other")])
    refused(keys, crafted(keys, issuer=other), "not issued by the root")


def test_a_leaf_is_no_root(keys: Keys) -> None:
    leaf = keys.holders["hospital-a"].certificate
    with pytest.raises(CertificateError, match="root certificate: not issued by"):
        check_root(leaf)
    with pytest.raises(CertificateError, match="root certificate: not issued by"):
        verify_certificate(keys.holders["Bob"].certificate, leaf, at=leaf.not_valid_before_utc)


def test_loading(keys: Keys) -> None:
    certificate = keys.holders["Bob"].certificate
    pem = certificate_pem(certificate).encode()
    assert load_certificate(pem) == certificate
    der = certificate.public_bytes(serialization.Encoding.DER)
    assert load_certificate(der) == certificate
    assert certificate_digest(certificate).startswith("sha256:")
    assert root_fingerprint(keys.root) == certificate_digest(keys.root)
    with pytest.raises(CertificateError, match="expected one certificate, got 2"):
        load_certificate(pem + pem)
    for bad in (b"", b"x", b"-----BEGIN CERTIFICATE-----\n", der + b"x", pem[:-40]):
        with pytest.raises(CertificateError):
            load_certificate(bad)


def test_issuing(keys: Keys) -> None:
    start = keys.root.not_valid_before_utc + DAY
    key = generate_person_key()
    request = load_request(make_request(key, "asked", "for").public_bytes(serialization.Encoding.PEM))
    certificate = issue_certificate(
        request, pseudonym("Dora"), "Authority", "authority", keys.root, keys.root_key, start, start + DAY
    )
    identity = verify_certificate(certificate, keys.root, at=start)
    assert (identity.name, identity.organisation, identity.role) == (pseudonym("Dora"), "Authority", "authority")
    public = key.public_key()
    cases = [
        (pseudonym("Dora"), "client", start, start + DAY, "NVFlare's request flow"),
        (pseudonym("Dora"), "chief", start, start + DAY, "expected one of"),
        (pseudonym("Dora"), "authority", start, start, "expected an end after"),
        (pseudonym("Dora"), "authority", start, keys.root.not_valid_after_utc + DAY, "expected an end after"),
        ("", "authority", start, start + DAY, "name ''"),
        ("a\nb", "authority", start, start + DAY, "not printable"),
        ("Dora", "authority", start, start + DAY, "expected a person id .* as the name of a authority"),
    ]
    for name, role, first, last, message in cases:
        with pytest.raises(CertificateError, match=message):
            issue_certificate(public, name, "O", role, keys.root, keys.root_key, first, last)
    with pytest.raises(CertificateError, match="root key does not belong"):
        issue_certificate(
            public, pseudonym("Dora"), "O", "authority", keys.root, generate_person_key(), start, start + DAY
        )
    with pytest.raises(CertificateError, match="Ed25519"):
        issue_certificate(public, "zegel-log/x", "O", "log", keys.root, keys.root_key, start, start + DAY)


def test_private_keys() -> None:
    for key in (generate_person_key(), generate_log_key()):
        assert load_private_key(private_key_pem(key)).public_key() == key.public_key()
        locked = private_key_pem(key, b"secret")
        assert b"ENCRYPTED" in locked
        assert load_private_key(locked, b"secret").public_key() == key.public_key()
        with pytest.raises(CertificateError, match="wrong passphrase"):
            load_private_key(locked, b"guess")
        with pytest.raises(CertificateError, match="a passphrase is needed"):
            load_private_key(locked)
        with pytest.raises(CertificateError, match="not encrypted"):
            load_private_key(private_key_pem(key), b"secret")
    with pytest.raises(CertificateError, match="passphrase is empty"):
        private_key_pem(generate_log_key(), b"")
    with pytest.raises(CertificateError):
        load_private_key(b"no key")
    with pytest.raises(CertificateError, match="not a certificate request"):
        load_request(b"no request")
    assert make_request(generate_log_key(), "log", "Consortium").is_signature_valid
