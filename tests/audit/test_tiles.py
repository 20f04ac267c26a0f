"""Tiles and entry bundles: where they are, what they hold, and that they give the tree back."""

from __future__ import annotations

import random

import pytest

from audit.errors import TileError
from audit.merkle import (
    HASH_SIZE,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    tree_root,
    verify_consistency,
    verify_inclusion,
)
from audit.tiles import ENTRIES, Tile, TileHashes, Tiling, encode_bundle, parse_bundle, parse_tile, tiles_of
from tests.audit.memory_log import MemoryLog, entries

PATHS = [
    (Tile(0, 0), "tile/0/000"),
    (Tile(0, 1234067), "tile/0/x001/x234/067"),
    (Tile(3, 999), "tile/3/999"),
    (Tile(3, 1000), "tile/3/x001/000"),
    (Tile(63, 5, 255), "tile/63/005.p/255"),
    (Tile(0, 273, 112), "tile/0/273.p/112"),
    (Tile(ENTRIES, 7), "tile/entries/007"),
    (Tile(ENTRIES, 123456, 1), "tile/entries/x123/456.p/1"),
]


@pytest.mark.parametrize(("tile", "path"), PATHS, ids=[path for _, path in PATHS])
def test_paths(tile: Tile, path: str) -> None:
    assert tile.path == path
    assert Tile.parse(path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile",
        "tile/0",
        "tile/0/",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/00/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/x/000",
        "tile/0/x000/000",
        "tile/0/001/000",
        "tile/0/x001/x000",
        "tile/0/x001",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p",
        "tile/0/000.p/",
        "tile/0/000/1",
        "tile/0/000\n",
        "tile/0/٠٠٠",
        "tile/0/../../etc/passwd",
        "/tile/0/000",
        "tile/entries/../0/000",
        "tile/Entries/000",
        "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
    ],
)
def test_other_paths_are_refused(path: str) -> None:
    with pytest.raises(TileError):
        Tile.parse(path)


@pytest.mark.parametrize(("level", "index", "width"), [(-2, 0, 1), (64, 0, 1), (0, -1, 1), (0, 0, 0), (0, 0, 257)])
def test_tiles_that_do_not_exist(level: int, index: int, width: int) -> None:
    with pytest.raises(TileError):
        Tile(level, index, width)


def test_which_tiles_a_tree_has() -> None:
    assert list(tiles_of(0)) == []
    assert list(tiles_of(1)) == [Tile(ENTRIES, 0, 1), Tile(0, 0, 1)]
    assert list(tiles_of(256)) == [Tile(ENTRIES, 0), Tile(0, 0), Tile(1, 0, 1)]
    # The specification's own example.
    of_70000 = [tile for tile in tiles_of(70_000) if tile.level != ENTRIES]
    assert len([tile for tile in of_70000 if tile.level == 0 and tile.full]) == 273
    assert [tile for tile in of_70000 if not tile.full] == [Tile(0, 273, 112), Tile(1, 1, 17), Tile(2, 0, 1)]
    assert [tile for tile in of_70000 if tile.level == 1 and tile.full] == [Tile(1, 0)]


def test_a_tile_ends_where_its_last_leaf_does() -> None:
    for size in (1, 255, 256, 257, 65_536, 70_000):
        assert all(tile.end <= size for tile in tiles_of(size))
        whole = {(tile.level, tile.index): tile.width for tile in tiles_of(size)}
        for (level, index), width in whole.items():
            if width < 256:
                assert Tile(level, index, width + 1).end > size


def test_bundles() -> None:
    assert encode_bundle([b"ab", b"", b"c"]) == b"\0\2ab\0\0\0\1c"
    assert parse_bundle(b"\0\2ab\0\0\0\1c", 3) == [b"ab", b"", b"c"]
    longest = b"x" * 65_535
    assert parse_bundle(encode_bundle([longest] * 2), 2) == [longest] * 2
    with pytest.raises(TileError, match="at most 65535"):
        encode_bundle([longest + b"x"])


@pytest.mark.parametrize(
    ("data", "width", "message"),
    [
        (b"", 1, "expected 1 entries, got 0"),
        (b"\0", 1, "cut off"),
        (b"\0\2a", 1, "cut off"),
        (b"\0\1a\0", 2, "entry 1 of 2 is cut off"),
        (b"\0\1a", 2, "expected 2 entries, got 1"),
        (b"\0\1a\0\1b", 1, "3 bytes after the last"),
        (b"\0\1ax", 1, "1 bytes after the last"),
    ],
)
def test_broken_bundles(data: bytes, width: int, message: str) -> None:
    with pytest.raises(TileError, match=message):
        parse_bundle(data, width)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_broken_tiles(length: int) -> None:
    with pytest.raises(TileError, match="expected 1 hashes, 32 bytes"):
        parse_tile(bytes(length), 1)


@pytest.fixture(scope="module")
def log() -> MemoryLog:
    return MemoryLog(entries(65_600))


def tiles_by(tiling: Tiling, log: MemoryLog, size: int, step: int) -> dict[Tile, bytes]:
    found: dict[Tile, bytes] = {}
    for start in range(0, size, step):
        leaves = [leaf_hash(entry) for entry in log.read_entries(start, min(start + step, size))]
        found.update(tiling.append(leaves))
    found.update(tiling.partial())
    return found


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 511, 512, 5000, 65_537])
def test_tiling_gives_every_tile_and_the_root(log: MemoryLog, size: int) -> None:
    tiling = Tiling()
    found = tiles_by(tiling, log, size, 1000)
    assert set(found) == {tile for tile in tiles_of(size) if tile.level != ENTRIES}
    for tile, data in found.items():
        assert data == b"".join(log.read_hashes(tile.nodes()))
    assert tiling.size == size
    assert tiling.root() == log.root(size)


def test_a_tiling_goes_on_from_partial_tiles(log: MemoryLog) -> None:
    whole, first = Tiling(), Tiling()
    expected = tiles_by(whole, log, 1500, 1500)
    before = tiles_by(first, log, 700, 700)
    assert before[Tile(0, 2, 188)] == expected[Tile(0, 2)][: 188 * HASH_SIZE]
    second = Tiling([parse_tile(data, tile.width) for tile, data in first.partial()])
    assert second.size == 700
    assert second.root() == log.root(700)
    after = dict(second.append(leaf_hash(entry) for entry in log.read_entries(700, 1500)))
    after.update(second.partial())
    assert {tile: data for tile, data in (before | after).items() if tile in expected} == expected
    with pytest.raises(TileError, match="fewer than 256"):
        Tiling([[bytes(32)] * 256])


def test_an_empty_tiling_is_the_empty_tree() -> None:
    assert Tiling().partial() == []
    assert Tiling().root() == MemoryLog().root()


def test_every_proof_comes_from_tiles(log: MemoryLog) -> None:
    dice = random.Random(5)  # noqa: S311 - a test draws its cases
    for size in (1, 2, 255, 256, 257, 1000, 65_600):
        tiles = {tile: b"".join(log.read_hashes(tile.nodes())) for tile in tiles_of(size) if tile.level != ENTRIES}
        hashes = TileHashes(size, tiles.__getitem__)
        root = tree_root(size, hashes)
        assert root == log.root(size)
        for index in {0, size - 1, *(dice.randrange(size) for _ in range(20))}:
            proof = inclusion_proof(index, size, hashes)
            verify_inclusion(index, size, leaf_hash(log.entries[index]), proof, root)
        for smaller in {1, size, *(dice.randrange(1, size + 1) for _ in range(20))}:
            proof = consistency_proof(smaller, size, hashes)
            verify_consistency(smaller, size, proof, log.root(smaller), root)
        with pytest.raises(TileError, match="is not in a tree"):
            hashes.read_hashes([(0, size)])


def test_tiles_of_the_wrong_length_are_named() -> None:
    hashes = TileHashes(300, lambda tile: bytes(31))
    with pytest.raises(TileError, match=r"tile/0/001\.p/44: tile: expected 44 hashes"):
        hashes.read_hashes([(0, 299)])
