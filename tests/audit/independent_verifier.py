"""A second verifier of exported logs, written from the C2SP texts and sharing no code with the package.

It reads an exported folder as a stranger's tool would: checkpoint (signed-note, tlog-checkpoint), cosignatures
(tlog-cosignature), tiles and entry bundles (tlog-tiles), inclusion proofs computed from tiles and checked with the
recursive definitions of RFC 6962 section 2.1. It is slow and plain on purpose. Its only import besides the standard
library is an Ed25519 verification.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class Wrong(Exception):
    """What was read is not what the texts say."""


def need(condition: bool, words: str) -> None:
    if not condition:
        raise Wrong(words)


@dataclass
class Key:
    name: str
    kind: int
    public: bytes
    hash: bytes

    @staticmethod
    def read(vkey: str) -> Key:
        name, hashed, encoded = vkey.split("+", 2)
        raw = base64.b64decode(encoded, validate=True)
        need(len(raw) == 33, "an Ed25519 vkey holds 33 bytes")
        expected = hashlib.sha256(name.encode() + b"\n" + raw).digest()[:4]
        need(bytes.fromhex(hashed) == expected, "key hash")
        return Key(name, raw[0], raw[1:], expected)


@dataclass
class Head:
    origin: str
    size: int
    root: bytes
    times: dict[str, int]  # cosignatures by witness


def open_checkpoint(data: bytes, log: str, witnesses: list[str]) -> Head:
    """Verifies the log's signature and those of the witnesses; others are ignored."""
    text, _, tail = data.decode("utf-8").rpartition("\n\n")
    text += "\n"
    need(tail.endswith("\n"), "signatures end in a newline")
    keys = [Key.read(log), *(Key.read(each) for each in witnesses)]
    signed_by_log = False
    times: dict[str, int] = {}
    for line in tail[:-1].split("\n"):
        dash, name, encoded = line.split(" ")
        need(dash == "\u2014", "em dash")
        blob = base64.b64decode(encoded, validate=True)
        for key in keys:
            if (key.name, key.hash) != (name, blob[:4]):
                continue
            public = Ed25519PublicKey.from_public_bytes(key.public)
            if key.kind == 1:
                public.verify(blob[4:], text.encode())
                signed_by_log = True
            elif key.kind == 4:
                need(len(blob) == 4 + 8 + 64, "timestamped signature")
                (seconds,) = struct.unpack(">Q", blob[4:12])
                public.verify(blob[12:], f"cosignature/v1\ntime {seconds}\n{text}".encode())
                times[name] = seconds
            else:
                raise Wrong(f"unknown type {key.kind}")
    need(signed_by_log, "the log did not sign")
    origin, size, root, *rest = text.split("\n")
    need(origin == keys[0].name, "origin is the log's name")
    need(rest == [""], "no further lines")
    need(size == str(int(size)) and int(size) >= 0, "size")
    return Head(origin, int(size), base64.b64decode(root, validate=True), times)


def leaf(entry: bytes) -> bytes:
    return hashlib.sha256(b"\0" + entry).digest()


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def mth(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, over leaf hashes."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return node(mth(leaves[:split]), mth(leaves[split:]))


def number(index: int) -> str:
    parts = [f"{index % 1000:03d}"]
    while index >= 1000:
        index //= 1000
        parts.insert(0, f"x{index % 1000:03d}")
    return "/".join(parts)


@dataclass
class Tree:
    """An exported log, read file by file."""

    folder: Path
    size: int
    files: dict[str, bytes] = field(default_factory=dict)  # read once

    def resource(self, level: int | str, index: int, count: int) -> bytes:
        """The tile or bundle `index` of a level that has `count` hashes or entries."""
        width = min(256, count - 256 * index)
        need(width > 0, "no empty tiles")
        suffix = "" if width == 256 else f".p/{width}"
        path = f"tile/{level}/{number(index)}{suffix}"
        if path not in self.files:
            self.files[path] = (self.folder / path).read_bytes()
        return self.files[path]

    def hash_at(self, level: int, index: int) -> bytes:
        """The hash `index` of tile level `level`: the root of 256**level leaves."""
        data = self.resource(level, index // 256, self.size // 256**level)
        return data[32 * (index % 256) : 32 * (index % 256) + 32]

    def range_hash(self, start: int, stop: int) -> bytes:
        """MTH of the leaves `start` to `stop`, from the highest tiles that hold it."""
        level = 0
        while 256 ** (level + 1) <= stop - start and start % 256 ** (level + 1) == 0:
            level += 1
        if stop - start == 256**level:
            return self.hash_at(level, start // 256**level)
        split = 1
        while split * 2 < stop - start:
            split *= 2
        return node(self.range_hash(start, start + split), self.range_hash(start + split, stop))

    def entries(self) -> list[bytes]:
        found: list[bytes] = []
        for index in range((self.size + 255) // 256):
            data = self.resource("entries", index, self.size)
            while data:
                (length,) = struct.unpack(">H", data[:2])
                need(len(data) >= 2 + length, "bundle cut off")
                found.append(data[2 : 2 + length])
                data = data[2 + length :]
        need(len(found) == self.size, "number of entries")
        return found

    def path(self, index: int, start: int, stop: int) -> list[bytes]:
        """PATH of RFC 6962 section 2.1.1."""
        if stop - start == 1:
            return []
        split = 1
        while split * 2 < stop - start:
            split *= 2
        if index < start + split:
            return [*self.path(index, start, start + split), self.range_hash(start + split, stop)]
        return [*self.path(index, start + split, stop), self.range_hash(start, start + split)]


def root_from_path(index: int, start: int, stop: int, value: bytes, path: list[bytes]) -> bytes:
    if stop - start == 1:
        need(not path, "path too long")
        return value
    need(bool(path), "path too short")
    split = 1
    while split * 2 < stop - start:
        split *= 2
    if index < start + split:
        return node(root_from_path(index, start, start + split, value, path[:-1]), path[-1])
    return node(path[-1], root_from_path(index, start + split, stop, value, path[:-1]))


def verify_folder(folder: Path, log: str, witnesses: list[str], *, proofs: bool = True) -> Head:
    """Everything: signatures, the root over all entries, every tile, and an inclusion proof of each entry."""
    head = open_checkpoint((folder / "checkpoint").read_bytes(), log, witnesses)
    tree = Tree(folder, head.size)
    entries = tree.entries()
    leaves = [leaf(entry) for entry in entries]
    need(mth(leaves) == head.root, "root over the entries")
    level = 0
    while head.size >> (8 * level):
        span = 256**level
        hashes = b"".join(mth(leaves[at : at + span]) for at in range(0, head.size // span * span, span))
        for index in range((len(hashes) // 32 + 255) // 256):
            stored = tree.resource(level, index, head.size // span)
            need(stored == hashes[8192 * index : 8192 * (index + 1)], f"tile {level}/{index}")
        level += 1
    if head.size:
        need(tree.range_hash(0, head.size) == head.root, "root over the tiles")
    for index in range(head.size if proofs else 0):
        got = root_from_path(index, 0, head.size, leaves[index], tree.path(index, 0, head.size))
        need(got == head.root, f"inclusion of entry {index}")
    return head
