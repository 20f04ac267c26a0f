"""What a hospital signed and released once, kept so that the very same bytes can be sent again after a crash.

Sending what was released before costs nothing more; computing it anew would. The file is durable before the statement
leaves. What it holds has left, or was about to leave, the hospital: it is not private any more.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Protocol

from audit.canonical import canonical_json, parse_json_object
from audit.durable_file import write_durably
from audit.errors import CanonicalError
from site_packages.errors import DataError


class Outbox(Protocol):
    """Keeps signed statements by key."""

    def get(self, key: str) -> dict[str, Any] | None:
        """The statement kept under this key, or None."""
        ...

    def keep(self, key: str, statement: dict[str, Any]) -> None:
        """Keep a statement; durable when this returns."""
        ...


class InMemoryOutbox:
    """For tests and simulations."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, Any]] = {}

    def get(self, key: str) -> dict[str, Any] | None:
        """See `Outbox`."""
        return self._kept.get(key)

    def keep(self, key: str, statement: dict[str, Any]) -> None:
        """See `Outbox`."""
        self._kept[key] = statement


class FileOutbox:
    """One file for each statement, named by the digest of its key, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str) -> dict[str, Any] | None:
        """See `Outbox`. Raises DataError for a file that cannot be read: it must not be taken for none."""
        try:
            return parse_json_object(self._path(key).read_bytes(), "kept statement")
        except FileNotFoundError:
            return None
        except (OSError, CanonicalError) as error:
            raise DataError(f"{self._path(key)} cannot be read ({error}); put it back from a backup") from None

    def keep(self, key: str, statement: dict[str, Any]) -> None:
        """See `Outbox`. Raises DataError when it cannot be written."""
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            write_durably(self._path(key), canonical_json(statement))
        except OSError as error:
            raise DataError(f"{self._path(key)} cannot be written ({error}); free the disk") from None

    def _path(self, key: str) -> Path:
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
