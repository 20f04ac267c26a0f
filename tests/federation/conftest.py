"""One real federation for all tests of this folder: the demo, left running, on ports of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

EPSILON = 30  # so that few synthetic patients train a model that passes the gates
TIMEOUT_S = 300


@dataclass(frozen=True)
class Live:
    """The demo's workspace, with its server and four hospitals running."""

    workspace: Path
    output: str

    @property
    def consortium(self) -> Path:
        return self.workspace / "consortium"

    @property
    def root(self) -> Path:
        return self.consortium / "ca" / "rootCA.pem"

    @property
    def dossier(self) -> Path:
        return self.workspace / "demo-1.dossier"

    def site(self, number: int) -> Path:
        return self.workspace / "sites" / f"hospital-{number}"

    def config(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads((self.consortium / "consortium.json").read_text(encoding="utf-8"))
        return value

    def zegel(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command as its user would; the caller looks at exit code and output."""
        return zegel(*arguments)

    def signed_by(self, who: str) -> tuple[str | Path, ...]:
        return ("--as", self.workspace / "people" / who, "--passphrase-file", self.workspace / "passphrases" / who)


def zegel(*arguments: str | Path, timeout_s: float = TIMEOUT_S) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "admin_api.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    workspace = tmp_path_factory.mktemp("federation") / "demo"
    try:
        ended = zegel(
            *("demo", "--workspace", workspace, "--hospitals", "4", "--admissions", "300", "--epsilon", str(EPSILON)),
            "--keep-running",
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        yield Live(workspace, ended.stdout)
    finally:
        zegel("demo-stop", "--workspace", workspace)
