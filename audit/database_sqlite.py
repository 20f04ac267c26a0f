"""The log in SQLite: one file, no server.

Write-ahead logging lets readers go on beside the one writer; `synchronous=FULL` syncs each commit; a writing
transaction begins with BEGIN IMMEDIATE, so two writers queue instead of failing half way. Triggers refuse
UPDATE and DELETE, and `recursive_triggers` makes them see the delete inside INSERT OR REPLACE.

The tables are made, and brought up to date, when the log is opened: whoever can write the file owns it.

Source: SQLite documentation, "Write-Ahead Logging", "PRAGMA recursive_triggers", "BEGIN TRANSACTION".
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Table, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from audit.database import BUSY_TIMEOUT_S, Row
from audit.errors import LogError
from audit.merkle import Node
from audit.migrations import is_current, upgrade
from audit.tables import LogTable

_BEGIN = "zegel_begin"  # execution option: the statement that begins a transaction
_CACHE_KIB = 32 * 1024
_WAL_PAGES = 8000  # 32 MB
_TIP = 'SELECT (SELECT max("index") FROM log_entry), (SELECT hash FROM log_node WHERE level = 0 AND "index" = ?)'
# One statement for any number of nodes; CROSS JOIN keeps the wanted ones outermost, so each is one search.
_STORED = """
SELECT n.level, n."index", n.hash
FROM json_each(?) AS wanted CROSS JOIN log_node AS n
ON n.level = json_extract(wanted.value, '$[0]') AND n."index" = json_extract(wanted.value, '$[1]')
"""


class SQLite:
    """A log's database file (an `audit.database.Database`)."""

    def __init__(self, url: URL) -> None:
        """Opens nothing yet. Raises LogError for a database that would not outlive the process."""
        if not url.database or url.database == ":memory:":
            raise LogError("log database: expected a file, got an in-memory database that would not survive")
        self.url = url
        self._engine = create_engine(url, connect_args={"timeout": float(BUSY_TIMEOUT_S)})
        event.listen(self._engine, "connect", _configure)
        event.listen(self._engine, "begin", _begin)
        self._reader = self._engine.execution_options(**{_BEGIN: "BEGIN"})
        self._writer = self._engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})
        self._inserts: dict[str, str] = {}

    @property
    def shown(self) -> str:
        return str(self.url.database)

    @property
    def checkpoint_path(self) -> Path:
        return Path(self.shown).with_suffix(".checkpoint")

    def prepare(self) -> None:
        with self.snapshot() as connection:
            if is_current(connection):
                return
        with self.writing() as connection:
            # Another process may have been first.
            if not is_current(connection):
                upgrade(self, connection)

    def reading(self) -> AbstractContextManager[Connection]:
        return self._engine.connect()

    def snapshot(self) -> AbstractContextManager[Connection]:
        return self._reader.begin()

    def writing(self) -> AbstractContextManager[Connection]:
        return self._writer.begin()

    def tip(self, connection: Connection, leaf: int) -> tuple[int, bytes | None]:
        last, value = _run(connection, _TIP, (leaf,)).fetchone()
        return (0 if last is None else last + 1), value

    def stored(self, connection: Connection, nodes: Sequence[Node]) -> dict[Node, bytes]:
        rows = _run(connection, _STORED, (json.dumps(nodes),))
        return {(level, index): value for level, index, value in rows}

    def insert(self, connection: Connection, rows: Mapping[Table, Sequence[Row]]) -> None:
        for table, added in rows.items():
            statement = self._inserts.get(table.name)
            if statement is None:
                names = ", ".join(f'"{column.name}"' for column in table.columns)
                marks = ", ".join("?" for _ in table.columns)
                statement = f"INSERT INTO {table.name} ({names}) VALUES ({marks})"  # noqa: S608 - our own names
                self._inserts[table.name] = statement
            with _translated(statement):
                _driver(connection).executemany(statement, added)

    def guard_rows(self, connection: Connection) -> None:
        for statement in _guards().values():
            connection.exec_driver_sql(statement)

    def unguard_rows(self, connection: Connection) -> None:
        for name in _guards():
            connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name}")

    def guard_differences(self, connection: Connection) -> list[str]:
        expected = _guards()
        names = set(LogTable.metadata.tables)
        found = {
            name: sql
            for name, table, sql in connection.exec_driver_sql(
                "SELECT name, tbl_name, sql FROM sqlite_master WHERE type = 'trigger'"
            )
            if table in names
        }
        missing = [f"trigger {name} is missing" for name in expected if name not in found]
        changed = [f"trigger {name} is not ours: {sql}" for name, sql in found.items() if expected.get(name) != sql]
        return missing + changed

    def close(self) -> None:
        self._engine.dispose()


def _guards() -> dict[str, str]:
    """The triggers by name, in the words SQLite keeps them in."""
    return {
        f"{table}_no_{action.lower()}": f"CREATE TRIGGER {table}_no_{action.lower()} BEFORE {action} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, 'table {table} is append-only: {action} refused'); END"
        for table in LogTable.metadata.tables
        for action in ("UPDATE", "DELETE")
    }


def _configure(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver must not begin transactions behind our back; see _begin
    # The last two, of memory and of the write-ahead log before it is folded back, are for batches.
    sizes = (f"cache_size=-{_CACHE_KIB}", f"wal_autocheckpoint={_WAL_PAGES}")
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "recursive_triggers=ON", *sizes):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    statement = connection.get_execution_options().get(_BEGIN)
    if statement is None:
        return
    try:
        _run(connection, statement)
    except SQLAlchemyError as error:
        if "locked" in str(error):
            raise LogError(
                f"log database: another process has been writing for more than {BUSY_TIMEOUT_S} s; try again"
            ) from error
        raise


def _run(connection: Connection, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
    """A statement by the driver itself: SQLAlchemy would double the time of what the log does most."""
    with _translated(statement):
        return _driver(connection).execute(statement, values)


def _driver(connection: Connection) -> sqlite3.Connection:
    found: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]
    return found


@contextmanager
def _translated(statement: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise DBAPIError(statement, None, error) from error
