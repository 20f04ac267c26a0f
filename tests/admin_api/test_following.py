"""Following a run: how it is seen that its job is lost, and what a slow server is not taken for."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from admin_api import running
from admin_api.running import Started, follow
from jobs.errors import FederationError, RunAborted
from jobs.home import ConsortiumHome
from jobs.records import RESULT_FILE

RUN = "run-20261122T050000Z-abcdef"
UP_SINCE = 100.0  # the server that was given the job


class Server:
    """The server's answers about a job, the last one repeated; an answer is a status and the server's start."""

    def __init__(self, *answers: tuple[str, float] | Exception) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []
        self.then: Callable[[], None] = lambda: None

    def status(self, job_id: str) -> str:
        self.asked.append(job_id)
        answer = self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer[0]

    def server_started(self) -> float:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if len(self._answers) == 1:
            self.then()
        assert not isinstance(answer, Exception)
        return answer[1]


@pytest.fixture
def home(tmp_path: Path) -> ConsortiumHome:
    home = ConsortiumHome(tmp_path)
    home.run_folder(RUN).mkdir(parents=True)
    return home


def ends(home: ConsortiumHome, status: str = "finished") -> None:
    result = {"status": status, "reason": "so", "version": "sha256:0", "rounds": 3}
    (home.run_folder(RUN) / RESULT_FILE).write_text(json.dumps(result), encoding="utf-8")


def followed(home: ConsortiumHome, server: Server, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Follow a run whose next job, if there has to be one, finishes it at once; what was told."""

    @contextlib.contextmanager
    def open_session(*_: object, **__: object) -> Iterator[Server]:
        yield server

    def resume(*_: object, **__: object) -> Started:
        ends(home)
        return Started(RUN, "second", server_started=UP_SINCE)

    monkeypatch.setattr(running, "open_session", open_session)
    monkeypatch.setattr(running, "resume_run", resume)
    monkeypatch.setattr(running, "POLL_S", 0.0)
    monkeypatch.setattr(running, "DEAD_JOB_GRACE_S", 0.0)
    told: list[dict[str, Any]] = []
    started = Started(RUN, "first", server_started=UP_SINCE)
    result = follow(home, started, tell=told.append, timeout_s=60, patience_s=60)
    assert result["status"] == "finished"
    return told


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (("FINISHED:EXECUTION_EXCEPTION", UP_SINCE), "the job ended (FINISHED:EXECUTION_EXCEPTION)"),
        (("RUNNING", UP_SINCE + 1), "the server was started again; it takes the job for running"),
        (("DISPATCHED", UP_SINCE + 1), "the server was started again; it takes the job for dispatched"),
        (FederationError("nobody answers"), "the server is gone (nobody answers)"),
        (RuntimeError("no such job"), "the server does not know the job any more (RuntimeError)"),
    ],
)
def test_a_job_that_is_lost_is_followed_by_another(
    home: ConsortiumHome, monkeypatch: pytest.MonkeyPatch, answer: tuple[str, float] | Exception, reason: str
) -> None:
    told = followed(home, Server(answer), monkeypatch)
    assert told == [{"stage": "resuming", "round": 0, "reason": reason}]


@pytest.mark.parametrize(
    "answer",
    [("SUBMITTED", UP_SINCE), ("RUNNING", UP_SINCE), ("SUBMITTED", UP_SINCE + 1)],
    ids=["waits", "starts", "waits at a server that was started again"],
)
def test_a_job_that_only_takes_its_time_is_waited_for(
    home: ConsortiumHome, monkeypatch: pytest.MonkeyPatch, answer: tuple[str, float]
) -> None:
    server = Server(answer, answer, answer)
    server.then = lambda: ends(home)
    assert followed(home, server, monkeypatch) == []
    assert set(server.asked) == {"first"}
    assert len(server.asked) > 1


def test_a_run_that_was_aborted_is_not_gone_on_with(home: ConsortiumHome, monkeypatch: pytest.MonkeyPatch) -> None:
    ends(home, "aborted")
    with pytest.raises(RunAborted, match=f"run {RUN} aborted: so"):
        followed(home, Server(("RUNNING", UP_SINCE)), monkeypatch)
