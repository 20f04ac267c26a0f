"""The desk: what is kept comes at once, what nobody waits for ends, and there is a limit to what waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from admin_api.web.plans import desk
from admin_api.web.plans.computing import kept
from admin_api.web.plans.desk import LEASE_S, MOST_WAITING, Computing, Desk, ForecastRefused
from admin_api.web.problems import Problem

PATIENCE_S = 60.0


class Clock:
    """Seconds that a test moves on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Gated:
    """A process that answers when it is let; `say` is what it says to each question."""

    def __init__(self, say: Mapping[str, list[dict[str, Any]]]) -> None:
        self.say = say
        self.question = ""
        self.go = threading.Event()
        self.begun = threading.Event()
        self.ended = False
        self._left: list[dict[str, Any]] = []

    def send(self, question: Mapping[str, Any]) -> None:
        self.question = question["name"]
        self._left = list(self.say[self.question])
        self.begun.set()

    def receive(self, timeout_s: float) -> dict[str, Any] | None:
        if not self.go.wait(0.01):
            return None
        if not self._left:
            raise EOFError
        return self._left.pop(0)

    def end(self) -> None:
        self.ended = True


class Bench:
    """A desk with such processes."""

    def __init__(self, folder: Path, say: Mapping[str, list[dict[str, Any]]]) -> None:
        self.clock = Clock()
        self.processes: list[Gated] = []
        self.say = say
        self.desk = Desk(folder, start=self._start, clock=self.clock)

    def _start(self) -> Gated:
        self.processes.append(Gated(self.say))
        return self.processes[-1]

    def first(self) -> Gated:
        for _ in range(6000):
            if self.processes and self.processes[-1].begun.is_set():
                return self.processes[-1]
            time.sleep(0.01)
        raise AssertionError("nothing was asked of any process")


def question(name: str) -> dict[str, Any]:
    return {"name": name}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    say: dict[str, list[dict[str, Any]]] = {
        "a": [{"doing": "epsilon"}, {"answer": {"epsilon": 1}}],
        "wrong": [{"error": "sites: too few"}],
        "dies": [{"doing": "epsilon"}],
    }
    say |= {f"n{number}": [{"answer": {"epsilon": number}}] for number in range(40)}
    made = Bench(tmp_path / "cache", say)
    yield made
    for process in made.processes:
        process.go.set()
    made.desk.close()


def test_an_answer_comes_when_it_is_computed(bench: Bench) -> None:
    assert isinstance(bench.desk.ask(question("a")), Computing)
    bench.first().go.set()
    assert bench.desk.ask(question("a"), wait_s=PATIENCE_S) == {"epsilon": 1}
    assert len(bench.processes) == 1


def test_a_kept_answer_needs_no_process(bench: Bench, tmp_path: Path) -> None:
    kept(tmp_path / "cache", question("a"), lambda: {"epsilon": 7})
    assert bench.desk.ask(question("a")) == {"epsilon": 7}
    assert bench.desk.kept(question("a")) == {"epsilon": 7}
    assert bench.desk.kept(question("n1")) is None
    assert bench.processes == []


def test_what_cannot_be_had_is_refused_in_its_words(bench: Bench) -> None:
    bench.desk.ask(question("wrong"))
    bench.first().go.set()
    with pytest.raises(ForecastRefused, match="sites: too few"):
        for _ in range(6000):
            bench.desk.ask(question("wrong"))
            time.sleep(0.01)
    with pytest.raises(ForecastRefused, match="sites: too few"):
        bench.desk.ask(question("wrong"))
    assert len(bench.processes) == 1


def test_a_forecast_nobody_asks_for_any_more_is_ended_halfway(bench: Bench) -> None:
    bench.desk.ask(question("a"))
    process = bench.first()
    bench.clock.now += LEASE_S + 1
    bench.desk.ask(question("n1"))
    for _ in range(6000):
        if process.ended and len(bench.processes) == 2:
            break
        time.sleep(0.01)
    assert process.ended, "its process was ended with it"
    assert bench.first().question == "n1", "and the next question has a process of its own"


def test_only_so_many_wait(bench: Bench) -> None:
    for number in range(MOST_WAITING):
        assert isinstance(bench.desk.ask(question(f"n{number}")), Computing)
    with pytest.raises(Problem) as refused:
        bench.desk.ask(question("n30"))
    assert refused.value.status == 429
    assert "Retry-After" in refused.value.headers
    bench.clock.now += LEASE_S + 1
    assert isinstance(bench.desk.ask(question("n30")), Computing), "those before it are given up"


def test_few_requests_wait_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes when enough are waiting is told at once to ask again, so that pages keep their threads."""
    monkeypatch.setattr(desk, "MOST_PATIENT", 1)
    found: list[object] = []
    waiter = threading.Thread(target=lambda: found.append(bench.desk.ask(question("a"), wait_s=PATIENCE_S)))
    waiter.start()
    process = bench.first()
    assert isinstance(bench.desk.ask(question("a"), wait_s=PATIENCE_S), Computing)
    process.go.set()
    waiter.join()
    assert found == [{"epsilon": 1}]


def test_a_process_that_dies_is_told_and_replaced(bench: Bench) -> None:
    bench.desk.ask(question("dies"))
    bench.first().go.set()
    with pytest.raises(Problem) as lost:
        bench.desk.ask(question("dies"), wait_s=PATIENCE_S)
    assert lost.value.status == 503
    bench.desk.ask(question("n2"))
    for _ in range(6000):
        if len(bench.processes) == 2:
            break
        time.sleep(0.01)
    assert bench.first().question == "n2"


def test_the_real_process_refuses_in_words_and_ends(tmp_path: Path) -> None:
    process = desk.ComputingProcess(tmp_path)
    try:
        process.send({"plan": "{}", "deltas": []})
        line = None
        for _ in range(600):
            line = process.receive(0.2)
            if line is not None:
                break
        assert line is not None
        assert "expected a plan of schema" in line["error"]
    finally:
        process.end()
