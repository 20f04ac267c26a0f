"""Carrying out a run from the consortium's folder: plan, approvals and certificates in, log entries out.

The same function serves any transport. It reads the plan and its approvals from the log and the artifact store, so
what is carried out is what was approved; the job that NVFlare was given only names them. A run that has a state goes on
from it. One process at a time carries out a run: it holds the run's lock for as long as it lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from audit.durable_file import write_durably
from audit.entry import Entry
from jobs.coordinator import Coordinator, Outcome
from jobs.errors import FederationError, PlanError, RunAborted, RunInterrupted, RunStateError
from jobs.home import ConsortiumHome
from jobs.progress import Progress
from jobs.records import (
    ENDED,
    LOCK_FILE,
    PROGRESS_FILE,
    RESULT_FILE,
    STATE_FILE,
    announced_manifests,
    load_plan,
    plan_approvals,
    predecessor_files,
    read_result,
    read_state,
    recorded_by_run,
)
from jobs.standing import LogStanding, append_standing
from jobs.transport import Timeouts, Transport
from jobs.witnessing import HospitalWitnesses

_LOG = logging.getLogger(__name__)


def carry_out_run(
    home_path: Path, *, run_id: str, plan_hash: str, transport: Transport, timeouts: Timeouts | None = None
) -> Outcome | None:
    """Carry out one run, or what is left of it, and write down how it ended.

    Returns: the outcome, or None when the run was aborted or interrupted, or had ended before; `result.json` in the
        run's folder says which.
    Raises: FederationError when another process carries out this run.
    """
    home = ConsortiumHome(home_path)
    folder = home.run_folder(run_id)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _locked(folder / LOCK_FILE, run_id):
        before = read_result(home, run_id)
        if before is not None and before["status"] in ENDED:  # NVFlare began with a job of it that others overtook
            _LOG.warning("run %s has %s: nothing is done again", run_id, before["status"])
            return None
        (folder / RESULT_FILE).unlink(missing_ok=True)  # of an interruption
        return _carry_out(home, folder, run_id=run_id, plan_hash=plan_hash, transport=transport, timeouts=timeouts)


def _carry_out(
    home: ConsortiumHome,
    folder: Path,
    *,
    run_id: str,
    plan_hash: str,
    transport: Transport,
    timeouts: Timeouts | None,
) -> Outcome | None:
    def record(kind: str, body: Mapping[str, Any]) -> int:
        with home.log() as log:
            size = append_standing(log, Entry(kind, home.clock(), body)) + 1
            log.sign_checkpoint(home.log_key(), home.clock)
        return size

    def progress(step: Progress) -> None:
        line = {
            "stage": step.stage,
            "round": step.round,
            "rounds": step.rounds,
            "participants": list(step.participants),
            "epsilon": round(step.epsilon, 4),
            "seconds": round(step.seconds, 3),
            "round_seconds": round(step.round_seconds, 3),
            "timings": {part: round(seconds, 4) for part, seconds in step.timings.items()},
        }
        with (folder / PROGRESS_FILE).open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(line) + "\n")

    try:
        plan = load_plan(home, plan_hash)
        if plan.epsilon is None:
            raise PlanError("the plan is unprotected (epsilon null); such plans are for benchmarks on public data")
        artifacts = home.artifacts()
        coordinator = Coordinator(
            plan=plan,
            run_id=run_id,
            transport=transport,
            approvals=plan_approvals(home, plan_hash),
            standing=LogStanding(home),
            root=home.root(),
            record=record,
            recorded=lambda kind: recorded_by_run(home, run_id, kind),
            store=artifacts.put,
            fetch=artifacts.get,
            save=lambda state: write_durably(folder / STATE_FILE, state.to_bytes()),
            resume=read_state(home, run_id),
            clock=home.clock,
            predecessor=predecessor_files(home, plan),
            announced=announced_manifests(home),
            witnesses=HospitalWitnesses(home),
            progress=progress,
            timeouts=timeouts,
        )
        outcome = coordinator.run()
    except (RunAborted, PlanError, RunStateError) as error:
        _write_result(folder, {"status": "aborted", "reason": str(error)})
        return None
    except RunInterrupted as error:
        _write_result(folder, {"status": "interrupted", "reason": str(error)})
        return None
    except Exception as error:
        _write_result(folder, {"status": "failed", "reason": f"{type(error).__name__}: {error}"})
        raise
    _write_result(folder, {"status": "finished", "version": outcome.version, "rounds": outcome.rounds})
    return outcome


@contextlib.contextmanager
def _locked(path: Path, run_id: str) -> Iterator[None]:
    """Held while this process carries out the run; the system lets go of it when the process ends, however it ends."""
    with path.open("w", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FederationError(f"run {run_id} is being carried out by another process") from None
        yield


def _write_result(folder: Path, value: Mapping[str, Any]) -> None:
    write_durably(folder / RESULT_FILE, (json.dumps(value, indent=2) + "\n").encode())
