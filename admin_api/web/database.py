"""The pages' own database: SQLite beside the consortium's folder, or PostgreSQL by URL.

A writing transaction has the database to itself in SQLite (BEGIN IMMEDIATE) and is serialised by row locks in
PostgreSQL; it commits at the end of the `with`, and nothing of it stays when the body raises.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlmodel import Session

from admin_api.errors import WebError
from admin_api.web.migrations import upgrade

BUSY_TIMEOUT_S = 30.0
_BEGIN = "zegel_begin"


class Database:
    """One engine, handed to whoever needs it. Threads and processes may share the database."""

    def __init__(self, url: str) -> None:
        """Opens nothing yet. Raises WebError for a URL that is not SQLite's or PostgreSQL's, or with a password."""
        try:
            parsed = make_url(url)
        except ArgumentError as error:
            raise WebError(f"database of the pages: {error}") from None
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise WebError(
                "database of the pages: expected sqlite:///<path> or postgresql://<user>@<host>/<database>, got "
                f"{parsed.render_as_string(hide_password=True)}"
            )
        if parsed.password is not None:
            raise WebError("database of the pages: put the password in ~/.pgpass or PGPASSWORD, not in the URL")
        self.sqlite = parsed.get_backend_name() == "sqlite"
        if self.sqlite:
            self.engine: Engine = create_engine(parsed, connect_args={"timeout": BUSY_TIMEOUT_S})
            event.listen(self.engine, "connect", _configure)
            event.listen(self.engine, "begin", _begin)
        else:
            self.engine = create_engine(parsed.set(drivername="postgresql+psycopg"), pool_size=20, pool_pre_ping=True)
        self._writer = self.engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"}) if self.sqlite else self.engine

    def prepare(self) -> None:
        """Make the tables, or bring them up to date. Raises WebError when they are of a newer program."""
        with self._writer.begin() as connection:
            upgrade(connection)

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """A transaction that writes; committed when the body ends, undone when it raises."""
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that sees one state and changes nothing."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    def close(self) -> None:
        """Let go of every connection."""
        self.engine.dispose()


def utc(moment: datetime) -> datetime:
    """An instant as it was stored: SQLite gives it back without a zone."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _configure(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # SQLAlchemy's begin event says how a transaction begins
    cursor = connection.cursor()
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN"))
