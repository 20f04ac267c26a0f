"""Backups: nothing torn, nothing missing, and no second history after a restore."""

from __future__ import annotations

import json
import tarfile
import threading
from pathlib import Path

import pytest

from admin_api.backup import back_up, restore
from admin_api.errors import AdminError
from audit.entry import VALUE_ERASED
from jobs.home import ConsortiumHome
from tests.admin_api.conftest import AfterRun


def _again(home: ConsortiumHome) -> None:
    """One more entry, signed: the last one of the log, once more."""
    with home.log() as log:
        last = log.entry(log.size - 1)
    assert last.kind != VALUE_ERASED
    home.record(last)


def test_a_restored_consortium_is_whole(after_run: AfterRun, tmp_path: Path) -> None:
    home = after_run.home
    made = back_up(home, tmp_path / "backup.tar")
    assert (tmp_path / "backup.tar").stat().st_mode & 0o077 == 0
    checkpoint = (home.path / "log.checkpoint").read_bytes()
    back = restore(tmp_path / "backup.tar", tmp_path / "again", seen=[checkpoint])
    assert back.log_size == made.log_size
    restored = ConsortiumHome(tmp_path / "again", home.clock)
    with restored.log() as log, home.log() as old:
        assert log.root() == old.root()
        log.check()
    for path in home.path.rglob("*"):
        relative = path.relative_to(home.path)
        if path.is_file() and not relative.parts[0].startswith(("log.db", "web.db")) and "store" not in relative.parts:
            if relative.as_posix() == "server/kit/local/zegel.json":
                assert json.loads((restored.path / relative).read_text())["consortium_home"] == str(restored.path)
            else:
                same = (restored.path / relative).read_bytes() == path.read_bytes()
                assert same or relative.as_posix() == "server/kit/local/resources.json", relative
    _again(restored)  # it signs on


def test_a_backup_older_than_what_was_seen_is_not_restored(after_run: AfterRun, tmp_path: Path) -> None:
    home = after_run.home
    made = back_up(home, tmp_path / "backup.tar")
    _again(home)
    seen = (home.path / "log.checkpoint").read_bytes()
    with pytest.raises(AdminError, match=f"a checkpoint over {made.log_size + 1} was signed"):
        restore(tmp_path / "backup.tar", tmp_path / "again", seen=[seen])
    assert not (tmp_path / "again").exists()
    with pytest.raises(AdminError, match="no checkpoint given"):
        restore(tmp_path / "backup.tar", tmp_path / "again", seen=[])
    with pytest.raises(AdminError, match="not this log's"):
        restore(tmp_path / "backup.tar", tmp_path / "again", seen=[seen.replace(b"zegel", b"legez")])


def test_another_history_of_the_same_length_is_not_restored(after_run: AfterRun, tmp_path: Path) -> None:
    home = after_run.home
    forked = restore_copy(home, tmp_path)
    _again(home)
    with forked.log() as log:
        first = log.entry(0)
    with forked.log() as log:
        log.append([first])
    forked.sign_checkpoint()
    back_up(home, tmp_path / "backup.tar")
    with pytest.raises(AdminError, match="another root"):
        restore(tmp_path / "backup.tar", tmp_path / "again", seen=[(forked.path / "log.checkpoint").read_bytes()])


def restore_copy(home: ConsortiumHome, tmp_path: Path) -> ConsortiumHome:
    """A second consortium's folder, from a backup of the first."""
    back_up(home, tmp_path / "copy.tar")
    restore(tmp_path / "copy.tar", tmp_path / "copy", seen=[], nobody_saw_more=True)
    return ConsortiumHome(tmp_path / "copy", home.clock)


def test_backups_made_while_the_log_grows_hold_together(after_run: AfterRun, tmp_path: Path) -> None:
    home = after_run.home
    stop = threading.Event()
    failed: list[BaseException] = []

    def grow() -> None:
        try:
            while not stop.is_set():
                _again(home)
        except BaseException as error:  # noqa: BLE001 - told to the test
            failed.append(error)

    growing = threading.Thread(target=grow)
    growing.start()
    try:
        sizes = [back_up(home, tmp_path / f"{number}.tar").log_size for number in range(3)]
    finally:
        stop.set()
        growing.join()
    assert not failed
    assert sizes == sorted(sizes)
    newest = restore(tmp_path / "2.tar", tmp_path / "again", seen=[], nobody_saw_more=True)
    with ConsortiumHome(newest.path).log() as log:
        log.check()


def test_a_backup_never_replaces_a_file_and_never_lies_in_the_folder(after_run: AfterRun, tmp_path: Path) -> None:
    (tmp_path / "there.tar").write_bytes(b"precious")
    with pytest.raises(AdminError, match="exists already"):
        back_up(after_run.home, tmp_path / "there.tar")
    assert (tmp_path / "there.tar").read_bytes() == b"precious"
    with pytest.raises(AdminError, match="lies in the consortium's folder"):
        back_up(after_run.home, after_run.home.path / "backup.tar")


def test_an_archive_that_climbs_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "evil").write_text("x")
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        archive.add(tmp_path / "evil", "../evil-outside")
    with pytest.raises(AdminError, match="cannot be unpacked"):
        restore(tmp_path / "evil.tar", tmp_path / "again", seen=[], nobody_saw_more=True)
    assert not (tmp_path / "again").exists()
