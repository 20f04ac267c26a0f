"""Carrying out a run from the consortium's folder: plan, approvals and certificates in, log entries out.

The same function serves any transport. It reads the plan and its approvals from the log and the artifact store, so
what is carried out is what was approved; the job that NVFlare was given only names them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audit.entry import Entry
from jobs.coordinator import Coordinator, Outcome, Progress
from jobs.errors import PlanError, RunAborted
from jobs.home import ConsortiumHome
from jobs.records import PROGRESS_FILE, RESULT_FILE, announced_manifests, load_plan, plan_approvals
from jobs.transport import Transport


def carry_out_run(home_path: Path, *, run_id: str, plan_hash: str, transport: Transport) -> Outcome | None:
    """Carry out one run and write down how it ended.

    Returns: the outcome, or None when the run was aborted; `result.json` in the run's folder says which.
    """
    home = ConsortiumHome(home_path)
    folder = home.run_folder(run_id)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def record(kind: str, body: Mapping[str, Any]) -> None:
        with home.log() as log:
            log.append([Entry(kind, home.clock(), body)])
        home.sign_checkpoint()

    def progress(step: Progress) -> None:
        line = {
            "stage": step.stage,
            "round": step.round,
            "rounds": step.rounds,
            "participants": list(step.participants),
            "epsilon": round(step.epsilon, 4),
            "seconds": round(step.seconds, 3),
            "round_seconds": round(step.round_seconds, 3),
        }
        with (folder / PROGRESS_FILE).open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(line) + "\n")

    try:
        plan = load_plan(home, plan_hash)
        if plan.epsilon is None:
            raise PlanError("the plan is unprotected (epsilon null); such plans are for benchmarks on public data")
        coordinator = Coordinator(
            plan=plan,
            run_id=run_id,
            transport=transport,
            approvals=plan_approvals(home, plan_hash),
            certificates=home.certificates(),
            root=home.root(),
            record=record,
            store=home.artifacts().put,
            clock=home.clock,
            announced=announced_manifests(home),
            progress=progress,
        )
        outcome = coordinator.run()
    except (RunAborted, PlanError) as error:
        _write_result(folder, {"status": "aborted", "reason": str(error)})
        return None
    except Exception as error:
        _write_result(folder, {"status": "failed", "reason": f"{type(error).__name__}: {error}"})
        raise
    _write_result(folder, {"status": "finished", "version": outcome.version, "rounds": outcome.rounds})
    return outcome


def _write_result(folder: Path, value: Mapping[str, Any]) -> None:
    fresh = folder / f"{RESULT_FILE}.new"
    fresh.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    fresh.replace(folder / RESULT_FILE)
