"""A plan's way through the consortium: propose it, describe it in plain words, decide about it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from admin_api.errors import AdminError, ApprovalError
from admin_api.people import disclosed_now
from admin_api.recording import in_own_name, read_evidence, reason_of, record_judged, signed_by
from admin_api.signing import Signer
from audit.canonical import parse_json_object
from audit.certificate_request import DECIDERS, REQUEST
from audit.disclosure import commitment_of
from audit.entry import APPROVAL_GIVEN, GATES_SET, PLAN_PROPOSED, RELEASE_PROPOSED, SITE_MANIFEST, Entry
from audit.errors import AuditError, ReleaseError, TraceError
from audit.evidence import Evidence
from audit.gate_trace import gates_in_force
from audit.plan_trace import PLAN_PROPOSERS
from audit.release import APPROVE, DEFAULT_POLICY, REFUSE, Policy, ReleaseStatement
from audit.release_state import WITHDRAWERS
from audit.statement import APPROVAL, PROPOSAL
from jobs.home import ConsortiumHome
from jobs.plan import LOCAL, Plan
from jobs.records import load_plan
from jobs.terms import evaluation_terms
from privacy.answers import Progress, in_silence
from privacy.forecast import Forecast, forecast

MEANING = {
    "plan": "I have read this plan and its epsilon; it may be carried out.",
    "release": "I have read this release's evidence; it may be used for coding.",
    "withdrawal": "I have read why; this release must not be used for coding any more.",
    "request": "I have checked who asks and with which key; this certificate may be issued.",
}
PROPOSED = {
    "plan": "I propose that this plan be carried out.",
    "release": "I propose that this release be certified on this evidence.",
}


def plan_forecast(plan: Plan, *, cache_dir: Path | None = None, progress: Progress = in_silence) -> Forecast:
    """What a plan costs a patient of a training hospital, against whom."""
    return forecast(
        plan.training_events(),
        delta=plan.delta,
        sites=len(plan.sites),
        colluders=plan.colluders,
        dropouts=plan.dropouts,
        noise_mode=plan.noise_mode,
        cache_dir=cache_dir,
        progress=progress,
    )


def describe(
    plan: Plan, *, cache_dir: Path | None = None, progress: Progress = in_silence
) -> tuple[dict[str, Any], list[str]]:
    """A plan in numbers and in words, with its epsilons, for whoever decides about it."""
    outlook = plan_forecast(plan, cache_dir=cache_dir, progress=progress)
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
        *privacy_lines(plan, outlook),
        f"Metrics           epsilon {report.epsilon:g} per validation patient and report",
        f"Dropouts          a round with more than {plan.dropouts} missing hospitals is aborted",
        "Not covered       a patient known to several hospitals counts at each; timing; the published counts",
        f"Accountant        {plan.accountant}",
    ]
    return value, lines


def privacy_lines(plan: Plan, outlook: Forecast) -> list[str]:
    """The forecast in words: whose noise it is, one line for each adversary, and the budget it needs."""
    if plan.noise_mode == LOCAL:
        noise = "local: each hospital adds all of the noise itself; nobody has to be trusted for it"
        losses = [(outlook.against_everyone, "everyone else, the server and all other hospitals together")]
    else:
        noise = "distributed: each hospital adds a share, and secure aggregation hides the rest"
        colluding = f"{plan.colluders} colluding hospital{'s' if plan.colluders > 1 else ''}"
        losses = [
            (outlook.released_model, "whoever has the released model alone"),
            (outlook.against_server, f"the server with {colluding}, {plan.dropouts} missing: what is spent"),
            (outlook.against_everyone, "the server and all other hospitals together: nobody trusted"),
        ]
    return [
        f"Noise             {noise}",
        f"Privacy loss      of a patient at a training hospital, at delta {plan.delta:g}:",
        *(f"                  epsilon {epsilon:.3f} against {who}" for epsilon, who in losses),
        f"Budget needed     {outlook.against_server_rdp:.3f} at each training hospital, as its ledger's filter counts",
    ]


def decisions(home: ConsortiumHome, kind: str, digest: str) -> list[dict[str, Any]]:
    """Who decided what about a plan, a release's statement or a request, oldest first, with names and reasons not yet
    erased.
    """
    with home.log() as log:
        signed = [entry.signed("approval").statement for _, entry in log.entries(kind=APPROVAL_GIVEN)]
    said = disclosed_now(home)
    fields = ("organisation", "role", "decision", "time")
    return [
        {
            "person": statement["name"],
            "name": said.name(statement["name"]),
            "reason": said.value(statement["reason"]),
            **{field: statement[field] for field in fields},
        }
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


def propose(home: ConsortiumHome, plan: Plan, proposer: Signer) -> str:
    """Log a plan as proposed; returns its hash.

    Raises: ApprovalError when the proposer is not a consortium admin, AdminError when this plan was proposed before:
    a second entry would leave open which one the approvals follow.
    """
    proposer.require(*PLAN_PROPOSERS)
    plan_hash = plan.hash
    _refuse_proposed(read_evidence(home), plan_hash)
    signed = signed_by(
        home,
        proposer,
        PROPOSAL,
        {"subject": {"kind": "plan", "digest": plan_hash}, "meaning": PROPOSED["plan"], **in_own_name(proposer)},
    )

    def build(evidence: Evidence) -> list[Entry]:
        _refuse_proposed(evidence, plan_hash)
        home.artifacts().put(plan.to_bytes())
        body = {"plan_hash": plan_hash, "plan": plan_hash, "proposal": signed.to_json()}
        return [Entry(PLAN_PROPOSED, home.clock(), body)]

    record_judged(home, build)
    return plan_hash


def _refuse_proposed(evidence: Evidence, plan_hash: str) -> None:
    if evidence.of_kind(PLAN_PROPOSED, plan_hash=plan_hash):
        raise AdminError(f"plan {plan_hash} was proposed already; `zegel plan list` shows its decisions")


def decide(
    home: ConsortiumHome, kind: str, digest: str, person: Signer, *, approve: bool, reason: str
) -> dict[str, Any]:
    """Sign a person's decision about a plan, release, withdrawal or request; returns the signed statement as JSON.

    Raises: ApprovalError when there is nothing with this digest to decide about, the person's role does not decide
    about such things, or a refusal gives no reason; PlanError for an unknown plan.
    """
    if not approve and not reason.strip():
        raise ApprovalError(f"to refuse a {kind}, give a --reason; the proposer needs it")
    person.require(*_deciding(home, kind, digest))
    try:
        why = reason_of(reason, person)
    except AuditError as error:
        raise ApprovalError(str(error)) from None
    signed = signed_by(
        home,
        person,
        APPROVAL,
        {
            "subject": {"kind": kind, "digest": digest},
            "decision": APPROVE if approve else REFUSE,
            "meaning": MEANING[kind] if approve else "I refuse.",
            "reason": commitment_of(why),
            **in_own_name(person),
        },
    )
    try:
        entry = Entry(APPROVAL_GIVEN, home.clock(), {"approval": signed.to_json()})
        record_judged(home, lambda _: [entry], beside=[why])
    except (TraceError, ReleaseError) as error:
        raise ApprovalError(str(error)) from None
    return signed.to_json()


def _deciding(home: ConsortiumHome, kind: str, digest: str) -> Sequence[str]:
    """The roles that decide about a plan or release, by the policy set for its task, or the least there may be."""
    if kind == REQUEST:
        return sorted(DECIDERS)
    if kind == "withdrawal":
        return sorted(WITHDRAWERS)
    if kind == "plan":
        return plan_policy(home, load_plan(home, digest).task).plan
    with home.log() as log:
        if digest not in {entry.body["statement"] for _, entry in log.entries(kind=RELEASE_PROPOSED)}:
            raise ApprovalError(f"no release with the statement {digest} was proposed")
    return ReleaseStatement.from_bytes(home.artifacts().get(digest)).policy.release


def plan_policy(home: ConsortiumHome, task: str) -> Policy:
    """The policy set with the gates of a task, or the default while none are set. Raises AuditError."""
    evidence = read_evidence(home)
    if not any(each.entry.signed("gates").statement["task"] == task for each in evidence.of_kind(GATES_SET)):
        return DEFAULT_POLICY
    return gates_in_force(evidence, task, before=evidence.size).gates.policy
