"""The reading room: keeps the read model up with the log, and hands out what read functions need.

    room.catch_up(progress)       once, before the first request
    room.follow()                 at the start of each request: one query when the log has not grown

Invariants:
- The rows are those of the log's first `size` entries, whatever process wrote them: entries are projected in a
  transaction that holds the position's row, so that no entry is projected twice and none left out.
- The last entry projected is still in the log, with the same hash. Where it is not (an older log was restored), or
  where the tables are of another `LAYOUT`, everything is made anew.
- Until all of the log is projected, `follow` raises ReadingBehind: a page that lacks a withdrawal would be a lie.
- Names and reasons are read beside the log each time, and are nowhere in the tables; a name that was erased is gone
  from the next request on.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, inspect, select

from admin_api.errors import ReadingBehind
from admin_api.reading.projection import project
from admin_api.reading.tables import (
    LAYOUT,
    CertificateRow,
    ErasureRow,
    PositionRow,
    ReadingTable,
    table,
)
from audit.disclosure import Disclosed
from audit.disclosure_store import FOLDER
from audit.errors import ArtifactError
from audit.store import Log
from audit.tables import ENTRIES, NODES
from jobs.home import ConsortiumHome

AT_ONCE = 5_000  # entries a request may wait for
CHUNK = 20_000  # entries projected in one transaction when many are missing
_WRITING = {"zegel_begin": "BEGIN IMMEDIATE"}  # how SQLite's transactions begin (admin_api.web.database)
_LOCK = 0x7A6567656C726561  # PostgreSQL's advisory lock, "zegelrea"
_CACHE_KIB = 128 * 1024  # of SQLite, while much is projected
_POSITION = table(PositionRow)
_CERTIFICATES, _ERASURES = table(CertificateRow).c, table(ErasureRow).c
_STORED = select(_POSITION.c.size, _POSITION.c.leaf, _POSITION.c.committing).where(_POSITION.c.id == 1)
_LAYOUT = select(_POSITION.c.layout).where(_POSITION.c.id == 1)
_TIP = select(
    select(ENTRIES.c.index).order_by(ENTRIES.c.index.desc()).limit(1).scalar_subquery(),
    select(NODES.c.hash).where(NODES.c.level == 0, NODES.c.index == bindparam("last_projected")).scalar_subquery(),
)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Position:
    """How far the log is projected."""

    size: int
    leaf: bytes | None  # hash of the last entry
    committing: int  # the last entry that holds or erases a commitment


class ReadingRoom:
    """One per process; its threads share it. Several processes may have one on the same database."""

    def __init__(self, engine: Engine, home: ConsortiumHome, *, at_once: int = AT_ONCE, chunk: int = CHUNK) -> None:
        """Opens nothing yet.

        Args:
            engine: `admin_api.web.database.Database.engine`.
            at_once: the number of new entries a request waits for.
            chunk: how many are projected in one transaction when many are missing.
        """
        self._at_once, self._chunk = at_once, chunk
        self._engine = engine
        self._writer = engine.execution_options(**_WRITING) if engine.dialect.name == "sqlite" else engine
        self._home = home
        self._log: tuple[object, Log] | None = None  # with what its file was when it was opened
        self._known: Position | None = None
        self._names: tuple[object, Mapping[str, str]] = (None, {})
        self._one_follows = threading.Lock()
        self._one_opens = threading.Lock()

    def close(self) -> None:
        """Lets go of the log. The engine is its owner's."""
        with self._one_opens:
            if self._log is not None:
                self._log[1].close()
                self._log = None

    # The log

    @property
    def log(self) -> Log:
        """The log, kept open; opened anew when another file has taken its place."""
        with self._one_opens:
            marks = self._file()
            if self._log is not None and self._log[0] != marks:
                self._log[1].close()
                self._log = None
            if self._log is None:
                log = self._home.log()
                self._log = self._file(), log
            return self._log[1]

    def _file(self) -> object:
        from audit.database import LOG_FILE

        try:
            found = (self._home.path / LOG_FILE).stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    # Keeping up

    @property
    def size(self) -> int:
        """Entries of the log as last followed."""
        return 0 if self._known is None else self._known.size

    def catch_up(self, progress: Progress | None = None) -> None:
        """Makes the tables where they are missing or of another layout, and projects all that is missing.

        `progress` is called with the number of entries projected and that of the log. A process that is stopped leaves
        what it has done, and the next one goes on. Raises LogError, ReadingError.
        """
        self._prepare()
        while True:
            done, size = self._advance(self._chunk)
            if progress is not None:
                progress(done, size)
            if done == size:
                return

    def follow(self) -> None:
        """Projects what the log has more than is projected; one query when it has nothing.

        Raises ReadingBehind when that is more than a request can wait for; each call brings it nearer. LogError,
        ReadingError when the log cannot be read.
        """
        known = self._known
        if known is not None and self._tip(known.size) == (known.size, known.leaf):
            return
        with self._one_follows:
            stored = self._stored()
            if stored is None:
                self._prepare()
            elif stored != known and self._tip(stored.size) == (stored.size, stored.leaf):
                self._known = stored  # somebody else was first
                return
            done, size = self._advance(self._at_once)
        if done < size:
            raise ReadingBehind(
                f"the pages have read {done} of the log's {size} entries; they go on, look again in a few seconds"
            )

    def _tip(self, projected: int) -> tuple[int, bytes | None]:
        """The log's size, and its hash of the last entry that is projected; None where it has none."""
        with self.log.rows() as connection:
            last, leaf = connection.execute(_TIP, {"last_projected": projected - 1}).one()
        return (0 if last is None else last + 1), leaf

    def _prepare(self) -> None:
        with self._writing() as connection:
            found = self._position(connection)
            if found is None:
                _make_anew(connection)

    def _advance(self, most: int) -> tuple[int, int]:
        """Projects at most so many entries in one transaction. Returns how many are projected, and the log's size."""
        with self._writing() as connection:
            position = self._position(connection)
            size, leaf = self._tip(0 if position is None else position.size)
            if position is None or position.size > size or position.leaf != leaf:
                _make_anew(connection)
                position = Position(0, None, -1)
            stop = min(size, position.size + most)
            if stop > position.size:
                if connection.dialect.name == "sqlite" and stop - position.size > AT_ONCE:
                    connection.exec_driver_sql(f"PRAGMA cache_size = -{_CACHE_KIB}")
                entries = enumerate(self.log.read_entries(position.size, stop), position.size)
                row = project(connection, entries, self._plan_text())
                position = Position(row["size"], row["leaf"], row["committing"])
        self._known = position
        return position.size, size

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._writer.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
            yield connection

    def _stored(self) -> Position | None:
        with self.rows() as connection:
            return self._position(connection)

    def _position(self, connection: Connection) -> Position | None:
        """None when there are no tables, or those of another layout."""
        if self._known is None and not inspect(connection).has_table(_POSITION.name):
            return None
        if connection.execute(_LAYOUT).scalar_one_or_none() != LAYOUT:  # then nothing else is known about the tables
            return None
        return Position(*connection.execute(_STORED).one())

    def _plan_text(self) -> Callable[[str], bytes | None]:
        artifacts = self._home.artifacts()

        def text(plan_hash: str) -> bytes | None:
            try:
                return artifacts.get(plan_hash)
            except ArtifactError:
                return None

        return text

    # For read functions

    @property
    def home(self) -> ConsortiumHome:
        """The consortium whose log is read."""
        return self._home

    @contextmanager
    def rows(self) -> Iterator[Connection]:
        """One state of the read model's tables."""
        with self._engine.begin() as connection:
            yield connection

    def names(self) -> Mapping[str, str]:
        """The names of people that may be shown now, by person id. Raises DisclosureError for a damaged file."""
        try:
            changed: object = (self._home.path / FOLDER).stat().st_mtime_ns
        except FileNotFoundError:
            changed = None
        state = changed, None if self._known is None else self._known.committing
        if self._names[0] != state:
            self._names = state, self._read_names()
        return self._names[1]

    def disclosed(self, commitments: Iterable[str | None] = ()) -> Disclosed:
        """All names, and the values behind these commitments, that may be shown now.

        The commitments must be ones that entries of the log hold. Raises DisclosureError for a damaged file.
        """
        wanted = {each for each in commitments if each is not None}
        store = self._home.disclosures()
        erased: dict[str, int] = {}
        if wanted:
            query = select(_ERASURES.commitment, _ERASURES.entry).where(_ERASURES.commitment.in_(sorted(wanted)))
            with self.rows() as connection:
                erased = {row.commitment: row.entry for row in connection.execute(query)}
        found = {each: store.get(each) for each in wanted - set(erased)}
        values = {commitment: said.value for commitment, said in found.items() if said is not None}
        return Disclosed(self.names(), values, erased, frozenset(wanted - set(erased) - set(values)))

    def _read_names(self) -> Mapping[str, str]:
        query = (
            select(_CERTIFICATES.holder, _CERTIFICATES.organisation, _CERTIFICATES.name)
            .where(_CERTIFICATES.name.is_not(None))
            .where(_CERTIFICATES.name.not_in(select(_ERASURES.commitment)))
            .order_by(_CERTIFICATES.entry)
        )
        with self.rows() as connection:
            rows: list[Any] = list(connection.execute(query))
        store = self._home.disclosures()
        names: dict[str, tuple[str, str]] = {}  # name and organisation by person
        for row in rows:
            said = store.get(row.name)
            if said is not None:
                names[row.holder] = said.value, row.organisation
        # As `audit.disclosure` has it: two person ids of one organisation are never shown with the same name.
        seen = Counter((name.casefold(), organisation.casefold()) for name, organisation in names.values())
        return {
            person: name
            for person, (name, organisation) in names.items()
            if seen[name.casefold(), organisation.casefold()] == 1
        }


def _make_anew(connection: Connection) -> None:
    """Empty tables of this layout, and a position before the first entry."""
    names = [name for name in inspect(connection).get_table_names() if name.startswith("reading_")]
    for name in names:
        connection.exec_driver_sql(f'DROP TABLE "{name}"')
    ReadingTable.metadata.create_all(connection, checkfirst=False)
    connection.execute(_POSITION.insert().values(id=1, layout=LAYOUT, size=0, leaf=None, committing=-1, subjects=0))
