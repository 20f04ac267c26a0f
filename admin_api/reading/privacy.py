"""What the log knows of patients' privacy loss at each hospital.

Epsilons are added up as they were stated (basic composition): never less than what a hospital's own ledger counts for
the same runs, usually more. What its ledger holds, budget, spent and reserved, is known as of the hospital's last
signed acceptance or report; hospitals with earlier software do not say it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from admin_api.reading.room import ReadingRoom
from admin_api.reading.slices import MOST, Slice, piece, taken
from admin_api.reading.tables import PointRow, PrivacyRow, table

_PRIVACY, _POINT = table(PrivacyRow), table(PointRow)


@dataclass(frozen=True)
class CohortPrivacy:
    """A cohort at a hospital: epsilons of its patients."""

    site: str
    cohort: str  # training, validation
    spent: float  # by finished runs it took part in, or reports
    reserved: float  # by runs it accepted that go on, or were given up
    budget: float | None  # this and the next three as the hospital's ledger last said, by Renyi DP at its delta
    budget_delta: float | None
    ledger_spent: float | None
    ledger_reserved: float | None
    stated_entry: int | None
    events: int
    last_entry: int
    last_time: datetime


@dataclass(frozen=True)
class Point:
    """A change of that, with the totals after it."""

    entry: int
    time: datetime
    site: str
    cohort: str
    event: str  # reserved, spent (the run finished), ended (it finished without this hospital), reported, stated
    run: str
    epsilon: float
    delta: float | None
    spent: float
    reserved: float
    budget: float | None
    ledger_spent: float | None
    ledger_reserved: float | None


def of_hospital(room: ReadingRoom, site: str) -> tuple[CohortPrivacy, ...]:
    """A hospital's cohorts, by name."""
    return listed(room, only=site)


def listed(room: ReadingRoom, *, only: str | None = None) -> tuple[CohortPrivacy, ...]:
    """Every cohort of every hospital of which the log knows a loss, by hospital."""
    query = select(_PRIVACY).order_by(_PRIVACY.c.site, _PRIVACY.c.cohort)
    if only is not None:
        query = query.where(_PRIVACY.c.site == only)
    with room.rows() as connection:
        return tuple(taken(row, CohortPrivacy) for row in connection.execute(query))


def points(
    room: ReadingRoom, site: str, *, cohort: str | None = None, limit: int = MOST, after: str | None = None
) -> Slice[Point]:
    """How a hospital's loss grew, newest first. Raises BadCursor."""
    columns = _POINT.c
    query = select(_POINT).where(columns.site == site)
    if cohort is not None:
        query = query.where(columns.cohort == cohort)
    with room.rows() as connection:
        return piece(
            connection,
            query,
            lambda rows: [taken(row, Point) for row in rows],
            by=(columns.entry, columns.cohort),
            descending=True,
            limit=limit,
            after=after,
        )
