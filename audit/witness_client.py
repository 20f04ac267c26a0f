"""The log's side of witnessing: asking witnesses for cosignatures, and where they are.

A witness is reached by a function that takes a request's bytes and gives its answer: HTTP here (`over_http`), a call
through the federation in the coordinator. What a witness answers is believed only as far as its signature goes.

Source: C2SP tlog-witness (https://c2sp.org/tlog-witness).
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from audit.canonical import format_time, shown
from audit.checkpoint import Checkpoint
from audit.cosignature import verify_cosignature
from audit.durable_file import write_durably
from audit.errors import (
    AuditError,
    CosignatureError,
    InconsistentLogError,
    NoteError,
    RollbackError,
    SplitViewError,
    UnknownLogError,
    UnsignedCheckpointError,
    WitnessError,
    WitnessRequestError,
)
from audit.note import COSIGNATURE, NoteSignature, VerifierKey, parse_note
from audit.witness_protocol import (
    BAD_REQUEST,
    CONFLICT,
    FORBIDDEN,
    MAX_ANSWER_SIZE,
    NOT_FOUND,
    OK,
    TEXT,
    UNPROCESSABLE,
    AddCheckpoint,
    Answer,
)

MAX_CLOCK_SKEW = timedelta(minutes=5)  # between a witness's clock and ours
_MAX_TRIES = 3  # the hint may be wrong once; another signer of ours may get ahead once
_AT_ONCE = 8  # witnesses asked side by side

Send = Callable[[bytes], Answer]  # raises WitnessError when the witness cannot be reached


class Proofs(Protocol):
    """Where consistency proofs come from (`audit.store.Log`)."""

    def consistency_proof(self, size1: int, size2: int | None = None) -> list[bytes]: ...


@dataclass(frozen=True)
class Asked:
    """A witness to be asked: its key, how it is reached, and the size it is thought to have cosigned last."""

    key: VerifierKey
    send: Send
    seen: int = 0


@dataclass(frozen=True)
class Collected:
    """What the witnesses said, in the order they were asked."""

    cosignatures: tuple[tuple[VerifierKey, NoteSignature], ...]  # verified
    refusals: tuple[tuple[VerifierKey, AuditError], ...]


def request_cosignature(witness: Asked, proofs: Proofs, checkpoint: bytes, now: datetime) -> NoteSignature:
    """The witness's verified cosignature of a checkpoint; starts again from the size it says it has seen.

    Raises RollbackError when it cosigned a larger tree than this, SplitViewError or InconsistentLogError when it saw
    another history, UnknownLogError, UnsignedCheckpointError or WitnessRequestError when it does not take the request,
    WitnessError when it answers nonsense or not at all, CosignatureError for a signature that is wrong or dated ahead
    of `now` (aware).
    """
    text = parse_note(checkpoint).text
    target = Checkpoint.from_text(text)
    name, old = witness.key.name, min(witness.seen, target.size)
    for _ in range(_MAX_TRIES):
        proof = proofs.consistency_proof(old, target.size) if 0 < old < target.size else []
        answer = witness.send(AddCheckpoint(old, tuple(proof), checkpoint).to_bytes())
        if answer.status == OK:
            return _accepted(witness.key, text, answer, now)
        size = answer.size
        if size is None:
            raise _refusal(name, answer)
        if size > target.size:
            raise RollbackError(
                f"witness {name} cosigned a tree of {size} entries, but this checkpoint covers {target.size} only: it "
                "is not the newest, or the log was set back; restore the newest copy of the log",
                size,
            )
        if size == old:
            raise WitnessError(f"witness {name} says it saw {size} entries, but refuses a request from there")
        old = size
    raise WitnessError(f"witness {name} named another size in each of {_MAX_TRIES} answers; is somebody else asking?")


def collect(witnesses: Sequence[Asked], proofs: Proofs, checkpoint: bytes, now: datetime) -> Collected:
    """Asks all witnesses, some side by side; one that refuses or cannot be reached does not stop the others."""

    def ask(witness: Asked) -> NoteSignature | AuditError:
        try:
            return request_cosignature(witness, proofs, checkpoint, now)
        except AuditError as error:
            return error

    if not witnesses:
        return Collected((), ())
    with ThreadPoolExecutor(min(len(witnesses), _AT_ONCE)) as pool:
        answers = list(zip(witnesses, pool.map(ask, witnesses), strict=True))
    return Collected(
        tuple((witness.key, each) for witness, each in answers if isinstance(each, NoteSignature)),
        tuple((witness.key, each) for witness, each in answers if isinstance(each, AuditError)),
    )


def _accepted(key: VerifierKey, text: str, answer: Answer, now: datetime) -> NoteSignature:
    try:
        lines = NoteSignature.parse_lines(answer.body)
    except NoteError as error:
        raise WitnessError(f"witness {key.name} answered without signature lines: {error}") from error
    for line in lines:
        if line.by(key):
            cosignature = verify_cosignature(text, line, key)
            if cosignature.time > now + MAX_CLOCK_SKEW:
                raise CosignatureError(
                    f"witness {key.name} dates its cosignature {format_time(cosignature.time)}, but it is "
                    f"{format_time(now)}; one of the clocks is wrong, and no verifier would count it"
                )
            return line
    raise WitnessError(f"witness {key.name} answered with signatures of other keys; expected {key}")


def _refusal(name: str, answer: Answer) -> WitnessError:
    kinds: dict[int, type[WitnessError]] = {
        BAD_REQUEST: WitnessRequestError,
        FORBIDDEN: UnsignedCheckpointError,
        NOT_FOUND: UnknownLogError,
        CONFLICT: SplitViewError,
        UNPROCESSABLE: InconsistentLogError,
    }
    kind = kinds.get(answer.status, WitnessError)
    said = answer.body[:400].decode("utf-8", "replace").strip()
    return kind(f"witness {name} answered {answer.status}: {shown(said) if not said.isprintable() else said}")


# HTTP


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A witness is where its URL says; a request is not carried elsewhere."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def over_http(url: str, timeout: float) -> Send:
    """A way to a witness by its submission prefix (`http` or `https`); `timeout` in seconds for each step.

    Raises WitnessError for a URL of another kind; the function returned, when the witness cannot be reached.
    """
    check_url(url)
    target = url.rstrip("/") + "/add-checkpoint"
    opener = urllib.request.build_opener(_NoRedirect)

    def send(body: bytes) -> Answer:
        request = urllib.request.Request(target, data=body, headers={"Content-Type": TEXT}, method="POST")  # noqa: S310 - checked above
        try:
            with opener.open(request, timeout=timeout) as response:
                return _answer(response.status, response)
        except urllib.error.HTTPError as error:
            with error:
                return _answer(error.code, error)
        except (OSError, http.client.HTTPException) as error:
            raise WitnessError(f"witness at {target} cannot be reached: {error}") from error

    def _answer(status: int, response: Any) -> Answer:
        body: bytes = response.read(MAX_ANSWER_SIZE + 1)
        if len(body) > MAX_ANSWER_SIZE:
            raise WitnessError(f"witness at {target}: expected an answer of at most {MAX_ANSWER_SIZE} bytes")
        return Answer(status, body, response.headers.get("Content-Type", ""))

    return send


def check_url(url: str) -> None:
    """Raises WitnessError unless `url` is an http or https URL prefix."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise WitnessError(f"witness URL: expected http(s)://host[:port][/path], got {shown(url)}")


@dataclass(frozen=True)
class WitnessAddress:
    """A witness that is reached over HTTP."""

    key: VerifierKey
    url: str  # submission prefix


def read_addresses(path: Path) -> tuple[WitnessAddress, ...]:
    """The addresses kept in a file; none when there is no file. Raises WitnessError when it cannot be read."""
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["witnesses"]
        return tuple(WitnessAddress(VerifierKey.parse(each["vkey"], COSIGNATURE), str(each["url"])) for each in listed)
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError, NoteError) as error:
        raise WitnessError(f"{path} cannot be read: {error}") from error


def write_addresses(path: Path, addresses: Sequence[WitnessAddress]) -> None:
    """Replaces the addresses kept in a file."""
    listed = [{"vkey": str(each.key), "url": each.url} for each in addresses]
    write_durably(path, (json.dumps({"witnesses": listed}, indent=2) + "\n").encode())
