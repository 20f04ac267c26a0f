"""One contract for both memories, then what only the durable one promises."""

import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from privacy.secagg.errors import SecAggMemoryError, SecAggReplayError
from privacy.secagg.memory import Act, InMemoryRoundMemory, RoundMemory, SqliteRoundMemory

DIGEST = bytes(32)


@pytest.fixture(params=["in memory", "sqlite"])
def memory(request: pytest.FixtureRequest, tmp_path: Path) -> RoundMemory:
    return InMemoryRoundMemory() if request.param == "in memory" else SqliteRoundMemory(tmp_path / "m.db")


def test_nothing_is_masked_at_first(memory: RoundMemory) -> None:
    assert memory.last_masked("demo/run-1") == 0


@pytest.mark.parametrize("act", list(Act))
def test_an_act_is_recorded_once_per_round(memory: RoundMemory, act: Act) -> None:
    memory.record("demo/run-1", 3, act, DIGEST)
    for digest in (DIGEST, b"\x01" * 32):
        with pytest.raises(SecAggReplayError, match=f"round 3 of demo/run-1 be {act} again"):
            memory.record("demo/run-1", 3, act, digest)
    memory.record("demo/run-1", 4, act, DIGEST)
    memory.record("demo/run-2", 3, act, DIGEST)


def test_acts_do_not_stand_for_each_other(memory: RoundMemory) -> None:
    for act in Act:
        memory.record("demo/run-1", 1, act, DIGEST)


@pytest.mark.parametrize("stale", [1, 4, 5])
def test_masked_rounds_only_go_forward(memory: RoundMemory, stale: int) -> None:
    memory.record("demo/run-1", 5, Act.MASKED, DIGEST)
    assert memory.last_masked("demo/run-1") == 5
    assert memory.last_masked("demo/run-2") == 0
    with pytest.raises(SecAggReplayError):
        memory.record("demo/run-1", stale, Act.MASKED, DIGEST)
    memory.record("demo/run-1", 9, Act.MASKED, DIGEST)
    assert memory.last_masked("demo/run-1") == 9


def test_signing_does_not_move_the_last_masked_round(memory: RoundMemory) -> None:
    memory.record("demo/run-1", 7, Act.SIGNED, DIGEST)
    assert memory.last_masked("demo/run-1") == 0


def test_another_memory_on_the_same_file_remembers(tmp_path: Path) -> None:
    SqliteRoundMemory(tmp_path / "m.db").record("demo/run-1", 1, Act.MASKED, DIGEST)
    again = SqliteRoundMemory(tmp_path / "m.db")
    assert again.last_masked("demo/run-1") == 1
    with pytest.raises(SecAggReplayError):
        again.record("demo/run-1", 1, Act.MASKED, DIGEST)
    with sqlite3.connect(tmp_path / "m.db") as connection:
        rows = connection.execute("SELECT run, round, act, digest FROM secagg_act").fetchall()
    connection.close()
    assert rows == [("demo/run-1", 1, "masked", DIGEST)]


def damage_garbage(path: Path) -> None:
    path.write_bytes(b"not a database, and long enough to be read as a header of one " * 20)


def damage_missing_table(path: Path) -> None:
    path.unlink()


def damage_read_only(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TRIGGER full BEFORE INSERT ON secagg_act BEGIN SELECT raise(ABORT, 'full'); END")
    connection.commit()
    connection.close()


def damage_locked_away(path: Path) -> None:
    path.unlink()
    path.mkdir(mode=stat.S_IRWXU)


@pytest.mark.parametrize("damage", [damage_garbage, damage_missing_table, damage_read_only, damage_locked_away])
def test_a_memory_that_cannot_record_says_so(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    memory = SqliteRoundMemory(tmp_path / "m.db")
    damage(tmp_path / "m.db")
    with pytest.raises(SecAggMemoryError, match="the round is not joined"):
        memory.record("demo/run-1", 1, Act.MASKED, DIGEST)


def test_a_locked_memory_is_an_error_not_a_yes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("privacy.secagg.memory.BUSY_TIMEOUT_S", 0.01)
    memory = SqliteRoundMemory(tmp_path / "m.db")
    connection = sqlite3.connect(tmp_path / "m.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(SecAggMemoryError, match="locked"):
        memory.record("demo/run-1", 1, Act.MASKED, DIGEST)
    with pytest.raises(SecAggMemoryError, match="locked"):
        memory.last_masked("demo/run-1")  # nor an answer while another process is in the middle of an act
    connection.close()
    memory.record("demo/run-1", 1, Act.MASKED, DIGEST)


def test_a_commit_is_synchronous(tmp_path: Path) -> None:
    """Durability cannot be seen without a power cut, so the setting of its own connection is checked."""
    memory = SqliteRoundMemory(tmp_path / "m.db")
    with memory._transaction() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (3,)  # EXTRA
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
