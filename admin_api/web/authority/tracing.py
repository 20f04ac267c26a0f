"""A version's way back through the log, from the read model: runs, rounds, hospitals, figures, decisions, entries.

Quick to read and easy to follow; what convinces an outsider is the dossier, which `zegel verify` rebuilds from proofs.
"""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from admin_api.errors import NotKnown
from admin_api.reading import plans, releases, reports, runs, versions
from admin_api.web.context import Workplace
from admin_api.web.problems import not_found

MOST_VERSIONS = 50


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
    """The way back from a release or version. Raises Problem 404."""
    first = version_of(here, name)
    made: list[VersionNode] = []
    wanted: str | None = first
    while wanted is not None and len(made) < MOST_VERSIONS:
        try:
            found = versions.one(here.reading, wanted)
        except NotKnown:
            break  # the version that the first plan fixed
        made.append(_version(here, found))
        wanted = found.parents[0] if found.parents else None
    return Trace(version=first, versions=made, origin=wanted)


def _version(here: Workplace, found: versions.Version) -> VersionNode:
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
                decisions=_decisions(here, "release", each.statement),
            )
            for each in releases.of_version(here.reading, found.version)
        ],
        run=_run(here, found.run),
        reports=[
            ReportNode(
                site=each.site,
                entry=each.entry,
                time=each.time,
                hit1=each.cells["hit@1"].value if "hit@1" in each.cells else None,
            )
            for each in reports.of_version(here.reading, found.version)
        ],
    )


def _run(here: Workplace, run_id: str) -> RunNode:
    run = runs.one(here.reading, run_id)
    try:
        plan = plans.one(here.reading, run.plan_hash)
    except NotKnown:
        plan = None
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
        decisions=_decisions(here, "plan", run.plan_hash),
        hospitals=[HospitalNode.model_validate(each) for each in runs.parts(here.reading, run_id)],
    )


def _decisions(here: Workplace, kind: str, digest: str) -> list[DecisionNode]:
    return [DecisionNode.model_validate(each) for each in plans.decisions(here.reading, kind, digest)]
