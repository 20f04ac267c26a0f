"""A federation that runs: the demo's workspace, the commands of its people, and ways to kill its processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from audit.entry import ROUND_ABORTED, ROUND_COMPLETED, RUN_FINISHED, RUN_STARTED, VERSION_CREATED
from jobs.home import ConsortiumHome
from jobs.records import read_progress, recorded_by_run
from site_packages.home import SiteHome
from site_packages.limits import TRAINING

TIMEOUT_S = 900  # only ever reached when something hangs; a busy machine may take its time
WAIT_S = 300.0
CLIENT, SERVER = "client.client_train", "server.server_train"  # NVFlare's entry points
SITE_JOB, SERVER_JOB = "client.worker_process", "server.runner_process"


def zegel(*arguments: str | Path, timeout_s: float = TIMEOUT_S) -> subprocess.CompletedProcess[str]:
    """Run a command as its user would; the caller looks at exit code and output."""
    return subprocess.run(
        [sys.executable, "-m", "admin_api.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def wait_until(what: str, holds: Callable[[], bool], *, timeout_s: float = WAIT_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s for: {what}"
        time.sleep(0.05)


def processes(kit: Path, entry_point: str) -> list[int]:
    """Pids of NVFlare's processes of a kind that run from a kit."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if str(kit) in (arguments := process.info["cmdline"] or ())
        and any(each.endswith(f".{entry_point}") for each in arguments)
    ]


def kill(kit: Path, entry_point: str) -> None:
    """kill -9 of the one process of a kind that runs from a kit; it is gone when this returns."""
    (pid,) = processes(kit, entry_point)
    process = psutil.Process(pid)
    process.kill()
    process.wait(timeout=20)


@contextmanager
def stopped(kit: Path) -> Iterator[None]:
    """All of a kit's processes hang, as on a machine that is out of memory or suspended."""
    pids = [*processes(kit, CLIENT), *processes(kit, SITE_JOB)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@contextmanager
def full_disk(kit: Path) -> Iterator[None]:
    """Whatever a hospital's job process writes to a file fails."""
    (pid,) = processes(kit, SITE_JOB)
    process = psutil.Process(pid)
    before = process.rlimit(psutil.RLIMIT_FSIZE)
    process.rlimit(psutil.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        process.rlimit(psutil.RLIMIT_FSIZE, before)


@dataclass(frozen=True)
class Live:
    """The demo's workspace, with its server and four hospitals running."""

    workspace: Path
    output: str

    @property
    def consortium(self) -> Path:
        return self.workspace / "consortium"

    @property
    def home(self) -> ConsortiumHome:
        return ConsortiumHome(self.consortium)

    @property
    def server_kit(self) -> Path:
        return self.home.server_kit

    @property
    def root(self) -> Path:
        return self.consortium / "ca" / "rootCA.pem"

    @property
    def dossier(self) -> Path:
        return self.workspace / "demo-1.dossier"

    def site(self, number: int) -> Path:
        return self.workspace / "sites" / f"hospital-{number}"

    def kit(self, number: int) -> Path:
        return self.site(number) / "kit"

    def config(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads((self.consortium / "consortium.json").read_text(encoding="utf-8"))
        return value

    def server_log(self) -> str:
        return (self.server_kit / "console.log").read_text(encoding="utf-8", errors="replace")

    def zegel(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return zegel(*arguments)

    def does(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """A command that must succeed."""
        ended = zegel(*arguments)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended

    def signed_by(self, who: str) -> tuple[str | Path, ...]:
        return ("--as", self.workspace / "people" / who, "--passphrase-file", self.workspace / "passphrases" / who)

    @contextmanager
    def reached_through(self, port: int, number: int) -> Iterator[None]:
        """One hospital reaches the server through another port of this machine."""
        config = self.kit(number) / "startup" / "fed_client.json"
        before = config.read_bytes()
        server = str(self.config()["fed_learn_port"]).encode()
        assert before.count(server) == 1
        try:
            self._start_with(number, config, before.replace(server, str(port).encode()))
            yield
        finally:
            self._start_with(number, config, before)

    def _start_with(self, number: int, config: Path, content: bytes) -> None:
        self.does("site", "stop", "--home", self.site(number))
        config.write_bytes(content)
        self.does("site", "start", "--home", self.site(number))

    def propose(self, name: str, *options: str, epsilon: float, train: Sequence[int], approve: bool = True) -> str:
        """Propose a plan for these hospitals, and have it approved; returns its hash."""
        labels = self.workspace / "letters" / "labels.txt"
        sites = [argument for n in train for argument in ("--site", f"hospital-{n}")]
        where: tuple[str | Path, ...] = ("--home", self.consortium, "--labels", labels)
        proposed = self.does(
            *("plan", "propose", name, *where, *options),
            *sites,
            *("--epsilon", str(epsilon), "--delta", "1e-5", "--metrics-epsilon", "1", "--json"),
            *self.signed_by("admin"),
        )
        plan_hash = str(json.loads(proposed.stdout)["plan_hash"])
        if approve:
            self.does("plan", "approve", plan_hash, "--home", self.consortium, *self.signed_by("officer"))
        return plan_hash


class Orchestrator:
    """`zegel run start` or `resume` in a process of its own, watched from outside."""

    def __init__(self, live: Live, log: Path, *arguments: str) -> None:
        self._live = live
        self._log = log
        with log.open("w", encoding="utf-8") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "admin_api.cli", "run", *arguments, "--home", str(live.consortium), "--json"],
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Orchestrator:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def output(self) -> str:
        return self._log.read_text(encoding="utf-8")

    @property
    def run_id(self) -> str:
        wait_until("the run's first step", lambda: '{"run_id"' in self._still_running())
        lines = [line for line in self.output.splitlines() if line.startswith("{")]
        return str(json.loads(lines[0])["run_id"])

    def wait_for_round(self, number: int, *, hospitals: int | None = None) -> int:
        """Wait until round `number` or a later one is finished, with so many hospitals if given; returns it."""
        run_id, found = self.run_id, 0

        def done() -> bool:
            nonlocal found
            self._still_running()
            for step in read_progress(self._live.home, run_id):
                if step["stage"] == "training" and step["round"] >= number and step["round_seconds"]:
                    found = step["round"]
                    if hospitals in (None, len(step["participants"])):
                        return True
            return False

        wait_until(f"round {number} with {hospitals or 'any'} hospitals\n{self.output}", done)
        return found

    def finish(self) -> None:
        """Wait for the end, which must be a finished run."""
        assert self._process.wait(timeout=TIMEOUT_S) == 0, self.output
        assert "Traceback" not in self.output
        assert json.loads(self.output.splitlines()[-1])["status"] == "finished"

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait()

    def _still_running(self) -> str:
        assert self._process.poll() is None, self.output
        return self.output


def check_run(live: Live, run_id: str, *, train: Sequence[int]) -> list[dict[str, Any]]:
    """What must hold of every run, whatever died in it; returns its completed rounds as logged.

    Each round is in the log once, done or lost. The chain of versions is unbroken. A hospital's ledger has each round
    at most once: those it signed a receipt for, and otherwise only rounds that were logged without it.
    """

    def bodies(kind: str) -> list[dict[str, Any]]:
        return recorded_by_run(live.home, run_id, kind)

    (started,), (finished,), (created,) = bodies(RUN_STARTED), bodies(RUN_FINISHED), bodies(VERSION_CREATED)
    done, lost = bodies(ROUND_COMPLETED), bodies(ROUND_ABORTED)
    numbers = Counter(body["round"] for body in [*done, *lost])
    assert numbers == Counter(range(1, finished["rounds"] + 1))
    version = started["initial_version"]
    for body in done:
        assert body["version_in"] == version, body["round"]
        version = body["version_out"]
    assert version == finished["version"] == created["version"]
    for n in train:
        name = f"hospital-{n}"
        receipts = {body["round"] for body in done if name in body["participants"]}
        assert receipts == {
            receipt["statement"]["round"]
            for body in done
            for receipt in body["receipts"]
            if receipt["statement"]["site"] == name
        }
        ledger = SiteHome(live.site(n)).ledger()
        keys = ledger.committed(run_id, TRAINING)
        assert all(key.startswith("round ") for key in keys)
        spent = {int(key.removeprefix("round ")) for key in keys}
        without = set(numbers) - receipts
        assert receipts <= spent <= receipts | without, name
        (run,) = [
            run
            for cohort in ledger.summary().cohorts
            if cohort.cohort == TRAINING
            for run in cohort.runs
            if run.run_id == run_id
        ]
        assert (run.committed, run.is_open) == (len(spent), False), name
    live.does("audit", "check", "--home", live.consortium)
    return done
