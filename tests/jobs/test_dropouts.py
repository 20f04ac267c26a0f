"""Hospitals that do not answer: at any call, with and without dropouts allowed, and hospitals that refuse."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from audit.certificates import CLIENT
from audit.entry import (
    METRICS_REPORTED,
    ROUND_ABORTED,
    ROUND_COMPLETED,
    RUN_FINISHED,
    RUN_STARTED,
    SITE_REFUSED,
    Entry,
)
from audit.statement import REFUSAL, SignedStatement, verify_statement
from jobs.errors import RunAborted, RunInterrupted, SiteError
from jobs.transport import Message
from privacy import accounting
from site_packages.dataset import Dataset
from site_packages.limits import TRAINING, VALIDATION
from site_packages.simulation import Simulation, SiteRecords
from tests.jobs.small_federation import NOW, SITES, Alter, Answer, bodies, records, simulation, small_plan

torch.set_num_threads(1)


def losing(lost: str, at: str, number: int = 1, *, answered: bool = False) -> Alter:
    """`lost` gives no answer at its `number`-th call of `at`; with `answered`, it is lost on the way back."""
    count = 0

    def alter(method: str, site: str, request: Message, real: Callable[[], Answer]) -> Answer:
        nonlocal count
        if (method, site) == (at, lost):
            count += 1
            if count == number:
                if answered:
                    real()
                return SiteError(site, "unreachable", "no answer within 120 s")
        return real()

    return alter


def check_entries(whole: Simulation) -> None:
    for kind, body in whole.entries:
        Entry(kind, NOW, body).to_bytes()


def reserved(whole: Simulation) -> dict[str, float]:
    return {
        f"{site} {cohort.cohort}": cohort.reserved_rdp
        for site, ledger in whole.ledgers.items()
        for cohort in ledger.summary().cohorts
        if cohort.reserved_rdp
    }


def committed(whole: Simulation, site: str) -> int:
    (training, _) = whole.ledgers[site].summary().cohorts
    return sum(run.committed for run in training.runs)


# What a hospital lost at this call costs a run without dropouts. In the last two calls all vectors have arrived, and
# three of four signatures and shares are the threshold: the sum is whole.
ABORTS = {"announce": True, "share_keys": True, "round": True, "survivors": False, "unmask": False}
LOST = [*((method, False) for method in ABORTS), ("round", True)]  # True: lost on the way back


@pytest.mark.parametrize(("method", "answered"), LOST, ids=lambda value: str(value))
def test_a_lost_hospital_without_dropouts(method: str, answered: bool, tmp_path: Path) -> None:
    plan = small_plan(rounds=1)
    whole = simulation(tmp_path, plan, alter=losing("dommel", method, answered=answered))
    if not ABORTS[method]:
        whole.run()
        rounds = bodies(whole.entries, ROUND_COMPLETED)
        assert [(body["participants"], body["dropped"]) for body in rounds] == [(list(SITES), [])] * 2
        check_entries(whole)
        return
    with pytest.raises(RunInterrupted, match=r"round 1: .*3 hospitals left.*dommel: no answer within 120 s"):
        whole.run()
    begun = method == "round"  # before, no hospital was asked for its vector
    aborted = bodies(whole.entries, ROUND_ABORTED)
    assert len(aborted) == int(begun)
    if begun:
        without = [site for site in SITES if site != "dommel"]
        assert (aborted[0]["round"], aborted[0]["participants"], aborted[0]["dropped"]) == (1, without, ["dommel"])
        assert "dommel: no answer within 120 s [unreachable]" in aborted[0]["reason"]
    assert not bodies(whole.entries, ROUND_COMPLETED)
    check_entries(whole)
    # What was masked stays spent; what was not stays reserved, for the run can go on.
    for site in SITES:
        assert committed(whole, site) == (int(begun) if site != "dommel" or answered else 0), site
    assert len(reserved(whole)) == len(SITES)
    whole.run()
    assert [body["round"] for body in bodies(whole.entries, ROUND_COMPLETED)] == ([2] if begun else [1, 2])
    check_entries(whole)
    for site in SITES:
        assert committed(whole, site) == (1 if begun and site == "dommel" and not answered else 2), site
    assert reserved(whole) == {}


def test_nothing_is_unmasked_in_an_aborted_round(tmp_path: Path) -> None:
    calls: list[tuple[str, str]] = []
    lose = losing("dommel", "round", 2)

    def alter(method: str, site: str, request: Message, real: Callable[[], Answer]) -> Any:
        calls.append((method, site))
        return lose(method, site, request, real)

    whole = simulation(tmp_path, small_plan(), alter=alter)
    with pytest.raises(RunInterrupted, match="round 2"):
        whole.run()
    assert calls[-4:] == [("round", site) for site in SITES]
    assert len(bodies(whole.entries, ROUND_COMPLETED)) == 1
    # Round 1, and round 2 where it was masked, stay spent.
    for site in SITES:
        (training, _) = whole.ledgers[site].summary().cohorts
        plan = whole.plan
        done = [plan.event(1)] if site == "dommel" else [plan.event(1), plan.event(2)]
        assert training.spent == accounting.epsilon(done, plan.delta)
    calls.clear()
    whole.run()
    # Round 2 is never asked for again, of anybody.
    assert [body["round"] for body in bodies(whole.entries, ROUND_COMPLETED)] == [1, 3]
    assert [site for method, site in calls if method == "round"] == list(SITES)
    # Nobody takes part any more.
    assert reserved(whole) == {}
    for participant in whole.participants.values():
        with pytest.raises(SiteError, match="not-joined"):
            participant.handle("announce", {})


@pytest.mark.parametrize(("method", "answered"), LOST, ids=lambda value: str(value))
def test_with_a_dropout_allowed_the_run_goes_on_and_the_hospital_comes_back(
    method: str, answered: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = small_plan(rounds=1, dropouts=1)
    with caplog.at_level(logging.WARNING, logger="jobs"):
        whole = simulation(tmp_path, plan, alter=losing("dommel", method, answered=answered))
        outcome = whole.run()
    first, second = bodies(whole.entries, ROUND_COMPLETED)
    without = [site for site in SITES if site != "dommel"]
    if ABORTS[method]:
        assert (first["participants"], first["dropped"]) == (without, ["dommel"])
        assert [receipt["statement"]["site"] for receipt in first["receipts"]] == without
    else:
        assert (first["participants"], first["dropped"]) == (list(SITES), [])
    assert (second["participants"], second["dropped"]) == (list(SITES), [])
    assert first["version_in"] == plan.initial_version
    assert first["version_out"] == second["version_in"]
    assert second["version_out"] == outcome.version
    assert "round 1: dommel: no answer within 120 s [unreachable]" in caplog.text
    check_entries(whole)
    # A hospital spends the rounds in which it masked a vector, arrived or not.
    expected = 1 + int(not ABORTS[method] or (method == "round" and answered))
    assert committed(whole, "dommel") == expected
    assert committed(whole, "geul") == 2
    assert reserved(whole) == {}


def test_more_than_the_dropouts_allowed_abort(tmp_path: Path) -> None:
    def alter(method: str, site: str, request: Message, real: Callable[[], Answer]) -> Answer:
        if (method, site) in {("announce", "amstel"), ("share_keys", "berkel")}:
            return SiteError(site, "unreachable", "no answer")
        return real()

    whole = simulation(tmp_path, small_plan(dropouts=1), alter=alter)
    with pytest.raises(RunInterrupted, match="round 1") as aborted:
        whole.run()
    # Both are to blame, though they were lost at different calls.
    assert "amstel: no answer" in str(aborted.value)
    assert "berkel: no answer" in str(aborted.value)
    assert len(reserved(whole)) == len(SITES)


class Watched(SiteRecords):
    """Records that note who looks at them."""

    looked: list[str]

    def __getattribute__(self, name: str) -> Any:
        if name in ("training", "test"):
            object.__getattribute__(self, "looked").append(name)
        return object.__getattribute__(self, name)


def watched(site: str, training: Dataset, test: Dataset) -> Watched:
    each = Watched(training, test)
    object.__setattr__(each, "looked", [])
    return each


@pytest.fixture
def refusing(tmp_path: Path) -> Iterator[Simulation]:
    """geul, which also evaluates, has next to no budget left."""
    plan = small_plan(evaluation_sites=("geul",))
    sources = {site: watched(site, each.training, each.test) for site, each in records().items()}
    whole = simulation(tmp_path, plan, records=sources)
    for cohort in (TRAINING, VALIDATION):
        whole.ledgers["geul"].set_budget(cohort, epsilon=0.5, delta=1e-5, officer="Officer", reason="nearly used up")
    yield whole


def test_a_hospital_that_refuses_ends_the_run_before_it_began(refusing: Simulation) -> None:
    with pytest.raises(RunAborted, match=r"geul: the hospital's privacy budget does not cover.*\[over-budget\]"):
        refusing.run()
    assert [kind for kind, _ in refusing.entries] == [SITE_REFUSED]
    check_entries(refusing)
    (body,) = bodies(refusing.entries, SITE_REFUSED)
    signed = SignedStatement.from_json(body["refusal"])
    identity = verify_statement(
        signed, refusing.keyring.certificates, refusing.keyring.root,
        expected_type=REFUSAL, consortium="Delta", roles=frozenset({CLIENT}),
    )  # fmt: skip
    assert identity.name == "geul"
    assert signed.statement["code"] == "over-budget"
    assert signed.statement["plan_hash"] == refusing.plan.hash
    assert body["run_id"] == refusing.run_id
    # It read no data; those that joined gave their reservation back; nobody spent anything.
    source = refusing.records["geul"]
    assert isinstance(source, Watched)
    assert source.looked == []
    assert reserved(refusing) == {}
    assert [committed(refusing, site) for site in SITES] == [0] * 4


def refusal_of(whole: Simulation, site: str, request: Message, **changes: str) -> SiteError:
    """What the hospital says to a plan with a space too many."""
    with pytest.raises(SiteError) as refused:
        whole.participants[site].handle("join", {**request, "plan": request["plan"] + b" ", **changes})
    return refused.value


def test_only_a_refusal_of_this_plan_signed_by_the_hospital_is_logged(tmp_path: Path) -> None:
    """A refusal of another plan, or another hospital's, ends the run, but the log does not say geul signed it."""
    for number, (signer, changes) in enumerate([("geul", {"plan_hash": "sha256:" + 64 * "1"}), ("amstel", {})]):
        holder: list[Simulation] = []

        def alter(
            method: str, site: str, request: Message, real: Callable[[], Answer],
            signer: str = signer, changes: dict[str, str] = changes, holder: list[Simulation] = holder,
        ) -> Answer:  # fmt: skip
            if (method, site) == ("join", "geul"):
                answer = refusal_of(holder[0], signer, request, **changes)
                answer.site = "geul"
                return answer
            return real()

        holder.append(simulation(tmp_path / str(number), small_plan(), alter=alter))
        with pytest.raises(RunAborted, match="plan-malformed"):
            holder[0].run()
        assert holder[0].entries == []


def test_an_evaluating_hospital_that_refuses_is_left_out(tmp_path: Path) -> None:
    plan = small_plan(rounds=1, evaluation_sites=("amstel", "zenne"))
    whole = simulation(tmp_path, plan)
    whole.ledgers["zenne"].set_budget(VALIDATION, epsilon=0.5, delta=1e-5, officer="Officer", reason="used up")
    outcome = whole.run()
    assert list(outcome.metrics) == ["amstel"]
    kinds = [kind for kind, _ in whole.entries]
    assert kinds[:2] == [SITE_REFUSED, RUN_STARTED]
    assert [body["site"] for body in bodies(whole.entries, METRICS_REPORTED)] == ["amstel"]
    check_entries(whole)
    assert reserved(whole) == {}


def test_an_evaluation_that_fails_is_told_and_the_others_metrics_are_kept(tmp_path: Path) -> None:
    plan = small_plan(rounds=1, evaluation_sites=("amstel", "zenne"))
    whole = simulation(tmp_path, plan, alter=losing("amstel", "evaluate"))
    with pytest.raises(RunInterrupted, match="trained, but not evaluated everywhere: amstel: no answer"):
        whole.run()
    assert len(bodies(whole.entries, RUN_FINISHED)) == 1
    assert [body["site"] for body in bodies(whole.entries, METRICS_REPORTED)] == ["zenne"]
    # Gone on with, only the missing one is asked; no round, version or end is logged twice.
    outcome = whole.run()
    assert [body["site"] for body in bodies(whole.entries, METRICS_REPORTED)] == ["zenne", "amstel"]
    assert sorted(outcome.metrics) == ["amstel", "zenne"]
    assert len(bodies(whole.entries, RUN_FINISHED)) == len(bodies(whole.entries, RUN_STARTED)) == 1
    assert len(bodies(whole.entries, ROUND_COMPLETED)) == 2
    assert reserved(whole) == {}
