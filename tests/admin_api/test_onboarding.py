"""Certificates: what is signed is what was shown, it is in the log first, and a refusal leaves no trace."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from admin_api.errors import OnboardingError
from admin_api.onboarding import approve, read_request
from admin_api.person_requests import request_person
from audit.certificates import certificate_digest, load_certificate
from audit.entry import CERTIFICATE_ISSUED
from audit.errors import LogError
from audit.evidence import Evidence
from jobs.errors import ProvisioningError
from jobs.federation.provisioning import request_certificate
from jobs.home import ConsortiumHome
from site_packages.home import SiteHome
from site_packages.installing import request_site
from tests.admin_api.conftest import AfterRun
from tests.admin_api.consortium_folder import (
    NAME,
    PASSPHRASE,
    PEOPLE,
    TRAINERS,
    WatchedLog,
    data_statement,
    enrol_person,
    enrol_site,
    refused,
    snapshot,
    zegel,
)

Members = dict[str, bytes]


def asked(folder: Path, name: str = "amstel") -> Path:
    return request_site(SiteHome(folder / name), name=name, organisation=name, consortium=NAME)


@pytest.fixture(scope="module")
def good_request(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return asked(tmp_path_factory.mktemp("request"))


def rewrite(request: Path, change: Callable[[Members], None]) -> Path:
    """The request with its members changed."""
    with zipfile.ZipFile(request) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    changed = request.with_name("changed.request.zip")
    with zipfile.ZipFile(changed, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return changed


def other_csr(name: str, organisation: str) -> bytes:
    """A request for the same name, by somebody else's key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, name), x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation)]
    )
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return csr.public_bytes(serialization.Encoding.PEM)


def with_other_key(members: Members) -> None:
    members["amstel.csr"] = other_csr("amstel", "amstel")


def with_other_name(members: Members) -> None:
    members["request.json"] = members["request.json"].replace(b'"amstel"', b'"berkel"')
    members["berkel.csr"] = members.pop("amstel.csr")


def with_other_organisation(members: Members) -> None:
    value = json.loads(members["request.json"])
    members["request.json"] = json.dumps(value | {"org": "elsewhere"}).encode()


def with_name_in_yaml(members: Members) -> None:
    members["site.yaml"] = members["site.yaml"].replace(b"amstel", b"berkel")


def with_project(members: Members) -> None:
    value = json.loads(members["request.json"])
    members["request.json"] = json.dumps(value | {"project": "Other"}).encode()


def with_escape_codes(members: Members) -> None:
    value = json.loads(members["request.json"])
    members["request.json"] = json.dumps(value | {"org": "bureau\x1b[2K\rtrusted"}).encode()


def without_csr(members: Members) -> None:
    del members["amstel.csr"]


def with_deep_json(members: Members) -> None:
    members["request.json"] = b"[" * 60_000


def with_list(members: Members) -> None:
    members["request.json"] = b"[1, 2]"


def with_large_member(members: Members) -> None:
    members["request.json"] = members["request.json"] + b" " * (1 << 17)


@pytest.mark.parametrize(
    "change",
    [
        with_other_key,
        with_other_name,
        with_other_organisation,
        with_name_in_yaml,
        with_project,
        with_escape_codes,
        without_csr,
        with_deep_json,
        with_list,
        with_large_member,
    ],
)
def test_a_changed_request_is_not_signed(
    home: ConsortiumHome, tmp_path: Path, good_request: Path, change: Callable[[Members], None]
) -> None:
    request = rewrite(Path(shutil.copy(good_request, tmp_path)), change)
    before = snapshot(home.path)
    told = refused("consortium", "approve", request, "--yes", "--out", tmp_path / "x.signed.zip", "--home", home.path)
    assert "\x1b" not in told
    assert not (tmp_path / "x.signed.zip").exists()
    assert list(tmp_path.glob(".*")) == []
    assert snapshot(home.path) == before


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a letter", b"Dear colleague", "not"),
        ("nothing", b"", "not"),
        ("half a zip", b"PK\x03\x04half", "not"),
        ("deep JSON", b"[" * 100_000, "not"),
        ("too large", b" " * ((1 << 20) + 1), "larger than any request"),
        ("a list", b"[]", "not"),
        ("numbers", b'{"name":1,"organisation":2,"request":3,"role":4,"schema":"zegel/person-request/v1"}', "not text"),
    ],
)
def test_what_is_no_request_is_told_by_name(
    home: ConsortiumHome, tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    file = tmp_path / f"{name}.zip"
    file.write_bytes(data)
    before = snapshot(home.path)
    told = refused("consortium", "approve", file, "--yes", "--out", tmp_path / "x.signed.zip", "--home", home.path)
    assert str(file) in told
    assert message in told
    assert snapshot(home.path) == before


def test_a_missing_file_is_told(home: ConsortiumHome, tmp_path: Path) -> None:
    arguments = ("--yes", "--out", tmp_path / "x.signed.zip", "--home", home.path)
    assert "no such file" in refused("consortium", "approve", tmp_path / "absent.zip", *arguments)
    assert "cannot be read" in refused("consortium", "approve", tmp_path, *arguments)


def test_a_zip_with_a_damaged_or_encrypted_member_is_refused(home: ConsortiumHome, tmp_path: Path) -> None:
    data = bytearray(asked(tmp_path).read_bytes())
    encrypted = bytearray(data)
    at = 0
    while (at := encrypted.find(b"PK\x01\x02", at)) != -1:  # the flag of every entry in the directory
        encrypted[at + 8] |= 1
        at += 4
    damaged = bytearray(data)
    damaged[60:90] = bytes(30)
    for number, spoiled in enumerate((encrypted, damaged)):
        file = tmp_path / f"{number}.request.zip"
        file.write_bytes(spoiled)
        arguments = ("--out", tmp_path / "x.signed.zip", "--home", home.path)
        assert "not a certificate request" in refused("consortium", "approve", file, "--yes", *arguments)


def test_a_server_or_an_account_is_not_approved(home: ConsortiumHome, tmp_path: Path) -> None:
    server = request_certificate(
        tmp_path / "server", project=NAME, name="evil.example", organisation="x", kind="server", ports=(8002, 8003)
    )
    account = request_certificate(
        tmp_path / "account", project=NAME, name="me@x.org", organisation="x", kind="admin", role="lead"
    )
    before = snapshot(home.path)
    for request, kind in ((server, "server"), (account, "lead")):
        told = refused(
            "consortium", "approve", request, "--yes", "--out", tmp_path / "x.signed.zip", "--home", home.path
        )
        assert f"asks for a '{kind}' certificate, expected a hospital's" in told
    assert snapshot(home.path) == before


@pytest.mark.parametrize("name", ["amstel", "Amstel", "AMSTEL"])
def test_a_name_is_given_once_whatever_its_case(home: ConsortiumHome, tmp_path: Path, name: str) -> None:
    enrol_site(home, "amstel", tmp_path / "first")
    request = asked(tmp_path / "second", name)
    before = snapshot(home.path)
    told = refused("consortium", "approve", request, "--yes", "--out", tmp_path / "x.signed.zip", "--home", home.path)
    assert "'amstel' already holds a certificate (client, until" in told
    assert "choose another name" in told
    assert snapshot(home.path) == before


def test_a_name_is_given_once_also_to_a_person(home: ConsortiumHome, tmp_path: Path) -> None:
    enrol_site(home, "amstel", tmp_path / "first")
    request = request_person(
        tmp_path / "p", name="Amstel", organisation="x", role="authority", passphrase=PASSPHRASE.encode()
    )
    with pytest.raises(OnboardingError, match="already holds"):
        approve(home, read_request(request), passphrase=PASSPHRASE.encode(), out=tmp_path / "p" / "person.crt")


def test_a_key_is_certified_once(home: ConsortiumHome, tmp_path: Path) -> None:
    """A second holder of one key would make the log's evidence void, for everybody and for ever."""
    folder = enrol_person(home, "officer", tmp_path / "p")
    request = tmp_path / "again.json"
    text = (folder / "person.request.json").read_text(encoding="utf-8")
    request.write_text(text.replace("Pieter Privacy", "Somebody Else"), encoding="utf-8")
    before = snapshot(home.path)
    told = refused("consortium", "approve", request, "--yes", "--out", tmp_path / "again.crt", "--home", home.path)
    assert "the key of this request is Pieter Privacy" in told
    assert "make a key of their own" in told
    assert snapshot(home.path) == before
    with home.log() as log:
        assert len(Evidence(log.entries(), home.root()).certificates) == 3  # server, account and officer


@pytest.mark.parametrize("fingerprint", ["sha256:" + "0" * 64, "", "amstel"])
def test_another_fingerprint_than_read_out_is_refused(home: ConsortiumHome, tmp_path: Path, fingerprint: str) -> None:
    request = asked(tmp_path)
    before = snapshot(home.path)
    told = refused(
        *("consortium", "approve", request, "--fingerprint", fingerprint),
        *("--out", tmp_path / "amstel.signed.zip", "--home", home.path),
    )
    assert "nothing was signed" in told
    assert read_request(request).fingerprint in told
    assert snapshot(home.path) == before


def test_without_a_terminal_a_fingerprint_is_demanded(home: ConsortiumHome, tmp_path: Path) -> None:
    told = refused(
        "consortium", "approve", asked(tmp_path), "--out", tmp_path / "amstel.signed.zip", "--home", home.path
    )
    assert "give --fingerprint as the requester read it to you, or --yes" in told


def test_the_replys_place_is_checked_first(home: ConsortiumHome, tmp_path: Path) -> None:
    request = asked(tmp_path)
    taken = tmp_path / "taken.signed.zip"
    taken.write_text("mine", encoding="utf-8")
    before = snapshot(home.path)
    arguments = ("consortium", "approve", request, "--yes", "--home", home.path, "--out")
    assert f"{taken} exists already" in refused(*arguments, taken)
    assert "must end in .signed.zip" in refused(*arguments, tmp_path / "amstel.zip")
    assert "is not a folder" in refused(*arguments, tmp_path / "nowhere" / "amstel.signed.zip")
    assert taken.read_text(encoding="utf-8") == "mine"
    assert snapshot(home.path) == before


@pytest.mark.parametrize("who", ["hospital", "person"])
def test_a_wrong_passphrase_signs_and_logs_nothing(home: ConsortiumHome, tmp_path: Path, who: str) -> None:
    request, out = asked(tmp_path), tmp_path / "amstel.signed.zip"
    if who == "person":
        name, organisation, role = PEOPLE["admin"]
        request = request_person(
            tmp_path / "p", name=name, organisation=organisation, role=role, passphrase=PASSPHRASE.encode()
        )
        out = tmp_path / "p" / "person.crt"
    before = snapshot(home.path)
    told = refused(
        *("consortium", "approve", request, "--yes", "--out", out, "--home", home.path),
        ZEGEL_ROOT_PASSPHRASE="not this one",
    )
    assert "the passphrase does not open the root key; nothing was signed" in told
    assert not out.exists()
    assert list(out.parent.glob(".*")) == []
    assert snapshot(home.path) == before


def broken() -> None:
    raise LogError("the disk is full")


def test_the_log_comes_before_the_reply(home: ConsortiumHome, tmp_path: Path) -> None:
    request, out = read_request(asked(tmp_path)), tmp_path / "amstel.signed.zip"
    before = snapshot(home.path)
    watched = WatchedLog(home.path)
    watched.around = broken
    with pytest.raises(LogError, match="disk is full"):
        approve(watched, request, passphrase=PASSPHRASE.encode(), out=out)
    assert not out.exists()
    assert list(tmp_path.glob(".*")) == []
    assert snapshot(home.path) == before
    seen: list[bool] = []
    watched.around = lambda: seen.append(out.exists())
    certificate = approve(watched, request, passphrase=PASSPHRASE.encode(), out=out)
    assert seen == [False, False]
    assert out.exists()
    with home.log() as log:
        issued = [entry.body["digest"] for _, entry in log.entries(kind=CERTIFICATE_ISSUED)]
    assert issued[-1] == certificate_digest(certificate)


def test_an_old_copy_of_the_log_issues_nothing(home: ConsortiumHome, tmp_path: Path) -> None:
    shutil.copy(home.path / "log.db", tmp_path / "old.db")
    enrol_site(home, "amstel", tmp_path / "amstel")
    shutil.copy(tmp_path / "old.db", home.path / "log.db")
    request, out = asked(tmp_path, "berkel"), tmp_path / "berkel.signed.zip"
    before = snapshot(home.path)
    assert "old copy" in refused("consortium", "approve", request, "--yes", "--out", out, "--home", home.path)
    assert not out.exists()
    assert snapshot(home.path) == before


def test_a_request_swapped_after_it_was_looked_at_is_not_signed(home: ConsortiumHome, tmp_path: Path) -> None:
    path = asked(tmp_path / "honest")
    looked_at = read_request(path)
    shutil.copy(asked(tmp_path / "other"), path)  # same name and organisation, another key
    before = snapshot(home.path)
    with pytest.raises(OnboardingError, match="was changed after it was looked at; nothing was issued"):
        approve(home, looked_at, passphrase=PASSPHRASE.encode(), out=tmp_path / "amstel.signed.zip")
    assert not (tmp_path / "amstel.signed.zip").exists()
    assert snapshot(home.path) == before


def test_a_persons_request_swapped_after_it_was_looked_at_is_not_signed(home: ConsortiumHome, tmp_path: Path) -> None:
    name, organisation, role = PEOPLE["officer"]
    paths = [
        request_person(tmp_path / who, name=name, organisation=organisation, role=role, passphrase=PASSPHRASE.encode())
        for who in ("honest", "other")
    ]
    looked_at = read_request(paths[0])
    shutil.copy(paths[1], paths[0])
    before = snapshot(home.path)
    with pytest.raises(OnboardingError, match="was changed after it was looked at"):
        approve(home, looked_at, passphrase=PASSPHRASE.encode(), out=tmp_path / "person.crt")
    assert snapshot(home.path) == before


def test_a_hospital_is_approved_as_the_readme_says(home: ConsortiumHome, tmp_path: Path) -> None:
    made = zegel(
        *("site", "request", "--home", tmp_path / "site", "--name", "amstel"),
        *("--organisation", "amstel", "--consortium", NAME, "--json"),
    )
    value = json.loads(made.stdout)
    out = tmp_path / "amstel.signed.zip"
    result = zegel(
        *("consortium", "approve", value["request"], "--fingerprint", value["fingerprint"].upper()),
        *("--out", out, "--home", home.path, "--valid-days", "30"),
    )
    assert result.exit_code == 0, result.output
    assert "amstel of amstel asks for a certificate as client" in result.stdout
    assert f"Send {out} back to amstel." in result.stdout
    with zipfile.ZipFile(out) as archive:
        certificate = load_certificate(archive.read("amstel.crt"))
    assert (certificate.not_valid_after_utc - datetime.now(UTC)).days in (29, 30)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"role": "king"}, "role 'king': expected one of authority, consortium_admin"),
        ({"name": ""}, "name"),
        ({"name": "Ada\x1b[1m"}, "name"),
        ({"passphrase": "short"}, "the key's passphrase has 5 characters; choose one of 8 to 1023"),
    ],
)
def test_a_persons_request_that_cannot_be_made_leaves_no_key(
    tmp_path: Path, change: dict[str, str], message: str
) -> None:
    values = {"name": "Ada", "organisation": "bureau", "role": "authority", "passphrase": PASSPHRASE} | change
    told = refused(
        *("person", "request", tmp_path / "new", "--name", values["name"], "--organisation", values["organisation"]),
        *("--role", values["role"]),
        ZEGEL_PERSON_PASSPHRASE=values["passphrase"],
    )
    assert message in told
    assert list(tmp_path.iterdir()) == []


def test_a_persons_folder_is_used_once(home: ConsortiumHome, tmp_path: Path) -> None:
    folder = enrol_person(home, "admin", tmp_path / "p")
    before = snapshot(folder)
    told = refused("person", "request", folder, "--name", "X", "--organisation", "Y", "--role", "authority")
    assert f"{folder} already holds a key" in told
    assert snapshot(folder) == before


# -- data manifests


def statement(after: AfterRun, signer: str, **changes: object) -> dict[str, Any]:
    return data_statement(SiteHome(after.sites / signer), **changes)


def test_a_manifest_is_logged_for_the_hospital_that_signed_it(after_run: AfterRun, tmp_path: Path) -> None:
    path = tmp_path / "statement.json"
    path.write_text(json.dumps(statement(after_run, "amstel")), encoding="utf-8")
    result = zegel("consortium", "manifest", path, "--home", after_run.home.path)
    assert result.exit_code == 0, result.output
    assert "amstel: 100 patients, 120 admissions, 2025-01-01 to 2025-12-31; logged." in result.stdout


def test_a_manifest_of_another_or_changed_is_refused(after_run: AfterRun, tmp_path: Path) -> None:
    home, first = after_run.home, TRAINERS[0]
    changed = statement(after_run, first)
    changed["statement"]["patients"] = 4000
    cases: dict[str, tuple[object, str]] = {
        "other": (statement(after_run, first, site="berkel"), "amstel signed a statement about berkel"),
        "consortium": (statement(after_run, first, consortium="Other"), "Other"),
        "changed": (changed, "signature"),
        "list": ([1], "expected"),
        "lacks": (statement(after_run, first, patients="many"), "patients"),
    }
    before = snapshot(home.path)
    for name, (value, message) in cases.items():
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(value), encoding="utf-8")
        told = refused("consortium", "manifest", path, "--home", home.path)
        assert str(path) in told
        assert message in told
    deep = tmp_path / "deep.json"
    deep.write_text("[" * 100_000, encoding="utf-8")
    assert str(deep) in refused("consortium", "manifest", deep, "--home", home.path)
    assert snapshot(home.path) == before


def test_provisioning_refuses_a_second_root(home: ConsortiumHome) -> None:
    from jobs.federation.provisioning import create_root

    before = snapshot(home.path)
    with pytest.raises(ProvisioningError, match="already holds a root key; a consortium is founded once"):
        create_root(home.ca, profile=home.profile, passphrase=b"another one")
    assert snapshot(home.path) == before
