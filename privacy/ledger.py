"""A hospital's own durable record of privacy spent, and the budget that it enforces.

    created -> budget set by the officer -> reserve (a plan) -> commit (each round) ... -> close

Invariants:
- Spent before released: `commit` returns only when the spend is durable, and only then may anything leave.
- Never twice: a second `commit` for the same key of a run is `AlreadySpent`, after a crash too. A round whose
  commit was interrupted is therefore lost to the run, not repeated.
- Never refunded: closing a run gives back what was reserved and not committed, nothing else.
- Never overspent: `reserve` admits a plan only if all that was spent and reserved, and the plan, fit the
  cohort's budget by an RDP filter. Deciding and writing is one transaction under SQLite's write lock, so two
  processes cannot both take the last of a budget.
- Nothing in the ledger is computed from patient data: events, names, hashes and times only.
- Every row is hash-chained and the head is anchored; see `privacy.ledger_store` for the crash order.

Example:
    ledger = Ledger.create(path, site="amsterdam", clock=clock)
    ledger.set_budget("training", epsilon=3.0, delta=1e-6, officer="J. de Vries", reason="DPIA 2026-04")
    ledger.reserve(run_id, "training", [Repeated(TrainingRound(0.01, 1.1), 500)], plan_hash=plan_hash)
    ledger.commit(run_id, "round 1", TrainingRound(0.01, 1.1))   # then, and only then, upload
    ledger.close(run_id)
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeAlias

from privacy import accounting
from privacy.errors import AlreadySpent, BudgetExceeded, LedgerCorrupt, LedgerError, NotReserved
from privacy.events import Charge, Repeated, tally
from privacy.ledger_book import Admission, Book, Reservation
from privacy.ledger_store import Hook, Row, Rows, no_hook
from privacy.ledger_summary import LedgerSummary, summarise

Clock: TypeAlias = Callable[[], datetime]
"""Gives the time, with a time zone."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


class Ledger:
    """One hospital's ledger. Safe for several threads and processes. Made by `create` or `open`."""

    def __init__(self, rows: Rows, clock: Clock) -> None:
        self._rows = rows
        self._clock = clock
        self._lock = threading.Lock()
        self._book = Book()
        self._last: Row | None = None

    @classmethod
    def create(
        cls, path: Path, *, site: str, clock: Clock, hook: Hook = no_hook, given_path: Path | None = None
    ) -> Self:
        """Makes a new ledger, once in a hospital's life.

        Args:
            path: The database file; an anchor file is kept beside it.
            site: The hospital's name in the federation.
            clock: Gives the time, with a time zone.
            hook: Called around durable steps; for crash tests.
            given_path: File that keeps the newest head given away; see `hand_out`.

        Raises:
            LedgerError: If the file or its anchor exists, or a head of an earlier ledger was given away.
        """
        rows = Rows(path, hook=hook, given_path=given_path)
        ledger = cls(rows, clock)
        rows.create({"kind": "ledger.created", "site": _text("site", site), "time": ledger._now()})
        return cls.open(path, clock=clock, hook=hook, given_path=given_path)

    @classmethod
    def open(cls, path: Path, *, clock: Clock, hook: Hook = no_hook, given_path: Path | None = None) -> Self:
        """Opens a ledger and checks its whole chain.

        Raises:
            LedgerCorrupt, LedgerRolledBack: If it is not the one that was written; says how to recover.
            LedgerError: If there is none.
        """
        ledger = cls(Rows(path, hook=hook, given_path=given_path), clock)
        ledger._refresh()
        ledger._rows.check_given()
        return ledger

    @classmethod
    def unread(cls, path: Path, *, clock: Clock, given_path: Path | None = None) -> Self:
        """A ledger that is read and checked with its first use, for who wants to hear of damage then."""
        return cls(Rows(path, given_path=given_path), clock)

    @classmethod
    def recover(
        cls,
        path: Path,
        *,
        officer: str,
        reason: str,
        clock: Clock,
        hook: Hook = no_hook,
        given_path: Path | None = None,
    ) -> Self:
        """Declares that the newest rows are gone for good and goes on from the intact older copy at `path`.

        Everything that was reserved counts as spent, since it may have been released, and all budgets are
        suspended: nothing is admitted until the officer sets them again. The loss stays in the record.

        Args:
            path: An older copy with an intact chain.
            officer: Who declares it.
            reason: What happened.
            clock: Gives the time.
            hook, given_path: As in `create`.

        Raises:
            LedgerError: If the ledger is intact and there is nothing to recover.
            LedgerCorrupt: If the chain of the copy itself is broken.
        """
        ledger = cls(Rows(path, hook=hook, given_path=given_path), clock)
        try:
            ledger._refresh()
            ledger._rows.check_given()
        except LedgerCorrupt as error:
            loss = str(error)
        else:
            raise LedgerError(
                f"{path} is intact and agrees with its anchor and with what was given away: there is nothing to recover"
            )
        ledger = cls(ledger._rows, clock)
        body = {
            "kind": "history.lost",
            "officer": _text("officer", officer),
            "reason": _text("reason", reason),
        }
        row = ledger._append(lambda: {**body, "loss": loss}, trust_anchor=False)
        if row is None:
            raise RuntimeError("a declared loss always appends a row")
        ledger._rows.give_anew(row.hash)  # a crash before this leaves a ledger that still refuses: declare it again
        return ledger

    @property
    def head(self) -> str:
        """The hash of the last row, which commits to the whole ledger; goes into receipts."""
        with self._lock:
            return self._refresh().hash

    def hand_out(self, head: str | None = None) -> str:
        """The head for a statement that leaves the hospital, kept durably as given away before it is.

        With a `given_path`, a ledger that lost this row later admits nothing more, even if its anchor was put back
        to an older copy with it.

        Args:
            head: One that `commit` returned; the last row's if not given.

        Raises:
            LedgerRolledBack: If the ledger does not have it, or lost the one given away before.
        """
        given = self.head if head is None else head
        with self._lock:
            self._rows.give(given)
        return given

    def position(self, head: str) -> int:
        """The seq of the row with this hash; raises `LedgerRolledBack` if a head given away is not there."""
        return self._rows.position(head)

    def check(self) -> None:
        """Reads every row again and derives the chain and the book anew.

        Raises:
            LedgerCorrupt: Naming the first bad row.
            LedgerRolledBack: If the anchor knows more, or a head that was given away is missing.
        """
        _book(self._rows.read(None))
        self._rows.check_given()

    def set_budget(self, cohort: str, *, epsilon: float, delta: float, officer: str, reason: str) -> None:
        """Sets or changes a cohort's budget; the officer's confirmation is the caller's task.

        A budget below what was spent refuses every further reservation; it undoes nothing.

        Args:
            cohort: Such as "training" or "validation".
            epsilon: What may be spent in all by the admission filter, in (0, 200].
            delta: In (0, 1); at most 1 in 10 times the number of patients, rounded down to a power of ten.
            officer: Who sets it.
            reason: Why.

        Raises:
            AccountingError: If epsilon or delta is out of range.
            LedgerError: If a text is empty or not printable.
        """
        accounting.check_epsilon(epsilon)
        accounting.check_delta(delta)
        body = {
            "kind": "budget.set",
            "cohort": _text("cohort", cohort),
            "epsilon": epsilon,
            "delta": delta,
            "officer": _text("officer", officer),
            "reason": _text("reason", reason),
        }
        with self._lock:
            self._append(lambda: body)

    def run_ids(self) -> frozenset[str]:
        """The runs that have, or had, a reservation."""
        with self._lock:
            self._refresh()
            return frozenset(run_id for run_id, _ in self._book.reservations)

    def committed(self, run_id: str, cohort: str) -> frozenset[str]:
        """The keys a run has committed on a cohort, such as "round 7"; none for a run without a reservation."""
        with self._lock:
            self._refresh()
            reservation = self._book.reservations.get((run_id, cohort))
            return frozenset() if reservation is None else frozenset(reservation.committed)

    def price(self, cohort: str, events: Iterable[Charge | Repeated] = ()) -> Admission:
        """What `reserve` would find, without reserving.

        Raises:
            BudgetMissing: If no officer has set a budget.
        """
        with self._lock:
            self._refresh()
            return self._book.price(cohort, events)

    def reserve(self, run_id: str, cohort: str, events: Iterable[Charge | Repeated], *, plan_hash: str) -> Admission:
        """Sets aside what a run will spend on a cohort, before it reads data.

        Asking again with the same arguments, as after a crash, changes nothing.

        Args:
            run_id: The run.
            cohort: The cohort.
            events: All that the run will commit.
            plan_hash: Digest of the approved plan.

        Returns:
            Where the cohort stands with this reservation included in `reserved`.

        Raises:
            BudgetMissing: If no officer has set a budget.
            BudgetExceeded: If the budget does not admit it; nothing is reserved.
            LedgerRolledBack: If the record lacks what was given away: it does not know all that was spent.
            LedgerError: If the run has another reservation on this cohort or has ended.
        """
        if not _DIGEST.match(plan_hash):
            raise LedgerError(f"plan_hash must be sha256:<64 lowercase hex>, got {plan_hash!r}")
        counts = tally(events)
        if not counts:
            raise LedgerError(f"run {run_id!r} asks to reserve nothing on cohort {cohort!r}")
        items = [Repeated(event, count).to_json() for event, count in counts.items()]
        body = {
            "kind": "run.reserved",
            "run_id": _text("run_id", run_id),
            "cohort": _text("cohort", cohort),
            "plan_hash": plan_hash,
            "events": items,
        }

        def decide() -> dict[str, Any] | None:
            self._rows.check_given()
            earlier = self._book.reservations.get((run_id, cohort))
            if earlier is not None:
                if earlier.closed or earlier.events != counts or earlier.plan_hash != plan_hash:
                    state = "was closed" if earlier.closed else "has another reservation"
                    raise LedgerError(f"run {run_id!r} {state} on cohort {cohort!r}: start a new run")
                return None
            price = self._book.price(cohort, [Repeated(event, count) for event, count in counts.items()])
            if not price.admitted:
                raise BudgetExceeded(
                    cohort=cohort,
                    budget=price.budget,
                    spent=price.spent,
                    reserved=price.reserved,
                    asked=price.asked,
                    total=price.total,
                )
            return {**body, "order": price.order}

        with self._lock:
            self._append(decide)
            return self._book.price(cohort, ())

    def commit(self, run_id: str, key: str, event: Charge | Repeated, *, cohort: str | None = None) -> str:
        """Spends one reserved event, durably, before its result is released.

        Args:
            run_id: The run.
            key: What is released, unique in the run and cohort, such as "round 7".
            event: Exactly what was reserved; several at once as `Repeated`.
            cohort: Needed if the run reserved on several cohorts.

        Returns:
            The head, which commits to this spend.

        Raises:
            AlreadySpent: If this key was committed before: release nothing for it.
            NotReserved: If the run has no open reservation with this event left.
        """
        item = event if isinstance(event, Repeated) else Repeated(event, 1)
        body = {
            "kind": "round.committed",
            "run_id": run_id,
            "key": _text("key", key),
            "event": item.to_json(),
        }

        def decide() -> dict[str, Any]:
            reservation = self._book.reservation(run_id, cohort)
            if key in reservation.committed:
                raise AlreadySpent(
                    f"run {run_id!r}, cohort {reservation.cohort!r}: {key!r} was committed before; "
                    "nothing may be released for it again. Leave it out and go on with the next"
                )
            _check_covered(reservation, item)
            return {**body, "cohort": reservation.cohort}

        with self._lock:
            row = self._append(decide)
            if row is None:
                raise RuntimeError("a commit always appends a row")
            return row.hash

    def close(self, run_id: str, *, cohort: str | None = None) -> None:
        """Ends a run's reservations (one cohort's, or all): what was not committed is given back.

        Closing again changes nothing.

        Raises:
            NotReserved: If the run has no reservation.
        """

        def decide() -> dict[str, Any] | None:
            runs = self._book.reservations
            mine = [item for (run, name), item in runs.items() if run == run_id and cohort in (None, name)]
            if not mine:
                self._book.reservation(run_id, cohort)
            names = [item.cohort for item in mine if not item.closed]
            return {"kind": "run.closed", "run_id": run_id, "cohorts": names} if names else None

        with self._lock:
            self._append(decide)

    def summary(self) -> LedgerSummary:
        """What was spent, reserved and is left, by cohort and run. The first PLD takes up to seconds."""
        rows = self._rows.read(None)
        return summarise(_book(rows), rows[-1])

    def _now(self) -> str:
        time = self._clock()
        if time.tzinfo is None:
            raise RuntimeError("the ledger's clock must give times with a time zone")
        return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def _take(self, rows: list[Row]) -> None:
        for row in rows:
            self._book.apply(row)
            self._last = row

    def _refresh(self) -> Row:
        """Takes in what other processes have written; checks the chain, the anchor and our own last row."""
        self._take(self._rows.read(self._last))
        if self._last is None:
            raise RuntimeError("a ledger that could be read has a row")
        return self._last

    def _append(self, decide: Callable[[], dict[str, Any] | None], *, trust_anchor: bool = True) -> Row | None:
        """Appends what `decide` makes of the up-to-date book."""

        def decide_now(rows: list[Row]) -> dict[str, Any] | None:
            self._take(rows)
            body = decide()
            return None if body is None else {**body, "time": self._now()}

        row = self._rows.append(self._last, decide_now, trust_anchor=trust_anchor)
        if row is not None:
            self._take([row])
        return row


def _book(rows: list[Row]) -> Book:
    book = Book()
    for row in rows:
        book.apply(row)
    return book


def _check_covered(reservation: Reservation, item: Repeated) -> None:
    where = f"run {reservation.run_id!r}, cohort {reservation.cohort!r}"
    if reservation.closed:
        raise NotReserved(f"{where}: the run was closed and spends nothing more")
    left = reservation.held().get(item.event, 0)
    if left < item.count:
        raise NotReserved(
            f"{where}: asked {item.count} x {item.event}, left {left} of "
            f"{reservation.events.get(item.event, 0)} reserved. "
            "Only what the approved plan reserved can be released"
        )


def _text(name: str, value: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 500 or not value.isprintable():
        raise LedgerError(f"{name} must be a printable text of 1 to 500 characters, got {value!r}")
    return value
