"""Renewal at the consortium: the same holder, a new key, the log first; and who has to renew soon."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from admin_api.errors import AdminError, ApprovalError, OnboardingError
from admin_api.holders import EXPIRED, GOOD, NOT_YET_VALID, holdings, warning_line, warnings
from admin_api.onboarding import approve, read_request
from admin_api.person_requests import request_person, write_person_request
from admin_api.renewing import renew, renew_own
from admin_api.renewing_people import install_person_renewal, request_person_renewal
from admin_api.revoking import change_status
from admin_api.running import start_server
from audit.certificates import certificate_digest, identity_of, load_certificate
from audit.durable_file import write_durably
from audit.entry import CERTIFICATE_ISSUED
from audit.errors import LogError
from audit.evidence import Evidence
from audit.revocation import REVOKED, SUSPENDED
from jobs.errors import FederationError, ProvisioningError
from jobs.federation import process
from jobs.federation.provisioning import key_fingerprint, request_certificate
from jobs.federation.session import check_certificates
from jobs.home import ConsortiumHome
from site_packages.home import SiteHome
from site_packages.installing import request_site
from tests.admin_api.consortium_folder import (
    NAME,
    PASSPHRASE,
    PEOPLE,
    WatchedLog,
    enrol_person,
    enrol_site,
    now,
    opened,
    refused,
    snapshot,
    zegel,
)

SECRET = PASSPHRASE.encode()


def at(days: float) -> Callable[[], datetime]:
    return lambda: datetime.now(UTC) + timedelta(days=days)


def again(folder: Path, *, name: str = "amstel", organisation: str = "amstel") -> Path:
    """A hospital's request with a new key, as `zegel site renew` makes it."""
    return request_certificate(folder / "request", project=NAME, name=name, organisation=organisation, kind="client")


def issued(home: ConsortiumHome) -> list[str]:
    with home.log() as log:
        return [entry.body["digest"] for _, entry in log.entries(kind=CERTIFICATE_ISSUED)]


# -- on request


def test_a_hospital_holds_two_certificates_for_a_while(home: ConsortiumHome, tmp_path: Path) -> None:
    enrol_site(home, "amstel", tmp_path / "amstel")
    request, out = again(tmp_path), tmp_path / "again.signed.zip"
    fingerprint = read_request(request).fingerprint
    result = zegel(
        *("consortium", "renew", request, "--fingerprint", fingerprint, "--out", out, "--home", home.path),
        *("--valid-days", "400", "--json"),
    )
    assert result.exit_code == 0, result.output
    assert out.exists()
    found = [each for each in holdings(home) if each.name == "amstel"]
    assert [each.state for each in found] == [GOOD, GOOD]
    assert [each.last for each in found] == [False, True]
    with home.log() as log:
        Evidence(log.entries(), home.root())  # still holds together


def test_the_log_comes_before_the_renewed_certificate(home: ConsortiumHome, tmp_path: Path) -> None:
    enrol_site(home, "amstel", tmp_path / "amstel")
    request = read_request(again(tmp_path))
    watched, out, seen = WatchedLog(home.path), tmp_path / "again.signed.zip", list[bool]()

    def broken() -> None:
        raise LogError("the disk is full")

    watched.around = broken
    before = snapshot(home.path)
    with pytest.raises(LogError):
        renew(watched, request, passphrase=SECRET, out=out)
    assert snapshot(home.path) == before
    watched.around = lambda: seen.append(out.exists())
    certificate = renew(watched, request, passphrase=SECRET, out=out)
    assert seen == [False, False], "handed out before it was logged"
    assert out.exists()
    assert issued(home)[-1] == certificate_digest(certificate)


def refuse(home: ConsortiumHome, request: Path, message: str, *, passphrase: str = PASSPHRASE) -> None:
    before = snapshot(home.path)
    out = request.parent / "out.signed.zip"
    told = refused(
        *("consortium", "renew", request, "--yes", "--out", out, "--home", home.path),
        ZEGEL_ROOT_PASSPHRASE=passphrase,
    )
    assert message in told
    assert not out.exists()
    assert snapshot(home.path) == before


def test_what_is_not_renewed(home: ConsortiumHome, tmp_path: Path) -> None:
    site = enrol_site(home, "amstel", tmp_path / "amstel")
    admin = enrol_person(home, "admin", tmp_path / "ada")
    refuse(home, again(tmp_path / "a", name="nobody"), "holds no certificate here")
    refuse(home, again(tmp_path / "b", organisation="elsewhere"), "the holder of that name is amstel")
    refuse(home, site.key_folder / "amstel.request.zip", "the key of this request is amstel")
    refuse(home, again(tmp_path / "c"), "does not open the root key", passphrase="wrong passphrase")
    name, organisation, _ = PEOPLE["admin"]
    other = write_person_request(
        tmp_path / "p", name=name, organisation=organisation, role="privacy_officer", passphrase=SECRET
    )
    refuse(home, other, "the holder of that name is Ada Beheer (consortium_admin, bureau)")
    for status, step in ((SUSPENDED, "reinstated first"), (REVOKED, "does not come back under this name")):
        change_status(home, "amstel", status=status, reason="lost", admin=opened(home, admin))
        refuse(home, again(tmp_path / status), step)


# -- people


def test_a_person_renews_with_a_new_key(home: ConsortiumHome, tmp_path: Path) -> None:
    folder = enrol_person(home, "officer", tmp_path / "p")
    old = opened(home, folder)
    made = json.loads(zegel("person", "renew", folder, "--json").stdout)
    assert json.loads(zegel("person", "renew", folder, "--json").stdout) == made, "asked once"
    assert opened(home, folder).certificate == old.certificate, "nothing changed yet"
    out = tmp_path / "reply.crt"
    told = zegel(
        *("consortium", "renew", made["request"], "--fingerprint", made["fingerprint"], "--out", out),
        *("--home", home.path, "--valid-days", "400"),
    )
    assert told.exit_code == 0, told.output
    before = snapshot(folder)
    for wrong in ("not this one", ""):
        refused("person", "install", folder, out, "--home", home.path, ZEGEL_PERSON_PASSPHRASE=wrong)
        assert snapshot(folder) == before
    assert zegel("person", "install", folder, out, "--home", home.path).exit_code == 0
    new = opened(home, folder)
    assert new.identity.person == old.identity.person
    assert new.key.public_key() != old.key.public_key()
    assert sorted(path.name for path in folder.iterdir()) == ["person.crt", "person.key", "person.request.json"]
    assert "no renewal was asked for" in refused("person", "install", folder, out, "--home", home.path)


@pytest.mark.parametrize("cut", range(5))
def test_a_persons_change_over_cut_off_is_completed_by_doing_it_again(
    home: ConsortiumHome, tmp_path: Path, cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = enrol_person(home, "officer", tmp_path / "p")
    request, out = request_person_renewal(folder, passphrase=SECRET), tmp_path / "reply.crt"
    certificate = renew(home, read_request(request), passphrase=SECRET, out=out, valid_days=400)
    done = 0

    def write(path: Path, data: bytes) -> None:
        nonlocal done
        if done == cut:
            raise KeyboardInterrupt
        done += 1
        write_durably(path, data)

    def install() -> None:
        install_person_renewal(folder, out, passphrase=SECRET, root=home.root(), now=now())

    with monkeypatch.context() as patch:
        patch.setattr("admin_api.renewing_people.write_durably", write)
        if cut < 4:
            with pytest.raises(KeyboardInterrupt):
                install()
        else:
            install()
    if cut < 4:
        install()
    assert opened(home, folder).certificate == certificate


@pytest.mark.parametrize("days", [-1, 401])
def test_a_persons_reply_out_of_time_or_of_another_changes_nothing(
    home: ConsortiumHome, tmp_path: Path, days: int
) -> None:
    folder, other = enrol_person(home, "officer", tmp_path / "p"), enrol_person(home, "manager", tmp_path / "m")
    request, out = request_person_renewal(folder, passphrase=SECRET), tmp_path / "reply.crt"
    renew(home, read_request(request), passphrase=SECRET, out=out, valid_days=400)
    before = snapshot(folder)
    for reply, later in ((out, days), (other / "person.crt", 0), (folder / "person.crt", 0), (tmp_path / "no", 0)):
        with pytest.raises(OnboardingError, match="nothing was changed"):
            install_person_renewal(folder, reply, passphrase=SECRET, root=home.root(), now=at(later)())
        assert snapshot(folder) == before
    with pytest.raises(ApprovalError):
        request_person_renewal(tmp_path, passphrase=SECRET)


# -- the consortium's own


def test_the_consortiums_own_certificates_keep_their_keys(home: ConsortiumHome) -> None:
    server = home.server_kit / "startup" / "server.crt"
    before = load_certificate(server.read_bytes())
    assert not any(each.renewed for each in renew_own(home, passphrase=SECRET)), "nothing ends soon"
    result = zegel("consortium", "renew-own", "--within-days", "30", "--home", home.path, "--json")
    assert result.exit_code == 0, result.output
    assert [each["renewed"] for each in json.loads(result.stdout)["certificates"]] == [False] * 3
    renew_own(home, passphrase=SECRET, within_days=400, valid_days=400)
    after = load_certificate(server.read_bytes())
    assert after.not_valid_after_utc > before.not_valid_after_utc
    assert key_fingerprint(after) == key_fingerprint(before)
    check_certificates(home)


def test_they_are_renewed_before_they_end_and_logged_first(home: ConsortiumHome) -> None:
    count = len(issued(home))
    own = renew_own(home, passphrase=SECRET, within_days=400, valid_days=400)
    # The log's lasts as long as the root.
    assert [(each.role, each.renewed) for each in own] == [("server", True), ("lead", True), ("log", False)]
    found = issued(home)[count:]
    assert found == [
        certificate_digest(load_certificate((home.server_kit / "startup" / "server.crt").read_bytes())),
        certificate_digest(load_certificate((home.admin_kit / "startup" / "client.crt").read_bytes())),
    ]
    with home.log() as log:
        Evidence(log.entries(), home.root())
    for path in (home.server_kit, home.admin_kit):
        assert {oct(mode) for mode, _ in snapshot(path / "startup").values()} <= {"0o600", "0o700"}


def test_a_wrong_passphrase_renews_nothing(home: ConsortiumHome) -> None:
    before = snapshot(home.path)
    with pytest.raises(ProvisioningError, match="does not open the root key"):
        renew_own(home, passphrase=b"wrong passphrase", within_days=400)
    assert snapshot(home.path) == before


@pytest.mark.parametrize("days", [-2, 366])
def test_a_session_needs_certificates_that_are_valid_now(home: ConsortiumHome, days: int) -> None:
    with pytest.raises(FederationError, match=r"certificate of the account: expected a time from .*renew-own"):
        check_certificates(ConsortiumHome(home.path, at(days)))
    with pytest.raises(FederationError, match=r"the server does not start: .*expected a time from"):
        start_server(ConsortiumHome(home.path, at(days)))
    assert process.find(home.server_kit) is None
    check_certificates(home)
    shutil.copy(home.ca / "rootCA.pem", home.admin_kit / "startup" / "client.crt")
    check_certificates(home)  # the root itself is the root's
    (home.admin_kit / "startup" / "client.crt").unlink()
    with pytest.raises(FederationError, match="certificate of the account"):
        check_certificates(home)


# -- how long they last


def test_what_ends_soon_is_told(home: ConsortiumHome, tmp_path: Path) -> None:
    enrol_site(home, "amstel", tmp_path / "amstel")
    assert warnings(home) == []
    soon = ConsortiumHome(home.path, at(340))
    assert {each.role for each in warnings(soon)} == {"client", "server", "lead"}
    lines = [warning_line(each) for each in warnings(soon)]
    assert any("`zegel site renew`, you `zegel consortium renew`" in line for line in lines)
    assert any("`zegel consortium renew-own`" in line for line in lines)
    renew(home, read_request(again(tmp_path)), passphrase=SECRET, out=tmp_path / "r.signed.zip", valid_days=800)
    assert {each.role for each in warnings(soon)} == {"server", "lead"}
    late = {each.role: each for each in warnings(ConsortiumHome(home.path, at(366)))}
    assert late["server"].state == EXPIRED
    assert late["server"].days < 0
    early = {each.role: each.state for each in holdings(ConsortiumHome(home.path, at(-2)))}
    assert early["client"] == NOT_YET_VALID


def test_the_list_and_the_status_for_machines(home: ConsortiumHome, tmp_path: Path) -> None:
    officer = request_person(tmp_path / "p", name="Ina", organisation="x", role="authority", passphrase=SECRET)
    approve(home, read_request(officer), passphrase=SECRET, out=tmp_path / "p" / "person.crt", valid_days=10)
    result = zegel("consortium", "certificates", "--home", home.path)
    assert "they run `zegel person renew`, you `zegel consortium renew`" in result.stdout
    value = json.loads(zegel("consortium", "certificates", "--home", home.path, "--json").stdout)["certificates"]
    assert {each["role"] for each in value} == {"root", "log", "server", "lead", "authority"}
    assert [each["name"] for each in value if each["ends_soon"]] == ["Ina"]
    status = zegel("consortium", "status", "--home", home.path, "--json")
    assert [each["name"] for each in json.loads(status.stdout)["certificates_ending"]] == ["Ina"]
    assert status.exit_code == 1, "the server does not run"


# -- the root key


def test_every_use_of_the_root_key_stands_in_a_module_that_logs_it() -> None:
    """What signs with the root is called from these places only; each logs before it hands out, as tested above."""
    signing = {"open_root_key", "approve_request", "issue_certificate"}
    found: set[str] = set()
    project = Path(__file__).parents[2]
    for room in ("admin_api", "jobs", "audit", "privacy", "site_packages"):
        for path in (project / room).rglob("*.py"):
            calls = {
                node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Call)
            }
            if calls & signing:
                found.add(str(path.relative_to(project)))
    assert found == {
        "admin_api/founding.py",  # its first entries
        "admin_api/onboarding.py",  # issue
        "admin_api/renewing.py",  # renew_own
        "admin_api/web/certificates/issuing.py",  # opens it to see that the passphrase is right; onboarding signs
        "jobs/federation/provisioning.py",  # opens the key for NVFlare; called by the others
        "site_packages/simulation.py",  # a root of its own, in memory
    }


def test_every_certificate_under_the_root_is_in_the_log(home: ConsortiumHome, tmp_path: Path) -> None:
    enrol_site(home, "amstel", tmp_path / "amstel")
    enrol_person(home, "officer", tmp_path / "officer")
    renew(home, read_request(again(tmp_path)), passphrase=SECRET, out=tmp_path / "r.signed.zip")
    renew_own(home, passphrase=SECRET, within_days=400, valid_days=400)
    log_certificate = load_certificate((home.path / "log.crt").read_bytes())
    known = {*issued(home), certificate_digest(log_certificate), certificate_digest(home.root())}
    seen = set()
    for path in (*home.path.rglob("*.crt"), *home.path.rglob("*.pem"), *tmp_path.rglob("*.crt")):
        certificate = load_certificate(path.read_bytes())
        assert certificate_digest(certificate) in known, path
        seen.add(identity_of(certificate).role if certificate != home.root() else "root")
    assert seen == {"root", "log", "server", "lead", "client", "privacy_officer"}


def test_a_renewed_site_asks_with_its_own_name(home: ConsortiumHome, tmp_path: Path) -> None:
    """The first request is no renewal, and the renewal no first request."""
    site = SiteHome(tmp_path / "amstel")
    request = request_site(site, name="amstel", organisation="amstel", consortium=NAME)
    with pytest.raises(AdminError, match="a first one is `zegel consortium approve`"):
        renew(home, read_request(request), passphrase=SECRET, out=tmp_path / "x.signed.zip")
