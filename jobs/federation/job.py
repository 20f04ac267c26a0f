"""A job as NVFlare sees it: two configuration files and no code.

The job names our installed classes and says which plan and run it carries out. Everything else - the plan's text,
approvals, limits - is read where it is trusted: by the coordinator from the consortium's log, by a hospital from the
coordinator's first message, checked against the plan's hash and the approvals' signatures.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from jobs.federation.kit import CONTROLLER, COORDINATOR, EXECUTOR, PARTICIPANT

JOB_NAME = "zegel-run"


def write_job(folder: Path, *, run_id: str, plan_hash: str, sites: Sequence[str]) -> Path:
    """Write the job folder for one run, or for one more try at it; returns its path.

    Args:
        sites: the hospitals that take part, training or evaluating, and are connected.
    """
    earlier = len(list(folder.glob(f"{run_id}*")))
    job = folder / (run_id if not earlier else f"{run_id}.{earlier + 1}")
    config = job / "app" / "config"
    config.mkdir(parents=True)
    meta = {
        "name": f"{JOB_NAME} {run_id}",
        "resource_spec": {},
        "min_clients": len(sites),
        "mandatory_clients": list(sites),
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
        "components": [{"id": "coordinator", "path": COORDINATOR, "args": {"run_id": run_id, "plan_hash": plan_hash}}],
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
