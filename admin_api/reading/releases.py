"""Releases and what they are judged by: states in time, gates and policies, empirical privacy audits.

States are those of the log's moves, each of which was judged when it was logged (`audit.release_state`).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, select
from sqlalchemy.orm import aliased

from admin_api.errors import NotKnown
from admin_api.reading.certificates import signers
from admin_api.reading.room import ReadingRoom
from admin_api.reading.slices import Slice, piece, taken
from admin_api.reading.tables import (
    CodeRow,
    GateSetRow,
    PlanRow,
    PrivacyAuditRow,
    ReleaseEventRow,
    ReleaseRow,
    VersionRow,
    table,
)
from audit.canonical import parse_time
from audit.gates import GateRule
from audit.release import Policy, ReleaseStatement
from audit.release_state import CERTIFIED

_RELEASE, _EVENT, _GATES, _AUDIT = table(ReleaseRow), table(ReleaseEventRow), table(GateSetRow), table(PrivacyAuditRow)
_R = _RELEASE.c


@dataclass(frozen=True)
class Release:
    """A release in its newest state."""

    release: str
    task: str
    version: str
    statement: str  # digest; the text is an artifact, see `statement`
    predecessor: str | None  # the release it would replace
    state: str  # candidate, certified, superseded, withdrawn
    since: datetime
    state_entry: int
    proposer: str
    proposer_name: str
    proposed_entry: int
    proposed: datetime
    certified_entry: int | None
    certified: datetime | None
    superseded_by: str | None
    withdrawal: str | None  # digest of the last one proposed; carried out when `state` says withdrawn
    withdrawal_entry: int | None
    withdrawal_by: str | None
    withdrawal_by_name: str
    withdrawal_reason: str
    approvals: int
    refusals: int


@dataclass(frozen=True)
class Event:
    """Something that happened to a release."""

    entry: int
    time: datetime
    event: str  # candidate, approved, refused, certified, superseded, withdrawal proposed/approved/refused, withdrawn
    person: str | None  # who signed; None where the log's keeper carried out what others had signed
    name: str
    reason: str
    other: str | None  # the release that replaces it


@dataclass(frozen=True)
class GateSet:
    """Gates and policy that a release manager set for the runs that start after it."""

    entry: int
    time: datetime
    task: str
    digest: str
    by: str | None
    by_name: str
    rules: tuple[GateRule, ...]
    policy: Policy
    reason: str


@dataclass(frozen=True)
class PrivacyAudit:
    """An empirical privacy audit that a privacy officer or the authority signed."""

    entry: int
    time: datetime
    audited_at: datetime
    report: str  # digest
    software: str
    claim: float  # epsilon
    lower_bound: float  # the epsilon that was found
    delta: float
    passed: bool
    quick: bool
    by: str | None
    by_name: str


def listed(
    room: ReadingRoom,
    *,
    task: str | None = None,
    state: str | None = None,
    search: str = "",
    limit: int = 50,
    after: str | None = None,
) -> Slice[Release]:
    """Releases whose name holds `search`, newest first. Raises BadCursor."""
    query = select(_RELEASE)
    if task is not None:
        query = query.where(_R.task == task)
    if state is not None:
        query = query.where(_R.state == state)
    if search:
        query = query.where(_R.folded.contains(search.casefold(), autoescape=True))
    return _piece(room, query, limit, after)


def with_code(room: ReadingRoom, code: str, *, limit: int = 50, after: str | None = None) -> Slice[Release]:
    """Releases whose version can give a code, newest first."""
    codes, plans, versions = table(CodeRow).c, aliased(table(PlanRow)), aliased(table(VersionRow))
    query = (
        select(_RELEASE)
        .join_from(_RELEASE, versions, versions.c.version == _R.version)
        .join(plans, plans.c.plan_hash == versions.c.plan_hash)
        .where(plans.c.label_space.in_(select(codes.label_space).where(codes.code == code.upper())))
    )
    return _piece(room, query, limit, after)


def one(room: ReadingRoom, release: str) -> Release:
    """The release of this name; raises NotKnown."""
    found = _all(room, select(_RELEASE).where(_R.release == release))
    if not found:
        raise NotKnown(f"no release {release} was proposed")
    return found[0]


def certified(room: ReadingRoom, task: str) -> Release | None:
    """The certified release of a task, if there is one."""
    found = _all(room, select(_RELEASE).where(_R.task == task, _R.state == CERTIFIED))
    return found[0] if found else None


def of_version(room: ReadingRoom, version: str) -> tuple[Release, ...]:
    """The releases a version was put up for, oldest first."""
    return tuple(_all(room, select(_RELEASE).where(_R.version == version).order_by(_R.entry)))


def of_versions(room: ReadingRoom, versions: Iterable[str]) -> Mapping[str, tuple[Release, ...]]:
    """The same of several versions."""
    found: defaultdict[str, tuple[Release, ...]] = defaultdict(tuple)
    for each in _all(room, select(_RELEASE).where(_R.version.in_(sorted(set(versions)))).order_by(_R.entry)):
        found[each.version] += (each,)
    return found


def successors(room: ReadingRoom, release: str) -> tuple[Release, ...]:
    """The releases that were compared with this one, oldest first."""
    return tuple(_all(room, select(_RELEASE).where(_R.predecessor == release).order_by(_R.entry)))


def tasks(room: ReadingRoom) -> tuple[str, ...]:
    """The tasks for which gates were set or plans proposed."""
    plans = table(PlanRow).c
    with room.rows() as connection:
        found = {row.task for row in connection.execute(select(_GATES.c.task).distinct())}
        found |= {row.task for row in connection.execute(select(plans.task).where(plans.task.is_not(None)).distinct())}
    return tuple(sorted(found))


def statement(room: ReadingRoom, release: Release) -> ReleaseStatement:
    """What was put up for certification: gates with values, hospitals, documents. Raises ArtifactError when its text is
    not kept here.
    """
    return ReleaseStatement.from_bytes(room.home.artifacts().get(release.statement))


def history(room: ReadingRoom, release: str) -> tuple[Event, ...]:
    """All that happened to a release, oldest first; empty for one that was never proposed."""
    with room.rows() as connection:
        rows = connection.execute(select(_EVENT).where(_EVENT.c.release == release).order_by(_EVENT.c.entry)).all()
        by = signers(connection, (row.certificate for row in rows))
    said = room.disclosed(row.reason for row in rows)
    return tuple(
        taken(
            row,
            Event,
            person=(who := by.get(row.certificate or "")),
            name="" if who is None else said.name(who),
            reason=said.value(row.reason),
        )
        for row in rows
    )


def gate_sets(
    room: ReadingRoom, task: str | None = None, *, limit: int = 50, after: str | None = None
) -> Slice[GateSet]:
    """The sets of gates, newest first."""
    query = select(_GATES)
    if task is not None:
        query = query.where(_GATES.c.task == task)
    with room.rows() as connection:
        return piece(
            connection,
            query,
            lambda rows: _gate_sets(room, connection, rows),
            by=(_GATES.c.entry,),
            descending=True,
            limit=limit,
            after=after,
        )


def gate_set_in_force(room: ReadingRoom, task: str, before: int | None = None) -> GateSet | None:
    """The last gates set for a task, or the last before an entry (a run's start); None when there are none."""
    query = select(_GATES).where(_GATES.c.task == task)
    if before is not None:
        query = query.where(_GATES.c.entry < before)
    with room.rows() as connection:
        rows = connection.execute(query.order_by(_GATES.c.entry.desc()).limit(1)).all()
        found = _gate_sets(room, connection, rows)
    return found[0] if found else None


def audits(room: ReadingRoom, *, limit: int = 50, after: str | None = None) -> Slice[PrivacyAudit]:
    """Empirical privacy audits, newest first."""

    def made(rows: Sequence[Row[Any]]) -> list[PrivacyAudit]:
        by, names = signers(connection, (row.certificate for row in rows)), room.names()
        return [
            taken(row, PrivacyAudit, audited_at=parse_time(row.audited_at, "audited_at"), passed=bool(row.passed),
                  quick=bool(row.quick), **_signed(by, names, row.certificate))
            for row in rows
        ]  # fmt: skip

    with room.rows() as connection:
        return piece(connection, select(_AUDIT), made, by=(_AUDIT.c.entry,), descending=True, limit=limit, after=after)


def _gate_sets(room: ReadingRoom, connection: Connection, rows: Sequence[Row[Any]]) -> list[GateSet]:
    by, said = signers(connection, (row.certificate for row in rows)), room.disclosed(row.reason for row in rows)
    return [
        taken(
            row,
            GateSet,
            rules=tuple(GateRule.from_json(rule) for rule in json.loads(row.gates)),
            policy=Policy.from_json(json.loads(row.policy)),
            reason=said.value(row.reason),
            **_signed(by, said.names, row.certificate),
        )
        for row in rows
    ]


def _signed(by: Mapping[str, str], names: Mapping[str, str], certificate: str) -> dict[str, Any]:
    who = by.get(certificate)
    return {"by": who, "by_name": "" if who is None else names.get(who, who)}


def _piece(room: ReadingRoom, query: Select[Any], limit: int, after: str | None) -> Slice[Release]:
    with room.rows() as connection:
        return piece(
            connection,
            query,
            lambda rows: _made(room, connection, rows),
            by=(_R.entry,),
            descending=True,
            limit=limit,
            after=after,
        )


def _all(room: ReadingRoom, query: Select[Any]) -> list[Release]:
    with room.rows() as connection:
        return _made(room, connection, connection.execute(query).all())


def _made(room: ReadingRoom, connection: Connection, rows: Sequence[Row[Any]]) -> list[Release]:
    by = signers(connection, (row.withdrawal_by for row in rows))
    said = room.disclosed(row.withdrawal_reason for row in rows)
    found = []
    for row in rows:
        who = by.get(row.withdrawal_by or "")
        found.append(
            taken(
                row,
                Release,
                since=parse_time(row.state_time, "time"),
                proposer_name=said.name(row.proposer),
                proposed_entry=row.entry,
                proposed=parse_time(row.time, "time"),
                certified=None if row.certified_time is None else parse_time(row.certified_time, "time"),
                withdrawal_by=who,
                withdrawal_by_name="" if who is None else said.name(who),
                withdrawal_reason=said.value(row.withdrawal_reason),
            )
        )
    return found
