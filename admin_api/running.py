"""Starting an approved plan and watching it: submit the job, follow the coordinator's progress, report its end."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from admin_api.errors import ApprovalError
from audit.certificates import SERVER, load_certificate, verify_certificate
from audit.entry import PLAN_PROPOSED
from audit.errors import AuditError
from audit.evidence import Evidence
from audit.release import DEFAULT_POLICY, check_approvals
from jobs.errors import FederationError, RunAborted
from jobs.federation import kit as kits
from jobs.federation import process
from jobs.federation.job import write_job
from jobs.federation.session import Session, open_session, wait_for_sites
from jobs.home import ConsortiumHome
from jobs.records import announced_manifests, load_plan, read_progress, read_result

POLL_S = 0.25
DEAD_JOB_GRACE_S = 10.0  # NVFlare's word that a job ended may come before the coordinator's result file


@dataclass(frozen=True)
class Started:
    """A run that was handed to the server."""

    run_id: str
    job_id: str


def start_server(home: ConsortiumHome) -> process.Process:
    """Start the federation's server.

    Raises: ProvisioningError for a loosened kit, FederationError when its certificate is not valid now or it already
    runs.
    """
    kits.check_hardened(home.server_kit, classes=kits.SERVER_CLASSES)
    try:
        certificate = load_certificate((home.server_kit / "startup" / "server.crt").read_bytes())
        verify_certificate(certificate, home.root(), at=home.clock(), roles=frozenset({SERVER}))
    except AuditError as error:
        raise FederationError(f"the server does not start: {error}") from None
    command = process.server_command(home.server_kit, organisation=home.config().organisation)
    return process.start(command, workspace=home.server_kit)


def new_run_id(home: ConsortiumHome) -> str:
    """A fresh run id: `run-<UTC compact time>-<6 hex>`."""
    return f"run-{home.clock():%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def check_approved(home: ConsortiumHome, plan_hash: str) -> None:
    """Raises ApprovalError unless the plan's approvals suffice; hospitals check again for themselves."""
    try:
        with home.log() as log:
            evidence = Evidence(log.entries(), home.root())
            proposed = evidence.only(PLAN_PROPOSED, f"plan {plan_hash}", plan_hash=plan_hash)
            check_approvals(
                f"plan {plan_hash}",
                evidence.approvals("plan", plan_hash, after=proposed.index, before=log.size),
                DEFAULT_POLICY.plan,
                proposer=evidence.person(proposed, proposed.body["proposer"]),
            )
    except AuditError as error:
        raise ApprovalError(f"{error}. Nothing was started.") from None


def check_announced(home: ConsortiumHome, sites: Sequence[str]) -> None:
    """Raises ApprovalError for a training hospital that has announced no data.

    Its part in the run could not be traced, so the epsilon would be spent on a version that is never released.
    """
    if missing := sorted(set(sites) - set(announced_manifests(home))):
        raise ApprovalError(
            f"no data manifest of {', '.join(missing)} is logged: they make one with `zegel site manifest`, you log it "
            "with `zegel consortium manifest`. Nothing was started."
        )


def start_run(home: ConsortiumHome, plan_hash: str, *, timeout_s: float) -> Started:
    """Submit an approved plan once all its hospitals are connected.

    Raises: PlanError, ApprovalError, FederationError; nothing was started then.
    """
    plan = load_plan(home, plan_hash)
    check_approved(home, plan_hash)
    check_announced(home, plan.sites)
    sites = tuple(sorted({*plan.sites, *plan.evaluation_sites}))
    with open_session(home, timeout_s=timeout_s) as session:
        wait_for_sites(session, sites, timeout_s=timeout_s)
        run_id = new_run_id(home)
        folder = home.run_folder(run_id)
        try:
            job = write_job(folder, run_id=run_id, plan_hash=plan_hash, sites=sites)
            return Started(run_id, session.submit(job))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)  # a run nobody has is not listed as one
            raise


def watch(
    home: ConsortiumHome, started: Started, *, tell: Callable[[dict[str, Any]], None], timeout_s: float
) -> dict[str, Any]:
    """Follow a run to its end, telling each step.

    Returns: `result.json` of a finished run. Raises: RunAborted with the reason, FederationError when the job died or
        does not end within `timeout_s`.
    """
    seen = 0
    deadline = time.monotonic() + timeout_s
    died: float | None = None
    with open_session(home, timeout_s=timeout_s) as session:
        while True:
            for line in read_progress(home, started.run_id, seen):
                seen += 1
                tell(line)
            result = read_result(home, started.run_id)
            if result is not None:
                break
            died = _died(session, started, died)
            if time.monotonic() > deadline:
                raise FederationError(f"run {started.run_id} did not end within {timeout_s:g} s; it goes on")
            time.sleep(POLL_S)
    for line in read_progress(home, started.run_id, seen):
        tell(line)
    if result["status"] != "finished":
        raise RunAborted(f"run {started.run_id} {result['status']}: {result['reason']}")
    return result


def _died(session: Session, started: Started, died: float | None) -> float | None:
    """When NVFlare first said the job is over without a result; raises once that has lasted."""
    status = session.status(started.job_id)
    if not status.startswith("FINISHED"):
        return None
    now = time.monotonic()
    if died is not None and now - died > DEAD_JOB_GRACE_S:
        raise FederationError(
            f"the job of run {started.run_id} ended ({status}) before its last round; "
            "the server's console.log says why. What was spent stays recorded at every hospital."
        )
    return now if died is None else died
