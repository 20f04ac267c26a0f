"""What the demo costs on this machine: time, memory of all its processes together, and the release's verification.

    python benchmarks/demo.py [--json]

Memory is the sum of the resident sets of the demo's process tree, server and hospitals included, sampled every half
second; shared pages are counted once per process, so it is an upper bound.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

SAMPLE_S = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder, "demo")
        seconds, memory = run_demo(workspace)
        root = workspace / "consortium" / "ca" / "rootCA.pem"
        verify = best_of(5, zegel("verify", str(workspace / "demo-1.dossier"), "--root", str(root)))
    rows = [
        row("zegel demo, wall time", seconds, "s", 180),
        row("zegel demo, memory of all processes", memory / 1e9, "GB", 6),
        row("zegel verify of the demo's dossier, with start-up", verify, "s", 1),
        row("zegel --help", best_of(5, zegel("--help")), "s", 0.5),
    ]
    if arguments.json:
        print(json.dumps(rows))
        return
    for item in rows:
        verdict = "holds" if item["holds"] else "MISSED"
        print(f"{item['name']:52} {item['value']:8.2f} {item['unit']:3} target {item['target']}: {verdict}")


def zegel(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "admin_api.cli", *arguments]


def run_demo(workspace: Path) -> tuple[float, int]:
    """Seconds and the peak of the summed resident sets, in bytes."""
    began = time.monotonic()
    child = subprocess.Popen(
        zegel("demo", "--workspace", str(workspace)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    peak = 0
    while child.poll() is None:
        peak = max(peak, resident(str(workspace), child.pid))
        time.sleep(SAMPLE_S)
    seconds = time.monotonic() - began
    if child.returncode != 0:
        sys.exit(f"the demo ended with {child.returncode}: {child.stderr.read() if child.stderr else ''}")
    return seconds, peak


def resident(workspace: str, demo: int) -> int:
    """Bytes of the demo, its commands, and the server's and hospitals' processes, which name the workspace."""
    total = 0
    for process in psutil.process_iter(["pid", "cmdline", "memory_info"]):
        arguments = process.info["cmdline"] or ()
        if process.info["pid"] == demo or any(workspace in argument for argument in arguments):
            total += process.info["memory_info"].rss if process.info["memory_info"] else 0
    return total


def best_of(times: int, command: list[str]) -> float:
    """The shortest of several runs: what the command takes when nothing else is in its way."""
    taken = []
    for _ in range(times):
        began = time.monotonic()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        taken.append(time.monotonic() - began)
    return min(taken)


def row(name: str, value: float, unit: str, target: float) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "target": f"<= {target}", "holds": value <= target}


if __name__ == "__main__":
    main()
