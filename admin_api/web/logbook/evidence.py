"""What the pages and the API say about the log, as values; every figure in it can be checked by whoever gets it."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from admin_api.reading import logbook
from admin_api.web.context import Workplace
from admin_api.web.problems import Problem, not_found
from audit.checkpoint import Checkpoint, open_checkpoint
from audit.cosignature import verify_cosignature
from audit.cosigned import Cosigned
from audit.errors import AuditError
from audit.merkle import leaf_hash
from audit.note import COSIGNATURE, VerifierKey, parse_note

COSIGNED = "cosigned"


class Line(BaseModel):
    """An entry in one line."""

    model_config = ConfigDict(from_attributes=True)

    index: int = Field(examples=[1204])
    time: datetime
    kind: str = Field(examples=["release.certified"])
    words: str = Field(examples=["Release autumn-2026 was certified."])


class EntryView(BaseModel):
    """An entry: in words, as it is, and as the bytes that were hashed."""

    index: int
    time: datetime
    kind: str
    words: str
    body: dict[str, Any]
    data: str = Field(description="base64 of the entry's bytes")
    leaf: str = Field(description="hex of the leaf's hash, RFC 6962 section 2.1")


class InclusionProof(BaseModel):
    """That an entry is in the tree of a signed checkpoint."""

    index: int
    size: int
    hashes: list[str] = Field(description="hex, from the leaf upwards (RFC 6962 section 2.1.1)")
    checkpoint: str = Field(description="the signed note, with every cosignature collected for it")


class ConsistencyProof(BaseModel):
    """That the tree of `size2` entries continues the one of `size1`."""

    size1: int
    size2: int
    hashes: list[str] = Field(description="hex (RFC 6962 section 2.1.2)")


class WitnessView(BaseModel):
    """Who cosigns the log's checkpoints, and how far they have seen it."""

    name: str
    organisation: str
    vkey: str
    enrolled: datetime
    entry: int
    cosigned_size: int = Field(description="entries under the newest checkpoint it cosigned; 0: none yet")


class CheckpointView(BaseModel):
    """The log's newest signed promise, and by whom it was cosigned."""

    origin: str
    size: int
    root: str = Field(description="hex")
    note: str
    vkey: str = Field(description="the log's verifier key; compare it with the one you were given when you joined")
    cosigned: dict[str, datetime] = Field(description="witness -> when")


def newest(here: Workplace) -> tuple[Checkpoint, bytes, VerifierKey]:
    """The last signed checkpoint, its note with cosignatures, and the log's key. Raises Problem before the first."""
    key = VerifierKey.parse(here.home.config().log_vkey)
    with here.home.log() as log:
        note = log.last_checkpoint()
    if note is None:
        raise not_found("no checkpoint has been signed yet", "the first entry brings it")
    return open_checkpoint(note, key), Cosigned(here.home.path / COSIGNED).note(note), key


def checkpoint_view(here: Workplace) -> CheckpointView:
    """The newest checkpoint with its verified cosignatures."""
    checkpoint, note, key = newest(here)
    return CheckpointView(
        origin=checkpoint.origin,
        size=checkpoint.size,
        root=checkpoint.root.hex(),
        note=note.decode("utf-8"),
        vkey=str(key),
        cosigned=_cosigned(note, [VerifierKey.parse(each.vkey, COSIGNATURE) for each in _witnesses(here)]),
    )


def witness_views(here: Workplace) -> list[WitnessView]:
    """The witnesses in force."""
    kept = Cosigned(here.home.path / COSIGNED)
    return [
        WitnessView(
            name=each.name,
            organisation=each.organisation,
            vkey=each.vkey,
            enrolled=each.time,
            entry=each.entry,
            cosigned_size=kept.seen_by(VerifierKey.parse(each.vkey, COSIGNATURE)),
        )
        for each in _witnesses(here)
    ]


def entry_view(here: Workplace, index: int, *, only: str | None) -> EntryView:
    """One entry; `only` is the hospital whose contact asks, if one does.

    Raises Problem when the log has none with this index, or none about that hospital.
    """
    if only is not None:
        nearest = logbook.entries(here.reading, only=only, limit=1, after=str(index + 1)).items
        if not nearest or nearest[0].index != index:
            raise not_found(f"no entry {index} about {only}")
    found = logbook.entry(here.reading, index)
    with here.home.log() as log:
        data = log.entry_bytes(index)
    return EntryView(
        index=index,
        time=found.time,
        kind=found.kind,
        words=found.words,
        body=dict(found.body),
        data=base64.b64encode(data).decode(),
        leaf=leaf_hash(data).hex(),
    )


def inclusion_of(here: Workplace, index: int) -> InclusionProof:
    """The proof of an entry in the newest checkpoint's tree. Raises Problem when it is not signed for yet."""
    checkpoint, note, _ = newest(here)
    if index >= checkpoint.size:
        raise not_found(f"the signed log has {checkpoint.size} entries, so there is no proof of entry {index}",
                        "try again in a moment, if it was written just now")  # fmt: skip
    with here.home.log() as log:
        hashes = log.inclusion_proof(index, checkpoint.size)
    return InclusionProof(
        index=index,
        size=checkpoint.size,
        hashes=[each.hex() for each in hashes],
        checkpoint=note.decode("utf-8"),
    )


def consistency_of(here: Workplace, size1: int, size2: int) -> ConsistencyProof:
    """The proof that one signed size continues another. Raises Problem for sizes the signed log does not have."""
    checkpoint, _, _ = newest(here)
    if not 1 <= size1 <= size2 <= checkpoint.size:
        raise Problem(422, "invalid", "Some fields are not as they should be",
                      f"expected 1 <= from <= to <= {checkpoint.size}, the signed log's size; got {size1} and {size2}",
                      "take sizes of signed checkpoints")  # fmt: skip
    with here.home.log() as log:
        hashes = log.consistency_proof(size1, size2)
    return ConsistencyProof(size1=size1, size2=size2, hashes=[each.hex() for each in hashes])


def _witnesses(here: Workplace) -> tuple[logbook.Witness, ...]:
    return logbook.witnesses(here.reading)


def _cosigned(note: bytes, keys: list[VerifierKey]) -> dict[str, datetime]:
    parsed = parse_note(note)
    found: dict[str, datetime] = {}
    for key in keys:
        for line in parsed.signatures:
            if line.by(key):
                try:
                    found[key.name] = verify_cosignature(parsed.text, line, key).time
                except AuditError as error:
                    raise Problem(503, "bad-cosignature", "A cosignature does not fit", str(error),
                                  "tell whoever runs the server; run `zegel audit check`") from None  # fmt: skip
    return found
