"""Hospitals: how far each has come, what it holds, and what it has said and done.

What the log does not know is not here: connections, the software's version, the release in use at the coder's desk.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, case, func, or_, select

from admin_api.errors import NotKnown
from admin_api.reading.certificates import EXPIRED, GOOD, NOT_YET_VALID, WARNING_DAYS, state_of
from admin_api.reading.reports import Report, report_of
from admin_api.reading.room import ReadingRoom
from admin_api.reading.runs import Part, part_of
from admin_api.reading.slices import Slice, piece, taken
from admin_api.reading.tables import CertificateRow, HospitalRow, ManifestRow, PartRow, ReportRow, table
from audit.canonical import format_time, parse_time
from audit.certificates import CLIENT
from audit.revocation import REVOKED, SUSPENDED

CERTIFIED, DATA, EVALUATED, TRAINED = "certified", "data", "evaluated", "trained"
JOURNEY = (CERTIFIED, DATA, EVALUATED, TRAINED)
ENDS_SOON = "ends soon"
STANDINGS = (GOOD, ENDS_SOON, EXPIRED, NOT_YET_VALID, SUSPENDED, REVOKED)
ALL = "all"

_BEST_FIRST = (GOOD, NOT_YET_VALID, EXPIRED, SUSPENDED, REVOKED)
_HOSPITAL = table(HospitalRow)
_H, _C = _HOSPITAL.c, table(CertificateRow).c


@dataclass(frozen=True)
class Step:
    """A step of a hospital's journey, with the entry that shows it."""

    word: str
    entry: int
    time: datetime


@dataclass(frozen=True)
class Hospital:
    """A hospital as the log knows it, as of a moment."""

    name: str
    organisation: str
    since: datetime
    journey: tuple[Step, ...]  # the steps reached: certified, data, evaluated, trained
    reached: str  # the last of them in this order
    standing: str  # of its best certificate: good, ends soon, expired, not yet valid, suspended, revoked
    until: datetime | None  # end of that certificate
    days: int | None  # left
    certificates: int
    manifest: str | None  # digest of the latest; the next five are what it says, None where suppressed
    patients: int | None
    admissions: int | None
    period_first: str | None
    period_last: str | None
    manifests: int
    asked: int  # runs
    accepted: int
    refused: int
    rounds: int  # completed rounds it took part in; as many receipts
    dropped: int
    receipts: int
    reports: int
    last_entry: int  # its last signed word, or the last change of its certificates
    last_time: datetime
    last_run: str | None
    last_version: str | None  # that it reported about
    spent: float  # epsilons of training patients that the log knows, added up
    reserved: float


@dataclass(frozen=True)
class Manifest:
    """What a hospital announced about its data. Counts under 10 are None."""

    entry: int
    time: datetime
    site: str
    manifest: str
    patients: int | None
    admissions: int | None
    period_first: str | None
    period_last: str | None
    certificate: str


def listed(
    room: ReadingRoom,
    *,
    now: datetime,
    search: str = "",
    state: str | None = None,
    sort: str = "name",
    descending: bool = False,
    only: str | None = None,
    limit: int = 50,
    after: str | None = None,
) -> Slice[Hospital]:
    """Hospitals whose name holds `search`, in a state: a word of JOURNEY or of STANDINGS.

    `sort`: name, days, last, trained, evaluated, patients, receipts, spent. Raises BadCursor.
    """
    best = _best(format_time(now.replace(microsecond=0)))
    sorts: Mapping[str, ColumnElement[Any]] = {
        "name": _H.folded,
        "days": best,
        "last": _H.last_entry,
        "trained": func.coalesce(_H.trained_entry, -1),
        "evaluated": func.coalesce(_H.evaluated_entry, -1),
        "patients": func.coalesce(_H.patients, -1),
        "receipts": _H.rounds,
        "spent": _H.spent,
    }
    query = select(_HOSPITAL)
    if only is not None:
        query = query.where(_H.site == only)
    if search:
        query = query.where(_H.folded.contains(search.casefold(), autoescape=True))
    if state in JOURNEY:
        query = query.where(_reached() == state)
    with room.rows() as connection:
        if state is not None and state not in JOURNEY:
            those = [site for site, standing in _standings(connection, now).items() if standing.word == state]
            query = query.where(_H.site.in_(those))
        return piece(
            connection,
            query,
            lambda rows: _made(connection, rows, now),
            by=(sorts[sort], _H.site),
            descending=descending,
            limit=limit,
            after=after,
        )


def one(room: ReadingRoom, site: str, *, now: datetime) -> Hospital:
    """The hospital of this name; raises NotKnown."""
    with room.rows() as connection:
        rows = connection.execute(select(_HOSPITAL).where(_H.site == site)).all()
        if not rows:
            raise NotKnown(f"no hospital is called {site} here")
        return _made(connection, rows, now)[0]


def counts(room: ReadingRoom, *, now: datetime) -> Mapping[str, int]:
    """How many hospitals there are, by the words of JOURNEY and of STANDINGS, and of all."""
    with room.rows() as connection:
        reached = connection.execute(select(_H.site, _reached())).all()
        standings = _standings(connection, now)
    found = Counter(dict.fromkeys((*JOURNEY, *STANDINGS), 0))
    found.update(word for _, word in reached)
    found.update(standing.word for standing in standings.values())
    return {ALL: len(reached), **found}


def manifests(room: ReadingRoom, site: str, *, limit: int = 50, after: str | None = None) -> Slice[Manifest]:
    """What a hospital announced about its data, newest first."""
    columns = table(ManifestRow).c
    return _of_site(room, table(ManifestRow), columns.site == site, columns.entry, _manifest, limit, after)


def parts(room: ReadingRoom, site: str, *, limit: int = 50, after: str | None = None) -> Slice[Part]:
    """The runs a hospital was asked for, newest first, and what became of that."""
    columns = table(PartRow).c
    return _of_site(room, table(PartRow), columns.site == site, columns.entry, part_of, limit, after, columns.run)


def reports(room: ReadingRoom, site: str, *, limit: int = 50, after: str | None = None) -> Slice[Report]:
    """A hospital's metrics over versions, newest first; the headline cells."""
    columns = table(ReportRow).c
    return _of_site(room, table(ReportRow), columns.site == site, columns.entry, report_of, limit, after)


def _of_site(
    room: ReadingRoom, source: Any, condition: Any, entry: Any, make: Any, limit: int, after: str | None, *further: Any
) -> Slice[Any]:
    with room.rows() as connection:
        return piece(
            connection,
            select(source).where(condition),
            lambda rows: [make(row) for row in rows],
            by=(entry, *further),
            descending=True,
            limit=limit,
            after=after,
        )


def _reached() -> ColumnElement[str]:
    """The last step of the journey, for a query."""
    return case(
        (_H.trained_entry.is_not(None), TRAINED),
        (_H.evaluated_entry.is_not(None), EVALUATED),
        (_H.data_entry.is_not(None), DATA),
        else_=CERTIFIED,
    )


def _best(moment: str) -> ColumnElement[str]:
    """When the best certificate of a hospital ends, for a query: the latest among those that nobody barred."""
    free = or_(_C.status.is_(None), _C.status.not_in((SUSPENDED, REVOKED)))
    latest = select(func.max(_C.not_after)).where(_C.holder == _H.site, _C.role == CLIENT, free).scalar_subquery()
    return func.coalesce(latest, "")


@dataclass(frozen=True)
class _Standing:
    """In a word, how many certificates a hospital holds, and when the one the word is about ends."""

    word: str
    certificates: int
    until: datetime | None
    days: int | None


_NONE = _Standing(EXPIRED, 0, None, None)


def _standings(connection: Connection, now: datetime, sites: Sequence[str] | None = None) -> dict[str, _Standing]:
    """Of these hospitals, or all; those without a certificate are left out."""
    query = select(_C.holder, _C.status, _C.not_before, _C.not_after).where(_C.role == CLIENT)
    if sites is not None:
        query = query.where(_C.holder.in_(sites))
    moment = format_time(now)
    held: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for row in connection.execute(query):
        held[row.holder].append((state_of(row, moment), row.not_after))
    return {site: _standing(each, now) for site, each in held.items()}


def _standing(held: Sequence[tuple[str, str]], now: datetime) -> _Standing:
    """From states and ends of certificates: of those in the best state the one that ends last."""
    state = min((each for each, _ in held), key=_BEST_FIRST.index)
    end = max(not_after for each, not_after in held if each == state)
    until = parse_time(end, "not_after")
    days = (until - now) // timedelta(days=1)
    return _Standing(ENDS_SOON if state == GOOD and days < WARNING_DAYS else state, len(held), until, days)


def _made(connection: Connection, rows: Sequence[Row[Any]], now: datetime) -> list[Hospital]:
    standings = _standings(connection, now, [row.site for row in rows])
    return [_hospital(row, standings.get(row.site, _NONE)) for row in rows]


def _hospital(row: Row[Any], standing: _Standing) -> Hospital:
    steps = (
        (CERTIFIED, row.entry, row.time),
        (DATA, row.data_entry, row.data_time),
        (EVALUATED, row.evaluated_entry, row.evaluated_time),
        (TRAINED, row.trained_entry, row.trained_time),
    )
    journey = tuple(Step(word, entry, parse_time(time, "time")) for word, entry, time in steps if entry is not None)
    return taken(
        row,
        Hospital,
        name=row.site,
        since=parse_time(row.time, "time"),
        journey=journey,
        reached=journey[-1].word,
        standing=standing.word,
        until=standing.until,
        days=standing.days,
        certificates=standing.certificates,
        receipts=row.rounds,
    )


def _manifest(row: Row[Any]) -> Manifest:
    return taken(row, Manifest)
