"""What a plan takes of the budgets of the hospitals it names: as its kept forecast has it, or about as it states."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from admin_api.web.context import Workplace
from admin_api.web.plans.desk import desk_of
from audit.errors import ArtifactError
from jobs.errors import PlanError
from jobs.plan import Plan
from jobs.terms import evaluation_terms


@dataclass(frozen=True)
class PlanCost:
    """Epsilons of a plan's cohorts.

    Attributes:
        training, evaluating: hospitals whose training and validation patients it touches.
        epsilon, report_epsilon: as the plan states them, at its own delta.
        costs: by Renyi DP, as ledgers count: by delta (as `repr`), then by cohort; may be empty.
    """

    training: frozenset[str]
    evaluating: frozenset[str]
    epsilon: float
    report_epsilon: float
    delta: float
    costs: Mapping[str, Mapping[str, float]]

    @property
    def exact(self) -> bool:
        """Whether ledgers would count the same."""
        return bool(self.costs)

    def at(self, site: str, cohort: str, delta: float | None) -> float | None:
        """What it takes there, at the delta of the hospital's budget; None where it takes nothing."""
        if site not in (self.training if cohort == "training" else self.evaluating):
            return None
        counted = self.costs.get(repr(self.delta if delta is None else delta)) or self.costs.get(repr(self.delta))
        if counted is not None:
            return counted[cohort]
        return self.epsilon if cohort == "training" else self.report_epsilon


def cost_of(plan: Plan, answer: Mapping[str, Any] | None) -> PlanCost:
    """The costs of a plan, with the forecast's figures when there are any."""
    return PlanCost(
        training=frozenset(plan.sites),
        evaluating=frozenset(plan.evaluation_sites),
        epsilon=plan.epsilon or 0.0,
        report_epsilon=evaluation_terms(plan).epsilon,
        delta=plan.delta,
        costs={} if answer is None else answer["costs"],
    )


def plan_question(plan: Plan, deltas: Iterable[float]) -> dict[str, Any]:
    """What the desk is asked about a plan: its text, and the deltas at which hospitals hold budgets."""
    return {"plan": plan.to_bytes().decode(), "deltas": sorted({*deltas, plan.delta})}


def plan_text(here: Workplace, plan_hash: str) -> Plan | None:
    """A proposed plan; None when its text is not kept here."""
    try:
        return Plan.from_bytes(here.home.artifacts().get(plan_hash))
    except (ArtifactError, PlanError):
        return None


def kept_cost(here: Workplace, plan: Plan, deltas: Iterable[float]) -> PlanCost:
    """A plan's costs without computing anything: exact when its forecast was looked at before."""
    return cost_of(plan, desk_of(here).kept(plan_question(plan, deltas)))
