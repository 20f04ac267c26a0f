"""Incidents: what a witness keeps when a log shows it something it should not have signed.

An incident holds two checkpoints with the log's own signatures, so that it speaks for itself: whoever has the log's
verifier key can judge it without believing the witness.

- `split-view`: one size, two roots. This alone proves that the log showed two histories.
- `inconsistent`: a larger tree came with a proof that does not hold. Either the request was broken or the log split;
  the whole log (an export) decides.
- `rollback`: a smaller tree came after a larger one. Either an old message arrived late or the log was set back; if the
  log no longer contains the larger tree, it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from audit.canonical import canonical_json, decode_base64, encode_base64, format_time, parse_json_object, parse_time
from audit.checkpoint import Checkpoint, open_checkpoint
from audit.errors import AuditError, WitnessError
from audit.merkle import HashReader, tree_root
from audit.note import VerifierKey

SPLIT_VIEW = "split-view"
INCONSISTENT = "inconsistent"
ROLLBACK = "rollback"
KINDS = frozenset({SPLIT_VIEW, INCONSISTENT, ROLLBACK})
_SCHEMA = "zegel/incident/v1"
_FIELDS = frozenset({"schema", "kind", "time", "witness", "cosigned", "presented", "old_size", "proof"})


@dataclass(frozen=True)
class Incident:
    """Two checkpoints of one log: the one the witness had cosigned, and the one it was then shown."""

    kind: str
    time: datetime  # of the request, by the witness's clock
    witness: str
    cosigned: bytes  # signed note
    presented: bytes  # signed note
    old_size: int  # what the request said the witness had seen
    proof: tuple[bytes, ...]  # the consistency proof of the request

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return canonical_json(
            {
                "schema": _SCHEMA,
                "kind": self.kind,
                "time": format_time(self.time),
                "witness": self.witness,
                "cosigned": self.cosigned.decode(),
                "presented": self.presented.decode(),
                "old_size": self.old_size,
                "proof": [encode_base64(value) for value in self.proof],
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Incident:
        """Reads an incident; raises WitnessError for anything else. Nothing is verified."""
        try:
            value: dict[str, Any] = parse_json_object(data, "incident")
            if set(value) != _FIELDS or value["schema"] != _SCHEMA or value["kind"] not in KINDS:
                raise WitnessError(f"incident: expected the fields of {_SCHEMA} and a kind of {sorted(KINDS)}")
            return cls(
                kind=value["kind"],
                time=parse_time(value["time"], "incident time"),
                witness=str(value["witness"]),
                cosigned=str(value["cosigned"]).encode(),
                presented=str(value["presented"]).encode(),
                old_size=int(value["old_size"]),
                proof=tuple(decode_base64(each, "incident proof") for each in value["proof"]),
            )
        except (AuditError, TypeError, ValueError) as error:
            raise WitnessError(f"incident: cannot be read: {error}") from error


@dataclass(frozen=True)
class Verdict:
    """What an incident says about the log."""

    proved: bool  # whether the log has shown two histories
    words: str


def judge(incident: Incident, log: VerifierKey, tree: HashReader | None = None, tree_size: int = 0) -> Verdict:
    """Whether an incident proves that `log` showed two histories.

    `tree` reads the hashes of the log as it is today, `tree_size` leaves, for instance from a checked export: a signed
    checkpoint it does not contain is proof. Raises WitnessError when the checkpoints are not both signed by the log,
    for then the incident says nothing about it.
    """
    try:
        cosigned = open_checkpoint(incident.cosigned, log)
        presented = open_checkpoint(incident.presented, log)
    except AuditError as error:
        raise WitnessError(f"incident: not two checkpoints of {log.name}: {error}") from error
    if cosigned.size == presented.size and cosigned.root != presented.root:
        return Verdict(
            True,
            f"{log.name} signed two trees of {cosigned.size} entries, with the roots {cosigned.root.hex()} and "
            f"{presented.root.hex()}: it showed two histories",
        )
    if tree is not None:
        for which in (cosigned, presented):
            if which.size <= tree_size and tree_root(which.size, tree) != which.root:
                return Verdict(
                    True,
                    f"{log.name} signed a tree of {which.size} entries with the root {which.root.hex()}, but the log "
                    f"given, of {tree_size} entries, does not contain it: it showed two histories",
                )
        if max(cosigned.size, presented.size) <= tree_size:
            return Verdict(False, f"both checkpoints are of the log given: {_harmless(incident, cosigned, presented)}")
    return Verdict(
        False,
        f"not decided: {log.name} signed trees of {cosigned.size} and {presented.size} entries; an export of the log "
        "with at least the larger number tells whether both belong to it",
    )


def _harmless(incident: Incident, cosigned: Checkpoint, presented: Checkpoint) -> str:
    if presented.size < cosigned.size:
        return "an old checkpoint was sent again"
    return f"the request from {incident.old_size} entries came with a broken proof"
