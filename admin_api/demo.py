"""`zegel demo`: a whole consortium on this machine, by the same commands its people would type.

Every step is a `zegel` command in a process of its own; hospitals, server and people each have a folder and a key.
What is shown - epsilon, metrics, the trace - comes from the run's log and dossier. Letters are synthetic and say so.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

MARKER = "this-is-a-zegel-demo"
NAME = "zegel-demo"
RELEASE = "demo-1"
DELTA = 1e-5
INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
COMMAND_GRACE_S = 10.0  # time for a command to leave on SIGTERM before SIGKILL
PARALLEL = 2  # commands at a time; a laptop's worth
PEOPLE = {
    "admin": ("Ada Beheer", "consortium_bureau", "consortium_admin"),
    "officer": ("Pieter Privacy", "privacy_board", "privacy_officer"),
    "manager": ("Rosa Release", "coding_centre", "release_manager"),
}
FOUNDERS = ("admin", "officer")  # the first two; from then on both agree before anybody gets a certificate


class DemoError(Exception):
    """A command of the demo failed; the message holds its own words."""


@dataclass
class Demo:
    """One demo in one workspace.

    Attributes:
        workspace: gets consortium/, people/, sites/ and the dossier.
        running: what to stop at the end, as commands.
    """

    workspace: Path
    hospitals: int
    epsilon: float
    seed: int
    admissions: int
    console: Console
    running: list[list[str]] = field(default_factory=list)
    _children: set[subprocess.Popen[str]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopped: bool = False

    @property
    def consortium(self) -> Path:
        return self.workspace / "consortium"

    @property
    def secrets(self) -> Path:
        return self.workspace / "passphrases"

    def site(self, name: str) -> Path:
        return self.workspace / "sites" / name

    def zegel(
        self, *arguments: str | Path, each_line: Callable[[dict[str, Any]], None] | None = None
    ) -> dict[str, Any]:
        """Run one command with --json and return what it printed; its error ends the demo."""
        command = [sys.executable, "-m", "admin_api.cli", *map(str, arguments), "--json"]
        # A group of its own: Ctrl-C reaches the demo, which stops things in order.
        with self._lock:
            if self._stopped:
                raise DemoError("stopped")
            child = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
            )
            self._children.add(child)
        last: dict[str, Any] = {}
        try:
            if child.stdout is None or child.stderr is None:
                raise RuntimeError("pipes were asked for")
            for line in child.stdout:
                if line.startswith("{"):
                    last = json.loads(line)
                    if each_line is not None:
                        each_line(last)
            error = child.stderr.read()
            code = child.wait()
        finally:
            _end(child)  # also where its output could not be read to the end
            with self._lock:
                self._children.discard(child)
        if code != 0:
            words = " ".join(map(str, arguments[:3]))
            raise DemoError(f"zegel {words} ... ended with {code}: {error.strip()}")
        return last

    def side_by_side(self, step: Callable[[str], Any], items: Iterable[str]) -> list[Any]:
        """`step` of every item, a few at a time, in order; the first failure or Ctrl-C ends the others at once."""
        pool = ThreadPoolExecutor(PARALLEL)
        try:
            return list(pool.map(step, items))
        except BaseException:
            self.end_commands()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def stop(self, *, keep_running: bool) -> None:
        """Stop server and hospitals, once no command runs any more."""
        if keep_running:
            return
        commands = [[sys.executable, "-m", "admin_api.cli", *command] for command in reversed(self.running)]
        stopping = [
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
            for command in commands
        ]
        for process in stopping:
            process.wait()
        self.running.clear()

    def end_commands(self) -> None:
        """End the commands still running; no other starts afterwards."""
        with self._lock:
            self._stopped = True
            children = list(self._children)
        for child in children:
            child.terminate()
        for child in children:
            _end(child)


def demo(
    hospitals: Annotated[int, typer.Option(help="How many hospitals; the last one evaluates only.", min=4, max=12)] = 5,
    epsilon: Annotated[float, typer.Option(help="Privacy loss per patient of the whole training.", min=0.1)] = 8.0,
    seed: Annotated[int, typer.Option(help="Of the synthetic letters; the same seed gives the same letters.")] = 1,
    admissions: Annotated[int, typer.Option(help="Day admissions per hospital.", min=100)] = 1500,
    workspace: Annotated[Path, typer.Option(help="Folder of the demo; an earlier demo in it is replaced.")] = Path(
        NAME
    ),
    keep_running: Annotated[
        bool, typer.Option("--keep-running", help="Leave server and hospitals running at the end.")
    ] = False,
) -> None:
    """Watch a consortium be founded, train under differential privacy, certify a release and verify it.

    Hospitals, server and people are separate processes and folders on this machine, with a key each; the federation
    runs over mutual TLS as it would between machines. Nothing is left running, also after Ctrl-C.
    """
    console = Console(highlight=False)
    try:
        prepare(workspace)
    except DemoError as error:
        console.print(f"zegel demo: {error}", style="red")
        raise typer.Exit(1) from None
    run = Demo(workspace.resolve(), hospitals, epsilon, seed, admissions, console)
    began = time.monotonic()
    code = 0
    # Interrupts reach the main thread only: none can fall between the start of a command and its entry in the list.
    stage = ThreadPoolExecutor(1)
    with _interruptible():
        try:
            stage.submit(_play, run).result()
            console.print(f"\nThe demo took {time.monotonic() - began:.0f} s.")
        except DemoError as error:
            console.print(f"\nzegel demo: {error}", style="red", markup=False)
            code = 1
        except KeyboardInterrupt:
            console.print("\nInterrupted; stopping everything.")
            code = 130
        finally:
            for number in INTERRUPTS:
                signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave half of it running
            run.end_commands()
            stage.shutdown()
            run.stop(keep_running=keep_running and code == 0)
    if keep_running and code == 0:
        code = _serve_pages(run, console)
        console.print(f"Still running. Stop it with: zegel demo-stop --workspace {workspace}", markup=False)
    raise typer.Exit(code)


def prepare(workspace: Path) -> None:
    """An empty workspace, replacing an earlier demo's but nothing else. Raises DemoError."""
    if workspace.exists() and any(workspace.iterdir()):
        if not (workspace / MARKER).exists():
            raise DemoError(f"{workspace} is not empty and not an earlier demo; give another --workspace")
        stop_all(workspace)
        shutil.rmtree(workspace)
    workspace.mkdir(parents=True, exist_ok=True, mode=0o700)
    (workspace / MARKER).write_text("Made by `zegel demo`; a later demo replaces this folder.\n", encoding="utf-8")


def stop_all(workspace: Path) -> None:
    """Stop whatever an earlier demo left running in this workspace."""
    from admin_api.demo_pages import stop_pages
    from jobs.federation import process

    stop_pages(workspace)

    for kit in [*workspace.glob("sites/*/kit"), workspace / "consortium" / "server" / "kit"]:
        if kit.exists():
            process.stop(kit)


def demo_stop(
    workspace: Annotated[Path, typer.Option(help="The demo's folder.")] = Path(NAME),
) -> None:
    """Stop what `zegel demo --keep-running` left running."""
    if not (workspace / MARKER).exists():
        typer.echo(f"zegel demo-stop: {workspace} is not a demo's folder", err=True)
        raise typer.Exit(1)
    stop_all(workspace)
    typer.echo("Stopped.")


def _play(run: Demo) -> None:
    names = [f"hospital-{number + 1}" for number in range(run.hospitals)]
    trainers, evaluator = names[:-1], names[-1]
    run.secrets.mkdir(mode=0o700)
    for holder in ("root", *PEOPLE):
        path = run.secrets / holder
        path.write_text(os.urandom(12).hex() + "\n", encoding="ascii")
        path.chmod(0o600)

    fingerprint = _found(run)
    run.console.print(
        f"[bold]2[/]  {len(names)} hospitals join. Each makes its key at home and sends a request; admin and privacy "
        "officer compare the key's fingerprint and agree, then the root signs."
    )
    _sample(run, names)
    joined = run.side_by_side(lambda name: _join(run, name, fingerprint), names)
    table = Table(box=None, padding=(0, 2))
    for column in ("hospital", "key", "admissions", "patients", "letters", "rejected rows"):
        table.add_column(column, justify="left" if column in ("hospital", "key") else "right")
    for name, (key, manifest) in zip(names, joined, strict=True):
        rejected = sum(count for reasons in manifest["rejected"].values() for count in reasons.values())
        table.add_row(
            name,
            key[:19] + "…",
            str(manifest["admissions"]),
            str(manifest["patients"]),
            str(manifest["letters"]),
            str(rejected),
        )
    run.console.print(table)
    _connect(run, names)
    _gates(run)
    plan_hash = _plan(run, trainers, evaluator)
    result = _train(run, plan_hash)
    comparison = _compare(run, names, trainers)
    dossier = _release(run, result["run_id"])
    report = _verify(run, dossier)
    _show(run, names, evaluator, report, comparison)
    run.console.print(f"\nDossier: {dossier}", markup=False)
    run.console.print(
        f"Check it yourself: zegel verify {dossier} --root {run.consortium / 'ca' / 'rootCA.pem'}",
        markup=False,
    )
    run.console.print(
        f"Look at it in a browser: zegel consortium serve --home {run.consortium}  (or the demo with --keep-running)",
        markup=False,
    )


def _found(run: Demo) -> str:
    fed_learn_port, admin_port = _free_ports(2)
    founded = run.zegel(
        *("consortium", "init", NAME, "--home", run.consortium, "--organisation", "consortium_bureau"),
        *("--fed-learn-port", str(fed_learn_port), "--admin-port", str(admin_port)),
        *("--passphrase-file", run.secrets / "root"),
    )
    fingerprint = str(founded["root_fingerprint"])
    run.console.print(
        f"[bold]1[/]  {NAME} is founded. Root {fingerprint[:19]}…, its key encrypted; the audit log begins."
    )
    run.side_by_side(lambda who: _enrol(run, who), FOUNDERS)
    run.side_by_side(lambda who: _enrol(run, who, agreed=True), [who for who in PEOPLE if who not in FOUNDERS])
    return fingerprint


def _enrol(run: Demo, who: str, *, agreed: bool = False) -> None:
    name, organisation, role = PEOPLE[who]
    folder = run.workspace / "people" / who
    asked = run.zegel(
        *("person", "request", folder, "--name", name, "--organisation", organisation, "--role", role),
        *("--passphrase-file", run.secrets / who),
    )
    _approve(run, asked, folder / "person.crt", agreed=agreed)


def _approve(run: Demo, asked: dict[str, Any], reply: Path, *, agreed: bool) -> None:
    """Answer a request whose fingerprint the requester read out; two people agree first, once there are two."""
    for who in FOUNDERS if agreed else ():
        run.zegel(
            *("consortium", "decide", asked["request"], "--fingerprint", asked["fingerprint"]),
            *("--home", run.consortium),
            *("--as", run.workspace / "people" / who, "--passphrase-file", run.secrets / who),
        )
    run.zegel(
        *("consortium", "approve", asked["request"], "--fingerprint", asked["fingerprint"], "--out", reply),
        *("--home", run.consortium, "--passphrase-file", run.secrets / "root"),
    )


def _sample(run: Demo, names: Sequence[str]) -> None:
    run.zegel(
        *("sample", "--out", run.workspace / "letters", "--hospitals", str(len(names))),
        *("--admissions", str(run.admissions), "--seed", str(run.seed)),
    )


def _join(run: Demo, name: str, fingerprint: str) -> tuple[str, dict[str, Any]]:
    home = run.site(name)
    asked = run.zegel(
        *("site", "request", "--home", home, "--name", name, "--organisation", name.replace("-", "_")),
        *("--consortium", NAME),
    )
    reply = home / f"{name}.signed.zip"
    _approve(run, asked, reply, agreed=True)
    run.zegel("site", "install", reply, "--home", home, "--fingerprint", fingerprint)
    imported = run.zegel("site", "import", run.workspace / "letters" / name, "--home", home)
    budget = max(12.0, 1.5 * run.epsilon)  # what the officer allows; the plan must fit
    for cohort in ("training", "validation"):
        run.zegel(
            *(
                "site",
                "budget",
                "set",
                cohort,
                "--epsilon",
                str(budget),
                "--delta",
                str(DELTA),
                "--yes",
                "--home",
                home,
            ),
            *("--officer", f"Officer of {name}", "--reason", "demo"),
        )
    statement = home / "manifest.statement.json"
    run.zegel("site", "manifest", statement, "--home", home)
    run.zegel("consortium", "manifest", statement, "--home", run.consortium)
    return asked["fingerprint"], imported["manifest"]


def _connect(run: Demo, names: Sequence[str]) -> None:
    run.running.append(["consortium", "stop", "--home", str(run.consortium)])
    server = run.zegel("consortium", "start", "--home", run.consortium)
    run.console.print(
        f"[bold]3[/]  The server listens on port {server['fed_learn_port']} (mutual TLS); hospitals connect, each in "
        "its own process."
    )
    for name in names:
        run.running.append(["site", "stop", "--home", str(run.site(name))])
    # Nobody waits here: plan and gates are made while hospitals connect, and the run waits for them.
    run.side_by_side(lambda name: run.zegel("site", "start", "--home", run.site(name), "--wait", "0"), names)


def _gates(run: Demo) -> None:
    """What a version must reach is fixed before anybody knows what it reaches."""
    run.zegel(
        *("release", "gates", "--home", run.consortium, "--reason", "as the demo's people agreed"),
        *("--gate", f"epsilon<={run.epsilon:g}", "--gate", "hit@1@every-site>=0.1"),
        *("--as", run.workspace / "people" / "manager", "--passphrase-file", run.secrets / "manager"),
    )


def _plan(run: Demo, trainers: Sequence[str], evaluator: str) -> str:
    sites = [argument for name in trainers for argument in ("--site", name)]
    proposed = run.zegel(
        *(
            "plan",
            "propose",
            "demo",
            "--home",
            run.consortium,
            "--labels",
            run.workspace / "letters" / "labels.txt",
        ),
        *(*sites, "--evaluate", evaluator, "--epsilon", str(run.epsilon), "--delta", str(DELTA)),
        *("--as", run.workspace / "people" / "admin", "--passphrase-file", run.secrets / "admin"),
    )
    plan_hash = str(proposed["plan_hash"])
    shown = run.zegel("plan", "show", plan_hash, "--home", run.consortium)
    plan, forecast = shown["plan"], shown["forecast"]
    run.zegel(
        *("plan", "approve", plan_hash, "--home", run.consortium, "--reason", "the forecast fits our DPIA"),
        *("--as", run.workspace / "people" / "officer", "--passphrase-file", run.secrets / "officer"),
    )
    run.console.print(
        f"[bold]4[/]  Plan {plan_hash[:19]}… proposed by {PEOPLE['admin'][0]}, approved by {PEOPLE['officer'][0]}: "
        f"{plan['rounds']} steps, {len(plan['label_space'])} codes, noise {plan['noise_multiplier']:g}, "
        f"epsilon {forecast['against_server']:.2f} (delta {plan['delta']:g}, per patient)."
    )
    return plan_hash


def _train(run: Demo, plan_hash: str) -> dict[str, Any]:
    run.console.print("[bold]5[/]  Training: clipped per patient, noised at every hospital, summed under masks.")
    bar = Progress(
        TextColumn("   {task.description}"), BarColumn(bar_width=30), TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(), console=run.console,
    )  # fmt: skip
    with bar:
        task = bar.add_task("waiting for hospitals", total=None, note="")

        def tell(step: dict[str, Any]) -> None:
            if "stage" not in step:
                return
            if "participants" not in step:  # the run goes on after its job died
                run.console.print(f"   {step['stage']}: {step.get('reason', '')}", markup=False)
                return
            hospitals = len(step["participants"])
            note = f"round {step['round']}/{step['rounds']}  epsilon {step['epsilon']:.2f}  {hospitals} hospitals"
            bar.update(task, description=step["stage"], total=step["rounds"], completed=step["round"], note=note)
            if not run.console.is_terminal and step["round"] and step["stage"] == "training":
                run.console.print(f"   {note}  {step['round_seconds']:.2f} s")

        return run.zegel("run", "start", plan_hash, "--home", run.consortium, each_line=tell)


def _compare(run: Demo, names: Sequence[str], trainers: Sequence[str]) -> dict[str, Any]:
    """Models that privacy would not allow, for comparison; possible here because all letters are synthetic."""
    return run.zegel(
        *("benchmark", "homes", "--labels", run.workspace / "letters" / "labels.txt"),
        *(argument for name in trainers for argument in ("--train", str(run.site(name)))),
        *(argument for name in names for argument in ("--evaluate", str(run.site(name)))),
    )


def _release(run: Demo, run_id: str) -> Path:
    from admin_api.demo_notes import demo_notes

    notes = run.workspace / "release-notes.json"
    notes.write_bytes(demo_notes(datetime.now(UTC).date()).to_bytes())
    run.zegel(
        *("release", "propose", RELEASE, "--run", run_id, "--home", run.consortium, "--notes", notes),
        *("--as", run.workspace / "people" / "admin", "--passphrase-file", run.secrets / "admin"),
    )
    for who in ("manager", "officer"):
        run.zegel(
            *("release", "approve", RELEASE, "--home", run.consortium, "--reason", "gates passed"),
            *("--as", run.workspace / "people" / who, "--passphrase-file", run.secrets / who),
        )
    dossier = run.workspace / f"{RELEASE}.dossier"
    run.zegel("release", "certify", RELEASE, "--home", run.consortium, "--out", dossier)
    run.console.print(
        f"[bold]6[/]  Release {RELEASE} approved by {PEOPLE['manager'][0]} and {PEOPLE['officer'][0]}, certified, "
        "its evidence in one file."
    )
    return dossier


def _verify(run: Demo, dossier: Path) -> dict[str, Any]:
    root = run.consortium / "ca" / "rootCA.pem"
    began = time.monotonic()
    report = run.zegel("verify", dossier, "--root", root)
    seconds = time.monotonic() - began
    checks = len(report["checks"])
    run.console.print(f"[bold]7[/]  zegel verify, offline: all {checks} checks hold ({seconds:.2f} s with start-up).")
    return report


def _show(run: Demo, names: Sequence[str], evaluator: str, report: dict[str, Any], comparison: dict[str, Any]) -> None:
    """One row per hospital: what it brought, what it spent, how the release does on its test patients."""
    metrics = {item["site"]: item["values"] for item in report["trace"]["metrics"]}
    table = Table(box=None, padding=(0, 1), title_justify="left", title_style="bold")
    table.title = f"Release {RELEASE} on each hospital's own test patients"
    for column in ("hospital", "rows", "eps", "hit@1", "hit@3", "cover", "pooled", "alone"):
        table.add_column(column, justify="left" if column == "hospital" else "right", no_wrap=True)
    for name in names:
        values, plain = metrics[name], comparison["sites"][name]
        table.add_row(
            name + (" *" if name == evaluator else ""),
            str(comparison["admissions"][name]),
            "0" if name == evaluator else f"{report['trace']['epsilon']:.1f}",
            *(_interval(values[metric]) for metric in ("hit@1", "hit@3", "coverage")),
            _short(plain["pooled"]),
            "-" if name == evaluator else _short(plain["alone"]),
        )
    run.console.print()
    run.console.print(table)
    run.console.print(
        "* evaluates only: its records trained nothing. eps: privacy loss per training patient. hit@1, hit@3, cover:\n"
        "reported under noise, with 95% intervals; cover is the share that could be coded automatically at 90%\n"
        "precision. pooled, alone: hit@1 of models without privacy, on all training hospitals' letters together and\n"
        "on this hospital's alone; possible only because these letters are synthetic.",
        markup=False,
        soft_wrap=True,
    )


def _interval(value: dict[str, Any]) -> str:
    return f"{_short(value['value'])} {_short(value['lower'])}-{_short(value['upper'])}"


def _short(share: float) -> str:
    """Two decimals without the leading zero, as shares are read in tables."""
    return f"{share:.2f}".removeprefix("0")


def _serve_pages(run: Demo, console: Console) -> int:
    """Leave the pages running over the demo's results, and say how to get in. Returns: the demo's exit code."""
    from admin_api.demo_pages import start_pages
    from admin_api.errors import WebError

    name, organisation, role = PEOPLE["admin"]
    (port,) = _free_ports(1)
    try:
        url = start_pages(run.workspace, run.consortium, port=port)
    except WebError as error:
        console.print(f"zegel demo: {error}", style="red", markup=False)
        return 1
    enrol = f"zegel consortium enrol '{name}' --role {role} --organisation {organisation} --home {run.consortium}"
    console.print(f"The pages, with these results: {url}", markup=False)
    console.print(f"Get in: ZEGEL_PUBLIC_URL={url} {enrol}", markup=False, soft_wrap=True)
    return 0


def _free_ports(count: int) -> list[int]:
    """Ports nobody listens on now; all held open until all are chosen, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _end(child: subprocess.Popen[str]) -> None:
    """End a command, unless it has ended, and wait until it is gone."""
    if child.poll() is None:
        child.terminate()
    try:
        child.wait(timeout=COMMAND_GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C and SIGTERM both end the demo in order, also where it was started with interrupts ignored."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
