"""Presence: which hospitals the server heard of, when first and when last, in one small file beside its kit.

The server's door asks NVFlare every few seconds for the hospitals' heartbeats and notes them here; pages read the file,
so nobody has to log in to the server to show who is connected.

Invariants:
- nothing is decided by it: who may take part, the log decides (`jobs.standing`);
- the file is replaced in one step, so a reader never sees half of it;
- a hospital that was heard of once stays in it, also over restarts of the server.

Hospitals' names and times are no personal data.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from audit.canonical import canonical_json, format_time, parse_json_object, parse_time
from audit.durable_file import write_durably
from audit.errors import CanonicalError
from jobs.errors import FederationError
from jobs.home import ConsortiumHome

SCHEMA = "zegel/presence/v1"
NOTED_EVERY = timedelta(seconds=30)  # so that heartbeats do not become writes
CONNECTED_WITHIN = timedelta(seconds=90)  # of now, when the server runs: three notes

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Seen:
    """When the server first and last heard of a hospital."""

    first: datetime
    last: datetime

    def connected(self, now: datetime) -> bool:
        """Whether it was heard of just now."""
        return now - self.last <= CONNECTED_WITHIN


def presence_path(home: ConsortiumHome) -> Path:
    """The file, in the folder of the server."""
    return home.server_kit.parent / "presence.json"


def read_presence(home: ConsortiumHome) -> dict[str, Seen]:
    """Every hospital the server heard of; empty before it ever ran. Raises FederationError for a damaged file."""
    return _read(presence_path(home))


class PresenceNotes:
    """Keeps the file as the server's heartbeats have it. One process writes: the server."""

    def __init__(self, path: Path, clock: Callable[[], datetime]) -> None:
        self._path = path
        self._clock = clock
        try:
            self._noted = _read(path)
        except FederationError as error:
            _LOG.error("noting from the start: %s", error)
            self._noted = {}

    def note(self, heard: Mapping[str, datetime]) -> bool:
        """Take note of when each connected hospital was last heard of. Returns: whether the file was written.

        A clock that was put back moves nothing back. Raises OSError when the file cannot be written.
        """
        now = self._clock()
        changed = dict(self._noted)
        for name, moment in heard.items():
            last = min(moment, now).replace(microsecond=0)
            before = self._noted.get(name)
            if before is None:
                changed[name] = Seen(last, last)
            elif last - before.last >= NOTED_EVERY:
                changed[name] = Seen(before.first, last)
        if changed == self._noted:
            return False
        sites = {
            name: {"first": format_time(seen.first), "last": format_time(seen.last)} for name, seen in changed.items()
        }
        write_durably(self._path, canonical_json({"schema": SCHEMA, "sites": sites}))
        self._noted = changed
        return True


def _read(path: Path) -> dict[str, Seen]:
    try:
        value = parse_json_object(path.read_bytes(), str(path))
        if value.get("schema") != SCHEMA:
            raise FederationError(f"{path}: expected schema {SCHEMA}, got {json.dumps(value.get('schema'))}")
        return {
            name: Seen(parse_time(seen["first"], f"{name}: first"), parse_time(seen["last"], f"{name}: last"))
            for name, seen in value["sites"].items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, CanonicalError, KeyError, TypeError, AttributeError) as error:
        raise FederationError(f"{path} cannot be read: {error}; it is written anew when the server starts") from None
