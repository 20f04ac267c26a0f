"""People who sign: their key opens with their passphrase, belongs to their certificate, and has a role that decides."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from admin_api.errors import AdminError, ApprovalError
from admin_api.people import open_person
from admin_api.planning import decide, propose
from admin_api.releasing import propose_release
from jobs.home import ConsortiumHome
from tests.admin_api.conftest import AfterRun
from tests.admin_api.consortium_folder import PASSPHRASE, RUN, enrol_person, opened, plan_of, snapshot


def test_a_key_opens_with_its_passphrase_only(home: ConsortiumHome, tmp_path: Path) -> None:
    folder = enrol_person(home, "admin", tmp_path / "ada")
    assert opened(home, folder).identity.role == "consortium_admin"
    assert b"ENCRYPTED" in (folder / "person.key").read_bytes()
    assert (folder / "person.key").stat().st_mode & 0o077 == 0
    for passphrase in (b"wrong", b"", PASSPHRASE.encode()[:-1]):
        with pytest.raises(ApprovalError, match=rf"{folder}: .*passphrase"):
            open_person(folder, passphrase=passphrase, root=home.root(), now=home.clock())


def test_key_and_certificate_belong_together(home: ConsortiumHome, tmp_path: Path) -> None:
    ada, pieter = (enrol_person(home, who, tmp_path / who) for who in ("admin", "officer"))
    shutil.copy(pieter / "person.crt", ada / "person.crt")
    with pytest.raises(ApprovalError, match=r"person\.key and person\.crt do not belong together"):
        opened(home, ada)


def test_what_is_missing_is_named(home: ConsortiumHome, tmp_path: Path) -> None:
    ada = enrol_person(home, "admin", tmp_path / "ada")
    (ada / "person.crt").unlink()
    with pytest.raises(ApprovalError, match=r"person\.crt is missing; `zegel person request`"):
        opened(home, ada)
    (ada / "person.crt").mkdir()
    with pytest.raises(ApprovalError, match="directory"):
        opened(home, ada)


def test_a_certificate_ends(home: ConsortiumHome, tmp_path: Path) -> None:
    ada = enrol_person(home, "admin", tmp_path / "ada")
    later = home.clock() + timedelta(days=366)
    with pytest.raises(ApprovalError, match=r"person-[0-9a-f]{16}: expected a time from"):
        open_person(ada, passphrase=PASSPHRASE.encode(), root=home.root(), now=later)


def test_a_certificate_of_another_consortium_does_not_count(
    ran: AfterRun, home: ConsortiumHome, tmp_path: Path
) -> None:
    ada = enrol_person(home, "admin", tmp_path / "ada")
    site_root = ran.home.root()
    assert opened(home, ada)
    assert site_root == home.root()  # copies of one founding share a root
    hospital = ran.sites / "amstel" / "key"
    shutil.copy(hospital / "amstel.crt", ada / "person.crt")
    with pytest.raises(ApprovalError, match="expected role authority or consortium_admin"):
        opened(home, ada)


@pytest.mark.parametrize("who", ["officer", "manager"])
def test_only_an_admin_proposes_a_plan(after_run: AfterRun, who: str) -> None:
    home = after_run.home
    before = snapshot(home.path)
    with pytest.raises(ApprovalError, match="may not do this; it needs the role consortium_admin"):
        propose(home, plan_of(name="another"), opened(home, after_run.people / who))
    assert snapshot(home.path) == before


def test_an_officer_does_not_propose_a_release(after_run: AfterRun) -> None:
    home = after_run.home
    before = snapshot(home.path)
    with pytest.raises(ApprovalError, match="it needs the role consortium_admin or release_manager"):
        propose_release(
            home,
            run_id=RUN,
            release="2027.1",
            proposer=opened(home, after_run.people / "officer"),
        )
    assert snapshot(home.path) == before


@pytest.mark.parametrize("who", ["admin", "manager"])
@pytest.mark.parametrize("approve", [True, False])
def test_only_an_officer_decides_about_a_plan(after_run: AfterRun, who: str, approve: bool) -> None:
    home = after_run.home
    before = snapshot(home.path)
    with pytest.raises(ApprovalError, match="it needs the role privacy_officer"):
        decide(
            home, "plan", after_run.plan_hash, opened(home, after_run.people / who), approve=approve, reason="because"
        )
    assert snapshot(home.path) == before


def test_a_refusal_gives_its_reason(after_run: AfterRun) -> None:
    home = after_run.home
    before = snapshot(home.path)
    with pytest.raises(AdminError, match="to refuse a plan, give a --reason"):
        decide(home, "plan", after_run.plan_hash, opened(home, after_run.people / "officer"), approve=False, reason=" ")
    assert snapshot(home.path) == before
