"""`zegel audit database` and `zegel audit check`: moving a consortium's log to PostgreSQL and living there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from audit.artifacts import Artifacts
from audit.checkpoint import log_verifier_key
from audit.commands import audit_app
from audit.store import open_log
from jobs.home import ConsortiumConfig, ConsortiumHome
from tests.audit.conftest import Story
from tests.audit.log_places import PostgreSQLPlace, SQLitePlace, altered
from tests.audit.postgresql import OWNER, WRITER, Server


def called(*arguments: str | Path) -> Result:
    return CliRunner().invoke(audit_app, [str(argument) for argument in arguments])


@pytest.fixture
def home(told: Story, tmp_path: Path) -> ConsortiumHome:
    """A consortium's folder with a signed log in SQLite and one entry after the signature."""
    folder = ConsortiumHome(tmp_path, told.clock)
    key = log_verifier_key(told.keys.holders["log"].certificate)
    folder.write_config(
        ConsortiumConfig("Zegel Demo", "c", "server.example", 8002, 8003, "a@b", "sha256:", "", key.name, str(key))
    )
    artifacts = Artifacts(tmp_path / "artifacts")
    for data in told.artifacts.values():
        artifacts.put(data)
    with told.log(tmp_path) as log:
        log.sign_checkpoint(told.log_key(), told.clock)
        log.append(told.entries[-1:])
    return folder


@pytest.fixture
def database(postgresql: Server, empty_database: str) -> Iterator[str]:
    """The name of a database that nobody prepared, on a server whose roles exist."""
    name = postgresql.new_database()
    yield name
    postgresql.drop(name)


def set_log_url(home: ConsortiumHome, url: str | None) -> None:
    path = home.path / "consortium.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "log_url": url}), encoding="utf-8")


def test_a_consortium_moves_its_log_to_postgresql(
    home: ConsortiumHome, told: Story, postgresql: Server, database: str
) -> None:
    owner, writer = postgresql.url(OWNER, database), postgresql.url(WRITER, database)
    result = called("database", "copy", "--home", home.path, "--to", writer)
    assert result.exit_code == 1
    assert "zegel audit database init" in result.stderr

    result = called("database", "init", "--url", owner, "--writer", WRITER, "--json")
    assert result.exit_code == 0, result.stderr
    made = json.loads(result.stdout)
    assert (made["revision"], made["writer"]) == ("0002", WRITER)
    assert called("database", "init", "--url", owner, "--writer", WRITER).exit_code == 0

    for copied in (len(told.entries) + 1, 0):
        result = called("database", "copy", "--home", home.path, "--to", made["log_url"], "--json")
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["copied"] == copied
    assert not (home.path / "log.checkpoint.of-copy").exists()
    before = json.loads(called("check", "--home", home.path, "--json").stdout)

    set_log_url(home, made["log_url"])
    (home.path / "log.db").unlink()
    after = json.loads(called("check", "--home", home.path, "--json").stdout)
    assert after == before
    assert (after["sound"], after["size"], after["signed_size"]) == (True, len(told.entries) + 1, len(told.entries))
    with home.log() as log:
        log.append(told.entries[-1:])
        log.sign_checkpoint(told.log_key(), told.clock)
        assert log.check().signed_size == len(told.entries) + 2
    assert "entries, root" in called("check", "--home", home.path).stdout


def test_another_log_is_not_copied_over(
    home: ConsortiumHome, told: Story, postgresql: Server, empty_database: str, tmp_path: Path
) -> None:
    place = PostgreSQLPlace(tmp_path, postgresql, postgresql.new_database(like=empty_database))
    with open_log(place.url, origin=home.config().log_origin, checkpoint_path=tmp_path / "other") as log:
        log.append(told.entries[1:3])
    result = called("database", "copy", "--home", home.path, "--to", place.url)
    assert result.exit_code == 1
    assert "holds another log (2 entries); give an empty database" in result.stderr
    postgresql.drop(place.database)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["init", "--url", "sqlite:///log.db", "--writer", "w"], "a log in SQLite needs no preparation"),
        (["init", "--url", "postgresql://o@/log?host=/nowhere", "--writer", "w"], "error: "),
        (["init", "--url", "nonsense", "--writer", "w"], "error: log database: Could not parse"),
    ],
)
def test_what_init_refuses(arguments: list[str], message: str) -> None:
    result = called("database", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_password_is_kept_out_of_the_folder(home: ConsortiumHome) -> None:
    set_log_url(home, "postgresql://writer:secret@host/log")
    result = called("check", "--home", home.path)
    assert result.exit_code == 1
    assert "expected no password in consortium.json" in result.stderr
    assert "secret" not in result.stderr


def damaged(home: ConsortiumHome, what: str) -> None:
    """Does one kind of damage to a consortium's log."""
    artifacts = home.path / "artifacts"
    first = sorted(artifacts.iterdir())[0]
    match what:
        case "row":
            altered(SQLitePlace(home.path), "UPDATE lineage_round SET round = 9 WHERE round = 2")
        case "checkpoint":
            path = home.path / "log.checkpoint"
            data = path.read_bytes()
            path.write_bytes(data[:-4] + (b"AAA\n" if data[-4:] != b"AAA\n" else b"BBB\n"))
        case "checkpoint removed":
            (home.path / "log.checkpoint").unlink()
        case "artifact changed":
            first.write_bytes(first.read_bytes() + b" ")
        case "artifact swapped":
            first.write_bytes(sorted(artifacts.iterdir())[1].read_bytes())


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("row", "table lineage_round, row (entry "),
        ("checkpoint", "signature"),
        ("checkpoint removed", "last signed checkpoint is missing"),
        ("artifact changed", "has changed on disk"),
        ("artifact swapped", "has changed on disk"),
    ],
)
def test_check_names_what_is_wrong(home: ConsortiumHome, what: str, message: str) -> None:
    damaged(home, what)
    result = called("check", "--home", home.path, "--json")
    assert result.exit_code == 1
    found: dict[str, Any] = json.loads(result.stdout)
    assert found["sound"] is False
    assert message in found["error"]
    assert result.stderr == f"error: {found['error']}\n"
