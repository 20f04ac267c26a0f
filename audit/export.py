"""The log as a folder of files, and checking such a folder with nothing but the log's key.

`checkpoint`, the tiles and the entry bundles lie where C2SP tlog-tiles puts them, so that the folder can be served as
it is by any web server, kept on any medium and read by other tools.

Invariants:
- The checkpoint is replaced last and atomically, once every file it needs is on disk: a crash leaves the folder of the
  old checkpoint, with perhaps some files of the new one, which the next export takes over.
- A folder only ever grows: one that holds another log, a longer one, or another history is left alone.
- Partial tiles of earlier exports stay until the full tile is there, because somebody may hold the checkpoint that
  needs them. They are prefixes of what replaces them, and checked to be.
- `verify_export` derives every byte of every file from the entries, and refuses files it cannot place.

Source: C2SP tlog-tiles (https://c2sp.org/tlog-tiles).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from audit.canonical import shown
from audit.checkpoint import Checkpoint, open_checkpoint
from audit.cosignature import add_signatures
from audit.durable_file import sync_directory, write_durably
from audit.errors import AuditError, TileError
from audit.merkle import EMPTY_ROOT, leaf_hash, verify_consistency
from audit.note import VerifierKey, parse_note
from audit.tiles import (
    ENTRIES,
    TILE_WIDTH,
    Tile,
    TileHashes,
    Tiling,
    encode_bundle,
    parse_bundle,
    parse_tile,
    tiles_of,
)

CHECKPOINT = "checkpoint"
_TEMPORARY = ".export.tmp"
Progress = Callable[[int, int], None]  # entries done, entries in all


class ExportableLog(Protocol):
    """What an export reads of a log (`audit.store.Log`)."""

    def read_entries(self, start: int, stop: int) -> list[bytes]: ...

    def consistency_proof(self, size1: int, size2: int | None = None) -> list[bytes]: ...


@dataclass(frozen=True)
class Exported:
    """What an export did."""

    checkpoint: Checkpoint
    added: int  # entries the folder did not hold before
    written: int  # files
    removed: int  # partial tiles whose full tile is there now


def write_export(
    log: ExportableLog, checkpoint: bytes, key: VerifierKey, folder: Path, progress: Progress | None = None
) -> Exported:
    """Brings `folder` up to a signed checkpoint of the log; made when there is none.

    `checkpoint` may bear cosignatures; those the folder's own checkpoint of the same tree bears are kept. `progress`
    is told how far it is, in entries. Stopped half way, it goes on when called again.

    Raises TileError when the folder holds something else, a longer log or one this log does not continue, when another
    export is writing to it, or a file cannot be written; NoteError or CheckpointError for a checkpoint that is not
    this key's.
    """
    target = open_checkpoint(checkpoint, key)
    with _writing(folder) as files:
        held, held_note = _held(files, key)
        if held.size > target.size:
            raise TileError(
                f"{folder} holds {held.size} entries, but the checkpoint covers {target.size} only: the log was set "
                "back, or this is an old copy of it; find out which before exporting elsewhere"
            )
        tiling = _continued(files, log, held, target)
        start = tiling.size
        for first in range(start, target.size, TILE_WIDTH):
            last = min(first + TILE_WIDTH, target.size)
            entries = log.read_entries(first, last)
            files.write(Tile(ENTRIES, first // TILE_WIDTH, last - first), encode_bundle(entries))
            for tile, data in tiling.append(leaf_hash(entry) for entry in entries):
                files.write(tile, data)
            if progress is not None:
                progress(last - start, target.size - start)
        for tile, data in tiling.partial():
            files.write(tile, data)
        if tiling.root() != target.root:
            raise TileError(
                f"the log's first {target.size} entries give the root {tiling.root().hex()}, but "
                f"{target.root.hex()} was signed for them; run `zegel audit check`"
            )
        files.sync()
        if held_note is not None and held.size == target.size:
            checkpoint = add_signatures(checkpoint, parse_note(held_note).signatures)
        if checkpoint != held_note:
            write_durably(folder / CHECKPOINT, checkpoint)
        return Exported(target, target.size - held.size, files.written, files.drop_superseded())


def verify_export(folder: Path, key: VerifierKey, progress: Progress | None = None) -> Checkpoint:
    """The checkpoint of an exported log, when every file under `folder` is what the log's key signed for.

    `progress` is told how many entries are checked. Raises TileError naming the first file that is missing, changed,
    cut, of another place, or no part of the log. Cosignatures are not looked at (`audit.witness_policy`).
    """
    try:
        checkpoint = open_checkpoint(_read(folder, CHECKPOINT), key)
    except TileError:
        raise
    except AuditError as error:
        raise TileError(f"{CHECKPOINT}: {error}") from error
    tiling = Tiling()
    for entries in _bundles(folder, checkpoint.size):
        _check_tiles(folder, tiling.append([leaf_hash(entry) for entry in entries]))
        if progress is not None:
            progress(tiling.size, checkpoint.size)
    _check_tiles(folder, tiling.partial())
    if tiling.root() != checkpoint.root:
        raise TileError(
            f"{CHECKPOINT}: signed for the root {checkpoint.root.hex()}, but the entries give {tiling.root().hex()}: "
            "the files belong to another history"
        )
    _check_strays(folder, checkpoint.size)
    return checkpoint


def exported_entries(folder: Path, size: int) -> Iterator[bytes]:
    """The bytes of the first `size` entries of an exported log, in order. Checked for form only."""
    for entries in _bundles(folder, size):
        yield from entries


def exported_founding(folder: Path) -> bytes:
    """The bytes of an exported log's first entry, not checked: from it and the root certificate follows the log's key
    (`audit.evidence`), with which the rest is checked.
    """
    try:
        size = Checkpoint.from_text(parse_note(_read(folder, CHECKPOINT)).text).size
    except TileError:
        raise
    except AuditError as error:
        raise TileError(f"{CHECKPOINT}: {error}") from error
    for entry in exported_entries(folder, size):
        return entry
    raise TileError(f"{CHECKPOINT}: covers no entries, so it does not say whose log it is; give the log's key")


def exported_hashes(folder: Path, size: int) -> TileHashes:
    """The tree's hashes, read from the tiles of an exported log of `size` entries; not checked against the entries."""
    return TileHashes(size, lambda tile: _read(folder, tile.path))


class _Files:
    """Writes an export's files, each atomically, and remembers what has yet to be made durable."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written = 0
        self._unsynced: set[Path] = set()

    def write(self, tile: Tile, data: bytes) -> None:
        """Puts the file in place unless it is there already. Its name is durable only after `sync`."""
        path = self.folder / tile.path
        if path.is_file() and path.read_bytes() == data:
            return
        try:
            self._make(path.parent)
            temporary = self.folder / _TEMPORARY
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            raise TileError(f"{tile.path} cannot be written: {error}; nothing is lost, export again") from error
        self._unsynced.add(path.parent)
        self.written += 1

    def sync(self) -> None:
        """Makes the names of everything written durable."""
        for directory in sorted(self._unsynced):
            sync_directory(directory)
        self._unsynced.clear()

    def drop_superseded(self) -> int:
        """Removes partial tiles whose full tile is there; returns how many."""
        removed = 0
        for directory in sorted((self.folder / "tile").glob("**/*.p")):
            if not directory.with_suffix("").is_file():
                continue
            for path in sorted(directory.iterdir()):
                path.unlink()
                removed += 1
            directory.rmdir()
        return removed

    def _make(self, directory: Path) -> None:
        if not directory.is_dir():
            self._make(directory.parent)
            directory.mkdir(exist_ok=True)
            self._unsynced.add(directory.parent)


@contextmanager
def _writing(folder: Path) -> Iterator[_Files]:
    """The folder, ours alone while the block runs."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        foreign = [path.name for path in sorted(folder.iterdir()) if path.name not in (CHECKPOINT, "tile", _TEMPORARY)]
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise TileError(f"{folder} cannot be used: {error}") from error
    if foreign:
        os.close(descriptor)
        raise TileError(f"{folder} holds {shown(foreign[0])}, which no export wrote; give a new or an exported folder")
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TileError(f"another export is writing to {folder}; wait for it to end") from None
        try:
            yield _Files(folder)
        finally:
            (folder / _TEMPORARY).unlink(missing_ok=True)
    finally:
        os.close(descriptor)  # lets go of the lock


def _held(files: _Files, key: VerifierKey) -> tuple[Checkpoint, bytes | None]:
    path = files.folder / CHECKPOINT
    if not path.exists():
        return Checkpoint(key.name, 0, EMPTY_ROOT), None
    try:
        note = path.read_bytes()
        return open_checkpoint(note, key), note
    except (AuditError, OSError) as error:
        raise TileError(f"{path} is not a checkpoint of {key.name}: {error}; export to another folder") from error


def _continued(files: _Files, log: ExportableLog, held: Checkpoint, target: Checkpoint) -> Tiling:
    """The tiling to go on with: the tree the folder holds, back to the last full bundle."""
    if held.size == 0:
        return Tiling()
    proof = log.consistency_proof(held.size, target.size)
    try:
        verify_consistency(held.size, target.size, proof, held.root, target.root)
    except AuditError as error:
        raise TileError(
            f"{files.folder} holds a signed tree of {held.size} entries that the log does not contain: two histories "
            f"have been signed; keep the folder as evidence, export to another one ({error})"
        ) from error
    partial: list[list[bytes]] = []
    for tile in tiles_of(held.size):
        while tile.level >= len(partial):
            partial.append([])
        if tile.level != ENTRIES and not tile.full:
            partial[tile.level] = parse_tile(_read(files.folder, tile.path), tile.width)
    whole = Tiling(partial)
    if whole.root() != held.root:
        raise TileError(f"{files.folder} is damaged: its tiles do not give its checkpoint's root; export anew")
    return Tiling([[], *partial[1:]])


def _read(folder: Path, path: str) -> bytes:
    file = folder / path
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise TileError(f"{path}: missing") from None
    except OSError as error:
        raise TileError(f"{path}: cannot be read: {error}") from error


def _bundles(folder: Path, size: int) -> Iterator[list[bytes]]:
    for first in range(0, size, TILE_WIDTH):
        tile = Tile(ENTRIES, first // TILE_WIDTH, min(TILE_WIDTH, size - first))
        data = _read(folder, tile.path)
        try:
            entries = parse_bundle(data, tile.width)
        except TileError as error:
            raise TileError(f"{tile.path}: {error}") from error
        yield entries


def _check_tiles(folder: Path, tiles: Sequence[tuple[Tile, bytes]]) -> None:
    for tile, expected in tiles:
        data = _read(folder, tile.path)
        if data == expected:
            continue
        try:
            hashes = parse_tile(data, tile.width)
        except TileError as error:
            raise TileError(f"{tile.path}: {error}") from error
        wanted = parse_tile(expected, tile.width)
        at = next(position for position in range(tile.width) if hashes[position] != wanted[position])
        if tile.level > 0:
            raise TileError(f"{tile.path}: hash {at}: expected {wanted[at].hex()}, got {hashes[at].hex()}")
        # Which of the two was changed, the tiles above would tell; either way neither can be used.
        bundle = Tile(ENTRIES, tile.index, tile.width).path
        raise TileError(
            f"{tile.path} and {bundle} differ: entry {tile.index * TILE_WIDTH + at} hashes to {wanted[at].hex()}, the "
            f"tile holds {hashes[at].hex()}"
        )


def _check_strays(folder: Path, size: int) -> None:
    """Only the files of this tree, and prefixes of its tiles, may be there."""
    expected = {tile.path: tile for tile in tiles_of(size)}
    current = {(tile.level, tile.index): tile for tile in expected.values()}
    for file in sorted(folder.rglob("*")):
        if file.is_dir() and not file.is_symlink():
            continue
        path = file.relative_to(folder).as_posix()
        if file.is_symlink():
            raise TileError(f"{path}: expected a file, got a link")
        if path == CHECKPOINT or path in expected:
            continue
        try:
            tile = Tile.parse(path)
        except TileError as error:
            raise TileError(f"{shown(path)}: no part of a log of {size} entries") from error
        whole = current.get((tile.level, tile.index))
        if whole is None or tile.width > whole.width:
            raise TileError(f"{path}: no part of a log of {size} entries; an interrupted export? run it again")
        data, grown = _read(folder, path), _read(folder, whole.path)
        if tile.level == ENTRIES:
            prefix = encode_bundle(parse_bundle(grown, whole.width)[: tile.width])
        else:
            prefix = b"".join(parse_tile(grown, whole.width)[: tile.width])
        if data != prefix:
            raise TileError(f"{path}: expected the beginning of {whole.path}, got something else")
