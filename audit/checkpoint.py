"""Checkpoints: the log's signed promise of one tree, and proofs bundled with it.

A checkpoint is a signed note whose text is origin, tree size and base64 root, each on its own line. A proof
file holds an entry's index, its inclusion proof and a checkpoint.

Invariant: a checkpoint is only accepted from the key whose name is its origin, so logs cannot be mixed up.

Source: C2SP tlog-checkpoint and tlog-proof (https://c2sp.org/tlog-checkpoint, https://c2sp.org/tlog-proof).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from audit.canonical import decode_base64, encode_base64, shown
from audit.certificates import identity_of, public_key_of
from audit.errors import CanonicalError, CertificateError, CheckpointError
from audit.merkle import HASH_SIZE, MAX_TREE_SIZE
from audit.note import VerifierKey, sign_note, verify_note

PROOF_HEADER = "c2sp.org/tlog-proof@v1"
_MAX_PROOF_HASHES = 63
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


@dataclass(frozen=True)
class Checkpoint:
    """A tree's size and root under the log's origin."""

    origin: str
    size: int  # leaves
    root: bytes  # 32 bytes

    def to_text(self) -> str:
        """The note text."""
        return f"{self.origin}\n{self.size}\n{encode_base64(self.root)}\n"

    @classmethod
    def from_text(cls, text: str) -> Checkpoint:
        """Reads the note text; raises CheckpointError for any other form.

        The specification allows further lines; our log writes none, and a line nobody interprets is refused.
        """
        lines = text.split("\n")
        if len(lines) != 4 or lines[3]:
            raise CheckpointError(f"checkpoint: expected origin, size and root on 3 lines, got {len(lines) - 1} lines")
        origin, size, root = lines[:3]
        if not origin:
            raise CheckpointError("checkpoint: the origin is empty")
        try:
            value = decode_base64(root, "checkpoint root")
        except CanonicalError as error:
            raise CheckpointError(str(error)) from error
        if len(value) != HASH_SIZE:
            raise CheckpointError(f"checkpoint root: expected {HASH_SIZE} bytes, got {len(value)}")
        return cls(origin, _number(size, "checkpoint size"), value)


def log_origin(consortium: str) -> str:
    """The origin of a consortium's log: `zegel-log/` and its name, percent-encoded where a key name needs it.

    It is also the CN of the log's certificate and the name of its verifier key.
    """
    if not consortium:
        raise CheckpointError("consortium name is empty")
    return "zegel-log/" + quote(consortium, safe="")


def log_verifier_key(certificate: x509.Certificate) -> VerifierKey:
    """The log's verifier key from its certificate: the CN is the key's name.

    Reads the certificate only; `audit.certificates.verify_certificate` decides whether to rely on it.
    """
    key = public_key_of(certificate)
    if not isinstance(key, Ed25519PublicKey):
        raise CertificateError("log certificate: expected an Ed25519 key")
    return VerifierKey.of(identity_of(certificate).name, key)


def sign_checkpoint(checkpoint: Checkpoint, key: Ed25519PrivateKey) -> bytes:
    """The checkpoint as a note signed under its origin's name."""
    return sign_note(checkpoint.to_text(), checkpoint.origin, key)


def open_checkpoint(data: bytes, key: VerifierKey) -> Checkpoint:
    """The checkpoint in a note signed by `key`.

    Raises NoteError for a missing or wrong signature, CheckpointError for a malformed text or another origin.
    """
    checkpoint = Checkpoint.from_text(verify_note(data, key))
    if checkpoint.origin != key.name:
        raise CheckpointError(f"checkpoint: expected origin {key.name}, got {shown(checkpoint.origin)}")
    return checkpoint


def format_proof(index: int, proof: Sequence[bytes], checkpoint: bytes) -> bytes:
    """A tlog-proof file: header, index, hashes, empty line, signed checkpoint."""
    lines = [PROOF_HEADER, f"index {index}", *(encode_base64(value) for value in proof)]
    return ("\n".join(lines) + "\n\n").encode() + checkpoint


def parse_proof(data: bytes) -> tuple[int, list[bytes], bytes]:
    """Index, inclusion proof and checkpoint bytes of a tlog-proof file; nothing is verified.

    Raises CheckpointError for malformed input.
    """
    head, separator, checkpoint = data.partition(b"\n\n")
    if not separator:
        raise CheckpointError("proof: expected an empty line before the checkpoint")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"proof: not ASCII: {error}") from error
    if lines[0] != PROOF_HEADER:
        raise CheckpointError(f"proof: expected the line {PROOF_HEADER}, got {shown(lines[0])}")
    if len(lines) < 2 or not lines[1].startswith("index "):
        raise CheckpointError("proof: expected a line with the index")
    if len(lines) - 2 > _MAX_PROOF_HASHES:
        raise CheckpointError(f"proof: expected at most {_MAX_PROOF_HASHES} hashes, got {len(lines) - 2}")
    index = _number(lines[1].removeprefix("index "), "proof index")
    hashes: list[bytes] = []
    for line in lines[2:]:
        try:
            value = decode_base64(line, "proof hash")
        except CanonicalError as error:
            raise CheckpointError(str(error)) from error
        if len(value) != HASH_SIZE:
            raise CheckpointError(f"proof hash: expected {HASH_SIZE} bytes, got {len(value)}")
        hashes.append(value)
    return index, hashes, checkpoint


def _number(text: str, what: str) -> int:
    if not _NUMBER.fullmatch(text) or int(text) > MAX_TREE_SIZE:
        raise CheckpointError(f"{what}: expected a decimal number up to {MAX_TREE_SIZE}, got {shown(text)}")
    return int(text)
