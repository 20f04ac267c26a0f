"""Runs: who was asked, what became of each round, what it cost. What goes on right now is `jobs.records`' business."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select

from admin_api.errors import NotKnown
from admin_api.reading.room import ReadingRoom
from admin_api.reading.slices import MOST, Slice, piece, taken
from admin_api.reading.tables import PartRow, RunRow, VersionRow, table
from audit.canonical import parse_time
from audit.lineage_rows import DROPPED, TABLES, TOOK_PART

_RUN, _PART = table(RunRow), table(PartRow)
_ROUND, _PARTICIPANT = TABLES["lineage_round"].c, TABLES["lineage_participant"].c


@dataclass(frozen=True)
class Run:
    """A run as its entries so far have it."""

    run: str
    entry: int  # that started it
    started: datetime
    plan_hash: str
    title: str | None  # the plan's; None where its text is not kept here
    task: str | None
    state: str  # started, finished
    finished_entry: int | None
    finished: datetime | None
    planned: int | None  # aggregations
    completed: int
    aborted: int
    last_round: int
    dropouts: int  # hospitals missing, summed over all rounds
    participants: int  # in the last round
    asked: int
    accepted: int
    refused: int
    initial_version: str
    version: str  # after the last completed round
    epsilon: float | None  # once finished
    delta: float | None
    accountant: str | None
    last_entry: int
    last_time: datetime


@dataclass(frozen=True)
class Part:
    """A hospital's part in a run."""

    run: str
    site: str
    entry: int  # that first names it there
    time: datetime
    state: str  # asked, accepted, refused
    reserved: float  # epsilon
    manifest: str | None
    code: str | None  # of its refusal, with the guard's words
    reason: str | None
    rounds: int
    dropped: int
    last_round: int


@dataclass(frozen=True)
class Round:
    """A secure aggregation."""

    entry: int
    run: str
    number: int
    state: str  # completed, aborted
    took_part: tuple[str, ...]
    dropped: tuple[str, ...]
    version_out: str | None


def listed(
    room: ReadingRoom,
    *,
    state: str | None = None,
    plan: str | None = None,
    only: str | None = None,
    limit: int = 50,
    after: str | None = None,
) -> Slice[Run]:
    """Runs, newest first. Raises BadCursor."""
    query = select(_RUN)
    if state is not None:
        query = query.where(_RUN.c.state == state)
    if plan is not None:
        query = query.where(_RUN.c.plan_hash == plan)
    if only is not None:
        query = query.where(_RUN.c.run.in_(select(_PART.c.run).where(_PART.c.site == only)))
    with room.rows() as connection:
        return piece(
            connection,
            query,
            lambda rows: [_made(row) for row in rows],
            by=(_RUN.c.entry,),
            descending=True,
            limit=limit,
            after=after,
        )


def one(room: ReadingRoom, run: str) -> Run:
    """The run of this name; raises NotKnown."""
    with room.rows() as connection:
        row = connection.execute(select(_RUN).where(_RUN.c.run == run)).one_or_none()
    if row is None:
        raise NotKnown(f"the log knows no run {run}")
    return _made(row)


def several(room: ReadingRoom, names: Iterable[str]) -> Mapping[str, Run]:
    """These runs by name; those that the log does not know are left out."""
    with room.rows() as connection:
        rows = connection.execute(select(_RUN).where(_RUN.c.run.in_(sorted(set(names)))))
        return {row.run: _made(row) for row in rows}


def of_version(room: ReadingRoom, version: str) -> Run:
    """The run that made a version; raises NotKnown."""
    columns = table(VersionRow).c
    made_by = select(columns.run).where(columns.version == version)
    with room.rows() as connection:
        row = connection.execute(select(_RUN).where(_RUN.c.run.in_(made_by))).one_or_none()
    if row is None:
        raise NotKnown(f"the log knows no version {version}")
    return _made(row)


def parts(room: ReadingRoom, run: str) -> tuple[Part, ...]:
    """Every hospital that a run names, by name."""
    query = select(_PART).where(_PART.c.run == run).order_by(_PART.c.site)
    with room.rows() as connection:
        return tuple(part_of(row) for row in connection.execute(query))


def parts_of_several(room: ReadingRoom, names: Iterable[str]) -> Mapping[str, tuple[Part, ...]]:
    """The same of several runs."""
    found: defaultdict[str, tuple[Part, ...]] = defaultdict(tuple)
    query = select(_PART).where(_PART.c.run.in_(sorted(set(names)))).order_by(_PART.c.run, _PART.c.site)
    with room.rows() as connection:
        for row in connection.execute(query):
            found[row.run] += (part_of(row),)
    return found


def rounds(room: ReadingRoom, run: str, *, first: int = 1, limit: int = MOST) -> tuple[Round, ...]:
    """The rounds of a run from number `first` on, in order, with who took part and who dropped out.

    An aborted round and the one that repeats nothing of it have numbers of their own. Read from the log's lineage.
    """
    query = (
        select(_ROUND.entry, _ROUND.run_id, _ROUND.round, _ROUND.state, _ROUND.version_out)
        .where(_ROUND.run_id == run, _ROUND.round >= first)
        .order_by(_ROUND.round, _ROUND.entry)
        .limit(limit)
    )
    with room.log.rows() as connection:
        found = connection.execute(query).all()
        parts: defaultdict[tuple[int, str], list[str]] = defaultdict(list)
        if found:
            within = select(_PARTICIPANT.entry, _PARTICIPANT.site, _PARTICIPANT.part).where(
                _PARTICIPANT.entry.in_([row.entry for row in found])
            )
            for entry, site, part in connection.execute(within.order_by(_PARTICIPANT.entry, _PARTICIPANT.position)):
                parts[entry, part].append(site)
    return tuple(
        Round(
            entry=row.entry,
            run=row.run_id,
            number=row.round,
            state=row.state,
            took_part=tuple(parts[row.entry, TOOK_PART]),
            dropped=tuple(parts[row.entry, DROPPED]),
            version_out=row.version_out,
        )
        for row in found
    )


def part_of(row: Row[Any]) -> Part:
    """A row of the table, as it is handed out."""
    return taken(row, Part)


def _made(row: Row[Any]) -> Run:
    finished = None if row.finished_time is None else parse_time(row.finished_time, "time")
    return taken(row, Run, started=parse_time(row.time, "time"), finished=finished)
