"""What is known of hospitals' privacy budgets: who has how much, what was spent, what a plan would take.

The budget is the hospital's own, and so is its ledger. What stands here is what the hospital last stated in a signed
acceptance or report, by the accountant of its admission; for a hospital that states nothing, the epsilons of what it
took part in, added up from the log, with no budget to hold them against. The ledger alone decides what it admits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from admin_api.errors import NotKnown
from admin_api.reading import hospitals, plans, privacy
from admin_api.web.context import Workplace
from admin_api.web.language import _, current
from admin_api.web.paging import MOST, Page
from admin_api.web.plans.effect import PlanCost, kept_cost, plan_text

LEDGER, LOG = "ledger", "log"
TRAINING, VALIDATION = "training", "validation"


class CohortLine(BaseModel):
    """A cohort of patients at a hospital, as it stands. All epsilons are per patient."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "site": "amstel",
                    "cohort": "training",
                    "budget": 8.0,
                    "delta": 1e-5,
                    "spent": 3.2,
                    "reserved": 0.0,
                    "left": 4.8,
                    "source": "ledger",
                    "when": "2026-11-22T05:00:00Z",
                    "entry": 4711,
                    "plan": 2.9,
                    "fits": True,
                }
            ]
        }
    )

    site: str
    cohort: str = Field(description="training or validation: which patients")
    budget: float | None = Field(description="set by the hospital's officer; null when the hospital does not state it")
    delta: float | None
    spent: float
    reserved: float
    left: float | None = Field(description="the budget less these two; what a further plan may take at least")
    source: str = Field(description="ledger: as the hospital stated; log: epsilons added up, never less than was spent")
    when: datetime
    entry: int = Field(description="the entry of the log that says so")
    plan: float | None = Field(description="what the plan asked about takes here; null when it is not part of it")
    fits: bool | None = Field(description="whether that is within what is left; null when that is not known")


class BurnPoint(BaseModel):
    """A moment at which something changed."""

    when: datetime
    cohort: str
    event: str = Field(description="reserved, spent, ended, reported or stated")
    run: str
    epsilon: float = Field(description="of this event; 0 when the hospital only stated where it stands")
    spent: float
    reserved: float
    budget: float | None
    source: str
    entry: int


@dataclass(frozen=True)
class Beside:
    """The plan whose effect stands beside the budgets; nothing of it where its text is not kept here."""

    plan: plans.Plan | None
    cost: PlanCost | None


def beside(here: Workplace, plan_hash: str | None, only: str | None) -> Beside:
    """The plan asked for, else the next one. Raises NotKnown for one that was not proposed."""
    chosen = plan_or_none(here, plan_hash, only)
    if chosen is None or (text := plan_text(here, chosen.plan_hash)) is None:
        return Beside(chosen, None)
    deltas = [each.budget_delta for each in privacy.listed(here.reading) if each.budget_delta is not None]
    return Beside(chosen, kept_cost(here, text, deltas))


def lines(here: Workplace, *, only: str | None, cost: PlanCost | None = None) -> list[CohortLine]:
    """Every cohort of every hospital the log knows a loss or a budget of, by hospital; `only`: of this one."""
    return [_line(each, cost) for each in privacy.listed(here.reading, only=only)]


def lines_page(
    here: Workplace, *, only: str | None, cost: PlanCost | None, search: str, sort: str, limit: int, after: str | None
) -> Page[CohortLine]:
    """A piece of them: `sort` is a word of privacy.SORTS, with - in front descending. Raises BadCursor."""
    found = privacy.sliced(
        here.reading, search=search, sort=sort.removeprefix("-"), descending=sort.startswith("-"), only=only,
        limit=limit, after=after,
    )  # fmt: skip
    return Page(items=[_line(each, cost) for each in found.items], next=found.after, total=found.total)


def of_hospital(here: Workplace, site: str, *, cost: PlanCost | None = None) -> list[CohortLine]:
    """A hospital's cohorts. Raises NotKnown for a hospital nobody knows."""
    hospitals.one(here.reading, site, now=here.now())
    return lines(here, only=site, cost=cost)


def _line(known: privacy.CohortPrivacy, cost: PlanCost | None) -> CohortLine:
    stated = known.budget is not None and known.ledger_spent is not None
    spent = known.ledger_spent if stated and known.ledger_spent is not None else known.spent
    reserved = known.ledger_reserved if stated and known.ledger_reserved is not None else known.reserved
    left = None if known.budget is None else max(0.0, known.budget - spent - reserved)
    plan = None if cost is None else cost.at(known.site, known.cohort, known.budget_delta)
    return CohortLine(
        site=known.site, cohort=known.cohort, budget=known.budget, delta=known.budget_delta, spent=spent,
        reserved=reserved, left=left, source=LEDGER if stated else LOG, when=known.last_time,
        entry=known.stated_entry if stated and known.stated_entry is not None else known.last_entry,
        plan=plan, fits=None if plan is None or left is None else plan <= left,
    )  # fmt: skip


def burn_points(points: Iterable[privacy.Point]) -> list[BurnPoint]:
    """Points of a burn-down; each with the best figures known at that moment."""
    return [
        BurnPoint(
            when=each.time, cohort=each.cohort, event=each.event, run=each.run, epsilon=each.epsilon,
            spent=each.spent if each.ledger_spent is None else each.ledger_spent,
            reserved=each.reserved if each.ledger_reserved is None else each.ledger_reserved,
            budget=each.budget, source=LOG if each.ledger_spent is None else LEDGER, entry=each.entry,
        )
        for each in points
    ]  # fmt: skip


def course(here: Workplace, line: CohortLine, most: int) -> list[BurnPoint]:
    """How a line came to be, oldest first, in at most `most` points of the same source."""
    found = privacy.course(here.reading, line.site, line.cohort, stated=line.source == LEDGER, most=most)
    return burn_points(found)


def every_line(here: Workplace, *, only: str | None, cost: PlanCost | None, search: str, sort: str) -> list[CohortLine]:
    """All pieces of `lines_page`."""
    found: list[CohortLine] = []
    after: str | None = None
    while True:
        part = lines_page(here, only=only, cost=cost, search=search, sort=sort, limit=MOST, after=after)
        found += part.items
        if (after := part.next) is None:
            return found


def every_point(here: Workplace, site: str) -> Iterator[BurnPoint]:
    """All that happened to a hospital's budgets, newest first, read a piece at a time."""
    after: str | None = None
    while True:
        part = privacy.points(here.reading, site, after=after)
        yield from burn_points(part.items)
        if (after := part.after) is None:
            return


def next_plan(here: Workplace, only: str | None) -> plans.Plan | None:
    """The newest plan that is proposed or approved and not yet carried out."""
    found = [
        plan
        for state in ("proposed", "approved")
        for plan in plans.listed(here.reading, state=state, only=only, limit=1).items
        if plan.readable
    ]
    return max(found, key=lambda plan: plan.entry, default=None)


def plan_or_none(here: Workplace, plan_hash: str | None, only: str | None) -> plans.Plan | None:
    """The plan asked for, else the next one. Raises NotKnown for one that was not proposed."""
    if plan_hash is None:
        return next_plan(here, only)
    found = plans.one(here.reading, plan_hash)
    if only is not None and only not in (*found.sites, *found.evaluation_sites):
        raise NotKnown(f"no plan {plan_hash} was proposed")
    return found


def sentence(found: Sequence[CohortLine], plan: plans.Plan | None) -> str:
    """What is so, and what it needs."""
    if not found:
        return _("Nothing was spent yet: no hospital took part in a run.")
    stated = [line for line in found if line.left is not None and line.budget]
    if not stated:
        return _("No hospital states its budget yet; what was spent is added up from the log.")
    short = [line for line in stated if line.fits is False]
    if short and plan is not None:
        return _(
            "Plan %(plan)s takes epsilon %(plan_e)s of the %(cohort)s budget of %(site)s, where %(left)s is left.",
            plan=plan.title or "", site=short[0].site, cohort=_cohort(short[0].cohort),
            plan_e=current().epsilon(short[0].plan), left=current().epsilon(short[0].left),
        )  # fmt: skip
    least = min(stated, key=share_left)
    return _(
        "%(site)s has least left: epsilon %(left)s of %(budget)s for a %(cohort)s patient.",
        site=least.site, left=current().epsilon(least.left), budget=current().epsilon(least.budget),
        cohort=_cohort(least.cohort),
    )  # fmt: skip


def share_left(line: CohortLine) -> float:
    """The part of its budget that a cohort has left; none where there is no budget."""
    return (line.left or 0.0) / line.budget if line.budget else 0.0


def _cohort(cohort: str) -> str:
    return _("training") if cohort == TRAINING else _("validation")
