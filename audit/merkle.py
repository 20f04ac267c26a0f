"""The Merkle tree of RFC 6962: hashes, proofs and their verification.

Invariants:
- A leaf is SHA-256(00 || data), an inner node SHA-256(01 || left || right), so neither can pass as the other.
- Verification takes plain numbers and hashes, checks every range, and raises; it never looks at storage.
- Storage holds the hashes of complete subtrees only, each at (level, index): level 0 are the leaves, node
  (L, i) covers leaves i * 2**L up to (i + 1) * 2**L. These never change once written.

>>> leaves = [leaf_hash(d) for d in (b"a", b"b", b"c")]
>>> proof = [leaves[0], leaves[2]]
>>> verify_inclusion(1, 3, leaves[1], proof, root_of(leaves))

Source: RFC 6962 section 2.1; the verifying algorithms are those of RFC 9162 sections 2.1.3.2 and 2.1.4.2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Protocol

from audit.errors import ProofError

HASH_SIZE = 32  # bytes
MAX_TREE_SIZE = 2**63 - 1  # leaves; also the largest integer a database column holds
EMPTY_ROOT = hashlib.sha256(b"").digest()

Node = tuple[int, int]  # (level, index)


class HashReader(Protocol):
    """Where the hashes of complete subtrees are read.

    Promise: `read_hashes` returns one 32-byte hash per node asked for, in the same order, and raises when
    it does not hold one of them. The answers never change.
    """

    def read_hashes(self, nodes: Sequence[Node]) -> Sequence[bytes]: ...


def leaf_hash(data: bytes) -> bytes:
    """Hash of an entry's bytes."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node from its children's hashes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """The right edge of a growing tree: the complete subtrees that make up its `size` leaves, largest first.

    Enough to append and to compute the root without storage. At most 63 hashes.
    """

    def __init__(self, size: int = 0, hashes: Sequence[bytes] = ()) -> None:
        """Raises ProofError unless `hashes` are the hashes of `frontier_nodes(size)`."""
        _check_size(size)
        _check_hashes(hashes, "frontier")
        if len(hashes) != size.bit_count():
            raise ProofError(f"frontier of {size} leaves: expected {size.bit_count()} hashes, got {len(hashes)}")
        self._size = size
        self._hashes = list(hashes)

    @property
    def size(self) -> int:
        """Number of leaves."""
        return self._size

    def copy(self) -> Frontier:
        """One that grows on its own from here."""
        return Frontier(self._size, self._hashes)

    def append(self, leaf: bytes) -> list[tuple[Node, bytes]]:
        """Adds a leaf hash; returns every node this completes, with its hash, from the leaf upwards."""
        _check_hashes([leaf], "leaf")
        if self._size >= MAX_TREE_SIZE:
            raise ProofError(f"tree is full at {MAX_TREE_SIZE} leaves")
        index, level, value = self._size, 0, leaf
        completed: list[tuple[Node, bytes]] = [((0, index), value)]
        while index & 1:
            value = node_hash(self._hashes.pop(), value)
            index >>= 1
            level += 1
            completed.append(((level, index), value))
        self._hashes.append(value)
        self._size += 1
        return completed

    def root(self) -> bytes:
        """The tree's root; `EMPTY_ROOT` for no leaves."""
        return _fold(self._hashes) if self._hashes else EMPTY_ROOT


def frontier_nodes(size: int) -> list[Node]:
    """The complete subtrees that make up a tree of `size` leaves, left to right."""
    _check_size(size)
    return _complete_subtrees(0, size)


def root_of(leaf_hashes: Iterable[bytes]) -> bytes:
    """The root over leaf hashes held in memory."""
    frontier = Frontier()
    for value in leaf_hashes:
        frontier.append(value)
    return frontier.root()


def tree_root(size: int, reader: HashReader) -> bytes:
    """The root of the first `size` leaves in storage."""
    nodes = frontier_nodes(size)
    return _fold(reader.read_hashes(nodes)) if nodes else EMPTY_ROOT


def inclusion_proof(index: int, size: int, reader: HashReader) -> list[bytes]:
    """PATH(index, D[size]) of RFC 6962 section 2.1.1, from the leaf's sibling up to the root's child."""
    _check_index(index, size)
    return _read_ranges(_inclusion_ranges(index, 0, size), reader)


def consistency_proof(size1: int, size2: int, reader: HashReader) -> list[bytes]:
    """PROOF(size1, D[size2]) of RFC 6962 section 2.1.2; 1 <= size1 <= size2. Empty when the sizes are
    equal.
    """
    _check_sizes(size1, size2)
    if size1 == size2:
        return []
    return _read_ranges(_consistency_ranges(size1, 0, size2, whole=True), reader)


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> None:
    """Raises ProofError unless `leaf` is the hash of leaf `index` in the tree of `size` leaves with this
    `root`.

    `proof` runs from the leaf upwards. 0 <= index < size.
    """
    _check_index(index, size)
    _check_hashes([leaf], "leaf")
    _check_hashes([root], "root")
    _check_hashes(proof, "inclusion proof")
    what = f"inclusion proof of leaf {index} in a tree of {size}"
    position, last, value = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise ProofError(f"{what}: too many hashes ({len(proof)})")
        if position & 1 or position == last:
            value = node_hash(sibling, value)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            value = node_hash(value, sibling)
        position >>= 1
        last >>= 1
    if last != 0:
        raise ProofError(f"{what}: too few hashes ({len(proof)})")
    if value != root:
        raise ProofError(f"{what}: expected root {root.hex()}, got {value.hex()}")


def verify_consistency(size1: int, size2: int, proof: Sequence[bytes], root1: bytes, root2: bytes) -> None:
    """Raises ProofError unless the tree (`size1`, `root1`) is a prefix of the tree (`size2`, `root2`).

    1 <= size1 <= size2: an empty tree is a prefix of everything, so a proof from it would say nothing.
    """
    _check_sizes(size1, size2)
    _check_hashes([root1, root2], "root")
    _check_hashes(proof, "consistency proof")
    what = f"consistency proof from {size1} to {size2} leaves"
    if size1 == size2:
        if proof:
            raise ProofError(f"{what}: expected no hashes for equal sizes, got {len(proof)}")
        if root1 != root2:
            raise ProofError(f"{what}: sizes are equal but the roots differ")
        return
    # A complete first tree is itself the proof's first node; RFC 9162 leaves it out because root1 is known.
    path = [root1, *proof] if size1 & (size1 - 1) == 0 else list(proof)
    if not path:
        raise ProofError(f"{what}: too few hashes (0)")
    first, second = size1 - 1, size2 - 1
    while first & 1:
        first >>= 1
        second >>= 1
    value1 = value2 = path[0]
    for sibling in path[1:]:
        if second == 0:
            raise ProofError(f"{what}: too many hashes ({len(proof)})")
        if first & 1 or first == second:
            value1 = node_hash(sibling, value1)
            value2 = node_hash(sibling, value2)
            while not first & 1 and first:
                first >>= 1
                second >>= 1
        else:
            value2 = node_hash(value2, sibling)
        first >>= 1
        second >>= 1
    if second != 0:
        raise ProofError(f"{what}: too few hashes ({len(proof)})")
    if value1 != root1:
        raise ProofError(f"{what}: expected first root {root1.hex()}, got {value1.hex()}")
    if value2 != root2:
        raise ProofError(f"{what}: expected second root {root2.hex()}, got {value2.hex()}")


def _complete_subtrees(start: int, stop: int) -> list[Node]:
    # RFC 6962 splits at the largest power of two below the length, so `start` is a multiple of each
    # subtree's size.
    nodes: list[Node] = []
    while start < stop:
        level = (stop - start).bit_length() - 1
        nodes.append((level, start >> level))
        start += 1 << level
    return nodes


def _split(start: int, stop: int) -> int:
    return start + (1 << ((stop - start - 1).bit_length() - 1))


def _inclusion_ranges(index: int, start: int, stop: int) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    while stop - start > 1:
        middle = _split(start, stop)
        if index < middle:
            ranges.append((middle, stop))
            stop = middle
        else:
            ranges.append((start, middle))
            start = middle
    return ranges[::-1]


def _consistency_ranges(size1: int, start: int, stop: int, *, whole: bool) -> list[tuple[int, int]]:
    # `whole`: the range up to size1 is still the whole first tree, whose root the verifier has.
    ranges: list[tuple[int, int]] = []
    while size1 != stop:
        middle = _split(start, stop)
        if size1 <= middle:
            ranges.append((middle, stop))
            stop = middle
        else:
            ranges.append((start, middle))
            start = middle
            whole = False
    if not whole:
        ranges.append((start, stop))
    return ranges[::-1]


def _read_ranges(ranges: Sequence[tuple[int, int]], reader: HashReader) -> list[bytes]:
    groups = [_complete_subtrees(start, stop) for start, stop in ranges]
    hashes = iter(reader.read_hashes([node for group in groups for node in group]))
    return [_fold([next(hashes) for _ in group]) for group in groups]


def _fold(hashes: Sequence[bytes]) -> bytes:
    value = hashes[-1]
    for left in reversed(hashes[:-1]):
        value = node_hash(left, value)
    return value


def _check_size(size: int) -> None:
    if type(size) is not int or not 0 <= size <= MAX_TREE_SIZE:
        raise ProofError(f"tree size: expected an integer from 0 to {MAX_TREE_SIZE}, got {size!r}")


def _check_index(index: int, size: int) -> None:
    _check_size(size)
    if type(index) is not int or not 0 <= index < size:
        raise ProofError(f"leaf index: expected an integer from 0 to below the tree size {size}, got {index!r}")


def _check_sizes(size1: int, size2: int) -> None:
    _check_size(size1)
    _check_size(size2)
    if not 1 <= size1 <= size2:
        raise ProofError(f"tree sizes: expected 1 <= first <= second, got {size1} and {size2}")


def _check_hashes(hashes: Sequence[bytes], what: str) -> None:
    for value in hashes:
        if type(value) is not bytes or len(value) != HASH_SIZE:
            got = f"{len(value)} bytes" if isinstance(value, bytes) else type(value).__name__
            raise ProofError(f"{what}: expected hashes of {HASH_SIZE} bytes, got {got}")
