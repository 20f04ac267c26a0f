"""What a round costs over NVFlare: four hospitals, 400,000 parameters, mutual TLS; and where the time goes.

    python benchmarks/rounds.py [--rounds 15] [--folder DIR] [--json]

A consortium of its own is founded in a temporary folder by the commands that `zegel demo` types, on ports that were
free; a plan for all four hospitals is approved and carried out by `zegel run start`. Afterwards the same plan is
carried out from the same folders in this process, over the in-memory transport: log, ledgers, keys and disk are the
same, only NVFlare and the processes are missing. Hospitals work one after another there and side by side over NVFlare.

Parts are measured by the coordinator and by each hospital (`jobs.timings`). What a call took the coordinator is
split into the slowest hospital's own parts and the rest, which is transport: NVFlare, TLS, serialisation, waiting for a
processor. Each figure of a part is the median over rounds. Processor time is that of all processes over all rounds.

Times of a machine that does other work as well are too long; processor times and the ratio are what to look at then.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from jobs.home import ConsortiumHome
from jobs.records import load_plan, read_progress
from jobs.run import carry_out_run
from jobs.terms import plan_model
from jobs.timings import REST
from jobs.transport import InMemoryTransport
from site_packages.home import TIMINGS, SiteHome
from site_packages.timings_file import read_timings

HOSPITALS = 4
LABELS, FEATURES = 49, 8192  # (8192 + 1) * 49 = 401,457 parameters
EPSILON = 3.0
TARGET_S = 1.2
MEMORY_RUN = "run-20260101T000000Z-000000"
KINDS = {  # of NVFlare's processes, by the module they run
    "server's job": "server.runner_process",
    "a hospital's job": "client.worker_process",
    "NVFlare's server": "server.server_train",
    "a hospital's NVFlare client": "client.client_train",
}
OWN_PARTS = {REST: "checking the request, opening shares"}


@dataclass(frozen=True)
class Figure:
    """One measured number."""

    group: str
    name: str
    value: float
    unit: str
    target: float | None = None  # at most

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        return f"target <= {self.target:g}: {'holds' if self.value <= self.target else 'MISSED'}"


@dataclass(frozen=True)
class Measured:
    """One run: its rounds as the coordinator timed them, and every hospital's calls of those rounds."""

    seconds: Sequence[float]  # of each round
    parts: Sequence[Mapping[str, float]]  # of each round, by part
    calls: Sequence[Mapping[str, Sequence[Mapping[str, float]]]]  # of each round: method -> each hospital's parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="of training; the first secure sum is not counted")
    parser.add_argument("--folder", type=Path, help="where the consortium is founded (default: temporary)")
    parser.add_argument("--json", action="store_true", help="print one JSON list instead of lines")
    arguments = parser.parse_args()
    if arguments.rounds < 12:
        parser.error("--rounds: at least 12, so that the tenth parts mean something")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder, consortium(Path(folder, "demo")) as workspace:
        plan_hash = approved_plan(workspace, arguments.rounds)
        over_nvflare, processor = run_over_nvflare(workspace, plan_hash)
        in_memory, alone = run_in_memory(workspace, plan_hash)
        home = ConsortiumHome(workspace / "consortium")
        parameters = plan_model(load_plan(home, plan_hash)).vector_length
    figures = [
        Figure("plan", "parameters", parameters, ""),
        *spread("over NVFlare", over_nvflare.seconds, target=TARGET_S),
        *breakdown(over_nvflare),
        *(Figure("processor time", name, seconds, "s per round") for name, seconds in processor.items()),
        Figure("processor time", "all together", sum(processor.values()), "s per round"),
        *spread("in memory, hospitals one by one", in_memory.seconds),
        Figure("in memory, hospitals one by one", "processor time", alone, "s per round"),
        Figure("ratio", "round over NVFlare / in memory", ratio(over_nvflare.seconds, in_memory.seconds), ""),
        Figure("ratio", "processor time over NVFlare / in memory", sum(processor.values()) / alone, ""),
    ]
    if arguments.json:
        print(json.dumps([{**asdict(figure), "verdict": figure.verdict} for figure in figures]))
        return
    for figure in figures:
        value = f"{figure.value:12,.3f}" if figure.unit or figure.group == "ratio" else f"{figure.value:12,.0f}"
        print(f"{figure.group:32} {figure.name:46} {value} {figure.unit:12} {figure.verdict}".rstrip())


# -- the consortium ------------------------------------------------------------------------------------------------


def zegel(*arguments: str | Path) -> dict[str, Any]:
    """Run a command; returns the last line of JSON it printed. What it says ends the benchmark if it fails."""
    ended = subprocess.run(command(*arguments), capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        sys.exit(f"zegel {' '.join(map(str, arguments[:3]))} ... ended with {ended.returncode}: {ended.stderr.strip()}")
    lines = [line for line in ended.stdout.splitlines() if line.startswith("{")]
    return dict(json.loads(lines[-1])) if lines else {}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "admin_api.cli", *map(str, arguments)]


@contextmanager
def consortium(workspace: Path) -> Iterator[Path]:
    """A founded consortium with its server and hospitals running; they are stopped at the end."""
    try:
        zegel(
            *("demo", "--workspace", workspace, "--hospitals", str(HOSPITALS), "--admissions", "300"),
            *("--epsilon", "30", "--keep-running"),  # of the demo's own run, which few patients have to train
        )
        yield workspace
    finally:
        if workspace.exists():
            zegel("demo-stop", "--workspace", workspace)


def approved_plan(workspace: Path, rounds: int) -> str:
    """The hash of a plan of the benchmark's size, proposed and approved."""
    labels = workspace / "labels.txt"
    codes = (workspace / "letters" / "labels.txt").read_text(encoding="utf-8").splitlines()
    labels.write_text("\n".join(codes[:LABELS]) + "\n", encoding="utf-8")
    home: tuple[str | Path, ...] = ("--home", workspace / "consortium")
    sites = [argument for number in range(1, HOSPITALS + 1) for argument in ("--site", f"hospital-{number}")]
    proposed = zegel(
        *("plan", "propose", "rounds", *home, *sites, "--labels", labels, "--features", str(FEATURES)),
        *("--rounds", str(rounds), "--epsilon", str(EPSILON), "--delta", "1e-5", "--metrics-epsilon", "0.5"),
        *("--json", *signed_by(workspace, "admin")),
    )
    plan_hash = str(proposed["plan_hash"])
    zegel("plan", "approve", plan_hash, *home, "--reason", "benchmark", *signed_by(workspace, "officer"))
    return plan_hash


def signed_by(workspace: Path, who: str) -> tuple[str | Path, ...]:
    return ("--as", workspace / "people" / who, "--passphrase-file", workspace / "passphrases" / who)


# -- the runs ------------------------------------------------------------------------------------------------------


def run_over_nvflare(workspace: Path, plan_hash: str) -> tuple[Measured, dict[str, float]]:
    """Returns also the processor time of each kind of process, per round, all processes of the kind together."""
    run_id = ""
    used: list[tuple[int, dict[str, float]]] = []  # after each round
    arguments = command("run", "start", plan_hash, "--home", workspace / "consortium", "--json")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        if child.stdout is None or child.stderr is None:
            raise RuntimeError("pipes were asked for")
        for line in child.stdout:
            step = json.loads(line)
            run_id = step.get("run_id", run_id)
            if step.get("stage") == "training" and step["round_seconds"]:
                used.append((step["round"], processor_seconds(workspace)))
        error = child.stderr.read()
    if child.returncode != 0:
        sys.exit(f"the run ended with {child.returncode}: {error.strip()}")
    (first, before), (last, after) = used[0], used[-1]
    per_round = {kind: (after[kind] - before[kind]) / (last - first) for kind in KINDS}
    return measured(workspace, run_id), per_round


def run_in_memory(workspace: Path, plan_hash: str) -> tuple[Measured, float]:
    """Returns also this process's processor time per round."""
    homes = {f"hospital-{number}": SiteHome(site(workspace, number)) for number in range(1, HOSPITALS + 1)}
    transport = CountingTransport({name: home.participant().handle for name, home in homes.items()})
    home = workspace / "consortium"
    if carry_out_run(home, run_id=MEMORY_RUN, plan_hash=plan_hash, transport=transport) is None:
        sys.exit(f"the run in memory did not finish; see {home / 'runs' / MEMORY_RUN / 'result.json'}")
    starts = transport.round_starts
    return measured(workspace, MEMORY_RUN), (starts[-1] - starts[1]) / (len(starts) - 2)


class CountingTransport(InMemoryTransport):
    """Notes the processor time at which each round asks for its vectors."""

    def __init__(self, handlers: Mapping[str, Callable[[str, dict[str, Any]], dict[str, Any]]]) -> None:
        super().__init__(handlers)
        self.round_starts: list[float] = []

    def call(self, method: str, requests: Mapping[str, Any], *, timeout_s: float) -> Mapping[str, Any]:
        if method == "round":
            self.round_starts.append(time.process_time())
        return super().call(method, requests, timeout_s=timeout_s)


def measured(workspace: Path, run_id: str) -> Measured:
    """What coordinator and hospitals wrote down, without the first secure sum: it makes the keys, and no model yet."""
    steps = {
        step["round"]: step
        for step in read_progress(ConsortiumHome(workspace / "consortium"), run_id)
        if step["stage"] == "training" and step["round"] > 1
    }
    by_round: dict[int, dict[str, list[Mapping[str, float]]]] = {number: {} for number in steps}
    for number in range(1, HOSPITALS + 1):
        for call in read_timings(site(workspace, number) / TIMINGS):
            if call.round in by_round and call.method in ("round", "survivors", "unmask"):
                by_round[call.round].setdefault(call.method, []).append(call.seconds)
    return Measured(
        seconds=[step["round_seconds"] for step in steps.values()],
        parts=[step["timings"] for step in steps.values()],
        calls=list(by_round.values()),
    )


def site(workspace: Path, number: int) -> Path:
    return workspace / "sites" / f"hospital-{number}"


def processor_seconds(workspace: Path) -> dict[str, float]:
    """User and system time so far of the processes of each kind that run from this workspace."""
    found = dict.fromkeys(KINDS, 0.0)
    for process in psutil.process_iter(["cmdline", "cpu_times"]):
        arguments = process.info["cmdline"] or ()
        if any(str(workspace) in argument for argument in arguments):
            for kind, module in KINDS.items():
                if any(argument.endswith(module) for argument in arguments):
                    found[kind] += process.info["cpu_times"].user + process.info["cpu_times"].system
    return found


# -- the figures ---------------------------------------------------------------------------------------------------


def spread(group: str, seconds: Sequence[float], *, target: float | None = None) -> list[Figure]:
    tenths = statistics.quantiles(seconds, n=10, method="inclusive")
    return [
        Figure(group, "round, median", statistics.median(seconds), "s", target),
        Figure(group, "round, 10% are faster than", tenths[0], "s"),
        Figure(group, "round, 10% are slower than", tenths[-1], "s"),
    ]


def breakdown(run: Measured) -> Iterator[Figure]:
    """Where the time of a round goes: the coordinator's parts; of each call, the slowest hospital and the transport."""
    for part in dict.fromkeys(part for parts in run.parts for part in parts):
        if not part.startswith("call "):
            yield median_of("coordinator", part, [parts.get(part, 0.0) for parts in run.parts])
    for method in ("round", "survivors", "unmask"):
        slowest = [max(calls[method], key=lambda call: sum(call.values())) for calls in run.calls]
        for part in dict.fromkeys(part for call in slowest for part in call):
            name = OWN_PARTS.get(part, part)
            yield median_of(f"call {method}: slowest hospital", name, [call.get(part, 0.0) for call in slowest])
        transport = [
            parts[f"call {method}"] - sum(call.values()) for parts, call in zip(run.parts, slowest, strict=True)
        ]
        yield median_of(f"call {method}", "transport", transport)


def median_of(group: str, name: str, seconds: Sequence[float]) -> Figure:
    return Figure(group, name, statistics.median(seconds), "s")


def ratio(one: Sequence[float], other: Sequence[float]) -> float:
    return statistics.median(one) / statistics.median(other)


if __name__ == "__main__":
    main()
