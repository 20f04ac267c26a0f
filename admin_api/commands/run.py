"""`zegel run`: carry out an approved plan and watch it."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from admin_api.commands.options import HERE, AsJson, Home, answer, open_home, told

run_app = typer.Typer(no_args_is_help=True, help="Carry out an approved plan and watch it.")


@run_app.command("start")
def run_start(
    plan_hash: Annotated[str, typer.Argument(help="An approved plan.")],
    wait: Annotated[int, typer.Option(help="Seconds to wait for server and hospitals to be connected.", min=1)] = 60,
    timeout: Annotated[int, typer.Option(help="Seconds after which to stop watching; the run goes on.", min=1)] = 86400,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Carry out an approved plan and watch it to its end. With --json one JSON object per step.

    Ctrl-C stops watching, not the run; `zegel run status` shows it again.
    """
    from admin_api.running import start_run, watch
    from jobs.records import load_plan

    with told():
        consortium = open_home(home)
        plan = load_plan(consortium, plan_hash)
        started = start_run(consortium, plan_hash, timeout_s=wait)

        def tell(step: dict[str, Any]) -> None:
            typer.echo(json.dumps({"run_id": started.run_id, **step}) if as_json else _step_line(step))

        if not as_json:
            typer.echo(f"Run {started.run_id} of plan {plan.name}.")
        result = watch(consortium, started, tell=tell, timeout_s=timeout)
    answer(
        {"run_id": started.run_id, **result},
        [f"Finished after {result['rounds']} rounds: version {result['version']}."],
        as_json,
    )


def _step_line(step: dict[str, Any]) -> str:
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
    from jobs.records import read_progress, read_result

    with told():
        consortium = open_home(home)
        steps = read_progress(consortium, run_id)
        result = read_result(consortium, run_id)
        if not steps and result is None and not consortium.run_folder(run_id).is_dir():
            raise FederationError(f"no run {run_id} in {consortium.path}; `zegel run start` prints a run's name")
    lines = [_step_line(steps[-1])] if steps else []
    if result is None:
        lines.append("still running" if steps else "handed to the server; no step was reported yet")
    else:
        lines.append(f"{result['status']}: {result.get('reason', result.get('version'))}")
    answer({"run_id": run_id, "last_step": steps[-1] if steps else None, "result": result}, lines, as_json)
