"""A plan's way through the consortium: propose it, describe it in plain words, decide about it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from admin_api.errors import AdminError, ApprovalError
from admin_api.people import Person
from audit.canonical import format_time, parse_json_object
from audit.certificates import CONSORTIUM_ADMIN
from audit.entry import APPROVAL_GIVEN, PLAN_PROPOSED, RELEASE_PROPOSED, SITE_MANIFEST, Entry
from audit.release import APPROVE, DEFAULT_POLICY, REFUSE
from audit.statement import APPROVAL, sign_statement
from jobs.home import ConsortiumHome
from jobs.plan import FEATURE_MEAN_PURPOSE, Plan
from jobs.records import load_plan
from jobs.terms import evaluation_terms
from privacy.calibration import forecast
from privacy.events import FeatureMean

MEANING = {
    "plan": "I have read this plan and its epsilon; it may be carried out.",
    "release": "I have read this release's evidence; it may be used for coding.",
}


def describe(plan: Plan, *, cache_dir: Path | None = None) -> tuple[dict[str, Any], list[str]]:
    """A plan in numbers and in words, with both epsilons, for whoever decides about it."""
    mean = plan.feature_mean_noise_multiplier
    outlook = forecast(
        delta=plan.delta,
        rounds=plan.rounds,
        sampling_prob=plan.sampling_prob,
        noise_multiplier=plan.noise_multiplier,
        sites=len(plan.sites),
        colluders=plan.colluders,
        dropouts=plan.dropouts,
        extra_events=() if mean is None else (FeatureMean(mean, FEATURE_MEAN_PURPOSE),),
        cache_dir=cache_dir,
    )
    value = {
        "plan_hash": plan.hash,
        "plan": parse_json_object(plan.to_bytes(), "plan"),
        "forecast": outlook.to_json(),
    }
    report = evaluation_terms(plan)
    lines = [
        f"Plan {plan.name}   {plan.hash}",
        f"Task              {plan.task}, {len(plan.label_space)} codes, {plan.label_system}",
        f"Train             {', '.join(plan.sites)}",
        f"Evaluate          {', '.join(plan.evaluation_sites)}",
        f"Rounds            {plan.rounds} steps, {plan.aggregations} secure sums; each patient takes part in a step "
        f"with probability {plan.sampling_prob:g}",
        f"One patient       counts at most {plan.l2_clip_norm:g} (L2 norm); noise multiplier {plan.noise_multiplier:g}",
        f"Privacy loss      epsilon {outlook.against_server:.3f} (delta {plan.delta:g}, per patient at a hospital) "
        f"against everyone who sees the model, and against the server with {plan.colluders} colluding hospital(s)",
        f"                  epsilon {outlook.without_aggregation:.1f} if the server and all other hospitals collude",
        f"Budget needed     {outlook.against_server_rdp:.3f} at each training hospital, as its ledger's filter counts",
        f"Metrics           epsilon {report.epsilon:g} per validation patient and report",
        f"Dropouts          a round with more than {plan.dropouts} missing hospitals is aborted",
        "Not covered       a patient known to several hospitals counts at each; timing; the published counts",
        f"Accountant        {plan.accountant}",
    ]
    return value, lines


def decisions(home: ConsortiumHome, kind: str, digest: str) -> list[dict[str, Any]]:
    """Who decided what about a plan or a release's statement, oldest first."""
    with home.log() as log:
        signed = [entry.signed("approval").statement for _, entry in log.entries(kind=APPROVAL_GIVEN)]
    fields = ("name", "organisation", "role", "decision", "reason", "time")
    return [
        {field: statement[field] for field in fields}
        for statement in signed
        if statement["subject"] == {"kind": kind, "digest": digest}
    ]


def published_patients(home: ConsortiumHome, sites: Sequence[str]) -> int:
    """Patients of these hospitals together, from their latest signed manifests, rounded to two digits.

    Raises: AdminError for a hospital whose manifest is not logged or suppresses its count.
    """
    counts: dict[str, int | None] = {}
    with home.log() as log:
        for _, entry in log.entries(kind=SITE_MANIFEST):
            counts[entry.body["site"]] = entry.signed("manifest").statement["patients"]
    missing = [site for site in sites if not counts.get(site)]
    if missing:
        raise AdminError(
            f"no count of patients from {', '.join(missing)}: log their manifests with `zegel consortium manifest`, "
            "or give --nominal-patients"
        )
    return two_digits(sum(counts[site] or 0 for site in sites))


def two_digits(number: int) -> int:
    """Rounded to two significant digits, so that a plan's constant does not follow every patient.

    >>> two_digits(4690)
    4700
    """
    if number < 100:
        return number
    step = 10 ** (int(math.log10(number)) - 1)
    return int(round(number / step) * step)


def propose(home: ConsortiumHome, plan: Plan, proposer: Person) -> str:
    """Log a plan as proposed; returns its hash.

    Raises: ApprovalError when the proposer is not a consortium admin, AdminError when this plan was proposed before:
    a second entry would leave open which one the approvals follow.
    """
    proposer.require(CONSORTIUM_ADMIN)
    with home.log() as log:
        if plan.hash in {entry.body["plan_hash"] for _, entry in log.entries(kind=PLAN_PROPOSED)}:
            raise AdminError(f"plan {plan.hash} was proposed already; `zegel plan list` shows its decisions")
    plan_hash = home.artifacts().put(plan.to_bytes())
    home.record(
        Entry(
            PLAN_PROPOSED,
            home.clock(),
            {"plan_hash": plan_hash, "plan": plan_hash, "proposer": proposer.certificate_digest},
        )
    )
    return plan_hash


def decide(
    home: ConsortiumHome, kind: str, digest: str, person: Person, *, approve: bool, reason: str
) -> dict[str, Any]:
    """Sign a person's decision about a plan or release and log it; returns the signed statement as JSON.

    Raises: ApprovalError when there is nothing with this digest to decide about, the person's role does not decide
    about such things, or a refusal gives no reason; PlanError for an unknown plan.
    """
    if not approve and not reason.strip():
        raise ApprovalError(f"to refuse a {kind}, give a --reason; the proposer needs it")
    if kind == "plan":
        load_plan(home, digest)
        person.require(*DEFAULT_POLICY.plan)
    else:
        person.require(*DEFAULT_POLICY.release)
        with home.log() as log:
            if digest not in {entry.body["statement"] for _, entry in log.entries(kind=RELEASE_PROPOSED)}:
                raise ApprovalError(f"no release with the statement {digest} was proposed")
    identity = person.identity
    signed = sign_statement(
        {
            "type": APPROVAL,
            "consortium": home.config().name,
            "time": format_time(home.clock()),
            "subject": {"kind": kind, "digest": digest},
            "decision": APPROVE if approve else REFUSE,
            "meaning": MEANING[kind] if approve else "I refuse.",
            "reason": reason,
            "name": identity.name,
            "organisation": identity.organisation,
            "role": identity.role,
        },
        person.key,
        person.certificate,
    )
    home.record(Entry(APPROVAL_GIVEN, home.clock(), {"approval": signed.to_json()}))
    return signed.to_json()
