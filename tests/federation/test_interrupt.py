"""Ctrl-C in the middle of a demo: the right exit code, and nothing left running."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.federation


@pytest.mark.parametrize("after", ["hospitals join", "mutual TLS"])
def test_ctrl_c_leaves_nothing_running(tmp_path: Path, after: str) -> None:
    workspace = tmp_path / "demo"
    command = [sys.executable, "-u", "-m", "admin_api.cli", "demo", "--workspace", str(workspace)]
    demo = subprocess.Popen(
        [*command, "--hospitals", "4", "--admissions", "100"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert demo.stdout is not None
        seen = ""
        for line in demo.stdout:
            seen += line
            if after in line:
                break
        assert after in seen, seen
        time.sleep(1.0)  # into the middle of the next step
        demo.send_signal(signal.SIGINT)
        rest, _ = demo.communicate(timeout=60)
        assert demo.returncode == 130, seen + rest
        assert "Traceback" not in seen + rest
    finally:
        if demo.poll() is None:  # the test fails; what it started must not outlive it
            demo.kill()
            subprocess.run(
                [sys.executable, "-m", "admin_api.cli", "demo-stop", "--workspace", str(workspace)], check=True
            )
    left = [
        process.info["cmdline"]
        for process in psutil.process_iter(["cmdline"])
        if any(str(workspace) in argument for argument in process.info["cmdline"] or ())
    ]
    assert left == []
