"""What a hospital must never forget about a run: which rounds it masked, signed and unmasked.

Invariants:
  - once `record` returned, every later `record` of the same act and round fails, also after a crash, a power
    cut or a restart on the same database;
  - masked rounds only go forward: a round at or below the last one masked is refused.

Attack prevented: the server (or a restart) makes a hospital take part twice in one round. Two vectors under
one mask give their difference; two survivors' sets give two sums, whose difference is one hospital's vector;
two unmaskings give both a hospital's self mask and its pairwise masks. The client records *before* it acts,
so a crash between the two loses the round, never the promise.

No secret is stored here.
"""

import contextlib
import enum
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from privacy.secagg.errors import SecAggMemoryError, SecAggReplayError

BUSY_TIMEOUT_S = 10.0


class Act(enum.StrEnum):
    """What a hospital does at most once per round."""

    MASKED = "masked"
    SIGNED = "signed"
    REVEALED = "revealed"


class RoundMemory(Protocol):
    """Durable memory with one promise: once recorded, never forgotten."""

    def last_masked(self, run: str) -> int:
        """The last round of the run that was masked; 0 if none."""
        ...

    def record(self, run: str, round_number: int, act: Act, digest: bytes) -> None:
        """Records an act durably before it is done.

        Args:
          run: `SecAggParameters.run_label`.
          round_number: 1 or more.
          act: what is about to be done.
          digest: 32 bytes that say with what: the directory, the signed set, the shares.

        Raises:
          SecAggReplayError: the act was recorded for this round before, or a round at or after it was masked.
          SecAggMemoryError: it could not be made durable; the act must not be done.
        """
        ...


def _replay(run: str, round_number: int, act: Act) -> SecAggReplayError:
    return SecAggReplayError(
        "server",
        f"asks that round {round_number} of {run} be {act} again; expected a round after every round masked "
        f"before, and each act once. Go on with a new round number",
    )


class InMemoryRoundMemory:
    """For tests and simulations: forgets when the process ends, so it must not guard real data."""

    def __init__(self) -> None:
        self.acts: dict[tuple[str, int, Act], bytes] = {}

    def last_masked(self, run: str) -> int:
        """See `RoundMemory.last_masked`."""
        return max((r for name, r, act in self.acts if name == run and act is Act.MASKED), default=0)

    def record(self, run: str, round_number: int, act: Act, digest: bytes) -> None:
        """See `RoundMemory.record`."""
        stale = act is Act.MASKED and round_number <= self.last_masked(run)
        if stale or (run, round_number, act) in self.acts:
            raise _replay(run, round_number, act)
        self.acts[(run, round_number, act)] = digest


class SqliteRoundMemory:
    """The acts in one SQLite file, each committed to disk before `record` returns.

    `synchronous=EXTRA` is FULL plus a sync of the directory after the rollback journal is removed: with FULL
    alone a power cut may bring the journal back and roll the last commit back. Every call opens and closes
    its own connection, so any thread or process of the hospital may call.

    Args:
      path: the database file; made if missing. Its directory must exist and be on a local disk.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._transaction() as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS secagg_act ("
                "run TEXT NOT NULL, round INTEGER NOT NULL, act TEXT NOT NULL, digest BLOB NOT NULL, "
                "PRIMARY KEY (run, round, act)) STRICT"
            )

    def last_masked(self, run: str) -> int:
        """See `RoundMemory.last_masked`."""
        with self._transaction() as connection:
            return _last_masked(connection, run)

    def record(self, run: str, round_number: int, act: Act, digest: bytes) -> None:
        """See `RoundMemory.record`."""
        with self._transaction() as connection:
            if act is Act.MASKED and round_number <= _last_masked(connection, run):
                raise _replay(run, round_number, act)
            done = connection.execute(
                "SELECT 1 FROM secagg_act WHERE run = ? AND round = ? AND act = ?", (run, round_number, act)
            ).fetchone()
            if done is not None:
                raise _replay(run, round_number, act)
            connection.execute(
                "INSERT INTO secagg_act (run, round, act, digest) VALUES (?, ?, ?, ?)",
                (run, round_number, act, digest),
            )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with contextlib.closing(
                sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            ) as connection:
                connection.execute("PRAGMA synchronous=EXTRA")
                # Takes the write lock first, so that two processes cannot both find an act undone.
                connection.execute("BEGIN IMMEDIATE")
                yield connection  # an exception skips the commit; closing then rolls back
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise SecAggMemoryError(
                f"{self._path}: {error}; the round is not joined. Free the disk or repair the file; "
                f"never replace it by an empty one while its runs go on"
            ) from error


def _last_masked(connection: sqlite3.Connection, run: str) -> int:
    row = connection.execute(
        "SELECT max(round) FROM secagg_act WHERE run = ? AND act = ?", (run, Act.MASKED)
    ).fetchone()
    return int(row[0] or 0)
