"""The demo's pages: `zegel consortium serve` over the demo's consortium, left running until `zegel demo-stop`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil

from admin_api.errors import WebError

NOTE = "pages.json"
OUTPUT = "pages.log"
READY_S = 60.0
STOP_S = 15.0


def start_pages(workspace: Path, home: Path, *, port: int) -> str:
    """Serve the pages in a process of their own; returns their address once they answer. Raises WebError."""
    url = f"http://localhost:{port}"
    command = [
        *(sys.executable, "-m", "admin_api.cli", "consortium", "serve", "--home", str(home)),
        *("--host", "127.0.0.1", "--port", str(port), "--public-url", url),
    ]
    with (workspace / OUTPUT).open("wb") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    (workspace / NOTE).write_text(
        json.dumps({"pid": child.pid, "started": psutil.Process(child.pid).create_time(), "url": url}) + "\n",
        encoding="utf-8",
    )
    deadline = time.monotonic() + READY_S
    while True:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):  # noqa: S310 - our own address
                return url
        except (urllib.error.URLError, OSError) as error:
            if child.poll() is not None or time.monotonic() > deadline:
                stop_pages(workspace)
                raise WebError(f"the pages do not answer ({error}); {workspace / OUTPUT} says why") from None
        time.sleep(0.1)


def stop_pages(workspace: Path) -> bool:
    """Stop them and wait until they are gone; returns whether they ran."""
    note = workspace / NOTE
    try:
        said = json.loads(note.read_text(encoding="utf-8"))
        process = psutil.Process(said["pid"])
        if process.create_time() != said["started"]:
            raise psutil.NoSuchProcess(said["pid"])  # the number went to another process
    except (FileNotFoundError, psutil.NoSuchProcess):
        note.unlink(missing_ok=True)
        return False
    os.kill(process.pid, signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(STOP_S)
    note.unlink(missing_ok=True)
    return True
