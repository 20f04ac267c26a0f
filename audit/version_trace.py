"""A version followed back through the log, certified or not: its runs, what hospitals measured, what became of it.

`audit.trace` proves a certified release; this tells the story of any version the log knows. The runs are traced by the
same code, with every link checked, so a version whose story has a gap is an error here too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from audit.canonical import shown
from audit.certificates import root_fingerprint
from audit.entry import RELEASE_PROPOSED, RUN_STARTED, VERSION_CREATED
from audit.errors import TraceError
from audit.evidence import Evidence
from audit.metrics_trace import MetricsTrace, trace_metrics
from audit.release import DEFAULT_POLICY, Approval
from audit.release_state import standings
from audit.run_trace import RunTrace
from audit.trace import trace_version

_MIN_PREFIX = 8  # hex digits


@dataclass(frozen=True)
class ReleaseOfVersion:
    """A release that was proposed with the version, where it stands, and since which entry."""

    release: str
    state: str
    statement: str  # digest
    since: datetime
    index: int
    approvals: tuple[Approval, ...]


@dataclass(frozen=True)
class VersionTrace:
    """All that the log knows about how a version came to be and what happened to it."""

    consortium: str
    root_fingerprint: str
    version: str
    created_index: int
    runs: tuple[RunTrace, ...]  # oldest first
    metrics: tuple[MetricsTrace, ...]  # the first report of each hospital
    releases: tuple[ReleaseOfVersion, ...]

    @property
    def run(self) -> RunTrace:
        """The run that made the version."""
        return self.runs[-1]


def find_version(evidence: Evidence, name: str) -> str:
    """The version that `name` means: a release's name, a version's digest, or the first 8 or more of its hex digits.

    Raises TraceError when there is none, or several.
    """
    proposed = [e.body["version"] for e in evidence.of_kind(RELEASE_PROPOSED, release=name)]
    if proposed:
        return str(proposed[0])
    created = [str(e.body["version"]) for e in evidence.of_kind(VERSION_CREATED)]
    digits = name.removeprefix("sha256:")
    found = sorted({each for each in created if each.removeprefix("sha256:").startswith(digits)})
    if len(digits) < _MIN_PREFIX or not found:
        known = ", ".join(f"{e.body['release']}" for e in evidence.of_kind(RELEASE_PROPOSED)) or "none"
        raise TraceError(
            f"{shown(name)}: expected a release ({known}) or a version's digest, whole or its first {_MIN_PREFIX} or "
            f"more hex digits; the log holds {len(created)} versions, `zegel audit log` names them"
        )
    if len(found) > 1:
        raise TraceError(f"{shown(name)}: {len(found)} versions begin so; give more digits: {', '.join(found)}")
    return found[0]


def plan_hashes_behind(evidence: Evidence, version: str) -> set[str]:
    """The hashes of the plans whose runs led to a version."""
    hashes: set[str] = set()
    wanted, before = version, _end(evidence)
    while created := [e for e in evidence.of_kind(VERSION_CREATED, version=wanted) if e.index < before]:
        started = evidence.only(RUN_STARTED, f"run {created[0].body['run_id']}", run_id=created[0].body["run_id"])
        hashes.add(created[0].body["plan_hash"])
        # Only entries before the run's start: the search goes back in the log and so must end.
        wanted, before = started.body["initial_version"], started.index
    return hashes


def trace_any_version(evidence: Evidence, version: str, plans: Mapping[str, bytes]) -> VersionTrace:
    """The story of a version; raises TraceError or ReleaseError at the first thing that does not fit.

    `plans` maps plan hashes to bytes. Plans must have had the approvals that `DEFAULT_POLICY` asks for.
    """
    created = evidence.of_kind(VERSION_CREATED, version=version)
    if not created:
        raise TraceError(f"version {version}: no {VERSION_CREATED} entry made it")
    runs = trace_version(evidence, version, plans, DEFAULT_POLICY)
    return VersionTrace(
        consortium=evidence.founding.consortium,
        root_fingerprint=root_fingerprint(evidence.root),
        version=version,
        created_index=created[0].index,
        runs=runs,
        metrics=trace_metrics(evidence, runs[-1], before=_end(evidence)),
        releases=_releases(evidence, version),
    )


def _releases(evidence: Evidence, version: str) -> tuple[ReleaseOfVersion, ...]:
    times = {logged.index: logged.entry.time for logged in evidence.entries}
    return tuple(
        ReleaseOfVersion(
            release=standing.release,
            state=standing.state,
            statement=standing.statement,
            since=times[standing.since],
            index=standing.since,
            approvals=tuple(
                evidence.approvals(
                    "release",
                    standing.statement,
                    after=standing.proposed_index,
                    before=_end(evidence) if standing.certified_index is None else standing.certified_index,
                )
            ),
        )
        for standing in standings(evidence).values()
        if standing.version == version
    )


def _end(evidence: Evidence) -> int:
    return evidence.entries[-1].index + 1
