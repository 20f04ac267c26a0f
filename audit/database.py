"""What the log asks of its database, and how SQLite gives it. Another database gets a module like this one.

What is asked:
- a writer has the log to itself from its first read until it commits, also against other processes;
- a commit is on disk when it returns;
- rows of the log can be added, never changed, replaced or removed.

SQLite: write-ahead logging lets readers go on beside the one writer; `synchronous=FULL` syncs each commit;
a writing transaction begins with BEGIN IMMEDIATE, so two writers queue instead of failing half way.
Triggers refuse UPDATE and DELETE, and `recursive_triggers` makes them see the delete inside INSERT OR
REPLACE. Whoever may write the file can drop a trigger: they stop accidents, the signed checkpoints stop
people.

Source: SQLite documentation, "Write-Ahead Logging", "PRAGMA recursive_triggers", "BEGIN TRANSACTION".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, MetaData, create_engine, event
from sqlalchemy.engine import make_url

from audit.errors import LogError

BUSY_TIMEOUT_S = 30.0  # how long a writer waits for another one
_WRITING = "zegel_writing"  # execution option that marks a writing transaction


def log_engine(url: str) -> Engine:
    """An engine for the log's database; raises LogError for a database we have no such module for."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        raise LogError(f"log database: expected sqlite:///<path>, got {parsed.render_as_string(hide_password=True)}")
    if not parsed.database or parsed.database == ":memory:":
        raise LogError("log database: expected a file, got an in-memory database that would not survive")
    engine = create_engine(parsed, connect_args={"timeout": BUSY_TIMEOUT_S})
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    return engine


def database_path(engine: Engine) -> Path:
    """The database's file."""
    return Path(str(engine.url.database))


def writing(engine: Engine) -> Engine:
    """The engine for transactions that write: each waits until it has the log to itself."""
    return engine.execution_options(**{_WRITING: True})


def create_tables(connection: Connection, metadata: MetaData) -> None:
    """Makes the tables that are missing and refuses changes to rows of every one."""
    metadata.create_all(connection)
    for name in metadata.tables:
        for action in ("UPDATE", "DELETE"):
            connection.exec_driver_sql(
                f"CREATE TRIGGER IF NOT EXISTS {name}_no_{action.lower()} BEFORE {action} ON {name} "
                f"BEGIN SELECT RAISE(ABORT, 'table {name} is append-only: {action} refused'); END"
            )


def _configure(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver must not begin transactions behind our back; see _begin
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "recursive_triggers=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    immediate = connection.get_execution_options().get(_WRITING, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
