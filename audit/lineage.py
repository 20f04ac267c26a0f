"""Where a version comes from, asked of the log's rows.

Version -> parents -> rounds -> hospitals -> receipts -> metrics -> releases.

These are the keeper's quick answers, for commands and pages. They are only as good as the rows, which
`zegel audit check` compares with the entries; what convinces others is the trace (`audit.trace`), which an
outsider rebuilds from a dossier.

Each question is answered from one state of the log. An entry that a later one overtakes (a hospital's metrics
reported again, a release's next state) counts until that later one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, select

from audit.errors import LogError
from audit.lineage_rows import CERTIFIED, STARTED, TABLES
from audit.store import Log

_VERSION, _PARENT = TABLES["lineage_version"].c, TABLES["lineage_parent"].c
_RUN, _SITE = TABLES["lineage_run"].c, TABLES["lineage_run_site"].c
_ROUND, _PART = TABLES["lineage_round"].c, TABLES["lineage_participant"].c
_METRIC, _RELEASE = TABLES["lineage_metric"].c, TABLES["lineage_release"].c


@dataclass(frozen=True)
class Version:
    """A model's state: what rounds `first_round` to `last_round` of a run made of its parents."""

    entry: int
    version: str
    run_id: str
    first_round: int
    last_round: int
    plan_hash: str
    model: str  # digest of the weights
    parents: tuple[str, ...]


@dataclass(frozen=True)
class Participant:
    """A hospital in a round. `part`: took part, dropped, or receipt only."""

    site: str
    part: str
    receipt: str | None  # digest of the signed receipt


@dataclass(frozen=True)
class Round:
    """A secure aggregation. `state`: completed, or aborted (then both versions are None)."""

    entry: int
    run_id: str
    round: int
    state: str
    version_in: str | None
    version_out: str | None
    participants: tuple[Participant, ...]


@dataclass(frozen=True)
class Run:
    """A run as its newest entry has it. What only a finished run has is None before."""

    run_id: str
    state: str  # started, finished
    plan_hash: str
    initial_version: str | None
    version: str | None
    rounds: int | None
    epsilon: float | None
    delta: float | None
    accountant: str | None
    sites: Mapping[str, str]  # hospital: asked, accepted, refused


@dataclass(frozen=True)
class Metric:
    """A hospital's figure about a version, with its interval. `suppressed`: the cell was too small; all are None."""

    entry: int
    version: str
    site: str
    name: str
    value: float | None
    lower: float | None
    upper: float | None
    suppressed: bool


@dataclass(frozen=True)
class Release:
    """A release in its newest state, and every state it was in, oldest first, with the entry that put it there."""

    release: str
    state: str  # candidate, certified, superseded, withdrawn
    version: str
    statement: str
    history: tuple[tuple[int, str], ...]


def version(log: Log, digest: str) -> Version:
    """The version; raises LogError when no entry created it."""
    with log.rows() as connection:
        return _version(connection, digest)


def versions(log: Log) -> tuple[Version, ...]:
    """All versions, oldest first."""
    with log.rows() as connection:
        rows = connection.execute(TABLES["lineage_version"].select().order_by(_VERSION.entry)).all()
        parents = _parents(connection, (row.entry for row in rows))
        return tuple(Version(**row._mapping, parents=parents[row.entry]) for row in rows)


def ancestry(log: Log, digest: str) -> tuple[Version, ...]:
    """The version and all it was made from, each once, nearest first.

    It ends at versions that no entry created: the initial versions that plans fix.
    """
    with log.rows() as connection:
        return _ancestry(connection, digest)


def rounds_of(log: Log, digest: str) -> tuple[Round, ...]:
    """The rounds that made the version from its parents, with each hospital's part and receipt, in order."""
    with log.rows() as connection:
        made = _version(connection, digest)
        query = (
            TABLES["lineage_round"]
            .select()
            .where(
                _ROUND.run_id == made.run_id,
                _ROUND.round.between(made.first_round, made.last_round),
                _ROUND.entry < made.entry,
            )
        )
        rows = connection.execute(query.order_by(_ROUND.entry)).all()
        query = TABLES["lineage_participant"].select().where(_PART.entry.in_([row.entry for row in rows]))
        parts: defaultdict[int, list[Participant]] = defaultdict(list)
        for row in connection.execute(query.order_by(_PART.entry, _PART.position)):
            parts[row.entry].append(Participant(row.site, row.part, row.receipt))
        return tuple(Round(**row._mapping, participants=tuple(parts[row.entry])) for row in rows)


def run(log: Log, run_id: str) -> Run:
    """The run; raises LogError when no entry started it."""
    with log.rows() as connection:
        query = TABLES["lineage_run"].select().where(_RUN.run_id == run_id).order_by(_RUN.entry)
        states = connection.execute(query).all()
        if not states:
            raise LogError(f"the log knows no run {run_id}; `zegel run status` lists them")
        answers = TABLES["lineage_run_site"].select().where(_SITE.run_id == run_id).order_by(_SITE.entry)
        sites = {row.site: row.state for row in connection.execute(answers)}
        last = states[-1]
        initial = next((row.version for row in states if row.state == STARTED), None)
        final = None if last.state == STARTED else last.version
        spent = (last.rounds, last.epsilon, last.delta, last.accountant)
        return Run(run_id, last.state, last.plan_hash, initial, final, *spent, sites=sites)


def metrics_of(log: Log, digest: str) -> tuple[Metric, ...]:
    """Every hospital's figures about the version as last reported, by hospital and name."""
    with log.rows() as connection:
        query = TABLES["lineage_metric"].select().where(_METRIC.version == digest).order_by(_METRIC.entry)
        newest: dict[str, dict[str, Metric]] = {}
        for row in connection.execute(query):
            metric = Metric(
                row.entry, digest, row.site, row.name, row.value, row.lower, row.upper, bool(row.suppressed)
            )
            reported = newest.get(row.site)
            if reported is None or next(iter(reported.values())).entry != row.entry:
                # A new report stands for itself: a figure it leaves out is not carried over from the old one.
                reported = newest[row.site] = {}
            reported[row.name] = metric
    return tuple(newest[site][name] for site in sorted(newest) for name in sorted(newest[site]))


def release(log: Log, name: str) -> Release:
    """The release; raises LogError when none of this name was proposed."""
    with log.rows() as connection:
        return _release(connection, name)


def releases(log: Log) -> tuple[Release, ...]:
    """All releases in their newest state, in the order they were proposed."""
    with log.rows() as connection:
        names = connection.execute(select(_RELEASE.release).order_by(_RELEASE.entry)).scalars()
        return tuple(_release(connection, name) for name in dict.fromkeys(names))


def versions_of_release(log: Log, name: str) -> tuple[Version, ...]:
    """The release's version and all it was made from, nearest first."""
    with log.rows() as connection:
        return _ancestry(connection, _release(connection, name).version)


def releases_of_version(log: Log, digest: str) -> tuple[Release, ...]:
    """The releases that the version was put up for, whatever became of them."""
    return tuple(found for found in releases(log) if found.version == digest)


def _version(connection: Connection, digest: str) -> Version:
    query = TABLES["lineage_version"].select().where(_VERSION.version == digest).order_by(_VERSION.entry.desc())
    row = connection.execute(query.limit(1)).one_or_none()
    if row is None:
        raise LogError(f"the log knows no version {digest}; it may be a plan's initial version")
    return Version(**row._mapping, parents=_parents(connection, [row.entry])[row.entry])


def _parents(connection: Connection, entries: Iterable[int]) -> defaultdict[int, tuple[str, ...]]:
    query = TABLES["lineage_parent"].select().where(_PARENT.entry.in_(list(entries))).order_by(_PARENT.parent)
    found: defaultdict[int, tuple[str, ...]] = defaultdict(tuple)
    for row in connection.execute(query):
        found[row.entry] += (row.parent,)
    return found


def _ancestry(connection: Connection, digest: str) -> tuple[Version, ...]:
    found = {digest: _version(connection, digest)}
    pending = list(found.values())
    for made in pending:  # grows while it is walked: breadth first
        for parent in made.parents:
            known = connection.execute(select(_VERSION.entry).where(_VERSION.version == parent).limit(1)).first()
            if parent not in found and known is not None:
                found[parent] = _version(connection, parent)
                pending.append(found[parent])
    return tuple(pending)


def _release(connection: Connection, name: str) -> Release:
    query = TABLES["lineage_release"].select().where(_RELEASE.release == name).order_by(_RELEASE.entry)
    rows = connection.execute(query).all()
    if not rows:
        raise LogError(f"the log knows no release {name}; `zegel release list` shows them")
    # The certified version is what the name stands for; before that, the last one put up.
    named = [row for row in rows if row.version is not None and row.statement is not None]
    meant = next((row for row in reversed(named) if row.state == CERTIFIED), named[-1])
    history = tuple((row.entry, row.state) for row in rows)
    return Release(name, rows[-1].state, meant.version, meant.statement, history)
