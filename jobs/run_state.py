"""Where a run stands: what a coordinator needs to go on after it was killed at any moment.

A coordinator writes its state durably at two points of every aggregation: before it asks hospitals for their vectors
(`announced`), and once the aggregation's result is computed (`finished`), with the log entry that is still to be
written. What a crash leaves, and what follows:

| killed | state | going on |
|---|---|---|
| before the announcement is durable | nothing of this aggregation exists | it is announced again |
| between announcement and result | announced, not finished | who answered has spent it: it is lost, and logged so |
| between result and log entry | finished, entry pending | the entry is written, then the next one is announced |
| after the log entry | finished | the next one is announced |

An aggregation that a hospital may have answered is never asked for again: two sums over different hospitals would
give away the difference.

The state is public data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from audit.canonical import canonical_json, parse_json_object
from audit.errors import CanonicalError
from jobs.errors import RunStateError

SCHEMA = "zegel/run-state/v1"


@dataclass(frozen=True, kw_only=True)
class RunState:
    """A run after some aggregations."""

    run_id: str
    plan_hash: str
    announced: int  # the last aggregation hospitals were asked for; 0 before the first
    finished: int  # the last aggregation whose result is in `version`; 0 before the first
    lost: tuple[int, ...]  # aggregations that were announced and gave no result
    version: str  # digest of the model after `finished`, an artifact
    optimiser: str | None  # digest of the optimiser's state, an artifact; None where there is none
    participants: tuple[str, ...]  # of the last finished aggregation
    log_size: int  # of the audit log when this was written
    pending: Mapping[str, Any] | None  # the log entry of `finished`, not yet known to be logged: kind and body

    def __post_init__(self) -> None:
        if not 0 <= self.finished <= self.announced:
            raise RunStateError(f"run state: finished {self.finished} and announced {self.announced} do not fit")
        if any(not 1 <= number <= self.announced for number in self.lost) or len(set(self.lost)) != len(self.lost):
            raise RunStateError(f"run state: lost aggregations {list(self.lost)} do not fit")

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return canonical_json({"schema": SCHEMA, **asdict(self)})

    @classmethod
    def from_bytes(cls, data: bytes) -> RunState:
        """Read it back. Raises RunStateError for anything `to_bytes` does not write."""
        try:
            value = parse_json_object(data, "run state")
        except CanonicalError as error:
            raise RunStateError(str(error)) from None
        if value.pop("schema", None) != SCHEMA or set(value) != {field.name for field in fields(cls)}:
            raise RunStateError(f"run state: expected the fields of {SCHEMA}")
        try:
            return cls(**{**value, "lost": tuple(value["lost"]), "participants": tuple(value["participants"])})
        except TypeError as error:
            raise RunStateError(f"run state: {error}") from None
