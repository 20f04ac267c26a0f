"""Relying parties: one spelling in certificates, and which pages belong to one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.certificates import issue_certificate, relying_party_of, verify_certificate
from audit.errors import CertificateError, StatementError
from audit.relying_party import check_origin, check_relying_party, relying_party_in, relying_party_uri
from tests.audit.test_certificates import crafted
from tests.passkey import SoftwarePasskey

if TYPE_CHECKING:
    from tests.audit.conftest import Keys
else:
    Keys = object

GOOD = ["localhost", "consortium.example", "a.b-c.d1", "xn--caf-dma.example", "1.example", ".".join(["a" * 63] * 3)]
BAD = [
    "", ".", "a.", ".a", "a..b", "A.example", "caf\u00e9.example", "-a.example", "a-.example", "a_b.example", "a b",
    "a.example/", "a.example:443", "https://a.example", "127.0.0.1", "1", "::1", "a" * 64, "a.example\n", "*.example",
    ".".join(["a" * 63] * 4), "a.example&rp=b.example", "a.example#x", "a%2eexample",
]  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_a_domain_has_one_uri(name: str) -> None:
    uri = relying_party_uri(name)
    assert uri == f"zegel:passkey?rp={name}"
    assert relying_party_in(uri) == name


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_domain(name: str) -> None:
    for read, text in ((check_relying_party, name), (relying_party_in, f"zegel:passkey?rp={name}")):
        with pytest.raises(CertificateError, match="relying party: expected a domain name in lower case"):
            read(text)


@pytest.mark.parametrize(
    "uri", ["", "zegel:passkey", "zegel:passkey?rp", "ZEGEL:passkey?rp=a.example", "zegel:passkey?x=1&rp=a.example",
            "zegel://passkey?rp=a.example", " zegel:passkey?rp=a.example", "https://a.example"]
)  # fmt: skip
def test_other_uris(uri: str) -> None:
    with pytest.raises(CertificateError, match="subject alternative name: expected zegel:passkey"):
        relying_party_in(uri)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.text(alphabet="az09.-:/@?#AZ\u0130", max_size=30))
def test_an_accepted_origin_is_a_page_of_the_domain(rest: str) -> None:
    for origin in (rest, f"https://{rest}", f"https://{rest}a.example", f"https://a.example{rest}"):
        try:
            check_origin(origin, "a.example")
        except StatementError:
            continue
        host = origin.removeprefix("https://").split(":")[0]
        assert origin.startswith("https://")
        assert host == "a.example" or host.endswith(".a.example")
        assert not set(host) - set("abcdefghijklmnopqrstuvwxyz0123456789.-")


# -- in certificates


def named(*names: x509.GeneralName) -> list[tuple[x509.ExtensionType, bool]]:
    return [(x509.SubjectAlternativeName(list(names)), False)]


URI = x509.UniformResourceIdentifier


def test_a_passkeys_certificate(keys: Keys) -> None:
    passkey = SoftwarePasskey("zegel.consortium.example")
    holder = keys.person("Pia", "Hospital A", "privacy_officer", key=passkey)
    at = holder.certificate.not_valid_before_utc
    identity = verify_certificate(holder.certificate, keys.root, at=at, roles=frozenset({"privacy_officer"}))
    assert identity.organisation == "Hospital A"
    assert relying_party_of(holder.certificate) == "zegel.consortium.example"
    names = holder.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert list(names.value) == [URI("zegel:passkey?rp=zegel.consortium.example")]
    assert relying_party_of(keys.holders["Bob"].certificate) is None
    assert relying_party_of(keys.holders["hospital-a"].certificate) is None


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([URI("zegel:passkey?rp=A.example")], "relying party: expected a domain name"),
        ([URI("zegel:other?rp=a.example")], "subject alternative name: expected"),
        ([URI("zegel:passkey?rp=a.example"), URI("zegel:passkey?rp=b.example")], "got 2 names"),
        ([URI("zegel:passkey?rp=a.example"), x509.DNSName("a.example")], "got 2 names"),
        ([x509.DNSName("a.example")], "or the one of a passkey"),
        ([URI("https://a.example")], "subject alternative name: expected"),
        ([x509.RFC822Name("a@a.example")], "or the one of a passkey"),
    ],
)
def test_a_persons_certificate_says_nothing_else(keys: Keys, names: list[x509.GeneralName], message: str) -> None:
    certificate = crafted(keys, extra=named(*names))
    with pytest.raises(CertificateError, match=message):
        verify_certificate(certificate, keys.root, at=certificate.not_valid_before_utc)
    with pytest.raises(CertificateError, match=message):
        relying_party_of(certificate)


@pytest.mark.parametrize("uri", ["zegel:passkey?rp=a.example", "Zegel:x"])
def test_nobody_else_has_a_passkey(keys: Keys, uri: str) -> None:
    subject = [
        (x509.NameOID.COMMON_NAME, "zegel-log/x"),
        (x509.NameOID.ORGANIZATION_NAME, "Org"),
        (x509.NameOID.UNSTRUCTURED_NAME, "client"),
    ]
    certificate = crafted(keys, subject=subject, extra=named(x509.DNSName("hospital.example"), URI(uri)))
    with pytest.raises(CertificateError, match="role client has no passkey"):
        verify_certificate(certificate, keys.root, at=certificate.not_valid_before_utc)
    fine = crafted(keys, subject=subject, extra=named(x509.DNSName("hospital.example"), URI("https://h.example")))
    assert relying_party_of(fine) is None


def test_no_certificate_for_what_is_no_domain(keys: Keys) -> None:
    bob = keys.holders["Bob"].certificate
    with pytest.raises(CertificateError, match="relying party"):
        issue_certificate(
            SoftwarePasskey().public_key,
            *("person-" + "0" * 16, "O", "authority", keys.root, keys.root_key),
            bob.not_valid_before_utc,
            bob.not_valid_after_utc,
            relying_party="https://a.example",
        )
