"""The consortium's account at its own server: who is connected, submit a job, end it."""

from __future__ import annotations

import contextlib
import io
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature

from audit.certificates import load_certificate
from audit.errors import AuditError
from jobs.errors import FederationError
from jobs.federation.job import JOB_NAME
from jobs.home import ConsortiumHome

# NVFlare warns of every attempt to reach a server that is away; whoever waits for one is told by our own error.
logging.getLogger("nvflare").addHandler(logging.NullHandler())

LOGIN_TIMEOUT_S = 10.0
NOT_BEGUN = "SUBMITTED"  # NVFlare's word; it goes on from these alone when its server was started again
MOST_JOBS = 100  # of the newest ones, in which a run's are looked for
GATHERING_S = 10.0  # for hospitals that come back after the first of them
HEARD_OF_WITHIN_S = 35.0  # a client reports every 10 s, and NVFlare keeps one that has died on its list for 10 minutes


class Session:
    """A logged-in session; made by `open_session`."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def connected(self) -> tuple[str, ...]:
        """Names of the hospitals that are connected and were heard of lately, sorted."""
        since = time.time() - HEARD_OF_WITHIN_S  # the account is used on the server's machine: one clock
        clients = self._session.get_system_info().client_info
        return tuple(sorted(client.name for client in clients if client.last_connect_time > since))

    def server_started(self) -> float:
        """When the server came up, in seconds since the epoch by its clock."""
        return float(self._session.get_system_info().server_info.start_time)

    def submit(self, job: Path) -> str:
        """Hand a job folder to the server; returns NVFlare's job id."""
        return str(self._session.submit_job(str(job)))

    def status(self, job_id: str) -> str:
        """NVFlare's word for where the job is, such as RUNNING or FINISHED:COMPLETED."""
        return str(self._session.get_job_meta(job_id).get("status"))

    def going_on(self, run_id: str) -> tuple[str, ...]:
        """Ids of the jobs that carry out a run and are not over."""
        jobs = self._session.list_jobs(limit=MOST_JOBS, reverse=True)
        return tuple(
            str(job["job_id"])
            for job in jobs
            if job.get("job_name") == f"{JOB_NAME} {run_id}" and not str(job.get("status")).startswith("FINISHED")
        )

    def withdraw(self, run_id: str) -> None:
        """End the jobs of a run that have not begun, so that none begins when another one carries the run out."""
        for job_id in self.going_on(run_id):
            if self.status(job_id) == NOT_BEGUN:
                self.abort(job_id)

    def abort(self, job_id: str) -> None:
        """End a job."""
        self._session.abort_job(job_id)


@contextlib.contextmanager
def open_session(home: ConsortiumHome, *, timeout_s: float) -> Iterator[Session]:
    """Log in over mutual TLS, waiting up to `timeout_s` for the server to come up.

    Raises: FederationError when it does not, and at once when the account's or the server's certificate is not valid
        now: TLS would say no more than that nobody answers.
    """
    # A wide net: NVFlare reports an unreachable server by several kinds of exception, and prints while it connects.
    from nvflare.fuel.flare_api.flare_api import new_secure_session

    account = home.config().admin_account
    check_certificates(home)
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                session = new_secure_session(account, str(home.admin_kit), timeout=LOGIN_TIMEOUT_S)
            break
        except Exception as error:  # noqa: BLE001
            if time.monotonic() > deadline:
                raise FederationError(
                    f"the server does not answer ({type(error).__name__}: {error}); "
                    "is it running? `zegel consortium status` says so"
                ) from None
            time.sleep(0.3)
    try:
        yield Session(session)
    finally:
        with contextlib.redirect_stdout(io.StringIO()):
            session.close()


def check_certificates(home: ConsortiumHome) -> None:
    """Raises FederationError when the account's or the server's certificate is not the root's, or not valid now."""
    root, now = home.root(), home.clock()
    for what, path in (
        ("the account", home.admin_kit / "startup" / "client.crt"),
        ("the server", home.server_kit / "startup" / "server.crt"),
    ):
        try:
            certificate = load_certificate(path.read_bytes())
            certificate.verify_directly_issued_by(root)
        except (OSError, AuditError, ValueError, TypeError, InvalidSignature) as error:
            reason = str(error) or "not signed by the consortium's root"
            raise FederationError(f"certificate of {what}, {path}: {reason}") from None
        first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if not first <= now <= last:
            raise FederationError(
                f"certificate of {what}: expected a time from {first} to {last}, got {now}; "
                "`zegel consortium renew-own` renews it"
            )


def wait_for_enough(session: Session, sites: tuple[str, ...], enough: int, *, timeout_s: float) -> tuple[str, ...]:
    """Wait until at least `enough` of these hospitals are connected; returns those that are.

    All of them get a few seconds first, so that hospitals that come back together are taken along together.
    Raises: FederationError naming those that are not there.
    """
    began = time.monotonic()
    while True:
        there = tuple(sorted(set(sites) & set(session.connected())))
        waited = time.monotonic() - began
        if len(there) == len(sites) or (len(there) >= enough and waited > min(GATHERING_S, timeout_s)):
            return there
        if waited > timeout_s:
            missing = ", ".join(sorted(set(sites) - set(there)))
            raise FederationError(f"not connected: {missing}; the plan needs {enough} of {len(sites)} hospitals")
        time.sleep(0.5)


def wait_for_sites(session: Session, sites: tuple[str, ...], *, timeout_s: float) -> None:
    """Wait until all these hospitals are connected. Raises FederationError naming those that are not."""
    deadline = time.monotonic() + timeout_s
    while missing := sorted(set(sites) - set(session.connected())):
        if time.monotonic() > deadline:
            raise FederationError(f"not connected: {', '.join(missing)}; start them with `zegel site start`")
        time.sleep(0.5)
