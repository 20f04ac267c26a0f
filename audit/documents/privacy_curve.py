"""The privacy curve: epsilon after each round of the run, as the accountant gives it.

Computed when the release is proposed. A verifier has no accountant: it checks that the curve belongs to the run, never
falls, and ends within the run's epsilon (a plan may state more than its events cost). The accountant's grid for a
curve is coarser than for the final figure, hence the tolerance.

All fields are public.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from audit import schema
from audit.canonical import canonical_json, parse_json_object
from audit.errors import CanonicalError, DocumentError, EntryError
from audit.run_trace import RunTrace

SCHEMA = "zegel/privacy-curve/v1"
TOLERANCE = 0.01  # relative, and absolute below epsilon 1


@dataclass(frozen=True)
class PrivacyCurve:
    """Points (round, epsilon after it), rounds ascending from 1 to the last."""

    run_id: str
    accountant: str
    delta: float
    points: tuple[tuple[int, float], ...]

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        points: list[dict[str, Any]] = [{"round": number, "epsilon": epsilon} for number, epsilon in self.points]
        return canonical_json(
            {
                "schema": SCHEMA,
                "run_id": self.run_id,
                "accountant": self.accountant,
                "delta": self.delta,
                "points": points,
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> PrivacyCurve:
        """Reads canonical bytes; raises DocumentError for any other form."""
        try:
            value = parse_json_object(data, "privacy curve")
            _CURVE(value, "privacy curve")
        except (CanonicalError, EntryError) as error:
            raise DocumentError(str(error)) from error
        points = tuple((item["round"], float(item["epsilon"])) for item in value["points"])
        return cls(value["run_id"], value["accountant"], float(value["delta"]), points)

    def check(self, run: RunTrace) -> None:
        """Raises DocumentError unless this is a curve of `run`."""
        for field, expected, got in (
            ("run_id", run.run_id, self.run_id),
            ("accountant", run.accountant, self.accountant),
            ("delta", run.delta, self.delta),
        ):
            if expected != got:
                raise DocumentError(f"privacy curve: {field}: expected {expected}, got {got}")
        rounds = [number for number, _ in self.points]
        if not rounds or rounds != sorted(set(rounds)) or rounds[-1] != len(run.rounds):
            raise DocumentError(f"privacy curve: expected ascending rounds up to {len(run.rounds)}, got {rounds[-3:]}")
        values = [epsilon for _, epsilon in self.points]
        if values != sorted(values):
            raise DocumentError("privacy curve: epsilon falls; it can only grow")
        if values[-1] > run.epsilon + TOLERANCE * max(1.0, run.epsilon):
            raise DocumentError(f"privacy curve: ends at {values[-1]}, above the run's epsilon {run.epsilon}")


_CURVE = schema.fields_of(
    {
        "schema": schema.one_of(SCHEMA),
        "run_id": schema.name,
        "accountant": schema.name,
        "delta": schema.number(0, 1),
        "points": schema.list_of(
            schema.fields_of({"round": schema.integer(1), "epsilon": schema.number(0)}, further=False)
        ),
    },
    further=False,
)
