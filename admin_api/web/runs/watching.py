"""A run as its pages show it: what the log says, and what its folder says while it goes on.

The log is what counts: rounds, participants, refusals, the version. The folder adds what is not evidence: which step
the coordinator is at, how long rounds take, whether a process carries the run out, how it ended. Both are public.

A run without loss: hospitals release no training loss, for it would cost epsilon; so there is no such curve.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from admin_api.errors import NotKnown
from admin_api.keeping import FAILED, RESUME, keeper_of, launches
from admin_api.reading import logbook, plans, runs
from admin_api.web.context import Workplace
from admin_api.web.language import _
from admin_api.web.problems import not_found
from admin_api.web.runs.troubles import Trouble, explained
from jobs.errors import JobError, PlanError
from jobs.home import ConsortiumHome
from jobs.plan import Plan
from jobs.records import is_carried_out, plan_of_run, read_progress, read_result, read_state
from jobs.terms import plan_model, secagg_parameters

STAGES = ("joining", "training", "aborted", "evaluating", "done")
LAST_ROUNDS = 10  # whose median tells how long the next ones take
MOST_EVENTS = 12
MOST_WAITING = 20  # of the newest runs, among which those are that the log does not know yet


class RoundView(BaseModel):
    """A round: one secure sum."""

    number: int
    state: str = Field(description="completed or aborted", examples=["completed"])
    participants: list[str]
    dropped: list[str]
    epsilon: float | None = Field(description="spent by the training patients after it")
    seconds: float | None
    entry: int | None


class PartView(BaseModel):
    """A hospital's part."""

    site: str
    trains: bool
    state: str = Field(description="asked, accepted or refused")
    rounds: int
    dropped: int
    code: str | None = Field(description="why it refused", examples=["over-budget"])
    reason: str | None
    entry: int | None


class EventView(BaseModel):
    """An entry of the log about the run, in words."""

    entry: int
    when: datetime
    words: str
    kind: str


class RunLine(BaseModel):
    """A run in the list."""

    run: str = Field(examples=["run-20261122T050000Z-1a2b3c"])
    title: str | None = Field(description="the plan's name")
    plan_hash: str
    state: str = Field(description="starting, running, waiting, stopped, finished, aborted or failed")
    started: datetime | None
    finished: datetime | None
    rounds: int = Field(description="completed")
    aborted: int
    planned: int | None
    participants: int = Field(description="in the last round")
    dropouts: int
    epsilon: float | None = Field(description="spent so far")
    version: str | None
    entry: int | None


class RunView(RunLine):
    """One run, live."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"run": "run-20261122T050000Z-1a2b3c", "state": "running", "stage": "training"}]
        }
    )

    stage: str | None = Field(description="the step it is at: " + ", ".join(STAGES))
    carried_out: bool = Field(description="whether a process carries it out now")
    followed: str | None = Field(description="the launch whose process follows it")
    sites: list[str]
    parts: list[PartView]
    round_list: list[RoundView]
    epsilon_planned: float | None
    delta: float | None
    seconds: float | None = Field(description="since its coordinator began")
    round_seconds: float | None = Field(description="median of the last rounds")
    seconds_left: float | None
    vector_bytes: int | None = Field(description="that a hospital sends in a round, at least: its masked vector")
    model_bytes: int | None = Field(description="that a hospital receives in a round, at least: the model")
    bytes_so_far: int | None = Field(description="vectors and models of completed rounds, all hospitals")
    trouble: Trouble | None
    events: list[EventView]
    steps: int = Field(description="progress lines told so far; the id of the last server-sent event")


def run_lines(here: Workplace, found: Sequence[runs.Run]) -> list[RunLine]:
    """Runs of the log, with what their folders say of those that are not over."""
    return [_line(here.home, run) for run in found]


def waiting_lines(here: Workplace) -> list[RunLine]:
    """Runs that were handed to the server and are not in the log yet, newest first."""
    folder = here.home.path / "runs"
    names = [path.name for path in folder.glob("run-*") if path.is_dir()] if folder.is_dir() else []
    lines = []
    for name in sorted(names, reverse=True)[:MOST_WAITING]:
        try:
            runs.one(here.reading, name)
        except NotKnown:
            line = _unlogged(here, name)
            if line is not None:
                lines.append(line)
    return lines


def _unlogged(here: Workplace, run_id: str) -> RunLine | None:
    try:
        plan_hash = plan_of_run(here.home, run_id)
        plan = plans.one(here.reading, plan_hash)
    except (JobError, NotKnown):
        return None
    state, _reason = live_state(here.home, run_id, logged=None)
    return RunLine(
        run=run_id, title=plan.title, plan_hash=plan_hash, state=state, started=None, finished=None, rounds=0,
        aborted=0, planned=plan.aggregations, participants=0, dropouts=0, epsilon=None, version=None, entry=None,
    )  # fmt: skip


def _line(home: ConsortiumHome, run: runs.Run) -> RunLine:
    state, _reason = live_state(home, run.run, logged=run)
    return RunLine(
        run=run.run, title=run.title, plan_hash=run.plan_hash, state=state, started=run.started,
        finished=run.finished, rounds=run.completed, aborted=run.aborted, planned=run.planned,
        participants=run.participants, dropouts=run.dropouts, epsilon=run.epsilon,
        version=run.version if run.state == "finished" else None, entry=run.entry,
    )  # fmt: skip


def live_state(home: ConsortiumHome, run_id: str, *, logged: runs.Run | None) -> tuple[str, str | None]:
    """Where a run stands now, and why it stopped if it did.

    Returns: a state of `RunLine`, and the reason as it was written down.
    """
    if logged is not None and logged.state == "finished" and read_result(home, run_id) is None:
        return ("running" if is_carried_out(home, run_id) else "finished"), None  # its evaluation may still go on
    result = read_result(home, run_id)
    if result is not None:
        reason = result.get("reason")
        states = {"finished": "finished", "aborted": "aborted", "interrupted": "stopped"}
        return states.get(str(result["status"]), "failed"), reason
    if is_carried_out(home, run_id):
        return "running", None
    if keeper_of(home, run_id) is not None:
        return "waiting", None  # for the server to start the job, or for hospitals
    return "stopped", None


def run_view(here: Workplace, run_id: str) -> RunView:
    """One run. Raises Problem 404 when there is none."""
    home = here.home
    try:
        logged: runs.Run | None = runs.one(here.reading, run_id)
    except NotKnown:
        logged = None
    line = _line(home, logged) if logged is not None else _unlogged(here, run_id)
    if line is None:
        raise not_found(f"no run {run_id}")
    plan = _plan(home, line.plan_hash)
    state, reason = live_state(home, run_id, logged=logged)
    steps = read_progress(home, run_id)
    keeper = keeper_of(home, run_id)
    round_list = _rounds(here, run_id, steps, logged)
    vector, model = _sizes(plan)
    sent = sum(len(each.participants) for each in round_list if each.state == "completed")
    seconds = _median_seconds(steps)
    return RunView(
        **{**line.model_dump(), "state": state, "epsilon": _spent(steps, line)},
        stage=steps[-1]["stage"] if steps else None,
        carried_out=is_carried_out(home, run_id),
        followed=None if keeper is None else keeper.id,
        sites=[] if plan is None else list(plan.sites),
        parts=_parts(here, run_id, plan, logged),
        round_list=round_list,
        epsilon_planned=None if plan is None else plan.epsilon,
        delta=None if plan is None else plan.delta,
        seconds=steps[-1]["seconds"] if steps else None,
        round_seconds=seconds,
        seconds_left=_left(home, run_id, state, seconds, line),
        vector_bytes=vector,
        model_bytes=model,
        bytes_so_far=None if vector is None or model is None else sent * (vector + model),
        trouble=_trouble(home, run_id, state, reason),
        events=_events(here, run_id, logged),
        steps=len(steps),
    )


def _plan(home: ConsortiumHome, plan_hash: str) -> Plan | None:
    from audit.errors import AuditError

    try:
        return Plan.from_bytes(home.artifacts().get(plan_hash))
    except (AuditError, PlanError):
        return None  # its text is not kept here; the log's figures are shown


def _rounds(
    here: Workplace, run_id: str, steps: Sequence[Mapping[str, Any]], logged: runs.Run | None
) -> list[RoundView]:
    """The log's rounds, with what the progress file adds to them."""
    if logged is None:
        return []
    told = {step["round"]: step for step in steps if step["stage"] in ("training", "aborted") and step["round"]}
    found: list[RoundView] = []
    first = 1
    while True:
        piece = runs.rounds(here.reading, run_id, first=first)
        for each in piece:
            step = told.get(each.number)
            found.append(
                RoundView(
                    number=each.number,
                    state=each.state,
                    participants=list(each.took_part),
                    dropped=list(each.dropped),
                    epsilon=None if step is None else step["epsilon"],
                    seconds=None if step is None or each.state != "completed" else step["round_seconds"],
                    entry=each.entry,
                )
            )
        if not piece or piece[-1].number >= logged.last_round or piece[-1].number < first:
            return found
        first = piece[-1].number + 1


def _parts(here: Workplace, run_id: str, plan: Plan | None, logged: runs.Run | None) -> list[PartView]:
    trains = set() if plan is None else set(plan.sites)
    if logged is None:
        names = [] if plan is None else sorted({*plan.sites, *plan.evaluation_sites})
        return [
            PartView(site=site, trains=site in trains, state="asked", rounds=0, dropped=0, code=None, reason=None,
                     entry=None)
            for site in names
        ]  # fmt: skip
    return [
        PartView(
            site=each.site, trains=each.site in trains, state=each.state, rounds=each.rounds, dropped=each.dropped,
            code=each.code, reason=each.reason, entry=each.entry,
        )
        for each in runs.parts(here.reading, run_id)
    ]  # fmt: skip


def _spent(steps: Sequence[Mapping[str, Any]], line: RunLine) -> float | None:
    if line.epsilon is not None:
        return line.epsilon
    return None if not steps else float(steps[-1]["epsilon"])


def _median_seconds(steps: Sequence[Mapping[str, Any]]) -> float | None:
    taken = [float(step["round_seconds"]) for step in steps if step["stage"] == "training" and step["round"]]
    return statistics.median(taken[-LAST_ROUNDS:]) if taken else None


def _left(home: ConsortiumHome, run_id: str, state: str, seconds: float | None, line: RunLine) -> float | None:
    """How long the remaining rounds take at the pace of the last ones."""
    if state != "running" or seconds is None or line.planned is None:
        return None
    kept = read_state(home, run_id)
    done = line.rounds + line.aborted if kept is None else kept.announced
    return max(0, line.planned - done) * seconds


def _sizes(plan: Plan | None) -> tuple[int | None, int | None]:
    """Bytes of a masked vector and of a model: public, from the plan."""
    if plan is None:
        return None, None
    vector = secagg_parameters(plan, "sizes").dimension * plan.ring_bits // 8
    return vector, plan_model(plan).vector_length * 4


def _trouble(home: ConsortiumHome, run_id: str, state: str, reason: str | None) -> Trouble | None:
    if state in ("aborted", "failed"):
        return explained(reason or _("no reason was written down"), resumable=state == "failed")
    if state != "stopped":
        return None
    # Why the last try to go on failed is news; why the one before it stopped is not.
    last = next((each for each in launches(home) if run_id in (each.subject, each.run_id)), None)
    if last is not None and last.state == FAILED and (last.kind == RESUME or reason is None):
        reason = last.words
    return explained(reason or _("no process carries it out, and nobody follows it"), resumable=True)


def _events(here: Workplace, run_id: str, logged: runs.Run | None) -> list[EventView]:
    if logged is None:
        return []
    return [
        EventView(entry=line.index, when=line.time, words=line.words, kind=line.kind)
        for line in logbook.entries(here.reading, run=run_id, limit=MOST_EVENTS).items
    ]
