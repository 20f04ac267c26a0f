"""Starting, finding and stopping a long-running process; a harmless one stands in for NVFlare's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from jobs.errors import FederationError
from jobs.federation import process

# The caller forgets the process on purpose, which Python reports.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
STUBBORN = [
    *(sys.executable, "-c"),
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)",
]
PARENT = [
    *(sys.executable, "-c"),
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)\n"
    "print('child', child.pid, flush=True)\n"
    "time.sleep(60)",
]


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "kit"
    folder.mkdir()
    yield folder
    process.stop(folder)


def wait_for_output(workspace: Path) -> str:
    deadline = time.monotonic() + 20
    while not (said := process.last_lines(workspace)):
        assert time.monotonic() < deadline, "the process said nothing"
        time.sleep(0.02)
    return said


def test_a_process_is_started_found_and_stopped(workspace: Path) -> None:
    assert process.find(workspace) is None
    started = process.start(SLEEP, workspace=workspace)
    assert wait_for_output(workspace) == "up"
    assert process.find(workspace) == started
    assert os.getsid(started.pid) == started.pid  # Ctrl-C in the caller's terminal does not reach it
    assert process.stop(workspace) is True
    assert not psutil.pid_exists(started.pid)
    assert process.find(workspace) is None
    assert process.stop(workspace) is False


def test_what_it_writes_is_its_owners_only(workspace: Path) -> None:
    script = "import pathlib; pathlib.Path('log.txt').write_text('x'); print('up', flush=True)"
    process.start([sys.executable, "-c", script], workspace=workspace)
    wait_for_output(workspace)
    for name in ("log.txt", "console.log", "process.json"):
        assert (workspace / name).stat().st_mode & 0o777 == 0o600, name
    assert (workspace / "transfer").stat().st_mode & 0o777 == 0o700


def test_a_second_start_is_refused(workspace: Path) -> None:
    started = process.start(SLEEP, workspace=workspace)
    with pytest.raises(FederationError, match=f"already running as process {started.pid}; stop it first"):
        process.start(SLEEP, workspace=workspace)
    assert process.find(workspace) == started


def unrecorded(module: str, folder: Path) -> subprocess.Popen[bytes]:
    """A process that looks like NVFlare's, whose parent died or never wrote it down."""
    script = "import time; time.sleep(60)"
    return subprocess.Popen([sys.executable, "-c", script, module, "-m", str(folder)], start_new_session=True)


@pytest.mark.parametrize("module", sorted(process.MODULES))
def test_what_an_earlier_start_left_is_ended_before_the_next(workspace: Path, tmp_path: Path, module: str) -> None:
    left, another = unrecorded(module, workspace), unrecorded(module, tmp_path / "another kit")
    try:
        started = process.start(SLEEP, workspace=workspace)
        left.wait(timeout=20)
        assert another.poll() is None
        assert process.find(workspace) == started
    finally:
        for each in (left, another):
            each.kill()
            each.wait()


@pytest.mark.parametrize("module", sorted(process.MODULES))
def test_a_stop_ends_what_was_never_recorded(workspace: Path, tmp_path: Path, module: str) -> None:
    """A command that is interrupted between starting a process and writing it down."""
    left, another = unrecorded(module, workspace), unrecorded(module, tmp_path / "another kit")
    try:
        process.stop(workspace)
        left.wait(timeout=20)
        assert another.poll() is None
    finally:
        for each in (left, another):
            each.kill()
            each.wait()


def test_a_recycled_pid_is_never_signalled(workspace: Path) -> None:
    """After a crash or a restart of the machine the pid can be anybody's."""
    stranger = subprocess.Popen(SLEEP, stdout=subprocess.DEVNULL)
    try:
        started = psutil.Process(stranger.pid).create_time()
        record = workspace / "process.json"
        record.write_text(json.dumps({"pid": stranger.pid, "started": started - 3600}), encoding="utf-8")
        assert process.find(workspace) is None
        assert process.stop(workspace) is False
        assert stranger.poll() is None
        assert not record.exists()
    finally:
        stranger.kill()
        stranger.wait()


def test_a_process_that_ended_by_itself_is_not_running(workspace: Path) -> None:
    started = process.start([sys.executable, "-c", "print('up')"], workspace=workspace)
    deadline = time.monotonic() + 20
    while process.find(workspace) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    again = process.start(SLEEP, workspace=workspace)
    assert again.pid != started.pid


def test_job_processes_end_too(workspace: Path) -> None:
    process.start(PARENT, workspace=workspace)
    child = int(wait_for_output(workspace).split()[1])
    assert psutil.pid_exists(child)
    process.stop(workspace)
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_one_that_ignores_the_request_is_ended(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "STOP_GRACE_S", 0.3)
    started = process.start(STUBBORN, workspace=workspace)
    wait_for_output(workspace)
    assert process.stop(workspace) is True
    assert not psutil.pid_exists(started.pid)


def test_leftovers_of_an_earlier_run_are_removed(workspace: Path) -> None:
    for name in ("shutdown.fl", "restart.fl"):  # NVFlare would read them as orders
        (workspace / name).write_text("", encoding="ascii")
    process.start(SLEEP, workspace=workspace)
    assert sorted(path.name for path in workspace.iterdir()) == ["console.log", "process.json", "transfer"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '"x"', "{}", '{"pid": "a", "started": 1}', '{"pid": null, "started": 1}']
)
def test_a_record_that_cannot_be_read_stops_everything(workspace: Path, text: str) -> None:
    record = workspace / "process.json"
    record.write_text(text, encoding="utf-8")
    with pytest.raises(FederationError, match=r"process\.json cannot be read .* then remove the file"):
        process.find(workspace)
    with pytest.raises(FederationError, match=r"process\.json cannot be read"):
        process.start(SLEEP, workspace=workspace)
    record.unlink()


def test_a_start_that_cannot_be_recorded_leaves_no_process(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise OSError("no space left on device")

    marker = f"zegel-test-{workspace}"
    monkeypatch.setattr(process, "Process", stop)
    with pytest.raises(OSError, match="no space left"):
        process.start([*SLEEP, marker], workspace=workspace)
    monkeypatch.undo()
    assert [each.pid for each in psutil.process_iter(["cmdline"]) if marker in (each.info["cmdline"] or [])] == []
    assert process.find(workspace) is None


def test_the_command_lines_name_the_kit_and_tls(tmp_path: Path) -> None:
    server = process.server_command(tmp_path, organisation="bureau")
    site = process.site_command(tmp_path, name="amstel", organisation="amstel_org")
    for command in (server, site):
        assert command[0] == sys.executable
        assert str(tmp_path) in command
        assert "secure_train=true" in command
    assert "uid=amstel" in site
    assert "org=amstel_org" in site


def test_the_last_lines_are_the_last(tmp_path: Path) -> None:
    assert process.last_lines(tmp_path) == ""
    (tmp_path / "console.log").write_bytes(b"\xff\n" + b"\n".join(str(n).encode() for n in range(50)))
    assert process.last_lines(tmp_path, 2) == "48\n49"
