"""Who gets a certificate is decided by two people of two organisations, once there are two."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from admin_api.errors import ApprovalError, OnboardingError
from admin_api.onboarding import (
    Request,
    approvals_of_request,
    approve,
    check_quorum,
    decide_request,
    description_of,
    read_request,
)
from admin_api.people import Person
from admin_api.person_requests import request_person
from admin_api.recording import read_evidence
from admin_api.renewing import renew
from admin_api.renewing_people import request_person_renewal
from admin_api.revoking import change_status
from audit.certificate_request import check_issued
from audit.entry import CERTIFICATE_ISSUED
from audit.revocation import REVOKED
from jobs.home import ConsortiumHome
from site_packages.home import SiteHome
from site_packages.installing import request_site
from tests.admin_api.conftest import AfterRun
from tests.admin_api.consortium_folder import (
    NAME,
    PASSPHRASE,
    WatchedLog,
    enrol_person,
    opened,
    refused,
    snapshot,
    zegel,
)

SECRET = PASSPHRASE.encode()


def hospital(folder: Path, name: str = "amstel") -> Path:
    return request_site(SiteHome(folder / name), name=name, organisation=name, consortium=NAME)


@pytest.fixture
def staffed(home: ConsortiumHome, tmp_path: Path) -> tuple[Person, Person]:
    """An admin and an officer, the first two."""
    folders = [enrol_person(home, who, tmp_path / "people" / who) for who in ("admin", "officer")]
    return opened(home, folders[0]), opened(home, folders[1])


def agree(home: ConsortiumHome, request: Request, *people: Person) -> None:
    for person in people:
        decide_request(home, description_of(home, request).digest, person, approve=True, reason="")


def test_the_first_are_issued_by_the_root_alone_and_the_log_says_so(
    home: ConsortiumHome, staffed: tuple[Person, Person]
) -> None:
    evidence = read_evidence(home)
    people = [each for each in evidence.of_kind(CERTIFICATE_ISSUED) if each.body["holder"] is not None]
    assert [each.body["approvals"] for each in people] == [[], []]
    assert check_issued(evidence, evidence.of_kind(CERTIFICATE_ISSUED)) == ([], [each.index for each in people])


@pytest.mark.parametrize("kind", ["hospital", "person"])
def test_from_then_on_two_must_agree(
    home: ConsortiumHome, staffed: tuple[Person, Person], tmp_path: Path, kind: str
) -> None:
    out = tmp_path / "reply.signed.zip"
    if kind == "hospital":
        path = hospital(tmp_path)
    else:
        path = request_person(
            tmp_path / "rosa", name="Rosa Release", organisation="coding centre", role="release_manager",
            passphrase=SECRET,
        )  # fmt: skip
    request = read_request(path)
    assert description_of(home, request).kind == kind
    before = snapshot(home.path)
    with pytest.raises(OnboardingError, match=r"got it from nobody; nothing was issued\. They decide with `zegel cons"):
        approve(home, request, passphrase=SECRET, out=out)
    assert snapshot(home.path) == before
    agree(home, request, staffed[0])
    before = snapshot(home.path)
    with pytest.raises(OnboardingError, match=r"got it from person-\w+ \(consortium_admin, bureau\)"):
        approve(home, request, passphrase=SECRET, out=out)
    assert snapshot(home.path) == before
    assert not out.exists()
    agree(home, request, staffed[1])
    assert len(check_quorum(home, request)) == 2
    approve(home, request, passphrase=SECRET, out=out)
    with home.log() as log:
        issued = [entry for _, entry in log.entries(kind=CERTIFICATE_ISSUED)][-1]
    assert issued.body["approvals"] == sorted(each.certificate_digest for each in staffed)
    evidence = read_evidence(home)
    assert check_issued(evidence, evidence.of_kind(CERTIFICATE_ISSUED))[0] == [evidence.size - 1]


def test_the_name_that_was_approved_is_the_name_that_is_kept(
    home: ConsortiumHome, staffed: tuple[Person, Person], tmp_path: Path
) -> None:
    """The log holds a commitment; what was approved is under it, and cannot be guessed from the log."""
    paths = [
        request_person(tmp_path / who, name="Rosa Release", organisation="O", role="authority", passphrase=SECRET)
        for who in ("one", "two")
    ]
    one, two = map(read_request, paths)
    holders = {description_of(home, each).holder for each in (one, two)}
    assert len(holders) == 2, "the same name, and nothing shows it"
    agree(home, one, *staffed)
    with pytest.raises(OnboardingError, match="got it from nobody"):
        approve(home, two, passphrase=SECRET, out=tmp_path / "two.crt")
    approve(home, one, passphrase=SECRET, out=tmp_path / "one.crt")
    with home.log() as log:
        issued = [entry for _, entry in log.entries(kind=CERTIFICATE_ISSUED)][-1]
    assert issued.body["holder"] in holders
    # Now she is known: her second request is about the commitment that is in the log.
    assert description_of(home, two).holder == issued.body["holder"]


def test_a_refusal_stops_it_and_needs_a_reason(
    home: ConsortiumHome, staffed: tuple[Person, Person], tmp_path: Path
) -> None:
    request = read_request(hospital(tmp_path))
    digest = description_of(home, request).digest
    with pytest.raises(ApprovalError, match="to refuse a request, give a --reason"):
        decide_request(home, digest, staffed[1], approve=False, reason="")
    agree(home, request, *staffed)
    decide_request(home, digest, staffed[1], approve=False, reason="nobody answers the telephone there")
    with pytest.raises(OnboardingError, match=r"refused by person-\w+ \(privacy_officer, privacy board\)"):
        approve(home, request, passphrase=SECRET, out=tmp_path / "amstel.signed.zip")
    said = approvals_of_request(home, digest)
    assert [(each["decision"], each["reason"]) for each in said][-1] == (
        "refuse", "nobody answers the telephone there",
    )  # fmt: skip


def test_a_release_manager_has_no_say(after_run: AfterRun, tmp_path: Path) -> None:
    home, request = after_run.home, read_request(hospital(tmp_path, "zwin"))
    manager = opened(home, after_run.people / "manager")
    with pytest.raises(ApprovalError, match="it needs the role authority or consortium_admin or privacy_officer"):
        agree(home, request, manager)


def test_approvals_grow_old(home: ConsortiumHome, staffed: tuple[Person, Person], tmp_path: Path) -> None:
    request = read_request(hospital(tmp_path))
    agree(home, request, *staffed)
    later = ConsortiumHome(home.path, lambda: datetime.now(UTC) + timedelta(days=31))
    with pytest.raises(OnboardingError, match="within 30 days; got it from nobody"):
        approve(later, request, passphrase=SECRET, out=tmp_path / "amstel.signed.zip")


def test_a_renewal_is_approved_too_and_the_old_key_has_a_say(
    home: ConsortiumHome, staffed: tuple[Person, Person], tmp_path: Path
) -> None:
    folder = tmp_path / "people" / "admin"
    request = read_request(request_person_renewal(folder, passphrase=SECRET))
    with pytest.raises(OnboardingError, match="got it from nobody"):
        renew(home, request, passphrase=SECRET, out=tmp_path / "new.crt")
    agree(home, request, *staffed)
    renew(home, request, passphrase=SECRET, out=tmp_path / "new.crt")
    assert (tmp_path / "new.crt").exists()


def test_a_refusal_between_the_look_and_the_append_counts(
    home: ConsortiumHome, staffed: tuple[Person, Person], tmp_path: Path
) -> None:
    """What is appended is judged on the log it is appended to."""
    request, out = read_request(hospital(tmp_path)), tmp_path / "amstel.signed.zip"
    agree(home, request, *staffed)
    watched, done = WatchedLog(home.path), list[bool]()

    def refuse_once() -> None:
        if not done:
            done.append(True)
            digest = description_of(home, request).digest
            decide_request(home, digest, staffed[1], approve=False, reason="stop")

    watched.around = refuse_once
    with pytest.raises(OnboardingError, match="refused by person-"):
        approve(watched, request, passphrase=SECRET, out=out)
    assert not out.exists()
    with home.log() as log:
        assert "client" not in {entry.body["role"] for _, entry in log.entries(kind=CERTIFICATE_ISSUED)}


def test_when_the_two_are_gone_the_root_alone_issues_again(
    home: ConsortiumHome, staffed: tuple[Person, Person], tmp_path: Path
) -> None:
    change_status(home, "Pieter Privacy", status=REVOKED, reason="left", admin=staffed[0])
    request = read_request(hospital(tmp_path))
    assert check_quorum(home, request) == ()
    approve(home, request, passphrase=SECRET, out=tmp_path / "amstel.signed.zip")
    evidence = read_evidence(home)
    assert evidence.of_kind(CERTIFICATE_ISSUED)[-1].body["approvals"] == []


def test_by_command(home: ConsortiumHome, staffed: tuple[Person, Person], tmp_path: Path) -> None:
    path, out = hospital(tmp_path), tmp_path / "amstel.signed.zip"
    fingerprint = read_request(path).fingerprint
    decide = ("consortium", "decide", path, "--home", home.path, "--as")
    issue = ("consortium", "approve", path, "--yes", "--out", out, "--home", home.path)
    assert "Ada Beheer" not in refused(*issue)
    before = snapshot(home.path)
    people = tmp_path / "people"
    assert "give --fingerprint as the requester read it to you, or --yes" in refused(*decide, people / "admin")
    assert "the fingerprints differ" in refused(*decide, people / "admin", "--fingerprint", "sha256:" + "0" * 64)
    assert "give a --reason" in refused(*decide, people / "officer", "--refuse")
    assert snapshot(home.path) == before
    shown = zegel(*decide, people / "admin", "--fingerprint", fingerprint)
    assert shown.exit_code == 0, shown.output
    assert "Ada Beheer (consortium_admin, bureau) approved amstel's request; the log keeps it." in shown.stdout
    assert "got it from Ada Beheer (consortium_admin, bureau)" in refused(*issue)
    told = json.loads(zegel(*decide, people / "officer", "--yes", "--json").stdout)
    assert (told["decision"], told["by"], told["role"]) == ("approved", "Pieter Privacy", "privacy_officer")
    assert zegel(*issue).exit_code == 0
    exported = zegel("audit", "export", tmp_path / "export", "--home", home.path)
    assert exported.exit_code == 0, exported.output
    checked = zegel("audit", "check-export", tmp_path / "export", "--root", home.ca / "rootCA.pem")
    assert "certificates approved by two organisations: 1" in checked.stdout
    assert "issued by the root's holder alone, when nobody could approve: entries 3, 4" in checked.stdout
