"""The log: entries, their Merkle tree and its signed checkpoints, kept in a database.

Invariants:
- Entries, leaf hashes and the inner hashes they complete are written in one transaction; a crash leaves all
  or none.
- Rows are only ever added.
- A checkpoint is signed only for a tree that is durable, contains the last signed tree as a prefix, and whose
  root has just been computed from that signed root and the bytes of the entries since.
- The last signed checkpoint is kept in a file apart from the database, so that restoring an old database
  cannot fork the log: it no longer continues the checkpoint, and neither `append` nor `sign_checkpoint`
  will go on.

The database and the checkpoint file are public data.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine, func
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session, col, select

from audit.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from audit.database import create_tables, database_path, log_engine, writing
from audit.durable_file import write_durably
from audit.entry import Entry
from audit.errors import CorruptLogError, EntryError, LogError, StaleLogError
from audit.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    frontier_nodes,
    inclusion_proof,
    leaf_hash,
    tree_root,
)
from audit.note import VerifierKey, parse_note
from audit.tables import ENTRIES, NODES, EntryRow, Hashes, LogTable, NodeRow, SettingRow

MAX_CLOCK_SKEW = timedelta(minutes=5)
_BATCH = 500  # rows read at a time


_ORIGIN = "origin"
_SIGNED = "signed"  # present from the first signature on: from then the checkpoint file must exist


def open_log(url: str, *, origin: str, checkpoint_path: Path | None = None) -> Log:
    """The log at a database URL (`sqlite:///<path>`), made when there is none.

    `origin` names the log for ever (see `audit.checkpoint.log_origin`). `checkpoint_path` is where the last
    signed checkpoint is kept, by default beside the database with the suffix `.checkpoint`. Raises LogError
    for another log's database.
    """
    engine = log_engine(url)
    path = database_path(engine).with_suffix(".checkpoint") if checkpoint_path is None else checkpoint_path
    return Log(engine, origin=origin, checkpoint_path=path)


class Log:
    """An append-only log. Use from several threads and processes at once is safe.

    Close it, or use it in a `with` statement, to let go of the database.
    """

    def __init__(self, engine: Engine, *, origin: str, checkpoint_path: Path) -> None:
        """`engine` must come from `audit.database.log_engine`. Raises LogError when it holds another log."""
        self._engine = engine
        self._checkpoint_path = checkpoint_path
        self.origin = origin
        VerifierKey(origin, bytes(32))  # refuses an origin that cannot name a key
        try:
            with Session(writing(engine)) as session, session.begin():
                create_tables(session.connection(), LogTable.metadata)
                row = session.get(SettingRow, _ORIGIN)
                if row is None:
                    session.add(SettingRow(name=_ORIGIN, value=origin))
                elif row.value != origin:
                    raise LogError(f"log database: expected the log {origin}, got {row.value}")
        except SQLAlchemyError as error:
            engine.dispose()
            raise LogError(f"log database {database_path(engine)} cannot be used: {error}") from error
        except LogError:
            engine.dispose()
            raise

    def close(self) -> None:
        """Lets go of the database."""
        self._engine.dispose()

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Reading

    @property
    def size(self) -> int:
        """Number of entries."""
        with Session(self._engine) as session:
            return _size(session)

    def root(self, size: int | None = None) -> bytes:
        """The root over the first `size` entries; None: all of them."""
        with Session(self._engine) as session:
            return tree_root(self._known_size(session, size), Hashes(session))

    def entry(self, index: int) -> Entry:
        """Entry `index`; raises LogError when there is none."""
        return Entry.from_bytes(self.entry_bytes(index))

    def entry_bytes(self, index: int) -> bytes:
        """The bytes of entry `index`, as hashed; raises LogError when there is none."""
        with Session(self._engine) as session:
            row = session.get(EntryRow, index)
            if row is None:
                raise LogError(f"log has no entry {index}; it holds {_size(session)}")
            return row.data

    def entries(self, *, kind: str | None = None, since: int = 0) -> Iterator[tuple[int, Entry]]:
        """Index and entry, oldest first, from index `since` on, of one kind or of all.

        Entries appended while this runs may or may not be included.
        """
        following = since
        while True:
            query = select(EntryRow).where(col(EntryRow.index) >= following).order_by(col(EntryRow.index))
            if kind is not None:
                query = query.where(col(EntryRow.kind) == kind)
            with Session(self._engine) as session:
                rows = [(row.index, row.data) for row in session.exec(query.limit(_BATCH))]
            for index, data in rows:
                yield index, Entry.from_bytes(data)
            if len(rows) < _BATCH:
                return
            following = rows[-1][0] + 1

    def inclusion_proof(self, index: int, size: int | None = None) -> list[bytes]:
        """Proof that entry `index` is in the tree of the first `size` entries (None: all)."""
        with Session(self._engine) as session:
            return inclusion_proof(index, self._known_size(session, size), Hashes(session))

    def consistency_proof(self, size1: int, size2: int | None = None) -> list[bytes]:
        """Proof that the tree of `size1` entries is a prefix of that of `size2` (None: all)."""
        with Session(self._engine) as session:
            return consistency_proof(size1, self._known_size(session, size2), Hashes(session))

    def last_checkpoint(self) -> bytes | None:
        """The last signed checkpoint as kept in its file; None when nothing was signed yet."""
        try:
            return self._checkpoint_path.read_bytes()
        except FileNotFoundError:
            return None

    # Writing

    def append(self, entries: Sequence[Entry]) -> list[int]:
        """Adds the entries in order and returns their indices. When it returns, they are durable.

        All or none are added. Raises EntryError for an entry that is too large, StaleLogError when the
        database is older than the last signed checkpoint.
        """
        encoded = [(entry.kind, entry.to_bytes()) for entry in entries]
        if not encoded:
            return []
        try:
            with Session(writing(self._engine)) as session, session.begin():
                frontier = _frontier(session)
                self._refuse_stale(frontier.size)
                first = frontier.size
                rows = []
                nodes = []
                for kind, data in encoded:
                    rows.append({"index": frontier.size, "kind": kind, "data": data})
                    for (level, index), value in frontier.append(leaf_hash(data)):
                        nodes.append({"level": level, "index": index, "hash": value})
                connection = session.connection()
                connection.execute(ENTRIES.insert(), rows)
                connection.execute(NODES.insert(), nodes)
        except SQLAlchemyError as error:
            raise LogError(f"log could not be written: {error}") from error
        return list(range(first, first + len(encoded)))

    def sign_checkpoint(self, key: Ed25519PrivateKey, clock: Callable[[], datetime]) -> bytes:
        """Signs the whole log as it is now and returns the checkpoint (a signed note).

        Order: the entries are durable already; the tree is derived again from the last signed root; the new
        checkpoint replaces the file durably; only then it is returned. A crash leaves the old or the new
        file, and signing again gives the same bytes. Writers wait meanwhile, so two signers cannot both
        pass the comparison.

        Raises StaleLogError when the database is older than, or differs from, the last signed checkpoint,
        or that file is gone; CorruptLogError when a stored hash does not fit an entry; LogError when an
        entry's time lies more than 5 minutes ahead of `clock` (a wrong clock, or an entry dated forward).
        """
        verifier = VerifierKey.of(self.origin, key)
        with Session(writing(self._engine)) as session, session.begin():
            latest = clock() + MAX_CLOCK_SKEW
            signed = self.last_checkpoint()
            if signed is None:
                if session.get(SettingRow, _SIGNED) is not None:
                    raise StaleLogError(
                        f"this log has been signed before, but {self._checkpoint_path} is missing; "
                        "restore it, or ask a holder of a checkpoint: signing without it could fork the log"
                    )
                start = Checkpoint(self.origin, 0, EMPTY_ROOT)
            else:
                start = open_checkpoint(signed, verifier)
            size = _size(session)
            if signed is not None and start.size == size and tree_root(size, Hashes(session)) == start.root:
                return signed
            frontier = _continued(session, start)
            for rows in _batches(session, start.size):
                for index, entry, _ in _replayed(session, frontier, rows):
                    if entry.time > latest:
                        raise LogError(f"entry {index} is dated {entry.time}, ahead of this clock; not signing")
            if frontier.size != size:
                raise CorruptLogError(f"log: expected entries up to {size - 1}, found {frontier.size}")
            data = sign_checkpoint(Checkpoint(self.origin, size, frontier.root()), key)
            if session.get(SettingRow, _SIGNED) is None:
                session.add(SettingRow(name=_SIGNED, value="yes"))
            write_durably(self._checkpoint_path, data)
        return data

    def check(self, progress: Callable[[int, int], None] | None = None) -> Checkpoint:
        """Derives every hash again from the entries and returns the tree this gives.

        `progress` is called with the number of entries checked and their total. Raises CorruptLogError
        naming the first row that is wrong, StaleLogError when the entries do not contain the last signed
        tree (its signature is not checked here: that needs the key).
        """
        with Session(self._engine) as session:
            size = _size(session)
            signed = self._last_claim()
            if signed is not None and signed.size > size:
                raise StaleLogError(_older(size, signed.size))
            frontier, nodes = Frontier(), 0
            for rows in _batches(session, 0):
                for _, _, completed in _replayed(session, frontier, rows):
                    nodes += completed
                    if signed is not None and frontier.size == signed.size and frontier.root() != signed.root:
                        raise StaleLogError(_differs(signed))
                    if progress is not None:
                        progress(frontier.size, size)
            stored = session.exec(select(func.count()).select_from(NodeRow)).one()
            if stored != nodes:
                raise CorruptLogError(f"tree: expected {nodes} stored hashes for {size} entries, got {stored}")
            return Checkpoint(self.origin, frontier.size, frontier.root())

    def _known_size(self, session: Session, size: int | None) -> int:
        current = _size(session)
        if size is None:
            return current
        if not 0 <= size <= current:
            raise LogError(f"tree size: expected 0 to {current}, got {size}")
        return size

    def _refuse_stale(self, size: int) -> None:
        # Appending to a restored database would make entries that can never be signed: stop before they
        # exist.
        signed = self._last_claim()
        if signed is not None and signed.size > size:
            raise StaleLogError(_older(size, signed.size))

    def _last_claim(self) -> Checkpoint | None:
        # The signature is checked where the key is at hand, in sign_checkpoint.
        data = self.last_checkpoint()
        if data is None:
            return None
        checkpoint = Checkpoint.from_text(parse_note(data).text)
        if checkpoint.origin != self.origin:
            raise StaleLogError(
                f"{self._checkpoint_path}: expected a checkpoint of {self.origin}, got {checkpoint.origin}"
            )
        return checkpoint


def _size(session: Session) -> int:
    last = session.exec(select(func.max(col(EntryRow.index)))).one()
    return 0 if last is None else last + 1


def _frontier(session: Session) -> Frontier:
    size = _size(session)
    return Frontier(size, Hashes(session).read_hashes(frontier_nodes(size)))


def _continued(session: Session, signed: Checkpoint) -> Frontier:
    """The right edge of the last signed tree, taken from storage and proved by its signed root."""
    size = _size(session)
    if signed.size > size:
        raise StaleLogError(_older(size, signed.size))
    frontier = Frontier(signed.size, Hashes(session).read_hashes(frontier_nodes(signed.size)))
    if frontier.root() != signed.root:
        raise StaleLogError(_differs(signed))
    return frontier


def _batches(session: Session, start: int) -> Iterator[Sequence[tuple[int, str, bytes]]]:
    """Index, kind and bytes of the entries from `start` on, some hundred at a time."""
    following = start
    while True:
        query = select(EntryRow.index, EntryRow.kind, EntryRow.data).where(col(EntryRow.index) >= following)
        rows = [(i, kind, data) for i, kind, data in session.exec(query.order_by(col(EntryRow.index)).limit(_BATCH))]
        yield rows
        if len(rows) < _BATCH:
            return
        following = rows[-1][0] + 1


def _replayed(
    session: Session, frontier: Frontier, rows: Sequence[tuple[int, str, bytes]]
) -> Iterator[tuple[int, Entry, int]]:
    """Adds each row to `frontier` and compares all that follows from it with storage.

    Yields the index, the entry and how many tree hashes it completed; raises CorruptLogError at the first
    bad row.
    """
    # A copy runs ahead to learn which hashes the batch completes, so that they are read in one go.
    ahead = frontier.copy()
    sound = itertools.takewhile(lambda row: isinstance(row[2], bytes), rows)
    nodes = [node for _, _, data in sound for node, _ in ahead.append(leaf_hash(data))]
    stored = Hashes(session).stored(nodes)
    for index, kind, data in rows:
        if index != frontier.size:
            raise CorruptLogError(f"entry {frontier.size} is missing; the next one stored is {index}")
        # SQLite keeps whatever type was written into a column.
        if not isinstance(data, bytes):
            raise CorruptLogError(f"entry {index}: expected bytes, stored is {type(data).__name__}")
        try:
            entry = Entry.from_bytes(data)
        except EntryError as error:
            raise CorruptLogError(f"entry {index}: {error}") from error
        if kind != entry.kind:
            raise CorruptLogError(f"entry {index}: stored as {kind}, but its bytes say {entry.kind}")
        completed = frontier.append(leaf_hash(data))
        for (level, position), value in completed:
            found = stored.get((level, position))
            if found != value:
                what = f"entry {index}" if level == 0 else f"tree node (level {level}, index {position})"
                got = "none is stored" if found is None else f"stored is {found.hex()}"
                raise CorruptLogError(f"{what}: expected hash {value.hex()}, {got}")
        yield index, entry, len(completed)


def _older(size: int, signed_size: int) -> str:
    return (
        f"the database holds {size} entries, but a checkpoint over {signed_size} has been signed: "
        "this is an old copy; restore the newest one, never sign on top of this"
    )


def _differs(signed: Checkpoint) -> str:
    return (
        f"the first {signed.size} entries do not give the root that was signed for them: the database was "
        "changed or belongs to another history; restore the right one"
    )
