"""The log, in SQLite and in PostgreSQL alike: append-only, provable, and never signed twice differently."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.checkpoint import open_checkpoint
from audit.durable_file import swap_durably
from audit.entry import Entry
from audit.errors import CorruptLogError, EntryError, LogConflictError, LogError, NoteError, StaleLogError
from audit.merkle import EMPTY_ROOT, frontier_nodes, leaf_hash, root_of, verify_consistency, verify_inclusion
from audit.store import open_log
from tests.audit.log_places import KEY, ORIGIN, VERIFIER, Place, altered, opened


def test_appending_and_reading(place: Place, entries: list[Entry]) -> None:
    with opened(place) as log:
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
        assert log.read_entries(4, 7) == [entry.to_bytes() for entry in entries[4:7]]
        assert log.read_hashes([(0, 3), (0, 1)]) == [leaf_hash(entries[i].to_bytes()) for i in (3, 1)]
        for index in (len(entries), -1):
            with pytest.raises(LogError, match=f"no entry {index}"):
                log.entry(index)
        with pytest.raises(LogError, match="tree size: expected 0 to"):
            log.root(len(entries) + 1)
        with pytest.raises(LogError, match="found 1 of 3"):
            log.read_entries(len(entries) - 1, len(entries) + 2)
        with pytest.raises(CorruptLogError, match="level 0, index 999"):
            log.read_hashes([(0, 999)])
    with opened(place) as log:
        assert log.size == len(entries)
        assert log.check().root == log.root()


def test_proofs(place: Place, entries: list[Entry]) -> None:
    with opened(place) as log:
        log.append(entries)
        for size in (1, 2, 7, len(entries)):
            root = log.root(size)
            for index in range(size):
                proof = log.inclusion_proof(index, size)
                verify_inclusion(index, size, leaf_hash(entries[index].to_bytes()), proof, root)
            verify_consistency(size, len(entries), log.consistency_proof(size), root, log.root())


def test_many_entries_in_batches(place: Place, entries: list[Entry]) -> None:
    many = [entries[-1]] * 1203
    seen: list[tuple[int, int]] = []
    with opened(place) as log:
        log.append(many)
        assert sum(1 for _ in log.entries()) == 1203
        assert sum(1 for _ in log.entries(kind=entries[-1].kind, since=3)) == 1200
        assert log.check(lambda done, total: seen.append((done, total))).size == 1203
        log.sign_checkpoint(KEY, lambda: entries[-1].time)
    assert seen == [*((done, 1203) for done in range(100, 1203, 100)), (1203, 1203)]


def test_two_logs_open_at_once_see_each_other(place: Place, entries: list[Entry]) -> None:
    """Each remembers the tree's right edge; what the other added must not be forgotten."""
    with opened(place) as one, opened(place) as other:
        for index, entry in enumerate(entries):
            assert (one if index % 3 else other).append([entry]) == [index]
        assert one.check().root == root_of(leaf_hash(e.to_bytes()) for e in entries)


def test_threads_share_a_log(place: Place, entries: list[Entry]) -> None:
    got: list[list[int]] = []
    with opened(place) as log:

        def write(entry: Entry) -> None:
            got.extend(log.append([entry, entry]) for _ in range(5))

        threads = [threading.Thread(target=write, args=(entry,)) for entry in entries[:4]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(got) == [[index, index + 1] for index in range(0, 40, 2)]
        assert log.check().size == 40


def test_a_decision_on_an_older_log_is_not_appended(place: Place, entries: list[Entry]) -> None:
    with opened(place) as log:
        assert log.append(entries[:3], expected_size=0) == [0, 1, 2]
        for stale in (2, 4):
            with pytest.raises(LogConflictError, match=f"holds 3 entries, not {stale}"):
                log.append(entries[3:5], expected_size=stale)
            with pytest.raises(LogConflictError, match="somebody else wrote"):
                log.append([], expected_size=stale)
        assert log.size == 3
        assert log.append([], expected_size=3) == []
        assert log.append(entries[3:5], expected_size=3) == [3, 4]


def test_an_entry_that_is_too_large_leaves_nothing_behind(place: Place, entries: list[Entry]) -> None:
    body = {"run_id": "r", "round": 1, "reason": "x" * 70_000, "participants": [], "dropped": []}
    with opened(place) as log:
        with pytest.raises(EntryError, match="at most 65535"):
            log.append([entries[0], Entry("round.aborted", entries[0].time, body)])
        assert log.size == 0


def test_text_that_databases_stumble_over(place: Place, entries: list[Entry]) -> None:
    """NUL and others are fine in an entry's bytes; nothing that may hold them goes into a text column."""
    body = {"run_id": "läuf'\"%s:x?", "round": 2**53 - 1, "reason": "a\0b\n", "participants": ["é"], "dropped": []}
    with opened(place) as log:
        log.append([Entry("round.aborted", entries[0].time, body)])
        assert log.entry(0).body["reason"] == "a\0b\n"
        assert log.check().lineage["lineage_participant"] == 1


def test_a_log_keeps_its_name(place: Place) -> None:
    opened(place).close()
    kept = place.directory / "log.checkpoint"
    with pytest.raises(LogError, match="expected the log zegel-log/other, got zegel-log/test"):
        open_log(place.url, origin="zegel-log/other", checkpoint_path=kept)
    with pytest.raises(NoteError, match="key name"):
        open_log(place.url, origin="a b", checkpoint_path=kept)


@pytest.mark.parametrize("table", ["log_entry", "log_node", "log_setting", "lineage_version", "lineage_metric"])
@pytest.mark.parametrize("action", ["UPDATE {table} SET {column} = {column}", "DELETE FROM {table}"])
def test_rows_cannot_be_changed_even_by_their_owner(
    place: Place, entries: list[Entry], table: str, action: str
) -> None:
    with opened(place) as log:
        log.append(entries)
    column = {"log_entry": "kind", "log_node": "hash", "log_setting": "value"}.get(table, "version")
    administrator = place.administrator()
    try:
        with pytest.raises(Exception, match="append-only"), administrator.writing() as connection:
            connection.exec_driver_sql(action.format(table=table, column=column))
    finally:
        administrator.close()


# Checkpoints


def test_checkpoints(place: Place, entries: list[Entry]) -> None:
    now = entries[-1].time
    with opened(place) as log:
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
        assert (place.directory / "log.checkpoint").read_bytes() == second
        assert log.check().signed_size == len(entries)


def test_another_key_does_not_go_on(place: Place, entries: list[Entry]) -> None:
    with opened(place) as log:
        log.append(entries[:5])
        log.sign_checkpoint(KEY, lambda: entries[-1].time)
        with pytest.raises(NoteError, match="expected a signature by"):
            log.sign_checkpoint(Ed25519PrivateKey.from_private_bytes(bytes(32)), lambda: entries[-1].time)


def test_entries_of_the_future_are_not_signed(place: Place, entries: list[Entry]) -> None:
    with opened(place) as log:
        log.append(entries)
        with pytest.raises(LogError, match="ahead of this clock"):
            log.sign_checkpoint(KEY, lambda: entries[0].time - timedelta(minutes=1))
        assert log.last_checkpoint() is None
        log.sign_checkpoint(KEY, lambda: entries[-1].time - timedelta(minutes=4))


def test_a_restored_old_database_is_not_signed(place: Place, entries: list[Entry]) -> None:
    with opened(place) as log:
        log.append(entries[:5])
    old = place.copy()
    with opened(place) as log:
        log.append(entries[5:])
        log.sign_checkpoint(KEY, lambda: entries[-1].time)
    place.restore(old)
    with opened(place) as log:
        for attempt in (
            lambda: log.sign_checkpoint(KEY, lambda: entries[-1].time),
            lambda: log.append(entries[:1]),
            log.check,
        ):
            with pytest.raises(StaleLogError, match=f"holds 5 entries, but a checkpoint over {len(entries)}"):
                attempt()
        assert log.size == 5


def test_another_history_of_the_same_size_is_not_signed(place: Place, entries: list[Entry]) -> None:
    with opened(place) as log:
        log.append(entries[:5])
    old = place.copy()
    with opened(place) as log:
        log.append(entries[5:7])
        log.sign_checkpoint(KEY, lambda: entries[-1].time)
    place.restore(old)
    (place.directory / "log.checkpoint").rename(place.directory / "aside")
    with opened(place) as log:
        log.append(entries[8:11])
        (place.directory / "aside").rename(place.directory / "log.checkpoint")
        with pytest.raises(StaleLogError, match="do not give the root that was signed"):
            log.sign_checkpoint(KEY, lambda: entries[-1].time)
        with pytest.raises(StaleLogError, match="do not give the root that was signed"):
            log.check()


def test_two_copies_of_one_log_cannot_both_be_signed(place: Place, entries: list[Entry]) -> None:
    """Each copy has its own lock; the file is what both must win, and it is swapped only once."""
    with opened(place) as log:
        log.append(entries[:5])
        log.sign_checkpoint(KEY, lambda: entries[-1].time)

    def keep(path: Path, expected: bytes | None, data: bytes) -> None:
        # Between this signer's reading and writing, somebody signs in the other copy.
        swap_durably(path, expected, b"signed in the other copy")
        swap_durably(path, expected, data)

    with opened(place, keep=keep) as log:
        log.append(entries[5:7])
        with pytest.raises(StaleLogError, match="changed by another process"):
            log.sign_checkpoint(KEY, lambda: entries[-1].time)
    assert (place.directory / "log.checkpoint").read_bytes() == b"signed in the other copy"


@pytest.mark.parametrize("expected", [None, b"other"])
def test_a_file_is_swapped_only_for_what_was_read(tmp_path: Path, expected: bytes | None) -> None:
    path = tmp_path / "file"
    swap_durably(path, None, b"first")
    swap_durably(path, b"first", b"second")
    with pytest.raises(LogError, match="changed by another process"):
        swap_durably(path, expected, b"third")
    assert path.read_bytes() == b"second"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_lost_checkpoint_file_stops_signing(place: Place, entries: list[Entry]) -> None:
    with opened(place) as log:
        log.append(entries[:5])
        log.sign_checkpoint(KEY, lambda: entries[-1].time)
        (place.directory / "log.checkpoint").unlink()
        with pytest.raises(StaleLogError, match=r"log.checkpoint is missing"):
            log.sign_checkpoint(KEY, lambda: entries[-1].time)
        with pytest.raises(StaleLogError, match="last signed checkpoint is missing"):
            log.check()


@pytest.mark.parametrize("damage", [b"", b"not a note", b"zegel-log/test\n5\n"])
def test_a_damaged_checkpoint_file_stops_everything(place: Place, entries: list[Entry], damage: bytes) -> None:
    with opened(place) as log:
        log.append(entries[:5])
        log.sign_checkpoint(KEY, lambda: entries[-1].time)
        (place.directory / "log.checkpoint").write_bytes(damage)
        for attempt in (lambda: log.append(entries[:1]), log.check):
            with pytest.raises(StaleLogError, match=r"log\.checkpoint is damaged"):
                attempt()
        with pytest.raises(NoteError):
            log.sign_checkpoint(KEY, lambda: entries[-1].time)


def test_a_crash_after_the_file_was_written_is_harmless(place: Place, entries: list[Entry]) -> None:
    with opened(place) as log:
        log.append(entries[:5])
        signed = log.sign_checkpoint(KEY, lambda: entries[-1].time)
    altered(place, "DELETE FROM log_setting WHERE name = 'signed'")
    with opened(place) as log:
        with pytest.raises(CorruptLogError, match=r"log_setting, row .name 'signed'.: expected 'yes', it is missing"):
            log.check()
        assert log.sign_checkpoint(KEY, lambda: entries[-1].time) == signed
        log.check()
        log.append(entries[5:6])
        assert open_checkpoint(log.sign_checkpoint(KEY, lambda: entries[-1].time), VERIFIER).size == 6


# Processes

WRITER = """
import sys
from pathlib import Path
from audit.entry import Entry
from audit.store import open_log
entry = Entry.from_bytes(bytes.fromhex(sys.argv[3]))
with open_log(sys.argv[1], origin="zegel-log/test", checkpoint_path=Path(sys.argv[2])) as log:
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(15):
        print(*log.append([entry, entry]), flush=True)
"""


def test_two_processes_write_at_once(place: Place, entries: list[Entry]) -> None:
    opened(place).close()
    arguments = [sys.executable, "-c", WRITER, place.url, str(place.directory / "log.checkpoint")]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*arguments, entry.to_bytes().hex()], **pipes) for entry in entries[:2]]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    indices: list[int] = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        for line in output.splitlines():
            first, second = map(int, line.split())
            assert second == first + 1
            indices += [first, second]
    assert sorted(indices) == list(range(60))
    with opened(place) as log:
        found = log.check()
        assert found.size == 60
        assert log.read_hashes(frontier_nodes(60))
        assert {entry for _, entry in _kinds(log)} == {entries[0].kind, entries[1].kind}


def _kinds(log: Any) -> list[tuple[int, str]]:
    return [(index, entry.kind) for index, entry in log.entries()]


def test_an_origin_is_settled_once(place: Place) -> None:
    with opened(place), opened(place) as log:
        assert log.origin == ORIGIN
        assert log.size == 0
