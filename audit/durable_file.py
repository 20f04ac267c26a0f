"""Files that are either the old or the new content after a crash, never a mixture."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path

from audit.errors import StaleFileError


def write_durably(path: Path, data: bytes) -> None:
    """Replaces `path` with `data`.

    Order, and what a crash leaves: the temporary file written and synced (crash: the old file, and a stray
    `.tmp`); renamed over `path` (crash: old or new, as the file system decides); directory synced (crash:
    new). When this returns, the new content survives a power failure.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105 - the atomic rename of POSIX is meant
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def swap_durably(path: Path, expected: bytes | None, data: bytes) -> None:
    """Replaces `path` with `data` if it still holds `expected` (None: if there is no such file).

    Of several processes that swap at once, one succeeds; the others raise StaleFileError and change nothing.
    The order of the write, and what a crash leaves, are those of `write_durably`. The lock is on the directory
    and ends with the process, so a crash leaves nothing locked.
    """
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        try:
            found: bytes | None = path.read_bytes()
        except FileNotFoundError:
            found = None
        if found != expected:
            raise StaleFileError(f"{path} was changed by another process meanwhile")
        write_durably(path, data)
    finally:
        os.close(directory)


def sync_directory(directory: Path) -> None:
    """Makes the directory's names durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
