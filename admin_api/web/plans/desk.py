"""Where forecasts are asked for: an answer that is kept comes at once, another from a process that computes it.

Invariants:
- At most one forecast is computed at a time, and at most `MOST_WAITING` wait; more are refused, not queued.
- A forecast that nobody asked for within `LEASE_S` is given up: a page asks again while it waits, so when its fields
  change, what it asked before ends by itself, also halfway.
- Answers are kept on disk (`privacy.answers`), nothing but work in progress and refusals is in memory: it does not
  matter which of several processes a page asks next.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import rfc8785

from admin_api.errors import WebError
from admin_api.web.context import Workplace
from admin_api.web.plans.computing import kept
from admin_api.web.problems import Problem

MOST_WAITING = 8
MOST_REFUSED = 64
MOST_PATIENT = 6  # requests that wait for an answer at once; each holds a thread of the server
LEASE_S = 4.0  # a page asks every second while it waits
_LOOK_S = 0.2  # how often a computation is asked whether anybody still waits for it
STARTING = "starting"
CACHE = "cache"  # in the consortium's folder, shared with the command line


class ForecastRefused(WebError):
    """The terms cannot be had, in the words of whoever refused them."""


@dataclass(frozen=True)
class Computing:
    """Not there yet."""

    doing: str  # what is being computed, "" while others are before it
    seconds: float  # since it was first asked for


class Process(Protocol):
    """A process that answers questions, one at a time."""

    def send(self, question: Mapping[str, Any]) -> None:
        """Ask. Raises OSError when the process is gone."""

    def receive(self, timeout_s: float) -> dict[str, Any] | None:
        """Its next line; None when none came in time. Raises EOFError when the process is gone."""

    def end(self) -> None:
        """End it, whatever it does."""


class ComputingProcess:
    """`computing` in a process of its own."""

    def __init__(self, cache_dir: Path) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "admin_api.web.plans.computing", str(cache_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        self._buffer = b""
        self._lines: list[bytes] = []
        self._selector = selectors.DefaultSelector()
        if self._child.stdin is None or self._child.stdout is None:
            raise RuntimeError("a process with pipes has pipes")
        self._in, self._out = self._child.stdin, self._child.stdout
        self._selector.register(self._out, selectors.EVENT_READ)

    def send(self, question: Mapping[str, Any]) -> None:
        self._in.write(json.dumps(dict(question)).encode() + b"\n")
        self._in.flush()

    def receive(self, timeout_s: float) -> dict[str, Any] | None:
        if not self._lines:
            if not self._selector.select(timeout_s):
                return None
            data = os.read(self._out.fileno(), 1 << 16)
            if not data:
                raise EOFError
            *whole, self._buffer = (self._buffer + data).split(b"\n")
            self._lines += whole
            if not self._lines:
                return None
        value: dict[str, Any] = json.loads(self._lines.pop(0))
        return value

    def end(self) -> None:
        self._selector.close()
        self._child.kill()
        self._child.wait()
        for pipe in (self._in, self._out):
            try:
                pipe.close()
            except BrokenPipeError:
                continue  # what was not sent is not wanted any more


@dataclass
class _Job:
    question: dict[str, Any]
    began: float
    asked: float  # the last time anybody asked
    doing: str = ""
    answer: dict[str, Any] | None = None
    refusal: str | None = None
    over: bool = False


class Desk:
    """One consortium's desk in this process.

    Args:
        start: starts a process that computes.
        clock: seconds, for leases.
    """

    def __init__(
        self, cache_dir: Path, *, start: Callable[[], Process], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._cache_dir = cache_dir
        self._start = start
        self._clock = clock
        self._changed = threading.Condition()
        self._jobs: dict[bytes, _Job] = {}  # in the order they were asked; the first is computed
        self._refused: dict[bytes, str] = {}  # the last refusals: whoever asks in turns must not miss one
        self._process: Process | None = None
        self._thread: threading.Thread | None = None
        self._patient = 0  # requests that wait
        self._closed = False

    def kept(self, question: dict[str, Any]) -> dict[str, Any] | None:
        """The answer if it was computed before; nothing is computed."""
        try:
            return kept(self._cache_dir, question, _not_kept)
        except _NotKept:
            return None

    def ask(self, question: dict[str, Any], *, wait_s: float = 0.0) -> dict[str, Any] | Computing:
        """The answer, or how far it is after waiting for it.

        Raises: ForecastRefused; Problem 429 when too many forecasts are waiting, 503 when none can be computed.
        """
        answer = self.kept(question)
        if answer is not None:
            return answer
        key = rfc8785.dumps(question)
        with self._changed:
            if key in self._refused:
                raise ForecastRefused(self._refused[key])
            job = self._jobs.get(key)
            if job is None:
                job = self._take(key, question)
            deadline = self._clock() + (wait_s if self._patient < MOST_PATIENT else 0.0)
            self._patient += 1
            try:
                while not job.over:
                    job.asked = self._clock()
                    if job.asked >= deadline:
                        return Computing(job.doing, job.asked - job.began)
                    self._changed.wait(min(_LOOK_S, deadline - job.asked))
            finally:
                self._patient -= 1
        if job.refusal is not None:
            raise ForecastRefused(job.refusal)
        if job.answer is None:
            raise Problem(503, "forecast-lost", "No forecast", "the process that computes forecasts ended",
                          "ask again; if it stays, tell whoever runs the server", {"Retry-After": "5"})  # fmt: skip
        return job.answer

    def close(self) -> None:
        """End what is being computed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _take(self, key: bytes, question: dict[str, Any]) -> _Job:
        now = self._clock()
        if sum(1 for each in self._jobs.values() if now - each.asked <= LEASE_S) >= MOST_WAITING:
            raise Problem(429, "too-many-forecasts", "Too many forecasts at once",
                          f"{MOST_WAITING} forecasts are being computed or wait", "ask again in a minute",
                          {"Retry-After": "20"})  # fmt: skip
        job = _Job(question, began=now, asked=now)
        self._jobs[key] = job
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="forecasts", daemon=True)
            self._thread.start()
        self._changed.notify_all()
        return job

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._closed:
                    self._changed.wait()
                if self._closed:
                    break
                key, job = next(iter(self._jobs.items()))
            if self._wanted(job):
                self._compute(job)
            with self._changed:
                job.over = True
                self._jobs.pop(key, None)
                if job.refusal is not None:
                    self._refused[key] = job.refusal
                    while len(self._refused) > MOST_REFUSED:
                        self._refused.pop(next(iter(self._refused)))
                self._changed.notify_all()
        if self._process is not None:
            self._process.end()
            self._process = None

    def _compute(self, job: _Job) -> None:
        try:
            with self._changed:
                job.doing = STARTING
            if self._process is None:
                self._process = self._start()
            self._process.send(job.question)
            while True:
                line = self._process.receive(_LOOK_S)
                if line is None:
                    if self._wanted(job):
                        continue
                    break
                with self._changed:
                    job.doing = line.get("doing", job.doing)
                    job.answer = line.get("answer")
                    job.refusal = line.get("error")
                if job.answer is not None or job.refusal is not None:
                    return
        except (OSError, EOFError):
            pass  # the job is over without an answer, and whoever asked is told
        if self._process is not None:
            self._process.end()
            self._process = None

    def _wanted(self, job: _Job) -> bool:
        with self._changed:
            return not self._closed and self._clock() - job.asked <= LEASE_S


class _NotKept(Exception):
    pass


def _not_kept() -> dict[str, Any]:
    raise _NotKept


_DESKS: dict[Path, Desk] = {}
_OPENING = threading.Lock()


def desk_of(here: Workplace) -> Desk:
    """The desk of a workplace; it ends with it."""
    cache_dir = here.home.path / CACHE
    with _OPENING:
        if cache_dir not in _DESKS:
            desk = Desk(cache_dir, start=lambda: ComputingProcess(cache_dir))
            _DESKS[cache_dir] = desk
            weakref.finalize(here, _close, cache_dir)
        return _DESKS[cache_dir]


def _close(cache_dir: Path) -> None:
    with _OPENING:
        desk = _DESKS.pop(cache_dir, None)
    if desk is not None:
        desk.close()
