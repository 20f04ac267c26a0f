"""What is signed about plans: proposing one, and deciding about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from admin_api.planning import decide, propose, published_patients
from admin_api.signing import Signer
from admin_api.web.acts import Act, Words
from admin_api.web.context import Viewer, Workplace
from admin_api.web.language import _, current, ngettext
from admin_api.web.plans.desk import CACHE
from admin_api.web.plans.forecast import Working, ask_terms
from admin_api.web.plans.overview import find_plan, in_words, needs
from admin_api.web.plans.terms import PlanWish, wish_of
from admin_api.web.problems import Problem
from jobs.plan import Plan
from jobs.proposal import make_plan
from jobs.records import load_plan, plan_of_version

FORECAST_S = 8.0  # that a proposal waits for its forecast; usually somebody has looked at it before
MOST_REASON = 4000


class PlanDecision(BaseModel):
    """Approve or refuse a plan that was proposed. The last decision of a person counts."""

    model_config = ConfigDict(extra="forbid")

    plan_hash: str = Field(pattern=r"^sha256:[0-9a-f]{64}$", examples=["sha256:" + "1f" * 32])
    decision: Literal["approve", "refuse"]
    reason: str = Field(default="", max_length=MOST_REASON, description="needed to refuse; can be erased later")

    @model_validator(mode="after")
    def _refused_with_reason(self) -> PlanDecision:
        if self.decision == "refuse" and not self.reason.strip():
            raise ValueError("to refuse a plan, give a reason; the proposer needs it")
        return self


def _plan(here: Workplace, wish: PlanWish) -> Plan:
    """The plan a wish becomes; its noise was calibrated when the forecast was computed."""
    nominal = wish.nominal_patients or published_patients(here.home, wish.sites)
    predecessor = None if wish.predecessor is None else (plan_of_version(here.home, wish.predecessor), wish.predecessor)
    asked = wish_of(wish, consortium=here.home.config().name, nominal_patients=nominal, predecessor=predecessor)
    return make_plan(asked, cache_dir=here.home.path / CACHE)


def _proposal_words(here: Workplace, viewer: Viewer, wish: PlanWish) -> Words:
    nominal = wish.nominal_patients or published_patients(here.home, wish.sites)
    question = wish.question().model_copy(update={"nominal_patients": nominal})
    outlook = ask_terms(here, question, only=None, wait_s=FORECAST_S)
    if isinstance(outlook, Working):
        raise Problem(503, "forecast-going-on", "The forecast is being computed",
                      f"the noise of this plan is being calibrated ({outlook.doing})",
                      "look at its forecast, and propose it when that is there", {"Retry-After": "10"})  # fmt: skip
    plan = _plan(here, wish)
    return Words(
        title=_("Propose plan %(name)s", name=plan.name),
        sentences=[*in_words(plan), *outlook.sentences, *outlook.warnings],
        if_signed=_("The plan is in the log for ever, in your name. Nothing runs before others have approved it."),
        if_not=_("Nothing is proposed."),
        back=f"/plans/{plan.hash}",
    )


def _propose(here: Workplace, signer: Signer, wish: PlanWish) -> Mapping[str, Any]:
    return {"plan_hash": propose(here.home, _plan(here, wish), signer)}


def _decision_words(here: Workplace, viewer: Viewer, given: PlanDecision) -> Words:
    found = find_plan(here, given.plan_hash, only=None)
    plan = load_plan(here.home, given.plan_hash)
    approve = given.decision == "approve"
    missing = [need for need in needs(here, found) if not need.met]
    further = len(missing) - 1 if any(need.role == viewer.role for need in missing) else len(missing)
    if not approve:
        signed = _("The plan is refused, and the log says so with your reason. A run of it cannot start.")
    elif further > 0:
        signed = ngettext(
            "%(num)s more approval is needed before the plan can be carried out.",
            "%(num)s more approvals are needed before the plan can be carried out.",
            further,
        )
    else:
        signed = _("An admin may start a run of it. Each hospital checks your approval and its own limits first.")
    title = _("Approve plan %(name)s", name=plan.name) if approve else _("Refuse plan %(name)s", name=plan.name)
    reason = given.reason.strip()
    return Words(
        title=title,
        sentences=[
            *in_words(plan),
            *([_("Your reason: %(reason)s", reason=reason)] if reason else []),
            _("Proposed by %(who)s on %(when)s.", who=found.proposer_name, when=current().moment(found.time)),
        ],
        if_signed=signed,
        if_not=_("Nothing is logged; the plan waits."),
        back=f"/plans/{given.plan_hash}",
    )


def _decide(here: Workplace, signer: Signer, given: PlanDecision) -> Mapping[str, Any]:
    approve = given.decision == "approve"
    decide(here.home, "plan", given.plan_hash, signer, approve=approve, reason=given.reason)
    return {"plan_hash": given.plan_hash, "decision": given.decision}


PROPOSE = Act("plan-proposal", PlanWish, _proposal_words, _propose)
DECIDE = Act("plan-decision", PlanDecision, _decision_words, _decide)
