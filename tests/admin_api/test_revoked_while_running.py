"""A certificate is suspended or revoked while a run goes on: who is dropped, who hears of it, and what stays good."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from admin_api.errors import ApprovalError
from admin_api.renewing import renew
from admin_api.revoking import change_status, signed_revocations
from admin_api.running import check_not_barred
from audit.entry import ROUND_ABORTED, ROUND_COMPLETED, SITE_REFUSED
from audit.revocation import REINSTATED, REVOKED, SUSPENDED
from jobs.errors import SiteError, SiteRefused
from jobs.home import ConsortiumHome
from jobs.transport import Message
from site_packages.home import SiteHome
from site_packages.renewing import RENEWED, request_renewal, stage, start_renewed
from tests.admin_api.consortium_folder import PASSPHRASE, agreed, copied, now, opened
from tests.admin_api.revocation_runs import SITES, Prepared, Run, once, prepare, round_of
from tests.jobs.small_federation import Answer

OTHERS = SITES[:3]


@pytest.fixture(scope="module")
def approved(founded: ConsortiumHome, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("approved")
    return prepare(copied(founded.path, folder / "consortium"), folder)


@pytest.fixture
def run(approved: Prepared, tmp_path: Path) -> Run:
    home = copied(approved.home.path, tmp_path / "consortium")
    return Run(Prepared(home, approved.people, approved.sites, approved.plan_hash), tmp_path)


def rounds(home: ConsortiumHome, kind: str) -> dict[int, dict[str, Any]]:
    with home.log() as log:
        return {entry.body["round"]: dict(entry.body) for _, entry in log.entries(kind=kind)}


@pytest.mark.parametrize("status", [SUSPENDED, REVOKED])
def test_a_hospital_takes_no_part_in_the_next_round(run: Run, status: str) -> None:
    run.alter = once("unmask", 2, "geul", lambda: run.change("geul", status))
    assert run.carry_out()["status"] == "finished"
    assert run.asked("geul") == [1, 2]
    assert run.asked("amstel") == [1, 2, 3]
    done = rounds(run.prepared.home, ROUND_COMPLETED)
    # Round 2 was under way: its entry with the hospital's receipt comes after the change, so it would not count.
    assert sorted(done) == [1, 3]
    assert done[1]["participants"] == list(SITES)
    assert done[3]["participants"] == list(OTHERS)
    assert done[3]["dropped"] == ["geul"]
    assert done[3]["version_in"] == done[1]["version_out"], "the lost round leaves the model as it was"
    reason = rounds(run.prepared.home, ROUND_ABORTED)[2]["reason"]
    assert f"is {status} since entry" in reason
    assert "round.completed is not logged" in reason
    trace = run.trace()
    assert (len(trace.rounds), trace.rounds_aborted) == (2, 1)
    assert ("finish", "geul", 0) in run.calls, "it was told to free what it reserved"


def test_who_is_suspended_comes_back_when_reinstated(run: Run) -> None:
    def alter(method: str, site: str, request: Message, real: Callable[[], Answer]) -> Any:
        answer = real()
        if (method, site) == ("unmask", "amstel"):
            if round_of(request) == 1:
                run.change("geul", SUSPENDED)
            elif round_of(request) == 2:
                run.change("geul", REINSTATED)
        return answer

    run.alter = alter
    assert run.carry_out()["status"] == "finished"
    assert run.asked("geul") == [1, 3]
    assert rounds(run.prepared.home, ROUND_COMPLETED)[3]["participants"] == list(SITES)
    run.trace()


def test_when_too_few_are_left_the_run_ends_for_good_or_waits(run: Run) -> None:
    run.alter = once("unmask", 1, "amstel", lambda: [run.change(name, SUSPENDED) for name in ("geul", "dommel")])
    result = run.carry_out()
    assert result["status"] == "interrupted"
    assert run.asked("geul") == run.asked("dommel") == [1]
    for name in ("geul", "dommel"):
        run.change(name, REVOKED)
    result = run.carry_out()
    assert result["status"] == "aborted"
    assert "is revoked since entry" in result["reason"]
    assert run.asked("geul") == [1]


def test_nothing_is_started_with_a_barred_hospital(run: Run) -> None:
    run.change("geul", REVOKED)
    with pytest.raises(ApprovalError, match=r"geul: .* is revoked since entry .*Nothing was started"):
        check_not_barred(run.prepared.home, SITES)
    result = run.carry_out()
    assert result["status"] == "aborted"
    assert "geul: certificate" in result["reason"]
    assert all(name != "geul" for _, name, _ in run.calls), "it is not even asked"


def test_the_approval_of_a_revoked_officer_is_refused_by_every_hospital(run: Run) -> None:
    run.change("Pieter Privacy", REVOKED)
    assert run.carry_out()["status"] == "aborted"
    with run.prepared.home.log() as log:
        refusals = [entry.body["refusal"]["statement"] for _, entry in log.entries(kind=SITE_REFUSED)]
    assert sorted(each["site"] for each in refusals) == list(SITES)
    assert {each["code"] for each in refusals} == {"not-approved"}
    assert all("is revoked since entry" in each["reason"] for each in refusals)


def test_hospitals_refuse_to_mask_with_one_that_is_revoked(run: Run) -> None:
    """A coordinator that goes on with it, against the list it passes on."""
    home = run.prepared.home
    lists: list[bytes] = []

    def alter(method: str, site: str, request: Message, real: Callable[[], Answer]) -> Any:
        if method == "round" and round_of(request) == 2:
            if not lists:
                run.change("geul", REVOKED)
                lists.append(signed_revocations(home))
            request["revocations"] = lists[0]
            answer = real()
            assert site == "geul" or getattr(answer, "code", None) == "peer-revoked"
            return answer
        return real()

    run.alter = alter
    assert run.carry_out()["status"] == "interrupted"
    assert run.carry_out()["status"] == "finished"  # by an honest one
    done = rounds(home, ROUND_COMPLETED)
    assert sorted(done) == [1, 3]
    assert "geul may not take part" in rounds(home, ROUND_ABORTED)[2]["reason"]
    run.trace()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda note: None, "expected bytes"),
        (lambda note: note[:-2], "note"),
        (lambda note: note.replace(b"v1\n", b"v1\n\n", 1), "signature"),
    ],
    ids=["none", "cut", "changed"],
)
def test_a_hospital_without_a_list_it_can_believe_takes_no_part(
    run: Run, spoil: Callable[[bytes], Any], message: str
) -> None:
    answers: list[str] = []

    def alter(method: str, site: str, request: Message, real: Callable[[], Answer]) -> Any:
        if (method, site) == ("round", "geul"):
            with pytest.raises(SiteError, match=message) as refused:
                run.members["geul"].handle(method, {**request, "revocations": spoil(request["revocations"])})
            answers.append(refused.value.code)
            return refused.value
        return real()

    run.alter = alter
    assert run.carry_out()["status"] == "finished"
    assert set(answers) <= {"revocations", "bad-call"}
    assert answers
    assert all(body["dropped"] == ["geul"] for body in rounds(run.prepared.home, ROUND_COMPLETED).values())


def test_an_older_list_is_not_believed_also_after_a_restart(run: Run) -> None:
    old = signed_revocations(run.prepared.home)
    run.change("Rosa Release", SUSPENDED)
    seen: list[str] = []

    def alter(method: str, site: str, request: Message, real: Callable[[], Answer]) -> Any:
        if (method, site) == ("join", "geul"):
            real()
            run.start(SiteHome(run.prepared.sites / "geul"))  # it forgets all but what it kept
            with pytest.raises(SiteRefused, match="somebody shows an old list") as refused:
                run.members["geul"].handle(method, {**request, "revocations": old})
            seen.append(refused.value.code)
        return real()

    run.alter = alter
    run.carry_out()
    assert seen == ["revocations-unknown"]


def test_a_certificate_is_renewed_while_a_run_goes_on(run: Run, tmp_path: Path) -> None:
    """A new key, one restart of that hospital; the others learn the new certificate, and both signatures count."""
    home = run.prepared.home
    shutil.copytree(run.prepared.sites / "geul", tmp_path / "geul", ignore=shutil.ignore_patterns("witness"))
    site = SiteHome(tmp_path / "geul")
    before = site.certificate()

    def renewed() -> None:
        request = request_renewal(site)
        reply = tmp_path / "geul.signed.zip"
        renew(home, agreed(home, request), passphrase=PASSPHRASE.encode(), out=reply, valid_days=500)
        stage(site, reply, fingerprint=home.config().root_fingerprint, now=now())
        outcome = start_renewed(site, start=lambda: run.start(site), stop=lambda: None, let_in=lambda: True, now=now())
        assert outcome == RENEWED

    run.alter = once("unmask", 1, "geul", renewed)
    assert run.carry_out()["status"] == "finished"
    assert site.certificate() != before
    done = rounds(home, ROUND_COMPLETED)
    by = {
        number: {receipt["certificate"] for receipt in body["receipts"] if receipt["statement"]["site"] == "geul"}
        for number, body in done.items()
    }
    assert by[1] != by[3]
    assert len(by[1]) == len(by[3]) == 1
    assert run.trace().hospitals
    admin = opened(home, run.prepared.people / "admin")
    (old,) = by[1]
    assert change_status(home, "geul", status=REVOKED, reason="old key", admin=admin, only=old) == (old,)
    check_not_barred(home, SITES)  # the other certificate still counts
    run.trace()
