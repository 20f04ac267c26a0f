"""What the ledger tells the hospital's privacy officer: spent, reserved and left, by cohort and run.

The epsilons by privacy loss distributions (PLD) are the numbers to report; what is left is by Renyi DP, as
admission counts, which is a little stricter (see `privacy.accounting`). Everything here is public within the
hospital: no value is computed from patient data.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from privacy import accounting
from privacy.events import NEIGHBORING_RELATION, UNIT, Charge, Tuning
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
        epsilon: Of the committed events alone, by the reporting accountant.
        epsilon_rdp: The same by Renyi DP.
        held_rdp: What it still holds reserved adds to what the cohort spent, by Renyi DP; 0 once closed.
        events: What was reserved and committed, in words, one line for each kind of event.
        is_open: Whether it can still commit.
    """

    run_id: str
    plan_hash: str
    reserved: int
    committed: int
    epsilon: float
    epsilon_rdp: float
    held_rdp: float
    events: tuple[str, ...]
    is_open: bool


@dataclass(frozen=True)
class CohortSummary:
    """One cohort. Epsilons at the budget's delta.

    Attributes:
        cohort: The cohort.
        budget: Set by the officer.
        suspended: Whether the budget waits for the officer, after a loss of history.
        history_lost: Whether more may have been spent than is known.
        spent: Committed, by the reporting accountant: the number to report.
        spent_rdp: Committed, by Renyi DP.
        reserved: What open reservations add to `spent`.
        reserved_rdp: What they add to `spent_rdp`.
        left: The budget less these two. Epsilons do not add up: a further plan that costs less than this is
            admitted easily, and one that costs more may still be. Ask `Ledger.price`.
        accountant: What gave `spent` and `reserved`.
        runs: By run, in the order of reservation.
    """

    cohort: str
    budget: Budget
    suspended: bool
    history_lost: bool
    spent: float
    spent_rdp: float
    reserved: float
    reserved_rdp: float
    left: float
    accountant: str
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
    mine = [run for run in book.reservations.values() if run.cohort == name]
    held = [item for run in mine for item in repeated(run.held())]
    reported, spent_rdp = accounting.epsilon(spent, delta), accounting.rdp_epsilon(spent, delta)
    runs = tuple(
        RunSummary(
            run_id=run.run_id,
            plan_hash=run.plan_hash,
            reserved=sum(run.events.values()),
            committed=sum(item.count for item in run.committed.values()),
            epsilon=accounting.epsilon(run.committed.values(), delta),
            epsilon_rdp=accounting.rdp_epsilon(run.committed.values(), delta),
            held_rdp=accounting.rdp_epsilon([*spent, *repeated(run.held())], delta) - spent_rdp,
            events=tuple(
                f"{count - run.left[event]} of {count} x {in_words(event)}" for event, count in run.events.items()
            ),
            is_open=not run.closed,
        )
        for run in mine
    )
    return CohortSummary(
        cohort=name,
        budget=cohort.budget,
        suspended=cohort.withdrawn,
        history_lost=cohort.history_lost,
        spent=reported,
        spent_rdp=spent_rdp,
        reserved=accounting.epsilon([*spent, *held], delta) - reported,
        reserved_rdp=0.0 if price is None else price.reserved,
        left=0.0 if price is None else price.left,
        accountant=accounting.accountant([*spent, *held]),
        runs=runs,
    )


def in_words(event: Charge) -> str:
    """An event on one line, with what decides its price."""
    if isinstance(event, Tuning):
        trial = "; ".join(f"{item.count} x {in_words(item.event)}" for item in event.trial)
        return f"tuning, {event.mean_trials:g} trials on average, each {trial}"
    words = f"{event.kind}, noise {event.noise_multiplier:g}"
    if event.sampling_prob < 1.0:
        words += f", sampling {event.sampling_prob:g}"
    if event.mechanisms > 1:
        words += f", {event.mechanisms} steps"
    return words
