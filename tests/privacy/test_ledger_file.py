"""The ledger's file: tampering, rollback, recovery; several threads and processes at once."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import sqlite3
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from privacy import accounting
from privacy.errors import (
    AlreadySpent,
    BudgetExceeded,
    BudgetMissing,
    LedgerBusy,
    LedgerCorrupt,
    LedgerError,
    LedgerRolledBack,
    NotReserved,
)
from privacy.events import MetricRelease, Repeated, TrainingRound
from privacy.ledger import Ledger
from privacy.ledger_store import Rows, row_hash

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


# --- the file ---


def test_a_ledger_is_made_once(ledger: Ledger, path: Path) -> None:
    with pytest.raises(LedgerError, match="exists"):
        Ledger.create(path, site="amsterdam", clock=clock)
    path.unlink()
    with pytest.raises(LedgerError, match="exists"):  # the anchor still knows the ledger
        Ledger.create(path, site="amsterdam", clock=clock)
    with pytest.raises(LedgerError, match="there is no ledger"):
        Ledger.open(path, clock=clock)
    assert not path.exists()


def test_nobody_else_may_read_the_file(ledger: Ledger, path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_durability_that_the_crash_order_needs(ledger: Ledger, path: Path) -> None:
    from privacy.ledger_store import _connected

    with _connected(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (3,)  # EXTRA


@pytest.mark.parametrize("statement", ["UPDATE ledger SET row = '{}' WHERE seq = 1", "DELETE FROM ledger"])
def test_the_table_is_append_only(ledger: Ledger, path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(statement)
    connection.close()


def tamper(path: Path, *statements: tuple[str, tuple[Any, ...]], keep_triggers: bool = False) -> None:
    """What a database administrator can do: drop the triggers, change rows, put the triggers back."""
    connection = sqlite3.connect(path, isolation_level=None)
    triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    for statement, values in statements:
        connection.execute(statement, values)
    for _, sql in triggers if not keep_triggers else ():
        connection.execute(sql)
    connection.close()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of six rows, made once: created, budget, reserved, three commits."""
    path = tmp_path_factory.mktemp("template") / "ledger.db"
    ledger = Ledger.create(path, site="amsterdam", clock=clock)
    ledger.set_budget("training", epsilon=3.0, delta=1e-6, officer="J. de Vries", reason="DPIA 12")
    ledger.reserve("run-1", "training", [Repeated(ROUND, 10)], plan_hash=PLAN)
    for number in (1, 2, 3):
        ledger.commit("run-1", f"round {number}", ROUND)
    return path


@pytest.fixture
def used(template: Path, path: Path) -> Ledger:
    """A copy of the template."""
    for suffix in ("", ".anchor"):
        shutil.copyfile(f"{template}{suffix}", f"{path}{suffix}")
    return Ledger.open(path, clock=clock)


def rehashed(text: str) -> tuple[str, str]:
    return text, row_hash(text)


@pytest.mark.parametrize("seq", range(1, 7))
@pytest.mark.parametrize("how", ["text", "hash", "text and hash", "gone", "not JSON"])
def test_every_tampered_row_is_found_and_named(used: Ledger, path: Path, seq: int, how: str) -> None:
    ledger = used
    body = rows_of(path)[seq - 1]
    text = json.dumps({**body, "time": "2026-11-22T05:00:01Z"}, sort_keys=True, separators=(",", ":"))
    changes: dict[str, tuple[str, tuple[Any, ...]]] = {
        "text": ("UPDATE ledger SET row = ? WHERE seq = ?", (text, seq)),
        "hash": ("UPDATE ledger SET hash = ? WHERE seq = ?", ("sha256:" + 64 * "0", seq)),
        "text and hash": ("UPDATE ledger SET row = ?, hash = ? WHERE seq = ?", (*rehashed(text), seq)),
        "gone": ("DELETE FROM ledger WHERE seq = ?", (seq,)),
        "not JSON": ("UPDATE ledger SET row = ?, hash = ? WHERE seq = ?", (*rehashed("{"), seq)),
    }
    tamper(path, changes[how])
    last = seq == 6
    # A row rewritten with its hash breaks the chain at the next one; the last one is caught by the anchor.
    where = {"text and hash": seq + 1}.get(how, seq)
    anchored = last and how in ("text and hash", "gone")
    for act in (ledger.check, lambda: Ledger.open(path, clock=clock), ledger.summary):
        with pytest.raises(LedgerRolledBack if anchored else LedgerCorrupt, match="Restore the newest") as error:
            act()
        if not anchored:
            assert f"row {where} " in str(error.value)


@pytest.mark.parametrize(
    ("seq", "change"),
    [
        pytest.param(2, {"epsilon": 300.0}, id="a larger budget than may be"),
        pytest.param(2, {"epsilon": "3"}, id="a budget that is a text"),
        pytest.param(2, {"kind": "budget.sett"}, id="an unknown kind"),
        pytest.param(2, {"kind": "ledger.created"}, id="created twice"),
        pytest.param(3, {"events": [{"kind": "training-round"}]}, id="a malformed event"),
        pytest.param(3, {"events": None}, id="no events"),
        pytest.param(3, {"cohort": "validation"}, id="a cohort without a budget"),
        pytest.param(4, {"run_id": "run-2"}, id="a commit of no reservation"),
        pytest.param(5, {"key": "round 1"}, id="a key committed twice"),
        pytest.param(6, {"event": Repeated(ROUND, 9).to_json()}, id="more committed than reserved"),
    ],
)
def test_a_rewritten_chain_must_still_make_sense(used: Ledger, path: Path, seq: int, change: dict[str, Any]) -> None:
    """Someone who rewrites the whole chain and the anchor cannot make up rows the ledger never writes."""
    statements: list[tuple[str, tuple[Any, ...]]] = []
    previous = "sha256:" + 64 * "0"
    for number, body in enumerate(rows_of(path), start=1):
        changed = {**body, **(change if number == seq else {}), "previous": previous}
        text, previous = rehashed(json.dumps(changed, sort_keys=True, separators=(",", ":")))
        statements.append(("UPDATE ledger SET row = ?, hash = ? WHERE seq = ?", (text, previous, number)))
    tamper(path, *statements)
    anchor = path.with_name("ledger.db.anchor")
    anchor.write_text(json.dumps({"seq": 6, "hash": previous}))
    with pytest.raises(LedgerCorrupt, match=f"row {seq} makes no sense"):
        Ledger.open(path, clock=clock)


def test_dropped_triggers_are_found(used: Ledger, path: Path) -> None:
    ledger = used
    tamper(path, keep_triggers=True)
    with pytest.raises(LedgerCorrupt, match="triggers"):
        ledger.check()


@pytest.mark.parametrize("content", [b"", b"not a database, but long enough to be read as a header " * 20])
def test_a_file_that_is_no_ledger(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(content)
    with pytest.raises(LedgerCorrupt):
        Ledger.open(path, clock=clock)


def test_a_rolled_back_file_is_refused(used: Ledger, path: Path, tmp_path: Path) -> None:
    ledger = used
    head = ledger.head
    copy = tmp_path / "copy.db"
    shutil.copyfile(path, copy)
    ledger.commit("run-1", "round 4", ROUND)
    shutil.copyfile(copy, path)
    acts: list[Callable[[], object]] = [
        ledger.check,
        ledger.summary,
        lambda: ledger.head,
        lambda: ledger.commit("run-1", "round 4", ROUND),
        lambda: ledger.commit("run-1", "round 5", ROUND),
        lambda: ledger.reserve("run-2", "training", [ROUND], plan_hash=PLAN),
        lambda: ledger.close("run-1"),
        lambda: ledger.set_budget("training", epsilon=1.0, delta=1e-6, officer="A", reason="B"),
        lambda: Ledger.open(path, clock=clock),
    ]
    for act in acts:
        with pytest.raises(LedgerRolledBack):
            act()
    assert len(rows_of(path)) == 6
    assert Rows(path).position(head) == 6


def test_a_missing_or_damaged_anchor_is_refused(used: Ledger, path: Path) -> None:
    anchor = path.with_name("ledger.db.anchor")
    good = anchor.read_bytes()
    anchor.unlink()
    with pytest.raises(LedgerRolledBack, match="missing"):
        Ledger.open(path, clock=clock)
    for damage in (b"", b"{}", b"[]", b'{"seq":"6"}', b"\xff"):
        anchor.write_bytes(damage)
        with pytest.raises(LedgerCorrupt):
            Ledger.open(path, clock=clock)
    anchor.write_bytes(good.replace(b"sha256:", b"sha256:0"))
    with pytest.raises(LedgerRolledBack, match="another history"):
        Ledger.open(path, clock=clock)
    anchor.write_bytes(good)
    Ledger.open(path, clock=clock).check()


def test_a_head_given_away_tells_when_both_were_rolled_back(used: Ledger, path: Path, tmp_path: Path) -> None:
    ledger = used
    anchor = path.with_name("ledger.db.anchor")
    shutil.copyfile(path, tmp_path / "copy.db")
    shutil.copyfile(anchor, tmp_path / "copy.anchor")
    receipt = ledger.commit("run-1", "round 4", ROUND)
    assert ledger.position(receipt) == 7
    shutil.copyfile(tmp_path / "copy.db", path)
    shutil.copyfile(tmp_path / "copy.anchor", anchor)
    restored = Ledger.open(path, clock=clock)  # nothing on this machine can tell
    with pytest.raises(LedgerRolledBack, match="given away"):
        restored.position(receipt)
    with pytest.raises(LedgerRolledBack):  # a process that has seen the newer rows can
        ledger.check()
        _ = ledger.head


def test_recovery_is_conservative(used: Ledger, path: Path, tmp_path: Path) -> None:
    ledger = used
    with pytest.raises(LedgerError, match="nothing to recover"):
        Ledger.recover(path, officer="J. de Vries", reason="none", clock=clock)
    shutil.copyfile(path, tmp_path / "copy.db")
    ledger.commit("run-1", "round 4", ROUND)
    shutil.copyfile(tmp_path / "copy.db", path)
    recovered = Ledger.recover(path, officer="J. de Vries", reason="disk failed", clock=clock)
    recovered.check()
    (cohort,) = recovered.summary().cohorts
    # Ten were reserved, three commits survive: all ten count as spent.
    assert cohort.spent == accounting.epsilon([Repeated(ROUND, 10)], 1e-6)
    assert (cohort.suspended, cohort.history_lost, cohort.left) == (True, True, 0.0)
    with pytest.raises(BudgetMissing, match="suspended"):
        recovered.reserve("run-2", "training", [ROUND], plan_hash=PLAN)
    with pytest.raises(NotReserved):
        recovered.commit("run-1", "round 4", ROUND)
    recovered.set_budget("training", epsilon=3.0, delta=1e-6, officer="J. de Vries", reason="reviewed")
    again = Ledger.open(path, clock=clock)
    again.reserve("run-2", "training", [ROUND], plan_hash=PLAN)
    (cohort,) = again.summary().cohorts
    assert (cohort.suspended, cohort.history_lost) == (False, True)
    assert rows_of(path)[6]["officer"] == "J. de Vries"
    assert "older copy" in rows_of(path)[6]["loss"]


def test_a_broken_chain_cannot_be_recovered_in_place(used: Ledger, path: Path) -> None:
    tamper(path, ("DELETE FROM ledger WHERE seq = 2", ()))
    with pytest.raises(LedgerCorrupt, match="row 2 is missing"):
        Ledger.recover(path, officer="A", reason="B", clock=clock)


# --- several at once ---


def reserve_until_refused(path: Path, name: str, start: Callable[[], object], done: list[str]) -> None:
    ledger = Ledger.open(path, clock=clock)
    start()
    for number in range(50):
        try:
            ledger.reserve(f"{name}-{number}", "training", [Repeated(ROUND, 4)], plan_hash=PLAN)
        except BudgetExceeded:
            return
        done.append(f"{name}-{number}")


def fitting(epsilon: float, per_run: int) -> int:
    """How many runs fit alone into a budget."""
    count = 0
    while accounting.rdp_epsilon([Repeated(ROUND, per_run * (count + 1))], 1e-6) <= epsilon:
        count += 1
    return count


def test_threads_cannot_overspend(ledger: Ledger, path: Path) -> None:
    barrier, done = threading.Barrier(4), list[str]()
    threads = [
        threading.Thread(target=reserve_until_refused, args=(path, f"t{number}", barrier.wait, done))
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    again = Ledger.open(path, clock=clock)
    again.check()
    stands = again.price("training")
    assert stands.total <= 3.0
    assert 1 <= len(done) <= fitting(3.0, 4)
    assert len(done) == len(again.summary().cohorts[0].runs)
    with pytest.raises(BudgetExceeded):
        again.reserve("one more", "training", [Repeated(ROUND, 4)], plan_hash=PLAN)


def spend_key(path: Path, barrier: Any, results: Any) -> None:
    ledger = Ledger.open(path, clock=clock)
    barrier.wait()
    for number in range(5):
        try:
            ledger.commit("run-1", f"round {number}", ROUND)
        except AlreadySpent:
            results.put(("refused", number))
        else:
            results.put(("spent", number))


def test_processes_cannot_spend_a_key_twice(ledger: Ledger, path: Path) -> None:
    ledger.reserve("run-1", "training", [Repeated(ROUND, 10)], plan_hash=PLAN)
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=spend_key, args=(path, barrier, results)) for _ in range(2)]
    for process in processes:
        process.start()
    answers = sorted(results.get(timeout=60) for _ in range(10))
    for process in processes:
        process.join()
        assert process.exitcode == 0
        process.close()
    results.close()
    results.join_thread()
    assert answers == sorted([("refused", number) for number in range(5)] + [("spent", number) for number in range(5)])
    ledger.check()
    assert ledger.summary().cohorts[0].runs[0].committed == 5


def test_a_lasting_lock_is_reported(ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("privacy.ledger_store._BUSY_TIMEOUT_S", 0.05)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerBusy, match="locked"):
        ledger.set_budget("training", epsilon=1.0, delta=1e-6, officer="A", reason="B")
    connection.close()
    ledger.set_budget("training", epsilon=1.0, delta=1e-6, officer="A", reason="B")
