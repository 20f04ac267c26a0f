"""The pages of runs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import RedirectResponse, Response

from admin_api.reading import plans
from admin_api.web.access import ADMINS
from admin_api.web.context import Here, Who, Workplace
from admin_api.web.language import _, ngettext
from admin_api.web.paging import After, Name, Page
from admin_api.web.rendering import render
from admin_api.web.routes import PageRoute
from admin_api.web.runs import starting
from admin_api.web.runs.api import DIGEST, listed
from admin_api.web.runs.page_view import (
    matrix,
    page_values,
    part_row,
    parts_in_order,
    round_row,
    sentence,
    trained_sites,
)
from admin_api.web.runs.watching import RunLine, run_view

router = APIRouter(route_class=PageRoute, include_in_schema=False)
AT_ONCE = 50
SITES_AT_ONCE = 20  # hospitals with a row in the matrix


@router.get("/runs", name="runs.list.page")
def runs_page(request: Request, here: Here, who: Who, after: After = None) -> Response:
    """All runs, what can be started, and the server."""
    page = listed(here, state=None, plan=None, limit=AT_ONCE, after=after)
    startable = plans.listed(here.reading, state="approved", limit=20).items if who.role in ADMINS else ()
    launches = [each for each in starting.launch_views(here) if each.state in ("starting", "failed", "lost")]
    return render(
        request,
        "runs/list.html",
        page=page,
        rows=[_row(line) for line in page.items],
        sentence=_sentence(page, after),
        startable=startable,
        server=starting.server_view(here),
        launches=[each for each in launches if _is_news(here, each)][:3] if who.role in ADMINS else [],
        may_start=who.role in ADMINS,
    )


def _is_news(here: Workplace, launch: starting.LaunchView) -> bool:
    """A launch under way, or one that failed within the last day."""
    return launch.state == "starting" or (here.now() - launch.begun).total_seconds() < 86400


def _sentence(page: Page[RunLine], after: str | None) -> str:
    going_on = [line for line in page.items if line.state in ("running", "waiting")]
    stopped = [line for line in page.items if line.state in ("stopped", "failed")]
    if after is not None:
        return _("Earlier runs.")
    if not page.items:
        return _("No run was started yet.")
    words = ngettext("%(num)s run goes on.", "%(num)s runs go on.", len(going_on)) if going_on else _("No run goes on.")
    if stopped:
        words += " " + ngettext(
            "%(num)s stands still and can be resumed.", "%(num)s stand still and can be resumed.", len(stopped)
        )
    return words


def _row(line: RunLine) -> dict[str, object]:
    return {
        "run": {"text": line.run, "href": f"/runs/{line.run}"},
        "href": f"/runs/{line.run}",
        "title": line.title,
        "state": line.state if line.state != "failed" else "failed-run",
        "started": line.started,
        "rounds": _("%(done)s of %(planned)s", done=line.rounds, planned=line.planned if line.planned else "?"),
        "lost": line.aborted,
        "dropouts": line.dropouts,
        "epsilon": line.epsilon,
        "version": line.version,
        "entry": line.entry,
        "tone": "attention" if line.state in ("stopped", "failed") else "danger" if line.state == "aborted" else "",
    }


@router.get("/runs/federation", name="federation.page")
def federation_page(request: Request, here: Here, who: Who) -> Response:
    """Who is connected: a part of the page of runs, fetched after it, because asking takes a moment."""
    server = starting.server_view(here, ask=True)
    return render(request, "runs/federation.html", server=server, may_start=who.role in ADMINS)


@router.get("/runs/{run}", name="runs.one.page")
def run_page(run: Name, request: Request, here: Here, who: Who) -> Response:
    """One run, live."""
    return render(request, "runs/one.html", may_start=who.role in ADMINS, **page_values(run_view(here, run)))


@router.get("/runs/{run}/rounds", name="runs.rounds.page")
def rounds_page(
    run: Name, request: Request, here: Here, before: Annotated[int | None, Query(ge=1, le=1_000_000_000)] = None
) -> Response:
    """A run's rounds with all their figures, newest first, those before a round."""
    found = run_view(here, run)
    earlier = [each for each in reversed(found.round_list) if before is None or each.number < before]
    rows = [round_row(each) for each in earlier[:AT_ONCE]]
    return render(
        request,
        "runs/rounds.html",
        run=found,
        rows=rows,
        sentence=sentence(found),
        before=rows[-1]["number"] if len(earlier) > AT_ONCE else None,
        newest=before is None,
    )


@router.get("/runs/{run}/hospitals", name="runs.hospitals.page")
def hospitals_page(
    run: Name, request: Request, here: Here, first: Annotated[int, Query(ge=1, le=1_000_000)] = 1
) -> Response:
    """A run's hospitals and who took part in which round, from the first, the second, ... in order of attention."""
    found = run_view(here, run)
    parts = parts_in_order(found)
    shown = parts[first - 1 : first - 1 + SITES_AT_ONCE]
    trained = set(trained_sites(found))
    sites = [part.site for part in shown if part.site in trained]
    return render(
        request,
        "runs/hospitals.html",
        run=found,
        rows=[part_row(part) for part in shown],
        matrix=matrix(found, sites) if found.round_list and sites else None,
        sentence=sentence(found),
        first=first,
        last=first - 1 + len(shown),
        following=first + SITES_AT_ONCE if first - 1 + SITES_AT_ONCE < len(parts) else None,
        total=len(parts),
    )


@router.post("/runs/start", name="runs.start.post")
def start_run(plan_hash: Annotated[str, Form(pattern=DIGEST)], here: Here, who: Who) -> Response:
    """The button that starts a run."""
    launch = starting.start(here, who, plan_hash)
    return _see(f"/runs/launches/{launch.id}")


@router.get("/runs/launches/{launch}", name="launches.page")
def launch_page(
    launch: Name, request: Request, here: Here, who: Who, part: Annotated[bool, Query()] = False
) -> Response:
    """What became of a start, asked again every second until the run is there."""
    found = starting.find_launch(here, launch)
    if found.run is not None and found.state in ("following", "ended") and not part:
        return _see(f"/runs/{found.run}")
    text = starting.output(here, launch)
    headers = {"HX-Redirect": f"/runs/{found.run}"} if part and found.run and found.state == "following" else None
    return render(
        request, "runs/launch.html", launch=found, output=text, block="progress" if part else None, headers=headers
    )  # fmt: skip


@router.post("/runs/{run}/resume", name="runs.resume.post")
def resume_run(run: Name, here: Here, who: Who) -> Response:
    """The button that resumes a run."""
    launch = starting.resume(here, who, run)
    return _see(f"/runs/launches/{launch.id}")


@router.post("/runs/{run}/stop", name="runs.stop.post")
def stop_run(run: Name, here: Here) -> Response:
    """The button that stops a run."""
    starting.stop(here, run)
    return _see(f"/runs/{run}")


@router.post("/federation/start", name="federation.start.post")
def start_federation(here: Here, who: Who) -> Response:
    """The button that starts the server."""
    launch = starting.start_server(here, who)
    return _see(f"/runs/launches/{launch.id}")


@router.post("/federation/stop", name="federation.stop.post")
def stop_federation(here: Here) -> Response:
    """The button that stops the server."""
    starting.stop_server(here)
    return _see("/runs")


def _see(where: str) -> Response:
    return RedirectResponse(where, status_code=303)
