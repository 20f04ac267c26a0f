"""Plans, their forecasts and drafts, for programs."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Path, Query
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from admin_api.reading import plans as reading
from admin_api.web.context import Here, Who, Workplace
from admin_api.web.paging import After, Digest, Limit, Page
from admin_api.web.plans import drafts
from admin_api.web.plans.drafts import Draft, Drafts, DraftTerms
from admin_api.web.plans.effect import plan_text
from admin_api.web.plans.forecast import ForecastView, Working, ask_plan, ask_terms
from admin_api.web.plans.overview import PlanLine, PlanView, find_plan, lines, plan_view
from admin_api.web.plans.terms import TEMPLATES, ForecastQuestion
from admin_api.web.problems import Problem, not_found, problems
from admin_api.web.routes import ApiRoute

router = APIRouter(route_class=ApiRoute, prefix="/api/v1/plans", tags=["Plans"])
WAIT_S = 5.0  # that a request waits for a forecast; then the program asks again
State = Literal["proposed", "approved", "refused", "carried out"]
DraftId = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$")]
IfMatch = Annotated[str | None, Header(description="the draft's ETag; needed")]


class TemplateView(BaseModel):
    """A starting point for a plan."""

    model_config = ConfigDict(from_attributes=True)

    id: str = Field(examples=["recipe"])
    title: str
    words: str
    terms: dict[str, object]


class Templates(BaseModel):
    """The starting points."""

    items: list[TemplateView]


def listed(here: Workplace, *, state: State | None, only: str | None, limit: int, after: str | None) -> Page[PlanLine]:
    """Plans, newest first."""
    piece = reading.listed(here.reading, state=state, only=only, limit=limit, after=after)
    return Page(items=lines(piece.items), next=piece.after, total=piece.total)


def plan_forecast(here: Workplace, plan_hash: str, *, only: str | None, wait_s: float) -> ForecastView | Working:
    """A proposed plan's forecast. Raises Problem 404."""
    find_plan(here, plan_hash, only=only)
    plan = plan_text(here, plan_hash)
    if plan is None or plan.epsilon is None:
        raise not_found(f"the text of plan {plan_hash} is not kept here, or it has no epsilon to forecast")
    return ask_plan(here, plan, only=only, wait_s=wait_s)


def _answered(found: ForecastView | Working) -> ForecastView:
    if isinstance(found, Working):
        raise Problem(503, "forecast-going-on", "The forecast is being computed",
                      f"{found.doing or 'others are before it'}, for {found.seconds:.0f} s",
                      "ask again at once: it is given up when nobody asks", {"Retry-After": "1"})  # fmt: skip
    return found


@router.get("", name="plans.list", responses=problems(409, 503), response_model=Page[PlanLine])
def list_plans(
    here: Here, who: Who, limit: Limit = 50, after: After = None, state: Annotated[State | None, Query()] = None
) -> Page[PlanLine]:
    """Plans, newest first; a hospital's contact sees those that name the hospital."""
    return listed(here, state=state, only=who.hospital, limit=limit, after=after)


@router.post("/forecast", name="plans.forecast", responses=problems(409, 503), response_model=ForecastView)
def forecast(question: ForecastQuestion, here: Here, who: Who) -> ForecastView:
    """What a plan with these terms would cost a patient; nothing is proposed.

    The first time it may take half a minute: ask again on 503.
    """
    return _answered(ask_terms(here, question, only=who.hospital, wait_s=WAIT_S))


@router.get("/templates", name="plans.templates", responses=problems(), response_model=Templates)
def list_templates() -> Templates:
    """Starting points for a plan."""
    return Templates(items=[TemplateView.model_validate(each) for each in TEMPLATES])


@router.get("/drafts", name="plans.drafts", responses=problems(409, 503), response_model=Drafts)
def list_drafts(here: Here) -> Drafts:
    """All drafts, the last changed first."""
    return Drafts(items=drafts.all_drafts(here))


@router.post("/drafts", name="plans.drafts.make", status_code=201, responses=problems(409, 503), response_model=Draft)
def make_draft(given: DraftTerms, here: Here, who: Who, response: Response) -> Draft:
    """Keep a draft."""
    made = drafts.make_draft(here, who, given)
    response.headers["ETag"] = made.etag
    return made


@router.get("/drafts/{draft}", name="plans.drafts.read", responses=problems(409, 503), response_model=Draft)
def read_draft(draft: DraftId, here: Here, response: Response) -> Draft:
    """One draft; its ETag names this version."""
    found = drafts.find_draft(here, draft)
    response.headers["ETag"] = found.etag
    return found


@router.put("/drafts/{draft}", name="plans.drafts.change", responses=problems(409, 412, 428, 503), response_model=Draft)
def change_draft(
    draft: DraftId, given: DraftTerms, here: Here, who: Who, response: Response, if_match: IfMatch = None
) -> Draft:
    """Replace a draft's fields."""
    changed = drafts.change_draft(here, who, draft, given, if_match)
    response.headers["ETag"] = changed.etag
    return changed


@router.delete("/drafts/{draft}", name="plans.drafts.delete", status_code=204, responses=problems(409, 412, 428, 503))
def delete_draft(draft: DraftId, here: Here, if_match: IfMatch = None) -> None:
    """Delete a draft."""
    drafts.delete_draft(here, draft, if_match)


@router.get("/{plan_hash}", name="plans.read", responses=problems(409, 503), response_model=PlanView)
def read_plan(plan_hash: Digest, here: Here, who: Who) -> PlanView:
    """One plan, its text, and who decided."""
    return plan_view(here, plan_hash, only=who.hospital)


@router.get(
    "/{plan_hash}/forecast", name="plans.read.forecast", responses=problems(409, 503), response_model=ForecastView
)
def read_plan_forecast(plan_hash: Digest, here: Here, who: Who) -> ForecastView:
    """What a proposed plan costs a patient. The first time it may take half a minute: ask again on 503."""
    return _answered(plan_forecast(here, plan_hash, only=who.hospital, wait_s=WAIT_S))
