"""Artifacts: the big things (plans, models, statements) the log refers to by digest.

A directory with one file per artifact, named by the hex of its digest.

Invariants:
- A file appears under its digest only when all its bytes are durable.
- `get` hands out bytes only after hashing them: a changed file raises, it is never returned.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from audit.canonical import DIGEST_PREFIX, digest_of, hex_of
from audit.durable_file import write_durably
from audit.errors import ArtifactError


class Artifacts:
    """The artifacts in `directory`, which is made when missing."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory

    def put(self, data: bytes) -> str:
        """Stores the bytes durably and returns their digest. Storing the same bytes again is free of
        effect.
        """
        digest = digest_of(data)
        path = self.path(digest)
        # An existing file is compared, not trusted: a damaged one is replaced by the good bytes.
        if not path.is_file() or path.read_bytes() != data:
            write_durably(path, data)
        return digest

    def get(self, digest: str) -> bytes:
        """The artifact's bytes; raises ArtifactError when it is missing or its bytes changed."""
        path = self.path(digest)
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise ArtifactError(f"artifact {digest} is not in {self._directory}") from error
        found = digest_of(data)
        if found != digest:
            raise ArtifactError(f"artifact {digest} has changed on disk: its bytes now hash to {found}")
        return data

    def path(self, digest: str) -> Path:
        """Where the artifact is or would be. Reading it there skips the check `get` makes."""
        return self._directory / hex_of(digest)

    def __contains__(self, digest: str) -> bool:
        return self.path(digest).is_file()

    def digests(self) -> Iterator[str]:
        """The digests of the files present, sorted; their bytes are not checked."""
        for path in sorted(self._directory.iterdir()):
            if not path.name.startswith("."):
                yield DIGEST_PREFIX + path.name
