"""Privacy budgets, what leaves hospitals, and the empirical audit, for programs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from admin_api.reading import privacy, releases
from admin_api.web.context import Here, Who, Workplace
from admin_api.web.paging import After, Digest, Limit, Name, Page
from admin_api.web.plans.effect import PlanCost, kept_cost, plan_text
from admin_api.web.privacy.audits import AuditLine, AuditReport, find, report
from admin_api.web.privacy.budgets import BurnPoint, CohortLine, burn_points, lines, of_hospital, plan_or_none
from admin_api.web.problems import problems
from admin_api.web.routes import ApiRoute
from jobs.leaves import LEAVES, MEANING

router = APIRouter(route_class=ApiRoute, prefix="/api/v1/privacy", tags=["Privacy"])

Plan = Annotated[
    str | None,
    Query(pattern=r"^sha256:[0-9a-f]{64}$", description="whose effect to show; the next one waiting if not given"),
]


class Budgets(BaseModel):
    """What is known of the budgets, and which plan's effect stands beside them."""

    plan: str | None = Field(description="the plan whose effect is shown")
    plan_title: str | None
    plan_exact: bool = Field(
        description="whether the plan's figures are as ledgers count; else as the plan states them"
    )
    items: list[CohortLine]


class HospitalBudgets(Budgets):
    """A hospital's budgets with how they were spent, newest first."""

    points: Page[BurnPoint]


class Leaving(BaseModel):
    """Something that leaves a hospital."""

    what: str
    how: str = Field(description="plain, noisy, masked or protocol")
    meaning: str
    fields: list[str] = Field(description="where it stands in messages; none where it is no field")


class Leavings(BaseModel):
    """Everything that leaves a hospital; a test holds it against what the software really sends."""

    items: list[Leaving]


def budgets(here: Workplace, *, plan_hash: str | None, only: str | None, site: str | None = None) -> Budgets:
    """The view's values. Raises NotKnown."""
    chosen = plan_or_none(here, plan_hash, only)
    cost: PlanCost | None = None
    if chosen is not None and (text := plan_text(here, chosen.plan_hash)) is not None:
        deltas = [each.budget_delta for each in privacy.listed(here.reading) if each.budget_delta is not None]
        cost = kept_cost(here, text, deltas)
    found = lines(here, only=only, cost=cost) if site is None else of_hospital(here, site, cost=cost)
    return Budgets(
        plan=None if cost is None or chosen is None else chosen.plan_hash,
        plan_title=None if cost is None or chosen is None else chosen.title,
        plan_exact=cost is not None and cost.exact,
        items=found,
    )


def hospital_budgets(
    here: Workplace, site: str, *, plan_hash: str | None, only: str | None, limit: int, after: str | None
) -> HospitalBudgets:
    """The view's values. Raises NotKnown, BadCursor."""
    found = budgets(here, plan_hash=plan_hash, only=only, site=site)
    piece = privacy.points(here.reading, site, limit=limit, after=after)
    points = Page[BurnPoint](items=burn_points(piece.items), next=piece.after, total=piece.total)
    return HospitalBudgets(**found.model_dump(), points=points)


def leavings() -> Leavings:
    """The declared list."""
    return Leavings(
        items=[
            Leaving(what=each.what, how=each.how, meaning=MEANING[each.how], fields=list(each.fields))
            for each in LEAVES
        ]
    )


@router.get("", name="privacy.list", responses=problems(409, 503), response_model=Budgets)
def list_budgets(here: Here, who: Who, plan: Plan = None) -> Budgets:
    """Every hospital's budgets; a hospital's contact sees the own ones."""
    return budgets(here, plan_hash=plan, only=who.hospital)


@router.get("/leaves", name="privacy.leaves", responses=problems(), response_model=Leavings)
def list_leavings() -> Leavings:
    """What leaves a hospital, and how it is protected."""
    return leavings()


@router.get("/audits", name="privacy.audits", responses=problems(409, 503), response_model=Page[AuditLine])
def list_audits(here: Here, limit: Limit = 50, after: After = None) -> Page[AuditLine]:
    """The empirical privacy audits that were logged, newest first."""
    piece = releases.audits(here.reading, limit=limit, after=after)
    return Page(items=[AuditLine.model_validate(each) for each in piece.items], next=piece.after, total=piece.total)


@router.get("/audits/{digest}", name="privacy.audits.read", responses=problems(409, 503), response_model=AuditReport)
def read_audit(digest: Digest, here: Here) -> AuditReport:
    """One audit's report: what each configuration claimed, and what the attack proved."""
    return report(here, find(here, digest))


@router.get("/hospitals/{site}", name="privacy.read", responses=problems(409, 503), response_model=HospitalBudgets)
def read_budgets(
    site: Name, here: Here, who: Who, plan: Plan = None, limit: Limit = 50, after: After = None
) -> HospitalBudgets:
    """One hospital's budgets, and how they were spent."""
    return hospital_budgets(here, site, plan_hash=plan, only=who.hospital, limit=limit, after=after)
