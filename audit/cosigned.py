"""The checkpoints of a log with all cosignatures anybody gave them, as files beside the log.

Invariants:
- One file per tree size, `<size>.note`: the log's own note and the cosignatures collected so far. A cosignature is
  only ever added, under a lock, and the file replaced atomically.
- Only verified cosignatures of witnesses the caller named get in.

The files are public data.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from audit.checkpoint import Checkpoint
from audit.cosignature import add_signatures, verify_cosignature
from audit.durable_file import write_durably
from audit.errors import CosignatureError, LogError
from audit.note import NoteSignature, VerifierKey, parse_note

_NAME = re.compile(r"(0|[1-9][0-9]{0,18})\.note", re.ASCII)


class Cosigned:
    """Cosigned checkpoints in a folder, which is made with the first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def note(self, checkpoint: bytes) -> bytes:
        """The checkpoint's note with the cosignatures collected for it; the note as it is when there are none.

        Raises LogError when cosignatures were collected for another tree of this size: two histories were signed.
        """
        parsed = parse_note(checkpoint)
        path = self._path(Checkpoint.from_text(parsed.text).size)
        try:
            stored = path.read_bytes()
        except FileNotFoundError:
            return checkpoint
        kept = parse_note(stored)
        if kept.text != parsed.text:
            raise LogError(
                f"{path} holds another checkpoint of the same size: the log signed two histories; keep both files and "
                "tell the witnesses"
            )
        return add_signatures(checkpoint, kept.signatures)

    def add(self, checkpoint: bytes, collected: Iterable[tuple[VerifierKey, NoteSignature]]) -> bytes:
        """Keeps cosignatures of a checkpoint, each verified against its witness's key; returns the whole note.

        Raises CosignatureError for one that is wrong (the others are not kept either), LogError as `note` does.
        """
        text = parse_note(checkpoint).text
        lines: list[NoteSignature] = []
        for key, line in collected:
            verify_cosignature(text, line, key)
            lines.append(line)
        self._folder.mkdir(exist_ok=True)
        with self._locked():
            before = self.note(checkpoint)
            data = add_signatures(before, lines)
            if data != checkpoint:
                write_durably(self._path(Checkpoint.from_text(text).size), data)
        return data

    def seen_by(self, key: VerifierKey) -> int:
        """The size of the largest tree the witness cosigned, as far as this folder knows; 0 for none."""
        for size in sorted(self._sizes(), reverse=True):
            parsed = parse_note(self._path(size).read_bytes())
            for line in parsed.signatures:
                if line.by(key):
                    try:
                        verify_cosignature(parsed.text, line, key)
                    except CosignatureError:
                        continue  # only a hint is asked for: the witness knows better
                    return size
        return 0

    def latest(self) -> bytes | None:
        """The note over the largest tree anybody cosigned; None when there is none."""
        sizes = self._sizes()
        return self._path(max(sizes)).read_bytes() if sizes else None

    def _sizes(self) -> list[int]:
        if not self._folder.is_dir():
            return []
        return [int(match[1]) for path in self._folder.iterdir() if (match := _NAME.fullmatch(path.name))]

    def _path(self, size: int) -> Path:
        return self._folder / f"{size}.note"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
