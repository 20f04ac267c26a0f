"""What the ledger's rows add up to: budgets, reservations and commits of each cohort.

Invariants:
- The book is a function of the rows alone; `Book.apply` refuses a row that the ledger would not have written.
- Committed is spent, whether or not the release happened; reserved and not committed is given back only by
  closing the run.
- The filter's order is fixed by the last reservation before the cohort's first commit (see
  `privacy.accounting`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from privacy import accounting
from privacy.errors import BudgetMissing, LedgerCorrupt, NotReserved, PrivacyError
from privacy.events import Charge, Repeated, repeated_from_json, tally
from privacy.ledger_store import RESTORE, Row


@dataclass(frozen=True)
class Budget:
    """What an officer allows to be spent on a cohort.

    Attributes:
        epsilon: By the admission filter, at `delta`.
        delta: In (0, 1).
        officer: Who set it.
        reason: Why, in the officer's words.
        time: When, RFC 3339 UTC.
    """

    epsilon: float
    delta: float
    officer: str
    reason: str
    time: str


@dataclass(frozen=True)
class Admission:
    """Where a cohort stands, and where it would stand with the events asked about. Epsilons by Renyi DP.

    `spent`, `reserved` and `asked` are at the best order, `total` is at the filter's order: it decides.

    Attributes:
        cohort: The cohort.
        budget: Its budget.
        delta: Of the budget and of every epsilon here.
        order: The filter's order.
        spent: Committed.
        reserved: What open reservations add to `spent`.
        asked: The events asked about, on their own; 0 if none.
        total: Everything together, in the filter; admitted if it is at most `budget`.
    """

    cohort: str
    budget: float
    delta: float
    order: float
    spent: float
    reserved: float
    asked: float
    total: float

    @property
    def left(self) -> float:
        """What remains of the budget before what is asked."""
        return max(0.0, self.budget - self.spent - self.reserved)

    @property
    def admitted(self) -> bool:
        """Whether the budget admits the total."""
        return self.total <= self.budget


@dataclass
class Reservation:
    """What one run may spend on one cohort.

    Attributes:
        run_id: The run.
        cohort: The cohort.
        plan_hash: The plan that was reserved for.
        events: How often each event may happen.
        committed: What was spent under which key.
        left: How often each event may still happen; what it held is given back once closed.
        closed: Whether the run has ended.
    """

    run_id: str
    cohort: str
    plan_hash: str
    events: dict[Charge, int]
    left: dict[Charge, int]
    committed: dict[str, Repeated] = field(default_factory=dict)
    closed: bool = False

    def held(self) -> dict[Charge, int]:
        """What is set aside: reserved and not committed; nothing once closed."""
        return {} if self.closed else {event: count for event, count in self.left.items() if count}


@dataclass
class Cohort:
    """One cohort's state.

    Attributes:
        name: The cohort.
        budget: The officer's budget in force; after a loss of history the last one, for its delta.
        withdrawn: Whether a loss of history suspended the budget until an officer sets it again.
        history_lost: Whether rows were ever lost, so that more may have been spent than is known.
        order: The filter's order, once something was reserved.
        spent: Committed events.
    """

    name: str
    budget: Budget
    withdrawn: bool = False
    history_lost: bool = False
    order: float | None = None
    spent: dict[Charge, int] = field(default_factory=dict)


class Book:
    """The state after some rows."""

    def __init__(self) -> None:
        self.site = ""
        self.cohorts: dict[str, Cohort] = {}
        self.reservations: dict[tuple[str, str], Reservation] = {}

    def cohort(self, name: str) -> Cohort:
        """The cohort with a budget in force; raises `BudgetMissing`."""
        cohort = self.cohorts.get(name)
        if cohort is None:
            raise BudgetMissing(f"cohort {name!r} has no budget: the hospital's privacy officer sets it first")
        if cohort.withdrawn:
            raise BudgetMissing(
                f"cohort {name!r}: the ledger's history was lost, so its budget is suspended until the "
                "privacy officer sets it again, taking into account what may have been spent"
            )
        return cohort

    def reservation(self, run_id: str, cohort: str | None) -> Reservation:
        """The run's reservation, of its only cohort if none is named; raises `NotReserved`."""
        found = [item for (run, name), item in self.reservations.items() if run == run_id and cohort in (None, name)]
        if not found:
            where = "" if cohort is None else f" on cohort {cohort!r}"
            raise NotReserved(f"run {run_id!r} has no reservation{where}: reserve before the first round")
        if len(found) > 1:
            names = sorted(item.cohort for item in found)
            raise NotReserved(f"run {run_id!r} has reservations on {names}: name the cohort")
        return found[0]

    def price(self, name: str, asked: Iterable[Charge | Repeated]) -> Admission:
        """Prices a cohort with further events; see `Admission`."""
        cohort = self.cohort(name)
        counts = tally(asked)
        spent = repeated(cohort.spent)
        held = [
            item
            for reservation in self.reservations.values()
            if reservation.cohort == name
            for item in repeated(reservation.held())
        ]
        extra, delta = repeated(counts), cohort.budget.delta
        order = cohort.order
        if order is None or not spent:
            # Nothing was released: the order may still be chosen, in view of plans alone.
            order = accounting.filter_order([*held, *extra], target_epsilon=cohort.budget.epsilon, delta=delta)

        def cost(events: list[Repeated]) -> float:
            return accounting.rdp_epsilon(events, delta)

        cost_spent = cost(spent)
        return Admission(
            cohort=name,
            budget=cohort.budget.epsilon,
            delta=delta,
            order=order,
            spent=cost_spent,
            reserved=cost([*spent, *held]) - cost_spent,
            asked=cost(extra),
            total=accounting.rdp_epsilon([*spent, *held, *extra], delta, order=order),
        )

    def apply(self, row: Row) -> None:
        """Takes one more row into account.

        Raises:
            LedgerCorrupt: If the ledger would not have written this row here.
        """
        try:
            self._apply(row.body)
        except (KeyError, TypeError, PrivacyError) as error:
            raise LedgerCorrupt(f"ledger row {row.seq} makes no sense: {error!r}. {RESTORE}") from error

    def _apply(self, body: dict[str, Any]) -> None:
        kind = body["kind"]
        if (kind == "ledger.created") != (body["seq"] == 1):
            raise KeyError(f"{kind} at row {body['seq']}")
        if kind == "ledger.created":
            self.site = body["site"]
        elif kind == "budget.set":
            accounting.check_epsilon(body["epsilon"])
            accounting.check_delta(body["delta"])
            budget = Budget(
                epsilon=float(body["epsilon"]),  # RFC 8785 writes 3.0 as 3
                delta=float(body["delta"]),
                officer=body["officer"],
                reason=body["reason"],
                time=body["time"],
            )
            cohort = self.cohorts.setdefault(body["cohort"], Cohort(body["cohort"], budget))
            cohort.budget, cohort.withdrawn = budget, False
        elif kind == "run.reserved":
            self.cohort(body["cohort"]).order = body["order"]
            events = tally(repeated_from_json(item) for item in body["events"])
            reservation = Reservation(body["run_id"], body["cohort"], body["plan_hash"], events, dict(events))
            if self.reservations.setdefault((body["run_id"], body["cohort"]), reservation) is not reservation:
                raise KeyError(f"run {body['run_id']} reserved twice")
        elif kind == "round.committed":
            event = repeated_from_json(body["event"])
            reservation = self.reservation(body["run_id"], body["cohort"])
            left = reservation.held().get(event.event, 0)
            if left < event.count or body["key"] in reservation.committed:
                raise KeyError(f"commit {body['key']} of run {body['run_id']} is not reserved or a second one")
            reservation.left[event.event] = left - event.count
            reservation.committed[body["key"]] = event
            self._spend(body["cohort"], event.event, event.count)
        elif kind == "run.closed":
            for name in body["cohorts"]:
                self.reservation(body["run_id"], name).closed = True
        elif kind == "history.lost":
            self._lose_history()
        else:
            raise KeyError(f"unknown kind {kind}")

    def _spend(self, name: str, event: Charge, count: int) -> None:
        spent = self.cohorts[name].spent
        spent[event] = spent.get(event, 0) + count

    def _lose_history(self) -> None:
        """What was reserved may have been released: it is spent, and no budget is in force any more."""
        for reservation in self.reservations.values():
            for event, count in reservation.held().items():
                self._spend(reservation.cohort, event, count)
            reservation.closed = True
        for cohort in self.cohorts.values():
            cohort.withdrawn = cohort.history_lost = True


def repeated(counts: dict[Charge, int]) -> list[Repeated]:
    """Counts of events as a list of repetitions."""
    return [Repeated(event, count) for event, count in counts.items()]
