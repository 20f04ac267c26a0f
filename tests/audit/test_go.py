"""Exported logs checked by the Go project's sumdb packages, where Go is installed.

Debian: `apt install golang-go golang-golang-x-mod-dev`. Elsewhere set GOPATH to where `src/golang.org/x/mod` is.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.cosignature import add_signatures, cosign, witness_key
from audit.export import write_export
from audit.note import parse_note
from tests.audit.memory_log import VKEY, MemoryLog, entries

DEBIAN = "/usr/share/gocode"
WITNESSES = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2)]
WITNESS_KEYS = [witness_key(f"w{number}.example", key) for number, key in enumerate(WITNESSES)]


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled program."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("go is not installed (Debian: golang-go)")
    gopath = next(
        (each for each in (os.environ.get("GOPATH"), DEBIAN) if each and Path(each, "src/golang.org/x/mod").is_dir()),
        None,
    )
    if gopath is None:
        pytest.skip("golang.org/x/mod is not installed (Debian: golang-golang-x-mod-dev; elsewhere set GOPATH)")
    folder = tmp_path_factory.mktemp("go")
    environment = os.environ | {
        "GO111MODULE": "off", "GOPATH": gopath, "GOCACHE": str(folder / "cache"), "GOFLAGS": "", "CGO_ENABLED": "0",
    }  # fmt: skip
    source = Path(__file__).with_name("go") / "verify.go"
    built = subprocess.run(
        [go, "build", "-o", str(folder / "verify"), str(source)],
        env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    return folder / "verify"


def run(verifier: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    arguments = [str(verifier), str(folder), str(VKEY), *map(str, WITNESS_KEYS)]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("size", [1, 255, 256, 257, 2000])
def test_go_verifies_what_we_export(verifier: Path, tmp_path: Path, size: int) -> None:
    log = MemoryLog(entries(size))
    note = log.checkpoint()
    text = parse_note(note).text
    at = datetime(2026, 11, 22, 5, tzinfo=UTC)
    note = add_signatures(note, [cosign(text, k.name, w, at) for k, w in zip(WITNESS_KEYS, WITNESSES, strict=True)])
    write_export(log, note, VKEY, tmp_path)
    done = run(verifier, tmp_path)
    assert done.stdout == f"verified {size} {base64.b64encode(log.root()).decode()} 2\n", done.stderr


@pytest.mark.parametrize("path", ["checkpoint", "tile/entries/000", "tile/0/000", "tile/0/001.p/44", "tile/1/000.p/1"])
def test_go_refuses_what_was_changed(verifier: Path, tmp_path: Path, path: str) -> None:
    log = MemoryLog(entries(300))
    write_export(log, log.checkpoint(), VKEY, tmp_path)
    data = bytearray((tmp_path / path).read_bytes())
    data[-20] ^= 1
    (tmp_path / path).write_bytes(data)
    done = run(verifier, tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr
