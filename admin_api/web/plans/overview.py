"""Plans as pages and programs see them: what was proposed, who decided, what is still missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from admin_api.errors import NotKnown
from admin_api.reading import plans, releases
from admin_api.web.context import Viewer, Workplace
from admin_api.web.language import _, current, ngettext
from admin_api.web.plans.effect import plan_text
from admin_api.web.problems import not_found
from audit.canonical import parse_json_object
from audit.release import APPROVE, DEFAULT_POLICY
from jobs.plan import LOCAL, RIDGE, Plan


class PlanLine(BaseModel):
    """A plan in the list."""

    model_config = ConfigDict(from_attributes=True)

    plan_hash: str = Field(examples=["sha256:" + "1f" * 32])
    title: str | None = Field(examples=["autumn-2026"])
    state: str = Field(description="proposed, approved, refused or carried out")
    time: datetime
    entry: int
    proposer_name: str
    task: str | None
    epsilon: float | None
    delta: float | None
    rounds: int | None
    noise_mode: str | None
    estimator: str | None
    sites: list[str]
    evaluation_sites: list[str]
    labels: int | None
    approvals: int
    refusals: int


class DecisionView(BaseModel):
    """Somebody's signed yes or no."""

    model_config = ConfigDict(from_attributes=True)

    entry: int
    time: datetime
    decision: str = Field(description="approve or refuse")
    person: str
    name: str
    organisation: str
    role: str
    reason: str


class Need(BaseModel):
    """A role whose approval the policy asks for."""

    role: str
    met: bool
    by: str | None = Field(description="whose approval meets it")


class PlanView(PlanLine):
    """One plan."""

    proposer: str
    compared_with: str | None
    runs: list[str]
    decisions: list[DecisionView]
    needs: list[Need]
    text: dict[str, Any] | None = Field(description="the plan itself; null when its text is not kept here")


def lines(found: Sequence[plans.Plan]) -> list[PlanLine]:
    """Plans of the read model, as the list shows them."""
    return [PlanLine.model_validate(plan) for plan in found]


def find_plan(here: Workplace, plan_hash: str, *, only: str | None) -> plans.Plan:
    """A plan that the viewer may see. Raises Problem 404."""
    try:
        found = plans.one(here.reading, plan_hash)
    except NotKnown as error:
        raise not_found(str(error)) from None
    if only is not None and only not in (*found.sites, *found.evaluation_sites):
        raise not_found(f"no plan {plan_hash} was proposed")
    return found


def plan_view(here: Workplace, plan_hash: str, *, only: str | None) -> PlanView:
    """One plan. Raises Problem 404."""
    found = find_plan(here, plan_hash, only=only)
    text = plan_text(here, plan_hash)
    return PlanView(
        **PlanLine.model_validate(found).model_dump(),
        proposer=found.proposer,
        compared_with=found.compared_with,
        runs=list(found.runs),
        decisions=[DecisionView.model_validate(each) for each in found.decisions],
        needs=needs(here, found),
        text=None if text is None else parse_json_object(text.to_bytes(), "plan"),
    )


def roles_needed(here: Workplace, task: str | None) -> tuple[str, ...]:
    """Whose approvals a plan of this task needs now, by the policy set with its gates."""
    gates = None if task is None else releases.gate_set_in_force(here.reading, task)
    return (DEFAULT_POLICY if gates is None else gates.policy).plan


def last_words(found: plans.Plan) -> list[plans.Decision]:
    """Each person's last decision, the proposer's left out: it never counts."""
    by_person = {each.person: each for each in found.decisions if each.person != found.proposer}
    return list(by_person.values())


def needs(here: Workplace, found: plans.Plan) -> list[Need]:
    """Which roles of the policy have approved. What counts is judged again when a run starts."""
    approving = [each for each in last_words(found) if each.decision == APPROVE]
    result = []
    used: set[str] = set()
    for role, count in sorted(Counter(roles_needed(here, found.task)).items()):
        mine = [each for each in approving if each.role == role and each.person not in used]
        for position in range(count):
            by = mine[position] if position < len(mine) else None
            if by is not None:
                used.add(by.person)
            result.append(Need(role=role, met=by is not None, by=None if by is None else by.name))
    return result


def why_not(here: Workplace, found: plans.Plan, viewer: Viewer) -> str | None:
    """Why the viewer does not decide about this plan; None when they may."""
    if found.state == "carried out":
        return _("The plan was carried out; nothing is left to decide.")
    if viewer.account == found.proposer:
        return _("You proposed it, so others decide.")
    if viewer.role not in roles_needed(here, found.task):
        return _("Your role does not decide about plans.")
    if viewer.via == "token":
        return _("Only people sign, with a passkey.")
    return None


def in_words(plan: Plan) -> list[str]:
    """What a plan does, in sentences."""
    said = current()
    everybody = plan.sampling_prob == 1.0
    if plan.estimator == RIDGE:
        how = _("They meet once, for one secure sum over all patients; the model follows in closed form.")
    elif everybody:
        how = _("They train in %(n)s secure sums; every patient takes part in each step.", n=plan.aggregations)
    else:
        how = _(
            "They train in %(n)s secure sums; each patient takes part in a step with probability %(p)s.",
            n=plan.aggregations, p=said.percent(plan.sampling_prob, 1),
        )  # fmt: skip
    noise = (
        _("Each hospital adds all of the noise itself; nobody has to be trusted for it.")
        if plan.noise_mode == LOCAL
        else ngettext(
            "Each hospital adds a share of the noise; it protects against the server with %(num)s colluding hospital.",
            "Each hospital adds a share of the noise; it protects against the server with %(num)s colluding hospitals.",
            plan.colluders,
        )
    )
    epsilon = (
        _("The plan has no noise: it is for public data only.")
        if plan.epsilon is None
        else _(
            "The whole run costs a training patient epsilon %(e)s at delta %(d)s; a report about the version costs a "
            "validation patient epsilon %(m)s.",
            e=said.epsilon(plan.epsilon), d=said.delta(plan.delta), m=said.epsilon(plan.evaluation["epsilon"]),
        )
    )  # fmt: skip
    return [
        _("%(sites)s train a model of %(n)s codes.", sites=_listed(plan.sites), n=said.number(len(plan.label_space))),
        how,
        noise,
        epsilon,
    ]


def _listed(names: Sequence[str]) -> str:
    if len(names) > 6:
        return ngettext("%(num)s hospital", "%(num)s hospitals", len(names))
    return _("%(first)s and %(last)s", first=", ".join(names[:-1]), last=names[-1]) if len(names) > 1 else names[0]


def parameters(plan: Plan) -> list[tuple[str, str]]:
    """A plan's parameters by name, for a list."""
    said = current()
    rows = [
        (_("Task"), plan.task),
        (_("Estimator"), plan.estimator),
        (_("Train"), ", ".join(plan.sites)),
        (_("Evaluate"), ", ".join(plan.evaluation_sites)),
        (_("Codes"), f"{said.number(len(plan.label_space))}, {plan.label_system}"),
        (_("Text encoder"), str(plan.encoder.get("kind"))),
        (_("Model"), str(plan.model.get("kind"))),
        (_("Rounds"), said.number(plan.rounds)),
        (_("Secure sums"), said.number(plan.aggregations)),
        (_("Steps between sums"), said.number(plan.local_steps)),
        (_("A patient takes part in a step with probability"), said.percent(plan.sampling_prob, 1)),
        (_("Clip norm of one patient"), said.number(plan.l2_clip_norm, 3)),
        (_("Noise"), plan.noise_mode),
        (_("Noise multiplier"), said.number(plan.noise_multiplier, 3)),
        (_("Colluding hospitals"), said.number(plan.colluders)),
        (_("Dropouts allowed"), said.number(plan.dropouts)),
        (_("Nominal patients"), said.number(plan.nominal_patients)),
        (_("Epsilon of a report"), said.epsilon(plan.evaluation["epsilon"])),
        (_("Accountant"), plan.accountant),
    ]
    if plan.feature_mean_noise_multiplier is not None:
        rows.insert(14, (_("Noise multiplier of the feature mean"), said.number(plan.feature_mean_noise_multiplier, 3)))
    return rows
