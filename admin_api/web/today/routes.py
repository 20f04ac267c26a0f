"""The page that everybody starts from, and the same for programs."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from admin_api.web.context import Here, Who
from admin_api.web.problems import problems
from admin_api.web.rendering import render
from admin_api.web.routes import ApiRoute, PageRoute
from admin_api.web.today.overview import Today, today_of

_api = APIRouter(route_class=ApiRoute, prefix="/api/v1", tags=["Today"])
_pages = APIRouter(route_class=PageRoute, include_in_schema=False)
ROUTERS = (_api, _pages)


@_api.get("/today", name="today", responses=problems(), response_model=Today)
def today(request: Request, here: Here, who: Who) -> Today:
    """What needs you now, which runs go on, and what changed since you were last here."""
    return today_of(here, who, request.app.state.waiting)


@_pages.get("/", name="today.page")
def page(request: Request, here: Here, who: Who) -> Response:
    """The start page."""
    today = today_of(here, who, request.app.state.waiting)
    timeline = [{"when": each.time, "words": each.words, "entry": each.entry} for each in today.changes]
    return render(request, "today/today.html", today=today, timeline=timeline)
