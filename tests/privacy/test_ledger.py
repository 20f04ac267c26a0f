"""The ledger: budgets, reservations, commits; tampering, rollback, several processes."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from privacy import accounting
from privacy.errors import (
    AccountingError,
    AlreadySpent,
    BudgetExceeded,
    BudgetMissing,
    EventError,
    LedgerError,
    NotReserved,
)
from privacy.events import CountRelease, MetricRelease, Repeated, TrainingRound
from privacy.ledger import Ledger
from privacy.ledger_report import report_lines

PLAN = "sha256:" + 64 * "a"
OTHER_PLAN = "sha256:" + 64 * "b"
ROUND = TrainingRound(1.0, 20.0)
METRICS = MetricRelease(30.0, "f1")


def clock() -> datetime:
    return datetime(2026, 11, 22, 5, 0, 0, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Ledger:
    new = Ledger.create(path, site="amsterdam", clock=clock)
    new.set_budget("training", epsilon=3.0, delta=1e-6, officer="J. de Vries", reason="DPIA 12")
    return new


def rows_of(path: Path) -> list[dict[str, Any]]:
    with sqlite3.connect(path) as connection:
        found = connection.execute("SELECT row FROM ledger ORDER BY seq").fetchall()
    connection.close()
    return [json.loads(text) for (text,) in found]


def test_a_run_from_budget_to_close(ledger: Ledger, path: Path) -> None:
    stands = ledger.reserve("run-1", "training", [Repeated(ROUND, 10)], plan_hash=PLAN)
    whole = accounting.rdp_epsilon([Repeated(ROUND, 10)], 1e-6)
    assert stands.spent == 0.0
    assert stands.reserved == pytest.approx(whole)
    assert stands.left == pytest.approx(3.0 - whole)
    for number in range(1, 5):
        assert ledger.commit("run-1", f"round {number}", ROUND) == ledger.head
    ledger.close("run-1")
    (cohort,) = ledger.summary().cohorts
    assert cohort.spent == accounting.epsilon([Repeated(ROUND, 4)], 1e-6)
    assert cohort.spent_rdp == accounting.rdp_epsilon([Repeated(ROUND, 4)], 1e-6)
    assert cohort.reserved_rdp == 0.0
    assert cohort.left == pytest.approx(3.0 - cohort.spent_rdp)
    assert ledger.run_ids() == {"run-1"}
    (run,) = cohort.runs
    assert (run.reserved, run.committed, run.is_open, run.plan_hash) == (10, 4, False, PLAN)
    assert [row["kind"] for row in rows_of(path)] == [
        "ledger.created",
        "budget.set",
        "run.reserved",
        *(["round.committed"] * 4),
        "run.closed",
    ]


def test_another_opening_sees_the_same(ledger: Ledger, path: Path) -> None:
    ledger.reserve("run-1", "training", [Repeated(ROUND, 3)], plan_hash=PLAN)
    ledger.commit("run-1", "round 1", ROUND)
    again = Ledger.open(path, clock=clock)
    assert again.summary() == ledger.summary()
    assert again.head == ledger.head
    assert again.summary().to_json()["cohorts"][0]["budget"]["officer"] == "J. de Vries"
    json.dumps(again.summary().to_json())


def test_the_summary_names_what_an_officer_needs(ledger: Ledger) -> None:
    summary = ledger.summary()
    assert (summary.site, summary.unit, summary.neighboring_relation) == (
        "amsterdam",
        "patient",
        "ADD_OR_REMOVE_ONE",
    )
    assert summary.accountant == accounting.accountant()
    (cohort,) = summary.cohorts
    assert dataclasses.asdict(cohort.budget) == {
        "epsilon": 3.0,
        "delta": 1e-6,
        "officer": "J. de Vries",
        "reason": "DPIA 12",
        "time": "2026-11-22T05:00:00Z",
    }
    assert (cohort.spent, cohort.spent_rdp, cohort.left) == (0.0, 0.0, 3.0)


def test_the_report_shows_what_the_summary_holds(ledger: Ledger) -> None:
    assert "No budget is set" in report_lines(dataclasses.replace(ledger.summary(), cohorts=()))[-1]
    ledger.reserve("run-1", "training", [Repeated(ROUND, 5)], plan_hash=PLAN)
    ledger.commit("run-1", "round 1", ROUND)
    summary = ledger.summary()
    text = "\n".join(report_lines(summary))
    (cohort,) = summary.cohorts
    (run,) = cohort.runs
    assert f"spent      {cohort.spent:9.4f}   {cohort.spent_rdp:13.4f}\n" in text
    assert f"reserved   {cohort.reserved:+9.4f}   {cohort.reserved_rdp:+13.4f}\n" in text
    assert f"left                   {cohort.left:13.4f}   of the budget" in text
    assert cohort.spent + cohort.reserved == pytest.approx(accounting.epsilon([Repeated(ROUND, 5)], 1e-6))
    assert (run.epsilon, run.epsilon_rdp, run.held_rdp) == (cohort.spent, cohort.spent_rdp, cohort.reserved_rdp)
    assert "budget epsilon 3 at delta 1e-06" in text
    assert "run-1  open  plan sha256:" in text
    assert "    1 of 5 x training-round, noise" in text
    assert summary.head in text
    assert "lost" not in text
    lost = dataclasses.replace(cohort, suspended=True, history_lost=True)
    text = "\n".join(report_lines(dataclasses.replace(summary, cohorts=(lost,))))
    assert "suspended until the officer" in text


def test_a_budget_is_needed_first(ledger: Ledger) -> None:
    with pytest.raises(BudgetMissing, match="validation"):
        ledger.reserve("run-1", "validation", [METRICS], plan_hash=PLAN)
    with pytest.raises(BudgetMissing):
        ledger.price("validation", [METRICS])


def test_what_does_not_fit_is_refused_and_changes_nothing(ledger: Ledger) -> None:
    ledger.reserve("run-1", "training", [Repeated(ROUND, 20)], plan_hash=PLAN)
    ledger.commit("run-1", "round 1", ROUND)
    head, before = ledger.head, ledger.summary()
    with pytest.raises(BudgetExceeded, match=r"budget is 3\.0000; spent") as refusal:
        ledger.reserve("run-2", "training", [Repeated(ROUND, 150)], plan_hash=OTHER_PLAN)
    error = refusal.value
    assert error.total > error.budget == 3.0
    assert error.left == pytest.approx(3.0 - error.spent - error.reserved)
    assert 0.0 < error.spent < error.spent + error.reserved < 3.0
    assert (ledger.head, ledger.summary()) == (head, before)
    ledger.reserve("run-2", "training", [Repeated(ROUND, 2)], plan_hash=OTHER_PLAN)


def test_a_plan_that_exactly_fits_is_admitted(ledger: Ledger) -> None:
    events = [Repeated(ROUND, 30)]
    cost = accounting.rdp_epsilon(events, 1e-6)
    ledger.set_budget("training", epsilon=cost, delta=1e-6, officer="J. de Vries", reason="exactly this")
    assert ledger.reserve("run-1", "training", events, plan_hash=PLAN).total == cost
    with pytest.raises(BudgetExceeded):
        ledger.reserve("run-2", "training", [TrainingRound(0.01, 20.0)], plan_hash=PLAN)


def test_no_noise_is_never_admitted(ledger: Ledger) -> None:
    with pytest.raises(BudgetExceeded, match="inf"):
        ledger.reserve("run-1", "training", [CountRelease(0.0, "plain counts")], plan_hash=PLAN)


def test_closing_gives_back_only_what_was_not_committed(ledger: Ledger) -> None:
    ledger.reserve("run-1", "training", [Repeated(ROUND, 40)], plan_hash=PLAN)
    ledger.commit("run-1", "round 1", ROUND)
    spent = ledger.price("training").spent
    ledger.close("run-1")
    stands = ledger.price("training")
    assert (stands.spent, stands.reserved) == (spent, 0.0)
    head = ledger.head
    ledger.close("run-1")
    assert ledger.head == head
    for key in ("round 1", "round 2"):
        with pytest.raises(AlreadySpent if key == "round 1" else NotReserved):
            ledger.commit("run-1", key, ROUND)
    with pytest.raises(LedgerError, match="was closed"):
        ledger.reserve("run-1", "training", [Repeated(ROUND, 40)], plan_hash=PLAN)


def test_a_key_is_spent_once(ledger: Ledger, path: Path) -> None:
    ledger.reserve("run-1", "training", [Repeated(ROUND, 5)], plan_hash=PLAN)
    ledger.commit("run-1", "round 1", ROUND)
    head = ledger.head
    for again in (ledger, Ledger.open(path, clock=clock)):
        with pytest.raises(AlreadySpent, match="'round 1' was committed before"):
            again.commit("run-1", "round 1", ROUND)
    assert ledger.head == head


@pytest.mark.parametrize(
    ("run", "event", "match"),
    [
        pytest.param("run-9", ROUND, "no reservation", id="another run"),
        pytest.param("run-1", TrainingRound(1.0, 19.9), "left 0 of 0", id="less noise"),
        pytest.param("run-1", TrainingRound(0.5, 20.0), "left 0 of 0", id="another sampling"),
        pytest.param("run-1", METRICS, "left 0 of 0", id="another kind"),
        pytest.param("run-1", Repeated(ROUND, 3), "left 2 of 2", id="more than reserved"),
    ],
)
def test_only_what_was_reserved_can_be_spent(ledger: Ledger, run: str, event: Any, match: str) -> None:
    ledger.reserve("run-1", "training", [Repeated(ROUND, 2)], plan_hash=PLAN)
    with pytest.raises(NotReserved, match=match):
        ledger.commit(run, "round 1", event)


def test_a_reservation_runs_out(ledger: Ledger) -> None:
    ledger.reserve("run-1", "training", [Repeated(ROUND, 3)], plan_hash=PLAN)
    ledger.commit("run-1", "steps 1 and 2", Repeated(ROUND, 2))
    ledger.commit("run-1", "step 3", ROUND)
    with pytest.raises(NotReserved, match="left 0 of 3"):
        ledger.commit("run-1", "step 4", ROUND)


def test_reserving_again_after_a_crash_changes_nothing(ledger: Ledger) -> None:
    ledger.reserve("run-1", "training", [ROUND, ROUND], plan_hash=PLAN)
    ledger.commit("run-1", "round 1", ROUND)
    head = ledger.head
    ledger.reserve("run-1", "training", [Repeated(ROUND, 2)], plan_hash=PLAN)
    assert ledger.head == head
    for events, plan in (([Repeated(ROUND, 3)], PLAN), ([Repeated(ROUND, 2)], OTHER_PLAN)):
        with pytest.raises(LedgerError, match="has another reservation"):
            ledger.reserve("run-1", "training", events, plan_hash=plan)


def test_cohorts_are_separate(ledger: Ledger) -> None:
    ledger.set_budget("validation", epsilon=1.0, delta=1e-6, officer="J. de Vries", reason="metrics")
    ledger.reserve("run-1", "training", [ROUND], plan_hash=PLAN)
    ledger.reserve("run-1", "validation", [METRICS], plan_hash=PLAN)
    with pytest.raises(NotReserved, match="name the cohort"):
        ledger.commit("run-1", "round 1", ROUND)
    ledger.commit("run-1", "one", ROUND, cohort="training")
    ledger.commit("run-1", "one", METRICS, cohort="validation")
    ledger.close("run-1", cohort="training")
    training, validation = ledger.summary().cohorts
    assert training.spent == accounting.epsilon([ROUND], 1e-6)
    assert validation.spent == accounting.epsilon([METRICS], 1e-6)
    assert [run.is_open for run in (*training.runs, *validation.runs)] == [False, True]
    ledger.close("run-1")
    with pytest.raises(NotReserved):
        ledger.close("run-2")
    with pytest.raises(NotReserved):
        ledger.close("run-1", cohort="test")


def test_the_order_is_fixed_by_the_first_release(ledger: Ledger) -> None:
    sampled = [Repeated(TrainingRound(0.005, 0.9), 100)]
    everybody = [Repeated(TrainingRound(1.0, 60.0), 3)]
    first = ledger.reserve("run-1", "training", sampled, plan_hash=PLAN).order
    ledger.close("run-1")
    second = ledger.reserve("run-2", "training", everybody, plan_hash=PLAN).order
    assert first != second  # nothing was released yet
    ledger.commit("run-2", "round 1", TrainingRound(1.0, 60.0))
    assert ledger.reserve("run-3", "training", sampled, plan_hash=PLAN).order == second


def test_a_lower_budget_stops_and_a_higher_one_frees(ledger: Ledger) -> None:
    ledger.reserve("run-1", "training", [Repeated(ROUND, 30)], plan_hash=PLAN)
    ledger.commit("run-1", "round 1", Repeated(ROUND, 30))
    ledger.set_budget("training", epsilon=0.5, delta=1e-6, officer="A. Bakker", reason="complaint 7")
    with pytest.raises(BudgetExceeded) as refusal:
        ledger.reserve("run-2", "training", [ROUND], plan_hash=PLAN)
    assert refusal.value.left == 0.0
    ledger.set_budget("training", epsilon=5.0, delta=1e-6, officer="A. Bakker", reason="settled")
    ledger.reserve("run-2", "training", [ROUND], plan_hash=PLAN)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"epsilon": 0.0}, AccountingError),
        ({"epsilon": float("inf")}, AccountingError),
        ({"epsilon": float("nan")}, AccountingError),
        ({"delta": 0.0}, AccountingError),
        ({"delta": 1.0}, AccountingError),
        ({"officer": ""}, LedgerError),
        ({"reason": "two\nlines"}, LedgerError),
        ({"cohort": ""}, LedgerError),
    ],
)
def test_budgets_out_of_range(ledger: Ledger, change: dict[str, Any], error: type[Exception]) -> None:
    head = ledger.head
    arguments: dict[str, Any] = {
        "cohort": "training",
        "epsilon": 1.0,
        "delta": 1e-6,
        "officer": "A",
        "reason": "B",
    }
    with pytest.raises(error):
        ledger.set_budget(**{**arguments, **change})
    assert ledger.head == head


def test_malformed_requests_are_refused(ledger: Ledger) -> None:
    head = ledger.head
    stranger: Any = "round"
    with pytest.raises(LedgerError, match="plan_hash"):
        ledger.reserve("run-1", "training", [ROUND], plan_hash="sha256:" + 64 * "A")
    with pytest.raises(LedgerError, match="nothing"):
        ledger.reserve("run-1", "training", [], plan_hash=PLAN)
    with pytest.raises(LedgerError, match="run_id"):
        ledger.reserve("", "training", [ROUND], plan_hash=PLAN)
    with pytest.raises(EventError):
        ledger.reserve("run-1", "training", [stranger], plan_hash=PLAN)
    with pytest.raises(LedgerError, match="key"):
        ledger.commit("run-1", "", ROUND)
    assert ledger.head == head


def test_the_clock_needs_a_time_zone(path: Path) -> None:
    with pytest.raises(RuntimeError, match="time zone"):
        Ledger.create(path, site="amsterdam", clock=lambda: datetime(2026, 11, 22))
    ledger = Ledger.create(path, site="amsterdam", clock=lambda: clock().astimezone(timezone(timedelta(hours=1))))
    ledger.check()
    assert rows_of(path)[0]["time"] == "2026-11-22T05:00:00Z"
