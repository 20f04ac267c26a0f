"""A coordinator killed at any durable step is followed by one that goes on, with nothing lost and nothing twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audit.entry import (
    METRICS_REPORTED,
    ROUND_ABORTED,
    ROUND_COMPLETED,
    RUN_FINISHED,
    RUN_STARTED,
    SITE_ACCEPTED,
    VERSION_CREATED,
    Entry,
)
from jobs.errors import RunAborted, RunInterrupted, RunStateError, SiteError
from jobs.icd_coding.model import version_id
from jobs.icd_coding.training import Training
from jobs.plan import Plan
from jobs.run_state import RunState
from jobs.terms import aggregation_terms
from jobs.transport import Message
from privacy.secagg.quantisation import dequantise, quantise
from site_packages.limits import TRAINING, Limits
from site_packages.local_work import LocalWork
from site_packages.simulation import Simulation
from tests.jobs.small_federation import (
    NOW,
    SITES,
    Answer,
    bodies,
    clock,
    records,
    seeded,
    simulation,
    small_plan,
    unprotected_plan,
)

torch.set_num_threads(1)
THREE = SITES[:3]
PUBLIC = Limits(data_is_public=True)


class PowerCut(BaseException):
    """Ends the coordinator as kill -9 would: no handler of ours runs after it."""


class CrashingSimulation(Simulation):
    """Cuts the power before or after the n-th durable step of the coordinator, once."""

    steps: list[str]
    cut_at: tuple[int, bool] | None = None  # which step, from 0; and whether after it

    def _step(self, what: str, do: Callable[[], Any]) -> Any:
        number = len(self.steps)
        self.steps.append(what)
        if self.cut_at == (number, False):
            raise PowerCut(what)
        done = do()
        if self.cut_at == (number, True):
            raise PowerCut(what)
        return done

    def _record(self, kind: str, body: Mapping[str, Any]) -> int:
        done: int = self._step(f"log {kind}", lambda: super(CrashingSimulation, self)._record(kind, body))
        return done

    def _save(self, state: RunState) -> None:
        self._step("save", lambda: super(CrashingSimulation, self)._save(state))

    def _store(self, data: bytes) -> str:
        done: str = self._step("store", lambda: super(CrashingSimulation, self)._store(data))
        return done


def crashing(folder: Path, plan: Plan, cut_at: tuple[int, bool] | None, **settings: Any) -> CrashingSimulation:
    sites = tuple(sorted({*plan.sites, *plan.evaluation_sites}))
    whole = CrashingSimulation(
        plan=plan, records=records(sites, patients=6, test=3), folder=folder, random_bytes=seeded(1), clock=clock,
        **settings,
    )  # fmt: skip
    whole.steps, whole.cut_at = [], cut_at
    return whole


PLAN = small_plan(sites=THREE, rounds=1, evaluation_sites=("zenne",))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> CrashingSimulation:
    whole = crashing(tmp_path_factory.mktemp("undisturbed"), PLAN, None)
    whole.run()
    return whole


def test_the_steps_of_a_run_are_the_ones_documented(undisturbed: CrashingSimulation) -> None:
    a_round = ["save", "store", "store", "save", f"log {ROUND_COMPLETED}"]
    assert undisturbed.steps == [
        f"log {RUN_STARTED}", *[f"log {SITE_ACCEPTED}"] * 4, *a_round, *a_round,
        "store", f"log {VERSION_CREATED}", f"log {RUN_FINISHED}", f"log {METRICS_REPORTED}",
    ]  # fmt: skip


CUTS = [(step, after) for step in range(19) for after in (False, True)]


@pytest.mark.parametrize("cut_at", CUTS, ids=lambda value: str(value))
def test_a_run_cut_off_anywhere_is_finished_by_the_next_coordinator(
    cut_at: tuple[int, bool], tmp_path: Path, undisturbed: CrashingSimulation
) -> None:
    assert len(undisturbed.steps) == 19
    whole = crashing(tmp_path, PLAN, cut_at)
    with pytest.raises(PowerCut):
        whole.run()
    whole.cut_at = None
    outcome = whole.run()
    for kind, body in whole.entries:
        Entry(kind, NOW, body).to_bytes()
    # Each round is in the log once, done or lost, and the chain of versions is unbroken.
    done, lost = bodies(whole.entries, ROUND_COMPLETED), bodies(whole.entries, ROUND_ABORTED)
    assert sorted(body["round"] for body in [*done, *lost]) == [1, 2]
    version = PLAN.initial_version
    for body in done:
        assert body["version_in"] == version
        version = body["version_out"]
    assert version == outcome.version
    for kind in (RUN_STARTED, VERSION_CREATED, RUN_FINISHED, METRICS_REPORTED):
        assert len(bodies(whole.entries, kind)) == 1, kind
    # Each ledger has each round once, and gave back nothing it should have kept.
    for site in THREE:
        assert whole.ledgers[site].committed(whole.run_id, TRAINING) == {"round 1", "round 2"}
        (training, *_) = whole.ledgers[site].summary().cohorts
        assert sum(run.committed for run in training.runs) == 2
        assert training.reserved_rdp == 0
    # A round is lost only if hospitals may have answered it when the power went.
    step, after = cut_at
    middle = {(5, True), *((number, late) for number in (6, 7) for late in (False, True)), (8, False)}
    expected_lost = [number for number, shift in ((1, 0), (2, 5)) if (step - shift, after) in middle - {(5, True)}]
    assert [body["round"] for body in lost] == expected_lost


def clear_model(plan: Plan, lost: set[int]) -> str:
    """The version that the hospitals' own vectors make, without the lost rounds."""
    works = [LocalWork(plan, each.training, each.test) for each in records(plan.sites, patients=6, test=3).values()]
    training = Training(plan)
    for number in range(1, plan.aggregations + 1):
        if number in lost:
            training.skip(number)
            continue
        terms = aggregation_terms(plan, number)
        vectors = [work.contribution(training.parameters, number, seeded(0)) for work in works]
        total = sum(quantise(vector, scale=terms.scale, bound=terms.bound) for vector in vectors)
        sums = dequantise(np.asarray(total), scale=terms.scale)[: terms.dimension]
        training.apply(number, sums, hospitals=len(works))
    return version_id(training.parameters.to_bytes())


# Steps 9 to 13 are the second round's: announced, model and optimiser stored, finished, logged.
@pytest.mark.parametrize(
    ("cut_at", "lost"),
    [((9, True), set()), ((11, False), {2}), ((12, True), set()), ((13, False), set()), ((15, True), {3})],
)
def test_the_model_is_that_of_an_undisturbed_run_with_the_same_participation(
    cut_at: tuple[int, bool], lost: set[int], tmp_path: Path
) -> None:
    optimiser = {"learning_rate": 2.0, "momentum": 0.5, "averaged_rounds": 2}
    plan = unprotected_plan(sites=THREE, rounds=3, optimiser=optimiser)
    whole = crashing(tmp_path, plan, cut_at, limits=PUBLIC)
    with pytest.raises(PowerCut):
        whole.run()
    whole.cut_at = None
    outcome = whole.run()
    assert {body["round"] for body in bodies(whole.entries, ROUND_ABORTED)} == lost
    assert outcome.version == clear_model(plan, lost)


def test_hospitals_that_are_away_at_a_resume_are_left_out_and_come_back(tmp_path: Path) -> None:
    away = {"dommel"}
    stage = {"cut": True}

    def alter(method: str, site: str, request: Message, real: Callable[[], Answer]) -> Any:
        if method == "round" and stage["cut"] and request["secagg"]["round"] == 2:
            raise PowerCut
        if not stage["cut"] and site in away:
            if method == "round" and request["secagg"]["round"] == 3:
                raise AssertionError("not asked")
            return SiteError(site, "unreachable", "no answer")
        return real()

    whole = simulation(tmp_path, small_plan(rounds=4, dropouts=1), alter=alter)
    with pytest.raises(PowerCut):
        whole.run()
    stage["cut"] = False
    rounds: list[tuple[int, tuple[str, ...]]] = []

    def watch(step: Any) -> None:
        if step.stage == "training" and step.round_seconds:
            rounds.append((step.round, step.participants))
            if step.round == 3:
                away.clear()

    whole = replace_progress(whole, watch)
    whole.run()
    without = tuple(site for site in SITES if site != "dommel")
    # Nobody had answered round 2 when the power went, so it is asked for again.
    assert rounds == [(2, without), (3, without), (4, SITES), (5, SITES)]
    accepted = [body["acceptance"]["statement"]["site"] for body in bodies(whole.entries, SITE_ACCEPTED)]
    assert accepted == [*SITES, *without, "dommel"]


def replace_progress(whole: Simulation, watch: Callable[[Any], None]) -> Simulation:
    whole.progress = watch
    return whole


def test_too_few_at_a_resume_wait_for_the_others(tmp_path: Path) -> None:
    gone: set[str] = set()

    def alter(method: str, site: str, request: Message, real: Callable[[], Answer]) -> Any:
        if method == "round" and request["secagg"]["round"] == 2 and not gone:
            gone.update(("geul", "dommel"))
            raise PowerCut
        return SiteError(site, "unreachable", "no answer") if site in gone else real()

    whole = simulation(tmp_path, small_plan(dropouts=1), alter=alter)
    with pytest.raises(PowerCut):
        whole.run()
    for _ in range(2):
        with pytest.raises(RunInterrupted, match="2 of 4 training hospitals are missing: dommel"):
            whole.run()
    gone.clear()
    gone.add("nobody")
    whole.run()
    assert [body["round"] for body in bodies(whole.entries, ROUND_COMPLETED)] == [1, 2, 3]


def test_a_claim_to_have_answered_what_was_never_asked_skips_no_rounds(tmp_path: Path) -> None:
    def alter(method: str, site: str, request: Message, real: Callable[[], Answer]) -> Any:
        answer = real()
        if (method, site) == ("join", "geul") and isinstance(answer, dict):
            return {**answer, "last_round": 2}
        return answer

    whole = simulation(tmp_path, small_plan(), alter=alter)
    with pytest.raises(RunAborted, match="geul: last_round: expected a round up to 0, got 2"):
        whole.run()
    assert whole.entries == []


def test_a_run_that_loses_every_round_ends_without_a_version(tmp_path: Path) -> None:
    def alter(method: str, site: str, request: Message, real: Callable[[], Answer]) -> Any:
        if (method, site) == ("survivors", "geul"):
            return real()
        return SiteError(site, "unreachable", "no answer") if method == "survivors" else real()

    whole = simulation(tmp_path, small_plan(rounds=1), alter=alter)
    for _ in range(2):
        with pytest.raises(RunInterrupted, match="signatures: 1 hospitals left"):
            whole.run()
    with pytest.raises(RunAborted, match="every round was lost"):
        whole.run()
    assert [body["round"] for body in bodies(whole.entries, ROUND_ABORTED)] == [1, 2]
    assert not bodies(whole.entries, VERSION_CREATED)


STATE = RunState(
    run_id="run-1", plan_hash="sha256:" + "0" * 64, announced=3, finished=2, lost=(1,), version="sha256:" + "1" * 64,
    optimiser=None, participants=("a", "b"), log_size=12, pending=None,
)  # fmt: skip


def test_a_state_is_read_as_it_was_written() -> None:
    assert RunState.from_bytes(STATE.to_bytes()) == STATE
    pending = replace(STATE, pending={"kind": "x", "body": {"round": 2}})
    assert RunState.from_bytes(pending.to_bytes()) == pending


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"{}", STATE.to_bytes()[:-1], STATE.to_bytes().replace(b"state/v1", b"state/v9"),
     STATE.to_bytes().replace(b'"finished":2', b'"finished":4'), STATE.to_bytes().replace(b'"lost":[1]', b'"lost":[9]'),
     STATE.to_bytes().replace(b'"lost":[1]', b'"lost":1')],
)  # fmt: skip
def test_a_malformed_state_is_refused(data: bytes) -> None:
    with pytest.raises(RunStateError):
        RunState.from_bytes(data)


def test_a_state_of_another_run_is_refused(tmp_path: Path) -> None:
    whole = simulation(tmp_path, small_plan())
    whole.states.append(STATE)
    with pytest.raises(RunAborted, match="the state is of run run-1"):
        whole.run()
