"""Privacy budgets, what leaves hospitals, and the empirical audit, for programs."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from admin_api.reading import privacy, releases
from admin_api.web.context import Here, Who, Workplace
from admin_api.web.paging import After, Digest, Limit, Name, Page
from admin_api.web.privacy.audits import AuditLine, AuditReport, find, report
from admin_api.web.privacy.budgets import (
    Beside,
    BurnPoint,
    CohortLine,
    beside,
    burn_points,
    lines_page,
    of_hospital,
)
from admin_api.web.problems import problems
from admin_api.web.routes import ApiRoute
from jobs.leaves import LEAVES, MEANING

router = APIRouter(route_class=ApiRoute, prefix="/api/v1/privacy", tags=["Privacy"])

Plan = Annotated[
    str | None,
    Query(pattern=r"^sha256:[0-9a-f]{64}$", description="whose effect to show; the next one waiting if not given"),
]
Search = Annotated[str, Query(max_length=100, description="part of a hospital's name")]
Sort = Annotated[
    str, Query(pattern=f"^-?({'|'.join(privacy.SORTS)})$", description="a field; with - in front, descending")
]


class Budgets(BaseModel):
    """What is known of the budgets, and which plan's effect stands beside them."""

    plan: str | None = Field(description="the plan whose effect is shown")
    plan_title: str | None
    plan_exact: bool = Field(
        description="whether the plan's figures are as ledgers count; else as the plan states them"
    )
    items: list[CohortLine]


class BudgetsPage(Budgets):
    """A piece of the list of all hospitals' budgets."""

    next: str | None = None
    total: int | None = Field(default=None, description="how many there are; a hospital has one or two")


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


def budgets_page(
    here: Workplace, given: Beside, *, only: str | None, search: str, sort: str, limit: int, after: str | None
) -> BudgetsPage:
    """A piece of the list. Raises BadCursor."""
    part = lines_page(here, only=only, cost=given.cost, search=search, sort=sort, limit=limit, after=after)
    return BudgetsPage(**_named(given), items=part.items, next=part.next, total=part.total)


def hospital_budgets(here: Workplace, site: str, given: Beside, *, limit: int, after: str | None) -> HospitalBudgets:
    """The view's values. Raises NotKnown, BadCursor."""
    found = of_hospital(here, site, cost=given.cost)
    piece = privacy.points(here.reading, site, limit=limit, after=after)
    points = Page[BurnPoint](items=burn_points(piece.items), next=piece.after, total=piece.total)
    return HospitalBudgets(**_named(given), items=found, points=points)


def _named(given: Beside) -> dict[str, Any]:
    if given.plan is None or given.cost is None:
        return {"plan": None, "plan_title": None, "plan_exact": False}
    return {"plan": given.plan.plan_hash, "plan_title": given.plan.title, "plan_exact": given.cost.exact}


def leavings() -> Leavings:
    """The declared list."""
    return Leavings(
        items=[
            Leaving(what=each.what, how=each.how, meaning=MEANING[each.how], fields=list(each.fields))
            for each in LEAVES
        ]
    )


@router.get("", name="privacy.list", responses=problems(409, 503), response_model=BudgetsPage)
def list_budgets(
    here: Here, who: Who, plan: Plan = None, search: Search = "", sort: Sort = "site", limit: Limit = 50,
    after: After = None,
) -> BudgetsPage:  # fmt: skip
    """Every hospital's budgets, a piece at a time; a hospital's contact sees the own ones."""
    given = beside(here, plan, who.hospital)
    return budgets_page(here, given, only=who.hospital, search=search, sort=sort, limit=limit, after=after)


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
    return hospital_budgets(here, site, beside(here, plan, who.hospital), limit=limit, after=after)
