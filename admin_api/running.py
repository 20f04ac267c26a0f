"""Starting an approved plan and seeing it through: submit the job, follow its progress, go on when a job is lost."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from admin_api.errors import ApprovalError
from admin_api.planning import plan_policy
from admin_api.recording import read_evidence
from audit.certificates import SERVER, load_certificate, verify_certificate
from audit.durable_file import write_durably
from audit.entry import PLAN_PROPOSED, RUN_STARTED
from audit.errors import AuditError
from audit.gate_trace import gates_in_force
from audit.plan_trace import PLAN_PROPOSERS
from audit.release import check_approvals
from jobs.errors import FederationError, RunAborted
from jobs.federation import kit as kits
from jobs.federation import process
from jobs.federation.job import CALL_TIMEOUT_S, write_job
from jobs.federation.session import NOT_BEGUN, open_session, wait_for_enough, wait_for_sites
from jobs.home import ConsortiumHome
from jobs.records import (
    ENDED,
    PLAN_FILE,
    RESULT_FILE,
    announced_manifests,
    is_carried_out,
    load_plan,
    plan_of_run,
    read_progress,
    read_result,
    read_state,
    recorded_by_run,
)
from jobs.standing import read_standing

POLL_S = 0.25
DEAD_JOB_GRACE_S = 3.0  # between the end of the coordinator's process and asking NVFlare what became of the job; a
# login costs the server processor time that a job needs to start
SERVER_ANSWER_S = 20.0
SERVER_READY_S = 120.0  # from its start
MOST_TRIES = 5  # jobs in a row without one finished round


@dataclass(frozen=True)
class Started:
    """A run that was handed to the server."""

    run_id: str
    job_id: str
    told: int = 0  # lines of the run's progress that were there before
    server_started: float | None = None  # when the server that was given the job came up


def start_server(home: ConsortiumHome) -> process.Process:
    """Start the federation's server and wait until it takes part in anything.

    A hospital's client that reaches a server which listens already but is not ready yet is turned away, and ends.
    Raises: ProvisioningError for a loosened kit, FederationError when its certificate is not valid now, it already
    runs, or it does not come up.
    """
    kits.check_hardened(home.server_kit, classes=kits.SERVER_CLASSES)
    try:
        certificate = load_certificate((home.server_kit / "startup" / "server.crt").read_bytes())
        verify_certificate(certificate, home.root(), at=home.clock(), roles=frozenset({SERVER}))
    except AuditError as error:
        raise FederationError(f"the server does not start: {error}") from None
    command = process.server_command(home.server_kit, organisation=home.config().organisation)
    running = process.start(command, workspace=home.server_kit)
    deadline = time.monotonic() + SERVER_READY_S
    while True:
        try:
            with open_session(home, timeout_s=SERVER_ANSWER_S):
                return running
        except FederationError as error:
            log = home.server_kit / "console.log"
            if process.find(home.server_kit) is None:
                raise FederationError(f"the server ended as soon as it was started; {log} says why") from None
            if time.monotonic() > deadline:
                raise FederationError(f"the server was started, but {error}; its own log is {log}") from None


def new_run_id(home: ConsortiumHome) -> str:
    """A fresh run id: `run-<UTC compact time>-<6 hex>`."""
    return f"run-{home.clock():%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def check_approved(home: ConsortiumHome, plan_hash: str) -> None:
    """Raises ApprovalError unless the plan's approvals suffice; hospitals check again for themselves."""
    try:
        roles = plan_policy(home, load_plan(home, plan_hash).task).plan
        evidence = read_evidence(home)
        proposed = evidence.only(PLAN_PROPOSED, f"plan {plan_hash}", plan_hash=plan_hash)
        check_approvals(
            f"plan {plan_hash}",
            evidence.approvals("plan", plan_hash, after=proposed.index, before=evidence.size),
            roles,
            proposer=evidence.proposer(proposed, "plan", plan_hash, PLAN_PROPOSERS),
        )
    except AuditError as error:
        raise ApprovalError(f"{error}. Nothing was started.") from None


def check_gates_set(home: ConsortiumHome, task: str) -> None:
    """Raises ApprovalError when no gates are in force for a task.

    Gates set after a run has started do not judge it, so its epsilon would be spent on a version that is never
    released.
    """
    try:
        evidence = read_evidence(home)
        gates_in_force(evidence, task, before=evidence.size)
    except AuditError as error:
        raise ApprovalError(
            f"{error}: a release manager sets them with `zegel release gates`. Nothing was started."
        ) from None


def check_announced(home: ConsortiumHome, sites: Sequence[str]) -> None:
    """Raises ApprovalError for a training hospital that has announced no data.

    Its part in the run could not be traced, so the epsilon would be spent on a version that is never released.
    """
    if missing := sorted(set(sites) - set(announced_manifests(home))):
        raise ApprovalError(
            f"no data manifest of {', '.join(missing)} is logged: they make one with `zegel site manifest`, you log it "
            "with `zegel consortium manifest`. Nothing was started."
        )


def check_not_barred(home: ConsortiumHome, sites: Sequence[str]) -> None:
    """Raises ApprovalError for a hospital whose certificates are all suspended, revoked or out of time.

    The coordinator asks again before every round; here nothing is started yet.
    """
    try:
        barred = read_standing(home).barred(at=home.clock())
    except AuditError as error:
        raise ApprovalError(f"{error}. Nothing was started.") from None
    if reasons := [f"{site}: {barred[site]}" for site in sites if site in barred]:
        raise ApprovalError(f"{'; '.join(reasons)}. Nothing was started.")


def start_run(
    home: ConsortiumHome, plan_hash: str, *, timeout_s: float, call_timeout_s: float = CALL_TIMEOUT_S
) -> Started:
    """Submit an approved plan once all its hospitals are connected.

    Args:
        call_timeout_s: how long a hospital may take for one call of a round; the round goes on without it then.
    Raises: PlanError, ApprovalError, FederationError; nothing was started then.
    """
    plan = load_plan(home, plan_hash)
    check_approved(home, plan_hash)
    check_announced(home, plan.sites)
    check_gates_set(home, plan.task)
    check_not_barred(home, plan.sites)
    sites = tuple(sorted({*plan.sites, *plan.evaluation_sites}))
    with open_session(home, timeout_s=timeout_s) as session:
        wait_for_sites(session, sites, timeout_s=timeout_s)
        run_id = new_run_id(home)
        folder = home.run_folder(run_id)
        try:
            job = write_job(folder, run_id=run_id, plan_hash=plan_hash, sites=sites, call_timeout_s=call_timeout_s)
            write_durably(folder / PLAN_FILE, plan_hash.encode())
            return Started(run_id, session.submit(job), server_started=session.server_started())
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)  # a run nobody has is not listed as one
            raise


def resume_run(
    home: ConsortiumHome, run_id: str, *, timeout_s: float, call_timeout_s: float = CALL_TIMEOUT_S
) -> Started | None:
    """Hand the rest of a run to the server as a new job, with the hospitals that are connected.

    Waits up to `timeout_s` for server and enough hospitals. Returns: None when the run has ended or is being carried
    out. Raises: PlanError, ApprovalError, FederationError.
    """
    plan_hash = plan_of_run(home, run_id)
    result = read_result(home, run_id)
    if is_carried_out(home, run_id) or (result is not None and result["status"] in ENDED):
        return None
    plan = load_plan(home, plan_hash)
    check_approved(home, plan_hash)
    with open_session(home, timeout_s=timeout_s) as session:
        # The first time all of them have to join; see `Coordinator`.
        enough = plan.minimum_sites if recorded_by_run(home, run_id, RUN_STARTED) else len(plan.sites)
        there = wait_for_enough(session, plan.sites, enough, timeout_s=timeout_s)
        if is_carried_out(home, run_id):  # by a job that was taken for lost and only was slow
            return None
        session.withdraw(run_id)
        others = set(session.connected()) & set(plan.evaluation_sites)
        folder = home.run_folder(run_id)
        chosen = sorted({*there, *others})
        # One that has stopped looks connected for a while: the job must not wait for it.
        job = write_job(
            folder,
            run_id=run_id,
            plan_hash=plan_hash,
            sites=chosen,
            enough=enough,
            call_timeout_s=call_timeout_s,
        )
        (folder / RESULT_FILE).unlink(missing_ok=True)
        told = len(read_progress(home, run_id))
        return Started(run_id, session.submit(job), told=told, server_started=session.server_started())


def follow(
    home: ConsortiumHome,
    started: Started,
    *,
    tell: Callable[[dict[str, Any]], None],
    timeout_s: float,
    patience_s: float,
    call_timeout_s: float = CALL_TIMEOUT_S,
) -> dict[str, Any]:
    """Follow a run to its end, and go on with it as a new job whenever its job is lost.

    Args:
        patience_s: how long without a finished round, while jobs are lost, until this gives up; the run can still be
            gone on with.
    Returns: `result.json` of a finished run. Raises: RunAborted with the reason, FederationError when the run does not
        go on or does not end within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    watcher = _Watcher(home, started, tell)
    moved = time.monotonic()
    finished = _finished_rounds(home, started.run_id)
    tries = 0
    while True:
        reason = watcher.watch(deadline)
        if reason is None:
            return watcher.result()
        if (now := _finished_rounds(home, started.run_id)) > finished:
            finished, moved, tries = now, time.monotonic(), 0
        tries += 1
        left = patience_s - (time.monotonic() - moved)
        if left <= 0 or tries > MOST_TRIES:
            raise FederationError(
                f"run {started.run_id} does not go on: {reason}. It is kept after round {finished}; "
                f"`zegel run resume {started.run_id}` goes on with it."
            )
        tell({"stage": "resuming", "round": finished, "reason": reason})
        again = resume_run(home, started.run_id, timeout_s=left, call_timeout_s=call_timeout_s)
        if again is not None:
            watcher.take_up(again)


class _Watcher:
    """Tells a run's steps and notices how its job ends. A server that does not answer may be restarting: it waits."""

    def __init__(self, home: ConsortiumHome, started: Started, tell: Callable[[dict[str, Any]], None]) -> None:
        self._home = home
        self._run_id = started.run_id
        self._tell = tell
        self._seen = started.told
        self._job = started

    def take_up(self, job: Started) -> None:
        """Watch the run's next job."""
        self._job = job

    def watch(self, deadline: float) -> str | None:
        """Follow the current job. Returns: None when the run has ended, else why its job was lost."""
        quiet = time.monotonic()  # since nobody carries out the run, or since NVFlare said that somebody will
        while True:
            self._tell_new()
            result = read_result(self._home, self._run_id)
            if result is not None:
                self._tell_new()
                return None if result["status"] in ENDED else f"{result['status']}: {result['reason']}"
            now = time.monotonic()
            if now > deadline:
                raise FederationError(f"run {self._run_id} did not end in time; it goes on")
            if is_carried_out(self._home, self._run_id):
                quiet = now
            elif now - quiet > DEAD_JOB_GRACE_S:
                if (reason := self._job_over()) is not None:
                    return reason
                quiet = time.monotonic()
            time.sleep(POLL_S)

    def result(self) -> dict[str, Any]:
        """How the run ended; raises RunAborted unless it finished."""
        result = read_result(self._home, self._run_id)
        if result is None or result["status"] != "finished":
            status, reason = ("lost", "no result") if result is None else (result["status"], result["reason"])
            raise RunAborted(f"run {self._run_id} {status}: {reason}")
        return result

    def _tell_new(self) -> None:
        for line in read_progress(self._home, self._run_id, self._seen):
            self._seen += 1
            self._tell(line)

    def _job_over(self) -> str | None:
        """Why no process carries the run out and none will; None while the server is still starting the job."""
        try:
            with open_session(self._home, timeout_s=SERVER_ANSWER_S) as session:
                status = session.status(self._job.job_id)
                restarted = session.server_started() != self._job.server_started
        except FederationError as error:
            return f"the server is gone ({error})"
        except Exception as error:  # noqa: BLE001  a restarted server does not know the job, in NVFlare's own words
            return f"the server does not know the job any more ({type(error).__name__})"
        if restarted and status != NOT_BEGUN:
            return f"the server was started again; it takes the job for {status.lower()}"
        return f"the job ended ({status})" if status.startswith("FINISHED") else None


def _finished_rounds(home: ConsortiumHome, run_id: str) -> int:
    state = read_state(home, run_id)
    return 0 if state is None else state.finished
