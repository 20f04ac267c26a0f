"""The pages of plans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from admin_api.reading import hospitals, plans
from admin_api.web import charts
from admin_api.web.access import ADMINS
from admin_api.web.context import Here, Viewer, Who, Workplace
from admin_api.web.language import _, current, ngettext
from admin_api.web.paging import After, Digest
from admin_api.web.plans import drafts
from admin_api.web.plans.api import DraftId, State, listed, plan_forecast
from admin_api.web.plans.desk import ForecastRefused
from admin_api.web.plans.drafts import DraftTerms
from admin_api.web.plans.effect import plan_text
from admin_api.web.plans.forecast import ForecastView, Working, ask_terms
from admin_api.web.plans.forms import fields_of_plan, given_fields, question_of, shown_fields, wrong_fields
from admin_api.web.plans.overview import Need, PlanLine, find_plan, in_words, parameters, plan_view, why_not
from admin_api.web.plans.terms import TEMPLATES, PlanWish
from admin_api.web.rendering import render
from admin_api.web.routes import PageRoute
from admin_api.web.states import ROLES
from audit.release import APPROVE

router = APIRouter(route_class=PageRoute, include_in_schema=False)
AT_ONCE = 50
LOOK_S = 0.8  # that a page waits for a forecast before it says that it is being computed
_Plan = Annotated[str | None, Query(pattern=r"^sha256:[0-9a-f]{64}$")]


@router.get("/plans", name="plans.list.page")
def plans_page(
    request: Request, here: Here, who: Who, after: After = None, state: Annotated[State | None, Query()] = None
) -> Response:
    """All plans."""
    page = listed(here, state=state, only=who.hospital, limit=AT_ONCE, after=after)
    return render(
        request,
        "plans/list.html",
        page=page,
        state=state,
        rows=[_row(line) for line in page.items],
        sentence=_sentence(here, who, page.items),
        drafts=drafts.all_drafts(here) if who.role in ADMINS else [],
        may_propose=who.role in ADMINS,
    )


def _row(line: PlanLine) -> dict[str, Any]:
    return {
        "plan": {"text": line.title or current().short_digest(line.plan_hash), "href": f"/plans/{line.plan_hash}"},
        "href": f"/plans/{line.plan_hash}",
        "state": line.state if line.state != "carried out" else {"state": "finished", "word": _("carried out")},
        "time": line.time,
        "who": line.proposer_name,
        "epsilon": line.epsilon,
        "rounds": line.rounds,
        "hospitals": len(line.sites),
        "labels": line.labels,
        "entry": line.entry,
    }


def _sentence(here: Workplace, who: Viewer, found: Sequence[PlanLine]) -> str:
    waiting = [
        line
        for line in found
        if line.state == "proposed" and why_not(here, plans.one(here.reading, line.plan_hash), who) is None
    ]
    if waiting:
        return ngettext(
            "Plan %(name)s waits for your decision.", "%(num)s plans wait for your decision.", len(waiting),
            name=waiting[0].title or "",
        )  # fmt: skip
    if not found:
        return _("No plan was proposed yet.")
    open_ones = sum(line.state == "proposed" for line in found)
    if open_ones:
        return ngettext("%(num)s plan waits for others.", "%(num)s plans wait for others.", open_ones)
    return _("No plan waits for a decision.")


@router.get("/plans/forecast", name="plans.forecast.page")
def forecast_page(request: Request, here: Here) -> Response:
    """A forecast that moves as its fields change; nothing is proposed."""
    known = _sites(here)
    values = given_fields(request.query_params, PlanWish)
    noise = request.query_params.get("noise_multiplier")
    if "sites" not in values:
        values["sites"] = known
    return render(
        request,
        "plans/forecast.html",
        fields={**shown_fields(values), "noise_multiplier": noise},
        by="noise" if request.query_params.get("by") == "noise" else "epsilon",
        known_sites=[(site, site) for site in known],
        query=request.url.query,
    )


@router.get("/plans/forecast/result", name="plans.forecast.result")
def forecast_result(request: Request, here: Here, who: Who) -> Response:
    """The part of that page that moves: asked for again while it is computed."""
    try:
        outlook = ask_terms(here, question_of(request.query_params), only=who.hospital, wait_s=LOOK_S)
    except ValidationError as error:
        return _fragment(request, wrong=wrong_fields(error))
    except ForecastRefused as error:
        return _fragment(request, wrong={"": str(error)})
    return _fragment(request, outlook=outlook, url="/plans/forecast/result")


@router.get("/plans/new", name="plans.new.page")
def new_page(
    request: Request,
    here: Here,
    template: Annotated[str | None, Query(max_length=40)] = None,
    draft: Annotated[str | None, Query(pattern=r"^[0-9a-f]{16}$")] = None,
    plan: _Plan = None,
) -> Response:
    """Propose a plan: from a template, a draft, or another plan."""
    known = _sites(here)
    values: dict[str, Any] = given_fields(request.query_params, PlanWish)
    kept = None
    if draft is not None:
        kept = drafts.find_draft(here, draft)
        values = kept.terms
    elif plan is not None and (text := plan_text(here, plan)) is not None:
        values = fields_of_plan(text)
    elif template is not None:
        chosen = next((each for each in TEMPLATES if each.id == template), TEMPLATES[0])
        values = {**chosen.terms, **values}
    values.setdefault("sites", known)
    if "labels" not in values:
        values["labels"] = _last_labels(here)
    return render(
        request,
        "plans/new.html",
        fields=shown_fields(values),
        draft=kept,
        known_sites=[(site, site) for site in known],
        templates=TEMPLATES,
        chosen=template,
    )


@router.post("/plans/drafts", name="plans.drafts.post")
async def save_draft(request: Request, here: Here, who: Who) -> Response:
    """The button that saves a draft; with `draft` and `if_match` it changes that one."""
    form = await request.form()
    terms = given_fields(form, PlanWish)
    given = DraftTerms(name=str(terms.get("name") or _("without a name"))[:64], terms=terms)
    draft_id = str(form.get("draft") or "")
    if draft_id:
        etag = str(form.get("if_match") or "")
        await run_in_threadpool(drafts.change_draft, here, who, draft_id, given, etag)
    else:
        draft_id = (await run_in_threadpool(drafts.make_draft, here, who, given)).id
    return RedirectResponse(f"/plans/new?draft={draft_id}", status_code=303)


@router.post("/plans/drafts/{draft}/delete", name="plans.drafts.delete.post")
async def remove_draft(draft: DraftId, request: Request, here: Here) -> Response:
    """The button that deletes a draft."""
    form = await request.form()
    await run_in_threadpool(drafts.delete_draft, here, draft, str(form.get("if_match") or ""))
    return RedirectResponse("/plans", status_code=303)


@router.get("/plans/{plan_hash}", name="plans.one.page")
def plan_page(plan_hash: Digest, request: Request, here: Here, who: Who) -> Response:
    """One plan, its forecast, and the decision."""
    view = plan_view(here, plan_hash, only=who.hospital)
    found = find_plan(here, plan_hash, only=who.hospital)
    plan = plan_text(here, plan_hash)
    return render(
        request,
        "plans/one.html",
        plan=view,
        sentence=_state_words(view.state, [need.role for need in view.needs if not need.met]),
        words=[] if plan is None else in_words(plan),
        parameters=[] if plan is None else parameters(plan),
        codes=[] if plan is None else list(plan.label_space),
        bytes=None if plan is None else plan.to_bytes().decode(),
        why_not=why_not(here, found, who),
        panel_decisions=[
            {
                "name": each.name,
                "role": each.role,
                "organisation": each.organisation,
                "decision": "approved" if each.decision == APPROVE else "refused",
                "when": each.time,
                "reason": each.reason,
                "entry": each.entry,
            }
            for each in view.decisions
        ],
        panel_needed=_needed(view.needs),
        protected=plan is not None and plan.epsilon is not None,
        may_start=who.role in ADMINS and view.state == "approved",
        may_propose=who.role in ADMINS,
    )


@router.get("/plans/{plan_hash}/forecast", name="plans.one.forecast.page")
def plan_forecast_part(plan_hash: Digest, request: Request, here: Here, who: Who) -> Response:
    """The plan's forecast, fetched after its page."""
    try:
        outlook = plan_forecast(here, plan_hash, only=who.hospital, wait_s=LOOK_S)
    except ForecastRefused as error:
        return _fragment(request, wrong={"": str(error)})
    return _fragment(request, outlook=outlook, url=f"/plans/{plan_hash}/forecast")


def _needed(needs: Sequence[Need]) -> dict[str, Any]:
    """Who has to approve, as c.approval_panel takes it."""
    rules = []
    for need in needs:
        role = _(ROLES.get(need.role, need.role))
        words = (
            _("A %(role)s approved: %(name)s", role=role, name=need.by)
            if need.by is not None
            else _("A %(role)s has to approve", role=role)
        )
        rules.append({"words": words, "met": need.met})
    rules.append({"words": _("The proposer's own word does not count."), "met": True})
    return {"have": sum(need.met for need in needs), "need": len(needs), "rules": rules}


def _state_words(state: str, missing: Sequence[str]) -> str:
    if state == "carried out":
        return _("The plan was carried out.")
    if state == "refused":
        return _("The plan was refused; a run of it cannot start.")
    if missing:
        roles = ", ".join(_(ROLES.get(role, role)) for role in missing)
        return _("The plan waits for a decision by: %(roles)s.", roles=roles)
    return _("The plan is approved; an admin may start a run of it.")


def _fragment(
    request: Request,
    *,
    outlook: ForecastView | Working | None = None,
    wrong: dict[str, str] | None = None,
    url: str = "",
) -> Response:
    curve = None
    panel = None
    if isinstance(outlook, ForecastView):
        panel = _panel(outlook)
        if len(outlook.curve) > 1:
            points = [charts.Point(0, 0.0), *(charts.Point(n, e) for n, e in enumerate(outlook.curve, start=1))]
            curve = charts.line_with_interval(
                _("Epsilon after each secure sum"), [charts.Series(_("epsilon"), points)],
                x_label=_("secure sum"), y_label=_("epsilon"),
            )  # fmt: skip
    return render(
        request,
        "plans/result.html",
        working=outlook if isinstance(outlook, Working) else None,
        outlook=outlook,
        panel=panel,
        curve=curve,
        wrong=wrong or {},
        url=url,
    )


def _panel(outlook: ForecastView) -> dict[str, Any]:
    """A forecast as c.forecast_panel takes it."""
    said = current()
    local = outlook.noise_mode == "local"
    rows = [
        (_("Against everybody else together"), said.epsilon(_number(outlook.epsilon_everyone))),
        (_("Budget needed at a training hospital"), said.epsilon(_number(outlook.budget_needed))),
        (_("Noise multiplier"), said.number(outlook.noise_multiplier, 3)),
        (_("Rounds"), said.number(outlook.rounds)),
        (_("Odds of a guess about one patient change by at most"),
         _("a factor of %(n)s", n=_large(outlook.odds))),
        (_("Nominal patients"), said.number(outlook.nominal_patients)),
        (_("Accountant"), outlook.accountant),
    ]  # fmt: skip
    return {
        "epsilon": _number(outlook.epsilon_model),
        "epsilon_server": _number(outlook.epsilon_server),
        "delta": outlook.delta,
        "colluders": None if local else outlook.colluders,
        "sentences": outlook.sentences,
        "warnings": outlook.warnings,
        "parameters": rows,
        "hospitals": [
            {
                **effect.model_dump(),
                "cohort": _("training") if effect.cohort == "training" else _("validation"),
            }
            for effect in outlook.effects
        ],
        "not_covered": outlook.not_covered,
    }


def _number(epsilon: float | None) -> float:
    return float("inf") if epsilon is None else epsilon


def _large(odds: float | None) -> str:
    if odds is None:
        return "e^700"
    return current().number(odds, 0) if odds >= 100 else current().number(odds, 1)


def _sites(here: Workplace) -> list[str]:
    """Hospitals that can be named: of good standing, by name."""
    found: list[str] = []
    after: str | None = None
    while True:
        piece = hospitals.listed(here.reading, now=here.now(), limit=200, after=after)
        found += [each.name for each in piece.items]
        if piece.after is None:
            return found
        after = piece.after


def _last_labels(here: Workplace) -> list[str]:
    newest = plans.listed(here.reading, limit=1).items
    return list(plans.label_space(here.reading, newest[0].plan_hash)) if newest else []
