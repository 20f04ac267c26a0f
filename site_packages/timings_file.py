"""How long the calls of the run in hand took here, one line of JSON each, for whoever wonders why a round is slow.

It never leaves the hospital: how long its work takes tells a little about how many patients were sampled. The file
starts anew when the hospital joins a run.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from jobs.timings import TimedCall

_LOG = logging.getLogger(__name__)


class TimingsFile:
    """Writes down calls as they were timed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, call: TimedCall) -> None:
        """Append a call. A disk that takes no more costs the timing, not the round."""
        seconds = {part: round(each, 5) for part, each in call.seconds.items()}
        line = json.dumps({"method": call.method, "round": call.round, "seconds": seconds}) + "\n"
        kind = os.O_TRUNC if call.method == "join" else os.O_APPEND
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | kind, 0o600)
            try:
                os.write(handle, line.encode())
            finally:
                os.close(handle)
        except OSError as error:
            _LOG.warning("%s cannot be written: %s", self._path, error)


def read_timings(path: Path) -> list[TimedCall]:
    """The calls of the last run, in order; none if there was no run yet."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [TimedCall(**json.loads(line)) for line in lines]
