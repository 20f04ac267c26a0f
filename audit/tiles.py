"""Tiles: the tree's hashes and the log's entries cut into files that never change.

A tile holds up to 256 neighbouring hashes: at level 0 those of leaves, at level L + 1 those of full tiles of level L.
An entry bundle holds the entries whose hashes are the level-0 tile of the same number, each after its length.

Invariants:
- A full tile never changes. A partial one is a prefix of what it grows into, and never hashed into the level above.
- `Tile.parse(t.path)` equals `t`, and no other text gives `t`.
- `Tiling` computes every hash from the leaves alone; what it yields can be compared with what somebody stored.

>>> Tile(0, 1234067).path
'tile/0/x001/x234/067'

Source: C2SP tlog-tiles (https://c2sp.org/tlog-tiles).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from audit.canonical import shown
from audit.entry import MAX_ENTRY_SIZE
from audit.errors import TileError
from audit.merkle import HASH_SIZE, MAX_TREE_SIZE, Frontier, Node, node_hash

TILE_WIDTH = 256  # hashes in a full tile
ENTRIES = -1  # the level of entry bundles
MAX_LEVEL = 63  # of the specification; a tree of 2**63 leaves needs 7
_HEIGHT = 8  # levels of the tree in one tile
_LENGTH_SIZE = 2  # bytes before an entry in a bundle
_PATH = re.compile(r"tile/(entries|[0-9]{1,2})/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([0-9]{1,3}))?", re.ASCII)


@dataclass(frozen=True, order=True)
class Tile:
    """Where a tile or entry bundle is, and how many hashes or entries it holds."""

    level: int  # 0 to 63; ENTRIES for a bundle
    index: int  # within the level
    width: int = TILE_WIDTH  # 1 to 256

    def __post_init__(self) -> None:
        if not ENTRIES <= self.level <= MAX_LEVEL:
            raise TileError(f"tile level: expected 0 to {MAX_LEVEL}, got {self.level}")
        if not 0 <= self.index <= MAX_TREE_SIZE:
            raise TileError(f"tile index: expected 0 to {MAX_TREE_SIZE}, got {self.index}")
        if not 1 <= self.width <= TILE_WIDTH:
            raise TileError(f"tile width: expected 1 to {TILE_WIDTH}, got {self.width}")

    @property
    def full(self) -> bool:
        """Whether it will never grow."""
        return self.width == TILE_WIDTH

    @property
    def end(self) -> int:
        """How many leaves the tree must have before this tile exists."""
        return (self.index * TILE_WIDTH + self.width) << (_HEIGHT * max(self.level, 0))

    @property
    def path(self) -> str:
        """The path below the log's URL prefix or folder."""
        digits = str(self.index)
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
        number = "".join(f"x{group}/" for group in groups[:-1]) + groups[-1]
        level = "entries" if self.level == ENTRIES else str(self.level)
        return f"tile/{level}/{number}" + ("" if self.full else f".p/{self.width}")

    @classmethod
    def parse(cls, path: str) -> Tile:
        """The tile of a path; raises TileError for any spelling other than `path`'s."""
        match = _PATH.fullmatch(path)
        if match is None:
            raise TileError(f"tile path: expected tile/<level>/<index>[.p/<width>], got {shown(path)}")
        level, number, width = match.groups()
        tile = cls(
            ENTRIES if level == "entries" else int(level),
            int(number.replace("x", "").replace("/", "")),
            TILE_WIDTH if width is None else int(width),
        )
        if tile.path != path:
            raise TileError(f"tile path: expected {tile.path}, got {shown(path)}")
        return tile

    def nodes(self) -> list[Node]:
        """The complete subtrees whose hashes the tile holds, left to right."""
        level, first = _HEIGHT * max(self.level, 0), self.index * TILE_WIDTH
        return [(level, first + position) for position in range(self.width)]


def tiles_of(size: int) -> Iterator[Tile]:
    """Every entry bundle and tile of a tree of `size` leaves, level by level from the entries upwards."""
    level = ENTRIES
    count = size
    while count:
        for index in range(count // TILE_WIDTH):
            yield Tile(level, index)
        if count % TILE_WIDTH:
            yield Tile(level, count // TILE_WIDTH, count % TILE_WIDTH)
        level += 1
        count = size >> (_HEIGHT * level)


def encode_bundle(entries: Iterable[bytes]) -> bytes:
    """An entry bundle: each entry after its length in 2 bytes, big-endian. Raises TileError for one too long."""
    parts: list[bytes] = []
    for entry in entries:
        if len(entry) > MAX_ENTRY_SIZE:
            raise TileError(f"entry bundle: expected entries of at most {MAX_ENTRY_SIZE} bytes, got {len(entry)}")
        parts += (len(entry).to_bytes(_LENGTH_SIZE, "big"), entry)
    return b"".join(parts)


def parse_bundle(data: bytes, width: int) -> list[bytes]:
    """The entries of a bundle of `width`; raises TileError when the bytes hold fewer, or anything more."""
    entries: list[bytes] = []
    at = 0
    while at < len(data) and len(entries) < width:
        start = at + _LENGTH_SIZE
        at = start + int.from_bytes(data[at:start], "big")
        if start > len(data) or at > len(data):
            raise TileError(f"entry bundle: entry {len(entries)} of {width} is cut off")
        entries.append(data[start:at])
    if len(entries) != width:
        raise TileError(f"entry bundle: expected {width} entries, got {len(entries)}")
    if at != len(data):
        raise TileError(f"entry bundle: {len(data) - at} bytes after the last of {width} entries")
    return entries


def parse_tile(data: bytes, width: int) -> list[bytes]:
    """The hashes of a tile of `width`; raises TileError for another number of bytes."""
    if len(data) != width * HASH_SIZE:
        raise TileError(f"tile: expected {width} hashes, {width * HASH_SIZE} bytes, got {len(data)} bytes")
    return [data[at : at + HASH_SIZE] for at in range(0, len(data), HASH_SIZE)]


class Tiling:
    """The tiles of a growing tree: leaf hashes in, tiles out. Holds the partial tiles only."""

    def __init__(self, partial: Sequence[Sequence[bytes]] = ()) -> None:
        """`partial` are the hashes of the partial tiles of the tree to go on from, level 0 first."""
        self._open: list[list[bytes]] = [list(hashes) for hashes in partial] or [[]]
        for level, hashes in enumerate(self._open):
            if len(hashes) >= TILE_WIDTH:
                raise TileError(f"partial tile at level {level}: expected fewer than {TILE_WIDTH} hashes")
        self._size = sum(len(hashes) << (_HEIGHT * level) for level, hashes in enumerate(self._open))

    @property
    def size(self) -> int:
        """Number of leaves."""
        return self._size

    def append(self, leaves: Iterable[bytes]) -> list[tuple[Tile, bytes]]:
        """Adds leaf hashes; returns the full tiles this completes, with their bytes, lower levels first."""
        completed: list[tuple[Tile, bytes]] = []
        for leaf in leaves:
            self._size += 1
            level, value = 0, leaf
            while True:
                if level == len(self._open):
                    self._open.append([])
                hashes = self._open[level]
                hashes.append(value)
                if len(hashes) < TILE_WIDTH:
                    break
                index = (self._size >> (_HEIGHT * (level + 1))) - 1
                completed.append((Tile(level, index), b"".join(hashes)))
                value = _complete_root(hashes)
                hashes.clear()
                level += 1
        return completed

    def partial(self) -> list[tuple[Tile, bytes]]:
        """The partial tiles, with their bytes, lower levels first."""
        return [
            (Tile(level, self._size >> (_HEIGHT * (level + 1)), len(hashes)), b"".join(hashes))
            for level, hashes in enumerate(self._open)
            if hashes
        ]

    def root(self) -> bytes:
        """The tree's root."""
        edge: list[bytes] = []
        for hashes in reversed(self._open):
            at = 0
            for bit in reversed(range(_HEIGHT)):
                if len(hashes) >> bit & 1:
                    edge.append(_complete_root(hashes[at : at + (1 << bit)]))
                    at += 1 << bit
        return Frontier(self._size, edge).root()


class TileHashes:
    """The hashes of complete subtrees, computed from the tiles of a tree (a `merkle.HashReader`).

    With `audit.merkle` it gives the root and every proof of the tree, or of any smaller one.
    """

    def __init__(self, size: int, read: Callable[[Tile], bytes]) -> None:
        """`read` gives a tile's bytes, or raises; only tiles of the tree of `size` leaves are asked for."""
        self._size = size
        self._read = read
        self._known: dict[tuple[int, int], list[bytes]] = {}

    def read_hashes(self, nodes: Sequence[Node]) -> list[bytes]:
        """One hash per node; raises TileError for a node beyond the tree."""
        return [self._hash(level, index) for level, index in nodes]

    def _hash(self, level: int, index: int) -> bytes:
        if (index + 1) << level > self._size:
            raise TileError(f"tree node (level {level}, index {index}) is not in a tree of {self._size} leaves")
        stored, above = divmod(level, _HEIGHT)
        first = index << above
        tile, position = divmod(first, TILE_WIDTH)
        hashes = self._hashes(stored, tile)
        return _complete_root(hashes[position : position + (1 << above)])

    def _hashes(self, level: int, index: int) -> list[bytes]:
        if (level, index) not in self._known:
            width = min(TILE_WIDTH, (self._size >> (_HEIGHT * level)) - index * TILE_WIDTH)
            tile = Tile(level, index, width)
            try:
                self._known[level, index] = parse_tile(self._read(tile), width)
            except TileError as error:
                raise TileError(f"{tile.path}: {error}") from error
        return self._known[level, index]


def _complete_root(hashes: Sequence[bytes]) -> bytes:
    """The root over hashes whose number is a power of two."""
    while len(hashes) > 1:
        hashes = [node_hash(hashes[at], hashes[at + 1]) for at in range(0, len(hashes), 2)]
    return hashes[0]
