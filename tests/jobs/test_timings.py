"""Stopwatches, with a clock that the test turns; and who is told what a run's time went to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jobs.progress import Progress
from jobs.timings import REST, Stopwatch
from tests.jobs.small_federation import SITES, simulation, small_plan

torch.set_num_threads(1)


class Clock:
    """Stands still until it is turned."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def turn(self, seconds: float) -> None:
        self.now += seconds


def test_every_moment_belongs_to_one_part() -> None:
    clock = Clock()
    watch = Stopwatch(clock)
    clock.turn(1)
    with watch("outer"):
        clock.turn(2)
        with watch("inner"):
            clock.turn(4)
        clock.turn(8)
    clock.turn(16)
    with watch("inner"):
        clock.turn(32)
    assert watch.read() == {REST: 17, "outer": 10, "inner": 36}
    assert sum(watch.read().values()) == clock.now - 1000


def test_a_part_inside_itself_counts_once() -> None:
    clock = Clock()
    watch = Stopwatch(clock)
    with watch("part"):
        clock.turn(1)
        with watch("part"):
            clock.turn(2)
        clock.turn(4)
    assert watch.read() == {REST: 0, "part": 7}


def test_a_part_that_fails_has_taken_its_time() -> None:
    clock = Clock()
    watch = Stopwatch(clock)
    with pytest.raises(ValueError, match="on purpose"), watch("part"):
        clock.turn(3)
        raise ValueError("on purpose")
    clock.turn(1)
    assert watch.read() == {REST: 1, "part": 3}


def test_reading_stops_nothing() -> None:
    clock = Clock()
    watch = Stopwatch(clock)
    with watch("part"):
        clock.turn(1)
        assert watch.read() == {REST: 0, "part": 1}
        clock.turn(1)
    assert watch.read() == {REST: 0, "part": 2}


def test_a_finished_round_says_where_its_time_went(tmp_path: Path) -> None:
    steps: list[Progress] = []
    whole = simulation(tmp_path, small_plan(), progress=steps.append)
    whole.run()
    rounds = [step for step in steps if step.stage == "training" and step.round]
    assert [step.round for step in rounds] == [1, 2, 3]
    always = {
        REST,
        "who is there",
        "durable writes",
        "call round",
        "call survivors",
        "call unmask",
        "checking and adding",
        "unmasking",
        "decoding and model",
    }
    assert set(rounds[0].timings) == {*always, "call announce", "call share_keys"}
    assert set(rounds[1].timings) == set(rounds[2].timings) == always
    for step in rounds:
        assert step.round_seconds == sum(step.timings.values()) > 0
        assert step.participants == SITES
    assert all(not step.timings and not step.round_seconds for step in steps if step not in rounds)
