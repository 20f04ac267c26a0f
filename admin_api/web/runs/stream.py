"""A run as a stream of server-sent events, from the files that its coordinator writes.

    id: 12                     how many of the run's steps the receiver has then; sent back as Last-Event-ID
    event: step                one line of the run's progress, as JSON
    event: values, html        for pages: figures by name, and blocks by element id
    event: state               {"word": "running"} whenever it changes
    event: done                the run is over or stopped; the stream ends

Invariants:
- Whoever reconnects with the last id misses no step and gets none twice.
- A comment at least every `HEARTBEAT_S` keeps proxies from closing the stream, and shows a lost connection.
- A stream ends after `LONGEST_S`, so that its receiver, who comes back by itself, is signed in still.

Source: HTML Living Standard, section 9.2 (server-sent events).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

LOOK_S = 0.5
HEARTBEAT_S = 15.0
LONGEST_S = 600.0
RETRY_MS = 2000
OVER = frozenset({"finished", "aborted", "failed", "stopped"})


class Source(Protocol):
    """What is streamed; each call may take a few milliseconds and runs outside the event loop."""

    def mark(self) -> object:
        """Differs when anything has changed; cheap."""

    def steps(self, since: int) -> Sequence[Mapping[str, Any]]:
        """The run's steps after the first `since`."""

    def state(self) -> str:
        """A state of `RunLine`."""

    def blocks(self) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """The page's values by name and blocks by element id; empty for programs."""


Sleep = Callable[[float], Awaitable[None]]
InThread = Callable[[Callable[[], Any]], Awaitable[Any]]


async def stream(
    source: Source,
    *,
    after: int,
    in_thread: InThread,
    sleep: Sleep = asyncio.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[bytes]:
    """The events after the first `after` steps, until the run is over."""
    began = told = clock()
    mark: object = None
    state = ""
    yield f"retry: {RETRY_MS}\n\n".encode()
    while clock() - began < LONGEST_S:
        now = await in_thread(source.mark)
        if now != mark:
            mark = now
            # The state first: a step that is written after it was read belongs to the next look.
            word = await in_thread(source.state)
            for step in await in_thread(lambda after=after: source.steps(after)):  # type: ignore[misc]
                after += 1
                yield event("step", dict(step), after)
            values, blocks = await in_thread(source.blocks)
            if values:
                yield event("values", dict(values), after)
            if blocks:
                yield event("html", dict(blocks), after)
            if word != state:
                state = word
                yield event("state", {"word": word}, after)
            told = clock()
            if state in OVER:
                yield event("done", {"word": state}, after)
                return
        elif clock() - told >= HEARTBEAT_S:
            told = clock()
            yield b": still here\n\n"
        await sleep(LOOK_S)


def event(name: str, value: Mapping[str, Any], number: int) -> bytes:
    """One event; JSON has no line breaks of its own."""
    return f"id: {number}\nevent: {name}\ndata: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


def first_missing(header: str | None, query: int | None) -> int:
    """After how many steps a receiver goes on: what it has seen, else what it asks for, else from the beginning."""
    if header is not None and header.isdecimal() and len(header) < 10:
        return int(header)
    return query or 0
