"""Going through stored entries again and comparing everything that follows from them with what is stored.

An entry's bytes must be canonical and follow their kind's schema, the kind beside them be theirs, and the tree
hashes they complete and (on request) the lineage rows they add be exactly those in the database. Signing and
checking the log both stand on this.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Table, select

from audit.database import Database, Hashes, Row
from audit.entry import Entry
from audit.errors import CorruptLogError, EntryError
from audit.lineage_rows import TABLES, rows_of
from audit.merkle import Frontier, Node, frontier_nodes, leaf_hash
from audit.tables import ENTRIES, NODES

_BATCH = 1000  # entries read and compared at a time


class Replay:
    """A walk over the stored entries from `frontier.size` up to before `stop`, which moves `frontier` along.

    `frontier` is the caller's claim about the tree so far. `rows` counts the lineage rows that were compared.
    """

    def __init__(self, connection: Connection, frontier: Frontier, *, stop: int, lineage: bool) -> None:
        self._connection = connection
        self._frontier = frontier
        self._stop = stop
        self._lineage = lineage
        self.rows: Counter[str] = Counter()

    @classmethod
    def of_range(cls, database: Database, connection: Connection, start: int, stop: int) -> Replay:
        """From the tree over the first `start` entries as it is stored, which other ranges must have checked."""
        hashes = Hashes(database, connection).read_hashes(frontier_nodes(start))
        return cls(connection, Frontier(start, hashes), stop=stop, lineage=True)

    def entries(self) -> Iterator[tuple[int, Entry]]:
        """Index and entry; raises CorruptLogError at the first row that is not what it must be."""
        while self._frontier.size < self._stop:
            start = self._frontier.size
            batch = self._batch(start)
            if not batch:
                raise CorruptLogError(f"entry {start} is missing; {self._stop} entries were expected")
            end = start + len(batch)
            nodes = self._stored_nodes(start, end)
            derived: dict[str, list[Row]] = {name: [] for name in TABLES}
            for index, kind, data in batch:
                entry = self._entry(index, kind, data, nodes)
                if self._lineage:
                    for name, added in rows_of(index, entry).items():
                        derived[name] += added
                yield index, entry
            if self._lineage:
                for name, expected in derived.items():
                    compare_rows(TABLES[name], expected, self._stored_rows(TABLES[name], start, end))
                    self.rows[name] += len(expected)

    def _entry(self, index: int, kind: object, data: object, nodes: dict[Node, Any]) -> Entry:
        expected = self._frontier.size
        if index > expected:
            raise CorruptLogError(f"entry {expected} is missing; the next one stored is {index}")
        if index < expected:
            raise CorruptLogError(f"entry {index} is stored twice")
        # SQLite keeps whatever type was written into a column.
        if not isinstance(data, bytes):
            raise CorruptLogError(f"entry {index}: expected bytes, stored is {type(data).__name__}")
        try:
            entry = Entry.from_bytes(data)
        except EntryError as error:
            raise CorruptLogError(f"entry {index}: {error}") from error
        if kind != entry.kind:
            raise CorruptLogError(f"entry {index}: stored as {kind}, but its bytes say {entry.kind}")
        for (level, position), value in self._frontier.append(leaf_hash(data)):
            found = nodes.get((level, position))
            if found != value:
                what = f"entry {index}" if level == 0 else f"tree node (level {level}, index {position})"
                raise CorruptLogError(f"{what}: expected hash {value.hex()}, {_stored(found)}")
        return entry

    def _batch(self, start: int) -> Sequence[Any]:
        query = select(ENTRIES.c.index, ENTRIES.c.kind, ENTRIES.c.data)
        query = query.where(ENTRIES.c.index >= start, ENTRIES.c.index < self._stop)
        return self._connection.execute(query.order_by(ENTRIES.c.index).limit(_BATCH)).all()

    def _stored_nodes(self, start: int, end: int) -> dict[Node, Any]:
        """The hashes stored where the leaves from `start` up to before `end` complete a subtree."""
        found: dict[Node, Any] = {}
        level = 0
        while start >> level < end >> level:
            query = select(NODES.c.index, NODES.c.hash).where(
                NODES.c.level == level, NODES.c.index >= start >> level, NODES.c.index < end >> level
            )
            for index, value in self._connection.execute(query):
                found[level, index] = value
            level += 1
        return found

    def _stored_rows(self, table: Table, start: int, end: int) -> list[Row]:
        query = table.select().where(table.c.entry >= start, table.c.entry < end).order_by(*table.primary_key)
        return [tuple(row) for row in self._connection.execute(query)]


def compare_rows(table: Table, expected: Sequence[Row], stored: Sequence[Row]) -> None:
    """Raises CorruptLogError naming the first row of `table` that is missing, changed, or follows from nothing."""
    names = [column.name for column in table.columns]
    key_length = len(table.primary_key)  # the key's columns come first
    wanted = {row[:key_length]: row for row in expected}
    wrong: list[tuple[Row, str]] = []
    seen: set[Row] = set()
    for row in stored:
        key = row[:key_length]
        if key in seen:
            wrong.append((key, "is stored twice"))
        elif key not in wanted:
            wrong.append((key, "follows from no entry"))
        elif wanted[key] != row:
            differing = [
                f"{name}: expected {want!r}, stored is {got!r}"
                for name, want, got in zip(names, wanted[key], row, strict=True)
                if want != got
            ]
            wrong.append((key, "; ".join(differing)))
        seen.add(key)
    wrong += [(key, "is missing") for key in wanted if key not in seen]
    if wrong:
        key, what = min(wrong, key=lambda found: str(found[0][0]).zfill(20))
        where = ", ".join(f"{name} {value!r}" for name, value in zip(names, key, strict=False))
        raise CorruptLogError(f"table {table.name}, row ({where}): {what}")


def _stored(found: object) -> str:
    if found is None:
        return "none is stored"
    return f"stored is {found.hex() if isinstance(found, bytes) else repr(found)}"
