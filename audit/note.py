"""Signed notes: a text, an empty line, and signatures that name their key.

Invariants:
- Only the exact spelling `sign_note` produces is accepted; anything after the last signature is refused.
- Signatures by keys we were not given are kept, whatever their length, but mean nothing; a wrong signature by
  our key is an error.
- A key signs one type of message: `VerifierKey.algorithm` is part of its identity, so that a log's signature
  never passes as a witness's.

Source: C2SP signed-note (https://c2sp.org/signed-note).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from audit.canonical import decode_base64, encode_base64, shown
from audit.errors import CanonicalError, NoteError

MAX_NOTE_SIZE = 1_000_000  # bytes
MAX_SIGNATURES = 100
ED25519 = 0x01  # signature type: the note's text as it is, what a log signs with
COSIGNATURE = 0x04  # signature type: a witness's Ed25519 cosignature with its time (`audit.cosignature`)
_ALGORITHMS = {ED25519: "1 (Ed25519)", COSIGNATURE: "4 (Ed25519 cosignature)"}
_KEY_ID_SIZE = 4  # bytes
_DASH = "\u2014 "  # em dash and a space begin each signature line
_KEY_ID = re.compile(r"[0-9a-f]{8}", re.ASCII)


@dataclass(frozen=True)
class VerifierKey:
    """A key's name, Ed25519 public key and signature type. The text form is `name+hex(key id)+base64(type || key)`."""

    name: str
    public_key: bytes  # 32 bytes
    algorithm: int = ED25519

    def __post_init__(self) -> None:
        check_key_name(self.name)
        if self.algorithm not in _ALGORITHMS:
            raise NoteError(f"verifier key {self.name}: unknown signature type {self.algorithm}")
        if len(self.public_key) != 32:
            raise NoteError(f"verifier key {self.name}: expected 32 bytes, got {len(self.public_key)}")

    @classmethod
    def of(cls, name: str, key: Ed25519PrivateKey | Ed25519PublicKey, algorithm: int = ED25519) -> VerifierKey:
        """The verifier key of an Ed25519 key under a name."""
        public = key.public_key() if isinstance(key, Ed25519PrivateKey) else key
        return cls(name, public.public_bytes_raw(), algorithm)

    @classmethod
    def parse(cls, text: str, algorithm: int = ED25519) -> VerifierKey:
        """Reads the text form of a key of this signature type, without a line end; raises NoteError for anything
        else.
        """
        parts = text.split("+", 2)
        if len(parts) != 3:
            raise NoteError(f"verifier key: expected name+hex+base64, got {shown(text)}")
        name, key_id, encoded = parts
        try:
            data = decode_base64(encoded, f"verifier key {shown(name)}")
        except CanonicalError as error:
            raise NoteError(str(error)) from error
        if data[:1] != bytes([algorithm]):
            raise NoteError(
                f"verifier key {shown(name)}: expected type {_ALGORITHMS.get(algorithm, algorithm)}, "
                f"got {data[:1].hex() or 'nothing'}"
            )
        key = cls(name, data[1:], algorithm)
        if not _KEY_ID.fullmatch(key_id) or bytes.fromhex(key_id) != key.key_id:
            raise NoteError(f"verifier key {name}: expected key id {key.key_id.hex()}, got {shown(key_id)}")
        return key

    @property
    def key_id(self) -> bytes:
        """The first 4 bytes of SHA-256(name || newline || type || key)."""
        data = self.name.encode() + b"\n" + self._typed_key
        return hashlib.sha256(data).digest()[:_KEY_ID_SIZE]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{encode_base64(self._typed_key)}"

    @property
    def _typed_key(self) -> bytes:
        return bytes([self.algorithm]) + self.public_key


@dataclass(frozen=True)
class NoteSignature:
    """One signature line, not verified."""

    name: str
    key_id: bytes  # 4 bytes
    signature: bytes  # what it holds depends on the key's signature type

    def by(self, key: VerifierKey) -> bool:
        """Whether the line claims to be this key's."""
        return self.name == key.name and self.key_id == key.key_id

    def to_line(self) -> bytes:
        """The signature line with its line end."""
        return f"{_DASH}{self.name} {encode_base64(self.key_id + self.signature)}\n".encode()

    @classmethod
    def parse_lines(cls, data: bytes) -> tuple[NoteSignature, ...]:
        """Reads one or more signature lines; raises NoteError for anything else."""
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise NoteError(f"signature lines: not UTF-8: {error}") from error
        return _parse_signatures(text)


@dataclass(frozen=True)
class Note:
    """A note's text, which ends in a newline, and its signatures, not verified."""

    text: str
    signatures: tuple[NoteSignature, ...]

    def to_bytes(self) -> bytes:
        """The note; `parse_note` gives it back."""
        return self.text.encode() + b"\n" + b"".join(signature.to_line() for signature in self.signatures)


def sign_note(text: str, name: str, key: Ed25519PrivateKey) -> bytes:
    """The note's bytes with one signature. The text must end in a newline and hold no control characters."""
    _check_text(text)
    verifier = VerifierKey.of(name, key)
    return Note(text, (NoteSignature(name, verifier.key_id, key.sign(text.encode())),)).to_bytes()


def parse_note(data: bytes) -> Note:
    """Splits a note into text and signatures without verifying them; raises NoteError for malformed input."""
    if len(data) > MAX_NOTE_SIZE:
        raise NoteError(f"note: expected at most {MAX_NOTE_SIZE} bytes, got {len(data)}")
    try:
        whole = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NoteError(f"note: not UTF-8: {error}") from error
    body, separator, signature_part = whole.rpartition("\n\n")
    if not separator:
        raise NoteError("note: expected an empty line between text and signatures")
    text = body + "\n"
    _check_text(text)
    return Note(text, _parse_signatures(signature_part))


def verify_note(data: bytes, key: VerifierKey) -> str:
    """The note's text when `key` signed it.

    Signatures of other keys are ignored. Raises NoteError when none is by `key`, or one that claims to be
    is wrong.
    """
    if key.algorithm != ED25519:
        raise NoteError(f"note: {key.name} is a witness's key; it cannot sign the text itself")
    note = parse_note(data)
    ours = [s for s in note.signatures if s.by(key)]
    if not ours:
        names = ", ".join(s.name for s in note.signatures)
        raise NoteError(f"note: expected a signature by {key}, got {names}")
    public_key = Ed25519PublicKey.from_public_bytes(key.public_key)
    for signature in ours:
        try:
            public_key.verify(signature.signature, note.text.encode())
        except InvalidSignature as error:
            raise NoteError(f"note: the signature by {key.name} does not fit the text") from error
    return note.text


def _parse_signatures(text: str) -> tuple[NoteSignature, ...]:
    if not text.endswith("\n"):
        raise NoteError("note: expected the last signature line to end in a newline")
    lines = text[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise NoteError(f"note: expected at most {MAX_SIGNATURES} signatures, got {len(lines)}")
    return tuple(_parse_signature(line) for line in lines)


def _parse_signature(line: str) -> NoteSignature:
    if not line.startswith(_DASH):
        raise NoteError(f"note: expected a signature line beginning with an em dash and a space, got {shown(line)}")
    name, separator, encoded = line.removeprefix(_DASH).rpartition(" ")
    if not separator:
        raise NoteError(f"note: expected a signature line with name and base64, got {shown(line)}")
    check_key_name(name)
    try:
        payload = decode_base64(encoded, f"signature of {name}")
    except CanonicalError as error:
        raise NoteError(f"note: {error}") from error
    # Of any length: others' types of signature stand beside ours and are none of our business.
    if len(payload) <= _KEY_ID_SIZE:
        raise NoteError(f"note: signature of {name}: expected a key id and a signature, got {len(payload)} bytes")
    return NoteSignature(name, payload[:_KEY_ID_SIZE], payload[_KEY_ID_SIZE:])


def check_key_name(name: str) -> None:
    """Raises NoteError unless `name` can name a key: no spaces, no plus sign, nothing unprintable."""
    if not name or "+" in name or any(c.isspace() or not c.isprintable() for c in name):
        raise NoteError(f"key name: expected text without spaces, plus signs or control characters, got {shown(name)}")


def _check_text(text: str) -> None:
    if not text.endswith("\n") or text == "\n":
        raise NoteError("note: expected a text that ends in a newline")
    if any(ord(c) < 0x20 and c != "\n" for c in text):
        raise NoteError("note: expected no control characters in the text")
