"""A run as server-sent events: nothing missed, nothing twice, from a file that grows and over HTTP."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from admin_api.web.runs.stream import HEARTBEAT_S, LONGEST_S, first_missing, stream
from tests.admin_api.consortium_folder import RUN
from tests.admin_api.web.conftest import Web


class Growing:
    """A run in memory; a test's script changes it at each look."""

    def __init__(self, lines: int = 0, state: str = "running") -> None:
        self.lines = [{"stage": "training", "round": number} for number in range(lines)]
        self.word = state
        self.ticks = 0

    def mark(self) -> object:
        return len(self.lines), self.word

    def steps(self, since: int) -> Sequence[Mapping[str, Any]]:
        return self.lines[since:]

    def state(self) -> str:
        return self.word

    def blocks(self) -> tuple[Mapping[str, str], Mapping[str, str]]:
        return {}, {}

    def add(self) -> None:
        self.lines.append({"stage": "training", "round": len(self.lines)})


def received(
    source: Growing, *, after: int = 0, each_look: Callable[[int], None] = lambda look: None, step_s: float = 0.5
) -> list[dict[str, Any]]:
    """All events until the stream ends, its time passing by `step_s` with each look."""
    now = 0.0
    looks = 0

    async def in_thread(call: Callable[[], Any]) -> Any:
        return call()

    async def sleep(seconds: float) -> None:
        nonlocal now, looks
        now += step_s
        looks += 1
        each_look(looks)

    async def read() -> bytes:
        found = [piece async for piece in stream(source, after=after, in_thread=in_thread, sleep=sleep,
                                                 clock=lambda: now)]  # fmt: skip
        return b"".join(found)

    return parsed(asyncio.run(read()).decode())


def parsed(text: str) -> list[dict[str, Any]]:
    """Events as a browser reads them; comments count as events of their own."""
    events = []
    for block in text.split("\n\n"):
        fields = dict(re.findall(r"^(\w*): ?(.*)$", block, flags=re.MULTILINE))
        if "event" in fields:
            events.append({"id": int(fields["id"]), "event": fields["event"], "data": json.loads(fields["data"])})
        elif "" in fields:
            events.append({"event": "comment"})
    return events


def steps_of(events: Sequence[Mapping[str, Any]]) -> list[int]:
    return [event["data"]["round"] for event in events if event["event"] == "step"]


def test_a_run_that_grows_is_told_step_by_step_to_its_end() -> None:
    source = Growing(2)

    def script(look: int) -> None:
        if look in (2, 3, 7):
            source.add()
        if look == 9:
            source.add()
            source.word = "finished"

    events = received(source, each_look=script)
    assert steps_of(events) == [0, 1, 2, 3, 4, 5]
    assert [event["id"] for event in events if event["event"] == "step"] == [1, 2, 3, 4, 5, 6]
    assert [event["data"]["word"] for event in events if event["event"] == "state"] == ["running", "finished"]
    assert events[-1] == {"id": 6, "event": "done", "data": {"word": "finished"}}


@pytest.mark.parametrize("after", [0, 1, 4, 5])
def test_whoever_comes_back_misses_nothing_and_gets_nothing_twice(after: int) -> None:
    events = received(Growing(5, "finished"), after=after)
    assert steps_of(events) == list(range(after, 5))
    assert events[-1]["event"] == "done"


def test_a_stream_is_alive_when_nothing_happens_and_ends_before_the_session_does() -> None:
    looks = 0

    def count(look: int) -> None:
        nonlocal looks
        looks = look

    events = received(Growing(1), each_look=count)
    beats = sum(event["event"] == "comment" for event in events)
    assert beats >= LONGEST_S / HEARTBEAT_S - 1
    assert looks == LONGEST_S / 0.5
    assert events[-1]["event"] != "done"


@pytest.mark.parametrize(
    ("header", "query", "expected"),
    [("7", 3, 7), (None, 3, 3), (None, None, 0), ("x", 2, 2), ("-1", None, 0), ("99999999999999", None, 0)],
)
def test_where_a_receiver_goes_on(header: str | None, query: int | None, expected: int) -> None:
    assert first_missing(header, query) == expected


def test_a_real_run_over_http(office: Web) -> None:
    client = office.signed_in("privacy_officer")
    answer = client.get(f"/api/v1/runs/{RUN}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    events = parsed(answer.text)
    steps = [event["data"] for event in events if event["event"] == "step"]
    assert next(step["stage"] for step in steps) == "joining"
    assert steps[-1]["stage"] == "done"
    assert [event["event"] for event in events[-2:]] == ["state", "done"]
    again = parsed(client.get(f"/api/v1/runs/{RUN}/events", headers={"Last-Event-ID": "2"}).text)
    assert [event["data"] for event in again if event["event"] == "step"] == steps[2:]


def test_a_pages_stream_brings_its_blocks(office: Web) -> None:
    client = office.signed_in("privacy_officer")
    events = parsed(client.get(f"/api/v1/runs/{RUN}/events?view=page&after=999").text)
    by_name = {event["event"]: event["data"] for event in events}
    assert by_name["values"]["rounds"] == "3"
    assert set(by_name["html"]) == {"run-trouble", "run-rounds", "run-parts", "run-events"}
    page = client.get(f"/runs/{RUN}").text
    for name, html in by_name["html"].items():
        assert f'id="{name}"' in page
        assert "<script" not in html
    for name in by_name["values"]:
        assert f'data-live-value="{name}"' in page


def test_there_is_no_stream_of_what_is_no_run(office: Web) -> None:
    client = office.signed_in("consortium_admin")
    for name in ("run-none", "..%2fconsortium", "x@y"):
        assert client.get(f"/api/v1/runs/{name}/events").status_code in (404, 422)
    assert office.client().get(f"/api/v1/runs/{RUN}/events").status_code == 401
    assert office.signed_in("hospital_contact", hospital="amstel").get(f"/api/v1/runs/{RUN}/events").status_code == 403
