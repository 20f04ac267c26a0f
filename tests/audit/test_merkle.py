"""The Merkle tree: every small tree, every proof, each tampered; and others' vectors."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from audit.errors import ProofError
from audit.merkle import (
    EMPTY_ROOT,
    MAX_TREE_SIZE,
    Frontier,
    Node,
    consistency_proof,
    frontier_nodes,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_of,
    tree_root,
    verify_consistency,
    verify_inclusion,
)

SIZE = 64
VECTORS = Path(__file__).parent / "vectors"


class Tree:
    """All hashes of a tree in memory (a HashReader), and the root of every prefix."""

    def __init__(self, size: int) -> None:
        self.hashes: dict[Node, bytes] = {}
        frontier = Frontier()
        self.roots = [frontier.root()]
        for index in range(size):
            self.hashes.update(frontier.append(leaf_hash(bytes([index]))))
            self.roots.append(frontier.root())

    def read_hashes(self, nodes: Sequence[Node]) -> list[bytes]:
        return [self.hashes[node] for node in nodes]


TREE = Tree(SIZE)


def reference_root(leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, as written there."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + reference_root(leaves[:k]) + reference_root(leaves[k:])).digest()


def flipped(value: bytes) -> bytes:
    return bytes([value[0] ^ 1]) + value[1:]


def test_hashes_of_the_rfc() -> None:
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert node_hash(b"a", b"b") == hashlib.sha256(b"\x01ab").digest()


def test_roots_are_those_of_the_definition() -> None:
    leaves = [bytes([i]) for i in range(SIZE)]
    for size in range(SIZE + 1):
        expected = reference_root(leaves[:size])
        assert TREE.roots[size] == expected
        assert tree_root(size, TREE) == expected
        assert root_of(leaf_hash(leaf) for leaf in leaves[:size]) == expected
        assert Frontier(size, TREE.read_hashes(frontier_nodes(size))).root() == expected


@pytest.mark.parametrize("size", range(1, SIZE + 1))
def test_inclusion_in_every_tree(size: int) -> None:
    root = TREE.roots[size]
    for index in range(size):
        leaf = leaf_hash(bytes([index]))
        proof = inclusion_proof(index, size, TREE)
        verify_inclusion(index, size, leaf, proof, root)
        wrong: list[tuple[int, int, bytes, list[bytes], bytes]] = [
            (index, size, flipped(leaf), proof, root),
            (index, size, leaf, proof, flipped(root)),
            (index, size, leaf, [*proof, leaf], root),
            (index, size, leaf, [leaf, *proof], root),
            (index + 1, size, leaf, proof, root),
            (index - 1, size, leaf, proof, root),
            (size, size, leaf, proof, root),
        ]
        wrong += [
            (index, size, leaf, [*proof[:i], flipped(value), *proof[i + 1 :]], root) for i, value in enumerate(proof)
        ]
        if proof:
            wrong.append((index, size, leaf, proof[:-1], root))
            wrong.append((index, size, leaf, proof[1:], root))
        for case in wrong:
            with pytest.raises(ProofError):
                verify_inclusion(*case)


@pytest.mark.parametrize("size2", range(1, SIZE + 1))
def test_consistency_of_every_pair(size2: int) -> None:
    root2 = TREE.roots[size2]
    for size1 in range(1, size2 + 1):
        root1 = TREE.roots[size1]
        proof = consistency_proof(size1, size2, TREE)
        verify_consistency(size1, size2, proof, root1, root2)
        wrong: list[tuple[int, int, list[bytes], bytes, bytes]] = [
            (size1, size2, proof, flipped(root1), root2),
            (size1, size2, proof, root1, flipped(root2)),
            (size1, size2, [*proof, root1], root1, root2),
            (size1, size2, [root1, *proof], root1, root2),
            (size2 + 1, size2, proof, root1, root2),
            (0, size2, proof, root1, root2),
        ]
        wrong += [
            (size1, size2, [*proof[:i], flipped(value), *proof[i + 1 :]], root1, root2) for i, value in enumerate(proof)
        ]
        if proof:
            wrong.append((size1, size2, proof[:-1], root1, root2))
            wrong.append((size1, size2, proof[1:], root1, root2))
        for case in wrong:
            with pytest.raises(ProofError):
                verify_consistency(*case)


def vectors(name: str) -> list[Any]:
    cases: list[dict[str, Any]] = json.loads((VECTORS / name).read_text(encoding="utf-8"))
    assert len(cases) == 98
    return [pytest.param(case, id=case["name"]) for case in cases]


def decoded(value: str | None) -> bytes:
    return base64.b64decode(value or "")


def hashes_of(values: list[str] | None) -> list[bytes]:
    return [decoded(value) for value in values or []]


@pytest.mark.parametrize("case", vectors("merkle_inclusion.json"))
def test_inclusion_vectors(case: dict[str, Any]) -> None:
    arguments = (
        case["leafIdx"],
        case["treeSize"],
        decoded(case["leafHash"]),
        hashes_of(case["proof"]),
        decoded(case["root"]),
    )
    if case["wantErr"]:
        with pytest.raises(ProofError):
            verify_inclusion(*arguments)
    else:
        verify_inclusion(*arguments)


@pytest.mark.parametrize("case", vectors("merkle_consistency.json"))
def test_consistency_vectors(case: dict[str, Any]) -> None:
    sizes = (case["size1"], case["size2"])
    proof, roots = hashes_of(case["proof"]), [decoded(case["root1"]), decoded(case["root2"])]
    placeholders = any(len(value) != 32 for value in roots)
    if case["wantErr"] or placeholders:
        with pytest.raises(ProofError):
            verify_consistency(*sizes, proof, *roots)
    if not case["wantErr"]:
        if placeholders:
            roots = [hashlib.sha256(value).digest() for value in roots]
        verify_consistency(*sizes, proof, *roots)


def test_one_vector_uses_placeholders_where_it_should_succeed() -> None:
    short = [
        case.id
        for case in vectors("merkle_consistency.json")
        if not case.values[0]["wantErr"] and len(decoded(case.values[0]["root1"])) != 32
    ]
    assert short == ["additional/sizes-are-equal-one-and-proof-is-empty.json"]


def test_ranges() -> None:
    leaf = leaf_hash(b"")
    bad: Any
    for bad in (-1, 1.0, True, "1", None, MAX_TREE_SIZE + 1):
        with pytest.raises(ProofError, match=r"tree size|leaf index"):
            verify_inclusion(0, bad, leaf, [], leaf)
        with pytest.raises(ProofError, match="leaf index"):
            verify_inclusion(bad, 1, leaf, [], leaf)
        with pytest.raises(ProofError, match="tree size"):
            verify_consistency(bad, 2, [], leaf, leaf)
    with pytest.raises(ProofError, match="from 0 to below the tree size 1, got 1"):
        verify_inclusion(1, 1, leaf, [], leaf)
    for bad in (b"", leaf + b"x", "x" * 32, None):
        with pytest.raises(ProofError, match="expected hashes of 32 bytes"):
            verify_inclusion(0, 1, bad, [], leaf)
        with pytest.raises(ProofError, match="expected hashes of 32 bytes"):
            verify_inclusion(0, 2, leaf, [bad], leaf)
        with pytest.raises(ProofError, match="expected hashes of 32 bytes"):
            verify_consistency(1, 2, [bad], leaf, leaf)
    with pytest.raises(ProofError, match="expected 2 hashes, got 1"):
        Frontier(3, [leaf])
    with pytest.raises(ProofError, match="full"):
        Frontier(MAX_TREE_SIZE, [leaf] * 63).append(leaf)


def test_a_copy_grows_alone() -> None:
    frontier = Frontier()
    frontier.append(leaf_hash(b"a"))
    other = frontier.copy()
    other.append(leaf_hash(b"b"))
    assert (frontier.size, other.size) == (1, 2)
    assert frontier.root() == leaf_hash(b"a")
