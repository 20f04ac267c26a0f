"""The crash table: each durable step fails before and after it; the ledger is right or conservative."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from privacy.errors import AlreadySpent, LedgerError
from privacy.events import Repeated, TrainingRound
from privacy.ledger import Ledger
from privacy.ledger_store import Rows

PLAN = "sha256:" + 64 * "a"
ROUND = TrainingRound(1.0, 20.0)
STEPS = ["before row", "after row", "before anchor", "after anchor"]


def clock() -> datetime:
    return datetime(2026, 11, 22, 5, 0, 0, tzinfo=UTC)


class Crash(Exception):
    """The machine stops here."""


class Failing:
    """A hook that stops at one step, once armed."""

    def __init__(self) -> None:
        self.step: str | None = None

    def __call__(self, step: str) -> None:
        if step == self.step:
            raise Crash(step)


def set_budget(ledger: Ledger) -> None:
    ledger.set_budget("training", epsilon=2.0, delta=1e-6, officer="A. Bakker", reason="review")


def reserve(ledger: Ledger) -> None:
    ledger.reserve("run-2", "training", [Repeated(ROUND, 2)], plan_hash=PLAN)


def commit(ledger: Ledger) -> None:
    ledger.commit("run-1", "round 2", ROUND)


def close(ledger: Ledger) -> None:
    ledger.close("run-1")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of four rows, made once: created, budget, reserved, one commit."""
    path = tmp_path_factory.mktemp("template") / "ledger.db"
    ledger = Ledger.create(path, site="amsterdam", clock=clock)
    ledger.set_budget("training", epsilon=3.0, delta=1e-6, officer="J. de Vries", reason="DPIA 12")
    ledger.reserve("run-1", "training", [Repeated(ROUND, 3)], plan_hash=PLAN)
    ledger.commit("run-1", "round 1", ROUND)
    return path


@pytest.fixture
def path(template: Path, tmp_path: Path) -> Path:
    """A copy of the template."""
    for suffix in ("", ".anchor"):
        shutil.copyfile(f"{template}{suffix}", tmp_path / f"ledger.db{suffix}")
    return tmp_path / "ledger.db"


def opened(path: Path) -> tuple[Ledger, Failing]:
    hook = Failing()
    return Ledger.open(path, clock=clock, hook=hook), hook


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("operation", [set_budget, reserve, commit, close])
def test_crash_table(path: Path, operation: Callable[[Ledger], None], step: str) -> None:
    ledger, hook = opened(path)
    before = ledger.summary()
    hook.step = step
    with pytest.raises(Crash):  # the caller hears of no success, so nothing is released
        operation(ledger)
    hook.step = None
    durable = step != "before row"

    # The state on disk is that of before or of after, never a third, and the anchor agrees or is behind.
    after = Ledger.open(path, clock=clock)
    after.check()
    assert after.summary().rows == before.rows + durable
    if not durable:
        assert after.summary() == before
    was, now = before.cohorts[0], after.summary().cohorts[0]
    if operation is commit and durable:
        assert now.spent > was.spent  # spent though not released: conservative
        with pytest.raises(AlreadySpent):
            commit(after)
    else:
        assert now.spent == was.spent
        operation(after)  # doing it again is right, whether it had happened or not

    # The ledger that lived through it (an exception, not a power cut) sees the same.
    assert ledger.summary() == after.summary()
    ledger.commit("run-1", "round 3", ROUND) if operation is not close else reserve(ledger)
    Ledger.open(path, clock=clock).check()


@pytest.mark.parametrize("step", STEPS)
def test_a_crash_while_creating(tmp_path: Path, step: str) -> None:
    path = tmp_path / "ledger.db"
    hook = Failing()
    hook.step = step
    with pytest.raises(Crash):
        Ledger.create(path, site="amsterdam", clock=clock, hook=hook)
    if step == "before row":
        assert not path.exists()
        ledger = Ledger.create(path, site="amsterdam", clock=clock)
    else:
        with pytest.raises(LedgerError, match="exists"):
            Ledger.create(path, site="amsterdam", clock=clock)
        ledger = Ledger.open(path, clock=clock)
    ledger.set_budget("training", epsilon=3.0, delta=1e-6, officer="J. de Vries", reason="DPIA 12")
    Ledger.open(path, clock=clock).check()


@pytest.mark.parametrize("step", STEPS)
def test_a_crash_while_recovering(path: Path, step: str) -> None:
    ledger, _ = opened(path)
    old = path.read_bytes()
    commit(ledger)
    path.write_bytes(old)
    hook = Failing()
    hook.step = step
    with pytest.raises(Crash):
        Ledger.recover(path, officer="J. de Vries", reason="disk failed", clock=clock, hook=hook)
    if step != "after anchor":  # not yet recovered: refused still, and recovering again works
        with pytest.raises(LedgerError):
            Ledger.open(path, clock=clock)
        Ledger.recover(path, officer="J. de Vries", reason="disk failed", clock=clock)
    (cohort,) = Ledger.open(path, clock=clock).summary().cohorts
    assert cohort.suspended
    assert sum(run.committed for run in cohort.runs) == 1


def test_an_anchor_behind_is_brought_forward(path: Path) -> None:
    ledger, hook = opened(path)
    anchor = path.with_name("ledger.db.anchor")
    old = anchor.read_bytes()
    hook.step = "before anchor"
    with pytest.raises(Crash):
        commit(ledger)
    assert anchor.read_bytes() == old
    hook.step = None
    ledger.commit("run-1", "round 3", ROUND)
    assert b'"seq":6' in anchor.read_bytes()
    # Now rolling back to before the interrupted row is seen again.
    assert Rows(path).read(None)[-1].seq == 6


CHILD = """
import os, sys
from datetime import UTC, datetime
from pathlib import Path
from privacy.events import TrainingRound
from privacy.ledger import Ledger

ledger = Ledger.open(
    Path(sys.argv[1]),
    clock=lambda: datetime(2026, 11, 22, 5, 0, 0, tzinfo=UTC),
    hook=lambda step: os._exit(9) if step == sys.argv[2] else None,
)
ledger.commit("run-1", "round 2", TrainingRound(1.0, 20.0))
"""


@pytest.mark.parametrize("step", ["before row", "after row"])
def test_a_process_that_dies(path: Path, step: str) -> None:
    """The same with a real process that ends without a word: SQLite's journal undoes or keeps the row."""
    ledger, _ = opened(path)
    done = subprocess.run([sys.executable, "-c", CHILD, str(path), step], env=dict(os.environ), check=False)
    assert done.returncode == 9
    if step == "before row":
        commit(ledger)
    else:
        with pytest.raises(AlreadySpent):
            commit(ledger)
    ledger.check()
    assert ledger.summary().cohorts[0].runs[0].committed == 2
