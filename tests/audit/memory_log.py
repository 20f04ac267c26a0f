"""A log in memory for tests of what others see: any entries, any history, signed with a test's own key."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.checkpoint import Checkpoint, sign_checkpoint
from audit.merkle import Frontier, Node, consistency_proof, leaf_hash, tree_root
from audit.note import VerifierKey

ORIGIN = "zegel-log/test"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
VKEY = VerifierKey.of(ORIGIN, KEY)


class MemoryLog:
    """What exports, servers and witnesses ask of a log. Two of them are two histories."""

    def __init__(self, entries: Iterable[bytes] = (), key: Ed25519PrivateKey = KEY, origin: str = ORIGIN) -> None:
        self.entries: list[bytes] = []
        self.key, self.origin = key, origin
        self._frontier = Frontier()
        self._nodes: dict[Node, bytes] = {}
        self.extend(entries)

    def extend(self, entries: Iterable[bytes]) -> MemoryLog:
        for entry in entries:
            self.entries.append(entry)
            self._nodes.update(self._frontier.append(leaf_hash(entry)))
        return self

    def read_entries(self, start: int, stop: int) -> list[bytes]:
        assert 0 <= start < stop <= len(self.entries)
        return self.entries[start:stop]

    def read_hashes(self, nodes: Sequence[Node]) -> list[bytes]:
        return [self._nodes[node] for node in nodes]

    def consistency_proof(self, size1: int, size2: int | None = None) -> list[bytes]:
        return consistency_proof(size1, len(self.entries) if size2 is None else size2, self)

    def root(self, size: int | None = None) -> bytes:
        return tree_root(len(self.entries) if size is None else size, self)

    def checkpoint(self, size: int | None = None) -> bytes:
        """The signed checkpoint over the first `size` entries; None: all."""
        size = len(self.entries) if size is None else size
        return sign_checkpoint(Checkpoint(self.origin, size, self.root(size)), self.key)


def entries(count: int, history: str = "a") -> list[bytes]:
    """Different entries, some empty and some long."""
    return [f"{history} {index} ".encode() * (index % 7) for index in range(count)]
