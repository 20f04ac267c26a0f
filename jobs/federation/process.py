"""NVFlare's long-running processes: start, look, stop.

The process is NVFlare's own entry point, started as its `sub_start.sh` does, in a session of its own with its output
in `console.log`. A file `process.json` names it by pid and start time, so that a recycled pid is never signalled.
Stopping ends the job processes too; they are the process's children. What was left without a record or a parent is
found by its command line.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from jobs.errors import FederationError

SERVER_MODULE = "nvflare.private.fed.app.server.server_train"
CLIENT_MODULE = "nvflare.private.fed.app.client.client_train"
MODULES = frozenset(
    {
        *(SERVER_MODULE, "nvflare.private.fed.app.server.runner_process"),
        *(CLIENT_MODULE, "nvflare.private.fed.app.client.worker_process"),
    }
)
STOP_GRACE_S = 5.0  # time to leave on SIGTERM before SIGKILL


@dataclass(frozen=True)
class Process:
    """A running NVFlare process, as recorded in `process.json`."""

    pid: int
    started: float  # seconds since the epoch, as the operating system gives it


def server_command(workspace: Path, *, organisation: str) -> list[str]:
    """The command line of a server whose kit lies in `workspace`."""
    return _command(SERVER_MODULE, workspace, "fed_server.json", [f"org={organisation}"])


def site_command(workspace: Path, *, name: str, organisation: str) -> list[str]:
    """The command line of a hospital's client whose kit lies in `workspace`."""
    settings = [f"uid={name}", f"org={organisation}"]
    return _command(CLIENT_MODULE, workspace, "fed_client.json", settings)


def start(command: Sequence[str], *, workspace: Path) -> Process:
    """Start a process that outlives this one, after ending what an earlier one left when it was killed.

    Raises: FederationError when one is already running from this workspace.
    """
    running = find(workspace)
    if running is not None:
        raise FederationError(f"already running as process {running.pid}; stop it first")
    _end(_left(workspace))
    (workspace / "transfer").mkdir(exist_ok=True, mode=0o700)
    for leftover in ("shutdown.fl", "restart.fl"):
        (workspace / leftover).unlink(missing_ok=True)
    environment = os.environ | {
        "MALLOC_ARENA_MAX": os.environ.get("MALLOC_ARENA_MAX", "2"),
        "PYTHONUNBUFFERED": "1",
    }
    log = os.open(workspace / "console.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        child = subprocess.Popen(
            list(command),
            cwd=workspace,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            umask=0o077,  # NVFlare's logs can quote a record
        )
    finally:
        os.close(log)
    try:
        process = Process(child.pid, psutil.Process(child.pid).create_time())
        record = workspace / "process.json"
        record.write_text(json.dumps({"pid": process.pid, "started": process.started}), encoding="utf-8")
        record.chmod(0o600)
    except BaseException:  # a process nobody can find must not go on
        child.kill()
        child.wait()
        raise
    return process


def find(workspace: Path) -> Process | None:
    """The process running from this workspace, or None."""
    try:
        record = json.loads((workspace / "process.json").read_text(encoding="utf-8"))
        process = Process(int(record["pid"]), float(record["started"]))
        alive = psutil.Process(process.pid)
        if abs(alive.create_time() - process.started) > 1 or alive.status() == psutil.STATUS_ZOMBIE:
            return None
    except (FileNotFoundError, psutil.NoSuchProcess):
        return None
    except (ValueError, KeyError, TypeError, psutil.AccessDenied) as error:
        raise FederationError(
            f"{workspace / 'process.json'} cannot be read ({type(error).__name__}: {error}); "
            "see that nothing runs from this folder, then remove the file"
        ) from None
    return process


def stop(workspace: Path) -> bool:
    """End the process of this workspace and all its job processes. Returns whether one was running."""
    process = find(workspace)
    if process is not None:
        parent = psutil.Process(process.pid)
        _end([parent, *parent.children(recursive=True)])
    _end(_left(workspace))
    (workspace / "process.json").unlink(missing_ok=True)
    return process is not None


def _left(workspace: Path) -> list[psutil.Process]:
    """NVFlare's processes of this workspace, whether or not the one that started them lives, or wrote them down.

    A job process that outlives its parent would hold a hospital's ledger, or the lock of a run. A command that is
    ended between starting a process and recording it leaves one that nobody finds by its record.
    """
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(workspace) in (arguments := process.info["cmdline"] or ()) and not MODULES.isdisjoint(arguments)
    ]


def _end(processes: Sequence[psutil.Process]) -> None:
    """End processes, by SIGTERM first. Raises FederationError when one does not end."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=STOP_GRACE_S)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _, alive = psutil.wait_procs(alive, timeout=STOP_GRACE_S)
    if alive:
        raise FederationError(f"process {alive[0].pid} does not end")


def last_lines(workspace: Path, count: int = 20) -> str:
    """The end of the process's own output, for whoever runs this machine; it never leaves it."""
    try:
        return "\n".join(
            (workspace / "console.log").read_text(encoding="utf-8", errors="replace").splitlines()[-count:]
        )
    except FileNotFoundError:
        return ""


def _command(module: str, workspace: Path, configuration: str, settings: list[str]) -> list[str]:
    return [
        *(sys.executable, "-u", "-m", module, "-m", str(workspace), "-s", configuration),
        *("--set", "secure_train=true", *settings, "config_folder="),
    ]
