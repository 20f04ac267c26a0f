"""Versions: which run made them from what, how good they are where, and what became of them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, or_, select

from admin_api.errors import NotKnown
from admin_api.reading.reports import Report, of_versions
from admin_api.reading.room import ReadingRoom
from admin_api.reading.slices import MOST, Slice, piece, taken
from admin_api.reading.tables import ParentRow, PartRow, ReleaseRow, ReportRow, VersionRow, table

_VERSION = table(VersionRow)
_V = _VERSION.c
_RELEASE, _PARENT = table(ReleaseRow).c, table(ParentRow).c


@dataclass(frozen=True)
class ReleaseRef:
    """A release that a version was put up for."""

    release: str
    state: str


@dataclass(frozen=True)
class Version:
    """A model's state: what rounds `first_round` to `last_round` of a run made of its parents."""

    version: str
    entry: int
    time: datetime
    task: str | None
    run: str
    plan_hash: str
    first_round: int
    last_round: int
    model: str  # digest of the weights
    parents: tuple[str, ...]
    children: tuple[str, ...]  # of `one` only
    epsilon: float | None  # of its run; those of the runs before come on top
    delta: float | None
    reports: int
    releases: tuple[ReleaseRef, ...]


@dataclass(frozen=True)
class VersionReports:
    """A version in a series, with what hospitals reported about it."""

    version: str
    entry: int
    time: datetime
    releases: tuple[ReleaseRef, ...]
    reports: tuple[Report, ...]


def listed(
    room: ReadingRoom,
    *,
    task: str | None = None,
    run: str | None = None,
    only: str | None = None,
    limit: int = 50,
    after: str | None = None,
) -> Slice[Version]:
    """Versions, newest first; `only`: those this hospital helped to make or reported about. Raises BadCursor."""
    query = select(_VERSION)
    if task is not None:
        query = query.where(_V.task == task)
    if run is not None:
        query = query.where(_V.run == run)
    if only is not None:
        parts, reports = table(PartRow).c, table(ReportRow).c
        query = query.where(
            or_(
                _V.run.in_(select(parts.run).where(parts.site == only)),
                _V.version.in_(select(reports.version).where(reports.site == only)),
            )
        )
    with room.rows() as connection:
        return piece(
            connection,
            query,
            lambda rows: _made(connection, rows),
            by=(_V.entry,),
            descending=True,
            limit=limit,
            after=after,
        )


def one(room: ReadingRoom, version: str) -> Version:
    """The version with this digest; raises NotKnown."""
    with room.rows() as connection:
        rows = connection.execute(select(_VERSION).where(_V.version == version)).all()
        if not rows:
            raise NotKnown(f"no version {version} was made here")
        children = connection.execute(select(_PARENT.version).where(_PARENT.parent == version).limit(MOST))
        return _made(connection, rows, children=tuple(row.version for row in children))[0]


def ancestry(room: ReadingRoom, version: str, *, limit: int = 20) -> tuple[Version, ...]:
    """The version and those it was made from, each from the first of its parents, newest first, at most `limit`.

    It ends where no entry made the parent: at a version that a plan fixed as its start. Raises NotKnown.
    """
    rows: list[Row[Any]] = []
    wanted: str | None = version
    with room.rows() as connection:
        while wanted is not None and len(rows) < limit:
            row = connection.execute(select(_VERSION).where(_V.version == wanted)).one_or_none()
            if row is None:
                break
            rows.append(row)
            parents = json.loads(row.parents)
            wanted = parents[0] if parents else None
        if not rows:
            raise NotKnown(f"no version {version} was made here")
        return tuple(_made(connection, rows))


def series(room: ReadingRoom, task: str, *, site: str | None = None, limit: int = 50) -> tuple[VersionReports, ...]:
    """The last `limit` versions of a task, oldest first, each with its reports' headline cells (of one hospital)."""
    query = select(_VERSION).where(_V.task == task).order_by(_V.entry.desc()).limit(min(limit, MOST))
    with room.rows() as connection:
        made = _made(connection, connection.execute(query).all())
    reports: defaultdict[str, list[Report]] = defaultdict(list)
    for each in of_versions(room, [version.version for version in made], site=site):
        reports[each.version].append(each)
    return tuple(
        VersionReports(each.version, each.entry, each.time, each.releases, tuple(reports[each.version]))
        for each in reversed(made)
    )


def _made(connection: Connection, rows: Sequence[Row[Any]], children: tuple[str, ...] = ()) -> list[Version]:
    releases = _releases(connection, [row.version for row in rows])
    return [
        taken(
            row,
            Version,
            parents=tuple(json.loads(row.parents)),
            children=children,
            releases=releases.get(row.version, ()),
        )
        for row in rows
    ]


def _releases(connection: Connection, versions: Sequence[str]) -> Mapping[str, tuple[ReleaseRef, ...]]:
    found: defaultdict[str, tuple[ReleaseRef, ...]] = defaultdict(tuple)
    query = select(_RELEASE.version, _RELEASE.release, _RELEASE.state).where(_RELEASE.version.in_(versions))
    for version, release, state in connection.execute(query.order_by(_RELEASE.entry)):
        found[version] += (ReleaseRef(release, state),)
    return found
