"""Cosignatures: a witness's dated word that a checkpoint continues the log it saw before.

A cosignature is a signature line of type 4 in a checkpoint's note. Its payload is the time (seconds since 1970, 8
bytes, big-endian) and an Ed25519 signature over two lines, `cosignature/v1` and `time <seconds>`, followed by the
note's text.

Invariants:
- The signed bytes begin with a line no log signs, so that neither kind of signature passes as the other.
- The witness's name is not in the signed bytes; one key must not serve two witnesses (`audit.witness_policy`).
- Nothing here knows what a witness checked first: that is `audit.witness`.

Source: C2SP tlog-cosignature (https://c2sp.org/tlog-cosignature), the Ed25519 form.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from audit.errors import CosignatureError
from audit.note import COSIGNATURE, Note, NoteSignature, VerifierKey, parse_note

_HEADER = "cosignature/v1"
_TIME_SIZE = 8  # bytes
_SIGNATURE_SIZE = 64  # bytes
_LAST_TIME = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)  # the last one a datetime holds


@dataclass(frozen=True)
class Cosignature:
    """A verified cosignature: who gave it and when (UTC, whole seconds)."""

    key: VerifierKey
    time: datetime


def witness_key(name: str, key: Ed25519PrivateKey | Ed25519PublicKey) -> VerifierKey:
    """The verifier key of a witness."""
    return VerifierKey.of(name, key, COSIGNATURE)


def cosign(text: str, name: str, key: Ed25519PrivateKey, at: datetime) -> NoteSignature:
    """The cosignature of the witness `name` over a checkpoint's note text, dated `at` (aware; seconds count)."""
    if at.tzinfo is None:
        raise CosignatureError(f"cosignature time {at} has no time zone; use an aware datetime in UTC")
    seconds = int(at.timestamp())
    if seconds < 0:
        raise CosignatureError(f"cosignature time: expected a time after 1970, got {at}")
    payload = seconds.to_bytes(_TIME_SIZE, "big") + key.sign(_message(text, seconds))
    return NoteSignature(name, witness_key(name, key).key_id, payload)


def verify_cosignature(text: str, signature: NoteSignature, key: VerifierKey) -> Cosignature:
    """What a signature line says when it is `key`'s cosignature over the note text.

    Raises CosignatureError for a key of another type, another key's line, a wrong length, a time no calendar holds, or
    a signature that does not fit.
    """
    what = f"cosignature of {key.name}"
    if key.algorithm != COSIGNATURE:
        raise CosignatureError(f"{what}: expected a witness's key (type 4), got type {key.algorithm}")
    if not signature.by(key):
        raise CosignatureError(f"{what}: got a line of {signature.name}, key id {signature.key_id.hex()}")
    if len(signature.signature) != _TIME_SIZE + _SIGNATURE_SIZE:
        raise CosignatureError(
            f"{what}: expected {_TIME_SIZE + _SIGNATURE_SIZE} bytes of time and signature, "
            f"got {len(signature.signature)}"
        )
    seconds = int.from_bytes(signature.signature[:_TIME_SIZE], "big")
    if seconds > _LAST_TIME.timestamp():
        raise CosignatureError(f"{what}: {seconds} seconds after 1970 is no time we know")
    try:
        Ed25519PublicKey.from_public_bytes(key.public_key).verify(
            signature.signature[_TIME_SIZE:], _message(text, seconds)
        )
    except InvalidSignature as error:
        raise CosignatureError(f"{what}: the signature does not fit this checkpoint and time") from error
    return Cosignature(key, datetime.fromtimestamp(seconds, UTC))


def add_signatures(note: bytes, signatures: Iterable[NoteSignature]) -> bytes:
    """The note with further signature lines, not verified here. A line of a key that has one already is left out."""
    parsed = parse_note(note)
    lines = list(parsed.signatures)
    present = {(line.name, line.key_id) for line in lines}
    for line in signatures:
        if (line.name, line.key_id) not in present:
            present.add((line.name, line.key_id))
            lines.append(line)
    data = Note(parsed.text, tuple(lines)).to_bytes()
    parse_note(data)  # what we make must be what we accept: size and number of signatures
    return data


def _message(text: str, seconds: int) -> bytes:
    return f"{_HEADER}\ntime {seconds}\n{text}".encode()
