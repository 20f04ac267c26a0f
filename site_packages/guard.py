"""The guard: what a hospital checks before it reads a record for anybody.

The hospital decides by its own limits and its own arithmetic. It computes the plan's hash from the bytes it was sent,
checks the approval's signature against the consortium's root, and computes the plan's epsilon itself; it does not take
the coordinator's word for any of them. What it refuses is refused with a code from `CODES` and one plain sentence.

The check is pure: no file, no clock, no data. `Participant.join` runs it before anything else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography import x509

from audit.certificates import PRIVACY_OFFICER, Identity
from audit.errors import AuditError
from audit.revocation import NO_REVOCATIONS, Revocations
from audit.statement import APPROVAL, SignedStatement, verify_statement
from jobs.errors import JobError, PlanError
from jobs.icd_coding.errors import CodingError
from jobs.plan import Plan
from jobs.terms import EvaluationTerms, check_terms, evaluation_terms, plan_encoder
from privacy.accounting import epsilon
from privacy.errors import PrivacyError
from privacy.forecast import forecast
from site_packages.errors import SitePackagesError
from site_packages.limits import Limits

# Tolerance on the plan's claimed epsilon: accountants of two versions differ in the last digits of the grid.
EPSILON_TOLERANCE = 1e-3

CODES = {
    "plan-malformed": "the plan cannot be read",
    "plan-differs": "the plan's bytes do not have the hash that was approved",
    "not-approved": "no valid approval by a privacy officer",
    "revocations-unknown": "the log's list of suspended and revoked certificates is missing or not to be believed",
    "wrong-consortium": "the plan is for another consortium",
    "not-invited": "this hospital is not named in the plan",
    "task-not-allowed": "the hospital does not do this task",
    "encoder-not-allowed": "the hospital does not run this text encoder",
    "encoder-not-installed": "the language model of the text encoder is not on this hospital's machine",
    "label-not-known": "the label space holds codes the hospital's code table lacks",
    "too-few-hospitals": "fewer hospitals than the hospital's minimum",
    "too-many-rounds": "more rounds than the hospital allows",
    "clip-too-large": "one patient may count for more than the hospital allows",
    "unprotected": "the plan has no noise, and this hospital's data is not public",
    "noise-too-weak": "less noise than the hospital's floor",
    "delta-too-large": "a larger delta than the hospital allows",
    "epsilon-understated": "the plan spends more than it says",
    "own-noise-too-weak": "the hospital's own noise alone protects less than it asks for",
    "over-budget": "the hospital's privacy budget does not cover the plan",
    "ledger-rolled-back": "the hospital's record of privacy spent lacks what it gave away",
}


class GuardRefusal(SitePackagesError):
    """The hospital will not take part. `code` is a key of `CODES`; `detail` says expected and got."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{CODES[code]}: {detail}")
        self.code = code
        self.detail = f"{CODES[code]}: {detail}"


@dataclass(frozen=True)
class Admitted:
    """A plan the guard let pass, and who approved it."""

    plan: Plan
    plan_hash: str
    approvers: tuple[Identity, ...]


def check_plan(
    data: bytes,
    approvals: Sequence[Mapping[str, Any]],
    certificates: Mapping[str, x509.Certificate],
    *,
    expected_hash: str,
    site: str,
    consortium: str,
    root: x509.Certificate,
    limits: Limits,
    known_codes: frozenset[str] | None,
    now: datetime,
    installed_encoders: frozenset[str] = frozenset(),
    revocations: Revocations = NO_REVOCATIONS,
) -> Admitted:
    """Decide whether this hospital takes part in the plan whose bytes are `data`.

    Args:
        approvals: signed statements as JSON; those that do not approve this plan are of no help.
        certificates: digest -> certificate, as sent along; each is checked against `root`.
        expected_hash: the hash the coordinator says it carries out.
        known_codes: codes of the hospital's code table, or None when it has not imported data yet.
        installed_encoders: digests of the language models on the hospital's machine.
        revocations: as the log has them; an approval by somebody suspended or revoked since is none.
    Returns: the plan and its approvers. Raises: GuardRefusal.
    """
    try:
        plan = Plan.from_bytes(data)
    except PlanError as error:
        raise GuardRefusal("plan-malformed", str(error)) from None
    if plan.hash != expected_hash:
        raise GuardRefusal("plan-differs", f"expected {expected_hash}, got {plan.hash}")
    if plan.consortium != consortium:
        raise GuardRefusal("wrong-consortium", f"expected {consortium!r}, got {plan.consortium!r}")
    if site not in plan.sites and site not in plan.evaluation_sites:
        raise GuardRefusal("not-invited", f"{site} is in neither list of the plan")
    approvers = _approvers(
        plan.hash, approvals, certificates, root=root, consortium=consortium, now=now, revocations=revocations
    )
    _check_limits(plan, limits)
    try:
        check_terms(plan)
    except (JobError, CodingError, PrivacyError) as error:
        raise GuardRefusal("plan-malformed", str(error)) from None
    if missing := sorted(plan_encoder(plan).model_digests - installed_encoders):
        raise GuardRefusal("encoder-not-installed", f"{missing[0]}; its operator adds it with `zegel site encoder add`")
    unknown = sorted(set(plan.label_space) - known_codes) if known_codes is not None else []
    if unknown:
        raise GuardRefusal("label-not-known", f"{len(unknown)} codes, the first {unknown[0]}")
    if site in plan.sites and plan.epsilon is not None:
        computed = epsilon(plan.training_events(), plan.delta)
        if computed > plan.epsilon + EPSILON_TOLERANCE:
            raise GuardRefusal(
                "epsilon-understated", f"it says {plan.epsilon:g}, this hospital computes {computed:.4f}"
            )
        _check_own_noise(plan, limits)
    if site in plan.evaluation_sites:
        report = evaluation_terms(plan)
        _check_report(report, limits)
        computed = epsilon([report.event], report.delta)
        if computed > report.epsilon + EPSILON_TOLERANCE:
            raise GuardRefusal(
                "epsilon-understated",
                f"its metrics say {report.epsilon:g}, this hospital computes {computed:.4f}",
            )
    return Admitted(plan, plan.hash, approvers)


def _approvers(
    plan_hash: str,
    approvals: Sequence[Mapping[str, Any]],
    certificates: Mapping[str, x509.Certificate],
    *,
    root: x509.Certificate,
    consortium: str,
    now: datetime,
    revocations: Revocations,
) -> tuple[Identity, ...]:
    found: list[Identity] = []
    problems: list[str] = []
    for value in approvals:
        try:
            signed = SignedStatement.from_json(value)
            identity = verify_statement(
                signed,
                certificates,
                root,
                at=now,
                expected_type=APPROVAL,
                consortium=consortium,
                roles=frozenset({PRIVACY_OFFICER}),
                revocations=revocations,
            )
        except AuditError as error:
            problems.append(str(error))
            continue
        statement = signed.statement
        if statement.get("subject") != {"kind": "plan", "digest": plan_hash}:
            problems.append(f"{identity.name} signed for {statement.get('subject')!r}")
        elif statement.get("decision") != "approve":
            raise GuardRefusal("not-approved", f"{identity.name} decided {statement.get('decision')!r}")
        else:
            found.append(identity)
    if not found:
        raise GuardRefusal("not-approved", "; ".join(problems) or "no approval came with the plan")
    return tuple(found)


def _check_limits(plan: Plan, limits: Limits) -> None:
    if plan.task not in limits.tasks:
        raise GuardRefusal("task-not-allowed", f"{plan.task}; allowed: {', '.join(limits.tasks)}")
    forbidden = sorted(_encoder_kinds(plan) - set(limits.encoders))
    if forbidden:
        raise GuardRefusal("encoder-not-allowed", f"{forbidden[0]}; allowed: {', '.join(limits.encoders)}")
    if plan.minimum_sites < limits.minimum_sites:
        raise GuardRefusal("too-few-hospitals", f"at least {limits.minimum_sites}, got {plan.minimum_sites}")
    if plan.aggregations > limits.maximum_rounds:
        raise GuardRefusal("too-many-rounds", f"at most {limits.maximum_rounds}, got {plan.aggregations}")
    if plan.l2_clip_norm > limits.maximum_l2_clip_norm:
        raise GuardRefusal("clip-too-large", f"at most {limits.maximum_l2_clip_norm:g}, got {plan.l2_clip_norm:g}")
    if plan.delta > limits.maximum_delta:
        raise GuardRefusal("delta-too-large", f"at most {limits.maximum_delta:g}, got {plan.delta:g}")
    if plan.epsilon is None:
        if not limits.data_is_public:
            raise GuardRefusal("unprotected", "epsilon is null")
        return
    noises = [plan.noise_multiplier]
    if plan.feature_mean_noise_multiplier is not None:
        noises.append(plan.feature_mean_noise_multiplier)
    if min(noises) < limits.minimum_noise_multiplier:
        raise GuardRefusal("noise-too-weak", f"at least {limits.minimum_noise_multiplier:g}, got {min(noises):g}")


def _encoder_kinds(plan: Plan) -> frozenset[str]:
    """The kinds of encoder that the plan needs; of one this version cannot read, what it calls itself."""
    try:
        return plan_encoder(plan).kinds
    except CodingError:
        return frozenset({str(plan.encoder.get("kind"))})


def _check_own_noise(plan: Plan, limits: Limits) -> None:
    """For a hospital that trusts neither the number of colluders nor the aggregation beyond some epsilon."""
    most = limits.maximum_epsilon_against_everyone
    if most is None:
        return
    alone = forecast(
        plan.training_events(),
        delta=plan.delta,
        sites=len(plan.sites),
        colluders=plan.colluders,
        dropouts=plan.dropouts,
        noise_mode=plan.noise_mode,
    ).against_everyone
    if alone > most + EPSILON_TOLERANCE:
        raise GuardRefusal(
            "own-noise-too-weak",
            f"epsilon at most {most:g} if the server and all other hospitals work together, this plan's is {alone:.4f}",
        )


def _check_report(report: EvaluationTerms, limits: Limits) -> None:
    """The limits hold for what is done to the validation patients as well."""
    if report.delta > limits.maximum_delta:
        raise GuardRefusal("delta-too-large", f"its metrics: at most {limits.maximum_delta:g}, got {report.delta:g}")
    if report.noise_multiplier < limits.minimum_noise_multiplier:
        raise GuardRefusal(
            "noise-too-weak",
            f"its metrics: at least {limits.minimum_noise_multiplier:g}, got {report.noise_multiplier:g}",
        )
