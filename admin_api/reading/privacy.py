"""What the log knows of patients' privacy loss at each hospital.

Epsilons are added up as they were stated (basic composition): never less than what a hospital's own ledger counts for
the same runs, usually more. What its ledger holds, budget, spent and reserved, is known as of the hospital's last
signed acceptance or report; hospitals with earlier software do not say it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, select

from admin_api.reading.room import ReadingRoom
from admin_api.reading.slices import MOST, Slice, piece, taken
from admin_api.reading.tables import PointRow, PrivacyRow, table

SORTS = ("site", "spent", "reserved", "left", "when")

_PRIVACY, _POINT = table(PrivacyRow), table(PointRow)
_P = _PRIVACY.c
_STATED = and_(_P.budget.is_not(None), _P.ledger_spent.is_not(None))
_SPENT = case((_STATED, _P.ledger_spent), else_=_P.spent)
_BEYOND = 1e300  # more than any budget
_RESERVED = case((and_(_STATED, _P.ledger_reserved.is_not(None)), _P.ledger_reserved), else_=_P.reserved)


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


def sliced(
    room: ReadingRoom,
    *,
    search: str = "",
    sort: str = "site",
    descending: bool = False,
    only: str | None = None,
    limit: int = 50,
    after: str | None = None,
) -> Slice[CohortPrivacy]:
    """The cohorts of hospitals whose name holds `search`, a piece at a time.

    `sort`: a word of SORTS, by what the ledger said where it did, else by what the log adds up. Where no budget is
    known, nothing is known to be left: these come last by `left`, either way. Raises BadCursor.
    """
    sorts: Mapping[str, ColumnElement[Any]] = {
        "site": func.lower(_P.site),
        "spent": _SPENT,
        "reserved": _RESERVED,
        "left": func.coalesce(_P.budget - _SPENT - _RESERVED, -_BEYOND if descending else _BEYOND),
        "when": _P.last_entry,
    }
    query = select(_PRIVACY)
    if only is not None:
        query = query.where(_P.site == only)
    if search:
        query = query.where(func.lower(_P.site).contains(search.lower(), autoescape=True))
    with room.rows() as connection:
        return piece(
            connection,
            query,
            lambda rows: [taken(row, CohortPrivacy) for row in rows],
            by=(sorts[sort], _P.site, _P.cohort),
            descending=descending,
            limit=limit,
            after=after,
        )


def course(room: ReadingRoom, site: str, cohort: str, *, stated: bool, most: int) -> tuple[Point, ...]:
    """How a cohort's loss grew, oldest first, in at most `most` points: the first, the last, and evenly between them.

    `stated`: only points at which the hospital's ledger said where it stands, else only those without such a word;
    their sums do not belong in one line. `most` is at least 2.
    """
    columns = _POINT.c
    word = columns.ledger_spent.is_not(None) if stated else columns.ledger_spent.is_(None)
    mine = select(
        _POINT,
        (func.row_number().over(order_by=columns.entry) - 1).label("place"),
        func.count().over().label("all"),
    ).where(columns.site == site, columns.cohort == cohort, word)
    numbered = mine.subquery()
    # The points whose place times (most - 1) passes a multiple of (all - 1): at most `most`, the ends among them.
    n, steps = numbered.c.place, most - 1
    spans = case((numbered.c.all > most, numbered.c.all - 1), else_=steps)
    kept = (n == 0) | (n * steps // spans > (n - 1) * steps // spans)
    with room.rows() as connection:
        rows = connection.execute(select(numbered).where(kept).order_by(numbered.c.entry))
        return tuple(taken(row, Point) for row in rows)


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
