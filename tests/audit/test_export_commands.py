"""The commands with which others follow the log: export, check, serve, enrol witnesses, ask them, judge incidents."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner, Result

from admin_api.cli import app
from audit.certificates import certificate_pem
from audit.checkpoint import log_verifier_key
from audit.errors import SplitViewError
from audit.note import VerifierKey
from audit.signing_keys import private_key_pem
from audit.tiles import tiles_of
from audit.witness import Witness
from audit.witness_server import witness_app
from tests.audit.independent_verifier import verify_folder
from tests.audit.memory_log import MemoryLog, entries

if TYPE_CHECKING:
    from tests.audit.conftest import Story
else:
    Story = object


def called(*arguments: object, code: int = 0, **environment: str) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)
    if result.exit_code != code:
        raise AssertionError(f"exit code {result.exit_code}\n{result.output}\n{result.stderr}") from result.exception
    assert "Traceback" not in result.output
    return result


def read(*arguments: object, code: int = 0) -> dict[str, Any]:
    """A command's JSON, which is all it prints."""
    value: dict[str, Any] = json.loads(called(*arguments, "--json", code=code).stdout)
    return value


@contextmanager
def running(*arguments: object) -> Iterator[str]:
    """A `zegel` command that serves, and the URL it says."""
    process = subprocess.Popen(
        [sys.executable, "-m", "admin_api.cli", *map(str, arguments), "--port", "0"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        said = process.stderr.readline()
        match = re.search(r"http://\S+?:\d+", said)
        assert match is not None, said + process.stderr.read()
        yield match[0]
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.fixture
def home(told: Story, tmp_path: Path) -> Path:
    """A consortium's folder as far as the log's commands look at it."""
    folder = tmp_path / "consortium"
    (folder / "ca").mkdir(parents=True)
    vkey = str(log_verifier_key(told.keys.holders["log"].certificate))
    (folder / "consortium.json").write_text(json.dumps({"log_vkey": vkey}), encoding="utf-8")
    (folder / "ca" / "rootCA.pem").write_bytes(told.keys.root_pem)
    (folder / "log.key").write_bytes(private_key_pem(told.log_key()))
    with told.log(folder) as log:
        log.sign_checkpoint(told.log_key(), told.clock)
    return folder


@pytest.fixture
def root(home: Path) -> Path:
    return home / "ca" / "rootCA.pem"


def vkey_of(home: Path) -> str:
    return str(json.loads((home / "consortium.json").read_text(encoding="utf-8"))["log_vkey"])


def held(told: Story, name: str, folder: Path, passphrase: bytes | None = None) -> tuple[Path, Path]:
    """Somebody's certificate and key as files."""
    holder = told.keys.holders[name]
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    certificate.write_text(certificate_pem(holder.certificate), encoding="utf-8")
    key.write_bytes(private_key_pem(holder.key, passphrase))
    return certificate, key


def enrolled(told: Story, home: Path, name: str, folder: Path) -> tuple[Path, Path]:
    """A new witness's folder and its enrolment, signed by the hospital `name`."""
    witness, out = folder / f"{name}-witness", folder / f"{name}.enrolment.json"
    called("witness", "init", "--home", witness, "--name", f"{name}.example/w", "--log", vkey_of(home))
    certificate, key = held(told, name, folder)
    called(
        *("witness", "enrol", "--home", witness, "--consortium", "Zegel Demo"),
        *("--certificate", certificate, "--key", key, "--out", out),
    )
    return witness, out


@pytest.fixture
def story_time(told: Story, monkeypatch: pytest.MonkeyPatch) -> datetime:
    """The commands read the wall clock; the story plays on a fixed day, and certificates end."""
    now = told.now + timedelta(minutes=1)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Clock:
            return cls.fromtimestamp(now.timestamp(), tz)

    for module in ("audit.export_commands", "audit.witness_commands"):
        monkeypatch.setattr(f"{module}.datetime", Clock)
    return now


@contextmanager
def serving(folder: Path, now: datetime) -> Iterator[str]:
    """The witness's server in this process, at the story's time."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(
            witness_app(Witness(folder, lambda: now)), ws="none", lifespan="off", log_config=None, access_log=False
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
    assert not thread.is_alive()


def test_export_and_check(home: Path, root: Path, told: Story, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = called("audit", "export", out, "--home", home)
    assert f"verifier key {vkey_of(home)}" in result.stdout
    assert f"{out}: {len(told.entries)} entries of zegel-log/Zegel%20Demo, {len(told.entries)} new" in result.stdout
    assert verify_folder(out, vkey_of(home), []).size == len(told.entries)
    again = read("audit", "export", out, "--home", home)
    assert (again["added"], again["files_written"], again["files_removed"]) == (0, 0, 0)
    assert again["vkey"] == vkey_of(home)
    for by in (("--root", root), ("--vkey", vkey_of(home))):
        checked = read("audit", "check-export", out, *by)
        assert checked["verified"] is True
        assert checked["size"] == len(told.entries)
        assert checked["root"] == again["root"]
    assert checked.get("witnesses") is None
    assert "cosigned by 0 of 0 witnesses" in called("audit", "check-export", out, "--root", root).stdout


def test_a_changed_export_is_named(home: Path, root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    size = read("audit", "export", out, "--home", home)["size"]
    (tile,) = [tile.path for tile in tiles_of(size) if tile.level == 0]
    data = bytearray((out / tile).read_bytes())
    data[40] ^= 1
    (out / tile).write_bytes(data)
    refused = called("audit", "check-export", out, "--root", root, code=1)
    assert refused.stderr.startswith(f"error: {tile} and tile/entries/")
    assert "differ: entry 1 hashes to" in refused.stderr
    assert refused.stdout == ""
    called("audit", "check-export", tmp_path, "--root", root, code=1)
    stranger = Ed25519PrivateKey.generate()
    other = str(VerifierKey.of("zegel-log/Zegel%20Demo", stranger))
    assert "expected a signature by" in called("audit", "check-export", out, "--vkey", other, code=1).stderr


def test_usage(home: Path, root: Path, tmp_path: Path) -> None:
    assert "give either --root or --vkey" in called("audit", "check-export", tmp_path, code=2).stderr
    both = ("audit", "check-export", tmp_path, "--root", root, "--vkey", "x")
    assert "give either" in called(*both, code=2).stderr
    counted = ("audit", "check-export", tmp_path, "--vkey", vkey_of(home), "--witnesses", "1")
    assert "--witnesses needs --root" in called(*counted, code=2).stderr
    assert "verifier key" in called("audit", "check-export", tmp_path, "--vkey", "x", code=1).stderr


def test_an_unsigned_log_is_not_exported(told: Story, home: Path, tmp_path: Path) -> None:
    (home / "log.checkpoint").unlink()
    assert "zegel audit cosign" in called("audit", "export", tmp_path / "out", "--home", home, code=1).stderr
    assert not (tmp_path / "out").exists()


def test_witnesses_from_enrolment_to_a_checked_quorum(
    told: Story, home: Path, root: Path, tmp_path: Path, story_time: datetime
) -> None:
    out = tmp_path / "out"
    first, enrolment_a = enrolled(told, home, "hospital-a", tmp_path)
    second, enrolment_b = enrolled(told, home, "hospital-b", tmp_path)
    key_a, key_b = (read("witness", "key", "--home", each)["vkey"] for each in (first, second))
    with serving(first, story_time) as url:
        assert read("audit", "witness", "add", enrolment_a, "--home", home, "--url", url) == {
            "witness": "hospital-a.example/w", "organisation": "hospital_a", "vkey": key_a, "url": url, "logged": True,
        }  # fmt: skip
        # Said again only the URL is looked at; without one the federation carries the exchange.
        assert read("audit", "witness", "add", enrolment_a, "--home", home, "--url", url)["logged"] is False
        assert read("audit", "witness", "add", enrolment_b, "--home", home)["logged"] is True
        asked = read("audit", "cosign", "--home", home, "--timeout", "30")
    assert asked["cosigned"] == ["hospital-a.example/w"]
    listed = read("audit", "witness", "list", "--home", home)["witnesses"]
    size = len(told.entries) + 2
    assert [(each["organisation"], each["url"], each["counts"], each["cosigned"]) for each in listed] == [
        ("hospital_a", url, True, size), ("hospital_b", None, True, 0),
    ]  # fmt: skip
    text = called("audit", "witness", "list", "--home", home, "--policy", "1").stdout
    assert text.startswith(f"log {vkey_of(home)}\nwitness w1 {key_a}\nwitness w2 {key_b}\ngroup witnesses 1 w1 w2\n")
    assert "got 3" in called("audit", "witness", "list", "--home", home, "--policy", "3", code=1).stderr

    called("audit", "export", out, "--home", home)
    assert verify_folder(out, vkey_of(home), [key_a, key_b]).times == {
        "hospital-a.example/w": int(story_time.timestamp())
    }
    checked = read("audit", "check-export", out, "--root", root, "--witnesses", "1")
    assert (checked["witnesses"], [each["organisation"] for each in checked["cosignatures"]]) == (2, ["hospital_a"])
    refused = called("audit", "check-export", out, "--root", root, "--witnesses", "2", code=1)
    assert "at least 2 of 2 witnesses, got 1; missing: hospital-b.example/w" in refused.stderr

    status = read("witness", "status", "--home", first)
    assert [(log["origin"], log["size"]) for log in status["logs"]] == [("zegel-log/Zegel%20Demo", size)]
    assert status["incidents"] == []
    assert f"cosigned {size} entries at" in called("witness", "status", "--home", first).stdout
    assert "nothing yet" in called("witness", "status", "--home", second).stdout

    # The witness is away: it is said, and what was kept stays.
    gone = read("audit", "cosign", "--home", home, "--timeout", "5", code=1)
    assert "cannot be reached" in gone["refused"]["hospital-a.example/w"]
    assert called("audit", "cosign", "--home", home, "--timeout", "5", "--at-least", "0").exit_code == 0
    assert (home / "cosigned" / f"{size}.note").is_file()


def test_a_forked_log_is_refused_and_the_incident_judged(
    told: Story, home: Path, tmp_path: Path, story_time: datetime
) -> None:
    """Whoever holds the log's key signs another history; the witness keeps both, and anybody can judge."""
    witness = Witness(enrolled(told, home, "hospital-a", tmp_path)[0], lambda: story_time)
    with told.log(home.parent) as log:
        honest = log.sign_checkpoint(told.log_key(), told.clock)
    witness.add_checkpoint(0, [], honest)
    fork = MemoryLog(entries(len(told.entries)), told.log_key(), "zegel-log/Zegel%20Demo")
    with pytest.raises(SplitViewError):
        witness.add_checkpoint(len(told.entries), [], fork.checkpoint())
    (incident,) = [each["file"] for each in read("witness", "status", "--home", witness.folder)["incidents"]]
    assert "INCIDENT split-view at" in called("witness", "status", "--home", witness.folder).stdout
    verdict = read("witness", "judge", incident, "--log", vkey_of(home), code=1)
    assert (verdict["proved"], verdict["kind"]) == (True, "split-view")
    called("audit", "export", tmp_path / "out", "--home", home)
    verdict = read("witness", "judge", incident, "--log", vkey_of(home), "--export", tmp_path / "out", code=1)
    assert verdict["proved"] is True
    stranger = str(VerifierKey.of("zegel-log/x", told.log_key()))
    assert "not two checkpoints of" in called("witness", "judge", incident, "--log", stranger, code=1).stderr


@pytest.mark.parametrize(
    ("signer", "message"),
    [("Bob", "expected role authority or client, got privacy_officer"), ("log", "got log")],
)
def test_who_may_not_enrol(told: Story, home: Path, tmp_path: Path, signer: str, message: str) -> None:
    witness = tmp_path / "w"
    called("witness", "init", "--home", witness, "--name", "w.example", "--log", vkey_of(home))
    certificate, key = held(told, signer, tmp_path)
    refused = called(
        *("witness", "enrol", "--home", witness, "--consortium", "Zegel Demo"),
        *("--certificate", certificate, "--key", key, "--out", tmp_path / "e.json"),
        code=1,
    )
    assert message in refused.stderr
    assert not (tmp_path / "e.json").exists()


def test_an_enrolment_is_checked_before_it_is_logged(
    told: Story, home: Path, tmp_path: Path, story_time: datetime
) -> None:
    _, enrolment = enrolled(told, home, "hospital-a", tmp_path)
    good = json.loads(enrolment.read_bytes())
    for change, message in (
        ({"signature": good["signature"][:-8] + "AAAAAAA="}, "is not hospital-a's over these bytes"),
        ({"certificate": told.keys.holders["hospital-b"].digest}, "is not hospital-b's over these bytes"),
        ({"statement": good["statement"] | {"consortium": "Another"}}, "did not sign"),
        ({"statement": good["statement"] | {"type": "zegel/receipt/v1"}}, "expected statement type"),
        ({"more": 1}, "expected exactly"),
    ):
        spoiled = tmp_path / "spoiled.json"
        spoiled.write_text(json.dumps(good | change), encoding="utf-8")
        assert message in called("audit", "witness", "add", spoiled, "--home", home, code=1).stderr
    enrolment.write_text("no json", encoding="utf-8")
    assert "is not JSON" in called("audit", "witness", "add", enrolment, "--home", home, code=1).stderr
    enrolment.write_text(json.dumps(good), encoding="utf-8")
    wrong_url = ("audit", "witness", "add", enrolment, "--home", home, "--url", "ftp://x")
    assert "witness URL" in called(*wrong_url, code=1).stderr
    assert read("audit", "witness", "list", "--home", home)["witnesses"] == []
    assert "no witness is enrolled" in called("audit", "witness", "list", "--home", home).stdout
    assert "zegel audit witness add" in called("audit", "cosign", "--home", home, code=1).stderr


def test_a_key_with_a_passphrase(told: Story, home: Path, tmp_path: Path) -> None:
    witness = tmp_path / "w"
    called("witness", "init", "--home", witness, "--name", "w.example")
    assert "watching zegel-log/Zegel%20Demo" in called("witness", "trust", vkey_of(home), "--home", witness).stdout
    certificate, key = held(told, "hospital-a", tmp_path, b"secret")
    arguments = (
        *("witness", "enrol", "--home", witness, "--consortium", "Zegel Demo"),
        *("--certificate", certificate, "--key", key, "--out", tmp_path / "e.json"),
    )
    assert "a passphrase is needed" in called(*arguments, code=1, ZEGEL_PERSON_PASSPHRASE="").stderr
    assert "wrong passphrase" in called(*arguments, code=1, ZEGEL_PERSON_PASSPHRASE="other").stderr
    called(*arguments, ZEGEL_PERSON_PASSPHRASE="secret")
    file = tmp_path / "passphrase"
    file.write_bytes(b"\nsecret\n")
    assert "first line is empty" in called(*arguments, "--passphrase-file", file, code=1).stderr
    file.write_bytes(b"secret\n")
    called(*arguments, "--passphrase-file", file)


@pytest.mark.parametrize("command", ["key", "status", "serve"])
def test_a_folder_that_is_no_witness(tmp_path: Path, command: str) -> None:
    refused = called("witness", command, "--home", tmp_path, code=1)
    assert str(tmp_path) in refused.stderr
    assert "zegel witness init" in refused.stderr


def test_a_folder_that_is_no_consortium(tmp_path: Path) -> None:
    for command in (("export", tmp_path / "out"), ("serve",), ("cosign",), ("witness", "list")):
        refused = called("audit", *command, "--home", tmp_path, code=1)
        assert "consortium.json" in refused.stderr


def test_serving_the_log(told: Story, home: Path, tmp_path: Path) -> None:
    """A stranger mirrors it over a real connection and verifies the mirror."""
    with running("audit", "serve", "--home", home) as url:
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
        for path in ("checkpoint", *(tile.path for tile in tiles_of(len(told.entries)))):
            (tmp_path / "mirror" / path).parent.mkdir(parents=True, exist_ok=True)
            connection.request("GET", f"/{path}")
            response = connection.getresponse()
            assert response.status == 200
            (tmp_path / "mirror" / path).write_bytes(response.read())
        connection.request("HEAD", "/tile/0/000.p/1")
        head = connection.getresponse()
        assert (head.getheader("Content-Length"), head.getheader("Server"), head.read()) == ("32", None, b"")
        connection.close()
    assert verify_folder(tmp_path / "mirror", vkey_of(home), []).size == len(told.entries)
