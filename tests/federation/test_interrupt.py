"""Ctrl-C in the middle of a demo: the right exit code, and nothing left running."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.federation.live_federation import wait_until

pytestmark = pytest.mark.federation


@pytest.mark.parametrize(
    ("command", "seconds"),
    [
        pytest.param(("sample", "--out"), 0.0, id="one command"),
        pytest.param(("site", "import"), 0.2, id="commands side by side"),
        pytest.param(("site", "start"), 1.0, id="hospitals connect"),
        pytest.param(("run", "start"), 8.0, id="training"),
    ],
)
def test_ctrl_c_leaves_nothing_running(tmp_path: Path, command: tuple[str, ...], seconds: float) -> None:
    """The interrupt comes so many seconds into a command of the demo."""
    workspace, log = tmp_path / "demo", tmp_path / "output"
    with log.open("w", encoding="utf-8") as output:
        demo = subprocess.Popen(
            [
                *(sys.executable, "-m", "admin_api.cli", "demo", "--workspace", str(workspace)),
                *("--hospitals", "4", "--admissions", "100"),
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until(f"the demo's `zegel {' '.join(command)}`", lambda: _carries_out(demo, command))
        time.sleep(seconds)
        demo.send_signal(signal.SIGINT)
        code = demo.wait(timeout=60)
        said = log.read_text(encoding="utf-8")
        assert code == 130, said
        assert "Traceback" not in said
        assert [process.info["cmdline"] for process in _left(workspace)] == []
    finally:  # where the test fails, what it started must not outlive it
        left = _left(workspace)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=20)
        demo.wait()


def _carries_out(demo: subprocess.Popen[bytes], command: tuple[str, ...]) -> bool:
    assert demo.poll() is None, "the demo ended before that"
    with contextlib.suppress(psutil.NoSuchProcess):  # a child that ended meanwhile; the next look sees the others
        return any(
            tuple(child.cmdline()[3 : 3 + len(command)]) == command
            for child in psutil.Process(demo.pid).children()
            if child.status() != psutil.STATUS_ZOMBIE
        )
    return False


def _left(workspace: Path) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(workspace) in argument for argument in process.info["cmdline"] or ())
    ]
