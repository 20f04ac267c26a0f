"""What a run leaves in the consortium's folder and log: plans, approvals, progress, how it ended."""

from __future__ import annotations

import json
from typing import Any

from audit.entry import APPROVAL_GIVEN, PLAN_PROPOSED, SITE_MANIFEST
from audit.errors import AuditError
from jobs.errors import PlanError
from jobs.home import ConsortiumHome
from jobs.plan import Plan

PROGRESS_FILE = "progress.jsonl"  # one line per step, for whoever watches the run
RESULT_FILE = "result.json"  # written last: how the run ended


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
