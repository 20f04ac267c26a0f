"""Where dossiers that were certified through the pages are kept for download: files beside the log, never changed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from admin_api.releasing import certify
from audit.canonical import DIGEST_PREFIX
from audit.dossier import open_dossier
from audit.durable_file import write_durably
from jobs.home import ConsortiumHome

FOLDER = "dossiers"


def dossier_path(home: ConsortiumHome, release: str) -> Path:
    """Where a release's dossier lies; `release` has been checked to be a name."""
    return home.path / FOLDER / f"{release}.dossier"


def digest_of_file(path: Path) -> str:
    """`sha256:<hex>` of a file, read in pieces."""
    with path.open("rb") as file:
        return DIGEST_PREFIX + hashlib.file_digest(file, "sha256").hexdigest()


def documents_in(home: ConsortiumHome, release: str) -> Mapping[str, bytes]:
    """The documents in a release's dossier, by name; none before there is one."""
    path = dossier_path(home, release)
    return open_dossier(path.read_bytes()).documents if path.exists() else {}


def certify_and_keep(home: ConsortiumHome, release: str) -> int:
    """Certify a release, or write the dossier of a certified one again; returns its size in bytes.

    Raises ReleaseRefused when approvals, gates or witnesses do not suffice.
    """
    data = certify(home, release)
    path = dossier_path(home, release)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    write_durably(path, data)
    return len(data)
