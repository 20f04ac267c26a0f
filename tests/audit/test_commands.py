"""The commands: what a person or a machine reads, and the exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer
from typer.testing import CliRunner, Result

from audit.archive import pack, unpack
from audit.artifacts import Artifacts
from audit.checkpoint import log_verifier_key
from audit.commands import audit_app, verify
from audit.entry import KINDS
from audit.wording import Branch, entry_words, printable, trace_tree

if TYPE_CHECKING:
    from tests.audit.conftest import Story
else:
    Story = object

verify_app = typer.Typer()
verify_app.command()(verify)


def called(app: typer.Typer, *arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def files(told: Story, dossier: bytes, tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "r.dossier").write_bytes(dossier)
    (tmp_path / "rootCA.pem").write_bytes(told.keys.root_pem)
    return tmp_path / "r.dossier", tmp_path / "rootCA.pem"


@pytest.fixture
def home(told: Story, tmp_path: Path) -> Path:
    vkey = str(log_verifier_key(told.keys.holders["log"].certificate))
    (tmp_path / "consortium.json").write_text(json.dumps({"log_vkey": vkey}), encoding="utf-8")
    told.disclosures(tmp_path)
    artifacts = Artifacts(tmp_path / "artifacts")
    for data in told.artifacts.values():
        artifacts.put(data)
    with told.log(tmp_path) as log:
        log.sign_checkpoint(told.log_key(), told.clock)
        log.append(told.entries[-1:])
    return tmp_path


@pytest.fixture
def at_story_time(told: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command reads the wall clock; the story plays on a fixed day."""
    from datetime import datetime, tzinfo

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Clock:
            return cls.fromtimestamp(told.now.timestamp(), tz)

    monkeypatch.setattr("audit.commands.datetime", Clock)


@pytest.mark.usefixtures("at_story_time")
def test_verify(files: tuple[Path, Path]) -> None:
    result = called(verify_app, files[0], "--root", files[1])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith("ok     container: ")
    assert sum(line.startswith("ok ") for line in lines) == 17
    assert "Release 2027.1 of Zegel Demo" in lines
    assert "      hospital-c (hospital_c): 2 of 3 rounds, 1200 admissions, fewer than 10 patients" in result.stdout
    assert "micro_f1@every-site: 0.7 >= 0.6 (hospital-d's, the worst of 4)" in result.stdout
    assert "\x1b" not in result.stdout


@pytest.mark.usefixtures("at_story_time")
def test_verify_for_machines(files: tuple[Path, Path], told: Story) -> None:
    result = called(verify_app, files[0], "--root", files[1], "--json")
    assert result.exit_code == 0
    value = json.loads(result.stdout)
    assert value["verified"] is True
    assert value["trace"]["version"] == told.version
    assert len(value["trace"]["runs"][0]["rounds"]) == 3


@pytest.mark.usefixtures("at_story_time")
def test_verify_refuses(files: tuple[Path, Path]) -> None:
    members = unpack(files[0].read_bytes())
    files[0].write_bytes(pack({**members, "model.safetensors": b"other"}))
    result = called(verify_app, files[0], "--root", files[1])
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1].startswith("ok     root certificate")
    assert result.stderr.startswith("FAILED manifest: model.safetensors: has 5 bytes, ")
    result = called(verify_app, files[0], "--root", files[1], "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["check"] == "manifest"
    assert json.loads(result.stdout)["verified"] is False


def test_verify_wants_its_files(files: tuple[Path, Path]) -> None:
    assert called(verify_app, files[0]).exit_code == 2
    assert called(verify_app, "nowhere.dossier", "--root", files[1]).exit_code == 2


def test_check(home: Path, told: Story) -> None:
    result = called(audit_app, "check", "--home", home)
    assert result.exit_code == 0
    assert f"{len(told.entries) + 1} entries" in result.stdout
    assert "1 came after it" in result.stdout
    value = json.loads(called(audit_app, "check", "--home", home, "--json").stdout)
    assert (value["size"], value["signed_size"]) == (len(told.entries) + 1, len(told.entries))
    assert value["artifacts"] == len(told.artifacts)


def test_check_finds_a_changed_artifact(home: Path, told: Story) -> None:
    Artifacts(home / "artifacts").path(told.version).write_bytes(b"other")
    result = called(audit_app, "check", "--home", home)
    assert result.exit_code == 1
    assert "has changed on disk" in result.stderr


def test_log(home: Path, told: Story) -> None:
    result = called(audit_app, "log", "--home", home, "-n", "3")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert len(lines) == 3
    assert lines[0].endswith(f"Carol (release_manager, Statistics) approved release {told.statement_short()}")
    assert "release 2027.1 certified" in lines[-1]
    value = json.loads(called(audit_app, "log", "--home", home, "--json").stdout)
    assert len(value["entries"]) == 20
    assert value["entries"][-1]["kind"] == "release.certified"


def test_entry(home: Path, told: Story) -> None:
    result = called(audit_app, "entry", "0", "--home", home)
    assert result.exit_code == 0
    assert result.stdout.startswith("consortium Zegel Demo founded")
    assert "c2sp.org/tlog-proof@v1\nindex 0\n" in result.stdout
    last = called(audit_app, "entry", str(len(told.entries)), "--home", home)
    assert "no proof yet" in last.stdout
    value = json.loads(called(audit_app, "entry", "0", "--home", home, "--json").stdout)
    assert value["entry"]["kind"] == "consortium.founded"
    missing = called(audit_app, "entry", "999", "--home", home)
    assert missing.exit_code == 1
    assert "log has no entry 999" in missing.stderr


def test_a_folder_that_is_no_home(tmp_path: Path) -> None:
    result = called(audit_app, "check", "--home", tmp_path)
    assert result.exit_code == 1
    assert "does not name the log's key" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_home_without_a_log(home: Path) -> None:
    (home / "log.db").unlink()
    result = called(audit_app, "log", "--home", home)
    assert result.exit_code == 1
    assert "holds no log.db" in result.stderr
    assert not (home / "log.db").exists()


def test_words_for_every_kind(story: Story, whole: Story) -> None:
    def lose_a_round(fields: dict[str, Any]) -> None:
        lost = {"run_id": story.run_id, "round": 4, "reason": "too few", "participants": [], "dropped": ["x"]}
        story.add("round.aborted", **lost)
        fields["rounds"] = 4

    story.hooks = {
        "plan": lambda fields: fields.update(rounds=4),
        "run.finished": lose_a_round,
        "version.created": lambda fields: fields.update(rounds=[1, 4]),
    }
    story.tell()
    refusal = story.sign(
        "refusal",
        "hospital-a",
        plan_hash=story.version,
        site="hospital-a",
        code="budget",
        reason="a\x1b[31mb\nc",
    )
    story.add("site.refused", run_id=story.run_id, refusal=refusal)
    assert {entry.kind for entry in (*story.entries, *whole.entries)} == set(KINDS)
    for entry in (*story.entries, *whole.entries):
        assert entry_words(entry).isprintable()
    tree = trace_tree(story.trace())
    lines = tree.lines()
    assert all(line.isprintable() for line in lines)
    assert any("hospital-a refused: budget, a?[31mb?c" in line for line in lines)
    assert any("1 rounds were lost" in line for line in lines)


def test_printable() -> None:
    assert printable("a\nb\x1b\u202ec") == "a?b??c"
    assert len(printable("x" * 1000)) == 203
    tree = Branch("a")
    tree.add("b").add("c")
    assert tree.lines() == ["a", "  b", "    c"]
