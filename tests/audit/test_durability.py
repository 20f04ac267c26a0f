"""What a log holds after crashes, kills and failing disks: everything it acknowledged, and nothing half."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Table
from sqlalchemy.exc import OperationalError

from audit.checkpoint import open_checkpoint
from audit.database import Database, Row, open_database
from audit.durable_file import swap_durably
from audit.entry import Entry
from audit.errors import LogError
from audit.store import Log, open_log
from tests.audit.log_places import KEY, ORIGIN, VERIFIER, Place, PostgreSQLPlace, SQLitePlace, kept, opened
from tests.audit.postgresql import Server


class Failing:
    """A database that fails at one step of a writing transaction (an `audit.database.Database`).

    The steps are begin, tip, insert, commit and end: the first four fail before they are carried out, `end`
    after the commit is durable, as when the connection breaks before the answer arrives.
    """

    def __init__(self, database: Database, fail: Callable[[], None]) -> None:
        self._database = database
        self._fail = fail
        self.step: str | None = None

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        self._reach("begin")
        with self._database.writing() as connection:
            yield connection
            self._reach("commit")
        self._reach("end")

    def tip(self, connection: Connection, leaf: int) -> tuple[int, bytes | None]:
        self._reach("tip")
        return self._database.tip(connection, leaf)

    def insert(self, connection: Connection, rows: Mapping[Table, Sequence[Row]]) -> None:
        self._reach("insert")
        self._database.insert(connection, rows)

    def _reach(self, step: str) -> None:
        if step == self.step:
            self.step = None
            self._fail()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)


def no_space() -> None:
    raise OperationalError("INSERT", None, OSError(errno.ENOSPC, "No space left on device"))


@pytest.mark.parametrize("step", ["begin", "tip", "insert", "commit", "end"])
def test_an_append_that_fails(place: Place, entries: list[Entry], step: str) -> None:
    database: Any = Failing(open_database(place.url), no_space)
    with Log(database, origin=ORIGIN, checkpoint_path=place.directory / "log.checkpoint") as log:
        log.append(entries[:3])
        database.step = step
        with pytest.raises(LogError, match=r"could not be written.*No space left"):
            log.append(entries[3:6])
        # All or none, and what the log remembers of the tree is not spoilt either way.
        size = 6 if step == "end" else 3
        assert log.size == size
        assert log.append(entries[6:8]) == [size, size + 1]
        assert log.check().size == size + 2
    with opened(place) as log:
        assert [entry for _, entry in log.entries()] == entries[:size] + entries[6:8]


@pytest.mark.parametrize("step", ["tip", "insert", "commit"])
def test_a_connection_that_breaks(place: Place, entries: list[Entry], step: str) -> None:
    """PostgreSQL's server ends the connection in the middle of an append; the next one gets a new one."""
    if not isinstance(place, PostgreSQLPlace):
        return

    def cut() -> None:
        place.server.run(
            "postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'zegel_writer'"
        )

    database: Any = Failing(open_database(place.url), cut)
    with Log(database, origin=ORIGIN, checkpoint_path=place.directory / "log.checkpoint") as log:
        log.append(entries[:3])
        database.step = step
        with pytest.raises(LogError, match=r"could not be written.*terminat"):
            log.append(entries[3:6])
        assert log.size == 3
        assert log.append(entries[3:6]) == [3, 4, 5]
        assert log.check().size == 6


@pytest.mark.parametrize("after", [False, True], ids=["before it was kept", "after it was kept"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_checkpoint_that_cannot_be_kept_is_not_given_out(
    place: Place, entries: list[Entry], number: int, after: bool
) -> None:
    failing = True

    def keep(path: Path, expected: bytes | None, data: bytes) -> None:
        if after or not failing:
            swap_durably(path, expected, data)
        if failing:
            raise OSError(number, os.strerror(number))

    with opened(place, keep=keep) as log:
        log.append(entries[:5])
        for _ in range(2):  # kept or not, trying again is the same
            if after and log.last_checkpoint() is not None:
                break
            with pytest.raises(OSError, match=os.strerror(number)):
                log.sign_checkpoint(KEY, lambda: entries[-1].time)
        failing = False
        log.append(entries[5:6])
        assert open_checkpoint(log.sign_checkpoint(KEY, lambda: entries[-1].time), VERIFIER).size == 6
        assert log.check().signed_size == 6
    assert sorted(path.name for path in place.directory.iterdir() if path.name.startswith(".")) == []


def test_a_checkpoint_folder_that_is_gone(place: Place, entries: list[Entry]) -> None:
    missing = place.directory / "missing" / "log.checkpoint"
    with open_log(place.url, origin=ORIGIN, checkpoint_path=missing) as log:
        log.append(entries[:5])
        with pytest.raises(FileNotFoundError):
            log.sign_checkpoint(KEY, lambda: entries[-1].time)
        missing.parent.mkdir()
        assert open_checkpoint(log.sign_checkpoint(KEY, lambda: entries[-1].time), VERIFIER).size == 5


# Appends for ever, from one child process after the other; each line on standard input starts one. A child
# writes what was acknowledged in one system call, so a line is there whole or not at all.
NURSERY = """
import os, sys
from datetime import datetime, UTC
from pathlib import Path
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from audit.entry import Entry
from audit.store import open_log
url, checkpoint, limit, *encoded = sys.argv[1:]
entries = [Entry.from_bytes(bytes.fromhex(data)) for data in encoded]
key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))

def work():
    if int(limit):
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    with open_log(url, origin="zegel-log/test", checkpoint_path=Path(checkpoint)) as log:
        while True:
            for count in range(1, len(entries) + 1):
                indices = log.append(entries[:count])
                os.write(1, f"kept {indices[0]} {count}\\n".encode())
            log.sign_checkpoint(key, lambda: datetime.now(UTC))
            os.write(1, b"signed\\n")

for _ in sys.stdin:
    child = os.fork()
    if child == 0:
        try:
            work()
        except Exception as error:
            os.write(1, f"failed {type(error).__name__} {error}".replace("\\n", " ").encode() + b"\\n")
        finally:
            os._exit(0)
    os.write(1, f"child {child}\\n".encode())
    os.waitpid(child, 0)
    os.write(1, b"gone\\n")
"""


class Nursery:
    """A process whose children append until they are killed."""

    def __init__(self, place: Place, entries: Sequence[Entry], *, limit: int = 0) -> None:
        encoded = [entry.to_bytes().hex() for entry in entries]
        arguments = [place.url, str(place.directory / "log.checkpoint"), str(limit), *encoded]
        self._process = subprocess.Popen(
            [sys.executable, "-c", NURSERY, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.kept: list[tuple[int, int]] = []  # first index and number of entries of each append acknowledged
        self.failures: list[str] = []

    def child(self) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        while not (line := self._line()).startswith("child"):
            assert line
        return int(line.split()[1])

    def until(self, lines: int) -> None:
        """Waits for some lines of the child's; fewer when it ends before."""
        for _ in range(lines):
            if self._line() == "gone":
                return

    def gone(self) -> None:
        while self._line() != "gone":
            pass

    def close(self) -> None:
        self._process.communicate(timeout=60)
        assert self._process.returncode == 0

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().rstrip("\n")
        assert line, "the nursery ended"
        word, *rest = line.split(" ")
        if word == "kept":
            self.kept.append((int(rest[0]), int(rest[1])))
        elif word == "failed":
            self.failures.append(line)
        return line


def acknowledged_is_there(log: Log, nursery: Nursery, entries: Sequence[Entry]) -> None:
    stored = log.read_entries(0, log.size)
    encoded = [entry.to_bytes() for entry in entries]
    for first, count in nursery.kept:
        assert stored[first : first + count] == encoded[:count]


@pytest.mark.parametrize(("kind", "kills"), [("sqlite", 50), ("postgresql", 10)])
def test_what_was_acknowledged_survives_kills(
    request: pytest.FixtureRequest, tmp_path: Path, entries: list[Entry], kind: str, kills: int
) -> None:
    with kept(kind, tmp_path, request) as place:
        opened(place).close()
        used = [entry for entry in entries if entry.kind in ("round.completed", "version.created", "run.started")][:4]
        moments = random.Random(7)  # noqa: S311 - moments, not secrets
        nursery = Nursery(place, used)
        for _ in range(kills):
            child = nursery.child()
            nursery.until(moments.randrange(4))
            time.sleep(moments.random() * 0.003)  # anywhere within the next append or signature
            os.kill(child, signal.SIGKILL)
            nursery.gone()
        nursery.close()
        assert nursery.failures == []
        with opened(place) as log:
            assert log.check().size >= sum(count for _, count in nursery.kept)
            acknowledged_is_there(log, nursery, used)
            log.append(used)
            assert open_checkpoint(log.sign_checkpoint(KEY, lambda: used[-1].time), VERIFIER).size == log.size


def test_a_disk_that_is_full(tmp_path: Path, entries: list[Entry]) -> None:
    """SQLite's own writes fail with the system's error, at whatever byte the limit falls."""
    place = SQLitePlace(tmp_path)
    opened(place).close()
    used = [entry for entry in entries if entry.kind == "round.completed"][:2]
    limits = random.Random(3)  # noqa: S311
    for _ in range(4):
        written = max(path.stat().st_size for path in tmp_path.iterdir())
        nursery = Nursery(place, used, limit=written + limits.randrange(30_000, 120_000))
        nursery.child()
        nursery.gone()
        nursery.close()
        (failure,) = nursery.failures
        assert failure.startswith("failed LogError log could not be")
        assert nursery.kept
        with opened(place) as log:
            log.check()
            acknowledged_is_there(log, nursery, used)
            log.append(used)


def test_a_server_that_crashes(postgresql: Server, empty_database: str, tmp_path: Path, entries: list[Entry]) -> None:
    place = PostgreSQLPlace(tmp_path, postgresql, postgresql.new_database(like=empty_database))
    nursery = Nursery(place, entries[:3])
    nursery.child()
    nursery.until(8)
    postgresql.stop(crash=True)
    try:
        nursery.gone()
        with pytest.raises(LogError, match="cannot be used"):
            opened(place)
    finally:
        postgresql.start()
    nursery.close()
    (failure,) = nursery.failures
    assert "LogError" in failure
    with opened(place) as log:
        log.check()
        acknowledged_is_there(log, nursery, entries[:3])
        log.append(entries[:3])
    postgresql.drop(place.database)
