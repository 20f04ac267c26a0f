"""Starting, stopping and resuming runs, and the federation's server: what admins do without a signature.

A run carries out a plan that others approved with their signatures; starting it adds nothing to that, so it is no act.
What can be known at once is checked before a keeper is launched (`admin_api.keeping`), so that its failures are told
here and not minutes later.
"""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field

from admin_api import keeping, running
from admin_api.web.context import Viewer, Workplace
from admin_api.web.problems import Problem, not_found
from admin_api.web.runs.troubles import Trouble, explained
from admin_api.web.runs.watching import run_view
from jobs.errors import FederationError
from jobs.federation import process
from jobs.federation.session import open_session
from jobs.records import is_carried_out, load_plan

ANSWER_S = 5.0  # for the server to say who is connected
MOST_LAUNCHES = 20


class LaunchView(BaseModel):
    """A process of its own that starts or resumes a run and follows it, or starts the server."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "launch-20261122T050000Z-1a2b3c",
                    "kind": "start",
                    "subject": "sha256:" + "1f" * 32,
                    "by": "person-00112233445566aa",
                    "begun": "2026-11-22T05:00:00Z",
                    "state": "starting",
                    "run": None,
                    "trouble": None,
                }
            ]
        }
    )

    id: str
    kind: str = Field(description="start, resume or server")
    subject: str = Field(description="the plan's hash, the run, or nothing for the server")
    by: str = Field(description="the account that asked")
    begun: datetime
    state: str = Field(description="starting, following, ended, failed, stopped or lost")
    run: str | None
    trouble: Trouble | None


class ServerView(BaseModel):
    """The federation's server."""

    running: bool
    since: datetime | None = Field(description="when its process started")
    starting: LaunchView | None
    connected: list[str] | None = Field(description="hospitals connected now; null when nobody asked, or no answer")
    problem: str | None = Field(description="why who is connected is not known")


def launch_view(launch: keeping.Launch) -> LaunchView:
    """A launch, and what it means where it failed."""
    trouble = None
    if launch.state == keeping.FAILED:
        trouble = explained(launch.words, resumable=launch.run_id is not None or launch.kind == keeping.RESUME)
    return LaunchView(
        id=launch.id, kind=launch.kind, subject=launch.subject, by=launch.by, begun=launch.begun, state=launch.state,
        run=launch.run_id or (launch.subject if launch.kind == keeping.RESUME else None), trouble=trouble,
    )  # fmt: skip


def launch_views(here: Workplace, *, limit: int = MOST_LAUNCHES) -> list[LaunchView]:
    """The newest launches."""
    return [launch_view(each) for each in keeping.launches(here.home)[:limit]]


def start(here: Workplace, who: Viewer, plan_hash: str) -> LaunchView:
    """Launch a run of an approved plan. Raises ApprovalError, PlanError, Problem; nothing was started then."""
    plan = load_plan(here.home, plan_hash)
    running.check_approved(here.home, plan_hash)
    running.check_announced(here.home, plan.sites)
    running.check_gates_set(here.home, plan.task)
    running.check_not_barred(here.home, plan.sites)
    _need_server(here)
    return _launched(here, keeping.START, plan_hash, who)


def resume(here: Workplace, who: Viewer, run_id: str) -> LaunchView:
    """Launch the rest of a run. Raises Problem; nothing was started then."""
    view = run_view(here, run_id)
    if view.state in ("finished", "aborted"):
        raise Problem(409, "run-over", "The run is over", f"run {run_id} has {view.state}",
                      "start another run of the plan, or propose another plan")  # fmt: skip
    if view.followed is not None:
        raise Problem(409, "run-goes-on", "The run goes on", f"run {run_id} is being followed", "watch it")
    running.check_approved(here.home, view.plan_hash)
    _need_server(here)
    return _launched(here, keeping.RESUME, run_id, who)


def stop(here: Workplace, run_id: str) -> None:
    """End what carries a run out; it can be resumed. Raises Problem."""
    view = run_view(here, run_id)
    if view.state not in ("running", "waiting"):
        raise Problem(409, "run-not-running", "The run is not running", f"run {run_id} is {view.state}",
                      "there is nothing to stop")  # fmt: skip
    keeping.stop_run(here.home, run_id)


def server_view(here: Workplace, *, ask: bool = False) -> ServerView:
    """Whether the server runs; with `ask`, it is asked who is connected, which may take seconds."""
    found = process.find(here.home.server_kit)
    starting = next((each for each in keeping.launches(here.home) if each.kind == keeping.SERVER), None)
    # A start that failed is news as long as nothing runs.
    shown = starting if starting is not None and found is None and starting.state != keeping.ENDED else None
    connected: list[str] | None = None
    problem: str | None = None
    if ask and found is not None:
        try:
            with open_session(here.home, timeout_s=ANSWER_S) as session:
                connected = list(session.connected())
        except FederationError as error:
            problem = str(error)
    return ServerView(
        running=found is not None,
        since=None if found is None else datetime.fromtimestamp(int(found.started), UTC),
        starting=None if shown is None else launch_view(shown),
        connected=connected,
        problem=problem,
    )


def start_server(here: Workplace, who: Viewer) -> LaunchView:
    """Launch the server. Raises Problem when it runs."""
    if process.find(here.home.server_kit) is not None:
        raise Problem(409, "server-runs", "The server runs", "the federation's server is running", "use it")
    return _launched(here, keeping.SERVER, "", who)


def stop_server(here: Workplace) -> ServerView:
    """End the server and its jobs. Raises Problem while a run is carried out: stop that first."""
    folder = here.home.path / "runs"
    names = sorted(path.name for path in folder.glob("run-*")) if folder.is_dir() else []
    going_on = [name for name in names if is_carried_out(here.home, name)]
    if going_on:
        raise Problem(409, "run-goes-on", "A run goes on", f"{', '.join(going_on)} would be lost with the server",
                      "stop the run first; it can be resumed later")  # fmt: skip
    if not process.stop(here.home.server_kit):
        raise Problem(409, "server-stands", "The server does not run", "there is nothing to stop", "start it")
    return server_view(here)


def output(here: Workplace, launch_id: str) -> str:
    """The end of what a launch's process printed. Raises Problem 404."""
    try:
        return keeping.last_words(here.home, launch_id)
    except FederationError:
        raise not_found(f"no launch {launch_id}") from None


def find_launch(here: Workplace, launch_id: str) -> LaunchView:
    """One launch. Raises Problem 404."""
    try:
        return launch_view(keeping.launch_of(here.home, launch_id))
    except FederationError:
        raise not_found(f"no launch {launch_id}") from None


def _need_server(here: Workplace) -> None:
    if process.find(here.home.server_kit) is None:
        raise Problem(409, "server-stands", "The server does not run",
                      "hospitals and the run meet at the federation's server, which is not running",
                      "start the server, wait until the hospitals are connected, then try again")  # fmt: skip


def _launched(here: Workplace, kind: str, subject: str, who: Viewer) -> LaunchView:
    try:
        return launch_view(keeping.launch(here.home, kind, subject, by=who.account))
    except FederationError as error:
        raise Problem(
            409, "goes-on-already", "It goes on already", str(error), "watch it on the page of runs"
        ) from None
