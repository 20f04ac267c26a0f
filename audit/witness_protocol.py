"""What is said between a log and a witness: requests, answers, and how a witness answers one.

The same bytes travel over HTTP (`audit.witness_server`, `audit.witness_client`) and inside a federation, where the
answer is carried as JSON.

Source: C2SP tlog-witness, add-checkpoint (https://c2sp.org/tlog-witness).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from audit.canonical import decode_base64, encode_base64, shown
from audit.errors import (
    CanonicalError,
    InconsistentLogError,
    SplitViewError,
    StaleSizeError,
    UnknownLogError,
    UnsignedCheckpointError,
    WitnessError,
    WitnessRequestError,
    WitnessStateError,
)
from audit.merkle import HASH_SIZE, MAX_TREE_SIZE
from audit.witness import Witness

MAX_REQUEST_SIZE = 262_144  # bytes: a checkpoint with a hundred signatures, and the longest proof
MAX_ANSWER_SIZE = 65_536  # bytes
TEXT = "text/plain; charset=utf-8"
SIZE = "text/x.tlog.size"  # an answer that is the size the witness cosigned last
OK, BAD_REQUEST, FORBIDDEN, NOT_FOUND, CONFLICT, UNPROCESSABLE, BROKEN = 200, 400, 403, 404, 409, 422, 500
_MAX_PROOF_LINES = 63
_OLD = re.compile(rb"old (0|[1-9][0-9]{0,18})", re.ASCII)
_SIZE_BODY = re.compile(rb"(0|[1-9][0-9]{0,18})\n", re.ASCII)
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AddCheckpoint:
    """A request to cosign: a checkpoint and the proof that it continues the tree of `old_size` entries."""

    old_size: int
    proof: tuple[bytes, ...]  # hashes of 32 bytes
    checkpoint: bytes  # signed note

    def to_bytes(self) -> bytes:
        """The request's body."""
        lines = [f"old {self.old_size}", *(encode_base64(value) for value in self.proof)]
        return ("\n".join(lines) + "\n\n").encode() + self.checkpoint

    @classmethod
    def from_bytes(cls, body: bytes) -> AddCheckpoint:
        """Reads a body; raises WitnessRequestError for anything `to_bytes` does not write."""
        if len(body) > MAX_REQUEST_SIZE:
            raise WitnessRequestError(f"request: expected at most {MAX_REQUEST_SIZE} bytes, got {len(body)}")
        head, separator, checkpoint = body.partition(b"\n\n")
        if not separator or not checkpoint:
            raise WitnessRequestError("request: expected an empty line and a checkpoint after the proof")
        first, *lines = head.split(b"\n")
        old = _OLD.fullmatch(first)
        if old is None or int(old[1]) > MAX_TREE_SIZE:
            raise WitnessRequestError(f"request: expected a line such as 'old 17', got {shown(first)}")
        if len(lines) > _MAX_PROOF_LINES:
            raise WitnessRequestError(f"request: expected at most {_MAX_PROOF_LINES} hashes, got {len(lines)}")
        try:
            proof = tuple(decode_base64(line.decode("ascii"), "proof hash") for line in lines)
        except (CanonicalError, UnicodeDecodeError) as error:
            raise WitnessRequestError(f"request: {error}") from error
        if any(len(value) != HASH_SIZE for value in proof):
            raise WitnessRequestError(f"request: expected hashes of {HASH_SIZE} bytes")
        return cls(int(old[1]), proof, checkpoint)


@dataclass(frozen=True)
class Answer:
    """What a witness says back: an HTTP status, a content type and a body."""

    status: int
    body: bytes
    content_type: str = TEXT

    @property
    def size(self) -> int | None:
        """The size the witness cosigned last, when that is what it says."""
        match = _SIZE_BODY.fullmatch(self.body)
        if self.status != CONFLICT or self.content_type != SIZE or match is None or int(match[1]) > MAX_TREE_SIZE:
            return None
        return int(match[1])

    def to_json(self) -> dict[str, Any]:
        """For a channel that carries JSON."""
        return {"status": self.status, "content_type": self.content_type, "body": self.body.decode()}

    @classmethod
    def from_json(cls, value: object) -> Answer:
        """Reads the JSON form; raises WitnessError for anything else."""
        if (
            not isinstance(value, Mapping)
            or set(value) != {"status", "content_type", "body"}
            or type(value["status"]) is not int
            or not isinstance(value["content_type"], str)
            or not isinstance(value["body"], str)
            or len(value["body"]) > MAX_ANSWER_SIZE
        ):
            raise WitnessError(f"witness's answer: expected status, content_type and body, got {shown(value)}")
        return cls(value["status"], value["body"].encode(), value["content_type"])


def answer(witness: Witness, body: bytes) -> Answer:
    """The witness's answer to an add-checkpoint request. Never raises for what the request holds."""
    try:
        request = AddCheckpoint.from_bytes(body)
        signature = witness.add_checkpoint(request.old_size, request.proof, request.checkpoint)
    except WitnessStateError as error:
        # Where the witness keeps its files is nobody else's business.
        _logger.error("%s", error)
        return Answer(BROKEN, b"this witness cannot sign; whoever runs it should look at `zegel witness status`\n")
    except StaleSizeError as error:
        return Answer(CONFLICT, f"{error.size}\n".encode(), SIZE)
    except WitnessError as error:
        return Answer(_status(error), f"{error}\n".encode())
    return Answer(OK, signature.to_line())


def _status(error: WitnessError) -> int:
    statuses: dict[type[WitnessError], int] = {
        WitnessRequestError: BAD_REQUEST,
        UnsignedCheckpointError: FORBIDDEN,
        UnknownLogError: NOT_FOUND,
        SplitViewError: CONFLICT,
        InconsistentLogError: UNPROCESSABLE,
    }
    return statuses[type(error)]
