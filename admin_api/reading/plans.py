"""Plans: what was proposed, what people said to it, and which runs carried it out.

The state tells the last word that was logged. Whether the decisions suffice is judged when a run starts.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select

from admin_api.errors import NotKnown
from admin_api.reading.fold import SITE
from admin_api.reading.room import ReadingRoom
from admin_api.reading.slices import Slice, piece, taken
from admin_api.reading.tables import DecisionRow, KindRow, LabelSpaceRow, MentionRow, PlanRow, RunRow, SubjectRow, table
from audit.entry import PLAN_PROPOSED

_PLAN, _DECISION = table(PlanRow), table(DecisionRow)
_P = _PLAN.c


@dataclass(frozen=True)
class Decision:
    """Somebody's signed yes or no."""

    entry: int
    time: datetime
    what: str  # plan, release, withdrawal, request
    digest: str
    decision: str  # approve, refuse
    person: str
    name: str
    organisation: str
    role: str
    meaning: str
    reason: str  # what they wrote, as far as it may be shown


@dataclass(frozen=True)
class Plan:
    """A plan. What its text says is None or empty when the text is not kept here (`readable`)."""

    plan_hash: str
    entry: int
    time: datetime
    proposer: str  # person id
    proposer_name: str
    readable: bool
    title: str | None
    task: str | None
    rounds: int | None
    aggregations: int | None
    epsilon: float | None  # None with a readable text: unprotected
    delta: float | None
    noise_mode: str | None
    estimator: str | None
    sites: tuple[str, ...]
    evaluation_sites: tuple[str, ...]
    labels: int | None
    initial_version: str | None
    compared_with: str | None  # version
    state: str  # proposed, approved, refused, carried out
    approvals: int
    refusals: int
    decisions: tuple[Decision, ...] = ()  # of `one` only
    runs: tuple[str, ...] = ()  # of `one` only


def listed(
    room: ReadingRoom,
    *,
    task: str | None = None,
    state: str | None = None,
    only: str | None = None,
    limit: int = 50,
    after: str | None = None,
) -> Slice[Plan]:
    """Plans, newest first; `only`: those that name this hospital. Raises BadCursor."""
    query = select(_PLAN)
    if task is not None:
        query = query.where(_P.task == task)
    if state is not None:
        query = query.where(_P.state == state)
    if only is not None:
        subjects, mentions, kinds = table(SubjectRow).c, table(MentionRow).c, table(KindRow).c
        number = select(subjects.id).where(subjects.what == SITE, subjects.name == only).scalar_subquery()
        kind = select(kinds.id).where(kinds.kind == PLAN_PROPOSED).scalar_subquery()
        named = select(mentions.entry).where(mentions.subject == number, mentions.kind == kind)
        query = query.where(_P.entry.in_(named))
    names = room.names()
    with room.rows() as connection:
        return piece(
            connection,
            query,
            lambda rows: [_made(row, names.get(row.proposer, row.proposer)) for row in rows],
            by=(_P.entry,),
            descending=True,
            limit=limit,
            after=after,
        )


def one(room: ReadingRoom, plan_hash: str) -> Plan:
    """The plan with this hash, with its decisions and runs; raises NotKnown."""
    runs = table(RunRow).c
    with room.rows() as connection:
        row = connection.execute(select(_PLAN).where(_P.plan_hash == plan_hash)).one_or_none()
        carried = connection.execute(select(runs.run).where(runs.plan_hash == plan_hash).order_by(runs.entry)).all()
    if row is None:
        raise NotKnown(f"no plan {plan_hash} was proposed")
    name = room.names().get(row.proposer, row.proposer)
    return _made(row, name, decisions=decisions(room, "plan", plan_hash), runs=tuple(each.run for each in carried))


def several(room: ReadingRoom, hashes: Iterable[str]) -> Mapping[str, Plan]:
    """These plans by hash, without decisions and runs; those that nobody proposed are left out."""
    names = room.names()
    with room.rows() as connection:
        rows = connection.execute(select(_PLAN).where(_P.plan_hash.in_(sorted(set(hashes)))))
        return {row.plan_hash: _made(row, names.get(row.proposer, row.proposer)) for row in rows}


def label_space(room: ReadingRoom, plan_hash: str) -> tuple[str, ...]:
    """The codes of a plan, sorted; none when its text is not kept here. Raises NotKnown."""
    spaces = table(LabelSpaceRow).c
    query = select(_P.plan_hash, spaces.codes).outerjoin_from(
        _PLAN, table(LabelSpaceRow), spaces.label_space == _P.label_space
    )
    with room.rows() as connection:
        row = connection.execute(query.where(_P.plan_hash == plan_hash)).one_or_none()
    if row is None:
        raise NotKnown(f"no plan {plan_hash} was proposed")
    return () if row.codes is None else tuple(json.loads(row.codes))


def decisions(room: ReadingRoom, what: str, digest: str) -> tuple[Decision, ...]:
    """What people decided about a plan, release (its statement), withdrawal or request, oldest first."""
    columns = _DECISION.c
    query = select(_DECISION).where(columns.digest == digest, columns.what == what).order_by(columns.entry)
    with room.rows() as connection:
        rows = connection.execute(query).all()
    return decisions_of(room, rows)


def decisions_about_several(room: ReadingRoom, what: str, digests: Iterable[str]) -> Mapping[str, tuple[Decision, ...]]:
    """The same about several of a kind, by digest."""
    columns = _DECISION.c
    query = select(_DECISION).where(columns.digest.in_(sorted(set(digests))), columns.what == what)
    with room.rows() as connection:
        rows = connection.execute(query.order_by(columns.entry)).all()
    found: defaultdict[str, tuple[Decision, ...]] = defaultdict(tuple)
    for each in decisions_of(room, rows):
        found[each.digest] += (each,)
    return found


def decisions_of(room: ReadingRoom, rows: Sequence[Row[Any]]) -> tuple[Decision, ...]:
    """Rows of the table, as they are handed out: with names and reasons."""
    said = room.disclosed(row.reason for row in rows)
    return tuple(taken(row, Decision, name=said.name(row.person), reason=said.value(row.reason)) for row in rows)


def _made(row: Row[Any], proposer_name: str, **further: Any) -> Plan:
    further = {"decisions": (), "runs": (), **further}
    sites, evaluating = tuple(json.loads(row.sites)), tuple(json.loads(row.evaluation_sites))
    return taken(row, Plan, proposer_name=proposer_name, sites=sites, evaluation_sites=evaluating, **further)
