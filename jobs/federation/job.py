"""A job as NVFlare sees it: two configuration files and no code.

The job names our installed classes and says which plan and run it carries out. Everything else - the plan's text,
approvals, limits - is read where it is trusted: by the coordinator from the consortium's log, by a hospital from the
coordinator's first message, checked against the plan's hash and the approvals' signatures.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from jobs.errors import FederationError
from jobs.federation.kit import CONTROLLER, COORDINATOR, EXECUTOR, PARTICIPANT

JOB_NAME = "zegel-run"
CALL_TIMEOUT_S = 120.0  # unless a run is given another
CALL_TIMEOUTS_S = (5.0, 3600.0)  # shorter ones would lose hospitals that only are busy


def check_call_timeout(call_timeout_s: float) -> None:
    """Raises FederationError unless a run may have this timeout."""
    shortest, longest = CALL_TIMEOUTS_S
    if not shortest <= call_timeout_s <= longest:
        raise FederationError(
            f"call timeout: expected {shortest:g} to {longest:g} seconds, got {call_timeout_s:g}; nothing was started"
        )


def write_job(
    folder: Path,
    *,
    run_id: str,
    plan_hash: str,
    sites: Sequence[str],
    enough: int | None = None,
    call_timeout_s: float = CALL_TIMEOUT_S,
) -> Path:
    """Write the job folder for one run, or for one more try at it; returns its path.

    Args:
        sites: the hospitals that take part, training or evaluating, and are connected.
        enough: how many of them the job starts with when others do not answer; all of them if not given.
        call_timeout_s: how long a hospital may take for one call of a round before the round goes on without it.
    Raises: FederationError for a timeout outside `CALL_TIMEOUTS_S`.
    """
    check_call_timeout(call_timeout_s)
    earlier = len(list(folder.glob(f"{run_id}*")))
    job = folder / (run_id if not earlier else f"{run_id}.{earlier + 1}")
    config = job / "app" / "config"
    config.mkdir(parents=True)
    meta = {
        "name": f"{JOB_NAME} {run_id}",
        "resource_spec": {},
        "min_clients": len(sites) if enough is None else enough,
        "mandatory_clients": list(sites) if enough is None else [],
        "deploy_map": {"app": ["server", *sites]},
    }
    server = {
        "format_version": 2,
        "workflows": [
            {
                "id": "run",
                "path": CONTROLLER,
                "args": {"server_obj_id": "coordinator", "collab_obj_ids": []},
            }
        ],
        "components": [
            {
                "id": "coordinator",
                "path": COORDINATOR,
                "args": {"run_id": run_id, "plan_hash": plan_hash, "call_timeout_s": call_timeout_s},
            }
        ],
    }
    site = {
        "format_version": 2,
        "executors": [
            {
                "tasks": ["*"],
                "executor": {
                    "path": EXECUTOR,
                    "args": {"client_obj_id": "participant", "collab_obj_ids": []},
                },
            }
        ],
        "components": [{"id": "participant", "path": PARTICIPANT, "args": {}}],
    }
    (job / "meta.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
    (config / "config_fed_server.json").write_text(json.dumps(server, indent=2) + "\n", encoding="utf-8")
    (config / "config_fed_client.json").write_text(json.dumps(site, indent=2) + "\n", encoding="utf-8")
    return job
