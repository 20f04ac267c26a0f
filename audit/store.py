"""The log: entries, their Merkle tree and its signed checkpoints, kept in a database.

Invariants:
- Entries, leaf hashes, the inner hashes they complete and the lineage rows that follow from them are written
  in one transaction; a crash leaves all or none.
- Rows are only ever added.
- A checkpoint is signed only for a tree that is durable, contains the last signed tree as a prefix, and whose
  root has just been computed from that signed root and the bytes of the entries since.
- The last signed checkpoint is kept in a file apart from the database and replaced by compare-and-swap, so
  that restoring an old database, or signing in two copies of one, cannot fork the log: it no longer continues
  the checkpoint, and neither `append` nor `sign_checkpoint` will go on.

The database and the checkpoint file are public data.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import col, select

from audit.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from audit.database import Database, Hashes, Row, open_database
from audit.durable_file import swap_durably
from audit.entry import Entry
from audit.errors import CheckpointError, LogConflictError, LogError, NoteError, StaleFileError, StaleLogError
from audit.lineage_rows import TABLES, rows_of
from audit.log_check import LogCheck, check_log, differs_from_signed, older_than_signed
from audit.merkle import EMPTY_ROOT, Frontier, Node, consistency_proof, frontier_nodes, inclusion_proof, leaf_hash
from audit.merkle import tree_root as root_from
from audit.note import VerifierKey, parse_note
from audit.replay import Replay
from audit.tables import ENTRIES, NODES, ORIGIN, SETTINGS, SIGNED, EntryRow

MAX_CLOCK_SKEW = timedelta(minutes=5)
_BATCH = 500  # rows read at a time

KeepCheckpoint = Callable[[Path, bytes | None, bytes], None]


def open_log(url: str, *, origin: str, checkpoint_path: Path | None = None, keep: KeepCheckpoint = swap_durably) -> Log:
    """The log at a database URL (`sqlite:///<path>`, made when there is none, or `postgresql://...`).

    `origin` names the log for ever (see `audit.checkpoint.log_origin`). `checkpoint_path` is where the last
    signed checkpoint is kept, for SQLite by default beside the database with the suffix `.checkpoint`. `keep`
    replaces that file durably if it still holds what was read. Raises LogError for another log's database and
    for one that cannot be used.
    """
    database = open_database(url)
    path = database.checkpoint_path if checkpoint_path is None else checkpoint_path
    if path is None:
        raise LogError(f"{database.shown}: expected a path for the last signed checkpoint, kept apart from the server")
    return Log(database, origin=origin, checkpoint_path=path, keep=keep)


class Log:
    """An append-only log. Use from several threads and processes at once is safe.

    Close it, or use it in a `with` statement, to let go of the database.
    """

    def __init__(
        self, database: Database, *, origin: str, checkpoint_path: Path, keep: KeepCheckpoint = swap_durably
    ) -> None:
        """As `open_log`, which is the way to make one."""
        self._database = database
        self._checkpoint_path = checkpoint_path
        self._keep = keep
        self.origin = origin
        # The right edge after the last append of this process and the hash of its last leaf: good as long as
        # the database still ends there. A tuple, so that threads see one or the other.
        self._edge: tuple[Frontier, bytes] = Frontier(), b""
        # The checkpoint file as last read, and what it says.
        self._claim: tuple[bytes, Checkpoint] | None = None
        VerifierKey(origin, bytes(32))  # refuses an origin that cannot name a key
        try:
            with _translated(f"log database {database.shown} cannot be used"):
                database.prepare()
                self._settle_origin()
        except LogError:
            database.close()
            raise

    def close(self) -> None:
        """Lets go of the database."""
        self._database.close()

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
        with self._reading() as connection:
            return self._size(connection)

    def root(self, size: int | None = None) -> bytes:
        """The root over the first `size` entries; None: all of them."""
        with self._reading() as connection:
            return root_from(self._known_size(connection, size), Hashes(self._database, connection))

    def entry(self, index: int) -> Entry:
        """Entry `index`; raises LogError when there is none."""
        return Entry.from_bytes(self.entry_bytes(index))

    def entry_bytes(self, index: int) -> bytes:
        """The bytes of entry `index`, as hashed; raises LogError when there is none."""
        with self._reading() as connection:
            query = select(col(EntryRow.data)).where(col(EntryRow.index) == index)
            data: bytes | None = connection.execute(query).scalar_one_or_none()
            if data is None:
                raise LogError(f"log has no entry {index}; it holds {self._size(connection)}")
            return data

    def read_entries(self, start: int, stop: int) -> list[bytes]:
        """The bytes of the entries from `start` up to before `stop`; raises LogError when one is missing."""
        query = select(col(EntryRow.data)).where(col(EntryRow.index) >= start, col(EntryRow.index) < stop)
        with self._reading() as connection:
            found = list(connection.execute(query.order_by(col(EntryRow.index))).scalars())
        if len(found) != stop - start:
            raise LogError(f"log: expected the entries {start} to {stop - 1}, found {len(found)} of {stop - start}")
        return found

    def read_hashes(self, nodes: Sequence[Node]) -> list[bytes]:
        """One hash per complete subtree asked for; raises CorruptLogError when one is missing."""
        with self._reading() as connection:
            return Hashes(self._database, connection).read_hashes(nodes)

    def entries(self, *, kind: str | None = None, since: int = 0) -> Iterator[tuple[int, Entry]]:
        """Index and entry, oldest first, from index `since` on, of one kind or of all.

        Entries appended while this runs may or may not be included.
        """
        following = since
        while True:
            query = select(col(EntryRow.index), col(EntryRow.data)).where(col(EntryRow.index) >= following)
            if kind is not None:
                query = query.where(col(EntryRow.kind) == kind)
            with self._reading() as connection:
                rows = connection.execute(query.order_by(col(EntryRow.index)).limit(_BATCH)).all()
            for index, data in rows:
                yield index, Entry.from_bytes(data)
            if len(rows) < _BATCH:
                return
            following = rows[-1][0] + 1

    def inclusion_proof(self, index: int, size: int | None = None) -> list[bytes]:
        """Proof that entry `index` is in the tree of the first `size` entries (None: all)."""
        with self._reading() as connection:
            return inclusion_proof(index, self._known_size(connection, size), Hashes(self._database, connection))

    def consistency_proof(self, size1: int, size2: int | None = None) -> list[bytes]:
        """Proof that the tree of `size1` entries is a prefix of that of `size2` (None: all)."""
        with self._reading() as connection:
            return consistency_proof(size1, self._known_size(connection, size2), Hashes(self._database, connection))

    def last_checkpoint(self) -> bytes | None:
        """The last signed checkpoint as kept in its file; None when nothing was signed yet."""
        try:
            return self._checkpoint_path.read_bytes()
        except FileNotFoundError:
            return None

    @contextmanager
    def rows(self) -> Iterator[Connection]:
        """One state of the log's tables, for queries such as `audit.lineage` makes."""
        with _translated("log could not be read"), self._database.snapshot() as connection:
            yield connection

    # Writing

    def append(self, entries: Sequence[Entry], *, expected_size: int | None = None) -> list[int]:
        """Adds the entries in order and returns their indices. When it returns, they are durable.

        All or none are added. `expected_size`: what the caller decided on the basis of; when the log holds
        another number of entries, raises LogConflictError and adds nothing. Raises EntryError for an entry
        that is too large, StaleLogError when the database is older than the last signed checkpoint, LogError
        when the database fails: then nothing was added, unless a connection broke while it committed (the
        log's size tells).
        """
        encoded = [(entry, entry.to_bytes()) for entry in entries]
        if not encoded and expected_size is None:
            return []
        with _translated("log could not be written"), self._database.writing() as connection:
            frontier = self._current_edge(connection)
            first = frontier.size
            self._refuse_stale(first)
            if expected_size is not None and first != expected_size:
                raise LogConflictError(
                    f"the log holds {first} entries, not {expected_size} as when this was decided: "
                    "somebody else wrote meanwhile; look again and repeat"
                )
            if not encoded:
                return []
            rows: defaultdict[str, list[Row]] = defaultdict(list)
            entry_rows: list[Row] = []
            node_rows: list[Row] = []
            leaf = b""
            for entry, data in encoded:
                index = frontier.size
                leaf = leaf_hash(data)
                entry_rows.append((index, entry.kind, data))
                node_rows += [(*node, value) for node, value in frontier.append(leaf)]
                for name, added in rows_of(index, entry).items():
                    rows[name] += added
            lineage = {TABLES[name]: added for name, added in rows.items()}
            self._database.insert(connection, {ENTRIES: entry_rows, NODES: node_rows, **lineage})
        self._edge = frontier, leaf
        return list(range(first, frontier.size))

    def sign_checkpoint(self, key: Ed25519PrivateKey, clock: Callable[[], datetime]) -> bytes:
        """Signs the whole log as it is now and returns the checkpoint (a signed note).

        Order: the entries are durable already; the tree is derived again from the last signed root; the new
        checkpoint replaces the file durably, if that still holds what this began from; only then it is
        returned. A crash leaves the old or the new file, and signing again gives the same bytes. Writers wait
        meanwhile.

        Raises StaleLogError when the database is older than, or differs from, the last signed checkpoint, or
        that file is gone or was replaced meanwhile; CorruptLogError when a stored hash does not fit an entry;
        LogError when an entry's time lies more than 5 minutes ahead of `clock` (a wrong clock, or an entry
        dated forward).
        """
        verifier = VerifierKey.of(self.origin, key)
        with _translated("log could not be signed"), self._database.writing() as connection:
            latest = clock() + MAX_CLOCK_SKEW
            signed = self.last_checkpoint()
            signed_before = self._setting(connection, SIGNED) is not None
            if signed is None and signed_before:
                raise StaleLogError(
                    f"this log has been signed before, but {self._checkpoint_path} is missing; "
                    "restore it, or ask a holder of a checkpoint: signing without it could fork the log"
                )
            start = Checkpoint(self.origin, 0, EMPTY_ROOT) if signed is None else open_checkpoint(signed, verifier)
            size = self._size(connection)
            hashes = Hashes(self._database, connection)
            if signed is not None and not signed_before:
                self._database.insert(connection, {SETTINGS: [(SIGNED, "yes")]})  # see remember_signed
                signed_before = True
            if signed is not None and start.size == size and root_from(size, hashes) == start.root:
                return signed
            frontier = self._continued(hashes, start, size)
            for index, entry in Replay(connection, frontier, stop=size, lineage=False).entries():
                if entry.time > latest:
                    raise LogError(f"entry {index} is dated {entry.time}, ahead of this clock; not signing")
            data = sign_checkpoint(Checkpoint(self.origin, size, frontier.root()), key)
            if not signed_before:
                self._database.insert(connection, {SETTINGS: [(SIGNED, "yes")]})
            try:
                self._keep(self._checkpoint_path, signed, data)
            except StaleFileError as error:
                raise StaleLogError(f"{error}: not signing a second history") from error
        return data

    def remember_signed(self) -> None:
        """Notes in the database that this log has been signed, if its checkpoint file says so.

        For a copy of a log; `sign_checkpoint` does the same after a crash between the first checkpoint's file
        and this note. From then on a checkpoint file that is missing stops signing.
        """
        with _translated("log could not be written"), self._database.writing() as connection:
            if self.last_checkpoint() is not None and self._setting(connection, SIGNED) is None:
                self._database.insert(connection, {SETTINGS: [(SIGNED, "yes")]})

    def check(self, progress: Callable[[int, int], None] | None = None, *, processes: int | None = None) -> LogCheck:
        """Derives everything again from the entries and returns what this gives (see `audit.log_check`).

        `progress` is called with the number of entries checked and their total. `processes`: how many share
        the work; None: as many as pay. Raises CorruptLogError naming the first row that is wrong,
        StaleLogError when the entries do not contain the last signed tree (its signature is not checked here:
        that needs the key).
        """
        with _translated("log could not be checked"):
            return check_log(self._database, self.origin, self._last_claim(), progress, processes=processes)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with _translated("log could not be read"), self._database.reading() as connection:
            yield connection

    def _settle_origin(self) -> None:
        with self._database.reading() as connection:
            found = self._setting(connection, ORIGIN)
        if found is None:
            with self._database.writing() as connection:
                found = self._setting(connection, ORIGIN)
                if found is None:
                    self._database.insert(connection, {SETTINGS: [(ORIGIN, self.origin)]})
                    return
        if found != self.origin:
            raise LogError(f"log database: expected the log {self.origin}, got {found}")

    def _setting(self, connection: Connection, name: str) -> str | None:
        value: str | None = connection.execute(
            SETTINGS.select().with_only_columns(SETTINGS.c.value).where(SETTINGS.c.name == name)
        ).scalar_one_or_none()
        return value

    def _size(self, connection: Connection) -> int:
        return self._database.tip(connection, -1)[0]

    def _known_size(self, connection: Connection, size: int | None) -> int:
        current = self._size(connection)
        if size is None:
            return current
        if not 0 <= size <= current:
            raise LogError(f"tree size: expected 0 to {current}, got {size}")
        return size

    def _current_edge(self, connection: Connection) -> Frontier:
        """The right edge to append to: the remembered one if the database still ends with it, else the stored one."""
        frontier, last_leaf = self._edge
        size, leaf = self._database.tip(connection, frontier.size - 1)
        if frontier.size == size and (size == 0 or leaf == last_leaf):
            return frontier.copy()
        return Frontier(size, Hashes(self._database, connection).read_hashes(frontier_nodes(size)))

    def _continued(self, hashes: Hashes, signed: Checkpoint, size: int) -> Frontier:
        """The right edge of the last signed tree, taken from storage and proved by its signed root."""
        if signed.size > size:
            raise StaleLogError(older_than_signed(size, signed.size))
        frontier = Frontier(signed.size, hashes.read_hashes(frontier_nodes(signed.size)))
        if frontier.root() != signed.root:
            raise StaleLogError(differs_from_signed(signed))
        return frontier

    def _refuse_stale(self, size: int) -> None:
        # Appending to a restored database would make entries that can never be signed: stop before they
        # exist.
        signed = self._last_claim()
        if signed is not None and signed.size > size:
            raise StaleLogError(older_than_signed(size, signed.size))

    def _last_claim(self) -> Checkpoint | None:
        # The signature is checked where the key is at hand, in sign_checkpoint.
        data = self.last_checkpoint()
        if data is None:
            return None
        if self._claim is not None and self._claim[0] == data:
            return self._claim[1]
        try:
            checkpoint = Checkpoint.from_text(parse_note(data).text)
        except (NoteError, CheckpointError) as error:
            raise StaleLogError(f"{self._checkpoint_path} is damaged; restore it: {error}") from error
        if checkpoint.origin != self.origin:
            raise StaleLogError(
                f"{self._checkpoint_path}: expected a checkpoint of {self.origin}, got {checkpoint.origin}"
            )
        self._claim = data, checkpoint
        return checkpoint


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """The database's own errors as LogError, the others as they are."""
    try:
        yield
    except SQLAlchemyError as error:
        raise LogError(f"{what}: {error}") from error
