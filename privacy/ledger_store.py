"""The ledger's durable form: a hash chain of rows in SQLite, and a head anchor kept apart.

Invariants:
- A row is the RFC 8785 text of a JSON object with `seq` (1, 2, ...), `previous` (the hash of the row before,
  64 zeros before the first) and what the ledger put in. Its hash is sha256(b"zegel ledger v1\\n" + text).
  The last hash, the head, commits to everything.
- Rows are only ever appended. Triggers refuse UPDATE and DELETE; the chain catches whoever drops them.
- A row is durable when `append` returns. Journal mode DELETE with synchronous EXTRA (FULL, and the folder is
  synced when the journal's deletion commits). WAL with FULL would be as durable, but keeps its newest rows in
  a second file: a backup that copies `ledger.db` alone would be a rolled-back ledger.
- The anchor (`<database>.anchor`) holds the head's seq and hash and catches a database put back to an older
  copy. If both are put back together, a head that was given away tells: the newest one is kept in a third file,
  away from these two (`given_path`), and others keep it too, in receipts and in the log.

Crash order of `append`, and what a crash leaves at each step:
1. before COMMIT: SQLite undoes the row at the next opening; nothing happened.
2. after COMMIT, before the anchor is renamed: the row counts, the anchor is behind by it. The database
   extends the anchor, so it is accepted, and the next append brings the anchor forward. The caller did not
   hear of success; asking again is refused as a second time, which is conservative.
3. after the rename: done.
The anchor is written under the database's write lock and from its last row, so it never moves backwards.
An anchor ahead of the database, on another chain, or missing while there is something to lose: refused.
`give` writes the head that is about to be given away before it leaves, under the same lock; a crash after it
leaves a head on file that nobody was given, which is in the database all the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import rfc8785

from privacy.errors import LedgerBusy, LedgerCorrupt, LedgerError, LedgerRolledBack, LedgerUnusable

HASH_PREFIX = b"zegel ledger v1\n"
NO_ROW = "sha256:" + 64 * "0"
RESTORE = (
    "Nothing more can be spent from this ledger. Restore the newest intact copy of the database and check "
    "it; if the newest rows are gone for good, the officer declares that with `zegel site recover-ledger`."
)
_BUSY_TIMEOUT_S = 30.0
_SCHEMA = (
    "CREATE TABLE ledger (seq INTEGER PRIMARY KEY, row TEXT NOT NULL, hash TEXT NOT NULL UNIQUE)",
    "CREATE TRIGGER ledger_no_update BEFORE UPDATE ON ledger "
    "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END",
    "CREATE TRIGGER ledger_no_delete BEFORE DELETE ON ledger "
    "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END",
)

Hook: TypeAlias = Callable[[str], None]
"""Called with "before" and "after" each of "row", "anchor" and "given"; a test raises there to crash."""


def no_hook(step: str) -> None:
    """The hook in production."""


@dataclass(frozen=True)
class Row:
    """A checked row of the chain.

    Attributes:
        seq: Its number, from 1.
        hash: Over its text, `sha256:<hex>`.
        body: The JSON object, `seq` and `previous` included.
    """

    seq: int
    hash: str
    body: dict[str, Any]


Decide: TypeAlias = Callable[[list[Row]], dict[str, Any] | None]


def row_hash(text: str) -> str:
    """The hash of a row's text, `sha256:<hex>`."""
    return "sha256:" + hashlib.sha256(HASH_PREFIX + text.encode()).hexdigest()


class Rows:
    """The rows of one ledger file; the file is opened for each operation and nothing is held open.

    Args:
        path: The database; the anchor lies beside it.
        hook: Called around each durable step.
        given_path: File with the newest head that was given away; None keeps none.

    Several processes may use one file at once. Several threads need a lock around one `Rows`.
    """

    def __init__(self, path: Path, *, hook: Hook = no_hook, given_path: Path | None = None) -> None:
        self.path = path
        self.anchor_path = path.with_name(path.name + ".anchor")
        self.given_path = given_path
        self._hook = hook

    def create(self, body: dict[str, Any]) -> None:
        """Makes the file with its first row; it appears under its name only when complete.

        Raises:
            LedgerError: If the database or its anchor exists, or a head of an earlier one was given away.
        """
        for path in (self.path, self.anchor_path, self.given_path):
            if path is not None and path.exists():
                raise LedgerError(f"{path} exists: open this ledger, do not create another in its place")
        draft = self.path.with_name(self.path.name + ".new")
        draft.unlink(missing_ok=True)  # a crash while creating left it; it never was a ledger
        draft.touch(mode=0o600)
        with _connected(draft) as connection:
            connection.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA:
                connection.execute(statement)
            _insert(connection, body, None)
            connection.execute("COMMIT")
        self._hook("before row")
        draft.replace(self.path)
        _sync_folder(self.path.parent)
        self._hook("after row")
        self._write_anchor()

    def read(self, last: Row | None) -> list[Row]:
        """The rows after `last`, checked.

        Raises:
            LedgerCorrupt: If a row was altered or is missing, `last` included.
            LedgerRolledBack: If the anchor is ahead of the database.
            LedgerBusy: If the file stayed locked.
            LedgerError: If the file cannot be opened.
        """
        anchor = self._read_anchor()  # before the snapshot: the database must have come at least as far
        with _connected(self.path) as connection:
            connection.execute("BEGIN")
            rows = _rows_after(connection, last)
            self._check_anchor(connection, anchor, rows[-1] if rows else last)
            return rows

    def append(self, last: Row | None, decide: Decide, *, trust_anchor: bool = True) -> Row | None:
        """Appends the row that `decide` makes in view of the rows after `last`; no process can come between.

        Args:
            last: The last row known to the caller.
            decide: Given the rows after `last`, returns the new row's members, or None to append nothing, or
                raises. Called at most once.
            trust_anchor: False only to recover: the anchor is not compared, and rewritten.

        Returns:
            The row, durable together with its anchor; or None.

        Raises:
            Like `read`, and whatever `decide` raises.
        """
        anchor = self._read_anchor() if trust_anchor else None
        with _connected(self.path) as connection:
            connection.execute("BEGIN IMMEDIATE")
            rows = _rows_after(connection, last)
            newest = rows[-1] if rows else last
            if trust_anchor:
                self._check_anchor(connection, anchor, newest)
            body = decide(rows)
            if body is None:
                return None
            row = _insert(connection, body, newest)
            self._hook("before row")
            connection.execute("COMMIT")
            self._hook("after row")
        self._write_anchor()
        return row

    def position(self, head: str) -> int:
        """The seq of the row with the hash `head`.

        Raises:
            LedgerRolledBack: If there is none: the head was given away, and its row is gone.
        """
        with _connected(self.path) as connection:
            return self._position(connection, head)

    def _position(self, connection: sqlite3.Connection, head: str) -> int:
        found = connection.execute("SELECT seq FROM ledger WHERE hash = ?", (head,)).fetchone()
        if found is None:
            raise LedgerRolledBack(f"{self.path}: no row has the hash {head} that was given away. {RESTORE}")
        return int(found[0])

    def give(self, head: str) -> None:
        """Keeps, durably, the head that is about to be given away, unless a newer one is kept.

        Raises:
            LedgerRolledBack: If no row has this hash, or none has the one that was kept.
            LedgerCorrupt: If the file of the head cannot be read.
        """
        if self.given_path is None:
            return
        with _connected(self.path) as connection:
            connection.execute("BEGIN IMMEDIATE")  # undone on leaving; the lock is what is needed
            earlier = self._given()
            newest = self._position(connection, head)
            if earlier is None or self._position(connection, earlier) < newest:
                self._hook("before given")
                _replace_durably(self.given_path, {"head": head, "seq": newest})
                self._hook("after given")

    def give_anew(self, head: str) -> None:
        """Replaces what is kept of heads given away, after the officer declared their rows lost."""
        if self.given_path is not None:
            _replace_durably(self.given_path, {"head": head, "seq": self.position(head)})

    def check_given(self) -> None:
        """Checks that the newest head that was given away is still in the database.

        Raises:
            LedgerRolledBack: If it is not: the rows after some older copy are missing.
            LedgerCorrupt: If the file of the head cannot be read.
        """
        head = self._given()
        if head is not None:
            self.position(head)

    def _given(self) -> str | None:
        if self.given_path is None:
            return None
        try:
            text = self.given_path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            value = json.loads(text)
        except ValueError as error:
            raise LedgerCorrupt(f"{self.given_path} is not JSON: {error}. {RESTORE}") from error
        if not isinstance(value, dict) or not isinstance(value.get("head"), str):
            raise LedgerCorrupt(f"{self.given_path} does not name a head. {RESTORE}")
        return str(value["head"])

    def _read_anchor(self) -> dict[str, Any] | None:
        try:
            text = self.anchor_path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            anchor = json.loads(text)
        except ValueError as error:
            raise LedgerCorrupt(f"{self.anchor_path} is not JSON: {error}. {RESTORE}") from error
        if not isinstance(anchor, dict) or not isinstance(anchor.get("seq"), int):
            raise LedgerCorrupt(f"{self.anchor_path} does not name a row. {RESTORE}")
        return anchor

    def _check_anchor(self, connection: sqlite3.Connection, anchor: dict[str, Any] | None, newest: Row | None) -> None:
        seq = 0 if newest is None else newest.seq
        if anchor is None:
            # Only the first row can be without an anchor: a crash while creating, with nothing spent yet.
            if seq > 1:
                raise LedgerRolledBack(f"{self.anchor_path} is missing beside a ledger of {seq} rows. {RESTORE}")
            return
        if anchor["seq"] > seq:
            raise LedgerRolledBack(
                f"{self.path} is an older copy: it ends at {seq}, its anchor at {anchor['seq']}. {RESTORE}"
            )
        found = connection.execute("SELECT hash FROM ledger WHERE seq = ?", (anchor["seq"],)).fetchone()
        if found is None or found[0] != anchor.get("hash"):
            raise LedgerRolledBack(
                f"{self.path} has another row {anchor['seq']} than its anchor: another history. {RESTORE}"
            )

    def _write_anchor(self) -> None:
        with _connected(self.path) as connection:
            connection.execute("BEGIN IMMEDIATE")  # undone on leaving; the lock is what is needed
            seq, head = connection.execute("SELECT seq, hash FROM ledger ORDER BY seq DESC LIMIT 1").fetchone()
            _replace_durably(self.anchor_path, {"seq": seq, "hash": head}, lambda: self._hook("before anchor"))
            self._hook("after anchor")


def _replace_durably(path: Path, value: dict[str, Any], before_rename: Callable[[], None] = lambda: None) -> None:
    """Leaves `path` with either its old or its new content, whatever crashes."""
    draft = path.with_name(path.name + ".new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(rfc8785.dumps(value) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    before_rename()
    draft.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return  # elsewhere a folder cannot be opened; the file system orders renames by itself
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection; what was not committed on leaving is undone. SQLite's errors come out as ours."""
    try:
        # mode=rw: a missing file is an error, never a fresh and empty ledger.
        uri = f"{path.absolute().as_uri()}?mode=rw"
        connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode=DELETE")
            connection.execute("PRAGMA synchronous=EXTRA")
            connection.execute("PRAGMA fullfsync=1")
            yield connection
        finally:
            connection.close()
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise LedgerBusy(f"{path} is locked by another process for {_BUSY_TIMEOUT_S:g} s: try again") from error
        if code == sqlite3.SQLITE_CANTOPEN and not path.exists():
            raise LedgerUnusable(f"{path}: there is no ledger. Create it once, at the site's setup") from error
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
            raise LedgerCorrupt(f"{path} is not an intact ledger: {error}. {RESTORE}") from error
        raise LedgerUnusable(f"{path}: {error}") from error


def _insert(connection: sqlite3.Connection, body: dict[str, Any], newest: Row | None) -> Row:
    seq, previous = (1, NO_ROW) if newest is None else (newest.seq + 1, newest.hash)
    whole = {**body, "seq": seq, "previous": previous}
    text = rfc8785.dumps(whole).decode()
    row = Row(seq, row_hash(text), whole)
    connection.execute("INSERT INTO ledger (seq, row, hash) VALUES (?, ?, ?)", (seq, text, row.hash))
    return row


def _rows_after(connection: sqlite3.Connection, last: Row | None) -> list[Row]:
    """The rows from `last` on, each checked against the one before; `last` itself must still be there."""
    triggers = connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'trigger'").fetchone()[0]
    if triggers != len(_SCHEMA) - 1:
        raise LedgerCorrupt(f"the ledger's append-only triggers were dropped. {RESTORE}")
    stored = connection.execute(
        "SELECT seq, row, hash FROM ledger WHERE seq >= ? ORDER BY seq", (0 if last is None else last.seq,)
    ).fetchall()
    if last is not None:
        if not stored or stored[0][2] != last.hash:
            raise LedgerRolledBack(f"ledger row {last.seq} was there and is gone or changed. {RESTORE}")
        stored = stored[1:]
    rows: list[Row] = []
    for seq, text, stored_hash in stored:
        last = _check_row(seq, text, stored_hash, last)
        rows.append(last)
    if last is None:
        raise LedgerCorrupt(f"the ledger has no rows. {RESTORE}")
    return rows


def _check_row(seq: int, text: str, stored_hash: str, before: Row | None) -> Row:
    expected, previous = (1, NO_ROW) if before is None else (before.seq + 1, before.hash)
    if seq != expected:
        raise LedgerCorrupt(f"ledger row {expected} is missing: the next one stored is {seq}. {RESTORE}")
    if row_hash(text) != stored_hash:
        raise LedgerCorrupt(
            f"ledger row {seq} was altered: expected the hash {stored_hash}, got {row_hash(text)}. {RESTORE}"
        )
    try:
        body = json.loads(text)
    except ValueError as error:
        raise LedgerCorrupt(f"ledger row {seq} is not JSON: {error}. {RESTORE}") from error
    if not isinstance(body, dict) or body.get("seq") != seq or body.get("previous") != previous:
        raise LedgerCorrupt(f"ledger row {seq} does not continue the chain from {previous}. {RESTORE}")
    return Row(seq, stored_hash, body)
