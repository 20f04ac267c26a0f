"""Where a log can be kept, as a test handles it: opened, copied, set back, and altered behind the log's back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection

from audit.database import Database, open_database
from audit.database_postgresql import PostgreSQL
from audit.note import VerifierKey
from audit.store import Log, open_log
from tests.audit.postgresql import OWNER, WRITER, Server

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ORIGIN = "zegel-log/test"
VERIFIER = VerifierKey.of(ORIGIN, KEY)


class Place(Protocol):
    """A log's database and its checkpoint file in `directory`."""

    directory: Path

    @property
    def url(self) -> str:
        """As the consortium's processes open it."""

    def administrator(self) -> Database:
        """As somebody opens it who may do anything."""

    def copy(self) -> object:
        """A backup of the database; nobody must be using it."""

    def restore(self, backup: object) -> None:
        """Puts a backup in the database's place; nobody must be using it."""


@dataclass
class SQLitePlace:
    directory: Path

    @property
    def url(self) -> str:
        return f"sqlite:///{self.directory / 'log.db'}"

    def administrator(self) -> Database:
        return open_database(self.url)

    def copy(self) -> object:
        with closing(sqlite3.connect(self.directory / "log.db")) as connection:
            return connection.serialize()

    def restore(self, backup: object) -> None:
        assert isinstance(backup, bytes)
        for suffix in ("-wal", "-shm"):
            (self.directory / f"log.db{suffix}").unlink(missing_ok=True)
        (self.directory / "log.db").write_bytes(backup)


@dataclass
class PostgreSQLPlace:
    directory: Path
    server: Server
    database: str

    @property
    def url(self) -> str:
        return self.server.url(WRITER, self.database)

    def administrator(self) -> Database:
        return open_database(self.server.url("postgres", self.database))

    def copy(self) -> object:
        return self.server.new_database(like=self.database)

    def restore(self, backup: object) -> None:
        assert isinstance(backup, str)
        self.database = self.server.new_database(like=backup)


def prepared(server: Server) -> str:
    """An empty log's database with its two roles, for others to be copied from."""
    name = server.new_database()
    owner = open_database(server.url(OWNER, name))
    assert isinstance(owner, PostgreSQL)
    owner.initialise(writer=WRITER)
    owner.close()
    return name


@contextmanager
def kept(kind: str, directory: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    """An empty place in a kind of database; PostgreSQL's is dropped at the end."""
    if kind == "sqlite":
        yield SQLitePlace(directory)
        return
    server: Server = request.getfixturevalue("postgresql")
    place = PostgreSQLPlace(directory, server, server.new_database(like=request.getfixturevalue("empty_database")))
    yield place
    server.drop(place.database)


def opened(place: Place, **options: Any) -> Log:
    """The log in a place, its checkpoint beside it."""
    return open_log(place.url, origin=ORIGIN, checkpoint_path=place.directory / "log.checkpoint", **options)


@contextmanager
def unguarded(place: Place) -> Iterator[Connection]:
    """The database as its administrator can change it: the triggers are away until the end."""
    database = place.administrator()
    try:
        with database.writing() as connection:
            database.unguard_rows(connection)
            yield connection
            database.guard_rows(connection)
    finally:
        database.close()


def altered(place: Place, *statements: str) -> None:
    """Carries out statements that the log would refuse."""
    with unguarded(place) as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
