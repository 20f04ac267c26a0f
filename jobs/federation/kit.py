"""NVFlare's startup kits, hardened before anything runs.

What `harden` changes in `local/` of a kit NVFlare built:

* `class_allow_list` names our classes and the Collab runtime's by full path; a job naming any other class is ended
  by NVFlare with ComponentNotAuthorized;
* `byoc` is `none` for every role, so no job can bring code; nor may anyone open a shell at a site;
* logs are not streamed to the server: a stack trace can quote a letter;
* the server's job store lies in its own folder instead of a shared one in /tmp;
* the server gets its door (`jobs.federation.door`), which knows who was suspended or revoked, and a hospital a note of
  when it was let in (`site_packages.connection`);
* every file is readable by its owner only (0600, folders 0700).

A later start repeats `check_hardened`, so that a kit somebody loosened does not start.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jobs.errors import ProvisioningError

COORDINATOR = "jobs.federation.server.CoordinatorComponent"
PARTICIPANT = "site_packages.federation.ParticipantComponent"
CONTROLLER = "nvflare.collab.runtime.controller.CollabController"
EXECUTOR = "nvflare.collab.runtime.executor.CollabExecutor"
SERVER_CLASSES = (COORDINATOR, CONTROLLER)
SITE_CLASSES = (PARTICIPANT, EXECUTOR)
DOOR = {"id": "door", "path": "jobs.federation.door.Door", "args": {}}
CONNECTION = {"id": "connection", "path": "site_packages.connection.ConnectionNote", "args": {}}

SETTINGS_FILE = "zegel.json"  # in local/: where our component finds its home; never part of a job

_LOG_STREAMING = ("site_log_streamer", "log_receiver")  # ids of NVFlare's components that move logs

ROLES = ("project_admin", "org_admin", "lead", "member")
# Rights per NVFlare role at every site. Only the consortium's own `lead` submits and ends jobs.
_RIGHTS: dict[str, dict[str, str]] = {
    role: {
        "submit_job": "any" if role == "lead" else "none",
        "clone_job": "none",
        "manage_job": "n:submitter" if role == "lead" else "none",
        "download_job": "n:submitter" if role == "lead" else "none",
        "view": "any" if role == "lead" else "none",
        "operate": "any" if role == "lead" else "none",
        "shell_commands": "none",
        "byoc": "none",
        "server-predeployed-flwr": "none",
    }
    for role in ROLES
}


def harden(kit: Path, *, classes: tuple[str, ...], settings: dict[str, Any], server_store: Path | None = None) -> None:
    """Write the hardened `local/` of a kit and close its file modes.

    Args:
        kit: folder with `startup/` and `local/` as built by NVFlare.
        classes: full class paths a job may name here.
        settings: written to `local/zegel.json` for our component.
        server_store: for a server, the folder its job store and snapshots go to.
    """
    local = kit / "local"
    resources = _hardened(json.loads((local / "resources.json.default").read_text(encoding="utf-8")), classes)
    if server_store is not None:
        for part in resources["components"]:
            if part["id"] == "job_manager":
                part["args"]["uri_root"] = str(server_store / "jobs")
        resources["snapshot_persistor"]["args"]["storage"]["args"]["root_dir"] = str(server_store / "snapshots")
    _write_json(local / "resources.json", resources)
    _write_json(local / "authorization.json", {"format_version": "1.0", "permissions": _RIGHTS})
    _write_json(local / SETTINGS_FILE, settings)
    close_modes(kit)


def check_hardened(kit: Path, *, classes: tuple[str, ...]) -> None:
    """Raise ProvisioningError naming what differs from a hardened kit; a loosened kit must not start."""
    local = kit / "local"
    try:
        resources, default, rights = (
            json.loads((local / name).read_text(encoding="utf-8"))
            for name in ("resources.json", "resources.json.default", "authorization.json")
        )
        problems = [
            f"{key} in resources.json is not as installed"
            for key, value in _hardened(resources, classes).items()
            if resources.get(key) != value
        ]
        delivered = {(part["id"], part.get("path")) for part in _components(default, classes)}
        problems += [
            f"component {part['id']} in resources.json was added"
            for part in resources["components"]
            if (part["id"], part.get("path")) not in delivered
        ]
        if rights["permissions"] != _RIGHTS:
            problems.append("authorization.json is not Zegel's (byoc must be none for every role)")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProvisioningError(f"{kit}: the kit is not installed, or damaged ({error}); install it again") from None
    # NVFlare merges such files over resources.json, and puts local/custom on Python's path.
    for folder in (kit / "startup", local):
        problems += [f"{path.name} overrides resources.json" for path in sorted(folder.glob("*__*resources.json"))]
    if (local / "custom").exists():
        problems.append("local/custom brings code")
    for path in (kit, *(kit / "startup").rglob("*"), local, *local.rglob("*")):
        mode = path.stat().st_mode
        if mode & 0o077:
            problems.append(f"{path.name} can be read by others (mode {mode & 0o777:o}, expected {mode & 0o700:o})")
    if problems:
        raise ProvisioningError(
            f"{kit}: refusing to start: {'; '.join(problems)}. Undo this, or install the kit again."
        )


def _hardened(resources: dict[str, Any], classes: tuple[str, ...]) -> dict[str, Any]:
    """NVFlare's resources with our limits. What is hardened already comes back unchanged."""
    return resources | {
        "class_list_enforcement_mode": "enforce",
        "class_allow_list": list(classes),
        "allow_log_streaming": False,
        "components": _components(resources, classes),
    }


def _components(resources: dict[str, Any], classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """NVFlare's components without those that move logs, and ours."""
    ours = DOOR if COORDINATOR in classes else CONNECTION
    kept = [part for part in resources["components"] if part["id"] not in (*_LOG_STREAMING, ours["id"])]
    return [*kept, ours]


def close_modes(folder: Path) -> None:
    """Files 0600 (0700 if executable), folders 0700."""
    folder.chmod(0o700)
    for path in folder.rglob("*"):
        if path.is_symlink():
            continue
        executable = path.is_dir() or bool(path.stat().st_mode & 0o100)
        path.chmod(0o700 if executable else 0o600)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
