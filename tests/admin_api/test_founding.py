"""Founding a consortium: an encrypted root key, a log that begins with it, and nothing left when it fails."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from admin_api import founding
from admin_api.errors import OnboardingError
from admin_api.founding import found
from audit.certificates import root_fingerprint
from audit.checkpoint import open_checkpoint
from audit.entry import CERTIFICATE_ISSUED, CONSORTIUM_FOUNDED
from audit.evidence import Evidence
from audit.note import VerifierKey
from jobs.errors import ProvisioningError
from jobs.federation import kit as kits
from jobs.federation.provisioning import open_root_key
from jobs.home import ConsortiumHome
from tests.admin_api.consortium_folder import NAME, PASSPHRASE, refused, snapshot, zegel

GOOD: dict[str, Any] = {
    "name": NAME,
    "organisation": "bureau",
    "server_host": "localhost",
    "fed_learn_port": 8002,
    "admin_port": 8003,
    "passphrase": PASSPHRASE.encode(),
}


def private_keys(data: bytes) -> list[Any]:
    """The unencrypted private keys in a file's bytes."""
    found: list[Any] = []
    for part in data.split(b"-----BEGIN ")[1:]:
        with contextlib.suppress(ValueError, TypeError):
            found.append(serialization.load_pem_private_key(b"-----BEGIN " + part, password=None))
    return found


def test_the_root_key_is_nowhere_in_the_clear(founded: ConsortiumHome) -> None:
    root = founded.root().public_key()
    beside = founded.path.parent
    for path in (*founded.path.rglob("*"), *(beside / "tmp").rglob("*"), *Path("/dev/shm").rglob("*")):
        with contextlib.suppress(OSError):  # other people's files in shared memory come and go
            if path.is_file() and path.stat().st_size < 1 << 20:
                assert all(key.public_key() != root for key in private_keys(path.read_bytes())), path
    assert private_keys((founded.path / "log.key").read_bytes())  # the search does find plain keys
    pem = (founded.ca / "rootCA.key").read_bytes()
    assert b"ENCRYPTED" in pem
    with pytest.raises(TypeError):
        serialization.load_pem_private_key(pem, password=None)
    assert open_root_key(founded.ca, PASSPHRASE.encode()).public_key() == root


def test_nothing_is_written_outside_the_folder(founded: ConsortiumHome) -> None:
    beside = founded.path.parent
    assert sorted(path.name for path in beside.iterdir()) == ["consortium", "tmp", "user"]
    assert list((beside / "user").iterdir()) == []
    assert list((beside / "tmp").iterdir()) == []


def test_every_file_is_its_owners_only(founded: ConsortiumHome) -> None:
    modes = {path: mode for path, (mode, _) in snapshot(founded.path).items()}
    assert {path: oct(mode) for path, mode in modes.items() if mode not in (0o600, 0o700)} == {}


def test_the_log_begins_with_the_founding_and_the_consortiums_own_certificates(founded: ConsortiumHome) -> None:
    config = founded.config()
    with founded.log() as log:
        entries = list(log.entries())
        checkpoint = log.check().checkpoint
        signed = log.last_checkpoint()
    assert [entry.kind for _, entry in entries] == [CONSORTIUM_FOUNDED, CERTIFICATE_ISSUED, CERTIFICATE_ISSUED]
    evidence = Evidence(entries, founded.root())  # root, log certificate and server certificate verify
    assert evidence.founding.consortium == NAME
    assert [entry.body["role"] for _, entry in entries[1:]] == ["server", "lead"]
    assert entries[0][1].body["root_certificate"] == root_fingerprint(founded.root()) == config.root_fingerprint
    assert signed is not None
    assert open_checkpoint(signed, VerifierKey.parse(config.log_vkey)) == checkpoint
    assert checkpoint.size == 3


def test_the_servers_kit_is_hardened(founded: ConsortiumHome) -> None:
    kits.check_hardened(founded.server_kit, classes=kits.SERVER_CLASSES)
    resources = json.loads((founded.server_kit / "local" / "resources.json").read_text(encoding="utf-8"))
    assert "/tmp/nvflare" not in json.dumps(resources)
    settings = json.loads((founded.server_kit / "local" / kits.SETTINGS_FILE).read_text(encoding="utf-8"))
    assert settings == {"consortium_home": str(founded.path)}


@pytest.mark.parametrize("passphrase", [b"", b"wrong horse", PASSPHRASE.encode() + b" "])
def test_another_passphrase_does_not_open_the_root_key(founded: ConsortiumHome, passphrase: bytes) -> None:
    with pytest.raises(ProvisioningError, match="passphrase does not open the root key; nothing was signed"):
        open_root_key(founded.ca, passphrase)


@pytest.mark.parametrize("passphrase", [b"", b"1234567", b"x" * 1024], ids=["empty", "short", "too long"])
def test_an_unsuitable_passphrase_makes_no_folder(tmp_path: Path, passphrase: bytes) -> None:
    with pytest.raises(OnboardingError, match=f"passphrase has {len(passphrase)} characters; choose one of 8 to 1023"):
        found(ConsortiumHome(tmp_path / "new"), **(GOOD | {"passphrase": passphrase}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "two words"}, "two words"),
        ({"name": "../up"}, "up"),
        ({"organisation": "with-hyphen"}, "with-hyphen"),
    ],
)
def test_a_name_nvflare_cannot_use_is_refused(tmp_path: Path, change: dict[str, str], message: str) -> None:
    with pytest.raises(OnboardingError, match=message):
        found(ConsortiumHome(tmp_path / "new"), **(GOOD | change))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_refused(tmp_path: Path, founded: ConsortiumHome) -> None:
    (tmp_path / "letter.txt").write_text("mine", encoding="utf-8")
    before = snapshot(tmp_path, founded.path)
    told = refused("consortium", "init", NAME, "--organisation", "bureau", "--home", tmp_path)
    assert f"{tmp_path} is not empty" in told
    assert "is not empty" in refused("consortium", "init", NAME, "--organisation", "bureau", "--home", founded.path)
    file = tmp_path / "letter.txt"
    assert f"{file} is a file" in refused("consortium", "init", NAME, "--organisation", "bureau", "--home", file)
    assert snapshot(tmp_path, founded.path) == before


class Stopped(Exception):
    """Thrown by a test where something else would fail."""


def stop(*_: object, **__: object) -> Any:
    raise Stopped


@pytest.mark.parametrize("step", ["write_profile", "create_root", "approve_request", "build_kit", "issue_certificate"])
def test_a_failing_step_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    monkeypatch.setattr(founding, step, stop)
    with pytest.raises(Stopped):
        found(ConsortiumHome(tmp_path / "new"), **GOOD)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interruption_at_the_last_step_leaves_the_empty_folder_it_found(
    tmp_path: Path, error: type[BaseException]
) -> None:
    class Interrupted(ConsortiumHome):
        def sign_checkpoint(self) -> bytes:
            raise error

    (tmp_path / "given").mkdir()
    with pytest.raises(error):
        found(Interrupted(tmp_path / "given"), **GOOD)
    assert list(tmp_path.rglob("*")) == [tmp_path / "given"]


def test_a_log_that_cannot_be_signed_is_told(tmp_path: Path) -> None:
    moments: list[datetime] = []

    def falling_back() -> datetime:  # a clock set back an hour while founding
        moments.append(datetime.now(UTC))
        return moments[-1] - timedelta(hours=len(moments) - 1)

    clock: Callable[[], datetime] = falling_back
    with pytest.raises(OnboardingError, match=r"'Delta' of 'bureau' was not founded: .*ahead of this clock"):
        found(ConsortiumHome(tmp_path / "new", clock), **GOOD)
    assert list(tmp_path.iterdir()) == []


def test_the_command_tells_what_to_do_next(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("from a file, quite long\nnot this line\n", encoding="utf-8")
    folder = tmp_path / "new"
    result = zegel(
        *("consortium", "init", NAME, "--organisation", "bureau", "--home", folder, "--passphrase-file", file)
    )
    assert result.exit_code == 0, result.output
    home = ConsortiumHome(folder)
    assert home.config().root_fingerprint in result.stdout
    assert "by telephone or on paper" in result.stdout
    assert "zegel site request" in result.stdout
    assert open_root_key(home.ca, b"from a file, quite long")
