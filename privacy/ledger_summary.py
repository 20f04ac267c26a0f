"""What the ledger tells the hospital's privacy officer: spent, reserved and left, by cohort and run.

The PLD epsilons are the numbers to report; what is left is by Renyi DP, as admission counts, which is a
little stricter (see `privacy.accounting`). Everything here is public within the hospital: no value
is computed from patient data.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from privacy import accounting
from privacy.events import NEIGHBORING_RELATION, UNIT
from privacy.ledger_book import Book, Budget, repeated
from privacy.ledger_store import Row


@dataclass(frozen=True)
class RunSummary:
    """One run on one cohort.

    Attributes:
        run_id: The run.
        plan_hash: Its plan.
        reserved: Events reserved.
        committed: Events committed.
        epsilon_rdp: Of the committed events alone.
        is_open: Whether it can still commit.
    """

    run_id: str
    plan_hash: str
    reserved: int
    committed: int
    epsilon_rdp: float
    is_open: bool


@dataclass(frozen=True)
class CohortSummary:
    """One cohort. Epsilons at the budget's delta.

    Attributes:
        cohort: The cohort.
        budget: Set by the officer.
        suspended: Whether the budget waits for the officer, after a loss of history.
        history_lost: Whether more may have been spent than is known.
        spent: Committed, by PLD: the number to report.
        spent_rdp: Committed, by Renyi DP.
        reserved_rdp: What open reservations add to it.
        left: The budget less these two. Epsilons do not add up: a further plan that costs less than this is
            admitted easily, and one that costs more may still be. Ask `Ledger.price`.
        runs: By run, in the order of reservation.
    """

    cohort: str
    budget: Budget
    suspended: bool
    history_lost: bool
    spent: float
    spent_rdp: float
    reserved_rdp: float
    left: float
    runs: tuple[RunSummary, ...]


@dataclass(frozen=True)
class LedgerSummary:
    """The whole ledger, for the officer."""

    site: str
    unit: str
    neighboring_relation: str
    head: str
    rows: int
    accountant: str
    admission: str
    cohorts: tuple[CohortSummary, ...]

    def to_json(self) -> dict[str, Any]:
        """The summary as a JSON object."""
        return asdict(self)


def summarise(book: Book, last: Row) -> LedgerSummary:
    """The summary of a book whose last row is `last`."""
    return LedgerSummary(
        site=book.site,
        unit=UNIT,
        neighboring_relation=NEIGHBORING_RELATION,
        head=last.hash,
        rows=last.seq,
        accountant=accounting.accountant(),
        admission=accounting.admission_accountant(),
        cohorts=tuple(_cohort(book, name) for name in sorted(book.cohorts)),
    )


def _cohort(book: Book, name: str) -> CohortSummary:
    cohort = book.cohorts[name]
    delta, spent = cohort.budget.delta, repeated(cohort.spent)
    price = None if cohort.withdrawn else book.price(name, ())
    runs = tuple(
        RunSummary(
            run_id=run.run_id,
            plan_hash=run.plan_hash,
            reserved=sum(run.events.values()),
            committed=sum(item.count for item in run.committed.values()),
            epsilon_rdp=accounting.rdp_epsilon(run.committed.values(), delta),
            is_open=not run.closed,
        )
        for run in book.reservations.values()
        if run.cohort == name
    )
    return CohortSummary(
        cohort=name,
        budget=cohort.budget,
        suspended=cohort.withdrawn,
        history_lost=cohort.history_lost,
        spent=accounting.epsilon(spent, delta),
        spent_rdp=accounting.rdp_epsilon(spent, delta),
        reserved_rdp=0.0 if price is None else price.reserved,
        left=0.0 if price is None else price.left,
        runs=runs,
    )
