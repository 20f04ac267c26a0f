"""Passkeys' requests for certificates: signed by the new passkey itself, then approved as every other request."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from admin_api.errors import OnboardingError
from admin_api.onboarding import approve, read_request
from admin_api.passkeys import PasskeyRequest, open_passkey, public_key_of_cose, write_passkey_request
from admin_api.people import people_of
from admin_api.planning import decide, propose
from admin_api.renewing import renew
from audit.canonical import canonical_json, encode_base64
from audit.certificates import certificate_digest, identity_of, relying_party_of
from audit.entry import CERTIFICATE_ISSUED
from jobs.home import ConsortiumHome
from tests.admin_api.consortium_folder import PASSPHRASE, PEOPLE, enrol_person, plan_of, snapshot, zegel
from tests.admin_api.passkey_people import RP, asked_with, enrol_passkey, signed_with
from tests.passkey import ED25519, P256, SoftwarePasskey

SECRET = PASSPHRASE.encode()
ID = "person-0123456789abcdef"


@pytest.mark.parametrize("algorithm", [P256, ED25519])
def test_a_registrations_key(algorithm: str) -> None:
    passkey = SoftwarePasskey(RP, algorithm)
    assert public_key_of_cose(passkey.cose) == passkey.public_key


@pytest.mark.parametrize("algorithm", [P256, ED25519])
def test_another_reader_agrees(algorithm: str) -> None:
    helpers = pytest.importorskip("webauthn.helpers")
    cose = SoftwarePasskey(RP, algorithm).cose
    theirs = helpers.decoded_public_key_to_cryptography(helpers.decode_credential_public_key(cose))
    assert public_key_of_cose(cose) == theirs


def other_keys() -> dict[str, bytes]:
    good = SoftwarePasskey(RP).cose
    return {
        "nothing": b"",
        "cut": good[:-1],
        "more behind": good + b"\0",
        "RS256": b"\xa4\x01\x03\x03\x39\x01\x00\x20\x59\x01\x00" + bytes(256) + b"\x21\x43\x01\x00\x01",
        "P-384": good.replace(b"\x20\x01\x21", b"\x20\x02\x21"),
        "ES384": good.replace(b"\x03\x26", b"\x03\x38\x22"),
        "ESP256, another number for it": good.replace(b"\x03\x26", b"\x03\x28"),
        "another order": good[:1] + good[3:5] + good[1:3] + good[5:],
        "U2F": b"\x04" + good[10:42] + good[45:],
        "no point": good[:45] + bytes(32),
        "EdDSA of another curve": SoftwarePasskey(RP, ED25519).cose.replace(b"\x20\x06\x21", b"\x20\x07\x21"),
    }


@pytest.mark.parametrize("name", list(other_keys()))
def test_keys_that_are_not_taken(name: str) -> None:
    with pytest.raises(OnboardingError, match="the passkey's public key"):
        public_key_of_cose(other_keys()[name])


# -- requests


@pytest.fixture
def passkey() -> SoftwarePasskey:
    return SoftwarePasskey(RP)


def request_of(passkey: SoftwarePasskey, **changes: str) -> PasskeyRequest:
    fields = {"name": "Pia Passkey", "organisation": "bureau", "role": "authority", "relying_party": RP} | changes
    return PasskeyRequest(**fields, key=public_key_of_cose(passkey.cose))


def written(passkey: SoftwarePasskey, path: Path, **changes: str) -> Path:
    request = request_of(passkey, **changes)
    return write_passkey_request(path, request, *passkey.assertion(request.challenge))


def test_a_request_is_read_as_every_other(passkey: SoftwarePasskey, tmp_path: Path) -> None:
    path = written(passkey, tmp_path / "request.json")
    read = read_request(path)
    assert (read.kind, read.name, read.organisation, read.role, read.relying_party) == (
        *("passkey", "Pia Passkey", "bureau", "authority"),
        RP,
    )
    assert read.fingerprint == request_of(passkey).fingerprint
    with pytest.raises(OnboardingError, match="exists already; choose another file"):
        written(passkey, path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": " "}, "name ' ': expected printable text"),
        ({"organisation": "a\nb"}, "organisation"),
        ({"role": "client"}, "role 'client': expected one of authority"),
        ({"relying_party": "https://consortium.example"}, "relying party: expected a domain name"),
    ],
)
def test_what_cannot_be_asked(passkey: SoftwarePasskey, changes: dict[str, str], message: str) -> None:
    with pytest.raises(OnboardingError, match=message):
        request_of(passkey, **changes)


def test_only_the_passkey_itself_asks(passkey: SoftwarePasskey, tmp_path: Path) -> None:
    """A registration without attestation proves nothing; this signature does."""
    request, other = request_of(passkey), SoftwarePasskey(RP)
    for name, (signature, assertion), message in (
        ("another passkey", other.assertion(request.challenge), "does not fit these bytes and this key"),
        ("another name", passkey.assertion(replace(request, name="Eve").challenge), "expected challenge"),
        ("another role", passkey.assertion(replace(request, role="consortium_admin").challenge), "expected challenge"),
        ("a sign-in", passkey.assertion(bytes(32)), "expected challenge"),
        ("a registration", passkey.assertion(request.challenge, type="webauthn.create"), "type webauthn.get"),
    ):
        with pytest.raises(OnboardingError, match=f"not signed by the passkey it is about: passkey: .*{message}"):
            write_passkey_request(tmp_path / name, request, signature, assertion)
    assert list(tmp_path.iterdir()) == []


def field(name: str, value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda read: {**read, name: value}


SPOILED: list[tuple[str, Callable[[dict[str, Any]], object], str]] = [
    ("another name", field("name", "Eve"), "not signed by the passkey it is about"),
    ("another role", field("role", "consortium_admin"), "not signed by the passkey it is about"),
    ("a role nobody has", field("role", "king"), "expected one of"),
    ("another relying party", field("relying_party", "evil.example"), "not signed by the passkey it is about"),
    ("unprintable", field("name", "Eve\x1b[2K"), "printable"),
    ("no key", field("key", ""), "expected printable text"),
    ("a key of another kind", field("key", encode_base64(b"no key")), "is not a passkey's request"),
    ("a number", field("signature", 1), "expected printable text"),
    ("no assertion", field("passkey", {}), "passkey: expected exactly"),
    ("a further field", field("more", 1), "unknown field more"),
    ("a field less", lambda read: {name: value for name, value in read.items() if name != "role"}, "missing role"),
    ("another schema", field("schema", "zegel/passkey-request/v2"), "is not a person's certificate request"),
]


@pytest.mark.parametrize(("name", "spoil", "message"), SPOILED, ids=[each[0] for each in SPOILED])
def test_a_changed_request(
    passkey: SoftwarePasskey, tmp_path: Path, name: str, spoil: Callable[[dict[str, Any]], object], message: str
) -> None:
    path = written(passkey, tmp_path / "request.json")
    path.write_bytes(canonical_json(spoil(json.loads(path.read_bytes()))))
    with pytest.raises(OnboardingError, match=message):
        read_request(path)


def test_a_key_has_one_spelling(passkey: SoftwarePasskey, tmp_path: Path) -> None:
    """The same point written in short is another file with the same key."""
    path = written(passkey, tmp_path / "request.json")
    key = passkey.public_key
    assert isinstance(key, ec.EllipticCurvePublicKey)
    short = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
    whole = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    # SEQUENCE of the same algorithm and a shorter BIT STRING
    algorithm = whole[2:23]
    spki = b"\x30" + bytes([len(algorithm) + 3 + len(short)]) + algorithm + b"\x03" + bytes([len(short) + 1, 0]) + short
    assert serialization.load_der_public_key(spki) == key
    value = json.loads(path.read_bytes())
    path.write_bytes(canonical_json({**value, "key": encode_base64(spki)}))
    with pytest.raises(OnboardingError, match="the key is not in its one spelling"):
        read_request(path)


# -- certificates


def test_somebody_new_gets_the_id_of_their_account(
    home: ConsortiumHome, passkey: SoftwarePasskey, tmp_path: Path
) -> None:
    request = read_request(asked_with(passkey, "admin", tmp_path / "request.json"))
    certificate = approve(home, request, passphrase=SECRET, out=tmp_path / "reply.crt", person=ID)
    assert identity_of(certificate).name == ID
    assert relying_party_of(certificate) == RP
    assert [(each["person"], each["name"]) for each in people_of(home)] == [(ID, PEOPLE["admin"][0])]
    holder = open_passkey(home, certificate_digest(certificate))
    plan_hash = signed_with(home, holder, passkey, lambda signer: propose(home, plan_of(), signer))
    assert plan_hash == plan_of().hash


def test_a_person_has_one_id_and_an_id_one_person(
    home: ConsortiumHome, passkey: SoftwarePasskey, tmp_path: Path
) -> None:
    enrol_person(home, "admin", tmp_path / "ada")
    before = snapshot(home.path)
    (ada,) = (each["person"] for each in people_of(home))
    same = written(passkey, tmp_path / "same.json", name=PEOPLE["admin"][0], organisation=PEOPLE["admin"][1])
    with pytest.raises(OnboardingError, match=f"is {ada} already, not {ID}; a person has one id"):
        approve(home, read_request(same), passphrase=SECRET, out=tmp_path / "a.crt", person=ID)
    other = written(passkey, tmp_path / "other.json")
    with pytest.raises(OnboardingError, match=f"{ada} is somebody else already, not 'Pia Passkey'"):
        approve(home, read_request(other), passphrase=SECRET, out=tmp_path / "b.crt", person=ada)
    again = written(passkey, tmp_path / "again.json", name=PEOPLE["admin"][0], organisation="bureau",
                    role="consortium_admin")  # fmt: skip
    with pytest.raises(OnboardingError, match=r"already holds a certificate .* `zegel consortium renew`"):
        approve(home, read_request(again), passphrase=SECRET, out=tmp_path / "c.crt")
    assert snapshot(home.path) == before


def test_a_passkey_beside_a_key_in_a_file(home: ConsortiumHome, passkey: SoftwarePasskey, tmp_path: Path) -> None:
    folder = enrol_person(home, "officer", tmp_path / "pieter")
    holder = enrol_passkey(home, "officer", passkey, folder)
    assert len({each["person"] for each in people_of(home)}) == 1
    with home.log() as log:
        issued = [entry.body for _, entry in log.entries(kind=CERTIFICATE_ISSUED)][-2:]
    assert issued[0]["holder"] == issued[1]["holder"]
    assert holder.identity.name == issued[0]["name"]


def test_a_passkey_is_certified_again_as_it_is(home: ConsortiumHome, passkey: SoftwarePasskey, tmp_path: Path) -> None:
    """It stays on its device for years; a new one is nobody's gain."""
    folder = enrol_person(home, "officer", tmp_path / "pieter")
    first = enrol_passkey(home, "officer", passkey, folder)
    path = asked_with(passkey, "officer", tmp_path / "again.json")
    second = renew(home, read_request(path), passphrase=SECRET, out=tmp_path / "again.crt")
    assert certificate_digest(second) != first.certificate_digest
    assert second.public_key() == first.certificate.public_key()
    assert open_passkey(home, certificate_digest(second)).identity.person == first.identity.person
    # But nobody else gets a certificate for it.
    other = written(passkey, tmp_path / "other.json")
    with pytest.raises(OnboardingError, match="the key of this request is"):
        approve(home, read_request(other), passphrase=SECRET, out=tmp_path / "other.crt")


def test_by_command(home: ConsortiumHome, passkey: SoftwarePasskey, tmp_path: Path) -> None:
    path, out = asked_with(passkey, "officer", tmp_path / "request.json"), tmp_path / "reply.crt"
    fingerprint = read_request(path).fingerprint
    result = zegel(
        *("consortium", "approve", path, "--fingerprint", fingerprint, "--out", out, "--home", home.path),
    )
    assert result.exit_code == 0, result.output
    assert f"as privacy_officer, with a passkey for {RP}." in result.stdout
    assert "the root's passphrase alone signs, and the log says so" in result.stderr


def test_a_request_swapped_after_it_was_looked_at(
    home: ConsortiumHome, passkey: SoftwarePasskey, tmp_path: Path
) -> None:
    path = asked_with(passkey, "officer", tmp_path / "request.json")
    looked_at = read_request(path)
    path.unlink()
    asked_with(SoftwarePasskey(RP), "officer", path)
    before = snapshot(home.path)
    with pytest.raises(OnboardingError, match="was changed after it was looked at; nothing was issued"):
        approve(home, looked_at, passphrase=SECRET, out=tmp_path / "reply.crt")
    assert snapshot(home.path) == before


def test_passkeys_alone_lead_to_an_approved_plan(home: ConsortiumHome, tmp_path: Path) -> None:
    """Nobody has a key in a file; the quorum asks for the two there are."""
    ada, pieter = SoftwarePasskey(RP, ED25519), SoftwarePasskey(RP)
    admin = enrol_passkey(home, "admin", ada, tmp_path / "a")
    officer = enrol_passkey(home, "officer", pieter, tmp_path / "b")
    plan_hash = signed_with(home, admin, ada, lambda signer: propose(home, plan_of(), signer))
    signed_with(
        home, officer, pieter, lambda signer: decide(home, "plan", plan_hash, signer, approve=True, reason="fits")
    )
    with pytest.raises(OnboardingError, match="expected approval by a consortium_admin"):
        enrol_passkey(home, "manager", SoftwarePasskey(RP), tmp_path / "c")
