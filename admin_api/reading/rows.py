"""Rows of the read model within one writing transaction: looked up when first needed, written back together.

A row is a dict with a value for every column of its table. The statements go to the driver as they are: SQLAlchemy's
own would take longer than everything else that projecting an entry takes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from admin_api.reading.tables import ReadingTable, table

Row = dict[str, Any]
Key = tuple[Any, ...]


class Rows:
    """What one transaction reads and writes. Nothing is written before `write`."""

    def __init__(self, connection: Connection) -> None:
        self._driver: Any = connection.connection.driver_connection
        self._errors: type[Exception] = connection.dialect.loaded_dbapi.Error
        self._sqlite = connection.dialect.name == "sqlite"
        self._mark = "?" if self._sqlite else "%s"
        self._kept: defaultdict[type[ReadingTable], dict[Key, Row | None]] = defaultdict(dict)
        self._changed: defaultdict[type[ReadingTable], dict[Key, Row]] = defaultdict(dict)
        self._added: defaultdict[type[ReadingTable], list[Key]] = defaultdict(list)

    def look(self, kind: type[ReadingTable], *key: Any) -> Row | None:
        """The row with this primary key, not to be changed; None when there is none."""
        kept = self._kept[kind]
        if key not in kept:
            kept[key] = self._read(kind, key)
        return kept[key]

    def change(self, kind: type[ReadingTable], *key: Any) -> Row | None:
        """The row with this primary key, whose changes will be written; None when there is none."""
        row = self.look(kind, *key)
        if row is not None:
            self._changed[kind][key] = row
        return row

    def put(self, kind: type[ReadingTable], /, **values: Any) -> Row:
        """A row that is new, or takes the place of the one with its key. Columns not given are null."""
        columns = table(kind).columns
        row = {column.name: values.pop(column.name, None) for column in columns}
        if values:
            raise TypeError(f"{kind.__name__} has no column {', '.join(values)}")
        key = tuple(row[column.name] for column in table(kind).primary_key.columns)
        self._kept[kind][key] = self._changed[kind][key] = row
        return row

    def add(self, kind: type[ReadingTable], *values: Any) -> None:
        """A new row that nobody will look up again in this transaction, in the order of the columns."""
        self._added[kind].append(values)

    def all(self, kind: type[ReadingTable], /, **where: Any) -> list[Row]:
        """The rows with these values, as this transaction has them, in the order of their keys; to alter one, `change`
        it by its key.
        """
        names = [column.name for column in table(kind).primary_key.columns]
        found = {tuple(row[name] for name in names): row for row in self._select(kind, where)}
        for key, row in self._kept[kind].items():
            if row is not None and all(row[name] == value for name, value in where.items()):
                found[key] = row
            else:
                found.pop(key, None)
        return [found[key] for key in sorted(found)]

    def write(self) -> None:
        """Writes what was changed, put and added; at the end, once."""
        for kind, changed in self._changed.items():
            self._upsert(kind, [tuple(row.values()) for row in changed.values()])
        for kind, added in self._added.items():
            self._insert(kind, added)

    def _select(self, kind: type[ReadingTable], where: Row) -> list[Row]:
        names = [column.name for column in table(kind).columns]
        listed = ", ".join(f'"{name}"' for name in names)
        query = f"SELECT {listed} FROM {table(kind).name}"  # noqa: S608 - our own names
        if where:
            query += " WHERE " + " AND ".join(f'"{name}" = {self._mark}' for name in where)
        with self._translated(query):
            found = self._driver.execute(query, tuple(where.values())).fetchall()
        return [dict(zip(names, values, strict=True)) for values in found]

    def _read(self, kind: type[ReadingTable], key: Key) -> Row | None:
        keys = [column.name for column in table(kind).primary_key.columns]
        found = self._select(kind, dict(zip(keys, key, strict=True)))
        return found[0] if found else None

    def _upsert(self, kind: type[ReadingTable], rows: Sequence[Key]) -> None:
        keys = [column.name for column in table(kind).primary_key.columns]
        names = [column.name for column in table(kind).columns]
        settings = ", ".join(f'"{name}" = excluded."{name}"' for name in names if name not in keys)
        listed = ", ".join(f'"{name}"' for name in keys)
        conflict = f"ON CONFLICT ({listed}) DO " + (f"UPDATE SET {settings}" if settings else "NOTHING")
        self._many(f"{self._inserting(kind)} {conflict}", rows)

    def _insert(self, kind: type[ReadingTable], rows: Sequence[Key]) -> None:
        if self._sqlite or len(rows) < 100:
            self._many(self._inserting(kind), rows)
            return
        listed = ", ".join(f'"{column.name}"' for column in table(kind).columns)
        statement = f"COPY {table(kind).name} ({listed}) FROM STDIN"
        with self._translated(statement), self._driver.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)

    def _inserting(self, kind: type[ReadingTable]) -> str:
        columns = table(kind).columns
        listed = ", ".join(f'"{column.name}"' for column in columns)
        marks = ", ".join(self._mark for _ in columns)
        return f"INSERT INTO {table(kind).name} ({listed}) VALUES ({marks})"  # noqa: S608 - our own names

    def _many(self, statement: str, rows: Sequence[Key]) -> None:
        if rows:
            with self._translated(statement):
                self._driver.cursor().executemany(statement, rows)

    @contextmanager
    def _translated(self, statement: str) -> Iterator[None]:
        """The driver's errors as SQLAlchemy would raise them."""
        try:
            yield
        except self._errors as error:
            raise DBAPIError.instance(statement, None, error, self._errors) from error
