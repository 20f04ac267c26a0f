"""What a run leaves in the consortium's folder and log: plans, approvals, progress, how it ended."""

from __future__ import annotations

import fcntl
import json
from typing import Any

from audit.entry import APPROVAL_GIVEN, METRICS_REPORTED, PLAN_PROPOSED, SITE_MANIFEST, VERSION_CREATED, Entry
from audit.errors import AuditError
from jobs.errors import FederationError, PlanError
from jobs.home import ConsortiumHome
from jobs.plan import Plan
from jobs.run_state import RunState
from jobs.terms import evaluation_terms

PROGRESS_FILE = "progress.jsonl"  # one line per step, for whoever watches the run
RESULT_FILE = "result.json"  # written last: how the run ended
STATE_FILE = "state.json"  # where the run stands, for whoever goes on with it
PLAN_FILE = "plan"  # the hash of the plan the run carries out
LOCK_FILE = "lock"  # held by the process that carries the run out
ENDED = ("finished", "aborted")  # runs with another result can be gone on with


def load_plan(home: ConsortiumHome, plan_hash: str) -> Plan:
    """The proposed plan with this hash. Raises PlanError when the log has none."""
    with home.log() as log:
        known = [entry.body["plan_hash"] for _, entry in log.entries(kind=PLAN_PROPOSED)]
    if plan_hash not in known:
        raise PlanError(f"no plan {plan_hash} was proposed; `zegel plan list` shows those that were")
    try:
        return Plan.from_bytes(home.artifacts().get(plan_hash))
    except AuditError as error:
        raise PlanError(f"the plan's text cannot be read: {error}") from None


def predecessor_files(home: ConsortiumHome, plan: Plan) -> tuple[bytes, bytes] | None:
    """The plan and model of the version that a plan compares with. Raises PlanError when they are not kept here."""
    predecessor = evaluation_terms(plan).predecessor
    if predecessor is None:
        return None
    artifacts = home.artifacts()
    try:
        return artifacts.get(predecessor.plan_hash), artifacts.get(predecessor.version)
    except AuditError as error:
        raise PlanError(f"the plan compares with a version that is not kept here: {error}") from None


def announced_manifests(home: ConsortiumHome) -> dict[str, frozenset[str]]:
    """The digests of the data manifests each hospital has announced in the log."""
    found: dict[str, frozenset[str]] = {}
    with home.log() as log:
        for _, entry in log.entries(kind=SITE_MANIFEST):
            digest: str = entry.signed("manifest").statement["manifest"]
            found[entry.body["site"]] = found.get(entry.body["site"], frozenset()) | {digest}
    return found


def plan_approvals(home: ConsortiumHome, plan_hash: str) -> list[dict[str, Any]]:
    """The signed approvals and refusals of a plan, as logged, oldest first."""
    with home.log() as log:
        entries = [entry.signed("approval") for _, entry in log.entries(kind=APPROVAL_GIVEN)]
    return [
        signed.to_json() for signed in entries if signed.statement["subject"] == {"kind": "plan", "digest": plan_hash}
    ]


def recorded_by_run(home: ConsortiumHome, run_id: str, kind: str) -> list[dict[str, Any]]:
    """The bodies of a run's log entries of a kind, in order."""
    with home.log() as log:
        return [dict(entry.body) for _, entry in log.entries(kind=kind) if _run_of(entry) == run_id]


def _run_of(entry: Entry) -> object:
    if entry.kind == METRICS_REPORTED:
        return entry.signed("metrics").statement["run_id"]
    return entry.body.get("run_id")


def plan_of_version(home: ConsortiumHome, version: str) -> str:
    """The hash of the plan whose run made a version. Raises PlanError when the log has no such version."""
    with home.log() as log:
        for _, entry in log.entries(kind=VERSION_CREATED):
            if entry.body["version"] == version:
                return str(entry.body["plan_hash"])
    raise PlanError(f"no version {version} was made here; `zegel release list` shows those that were certified")


def plan_of_run(home: ConsortiumHome, run_id: str) -> str:
    """The hash of the plan that a run carries out. Raises FederationError when there is no such run."""
    try:
        return (home.run_folder(run_id) / PLAN_FILE).read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise FederationError(
            f"no run {run_id} in {home.path}; `zegel run list` shows those that were started"
        ) from None


def read_state(home: ConsortiumHome, run_id: str) -> RunState | None:
    """Where a run stands, or None before its first round. Raises RunStateError when it cannot be read."""
    try:
        return RunState.from_bytes((home.run_folder(run_id) / STATE_FILE).read_bytes())
    except FileNotFoundError:
        return None


def is_carried_out(home: ConsortiumHome, run_id: str) -> bool:
    """Whether a process carries out this run at the moment."""
    try:
        with (home.run_folder(run_id) / LOCK_FILE).open("r", encoding="utf-8") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def read_result(home: ConsortiumHome, run_id: str) -> dict[str, Any] | None:
    """How a run ended, or None while it goes on."""
    try:
        value: dict[str, Any] = json.loads((home.run_folder(run_id) / RESULT_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return value


def read_progress(home: ConsortiumHome, run_id: str, since: int = 0) -> list[dict[str, Any]]:
    """Progress lines of a run from line `since` on; an unfinished last line is left for the next call."""
    try:
        text = (home.run_folder(run_id) / PROGRESS_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    lines = text.split("\n")[:-1]
    return [json.loads(line) for line in lines[since:]]
