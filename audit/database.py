"""What the log asks of its database, and which databases give it: SQLite and PostgreSQL, chosen by URL.

What is asked:
- a writer has the log to itself from its first read until it commits, also against other processes;
- a commit is on disk when it returns;
- a reader can see one state of the log until it is done;
- rows of the log can be added, never changed, replaced or removed.

The last is enforced by the database (triggers; on PostgreSQL also rights that the writer's role lacks). Whoever
administers the database can still lift it: that stops accidents, the signed checkpoints stop people.

A password never stands in a file of ours: `log_url` refuses a URL with one. PostgreSQL's client library takes
it from PGPASSWORD or ~/.pgpass, or needs none (certificates, peer).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import URL, Connection, Table
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from audit.errors import CorruptLogError, LogError
from audit.merkle import Node

BUSY_TIMEOUT_S = 30  # how long a writer waits for another one
LOG_FILE = "log.db"  # a consortium's log, unless it is kept in PostgreSQL
Row = tuple[Any, ...]  # values in the order of a table's columns


class Database(Protocol):
    """A database that holds one log. Its methods raise SQLAlchemyError when the database fails."""

    url: URL

    @property
    def shown(self) -> str:
        """The database as messages call it, without a password."""

    @property
    def checkpoint_path(self) -> Path | None:
        """Where the last signed checkpoint lies unless the caller knows better."""

    def prepare(self) -> None:
        """Makes sure of the tables; raises LogError when they are not there and cannot be made from here."""

    def reading(self) -> AbstractContextManager[Connection]:
        """A connection without a transaction: each statement sees the rows of its own moment. They never change,
        so that is enough to look one up, and quicker.
        """

    def snapshot(self) -> AbstractContextManager[Connection]:
        """A transaction that sees one state throughout and changes nothing."""

    def writing(self) -> AbstractContextManager[Connection]:
        """A transaction that has the log to itself; durable when the context ends without an error."""

    def tip(self, connection: Connection, leaf: int) -> tuple[int, bytes | None]:
        """The number of entries, and the stored hash of the leaf with index `leaf`, if any."""

    def stored(self, connection: Connection, nodes: Sequence[Node]) -> dict[Node, bytes]:
        """The hashes that are stored for `nodes`; missing ones are left out."""

    def insert(self, connection: Connection, rows: Mapping[Table, Sequence[Row]]) -> None:
        """Adds rows, each with a value for every column, in the order of the columns."""

    def guard_rows(self, connection: Connection) -> None:
        """Makes the database refuse to change or remove rows of the log's tables."""

    def unguard_rows(self, connection: Connection) -> None:
        """Lifts that again, for a migration."""

    def guard_differences(self, connection: Connection) -> list[str]:
        """In words, where the database's protection of rows is not what `guard_rows` made."""

    def close(self) -> None:
        """Lets go of every connection."""


def open_database(url: str) -> Database:
    """The database at `sqlite:///<path>` or `postgresql://<user>@<host>/<database>`; LogError for any other."""
    parsed = _parsed(url)
    match parsed.get_backend_name():
        case "sqlite":
            from audit.database_sqlite import SQLite

            return SQLite(parsed)
        case "postgresql":
            try:
                from audit.database_postgresql import PostgreSQL
            except ModuleNotFoundError as error:
                raise LogError(
                    f"a log in PostgreSQL needs the package psycopg: pip install psycopg ({error})"
                ) from error
            return PostgreSQL(parsed)
    raise LogError(
        f"log database: expected sqlite:///<path> or postgresql://<user>@<host>/<database>, "
        f"got {parsed.render_as_string(hide_password=True)}"
    )


def log_url(home: Path, configured: str | None) -> str:
    """The URL of the log of the consortium in folder `home`: `configured` in its consortium.json, or `log.db`.

    Raises LogError for a URL with a password in it: the file is read by more people than the log is written by.
    """
    if configured is None:
        return f"sqlite:///{home / LOG_FILE}"
    parsed = _parsed(configured)
    if parsed.password is not None or "password" in parsed.query:
        raise LogError(
            f"log_url {parsed.set(query={}).render_as_string(hide_password=True)}: expected no password in "
            "consortium.json; put it in ~/.pgpass or the environment variable PGPASSWORD"
        )
    return configured


class Hashes:
    """Reads the tree's hashes within one transaction (a `merkle.HashReader`)."""

    def __init__(self, database: Database, connection: Connection) -> None:
        self._database = database
        self._connection = connection

    def read_hashes(self, nodes: Sequence[Node]) -> list[bytes]:
        """One hash per node; raises CorruptLogError when one is missing."""
        found = self._database.stored(self._connection, nodes)
        for level, index in nodes:
            if (level, index) not in found:
                raise CorruptLogError(f"tree node (level {level}, index {index}) is missing; check the log")
        return [found[node] for node in nodes]


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except ArgumentError as error:
        raise LogError(f"log database: {error}") from error
