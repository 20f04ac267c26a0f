"""The privacy loss that entries tell of: from a statement to the rows of its hospital and cohort.

What is spent follows from what was signed or logged, and from nothing else: an acceptance reserves the epsilon it
states; a finished run turns the reservation of each hospital that took part in a round into the run's epsilon; a report
about a version costs what its mechanism states. Epsilons are added up (basic composition). A run that was given up has
no entry that says so: its reservations stay. What a hospital's own ledger holds is known where it says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from admin_api.reading.fold import Fold
from admin_api.reading.rows import Row
from admin_api.reading.tables import HospitalRow, PointRow, PrivacyRow

TRAINING, VALIDATION = "training", "validation"  # cohorts, as hospitals name them
RESERVED, SPENT, ENDED, REPORTED, STATED = "reserved", "spent", "ended", "reported", "stated"


def figure(value: object) -> float | None:
    """A number that a hospital may have stated, or None."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def spend(
    fold: Fold,
    site: str,
    cohort: str,
    event: str,
    run_id: str,
    epsilon: float,
    delta: float | None,
    *,
    spent: float = 0.0,
    reserved: float = 0.0,
) -> None:
    """Count a privacy loss, and keep the totals after it as a point of the burn-down."""
    row = _privacy(fold, site, cohort)
    row["spent"] += spent
    row["reserved"] = max(0.0, row["reserved"] + reserved)
    row["events"] += 1
    _point(fold, row, event, run_id, epsilon, delta)
    hospital = fold.rows.change(HospitalRow, site)
    if hospital is not None and cohort == TRAINING:  # cohorts are different patients; the sums are not added up
        hospital["spent"] += spent
        hospital["reserved"] = max(0.0, hospital["reserved"] + reserved)


def stated(fold: Fold, site: str, run_id: str, statement: Mapping[str, Any]) -> None:
    """Where the hospital's ledger stands, where its signed statement says so (audit.schema: `budgets`)."""
    for budget in statement.get("budgets", ()):
        row = _privacy(fold, site, budget["cohort"])
        row["budget"], row["budget_delta"] = float(budget["epsilon"]), float(budget["delta"])
        row["ledger_spent"], row["ledger_reserved"] = float(budget["spent"]), float(budget["reserved"])
        row["stated_entry"] = fold.index
        _point(fold, row, STATED, run_id, 0.0, None)


def _privacy(fold: Fold, site: str, cohort: str) -> Row:
    row = fold.rows.change(PrivacyRow, site, cohort)
    if row is None:
        row = fold.rows.put(PrivacyRow, site=site, cohort=cohort, spent=0.0, reserved=0.0, events=0)
    row["last_entry"], row["last_time"] = fold.index, fold.time
    return row


def _point(fold: Fold, row: Row, event: str, run_id: str, epsilon: float, delta: float | None) -> None:
    """One per entry and cohort: what is counted takes the place of what was only stated."""
    totals = {field: row[field] for field in ("spent", "reserved", "budget", "ledger_spent", "ledger_reserved")}
    if row["stated_entry"] != fold.index:  # what it stated earlier says nothing about now
        totals["ledger_spent"] = totals["ledger_reserved"] = None
    fold.rows.put(
        PointRow, site=row["site"], entry=fold.index, cohort=row["cohort"], time=fold.time, event=event, run=run_id,
        epsilon=epsilon, delta=delta, **totals,
    )  # fmt: skip
