"""Heads given away, every kind of charge through the ledger, and two jobs at once."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from privacy import accounting
from privacy.errors import AlreadySpent, BudgetExceeded, LedgerCorrupt, LedgerError, LedgerRolledBack, NotReserved
from privacy.events import (
    CalibrationRelease,
    Charge,
    LabelCounts,
    LocalSteps,
    Repeated,
    StatisticsRelease,
    TrainingRound,
    Tuning,
)
from privacy.ledger import Ledger

PLAN = "sha256:" + 64 * "a"
ROUND = TrainingRound(1.0, 20.0)
TUNING = Tuning((Repeated(TrainingRound(1.0, 60.0), 2),), 2.0, 1.0)


def clock() -> datetime:
    return datetime(2026, 11, 22, 5, 0, 0, tzinfo=UTC)


class Crash(Exception):
    """The machine stops here."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def given(tmp_path: Path) -> Path:
    return tmp_path / "elsewhere" / "given-head.json"


@pytest.fixture
def ledger(path: Path, given: Path) -> Ledger:
    """Budget 3, a run of ten rounds reserved."""
    given.parent.mkdir()
    made = Ledger.create(path, site="amsterdam", clock=clock, given_path=given)
    made.set_budget("training", epsilon=3.0, delta=1e-6, officer="J. de Vries", reason="DPIA 12")
    made.reserve("run-1", "training", [Repeated(ROUND, 10)], plan_hash=PLAN)
    return made


def copied(path: Path, folder: Path) -> Callable[[], None]:
    """Copies the database and its anchor; the answer puts both back."""
    folder.mkdir()
    names = [path.name, f"{path.name}.anchor"]
    for name in names:
        shutil.copyfile(path.with_name(name), folder / name)

    def put_back() -> None:
        for name in names:
            shutil.copyfile(folder / name, path.with_name(name))

    return put_back


# --- heads given away ---


def test_a_head_is_kept_before_it_leaves(ledger: Ledger, given: Path) -> None:
    assert not given.exists()
    head = ledger.hand_out()
    assert head == ledger.head
    assert json.loads(given.read_bytes()) == {"head": head, "seq": 3}
    assert stat.S_IMODE(given.stat().st_mode) == 0o600
    spent = ledger.hand_out(ledger.commit("run-1", "round 1", ROUND))
    assert json.loads(given.read_bytes()) == {"head": spent, "seq": 4}
    # An older head given away later, as by another thread, does not make it forget the newer one.
    assert ledger.hand_out(head) == head
    assert json.loads(given.read_bytes())["head"] == spent
    assert sorted(item.name for item in given.parent.iterdir()) == [given.name]


def test_both_put_back_together_admit_nothing_more(ledger: Ledger, path: Path, given: Path, tmp_path: Path) -> None:
    put_back = copied(path, tmp_path / "backup")
    receipt = ledger.hand_out(ledger.commit("run-1", "round 1", ROUND))
    newest = copied(path, tmp_path / "newest")
    put_back()
    with pytest.raises(LedgerRolledBack, match="given away"):
        Ledger.open(path, clock=clock, given_path=given)
    # A process that begins with the older copy finds out when a plan asks, and when it is checked.
    late = Ledger.unread(path, clock=clock, given_path=given)
    for act in (
        lambda: late.reserve("run-2", "training", [ROUND], plan_hash=PLAN),
        lambda: late.reserve("run-1", "training", [Repeated(ROUND, 10)], plan_hash=PLAN),
        late.check,
        late.hand_out,
        lambda: late.hand_out(receipt),
    ):
        with pytest.raises(LedgerRolledBack):
            act()
    # With the newest copy back everything goes on.
    newest()
    again = Ledger.open(path, clock=clock, given_path=given)
    again.reserve("run-2", "training", [ROUND], plan_hash=PLAN)
    with pytest.raises(AlreadySpent):
        again.commit("run-1", "round 1", ROUND)


def test_a_declared_loss_counts_everything_reserved(ledger: Ledger, path: Path, given: Path, tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="what was given away: there is nothing to recover"):
        Ledger.recover(path, officer="J. de Vries", reason="none", clock=clock, given_path=given)
    put_back = copied(path, tmp_path / "backup")
    lost = ledger.hand_out(ledger.commit("run-1", "round 1", ROUND))
    put_back()
    recovered = Ledger.recover(path, officer="J. de Vries", reason="disk failed", clock=clock, given_path=given)
    assert json.loads(given.read_bytes())["head"] == recovered.head
    recovered.check()
    (cohort,) = recovered.summary().cohorts
    assert (cohort.suspended, cohort.history_lost) == (True, True)
    assert cohort.spent == accounting.epsilon([Repeated(ROUND, 10)], 1e-6)
    with pytest.raises(LedgerRolledBack):
        recovered.hand_out(lost)
    recovered.set_budget("training", epsilon=3.0, delta=1e-6, officer="J. de Vries", reason="reviewed")
    again = Ledger.open(path, clock=clock, given_path=given)
    again.reserve("run-2", "training", [ROUND], plan_hash=PLAN)


def test_a_new_ledger_in_the_place_of_a_lost_one_is_refused(ledger: Ledger, path: Path, given: Path) -> None:
    ledger.hand_out()
    path.unlink()
    path.with_name("ledger.db.anchor").unlink()
    with pytest.raises(LedgerError, match=r"given-head\.json exists: open this ledger"):
        Ledger.create(path, site="amsterdam", clock=clock, given_path=given)
    assert not path.exists()


@pytest.mark.parametrize("damage", [b"", b"{}", b"[]", b'{"head":5}', b"\xff"])
def test_a_damaged_head_is_refused(damage: bytes, ledger: Ledger, path: Path, given: Path) -> None:
    ledger.hand_out()
    given.write_bytes(damage)
    for act in (
        ledger.check,
        ledger.hand_out,
        lambda: ledger.reserve("run-2", "training", [ROUND], plan_hash=PLAN),
        lambda: Ledger.open(path, clock=clock, given_path=given),
    ):
        with pytest.raises(LedgerCorrupt, match=r"given-head\.json"):
            act()


def test_without_a_file_nothing_is_kept(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "plain.db", site="amsterdam", clock=clock)
    assert ledger.hand_out() == ledger.head
    with pytest.raises(LedgerError, match="there is no ledger"):
        Ledger.unread(tmp_path / "none.db", clock=clock).reserve("run-1", "training", [ROUND], plan_hash=PLAN)


@pytest.mark.parametrize("step", ["before given", "after given"])
def test_a_crash_while_a_head_is_given_away(step: str, ledger: Ledger, path: Path, given: Path) -> None:
    ledger.hand_out()
    armed: list[str] = []

    def hook(at: str) -> None:
        if at in armed:
            raise Crash(at)

    failing = Ledger.open(path, clock=clock, hook=hook, given_path=given)
    spent = failing.commit("run-1", "round 1", ROUND)
    armed.append(step)
    with pytest.raises(Crash):
        failing.hand_out(spent)
    # The head did not leave. Whichever is on file is in the ledger, which goes on.
    again = Ledger.open(path, clock=clock, given_path=given)
    assert again.position(json.loads(given.read_bytes())["head"]) == (3 if step == "before given" else 4)
    again.commit("run-1", "round 2", ROUND)
    assert again.hand_out() == again.head


# --- every kind of charge ---

CHARGES: dict[str, Charge | Repeated] = {
    "local steps": LocalSteps(0.1, 4.0, 20),
    "rounds of local steps": Repeated(LocalSteps(0.1, 4.0, 10), 2),
    "a tuning": TUNING,
    "label counts": LabelCounts(9.0, "codes"),
    "statistics": StatisticsRelease(9.0, "sums"),
    "calibration": CalibrationRelease(9.0, "right codes by confidence"),
}


@pytest.mark.parametrize("step", ["before row", "after row", "before anchor", "after anchor"])
@pytest.mark.parametrize("kind", CHARGES)
def test_a_crash_spends_all_of_it_or_nothing(kind: str, step: str, path: Path) -> None:
    armed: list[str] = []

    def hook(at: str) -> None:
        if at in armed:
            raise Crash(at)

    item = CHARGES[kind]
    ledger = Ledger.create(path, site="amsterdam", clock=clock, hook=hook)
    ledger.set_budget("training", epsilon=8.0, delta=1e-6, officer="J. de Vries", reason="DPIA 12")
    price = ledger.reserve("run-1", "training", [item], plan_hash=PLAN)
    assert price.reserved == pytest.approx(accounting.rdp_epsilon([item], 1e-6))
    armed.append(step)
    with pytest.raises(Crash):
        ledger.commit("run-1", "release", item)
    armed.clear()
    again = Ledger.open(path, clock=clock)
    again.check()
    if step == "before row":
        assert again.price("training").spent == 0.0
        again.commit("run-1", "release", item)
    else:
        with pytest.raises(AlreadySpent):
            again.commit("run-1", "release", item)
    (cohort,) = again.summary().cohorts
    assert cohort.spent == accounting.epsilon([item], 1e-6)
    assert cohort.accountant == accounting.accountant([item])
    assert cohort.reserved_rdp == 0.0
    with pytest.raises(NotReserved):
        again.commit("run-1", "once more", item)


def test_what_was_reserved_is_what_can_be_spent(ledger: Ledger) -> None:
    """Ten rounds are not local steps of the same noise, and twenty steps are not ten and ten."""
    for item in (LocalSteps(1.0, 20.0, 10), LocalSteps(1.0, 20.0, 1), Repeated(LocalSteps(1.0, 20.0, 5), 2)):
        with pytest.raises(NotReserved):
            ledger.commit("run-1", "round 1", item)
    ledger.reserve("run-2", "training", [LocalSteps(0.1, 20.0, 20)], plan_hash=PLAN)
    with pytest.raises(NotReserved):
        ledger.commit("run-2", "round 1", LocalSteps(0.1, 20.0, 10))


def test_the_report_puts_every_kind_in_words(ledger: Ledger) -> None:
    ledger.reserve("run-2", "training", [Repeated(LocalSteps(0.01, 20.0, 5), 3), TUNING], plan_hash=PLAN)
    ledger.commit("run-2", "round 1", LocalSteps(0.01, 20.0, 5))
    run = ledger.summary().cohorts[0].runs[1]
    assert run.events == (
        "1 of 3 x local-steps, noise 20, sampling 0.01, 5 steps",
        "0 of 1 x tuning, 2 trials on average, each 2 x training-round, noise 60",
    )
    assert run.held_rdp > 0.0


# --- two jobs at once ---


def reserve_all(path: Path, name: str, barrier: Any, results: Any) -> None:
    ledger = Ledger.open(path, clock=clock)
    barrier.wait()
    taken = 0
    try:
        while taken < 50:
            ledger.reserve(f"{name}-{taken}", "training", [LocalSteps(1.0, 20.0, 20)], plan_hash=PLAN)
            taken += 1
    except BudgetExceeded:
        results.put((name, taken))


def test_two_processes_cannot_reserve_the_last_of_a_budget_twice(ledger: Ledger, path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [
        context.Process(target=reserve_all, args=(path, name, barrier, results)) for name in ("evening", "morning")
    ]
    for process in processes:
        process.start()
    taken = dict(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
        assert process.exitcode == 0
        process.close()
    results.close()
    results.join_thread()
    ledger.check()
    price = ledger.price("training")
    assert price.total <= 3.0
    # Together they got what one alone would have got, and not one more.
    alone = 0
    while accounting.rdp_epsilon([Repeated(ROUND, 10 + 20 * (alone + 1))], 1e-6, order=price.order) <= 3.0:
        alone += 1
    assert sum(taken.values()) == alone >= 2
    with pytest.raises(BudgetExceeded):
        ledger.reserve("one more", "training", [LocalSteps(1.0, 20.0, 20)], plan_hash=PLAN)
