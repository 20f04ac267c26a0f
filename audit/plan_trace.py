"""The plan of a run, rebuilt from its bytes and the log: what was planned, by whom, and who approved it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from audit import schema
from audit.canonical import digest_of, parse_json_object
from audit.certificates import CONSORTIUM_ADMIN, Identity
from audit.entry import PLAN_PROPOSED
from audit.errors import CanonicalError, EntryError, TraceError
from audit.evidence import Evidence, Logged
from audit.release import Approval, check_approvals

PLAN_PROPOSERS = frozenset({CONSORTIUM_ADMIN})


@dataclass(frozen=True)
class PlanTrace:
    """What was planned, by whom, and who approved it."""

    plan_hash: str
    name: str
    task: str
    proposer: Identity
    proposed_index: int
    approvals: tuple[Approval, ...]
    sites: tuple[str, ...]
    evaluation_sites: tuple[str, ...]
    rounds: int  # optimiser steps
    rounds_allowed: int  # aggregations the log may hold
    epsilon: float
    delta: float
    unit: str
    accountant: str
    sampling_prob: float
    l2_clip_norm: float
    noise_multiplier: float
    noise_mode: str
    colluders: int
    dropouts: int
    labels: int
    encoder: Any
    model: Any
    initial_version: str
    compared_with: str | None  # the version that hospitals compare the result with, on the same admissions


def trace_plan(evidence: Evidence, started: Logged, plans: Mapping[str, bytes], roles: Sequence[str]) -> PlanTrace:
    """The plan a run carries out, its proposer and approvals; raises TraceError or ReleaseError.

    `plans` maps plan hashes to bytes; `roles` are those whose approval the plan needed before the run
    started.
    """
    plan_hash: str = started.body["plan_hash"]
    what = f"plan {plan_hash}"
    data = plans.get(plan_hash)
    if data is None:
        raise TraceError(f"{what}: its bytes are not there")
    if digest_of(data) != plan_hash:
        raise TraceError(f"{what}: the bytes given hash to {digest_of(data)}")
    plan = read_plan(data)
    consortium = evidence.founding.consortium
    if plan["consortium"] != consortium:
        raise TraceError(f"{what}: expected consortium {consortium}, got {plan['consortium']}")
    proposed = evidence.only(PLAN_PROPOSED, what, plan_hash=plan_hash)
    proposed.expect("plan", plan_hash, proposed.body["plan"])
    if not proposed.index < started.index:
        raise TraceError(f"{started}: started before its plan was proposed in {proposed}")
    proposer = evidence.proposer(proposed, "plan", plan_hash, PLAN_PROPOSERS)
    approvals = evidence.approvals("plan", plan_hash, after=proposed.index, before=started.index)
    check_approvals(what, approvals, roles, proposer=proposer)
    return PlanTrace(
        plan_hash=plan_hash,
        name=plan["name"],
        task=plan["task"],
        proposer=proposer,
        proposed_index=proposed.index,
        approvals=tuple(approvals),
        sites=tuple(plan["sites"]),
        evaluation_sites=tuple(plan["evaluation_sites"]),
        rounds=plan["rounds"],
        # The sum of features before the first step, when planned, is a round of its own.
        rounds_allowed=plan["rounds"] + (plan.get("feature_mean_noise_multiplier") is not None),
        epsilon=float(plan["epsilon"]),
        delta=float(plan["delta"]),
        unit=plan["unit"],
        accountant=plan["accountant"],
        sampling_prob=float(plan["sampling_prob"]),
        l2_clip_norm=float(plan["l2_clip_norm"]),
        noise_multiplier=float(plan["noise_multiplier"]),
        noise_mode=plan["noise_mode"],
        colluders=plan["colluders"],
        dropouts=plan["dropouts"],
        labels=len(plan["label_space"]),
        encoder=plan["encoder"],
        model=plan["model"],
        initial_version=plan["initial_version"],
        compared_with=_compared_with(plan),
    )


def _compared_with(plan: Mapping[str, Any]) -> str | None:
    evaluation = plan.get("evaluation", {})
    schema.mapping(evaluation, "plan.evaluation")
    predecessor = evaluation.get("predecessor")
    if predecessor is None:
        return None
    _PREDECESSOR(predecessor, "plan.evaluation.predecessor")
    return str(predecessor["version"])


def read_plan(data: bytes) -> dict[str, Any]:
    """The plan's JSON object with the fields the audit needs checked; raises TraceError.

    Further fields are the training code's business.
    """
    try:
        plan = parse_json_object(data, "plan")
        _PLAN(plan, "plan")
        _compared_with(plan)
    except (CanonicalError, EntryError) as error:
        raise TraceError(str(error)) from error
    return plan


_PLAN = schema.fields_of(
    {
        "name": schema.name,
        "task": schema.name,
        "consortium": schema.name,
        "sites": schema.distinct(schema.name),
        "evaluation_sites": schema.distinct(schema.name),
        "rounds": schema.integer(1),
        "epsilon": schema.number(minimum=0),
        "delta": schema.number(minimum=0, maximum=1),
        "unit": schema.name,
        "accountant": schema.name,
        "sampling_prob": schema.number(minimum=0, maximum=1),
        "l2_clip_norm": schema.number(minimum=0),
        "noise_multiplier": schema.number(minimum=0),
        "noise_mode": schema.name,
        "colluders": schema.integer(0),
        "dropouts": schema.integer(0),
        "label_space": schema.list_of(schema.name),
        "encoder": schema.present,
        "model": schema.present,
        "initial_version": schema.digest,
    },
    further=True,
)
_PREDECESSOR = schema.fields_of({"version": schema.digest}, further=True)
