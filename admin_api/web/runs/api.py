"""Runs for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from admin_api.errors import NotKnown
from admin_api.reading import runs as reading
from admin_api.web.context import Here, Who, Workplace
from admin_api.web.paging import After, Limit, Name, Page
from admin_api.web.problems import problems
from admin_api.web.routes import ApiRoute
from admin_api.web.runs import starting
from admin_api.web.runs.page_view import blocks_of, values_of
from admin_api.web.runs.starting import LaunchView, ServerView
from admin_api.web.runs.stream import first_missing, stream
from admin_api.web.runs.watching import RunLine, RunView, live_state, run_lines, run_view, waiting_lines
from jobs.records import PROGRESS_FILE, RESULT_FILE, STATE_FILE, is_carried_out, read_progress

router = APIRouter(route_class=ApiRoute, prefix="/api/v1", tags=["Runs"])

DIGEST = r"^sha256:[0-9a-f]{64}$"


class StartRun(BaseModel):
    """Which plan to carry out."""

    plan_hash: str = Field(pattern=DIGEST, examples=["sha256:" + "1f" * 32])


class Launches(BaseModel):
    """The newest launches."""

    items: list[LaunchView]


class LaunchOutput(LaunchView):
    """A launch with the end of what its process printed."""

    output: str


def listed(here: Workplace, *, state: str | None, plan: str | None, limit: int, after: str | None) -> Page[RunLine]:
    """Runs, newest first; on the first page those that wait to enter the log stand before them."""
    piece = reading.listed(here.reading, state=state, plan=plan, limit=limit, after=after)
    lines = run_lines(here, piece.items)
    if after is None and state != "finished":
        waiting = [line for line in waiting_lines(here) if plan in (None, line.plan_hash)]
        lines = [*waiting, *lines]
    return Page(items=lines, next=piece.after, total=piece.total)


@router.get("/runs", name="runs.list", responses=problems(409, 503), response_model=Page[RunLine])
def list_runs(
    here: Here,
    limit: Limit = 50,
    after: After = None,
    state: Annotated[Literal["started", "finished"] | None, Query(description="as the log has it")] = None,
    plan: Annotated[str | None, Query(pattern=DIGEST, description="of this plan only")] = None,
) -> Page[RunLine]:
    """Runs, newest first."""
    return listed(here, state=state, plan=plan, limit=limit, after=after)


@router.post("/runs", name="runs.start", status_code=202, responses=problems(409, 503), response_model=LaunchView)
def start_run(asked: StartRun, here: Here, who: Who) -> LaunchView:
    """Start a run of an approved plan. A process of its own waits for the hospitals and follows it to its end."""
    return starting.start(here, who, asked.plan_hash)


@router.get("/runs/{run}", name="runs.read", responses=problems(409, 503), response_model=RunView)
def read_run(run: Name, here: Here) -> RunView:
    """One run: what the log says of it, and where it stands now."""
    return run_view(here, run)


@router.post(
    "/runs/{run}/resume", name="runs.resume", status_code=202, responses=problems(409, 503), response_model=LaunchView
)
def resume_run(run: Name, here: Here, who: Who) -> LaunchView:
    """Go on with a run from its last finished round."""
    return starting.resume(here, who, run)


@router.post("/runs/{run}/stop", name="runs.stop", responses=problems(409, 503), response_model=RunView)
def stop_run(run: Name, here: Here) -> RunView:
    """Stop a run; it can be resumed. What it spent stays spent."""
    starting.stop(here, run)
    return run_view(here, run)


class _Files:
    """A run's stream, read from its folder and, for a page, rendered."""

    def __init__(self, here: Workplace, run_id: str, request: Request, *, page: bool) -> None:
        self._here, self._run_id, self._request, self._page = here, run_id, request, page
        self._view: RunView | None = None

    def mark(self) -> object:
        folder = self._here.home.run_folder(self._run_id)
        marks: list[object] = [is_carried_out(self._here.home, self._run_id)]
        for name in (PROGRESS_FILE, STATE_FILE, RESULT_FILE):
            try:
                found = (folder / name).stat()
                marks.append((found.st_size, found.st_mtime_ns))
            except FileNotFoundError:
                marks.append(None)
        return marks

    def steps(self, since: int) -> Sequence[Mapping[str, Any]]:
        return read_progress(self._here.home, self._run_id, since)

    def state(self) -> str:
        self._here.reading.follow()
        if self._page:
            self._view = run_view(self._here, self._run_id)
            return self._view.state
        try:
            logged: reading.Run | None = reading.one(self._here.reading, self._run_id)
        except NotKnown:
            logged = None
        return live_state(self._here.home, self._run_id, logged=logged)[0]

    def blocks(self) -> tuple[Mapping[str, str], Mapping[str, str]]:
        if self._view is None:
            return {}, {}
        return values_of(self._view), blocks_of(self._request, self._view)


@router.get(
    "/runs/{run}/events",
    name="runs.events",
    responses={**problems(409, 503), 200: {"content": {"text/event-stream": {}}, "description": "see docs: live runs"}},
    response_class=StreamingResponse,
)
async def run_events(
    run: Name,
    request: Request,
    here: Here,
    after: Annotated[int | None, Query(ge=0, le=1_000_000, description="steps you have already")] = None,
    view: Annotated[Literal["page"] | None, Query(description="page: also what pages show")] = None,
    last_event_id: Annotated[str | None, Header(description="as the browser sends it back")] = None,
) -> StreamingResponse:
    """Follow a run as server-sent events: `step` for each step, `state` when it changes, `done` at the end."""
    await run_in_threadpool(run_view, here, run)  # 404 for what is no run
    source = _Files(here, run, request, page=view == "page")
    events = stream(source, after=first_missing(last_event_id, after), in_thread=run_in_threadpool)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


@router.get("/launches", name="launches.list", responses=problems(409, 503), response_model=Launches)
def list_launches(here: Here) -> Launches:
    """The newest launches of runs and of the server."""
    return Launches(items=starting.launch_views(here))


@router.get("/launches/{launch}", name="launches.read", responses=problems(409, 503), response_model=LaunchOutput)
def read_launch(launch: Name, here: Here) -> LaunchOutput:
    """A launch, with the end of what its process printed."""
    found = starting.find_launch(here, launch)
    return LaunchOutput(**found.model_dump(), output=starting.output(here, launch))


@router.get("/federation", name="federation.read", responses=problems(409, 503), response_model=ServerView)
def read_federation(
    here: Here, connected: Annotated[bool, Query(description="ask who is connected; may take seconds")] = False
) -> ServerView:
    """The federation's server: whether it runs, and who is connected."""
    return starting.server_view(here, ask=connected)


@router.post(
    "/federation/start", name="federation.start", status_code=202, responses=problems(409, 503),
    response_model=LaunchView,
)  # fmt: skip
def start_federation(here: Here, who: Who) -> LaunchView:
    """Start the federation's server."""
    return starting.start_server(here, who)


@router.post("/federation/stop", name="federation.stop", responses=problems(409, 503), response_model=ServerView)
def stop_federation(here: Here) -> ServerView:
    """Stop the federation's server."""
    return starting.stop_server(here)
