"""Where disclosures are kept: a folder beside the log, one file per value, named by its commitment.

Nothing here is needed for the log to hold together: a missing file is a value that is not shown.

Invariants:
- A value is handed out only if it opens the commitment its file is named by.
- `erase` overwrites the file before it removes it, and the removal survives a power failure. What a file system that
  copies on write, a snapshot or a backup keeps is out of its reach.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from audit.canonical import DIGEST_PREFIX, canonical_json, hex_of, parse_json_object
from audit.disclosure import Disclosed, Disclosure, commitments_in, disclosed
from audit.durable_file import sync_directory, write_durably
from audit.entry import VALUE_ERASED, Entry
from audit.errors import CanonicalError, DisclosureError

FOLDER = "disclosures"  # in the consortium's folder


class Disclosures:
    """The disclosures in `directory`, which is made when the first is put there."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, disclosure: Disclosure) -> None:
        """Stores a value durably."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_durably(self._path(disclosure.commitment), canonical_json(disclosure.to_json()))

    def get(self, commitment: str) -> Disclosure | None:
        """The value behind a commitment; None when it is not here. Raises DisclosureError when the file is another."""
        path = self._path(commitment)
        try:
            disclosure = Disclosure.from_json(parse_json_object(path.read_bytes(), str(path)))
        except FileNotFoundError:
            return None
        except (CanonicalError, DisclosureError) as error:
            raise DisclosureError(f"{path}: {error}. {_ADVICE}") from error
        if disclosure.commitment != commitment:
            raise DisclosureError(f"{path}: its value opens {disclosure.commitment}. {_ADVICE}")
        return disclosure

    def erase(self, commitment: str) -> bool:
        """Removes a value for good; False when it was not here."""
        path = self._path(commitment)
        try:
            descriptor = os.open(path, os.O_WRONLY)
        except FileNotFoundError:
            return False
        with os.fdopen(descriptor, "wb") as file:
            file.write(bytes(os.fstat(file.fileno()).st_size))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()
        sync_directory(self._directory)
        return True

    def commitments(self) -> Iterator[str]:
        """The commitments of the files present, sorted."""
        if self._directory.is_dir():
            for path in sorted(self._directory.iterdir()):
                if not path.name.startswith("."):
                    yield DIGEST_PREFIX + path.name

    def bearing_on(self, entries: Iterable[tuple[int, Entry]]) -> tuple[Disclosure, ...]:
        """The values that these entries commit to, without those that one of them erased.

        A value whose erasure was logged but not carried out, since the machine stopped, is left out as well.
        """
        wanted: dict[str, str] = {}
        erased: set[str] = set()
        for _, entry in entries:
            wanted |= commitments_in(entry)
            if entry.kind == VALUE_ERASED:
                erased.add(entry.body["commitment"])
        found = (self.get(commitment) for commitment in sorted(set(wanted) - erased))
        return tuple(each for each in found if each is not None)

    def disclosed(self, entries: Iterable[tuple[int, Entry]]) -> Disclosed:
        """What may be shown about these entries. Raises DisclosureError for a damaged file."""
        known = list(entries)
        return disclosed(known, self.bearing_on(known))

    def _path(self, commitment: str) -> Path:
        return self._directory / hex_of(commitment)


_ADVICE = "Restore the file from a backup, or remove it: the value is then not shown, and the log holds as before"
