"""Recording the software: version, digests and installed packages of this machine, when a release is proposed."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from audit.canonical import canonical_json, digest_of
from audit.documents.software import Software

PACKAGE = "zegel"
ROOMS = ("admin_api", "audit", "jobs", "privacy", "site_packages")
_GIT_TIMEOUT_S = 10


def record_software(root: Path | None = None) -> Software:
    """What runs here. `root` is the folder that holds the five packages; None: where this package lies."""
    folder = Path(__file__).resolve().parents[2] if root is None else root
    installed = sorted({(each.metadata["Name"], each.version) for each in metadata.distributions()})
    constraints = folder / "constraints.txt"
    return Software(
        version=metadata.version(PACKAGE),
        source=source_digest(folder),
        commit=_commit(folder),
        record=_record(),
        constraints=digest_of(constraints.read_bytes()) if constraints.is_file() else None,
        python=platform.python_version(),
        packages=tuple(each for each in installed if each[0] != PACKAGE),
    )


def source_digest(folder: Path, rooms: Iterable[str] = ROOMS) -> str:
    """A digest over the paths and digests of all Python files of the packages, the same wherever they are installed."""
    files = sorted(path for room in rooms for path in (folder / room).rglob("*.py"))
    return digest_of(canonical_json({str(path.relative_to(folder)): digest_of(path.read_bytes()) for path in files}))


def _record() -> str | None:
    """The digest of the installed wheel's list of files; an editable installation lists none worth naming."""
    distribution = metadata.distribution(PACKAGE)
    record = distribution.read_text("RECORD")
    editable = any(str(path).endswith(".pth") for path in distribution.files or ())
    return None if record is None or editable else digest_of(record.encode())


def _commit(folder: Path) -> str | None:
    """The commit of the repository that `folder` is the root of, with a mark when files differ from it."""
    if not (folder / ".git").exists():
        return None
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None  # no git here, or not this user's repository: then there is no commit to name
    return f"{commit} with local changes" if changed else commit


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True, timeout=_GIT_TIMEOUT_S
    ).stdout.strip()
