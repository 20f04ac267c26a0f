"""The log as a folder: growing, resuming, and what a stranger's check makes of every kind of damage."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.cosignature import add_signatures, cosign, witness_key
from audit.errors import AuditError, TileError
from audit.export import exported_entries, exported_founding, exported_hashes, verify_export, write_export
from audit.merkle import tree_root
from audit.note import VerifierKey, parse_note
from audit.tiles import tiles_of
from tests.audit.independent_verifier import Wrong, verify_folder
from tests.audit.memory_log import KEY, ORIGIN, VKEY, MemoryLog, entries

WITNESS = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
WITNESS_KEY = witness_key("hospital.example/w", WITNESS)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def needed(size: int) -> set[str]:
    return {"checkpoint", *(tile.path for tile in tiles_of(size))}


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 600])
def test_an_export_holds_exactly_what_the_specification_names(tmp_path: Path, size: int) -> None:
    log = MemoryLog(entries(size))
    done = write_export(log, log.checkpoint(), VKEY, tmp_path / "out")
    assert set(files(tmp_path / "out")) == needed(size)
    assert (done.added, done.written, done.removed) == (size, len(needed(size)) - 1, 0)
    assert verify_export(tmp_path / "out", VKEY) == done.checkpoint
    assert done.checkpoint.root == log.root()
    assert list(exported_entries(tmp_path / "out", size)) == log.entries
    assert verify_folder(tmp_path / "out", str(VKEY), []).root == log.root()


def test_a_verifier_of_nobody_s_making_agrees(tmp_path: Path) -> None:
    """Two levels of tiles, a cosignature, and the proof of every entry, by code that shares nothing with ours."""
    log = MemoryLog(entries(1100))
    at = datetime(2026, 11, 22, 5, tzinfo=UTC)
    text = parse_note(log.checkpoint()).text
    note = add_signatures(log.checkpoint(), [cosign(text, WITNESS_KEY.name, WITNESS, at)])
    write_export(log, note, VKEY, tmp_path)
    head = verify_folder(tmp_path, str(VKEY), [str(WITNESS_KEY)])
    assert (head.origin, head.size, head.root) == (ORIGIN, 1100, log.root())
    assert head.times == {"hospital.example/w": int(at.timestamp())}
    assert tree_root(1100, exported_hashes(tmp_path, 1100)) == head.root
    (tmp_path / "tile" / "0" / "004.p" / "76").write_bytes(bytes(76 * 32))
    with pytest.raises(Wrong):
        verify_folder(tmp_path, str(VKEY), [])


def test_an_export_grows_and_keeps_what_others_may_need(tmp_path: Path) -> None:
    log = MemoryLog()
    published: list[int] = []
    for size in (3, 200, 255, 256, 300, 511, 513, 513):
        log.extend(entries(size)[len(log.entries) :])
        before = files(tmp_path) if published else {}
        done = write_export(log, log.checkpoint(), VKEY, tmp_path)
        after = files(tmp_path)
        published.append(size)
        assert verify_export(tmp_path, VKEY).size == size
        # Whoever holds a checkpoint that was published finds its tiles, or the full ones that replaced them.
        for earlier in published:
            for tile in tiles_of(earlier):
                assert tile.path in after or tile.path.partition(".p/")[0] in after
        gone = set(before) - set(after)
        assert len(gone) == done.removed
        assert all(".p/" in path and path.partition(".p/")[0] in after for path in gone)
        assert all(after[path] == data for path, data in before.items() if path in after and path != "checkpoint")
        assert verify_folder(tmp_path, str(VKEY), [], proofs=False).size == size
    assert done.added == done.written == done.removed == 0


def test_cosignatures_already_exported_are_kept(tmp_path: Path) -> None:
    log = MemoryLog(entries(5))
    at = datetime(2026, 11, 22, 5, tzinfo=UTC)
    line = cosign(parse_note(log.checkpoint()).text, WITNESS_KEY.name, WITNESS, at)
    write_export(log, add_signatures(log.checkpoint(), [line]), VKEY, tmp_path)
    write_export(log, log.checkpoint(), VKEY, tmp_path)
    assert line in parse_note((tmp_path / "checkpoint").read_bytes()).signatures


class Stopping(MemoryLog):
    """Fails after so many reads, as a crash or Ctrl-C would."""

    reads = 0

    def read_entries(self, start: int, stop: int) -> list[bytes]:
        self.reads -= 1
        if self.reads < 0:
            raise KeyboardInterrupt
        return super().read_entries(start, stop)


@pytest.mark.parametrize("reads", range(5))
def test_an_interrupted_export_leaves_the_old_one_and_goes_on(tmp_path: Path, reads: int) -> None:
    log = Stopping(entries(300))
    log.reads = 99
    write_export(log, log.checkpoint(), VKEY, tmp_path)
    old = files(tmp_path)
    log.extend(entries(1500)[300:])
    log.reads = reads
    with pytest.raises(KeyboardInterrupt):
        write_export(log, log.checkpoint(), VKEY, tmp_path)
    between = files(tmp_path)
    assert {path: between[path] for path in old} == old
    assert ".export.tmp" not in between
    assert verify_folder(tmp_path, str(VKEY), [], proofs=False).size == 300
    log.reads = 99
    done = write_export(log, log.checkpoint(), VKEY, tmp_path)
    assert done.written == len(needed(1500) - set(between))
    assert verify_export(tmp_path, VKEY).size == 1500


def test_what_may_not_be_exported_over(tmp_path: Path) -> None:
    log = MemoryLog(entries(300))
    write_export(log, log.checkpoint(), VKEY, tmp_path)
    held = files(tmp_path)
    other_key = VerifierKey.of("zegel-log/other", KEY)
    other = MemoryLog(entries(400), origin="zegel-log/other")
    fork = MemoryLog(entries(200) + entries(300, "b"))
    with pytest.raises(TileError, match="not a checkpoint of zegel-log/other"):
        write_export(other, other.checkpoint(), other_key, tmp_path)
    with pytest.raises(TileError, match="holds 300 entries, but the checkpoint covers 299 only: the log was set back"):
        write_export(log, log.checkpoint(299), VKEY, tmp_path)
    with pytest.raises(TileError, match="two histories have been signed"):
        write_export(fork, fork.checkpoint(), VKEY, tmp_path)
    with pytest.raises(TileError, match="two histories have been signed"):
        write_export(fork, fork.checkpoint(300), VKEY, tmp_path)
    with pytest.raises(AuditError, match="signature"):
        write_export(log, log.checkpoint().replace(b"300", b"301"), VKEY, tmp_path)
    assert files(tmp_path) == held
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(TileError, match=r"holds 'notes\.txt', which no export wrote"):
        write_export(log, log.checkpoint(), VKEY, tmp_path)
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(TileError, match="cannot be used"):
        write_export(log, log.checkpoint(), VKEY, tmp_path / "file")


def test_a_damaged_export_is_not_built_on(tmp_path: Path) -> None:
    log = MemoryLog(entries(300))
    write_export(log, log.checkpoint(), VKEY, tmp_path)
    log.extend(entries(400)[300:])
    (tmp_path / "tile" / "0" / "001.p" / "44").write_bytes(bytes(44 * 32))
    with pytest.raises(TileError, match="is damaged"):
        write_export(log, log.checkpoint(), VKEY, tmp_path)
    (tmp_path / "tile" / "0" / "001.p" / "44").unlink()
    with pytest.raises(TileError, match=r"tile/0/001\.p/44: missing"):
        write_export(log, log.checkpoint(), VKEY, tmp_path)


def test_a_log_that_does_not_give_the_signed_root_is_not_published(tmp_path: Path) -> None:
    log = MemoryLog(entries(10))
    checkpoint = log.checkpoint()
    log.entries[4] = b"rewritten in the database"
    with pytest.raises(TileError, match=r"but .* was signed for them; run `zegel audit check`"):
        write_export(log, checkpoint, VKEY, tmp_path)
    assert not (tmp_path / "checkpoint").exists()


def test_two_exports_do_not_mix(tmp_path: Path) -> None:
    log = MemoryLog(entries(10))
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(TileError, match="another export is writing"):
            write_export(log, log.checkpoint(), VKEY, tmp_path)
    finally:
        os.close(descriptor)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    log = MemoryLog(entries(10))
    (tmp_path / "tile").write_text("in the way", encoding="utf-8")
    with pytest.raises(TileError, match=r"tile/entries/000\.p/10 cannot be written: .*nothing is lost, export again"):
        write_export(log, log.checkpoint(), VKEY, tmp_path)


def test_progress_counts_entries(tmp_path: Path) -> None:
    log = MemoryLog(entries(600))
    seen: list[tuple[int, int]] = []
    write_export(log, log.checkpoint(300), VKEY, tmp_path)
    write_export(log, log.checkpoint(), VKEY, tmp_path, lambda done, total: seen.append((done, total)))
    assert seen == [(256, 344), (344, 344)]
    seen.clear()
    verify_export(tmp_path, VKEY, lambda done, total: seen.append((done, total)))
    assert seen == [(256, 600), (512, 600), (600, 600)]


# -- every file changed, removed, swapped, cut, lengthened


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export with an earlier export's partial tiles still in it."""
    folder = tmp_path_factory.mktemp("sound")
    log = MemoryLog(entries(530))
    write_export(log, log.checkpoint(520), VKEY, folder)
    write_export(log, log.checkpoint(), VKEY, folder)
    return folder


EVERY_FILE = sorted(needed(520) | needed(530))


def flipped(path: Path, _: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def removed(path: Path, _: Path) -> None:
    path.unlink()


def swapped(path: Path, other: Path) -> None:
    mine, others = path.read_bytes(), other.read_bytes()
    path.write_bytes(others)
    other.write_bytes(mine)


def cut(path: Path, _: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def emptied(path: Path, _: Path) -> None:
    path.write_bytes(b"")


def lengthened(path: Path, _: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def linked(path: Path, _: Path) -> None:
    """The right bytes, but from outside: whoever may change that file changes the log."""
    folder = next(parent for parent in path.parents if parent.name == "log")
    moved = folder.with_name("moved")
    path.rename(moved)
    path.symlink_to(moved)


DAMAGES: list[Callable[[Path, Path], None]] = [flipped, removed, swapped, cut, emptied, lengthened, linked]
OPTIONAL = needed(520) - needed(530)  # the earlier partial tiles: nobody misses them


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("path", EVERY_FILE)
def test_every_damage_is_named(sound: Path, tmp_path: Path, path: str, damage: Callable[[Path, Path], None]) -> None:
    folder = tmp_path / "log"
    shutil.copytree(sound, folder)
    other = EVERY_FILE[(EVERY_FILE.index(path) + 1) % len(EVERY_FILE)]
    damage(folder / path, folder / other)
    if damage is removed and path in OPTIONAL:
        assert verify_export(folder, VKEY).size == 530
        return
    with pytest.raises(TileError) as caught:
        verify_export(folder, VKEY)
    named = {path, other} if damage is swapped else {path}
    words = re.split(r"[ ':]", str(caught.value))
    assert named & set(words), str(caught.value)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("README", "'README': no part of a log"),
        ("tile/0/000.p/300", "no part of a log"),
        ("tile/0/003", "interrupted export"),
        ("tile/0/002.p/19", "interrupted export"),
        ("tile/1/000.p/1", "expected the beginning of tile/1/000"),
        ("tile/2/000.p/1", "interrupted export"),
        (".export.tmp", "no part of a log"),
    ],
)
def test_strange_files_are_named(sound: Path, tmp_path: Path, path: str, message: str) -> None:
    folder = tmp_path / "log"
    shutil.copytree(sound, folder)
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(b"x" * 32)
    with pytest.raises(TileError, match=message) as caught:
        verify_export(folder, VKEY)
    assert path in str(caught.value)


def test_another_history_with_the_right_signature_elsewhere(sound: Path, tmp_path: Path) -> None:
    """All tiles and bundles of a fork, consistent with each other, under the checkpoint of the real log."""
    fork = MemoryLog(entries(530, "b"))
    write_export(fork, fork.checkpoint(), VKEY, tmp_path)
    assert verify_export(tmp_path, VKEY).root == fork.root()
    shutil.copy(sound / "checkpoint", tmp_path / "checkpoint")
    with pytest.raises(TileError, match=r"checkpoint: signed for the root .*another history"):
        verify_export(tmp_path, VKEY)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(TileError, match="checkpoint: missing"):
        verify_export(tmp_path, VKEY)
    with pytest.raises(TileError, match="checkpoint: missing"):
        exported_founding(tmp_path)
    log = MemoryLog()
    write_export(log, log.checkpoint(), VKEY, tmp_path)
    with pytest.raises(TileError, match="covers no entries"):
        exported_founding(tmp_path)
    (tmp_path / "checkpoint").write_bytes(b"nonsense")
    with pytest.raises(TileError, match="checkpoint: note: expected an empty line"):
        exported_founding(tmp_path)


def test_the_first_entry(sound: Path) -> None:
    assert exported_founding(sound) == entries(1)[0]
