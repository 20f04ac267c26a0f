"""Erasing: names and reasons go for good, and everything that was signed about them still holds."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from admin_api.erasing import erasable, erase
from admin_api.errors import ApprovalError, ErasureRefused, OnboardingError
from admin_api.onboarding import approve, read_request
from admin_api.people import disclosed_now, people_of
from admin_api.person_requests import request_person
from admin_api.planning import decide, decisions
from admin_api.recording import read_evidence
from admin_api.releasing import certify, propose_release
from admin_api.revoking import change_status
from audit.certificates import identity_of, load_certificate
from audit.disclosure import ERASED, NAME, REASON
from audit.entry import VALUE_ERASED
from audit.errors import LogError
from audit.revocation import REVOKED
from audit.verify import verify_dossier
from jobs.home import ConsortiumHome
from tests.admin_api.conftest import AfterRun
from tests.admin_api.consortium_folder import (
    PASSPHRASE,
    RUN,
    WatchedLog,
    enrol_person,
    opened,
    refused,
    snapshot,
    zegel,
)

PIETER = "Pieter Privacy"
RELEASE = "2027.1"


def released(after: AfterRun) -> bytes:
    """A certified release of the run, approved by Pieter with reasons of his own."""
    home = after.home
    draft = propose_release(home, run_id=RUN, release=RELEASE, proposer=opened(home, after.people / "admin"))
    for who in ("officer", "manager"):
        decide(
            home,
            "release",
            draft.digest,
            opened(home, after.people / who),
            approve=True,
            reason=f"read by {who} and nobody else",
        )
    return certify(home, RELEASE)


def bytes_below(folder: Path) -> bytes:
    return b"\n".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def revoked(after: AfterRun, name: str) -> None:
    admin = opened(after.home, after.people / "admin")
    change_status(after.home, name, status=REVOKED, reason=f"{name} left us", admin=admin)


def test_no_personal_value_is_left_and_everything_verifies(after_run: AfterRun, tmp_path: Path) -> None:
    home, root = after_run.home, (after_run.home.ca / "rootCA.pem").read_bytes()
    before = released(after_run)
    revoked(after_run, PIETER)
    for personal in (PIETER, "read by officer and nobody else", "fits", "Pieter Privacy left us"):
        assert personal.encode() in bytes_below(home.path / "disclosures")
        for path in home.path.rglob("*"):
            if path.is_file() and path.parent != home.path / "disclosures":
                assert personal == "fits" or personal.encode() not in path.read_bytes(), path
    admin = after_run.people / "admin"
    command = ("audit", "erase", "--person", PIETER, "--reason", "asked for it in May", "--home", home.path)
    told = zegel(*command, "--as", admin, "--yes", "--json")
    assert told.exit_code == 0, told.output
    value = json.loads(told.stdout)
    assert len(value["erased"]) == 4
    assert len(value["entries"]) == 4
    rest = bytes_below(home.path)
    for personal in (PIETER, "read by officer and nobody else", "Pieter Privacy left us", '"fits"'):
        assert personal.encode() not in rest
    assert b"Rosa Release" in rest
    assert b"read by manager and nobody else" in rest

    exported = zegel("audit", "export", tmp_path / "tiles", "--home", home.path)
    assert exported.exit_code == 0, exported.output
    for personal in (PIETER, "Rosa Release", "and nobody else", "asked for it"):
        assert personal.encode() not in bytes_below(tmp_path / "tiles")
    checked = json.loads(zegel("audit", "check", "--home", home.path, "--json").stdout)
    assert checked["sound"]
    assert checked["values_to_erase"] == []

    now = datetime.now(UTC)
    after = certify(home, RELEASE)
    assert PIETER.encode() not in after
    old, new = verify_dossier(before, root, now=now), verify_dossier(after, root, now=now)
    person = identity_of(load_certificate((after_run.people / "officer" / "person.crt").read_bytes())).name
    assert old.disclosed.name(person) == PIETER
    assert new.disclosed.name(person) == person
    assert new.trace.approvals == old.trace.approvals
    assert set(new.disclosed.names.values()) == {"Ada Beheer", "Rosa Release"}
    reasons = {each["name"]: each["reason"] for each in decisions(home, "release", new.trace.statement_digest)}
    assert reasons == {person: ERASED, "Rosa Release": "read by manager and nobody else"}


def test_one_value_leaves_the_others(after_run: AfterRun) -> None:
    home, admin = after_run.home, opened(after_run.home, after_run.people / "admin")
    before = disclosed_now(home)
    (fits,) = (commitment for commitment, value in before.values.items() if value == "fits")
    chosen = erasable(home, [fits])
    assert [(each.field, each.value) for each in chosen] == [(REASON, "fits")]
    (index,) = erase(home, chosen, reason="not needed", admin=admin)
    after = disclosed_now(home)
    assert after.erased == {fits: index}
    assert {**after.values, fits: "fits"}.items() >= before.values.items()
    assert after.names == before.names
    assert (decisions(home, "plan", after_run.plan_hash)[0]["reason"]) == ERASED
    kept = snapshot(home.path)
    with pytest.raises(ErasureRefused, match=rf"was erased already, in entry {index}"):
        erasable(home, [fits])
    assert snapshot(home.path) == kept


def test_what_a_stopped_machine_left_is_removed_without_another_entry(after_run: AfterRun) -> None:
    home, admin = after_run.home, opened(after_run.home, after_run.people / "admin")
    (fits,) = (commitment for commitment, value in disclosed_now(home).values.items() if value == "fits")
    file = home.path / "disclosures" / fits.removeprefix("sha256:")
    saved = file.read_bytes()
    erase(home, erasable(home, [fits]), reason="not needed", admin=admin)
    file.write_bytes(saved)
    assert fits not in disclosed_now(home).values
    checked = zegel("audit", "check", "--home", home.path)
    assert f"still here, though erased in the log: `zegel audit erase {fits}` removes it" in checked.stdout
    size = read_evidence(home).size
    assert erase(home, erasable(home, [fits]), reason="again", admin=admin) == ()
    assert not file.exists()
    assert read_evidence(home).size == size
    assert "again" not in disclosed_now(home).values.values()


def test_a_log_that_refuses_leaves_no_name(home: ConsortiumHome, tmp_path: Path) -> None:
    request = request_person(
        tmp_path / "p", name=PIETER, organisation="x", role="authority", passphrase=PASSPHRASE.encode()
    )
    before = snapshot(home.path)
    watched = WatchedLog(home.path)

    def broken() -> None:
        raise LogError("the disk is full")

    watched.around = broken
    with pytest.raises(LogError, match="disk is full"):
        approve(
            watched,
            read_request(request),
            passphrase=PASSPHRASE.encode(),
            out=tmp_path / "p" / "person.crt",
        )
    assert snapshot(home.path) == before


def test_a_name_in_use_stays(after_run: AfterRun) -> None:
    home, admin = after_run.home, opened(after_run.home, after_run.people / "admin")
    before = snapshot(home.path)
    for name in (PIETER, "Ada Beheer"):
        with pytest.raises(ErasureRefused, match=r"person-\w+ counts until .* must be known by name"):
            erase(home, erasable(home, person=name), reason="asked", admin=admin)
    assert snapshot(home.path) == before


def test_what_is_refused(after_run: AfterRun) -> None:
    home, people = after_run.home, after_run.people
    admin = opened(home, people / "admin")
    (fits,) = (commitment for commitment, value in disclosed_now(home).values.items() if value == "fits")
    before = snapshot(home.path)
    chosen = erasable(home, [fits])
    with pytest.raises(ApprovalError, match="needs the role consortium_admin"):
        erase(home, chosen, reason="asked", admin=opened(home, people / "officer"))
    for reason, message in ((" ", "give a --reason"), ("it FITS no more", "repeats the reason"), ("a\nb", "printable")):
        with pytest.raises(ErasureRefused, match=message):
            erase(home, chosen, reason=reason, admin=admin)
    for commitments, person, message in (
        (["sha256:" + "0" * 64], None, "is no commitment of this log"),
        (["fits"], None, "commitment: expected sha256:"),
        ([], "Nobody", "nobody here is called 'Nobody'"),
        ([], None, "nothing to erase"),
    ):
        with pytest.raises(ErasureRefused, match=message):
            erasable(home, commitments, person=person)
    told = refused("audit", "erase", fits, "--reason", "x", "--home", home.path, "--as", people / "admin")
    assert "then give --yes" in told
    assert snapshot(home.path) == before


def test_a_person_keeps_one_id(home: ConsortiumHome, tmp_path: Path) -> None:
    first = enrol_person(home, "admin", tmp_path / "ada")
    again = request_person(
        tmp_path / "b", name="ada beheer", organisation="bureau", role="authority", passphrase=PASSPHRASE.encode()
    )
    second = approve(home, read_request(again), passphrase=PASSPHRASE.encode(), out=tmp_path / "b" / "person.crt")
    identities = [opened(home, first).identity, identity_of(second)]
    assert identities[0].person == identities[1].person
    assert [each["name"] for each in people_of(home)] == ["Ada Beheer"] * 2
    listed = zegel("person", "list", "--home", home.path).stdout
    assert f"{identities[0].name}  Ada Beheer (authority, bureau)" in listed
    elsewhere = request_person(
        tmp_path / "c", name="Ada Beheer", organisation="elsewhere", role="authority", passphrase=PASSPHRASE.encode()
    )
    with pytest.raises(OnboardingError, match="'Ada Beheer' already holds a certificate"):
        approve(home, read_request(elsewhere), passphrase=PASSPHRASE.encode(), out=tmp_path / "c" / "person.crt")
    posing = request_person(
        tmp_path / "d",
        name="person-0123456789abcdef",
        organisation="x",
        role="authority",
        passphrase=PASSPHRASE.encode(),
    )
    with pytest.raises(OnboardingError, match="is a person id"):
        approve(home, read_request(posing), passphrase=PASSPHRASE.encode(), out=tmp_path / "d" / "person.crt")


def test_erased_by_id_and_never_renewed(after_run: AfterRun, tmp_path: Path) -> None:
    home, admin = after_run.home, opened(after_run.home, after_run.people / "admin")
    folder = tmp_path / "sven"
    shutil.copytree(after_run.people / "second", folder)
    person = identity_of(load_certificate((folder / "person.crt").read_bytes())).name
    revoked(after_run, "Sven Tweede")
    erase(home, erasable(home, person="sven tweede"), reason="asked", admin=admin)
    with pytest.raises(ErasureRefused, match="nobody here is called"):
        erasable(home, person="Sven Tweede")
    with pytest.raises(ErasureRefused, match="nothing to erase"):
        erasable(home, person=person)
    with home.log() as log:
        erased = [entry for _, entry in log.entries(kind=VALUE_ERASED)]
    assert [each.body.keys() for each in erased] == [{"commitment", "erasure"}] * 2
    fresh = enrol_person(home, "second", tmp_path / "fresh")
    assert opened(home, fresh).identity.name != person


def test_a_name_is_committed_to_once(after_run: AfterRun) -> None:
    said = disclosed_now(after_run.home)
    assert sorted(said.names.values()) == ["Ada Beheer", PIETER, "Rosa Release", "Sven Tweede"]
    fields = [each.field for each in erasable(after_run.home, person=PIETER)]
    assert fields == [NAME, REASON]
