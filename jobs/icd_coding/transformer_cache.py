"""Feature vectors computed before, on the hospital's disk.

A transformer reads a letter in a fraction of a second; a hospital has hundreds of thousands, and the letters of last
year's plan are those of this year's. The cache keeps each letter's vector under a key that commits to the model, to
everything that shapes the vector, and to the text.

Invariants:

- Never trusted: a row whose checksum or length is wrong counts as absent, and is written anew. A file that is no
  database, or a damaged one, is dropped whole; the cache can always be computed again.
- Private: a vector says much about its letter. The file is readable by its owner only.
- Several processes may read and write one file. A kill at any moment leaves the rows of the batches before; SQLite
  rolls an unfinished batch back.
- No text is stored, and no name of a patient; keys are SHA-256.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jobs.icd_coding.errors import EncoderError

_LOG = logging.getLogger(__name__)

_BUSY_TIMEOUT_S = 60.0
_KEYS_PER_QUERY = 500
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_STORED = np.dtype("<f4")


class FeatureCache:
    """Vectors of one length in one SQLite file; nothing is held open between calls.

    Args:
        path: the file; made with its folder when the first row is written.
        features: length of every vector.
    """

    def __init__(self, path: Path, *, features: int) -> None:
        self.path = path
        self._features = features

    def read(self, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """The intact vectors among `keys`. Raises: EncoderError when the file cannot be read."""
        found: dict[bytes, NDArray[np.float32]] = {}
        if not self.path.exists():
            return found
        damaged = 0
        try:
            with self._connected() as connection:
                for start in range(0, len(keys), _KEYS_PER_QUERY):
                    some = keys[start : start + _KEYS_PER_QUERY]
                    marks = ",".join("?" * len(some))
                    query = f"SELECT key, vector, checksum FROM feature WHERE key IN ({marks})"  # noqa: S608
                    for key, vector, checksum in connection.execute(query, some):
                        if self._intact(key, vector, checksum):
                            found[key] = np.frombuffer(vector, dtype=_STORED).astype(np.float32)
                        else:
                            damaged += 1
        except sqlite3.DatabaseError as error:
            self._drop_if_damaged(error)
            return {}
        if damaged:
            _LOG.warning("%s: %d damaged rows are computed again", self.path, damaged)
        return found

    def write(self, rows: Mapping[bytes, NDArray[np.float32]]) -> None:
        """Keep these vectors, all or none. Raises: EncoderError when they cannot be written."""
        values = []
        for key, row in rows.items():
            if row.shape != (self._features,):
                raise EncoderError(f"feature cache: expected vectors of {self._features} numbers, got {row.shape}")
            vector = row.astype(_STORED).tobytes()
            values.append((key, vector, _checksum(key, vector)))
        try:
            self._insert(values)
        except sqlite3.DatabaseError as error:
            self._drop_if_damaged(error)
            try:
                self._insert(values)
            except sqlite3.DatabaseError as again:
                raise self._unusable(again) from again

    def _insert(self, values: list[tuple[bytes, bytes, bytes]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600))  # SQLite gives its journal the same mode
        with self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS feature ("
                "key BLOB PRIMARY KEY, vector BLOB NOT NULL, checksum BLOB NOT NULL) STRICT, WITHOUT ROWID"
            )
            connection.executemany("INSERT OR REPLACE INTO feature VALUES (?, ?, ?)", values)
            connection.execute("COMMIT")

    def _intact(self, key: object, vector: object, checksum: object) -> bool:
        if not isinstance(key, bytes) or not isinstance(vector, bytes):
            return False
        if len(vector) != self._features * _STORED.itemsize or checksum != _checksum(key, vector):
            return False
        return bool(np.isfinite(np.frombuffer(vector, dtype=_STORED)).all())

    def _drop_if_damaged(self, error: sqlite3.DatabaseError) -> None:
        """Remove a file that is no database any more; raise EncoderError for any other trouble.

        Another process that has the old file open goes on with it and finds the new one at its next call.
        """
        if _no_table(error):
            return  # another process made the file and has not committed its table yet
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGED:
            raise self._unusable(error) from error
        _LOG.warning("%s is damaged (%s) and is made anew", self.path, error)
        self.path.with_name(self.path.name + "-journal").unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def _unusable(self, error: sqlite3.DatabaseError) -> EncoderError:
        return EncoderError(f"feature cache {self.path}: {error}; free the disk or remove the file and run again")

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
        try:
            yield connection
        finally:
            connection.close()


def _no_table(error: sqlite3.DatabaseError) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "no such table" in str(error)


def _checksum(key: bytes, vector: bytes) -> bytes:
    return hashlib.sha256(key + vector).digest()
