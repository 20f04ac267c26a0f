"""The log: durable, append-only, provable, and never signed twice differently."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.checkpoint import open_checkpoint
from audit.entry import Entry
from audit.errors import CorruptLogError, EntryError, LogError, NoteError, StaleLogError
from audit.merkle import EMPTY_ROOT, leaf_hash, root_of, verify_consistency, verify_inclusion
from audit.note import VerifierKey
from audit.store import Log, open_log

if TYPE_CHECKING:
    from tests.audit.conftest import Story
else:
    Story = object

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ORIGIN = "zegel-log/test"
VERIFIER = VerifierKey.of(ORIGIN, KEY)


@pytest.fixture
def entries(told: Story) -> list[Entry]:
    return list(told.entries)


def opened(directory: Path) -> Log:
    return open_log(f"sqlite:///{directory / 'log.db'}", origin=ORIGIN)


def altered(directory: Path, *statements: str) -> None:
    """Changes the database as its administrator could: without the triggers."""
    connection = sqlite3.connect(directory / "log.db")
    for table in ("log_entry", "log_node", "log_setting"):
        for action in ("update", "delete"):
            connection.execute(f"DROP TRIGGER IF EXISTS {table}_no_{action}")
    for statement in statements:
        for index in range(9):
            statement = statement.replace(f"{{{index}}}", f'WHERE "index" = {index}')
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_appending_and_reading(tmp_path: Path, entries: list[Entry]) -> None:
    with opened(tmp_path) as log:
        assert log.size == 0
        assert log.root() == EMPTY_ROOT
        assert log.append([]) == []
        assert log.append(entries[:3]) == [0, 1, 2]
        assert log.append(entries[3:]) == list(range(3, len(entries)))
        assert log.size == len(entries)
        assert [entry for _, entry in log.entries()] == entries
        assert log.entry(2) == entries[2]
        assert log.root() == root_of(leaf_hash(e.to_bytes()) for e in entries)
        assert log.root(5) == root_of(leaf_hash(e.to_bytes()) for e in entries[:5])
        rounds = list(log.entries(kind="round.completed"))
        assert [index for index, _ in rounds] == [i for i, e in enumerate(entries) if e.kind == "round.completed"]
        assert [index for index, _ in log.entries(since=7)] == list(range(7, len(entries)))
        for index in (len(entries), -1):
            with pytest.raises(LogError, match=f"no entry {index}"):
                log.entry(index)
        with pytest.raises(LogError, match="tree size: expected 0 to"):
            log.root(len(entries) + 1)
    with opened(tmp_path) as log:
        assert log.size == len(entries)
        assert log.check().root == log.root()


def test_proofs(tmp_path: Path, entries: list[Entry]) -> None:
    with opened(tmp_path) as log:
        log.append(entries)
        for size in (1, 2, 7, len(entries)):
            root = log.root(size)
            for index in range(size):
                proof = log.inclusion_proof(index, size)
                verify_inclusion(index, size, leaf_hash(entries[index].to_bytes()), proof, root)
            verify_consistency(size, len(entries), log.consistency_proof(size), root, log.root())


def test_many_entries_in_batches(tmp_path: Path, entries: list[Entry]) -> None:
    many = [entries[-1]] * 1203
    seen: list[tuple[int, int]] = []
    with opened(tmp_path) as log:
        log.append(many)
        assert sum(1 for _ in log.entries()) == 1203
        assert sum(1 for _ in log.entries(kind=entries[-1].kind, since=3)) == 1200
        assert log.check(lambda done, total: seen.append((done, total))).size == 1203
        log.sign_checkpoint(KEY, lambda: entries[-1].time)
    assert seen[0] == (1, 1203)
    assert seen[-1] == (1203, 1203)


def test_an_entry_that_is_too_large_leaves_nothing_behind(tmp_path: Path, entries: list[Entry]) -> None:
    body = {"run_id": "r", "round": 1, "reason": "x" * 70_000, "participants": [], "dropped": []}
    with opened(tmp_path) as log:
        with pytest.raises(EntryError, match="at most 65535"):
            log.append([entries[0], Entry("round.aborted", entries[0].time, body)])
        assert log.size == 0


def test_a_log_keeps_its_name(tmp_path: Path) -> None:
    opened(tmp_path).close()
    with pytest.raises(LogError, match="expected the log zegel-log/other, got zegel-log/test"):
        open_log(f"sqlite:///{tmp_path / 'log.db'}", origin="zegel-log/other")
    with pytest.raises(NoteError, match="key name"):
        open_log(f"sqlite:///{tmp_path / 'new.db'}", origin="a b")


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "postgresql://host/log"])
def test_databases_that_would_not_do(url: str) -> None:
    with pytest.raises(LogError, match="expected"):
        open_log(url, origin=ORIGIN)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "log.db").write_bytes(b"not a database, but long enough to be looked at" * 10)
    with pytest.raises(LogError, match="cannot be used"):
        opened(tmp_path)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE log_entry SET kind = 'x'",
        "DELETE FROM log_entry",
        "INSERT OR REPLACE INTO log_entry VALUES (0, 'x', x'00')",
        "UPDATE log_node SET hash = x'00'",
        "DELETE FROM log_node",
        "INSERT OR REPLACE INTO log_node VALUES (0, 0, x'00')",
        "UPDATE log_setting SET value = 'x'",
    ],
)
def test_rows_cannot_be_changed_by_accident(tmp_path: Path, entries: list[Entry], statement: str) -> None:
    with opened(tmp_path) as log:
        log.append(entries[:2])
    connection = sqlite3.connect(tmp_path / "log.db")
    connection.execute("PRAGMA recursive_triggers=ON")
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(statement)
    connection.close()


def test_checkpoints(tmp_path: Path, entries: list[Entry]) -> None:
    now = entries[-1].time
    with opened(tmp_path) as log:
        assert log.last_checkpoint() is None
        empty = open_checkpoint(log.sign_checkpoint(KEY, lambda: now), VERIFIER)
        assert (empty.size, empty.root) == (0, EMPTY_ROOT)
        log.append(entries[:5])
        first = log.sign_checkpoint(KEY, lambda: now)
        assert log.sign_checkpoint(KEY, lambda: now) == first
        log.append(entries[5:])
        second = log.sign_checkpoint(KEY, lambda: now)
        one, two = open_checkpoint(first, VERIFIER), open_checkpoint(second, VERIFIER)
        assert (one.size, two.size) == (5, len(entries))
        verify_consistency(one.size, two.size, log.consistency_proof(5), one.root, two.root)
        assert log.last_checkpoint() == second
        assert (tmp_path / "log.checkpoint").read_bytes() == second


def test_another_key_does_not_go_on(tmp_path: Path, entries: list[Entry]) -> None:
    with opened(tmp_path) as log:
        log.append(entries[:5])
        log.sign_checkpoint(KEY, lambda: entries[-1].time)
        with pytest.raises(NoteError, match="expected a signature by"):
            log.sign_checkpoint(Ed25519PrivateKey.from_private_bytes(bytes(32)), lambda: entries[-1].time)


def test_entries_of_the_future_are_not_signed(tmp_path: Path, entries: list[Entry]) -> None:
    with opened(tmp_path) as log:
        log.append(entries)
        with pytest.raises(LogError, match="ahead of this clock"):
            log.sign_checkpoint(KEY, lambda: entries[0].time - timedelta(minutes=1))
        assert log.last_checkpoint() is None
        log.sign_checkpoint(KEY, lambda: entries[-1].time - timedelta(minutes=4))


def test_a_restored_old_database_is_not_signed(tmp_path: Path, entries: list[Entry]) -> None:
    old = tmp_path / "old.db"
    with opened(tmp_path) as log:
        log.append(entries[:5])
    shutil.copy(tmp_path / "log.db", old)
    with opened(tmp_path) as log:
        log.append(entries[5:])
        log.sign_checkpoint(KEY, lambda: entries[-1].time)
    shutil.copy(old, tmp_path / "log.db")
    with opened(tmp_path) as log:
        for attempt in (
            lambda: log.sign_checkpoint(KEY, lambda: entries[-1].time),
            lambda: log.append(entries[:1]),
            log.check,
        ):
            with pytest.raises(StaleLogError, match=f"holds 5 entries, but a checkpoint over {len(entries)}"):
                attempt()
        assert log.size == 5


def test_another_history_of_the_same_size_is_not_signed(tmp_path: Path, entries: list[Entry]) -> None:
    old = tmp_path / "old.db"
    with opened(tmp_path) as log:
        log.append(entries[:5])
    shutil.copy(tmp_path / "log.db", old)
    with opened(tmp_path) as log:
        log.append(entries[5:7])
        log.sign_checkpoint(KEY, lambda: entries[-1].time)
    shutil.copy(old, tmp_path / "log.db")
    (tmp_path / "log.checkpoint").rename(tmp_path / "aside")
    with opened(tmp_path) as log:
        log.append(entries[8:11])
        (tmp_path / "aside").rename(tmp_path / "log.checkpoint")
        with pytest.raises(StaleLogError, match="do not give the root that was signed"):
            log.sign_checkpoint(KEY, lambda: entries[-1].time)
        with pytest.raises(StaleLogError, match="do not give the root that was signed"):
            log.check()


def test_a_lost_checkpoint_file_stops_signing(tmp_path: Path, entries: list[Entry]) -> None:
    with opened(tmp_path) as log:
        log.append(entries[:5])
        log.sign_checkpoint(KEY, lambda: entries[-1].time)
        (tmp_path / "log.checkpoint").unlink()
        with pytest.raises(StaleLogError, match=r"log.checkpoint is missing"):
            log.sign_checkpoint(KEY, lambda: entries[-1].time)


def test_a_checkpoint_that_cannot_be_kept_is_not_given_out(tmp_path: Path, entries: list[Entry]) -> None:
    missing = tmp_path / "missing" / "log.checkpoint"
    with open_log(f"sqlite:///{tmp_path / 'log.db'}", origin=ORIGIN, checkpoint_path=missing) as log:
        log.append(entries[:5])
        with pytest.raises(FileNotFoundError):
            log.sign_checkpoint(KEY, lambda: entries[-1].time)
        missing.parent.mkdir()
        assert open_checkpoint(log.sign_checkpoint(KEY, lambda: entries[-1].time), VERIFIER).size == 5


def test_a_crash_after_the_file_was_written_is_harmless(tmp_path: Path, entries: list[Entry]) -> None:
    with opened(tmp_path) as log:
        log.append(entries[:5])
        signed = log.sign_checkpoint(KEY, lambda: entries[-1].time)
    altered(tmp_path, "DELETE FROM log_setting WHERE name = 'signed'")
    with opened(tmp_path) as log:
        assert log.sign_checkpoint(KEY, lambda: entries[-1].time) == signed
        log.append(entries[5:6])
        assert open_checkpoint(log.sign_checkpoint(KEY, lambda: entries[-1].time), VERIFIER).size == 6


TAMPERED: list[tuple[str, str, str]] = [
    (
        "entry changed",
        "UPDATE log_entry SET data = CAST(replace(data, 'certificate', 'Certificate') AS BLOB) {4}",
        "entry 4",
    ),
    ("entry stored as text", "UPDATE log_entry SET data = CAST(data AS TEXT) {4}", "entry 4: expected bytes"),
    ("entry not canonical", "UPDATE log_entry SET data = CAST(data || ' ' AS BLOB) {4}", "entry 4"),
    ("entry removed", "DELETE FROM log_entry {4}", "entry 4 is missing; the next one stored is 5"),
    ("kind changed", "UPDATE log_entry SET kind = 'approval' {4}", "entry 4: stored as approval"),
    ("leaf changed", "UPDATE log_node SET hash = zeroblob(32) {4} AND level = 0", "entry 4: expected"),
    ("node changed", "UPDATE log_node SET hash = zeroblob(32) {2} AND level = 1", "level 1, index 2"),
    ("node removed", "DELETE FROM log_node {1} AND level = 2", "level 2, index 1.*none is stored"),
    ("node added", "INSERT INTO log_node VALUES (9, 9, zeroblob(32))", "expected .* stored hashes"),
]


@pytest.mark.parametrize(("name", "statement", "message"), TAMPERED, ids=[name for name, _, _ in TAMPERED])
def test_check_names_the_first_bad_row(
    tmp_path: Path, entries: list[Entry], name: str, statement: str, message: str
) -> None:
    with opened(tmp_path) as log:
        log.append(entries[:8])
        log.check()
    altered(tmp_path, statement)
    with opened(tmp_path) as log, pytest.raises(CorruptLogError, match=message):
        log.check()


@pytest.mark.parametrize(("name", "statement", "message"), TAMPERED[:-1], ids=[name for name, _, _ in TAMPERED[:-1]])
def test_a_tampered_tree_is_not_signed(
    tmp_path: Path, entries: list[Entry], name: str, statement: str, message: str
) -> None:
    with opened(tmp_path) as log:
        log.append(entries[:2])
        log.sign_checkpoint(KEY, lambda: entries[-1].time)
        log.append(entries[2:8])
    altered(tmp_path, statement)
    with opened(tmp_path) as log:
        with pytest.raises(CorruptLogError):
            log.sign_checkpoint(KEY, lambda: entries[-1].time)
        signed = log.last_checkpoint()
        assert signed is not None
        assert open_checkpoint(signed, VERIFIER).size == 2


WRITER = """
import sys
from audit.entry import Entry
from audit.store import open_log
entry = Entry.from_bytes(bytes.fromhex(sys.argv[2]))
with open_log(sys.argv[1], origin="zegel-log/test") as log:
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(int(sys.argv[3])):
        print(*log.append([entry, entry]), flush=True)
"""


def writer(directory: Path, entry: Entry, count: int) -> subprocess.Popen[str]:
    url = f"sqlite:///{directory / 'log.db'}"
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, url, entry.to_bytes().hex(), str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def started(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("\n")
    process.stdin.flush()


def test_two_processes_write_at_once(tmp_path: Path, entries: list[Entry]) -> None:
    processes = [writer(tmp_path, entry, 15) for entry in entries[:2]]
    for process in processes:
        started(process)
    indices: list[int] = []
    for process in processes:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        for line in output.splitlines():
            first, second = map(int, line.split())
            assert second == first + 1
            indices += [first, second]
    assert sorted(indices) == list(range(60))
    with opened(tmp_path) as log:
        assert log.check().size == 60


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path, entries: list[Entry]) -> None:
    process = writer(tmp_path, entries[0], 100_000)
    started(process)
    assert process.stdout is not None
    acknowledged = [process.stdout.readline() for _ in range(5)]
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate(timeout=60)
    lines = [line for line in (*acknowledged, *rest.splitlines(keepends=True)) if line.endswith("\n")]
    with opened(tmp_path) as log:
        assert log.check().size >= int(lines[-1].split()[1]) + 1
