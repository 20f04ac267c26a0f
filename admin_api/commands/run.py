"""`zegel run`: carry out an approved plan and watch it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from admin_api.commands.options import HERE, AsJson, Home, answer, open_home, told

if TYPE_CHECKING:
    from admin_api.running import Started
    from jobs.home import ConsortiumHome

run_app = typer.Typer(no_args_is_help=True, help="Carry out an approved plan and watch it.")


Wait = Annotated[int, typer.Option(help="Seconds to wait for server and hospitals to be connected.", min=1)]
Timeout = Annotated[int, typer.Option(help="Seconds after which to stop watching; the run goes on.", min=1)]
Patience = Annotated[
    int,
    typer.Option(
        help="When a job is lost (a process or machine died), seconds without a finished round until this gives up "
        "going on; `zegel run resume` can go on later.",
        min=1,
    ),
]
CallTimeout = Annotated[
    int,
    typer.Option(
        help="Seconds a hospital may take for one call of a round; the round then goes on without it if the plan "
        "allows that many dropouts, and it is let in again when it answers.",
        min=5,
        max=3600,
    ),
]


@run_app.command("start")
def run_start(
    plan_hash: Annotated[str, typer.Argument(help="An approved plan.")],
    wait: Wait = 60,
    timeout: Timeout = 86400,
    patience: Patience = 600,
    call_timeout: CallTimeout = 120,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Carry out an approved plan and watch it to its end. With --json one JSON object per step.

    When a process or machine dies, the run goes on as a new job from its last finished round, with the hospitals that
    are there. Ctrl-C stops watching, not the run; `zegel run status` shows it again.
    """
    from admin_api.running import start_run
    from jobs.records import load_plan

    with told(home):
        consortium = open_home(home)
        plan = load_plan(consortium, plan_hash)
        started = start_run(consortium, plan_hash, timeout_s=wait, call_timeout_s=call_timeout)
        if not as_json:
            typer.echo(f"Run {started.run_id} of plan {plan.name}.")
        _follow(consortium, started, timeout, patience, call_timeout, as_json)


@run_app.command("resume")
def run_resume(
    run_id: Annotated[str, typer.Argument(help="run-..., see `zegel run list`.")],
    wait: Wait = 60,
    timeout: Timeout = 86400,
    patience: Patience = 600,
    call_timeout: CallTimeout = 120,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Go on with a run that was cut off, from its last finished round, and watch it to its end.

    A round that hospitals may have answered already is not asked for again: it is logged as lost, and what it cost
    stays spent. A run that is being carried out is only watched.
    """
    from admin_api.running import Started, resume_run
    from jobs.records import read_progress, read_result

    with told(home):
        consortium = open_home(home)
        started = resume_run(consortium, run_id, timeout_s=wait, call_timeout_s=call_timeout)
        if started is None:
            result = read_result(consortium, run_id)
            if not as_json:
                typer.echo(
                    f"Run {run_id} is being carried out." if result is None else f"Run {run_id} has {result['status']}."
                )
            started = Started(run_id, "", told=len(read_progress(consortium, run_id)))
        _follow(consortium, started, timeout, patience, call_timeout, as_json)


def _follow(
    home: ConsortiumHome, started: Started, timeout: int, patience: int, call_timeout: int, as_json: bool
) -> None:
    from admin_api.running import follow

    def tell(step: dict[str, Any]) -> None:
        typer.echo(json.dumps({"run_id": started.run_id, **step}) if as_json else _step_line(step))

    result = follow(home, started, tell=tell, timeout_s=timeout, patience_s=patience, call_timeout_s=call_timeout)
    answer(
        {"run_id": started.run_id, **result},
        [f"Finished after {result['rounds']} rounds: version {result['version']}."],
        as_json,
    )


@run_app.command("list")
def run_list(home: Home = HERE, as_json: AsJson = False) -> None:
    """All runs that were started here, newest last, and where each stands."""
    from jobs.records import is_carried_out, read_result, read_state

    with told(home):
        consortium = open_home(home)
        rows = []
        for run_id in sorted(folder.name for folder in (consortium.path / "runs").glob("run-*") if folder.is_dir()):
            result, state = read_result(consortium, run_id), read_state(consortium, run_id)
            running = "running" if is_carried_out(consortium, run_id) else "stopped; can be resumed"
            rows.append(
                {
                    "run_id": run_id,
                    "finished_rounds": 0 if state is None else state.finished,
                    "status": running if result is None else result["status"],
                }
            )
    lines = [f"{row['run_id']}  {row['finished_rounds']:>4} rounds  {row['status']}" for row in rows]
    answer({"runs": rows}, lines or ["No run was started yet."], as_json)


def _step_line(step: dict[str, Any]) -> str:
    if step["stage"] == "resuming":
        return f"going on after round {step['round']}: {step['reason']}"
    if step["stage"] == "aborted":
        return f"round {step['round']:>3} lost: too few hospitals; what it cost stays spent"
    if step["stage"] == "training" and step["round"]:
        return (
            f"round {step['round']:>3} of {step['rounds']}   {len(step['participants'])} hospitals   "
            f"epsilon {step['epsilon']:.2f}   {step['round_seconds']:.2f} s"
        )
    return f"{step['stage']}   {len(step['participants'])} hospitals   after {step['seconds']:.1f} s"


@run_app.command("status")
def run_status(
    run_id: Annotated[str, typer.Argument(help="run-...")],
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Where a run is, or how it ended."""
    from jobs.errors import FederationError
    from jobs.records import is_carried_out, read_progress, read_result

    with told(home):
        consortium = open_home(home)
        running = is_carried_out(consortium, run_id)
        steps = read_progress(consortium, run_id)
        result = read_result(consortium, run_id)
        if not steps and result is None and not consortium.run_folder(run_id).is_dir():
            raise FederationError(f"no run {run_id} in {consortium.path}; `zegel run start` prints a run's name")
    lines = [_step_line(steps[-1])] if steps else []
    if result is None:
        if running:
            lines.append("still running")
        elif steps:
            lines.append(f"stopped, or waiting for the server; if nobody follows it: `zegel run resume {run_id}`")
        else:
            lines.append("handed to the server; no step was reported yet")
    else:
        lines.append(f"{result['status']}: {result.get('reason', result.get('version'))}")
    last = steps[-1] if steps else None
    answer({"run_id": run_id, "running": running, "last_step": last, "result": result}, lines, as_json)
