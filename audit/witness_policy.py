"""How many witnesses, and which, must have cosigned a checkpoint before anybody relies on it.

Invariants:
- A policy counts keys, each once, and holds no key twice: the cosignature does not bind a witness's name, so one key
  under two names would count double.
- A wrong signature under a known key is an error, not a missing one: somebody forged or damaged the note.
- The log's own signature is not looked at here (`audit.checkpoint.open_checkpoint`).

Source: C2SP tlog-cosignature, tlog-policy (https://c2sp.org/tlog-policy).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from audit.canonical import format_time, shown
from audit.cosignature import Cosignature, verify_cosignature
from audit.errors import CosignatureError, NoteError
from audit.note import COSIGNATURE, VerifierKey, parse_note

MAX_CLOCK_SKEW = timedelta(minutes=5)  # between a witness's clock and the verifier's


@dataclass(frozen=True)
class WitnessPolicy:
    """At least `threshold` of these witnesses. A threshold of 0 asks for none."""

    threshold: int
    witnesses: tuple[VerifierKey, ...]

    def __post_init__(self) -> None:
        for key in self.witnesses:
            if key.algorithm != COSIGNATURE:
                raise CosignatureError(f"witness {key.name}: expected a witness's key (type 4), got {key}")
        if len({key.public_key for key in self.witnesses}) != len(self.witnesses):
            raise CosignatureError("witness policy: two witnesses hold the same key, which would count twice")
        if type(self.threshold) is not int or not 0 <= self.threshold <= len(self.witnesses):
            raise CosignatureError(
                f"witness policy: expected a threshold from 0 to the number of witnesses, {len(self.witnesses)}, "
                f"got {shown(self.threshold)}"
            )

    def to_json(self) -> dict[str, Any]:
        """`{"threshold": k, "witnesses": [verifier key, ...]}`."""
        return {"threshold": self.threshold, "witnesses": [str(key) for key in self.witnesses]}

    @classmethod
    def from_json(cls, value: object) -> WitnessPolicy:
        """Reads the JSON form; raises CosignatureError for anything else."""
        if not isinstance(value, dict) or set(value) != {"threshold", "witnesses"}:
            raise CosignatureError(f"witness policy: expected threshold and witnesses, got {shown(value)}")
        names = value["witnesses"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise CosignatureError(f"witness policy: expected a list of verifier keys, got {shown(names)}")
        try:
            return cls(value["threshold"], tuple(VerifierKey.parse(name, COSIGNATURE) for name in names))
        except NoteError as error:
            raise CosignatureError(f"witness policy: {error}") from error

    def to_text(self, log: VerifierKey) -> str:
        """The same as a C2SP tlog-policy file, for other verifiers of `log`."""
        lines = [f"log {log}"]
        lines += [f"witness w{number} {key}" for number, key in enumerate(self.witnesses, 1)]
        if self.threshold == 0:
            return "\n".join([*lines, "quorum none"]) + "\n"
        members = " ".join(f"w{number}" for number in range(1, len(self.witnesses) + 1))
        return "\n".join([*lines, f"group witnesses {self.threshold} {members}", "quorum witnesses"]) + "\n"


def cosignatures_of(note: bytes, keys: Iterable[VerifierKey]) -> tuple[Cosignature, ...]:
    """The cosignatures in a checkpoint's note by these keys, in the keys' order, each key at most once.

    Other keys' signatures are ignored. Raises NoteError for a malformed note, CosignatureError for a line that claims
    to be by one of the keys and is not.
    """
    parsed = parse_note(note)
    found: list[Cosignature] = []
    for key in keys:
        verified = [verify_cosignature(parsed.text, line, key) for line in parsed.signatures if line.by(key)]
        found += verified[:1]
    return tuple(found)


def check_cosignatures(note: bytes, policy: WitnessPolicy, not_after: datetime) -> tuple[Cosignature, ...]:
    """The cosignatures that count, when there are enough of them.

    One dated more than 5 minutes after `not_after` (aware) does not count: a witness cannot have seen the checkpoint
    then. Raises CosignatureError naming the witnesses that are missing, and what `cosignatures_of` raises.
    """
    found = cosignatures_of(note, policy.witnesses)
    latest = not_after + MAX_CLOCK_SKEW
    counted = tuple(each for each in found if each.time <= latest)
    if len(counted) < policy.threshold:
        names = {each.key.name for each in counted}
        missing = ", ".join(key.name for key in policy.witnesses if key.name not in names)
        early = "".join(
            f"; {each.key.name}'s is dated {format_time(each.time)}, after {format_time(not_after)}"
            for each in found
            if each.time > latest
        )
        raise CosignatureError(
            f"checkpoint: expected cosignatures of at least {policy.threshold} of {len(policy.witnesses)} witnesses, "
            f"got {len(counted)}; missing: {missing}{early}"
        )
    return counted
