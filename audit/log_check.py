"""The whole log, derived again from its entries and compared with what is stored: fsck for the log.

Checked, in this order: the schema and its revision; each entry's form, its leaf, the tree hashes it completes and
the lineage rows it adds (`audit.replay`); that no table holds a row beyond those; that the entries give the root
that was signed; the settings, and that a signed log still has its checkpoint file; that the database still keeps
rows from being changed.

Large logs are checked by several processes, each taking stretches of entries. A stretch starts from the stored
hashes left of it, which the stretches before it check: the first row that is wrong is named whichever process
finds one first.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, func, inspect, or_, select
from sqlalchemy.exc import SQLAlchemyError

from audit.checkpoint import Checkpoint
from audit.database import Database, Hashes, open_database
from audit.errors import CorruptLogError, LogError, StaleLogError
from audit.lineage_rows import RULES, TABLES
from audit.merkle import tree_root
from audit.migrations import HEAD, revision
from audit.replay import Replay
from audit.tables import ENTRIES, LINEAGE_RULES, NODES, ORIGIN, SETTINGS, SIGNED, LogTable

STRETCH = 20_000  # entries
_WORTH_SHARING = 100_000  # entries from which the start of further processes pays
_MOST_PROCESSES = 4
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class LogCheck:
    """What a log without fault amounts to."""

    origin: str
    size: int  # entries
    root: bytes
    signed_size: int  # entries under the last signed checkpoint; 0 when nothing was signed
    nodes: int  # stored tree hashes
    lineage: Mapping[str, int]  # rows by table
    revision: str  # of the schema

    @property
    def checkpoint(self) -> Checkpoint:
        """The tree over all entries, as a checkpoint of it would say."""
        return Checkpoint(self.origin, self.size, self.root)


def check_log(
    database: Database,
    origin: str,
    signed: Checkpoint | None,
    progress: Progress | None = None,
    *,
    processes: int | None = None,
    stretch: int = STRETCH,
) -> LogCheck:
    """Checks all of it. `signed` is what the checkpoint file says, None when there is none. `stretch`: how many
    entries one of several processes takes at a time.

    Raises CorruptLogError naming the first row that is wrong, StaleLogError when the log does not continue
    `signed` or a log that has been signed has lost its checkpoint file.
    """
    with database.snapshot() as connection:
        _check_schema(connection)
        size = database.tip(connection, -1)[0]
        if signed is not None and signed.size > size:
            raise StaleLogError(older_than_signed(size, signed.size))
        lineage: Counter[str] = Counter(dict.fromkeys(TABLES, 0))
        done = 0
        for stop, rows in _replayed(database, connection, size, processes, stretch):
            lineage.update(rows)
            # By hundreds from one process, by whole stretches from several.
            if progress is not None and stop > done:
                progress(stop, size)
            done = stop
        nodes = 2 * size - size.bit_count()  # all complete subtrees over `size` leaves
        _refuse_further_rows(connection, size, nodes, lineage)
        hashes = Hashes(database, connection)
        if signed is not None and tree_root(signed.size, hashes) != signed.root:
            raise StaleLogError(differs_from_signed(signed))
        _check_settings(connection, origin, signed=signed is not None)
        differences = database.guard_differences(connection)
        if differences:
            raise CorruptLogError(f"schema: {differences[0]}")
        root = tree_root(size, hashes)
    return LogCheck(origin, size, root, 0 if signed is None else signed.size, nodes, dict(lineage), HEAD)


def older_than_signed(size: int, signed_size: int) -> str:
    """The message about a database that ends before the last signed checkpoint."""
    return (
        f"the database holds {size} entries, but a checkpoint over {signed_size} has been signed: "
        "this is an old copy; restore the newest one, never sign on top of this"
    )


def differs_from_signed(signed: Checkpoint) -> str:
    """The message about entries that give another root than the signed one."""
    return (
        f"the first {signed.size} entries do not give the root that was signed for them: the database was "
        "changed or belongs to another history; restore the right one"
    )


def schema_differences(connection: Connection) -> list[str]:
    """In words, where the tables in the database are not those of the models."""
    found = inspect(connection)
    names = [table.name for table in LogTable.metadata.sorted_tables]
    columns_of = found.get_multi_columns(filter_names=names)
    keys_of = found.get_multi_pk_constraint(filter_names=names)
    indexes_of = found.get_multi_indexes(filter_names=names)
    differences: list[str] = []
    for table in LogTable.metadata.sorted_tables:
        at = (None, table.name)
        if at not in columns_of:
            differences.append(f"table {table.name} is missing")
            continue
        columns = {column["name"]: not column["nullable"] for column in columns_of[at]}
        expected = {column.name: not column.nullable for column in table.columns}
        for name in sorted(columns.keys() ^ expected.keys()):
            differences.append(f"table {table.name}: column {name} is {'not ours' if name in columns else 'missing'}")
        for name in sorted(columns.keys() & expected.keys()):
            if columns[name] != expected[name]:
                differences.append(f"table {table.name}: column {name} may {'not ' if columns[name] else ''}be NULL")
        key = keys_of[at]["constrained_columns"]
        if key != [column.name for column in table.primary_key]:
            differences.append(f"table {table.name}: the primary key is {', '.join(key) or 'missing'}")
        indexes = {str(index["name"]): index["column_names"] for index in indexes_of[at]}
        for index in sorted(table.indexes, key=lambda each: str(each.name)):
            if indexes.pop(str(index.name), None) != [column.name for column in index.columns]:
                differences.append(f"table {table.name}: index {index.name} is missing or of other columns")
        differences += [f"table {table.name}: index {name} is not ours" for name in sorted(indexes)]
    return differences


def _check_schema(connection: Connection) -> None:
    found = revision(connection)
    if found != HEAD:
        raise CorruptLogError(f"table alembic_version: expected revision {HEAD}, stored is {found}")
    differences = schema_differences(connection)
    if differences:
        raise CorruptLogError(f"schema: {differences[0]}")


def _check_settings(connection: Connection, origin: str, *, signed: bool) -> None:
    values: dict[Any, Any] = {}
    for name, value in connection.execute(SETTINGS.select().order_by(SETTINGS.c.name)):
        if name in values:
            raise CorruptLogError(f"table log_setting, row (name {name!r}): is stored twice")
        values[name] = value
    if not signed and SIGNED in values:
        raise StaleLogError(
            "this log has been signed before, but the file with its last signed checkpoint is missing; restore it, "
            "or ask a holder of a checkpoint"
        )
    expected = {ORIGIN: origin, LINEAGE_RULES: RULES}
    if signed:
        expected[SIGNED] = "yes"
    for name in sorted(values.keys() | expected.keys(), key=str):
        if values.get(name) != expected.get(name):
            got = f"stored is {values[name]!r}" if name in values else "it is missing"
            raise CorruptLogError(
                f"table log_setting, row (name {name!r}): expected {expected.get(name, 'no such row')!r}, {got}"
            )


def _replayed(
    database: Database, connection: Connection, size: int, processes: int | None, stretch: int
) -> Iterator[tuple[int, Counter[str]]]:
    """The end of each stretch that was found sound, in order, and its lineage rows by table."""
    if processes is None:
        processes = 1 if size < _WORTH_SHARING else min(os.cpu_count() or 1, _MOST_PROCESSES)
    if processes == 1:
        replay = Replay.of_range(database, connection, 0, size)
        for index, _ in replay.entries():
            if (index + 1) % 100 == 0 or index + 1 == size:
                yield index + 1, Counter()
        yield size, replay.rows
        return
    starts = range(0, size, stretch)
    stops = [min(start + stretch, size) for start in starts]
    url = database.url.render_as_string(hide_password=False)
    # Started afresh: a forked copy would share this process's database connections and threads' locks.
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _begin_process)
    try:
        yield from zip(stops, pool.map(_check_stretch, [url] * len(stops), starts, stops), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_process() -> None:
    # Ctrl-C reaches the whole group: the first process ends the others in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _check_stretch(url: str, start: int, stop: int) -> Counter[str]:
    database = open_database(url)
    try:
        with database.snapshot() as connection:
            replay = Replay.of_range(database, connection, start, stop)
            for _ in replay.entries():
                pass
            return replay.rows
    except SQLAlchemyError as error:
        # Their exceptions do not survive the way between processes.
        raise LogError(f"log could not be checked: {error}") from None
    finally:
        database.close()


def _refuse_further_rows(connection: Connection, size: int, nodes: int, lineage: Mapping[str, int]) -> None:
    """All rows that must be there were found: whatever else a table holds is not ours."""
    beyond = or_(
        NODES.c.level < 0, NODES.c.level > 62, NODES.c.index < 0, (NODES.c.index + 1).op("<<")(NODES.c.level) > size
    )
    _refuse_further(connection, ENTRIES, size, ENTRIES.c.index < 0)
    _refuse_further(connection, NODES, nodes, beyond)
    for name, count in lineage.items():
        table = TABLES[name]
        _refuse_further(connection, table, count, or_(table.c.entry < 0, table.c.entry >= size))


def _refuse_further(connection: Connection, table: Table, expected: int, beyond: Any) -> None:
    stored = connection.execute(select(func.count()).select_from(table)).scalar_one()
    if stored == expected:
        return
    key = list(table.primary_key)
    found = connection.execute(select(*key).where(beyond).order_by(*key).limit(1)).one_or_none()
    why = "follows from no entry"
    if found is None:
        repeated = select(*key).group_by(*key).having(func.count() > 1).order_by(*key).limit(1)
        found, why = connection.execute(repeated).one_or_none(), "is stored twice"
    where = "" if found is None else ", row (" + ", ".join(f"{c.name} {v!r}" for c, v in zip(key, found, strict=True))
    raise CorruptLogError(
        f"table {table.name}{where + '): ' + why if where else ''}: expected {expected} rows, stored are {stored}"
    )
