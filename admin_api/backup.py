"""Backup and restore of a consortium's folder, while it works.

A backup is one tar file with everything but what processes leave lying about. What is written while it is made cannot
tear it: the last signed checkpoint is copied before the log, and the log before the artifacts and disclosures its
entries refer to, which are always stored first. So the copied log continues the copied checkpoint, and nothing it
names is missing. The log is copied out of PostgreSQL into a file, too; the pages' own database is in the backup when
it is the folder's web.db, else its keeper backs it up.

Restoring an old log is dangerous in one way: what was signed after the backup would be signed a second time, with other
contents, and every witness would rightly call that a forgery. So a restore wants the newest checkpoint that anybody
else has (a witness, a hospital, an export, a dossier), and refuses when it is newer than the backup.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from admin_api.errors import AdminError
from admin_api.founding import harden_server
from audit.checkpoint import Checkpoint, open_checkpoint
from audit.copying import copy_log
from audit.database import LOG_FILE
from audit.errors import AuditError
from audit.note import VerifierKey
from audit.store import open_log
from jobs.home import ConsortiumHome

Progress = Callable[[int, int], None]
CHECKPOINT = "log.checkpoint"
PAGES = "web.db"
_DATABASES = (LOG_FILE, PAGES)
_LEFT_OUT_SUFFIXES = ("-wal", "-shm", "-journal", ".pid", ".lock", ".tmp")
_LEFT_OUT_FOLDERS = (("server", "store"),)  # NVFlare's own memory of jobs; a run goes on as a new job


@dataclass(frozen=True)
class Backup:
    """What a backup holds, or a restore brought back."""

    path: Path
    files: int
    log_size: int  # entries
    pages: bool  # whether the pages' own database is in it


def back_up(home: ConsortiumHome, target: Path, *, progress: Progress = lambda _done, _of: None) -> Backup:
    """Write a backup of the consortium to `target`, which must not exist; it is complete or not there at all.

    It holds the log's key and the server's, so it is readable by its owner only. Raises AdminError, AuditError.
    """
    config = home.config()
    if target.exists():
        raise AdminError(f"{target} exists already; give another name")
    if target.resolve().is_relative_to(home.path):
        raise AdminError(f"{target} lies in the consortium's folder; keep backups somewhere else")
    with tempfile.TemporaryDirectory(prefix=".zegel-backup-", dir=target.resolve().parent) as folder:
        copies = Path(folder)
        checkpoint = home.path / CHECKPOINT
        if checkpoint.exists():
            shutil.copyfile(checkpoint, copies / CHECKPOINT)
        with (
            home.log() as log,
            open_log(
                f"sqlite:///{copies / LOG_FILE}", origin=config.log_origin, checkpoint_path=copies / "none"
            ) as copy,
        ):
            if config.log_url is not None:
                copy_log(log, copy, progress=progress)
        if config.log_url is None:
            _copy_sqlite(home.path / LOG_FILE, copies / LOG_FILE)
        pages = (home.path / PAGES).exists()
        if pages:
            _copy_sqlite(home.path / PAGES, copies / PAGES)
        (copies / "consortium.json").write_bytes((home.path / "consortium.json").read_bytes())
        size = _check(copies, config.log_origin, VerifierKey.parse(config.log_vkey))
        files = list(_files(home.path))
        made = copies / "backup.tar"
        made.touch(mode=0o600, exist_ok=False)
        with made.open("wb") as raw:
            with tarfile.open(fileobj=raw, mode="w") as archive:
                for name in (CHECKPOINT, *_DATABASES, "consortium.json"):
                    if (copies / name).exists():
                        archive.add(copies / name, name)
                for count, path in enumerate(files, 1):
                    try:
                        archive.add(path, str(path.relative_to(home.path)), recursive=False)
                    except FileNotFoundError:
                        continue  # erased, or a run's temporary file, since the folder was listed
                    progress(count, len(files))
            raw.flush()
            os.fsync(raw.fileno())
        made.rename(target)
    return Backup(target, len(files), size, pages)


def restore(archive: Path, folder: Path, *, seen: Sequence[bytes], nobody_saw_more: bool = False) -> Backup:
    """Bring a backup back into `folder`, which must not exist or be empty; it is complete or not there at all.

    Args:
        seen: signed checkpoints that others have: witnesses, hospitals, exports, dossiers (`log/checkpoint`).
        nobody_saw_more: the word of whoever restores that there is no newer one, when `seen` is empty.
    Raises: AdminError when somebody saw a newer or another log, or nobody was asked; nothing is restored then.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise AdminError(f"{folder} is not an empty folder; restore into a new one")
    if not seen and not nobody_saw_more:
        raise AdminError(
            "no checkpoint given: ask witnesses and hospitals for the newest checkpoint they have (--seen FILE), or "
            "say --nobody-saw-more if nothing was signed after the backup. A log that is signed twice from here on "
            "counts as forged at every witness."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".zegel-restore-", dir=folder.resolve().parent) as name:
        made = Path(name) / "home"
        made.mkdir(mode=0o700)
        try:
            with tarfile.open(archive) as packed:
                packed.extractall(made, filter="data")
        except (OSError, tarfile.TarError) as error:
            raise AdminError(f"{archive} cannot be unpacked: {error}") from None
        home = ConsortiumHome(made)
        config = home.config()
        key = VerifierKey.parse(config.log_vkey)
        size = _check(made, config.log_origin, key)
        _refuse_rollback(made, config.log_origin, key, size, seen)
        if config.log_url is not None:  # the database it names may still hold the old log, or another one
            home.write_config(replace(config, log_url=None))
        files = sum(1 for _ in made.rglob("*"))
        pages = (made / PAGES).exists()
        if folder.exists():
            folder.rmdir()
        made.rename(folder)
    restored = ConsortiumHome(folder)
    if restored.server_kit.exists():  # it knows the folder by its full path
        harden_server(restored)
    return Backup(folder, files, size, pages)


def _refuse_rollback(made: Path, origin: str, key: VerifierKey, size: int, seen: Sequence[bytes]) -> None:
    """Raises AdminError unless every checkpoint in `seen` is of this very log, and no longer than it."""
    with open_log(f"sqlite:///{made / LOG_FILE}", origin=origin, checkpoint_path=made / CHECKPOINT) as log:
        for note in seen:
            try:
                theirs: Checkpoint = open_checkpoint(note, key)
            except AuditError as error:
                raise AdminError(f"a checkpoint given with --seen is not this log's: {error}") from None
            if theirs.size > size:
                raise AdminError(
                    f"the backup's log has {size} entries, but a checkpoint over {theirs.size} was signed and seen: "
                    f"the last {theirs.size - size} entries are not in this backup. Restore a newer one, or take the "
                    "entries from an export (`zegel audit export`); going on from here would be a forgery to every "
                    "witness. Nothing was restored."
                )
            if log.root(theirs.size) != theirs.root:
                raise AdminError(
                    f"a checkpoint over {theirs.size} entries that somebody saw has another root than the backup's "
                    "log: one of them was forged. Nothing was restored."
                )


def _check(folder: Path, origin: str, key: VerifierKey) -> int:
    """The size of the copied log, checked against the copied checkpoint. Raises AuditError when they do not fit."""
    with open_log(f"sqlite:///{folder / LOG_FILE}", origin=origin, checkpoint_path=folder / CHECKPOINT) as log:
        checkpoint = folder / CHECKPOINT
        if checkpoint.exists():
            signed = open_checkpoint(checkpoint.read_bytes(), key)
            if signed.size > log.size or log.root(signed.size) != signed.root:
                raise AdminError(
                    f"the log has {log.size} entries and does not continue its last signed checkpoint over "
                    f"{signed.size}; run `zegel audit check`"
                )
        return log.size


def _copy_sqlite(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    with closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new, pages=2000)
    target.chmod(0o600)


def _files(folder: Path) -> Iterator[Path]:
    """Everything else in the folder: no databases (copied already), and nothing that only a running process needs."""
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if len(relative.parts) == 1 and relative.name.split("-")[0] in (*_DATABASES, CHECKPOINT, "consortium.json"):
            continue
        if path.name.endswith(_LEFT_OUT_SUFFIXES) or relative.parts[:2] in _LEFT_OUT_FOLDERS:
            continue
        if path.is_file() or path.is_dir():
            yield path
