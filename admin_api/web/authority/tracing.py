"""A version's way back through the log, from the read model: runs, rounds, hospitals, figures, decisions, entries.

Quick to read and easy to follow; what convinces an outsider is the dossier, which `zegel verify` rebuilds from proofs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from admin_api.errors import NotKnown
from admin_api.reading import plans, releases, reports, runs, versions
from admin_api.reading.plans import Decision, Plan
from admin_api.reading.releases import Release
from admin_api.reading.reports import Report
from admin_api.reading.runs import Part, Run
from admin_api.web.context import Workplace
from admin_api.web.problems import not_found

AT_ONCE = 4  # versions; the rest is a click away, and the page stays under 200 KB with 200 hospitals


class DecisionNode(BaseModel):
    """Somebody's signed yes or no."""

    model_config = ConfigDict(from_attributes=True)

    entry: int
    time: datetime
    decision: str
    name: str
    organisation: str
    role: str
    reason: str


class HospitalNode(BaseModel):
    """A hospital's part in a run."""

    model_config = ConfigDict(from_attributes=True)

    site: str
    entry: int
    state: str = Field(description="asked, accepted or refused")
    rounds: int
    dropped: int
    manifest: str | None = Field(description="digest of the data manifest it took part with")


class ReportNode(BaseModel):
    """A hospital's signed figures about the version."""

    site: str
    entry: int
    time: datetime
    hit1: float | None


class RunNode(BaseModel):
    """The run that made a version, with the plan it carried out."""

    run: str
    state: str
    started_entry: int
    finished_entry: int | None
    completed: int
    aborted: int
    epsilon: float | None
    delta: float | None
    plan_hash: str
    plan_entry: int | None
    plan_title: str | None
    decisions: list[DecisionNode]
    hospitals: list[HospitalNode]


class ReleaseNode(BaseModel):
    """A release the version was put up for."""

    release: str
    state: str
    entry: int
    decisions: list[DecisionNode]


class VersionNode(BaseModel):
    """A version: what it was made of, by which run, and what is known about it."""

    version: str
    entry: int
    time: datetime
    model: str
    releases: list[ReleaseNode]
    run: RunNode
    reports: list[ReportNode]


class Trace(BaseModel):
    """From a version back to the first, newest first. It ends at a version that a plan fixed as its start."""

    version: str
    versions: list[VersionNode]
    older: str | None = Field(description="where to go on: the version before the last one here")
    origin: str | None = Field(description="the initial version that no entry made; its plan names it")


def version_of(here: Workplace, name: str) -> str:
    """The version that a release's name or a version's digest means. Raises Problem 404."""
    try:
        if name.startswith("sha256:"):
            return versions.one(here.reading, name).version
        return releases.one(here.reading, name).version
    except NotKnown as error:
        raise not_found(str(error)) from None


def trace_of(here: Workplace, name: str) -> Trace:
    """The way back from a release or version, at most `AT_ONCE` versions of it. Raises Problem 404."""
    first = version_of(here, name)
    line = versions.ancestry(here.reading, first, limit=AT_ONCE + 1)
    shown, older = line[:AT_ONCE], line[AT_ONCE:]
    digests = [each.version for each in shown]
    known_runs = runs.several(here.reading, (each.run for each in shown))
    known_releases = releases.of_versions(here.reading, digests)
    every_release = [each for some in known_releases.values() for each in some]
    known = _Known(
        runs=known_runs,
        parts=runs.parts_of_several(here.reading, known_runs),
        plans=plans.several(here.reading, (each.plan_hash for each in known_runs.values())),
        plan_decisions=plans.decisions_about_several(
            here.reading, "plan", (each.plan_hash for each in known_runs.values())
        ),
        releases=known_releases,
        release_decisions=plans.decisions_about_several(
            here.reading, "release", (each.statement for each in every_release)
        ),
        reports=reports.of_versions(here.reading, digests),
    )
    last = line[-1]
    return Trace(
        version=first,
        versions=[_version(known, each) for each in shown],
        older=older[0].version if older else None,
        origin=None if older or not last.parents else last.parents[0],
    )


@dataclass(frozen=True)
class _Known:
    """What the log says about some versions, read in a few queries."""

    runs: Mapping[str, Run]
    parts: Mapping[str, tuple[Part, ...]]
    plans: Mapping[str, Plan]
    plan_decisions: Mapping[str, tuple[Decision, ...]]
    releases: Mapping[str, tuple[Release, ...]]
    release_decisions: Mapping[str, tuple[Decision, ...]]
    reports: tuple[Report, ...]


def _version(known: _Known, found: versions.Version) -> VersionNode:
    return VersionNode(
        version=found.version,
        entry=found.entry,
        time=found.time,
        model=found.model,
        releases=[
            ReleaseNode(
                release=each.release,
                state=each.state,
                entry=each.state_entry,
                decisions=_decisions(known.release_decisions.get(each.statement, ())),
            )
            for each in known.releases.get(found.version, ())
        ],
        run=_run(known, known.runs[found.run]),
        reports=[
            ReportNode(
                site=each.site,
                entry=each.entry,
                time=each.time,
                hit1=each.cells["hit@1"].value if "hit@1" in each.cells else None,
            )
            for each in known.reports
            if each.version == found.version
        ],
    )


def _run(known: _Known, run: Run) -> RunNode:
    plan = known.plans.get(run.plan_hash)
    return RunNode(
        run=run.run,
        state=run.state,
        started_entry=run.entry,
        finished_entry=run.finished_entry,
        completed=run.completed,
        aborted=run.aborted,
        epsilon=run.epsilon,
        delta=run.delta,
        plan_hash=run.plan_hash,
        plan_entry=None if plan is None else plan.entry,
        plan_title=None if plan is None else plan.title,
        decisions=_decisions(known.plan_decisions.get(run.plan_hash, ())),
        hospitals=[HospitalNode.model_validate(each) for each in known.parts.get(run.run, ())],
    )


def _decisions(found: Iterable[Decision]) -> list[DecisionNode]:
    return [DecisionNode.model_validate(each) for each in found]
