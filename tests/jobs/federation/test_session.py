"""The consortium's account at its server: who counts as connected, and which jobs are withdrawn."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.errors import FederationError
from jobs.federation import session as sessions
from jobs.federation.job import JOB_NAME
from jobs.federation.session import HEARD_OF_WITHIN_S, Session, wait_for_enough, wait_for_sites

THREE = ("amstel", "berkel", "geul")


class Account:
    """The part of NVFlare's session that ours asks."""

    def __init__(self) -> None:
        self.heard: dict[str, float] = {}  # seconds ago
        self.jobs: dict[str, tuple[str, str]] = {}  # name and status
        self.aborted: list[str] = []

    def get_system_info(self) -> Any:
        now = time.time()
        clients = [SimpleNamespace(name=name, last_connect_time=now - ago) for name, ago in self.heard.items()]
        return SimpleNamespace(client_info=clients, server_info=SimpleNamespace(start_time=12.5))

    def list_jobs(self, *, limit: int, reverse: bool) -> list[dict[str, str]]:
        return [{"job_id": job, "job_name": name, "status": status} for job, (name, status) in self.jobs.items()]

    def get_job_meta(self, job_id: str) -> dict[str, str]:
        return {"status": self.jobs[job_id][1]}

    def abort_job(self, job_id: str) -> None:
        self.aborted.append(job_id)


@pytest.fixture
def account() -> Account:
    return Account()


def test_who_was_not_heard_of_lately_is_not_connected(account: Account) -> None:
    account.heard = {"geul": 0, "amstel": HEARD_OF_WITHIN_S / 2, "berkel": HEARD_OF_WITHIN_S * 2}
    assert Session(account).connected() == ("amstel", "geul")


def test_a_job_that_has_not_begun_is_withdrawn(account: Account) -> None:
    run, other = f"{JOB_NAME} run-1", f"{JOB_NAME} run-2"
    account.jobs = {
        "waits": (run, "SUBMITTED"),
        "runs": (run, "RUNNING"),
        "ended": (run, "FINISHED:COMPLETED"),
        "another's": (other, "SUBMITTED"),
    }
    Session(account).withdraw("run-1")
    assert account.aborted == ["waits"]


def test_the_servers_start_is_told(account: Account) -> None:
    assert Session(account).server_started() == 12.5


def test_all_are_waited_for(account: Account) -> None:
    account.heard = dict.fromkeys(THREE, 0.0)
    wait_for_sites(Session(account), THREE, timeout_s=0)
    account.heard["geul"] = HEARD_OF_WITHIN_S * 2
    with pytest.raises(FederationError, match=r"not connected: geul; start them with `zegel site start`"):
        wait_for_sites(Session(account), THREE, timeout_s=0)


def test_enough_are_taken_after_the_others_had_their_time(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "GATHERING_S", 0.0)
    account.heard = {"amstel": 0.0, "berkel": 0.0}
    assert wait_for_enough(Session(account), THREE, 2, timeout_s=60) == ("amstel", "berkel")
    with pytest.raises(FederationError, match="not connected: geul; the plan needs 3 of 3 hospitals"):
        wait_for_enough(Session(account), THREE, 3, timeout_s=0)
