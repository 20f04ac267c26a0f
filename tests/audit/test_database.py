"""The log's databases: which URLs, which rights, and how a schema comes up to date."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import SQLAlchemyError

import audit.migrations
from audit.database import log_url, open_database
from audit.database_postgresql import PostgreSQL
from audit.entry import Entry
from audit.errors import CorruptLogError, LogError
from audit.lineage_tables import lineage_tables
from audit.log_check import schema_differences
from audit.merkle import Frontier, leaf_hash
from audit.migrations import HEAD
from audit.store import open_log
from audit.tables import LogTable
from tests.audit.log_places import ORIGIN, Place, PostgreSQLPlace, SQLitePlace, altered, opened
from tests.audit.postgresql import OWNER, WRITER, Server

FUNCTION = "CREATE OR REPLACE FUNCTION log_is_append_only() RETURNS trigger"
MIGRATIONS = Path(audit.migrations.__file__).parent


# Which databases


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite://", "in-memory database that would not survive"),
        ("sqlite:///:memory:", "in-memory database that would not survive"),
        (
            "mysql://somebody:secret@host/log",
            r"expected sqlite:///<path> or postgresql://.*got mysql://somebody:\*\*\*@",
        ),
        ("log.db", "log database: Could not parse"),
    ],
)
def test_databases_that_would_not_do(url: str, message: str) -> None:
    with pytest.raises(LogError, match=message):
        open_log(url, origin=ORIGIN)


def test_postgresql_needs_a_place_for_the_checkpoint() -> None:
    with pytest.raises(LogError, match="expected a path for the last signed checkpoint"):
        open_log("postgresql://writer@host/log", origin=ORIGIN)


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"postgresql://writer@/log.* cannot be used"):
        open_log(f"postgresql://writer@/log?host={tmp_path}", origin=ORIGIN, checkpoint_path=tmp_path / "c")


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "log.db").write_bytes(b"not a database, but long enough to be looked at" * 10)
    with pytest.raises(LogError, match="cannot be used"):
        opened(SQLitePlace(tmp_path))


def test_where_a_consortium_keeps_its_log(tmp_path: Path) -> None:
    assert log_url(tmp_path, None) == f"sqlite:///{tmp_path}/log.db"
    assert log_url(tmp_path, "postgresql://writer@db/log") == "postgresql://writer@db/log"
    for secret in ("postgresql://writer:secret@db/log", "postgresql://db/log?user=writer&password=secret"):
        with pytest.raises(LogError, match=r"expected no password in consortium\.json") as raised:
            log_url(tmp_path, secret)
        assert "secret" not in str(raised.value)


def test_a_busy_log_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audit.database_sqlite.BUSY_TIMEOUT_S", 0)
    place = SQLitePlace(tmp_path)
    with opened(place) as log, closing(sqlite3.connect(tmp_path / "log.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LogError, match="another process has been writing for more than"):
            log.append([], expected_size=0)
        assert log.size == 0


# Rows stay


def test_replacing_is_refused_too(tmp_path: Path, entries: list[Entry]) -> None:
    """INSERT OR REPLACE deletes without a word unless `recursive_triggers` is on."""
    place = SQLitePlace(tmp_path)
    with opened(place) as log:
        log.append(entries[:2])
    database = place.administrator()
    for statement in (
        "INSERT OR REPLACE INTO log_entry VALUES (0, 'x', x'00')",
        "INSERT OR REPLACE INTO log_node VALUES (0, 0, x'00')",
    ):
        with pytest.raises(SQLAlchemyError, match="append-only"), database.writing() as connection:
            connection.exec_driver_sql(statement)
    database.close()


@pytest.fixture
def server_place(postgresql: Server, empty_database: str, tmp_path: Path) -> Iterator[PostgreSQLPlace]:
    place = PostgreSQLPlace(tmp_path, postgresql, postgresql.new_database(like=empty_database))
    yield place
    postgresql.drop(place.database)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE log_entry SET kind = 'x'",
        "DELETE FROM log_entry",
        "TRUNCATE log_node",
        "INSERT INTO log_setting VALUES ('origin', 'x') ON CONFLICT (name) DO UPDATE SET value = 'x'",
        "MERGE INTO log_setting USING (SELECT 1) AS s ON true WHEN MATCHED THEN DELETE",
        "DROP TABLE lineage_metric",
        "ALTER TABLE log_entry DISABLE TRIGGER ALL",
        "DROP TRIGGER log_entry_append_only ON log_entry",
        "CREATE TRIGGER mine BEFORE INSERT ON log_entry FOR EACH ROW EXECUTE FUNCTION log_is_append_only()",
        f"{FUNCTION} LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "SET session_replication_role = replica",
        "UPDATE alembic_version SET version_num = '0001'",
        "CREATE TABLE mine (i integer)",
    ],
)
def test_the_writer_has_no_right_to_change_anything(
    server_place: PostgreSQLPlace, entries: list[Entry], statement: str
) -> None:
    with opened(server_place) as log:
        log.append(entries[:3])
    with (
        pytest.raises(psycopg.errors.InsufficientPrivilege, match=r"permission denied|must be owner"),
        psycopg.connect(server_place.server.url(WRITER, server_place.database)) as connection,
    ):
        connection.execute(statement.encode())
    with opened(server_place) as log:
        assert log.check().size == 3


@pytest.mark.parametrize("role", [OWNER, "postgres"])
@pytest.mark.parametrize("replica", [False, True])
def test_not_even_the_owner_changes_rows_by_accident(
    server_place: PostgreSQLPlace, entries: list[Entry], role: str, replica: bool
) -> None:
    with opened(server_place) as log:
        log.append(entries[:3])
    for statement in ("UPDATE log_entry SET kind = 'x'", "DELETE FROM log_node", "TRUNCATE lineage_metric"):
        with (
            psycopg.connect(server_place.server.url(role, server_place.database)) as connection,
            pytest.raises(psycopg.errors.RaiseException, match="append-only"),
        ):
            if replica and role == "postgres":
                connection.execute("SET session_replication_role = replica")
            connection.execute(statement.encode())


@pytest.mark.parametrize("role", [OWNER, "postgres"])
def test_a_role_that_could_change_rows_is_refused(server_place: PostgreSQLPlace, role: str) -> None:
    url = server_place.server.url(role, server_place.database)
    with pytest.raises(LogError, match=f"may only read and add, but {role} may change rows of log_entry"):
        open_log(url, origin=ORIGIN, checkpoint_path=server_place.directory / "c")


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("GRANT UPDATE ON log_node TO zegel_writer", "zegel_writer may change rows of log_node"),
        ("GRANT UPDATE (kind) ON log_entry TO zegel_writer", "zegel_writer may change rows of log_entry"),
        ("GRANT DELETE ON lineage_run TO PUBLIC", "PUBLIC may change rows of lineage_run"),
        (
            "ALTER TABLE log_entry DISABLE TRIGGER log_entry_append_only",
            "trigger log_entry_append_only on log_entry is not",
        ),
        ("DROP TRIGGER log_node_append_only ON log_node", "trigger log_node_append_only is missing"),
        (
            "CREATE TRIGGER stray AFTER INSERT ON log_entry EXECUTE FUNCTION log_is_append_only()",
            "trigger stray on log_entry is not ours",
        ),
        (
            f"{FUNCTION} LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
            "trigger lineage_metric_append_only on lineage_metric is not ours",
        ),
        ("CREATE RULE quiet AS ON DELETE TO log_entry DO INSTEAD NOTHING", "rule quiet on log_entry is not ours"),
    ],
)
def test_a_check_finds_protection_that_was_lifted(
    server_place: PostgreSQLPlace, entries: list[Entry], statement: str, message: str
) -> None:
    with opened(server_place) as log:
        log.append(entries[:3])
        log.check()
        server_place.server.run(server_place.database, statement)
        with pytest.raises(CorruptLogError, match=f"schema: {message}"):
            log.check()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DROP TRIGGER log_entry_no_delete", "trigger log_entry_no_delete is missing"),
        (
            "CREATE TRIGGER stray AFTER INSERT ON log_node BEGIN SELECT 1; END",
            "trigger stray is not ours: CREATE TRIGGER stray",
        ),
    ],
)
def test_a_check_finds_triggers_that_are_not_ours(
    tmp_path: Path, entries: list[Entry], statement: str, message: str
) -> None:
    place = SQLitePlace(tmp_path)
    with opened(place) as log:
        log.append(entries[:3])
        with closing(sqlite3.connect(tmp_path / "log.db")) as connection:
            connection.execute(statement)
        with pytest.raises(CorruptLogError, match=f"schema: {message}"):
            log.check()


# Setting up PostgreSQL


def owner_of(server: Server, database: str) -> PostgreSQL:
    found = open_database(server.url(OWNER, database))
    assert isinstance(found, PostgreSQL)
    return found


def test_the_owner_sets_up_and_may_do_so_again(postgresql: Server, tmp_path: Path, entries: list[Entry]) -> None:
    name = postgresql.new_database()
    place = PostgreSQLPlace(tmp_path, postgresql, name)
    with pytest.raises(LogError, match=r"holds no log of this version.*zegel audit database init"):
        opened(place)
    owner = owner_of(postgresql, name)
    for _ in range(2):
        owner.initialise(writer=WRITER)
        with opened(place) as log:
            log.append(entries[:3])
            log.check()
    for role, message in (
        ("postgres", "is the owner, its member or a superuser"),
        (OWNER, "is the owner, its member or a superuser"),
        ('x"; DROP TABLE log_entry', "expected lower-case letters"),
        ("", "expected lower-case letters"),
    ):
        with pytest.raises(LogError, match=message):
            owner.initialise(writer=role)
    owner.close()
    postgresql.drop(name)


def test_a_server_that_may_lose_commits_is_refused(server_place: PostgreSQLPlace) -> None:
    server = server_place.server
    server.run("postgres", "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
    try:
        # The setting reaches the server's processes a moment later.
        for _ in range(200):
            with psycopg.connect(server.url("postgres", server_place.database)) as connection:
                (fsync,) = connection.execute("SHOW fsync").fetchone() or ("",)
            if fsync == "off":
                break
        with pytest.raises(LogError, match="fsync=off and can lose entries"):
            opened(server_place)
    finally:
        server.run("postgres", "ALTER SYSTEM RESET fsync", "SELECT pg_reload_conf()")


# The schema


def test_the_migrated_schema_is_that_of_the_models(place: Place) -> None:
    opened(place).close()
    database = place.administrator()
    with database.snapshot() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        found = [each for each in compare_metadata(context, LogTable.metadata) if "alembic_version" not in str(each)]
        assert found == []
        assert schema_differences(connection) == []
        assert database.guard_differences(connection) == []
        assert audit.migrations.revision(connection) == HEAD
    database.close()


def test_revisions_form_one_line_and_go_up_only() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_heads() == [HEAD]
    assert [script.revision for script in scripts.walk_revisions()] == ["0002", "0001"]
    for script in scripts.walk_revisions():
        with pytest.raises(NotImplementedError, match="only goes up"):
            script.module.downgrade()


# The schema and triggers of databases made before revisions were recorded.
EARLIEST = """
CREATE TABLE log_entry ("index" INTEGER NOT NULL, kind VARCHAR NOT NULL, data BLOB NOT NULL, PRIMARY KEY ("index"));
CREATE INDEX ix_log_entry_kind ON log_entry (kind);
CREATE TABLE log_node (level INTEGER NOT NULL, "index" INTEGER NOT NULL, hash BLOB NOT NULL,
    PRIMARY KEY (level, "index"));
CREATE TABLE log_setting (name VARCHAR NOT NULL, value VARCHAR NOT NULL, PRIMARY KEY (name));
CREATE TRIGGER log_entry_no_update BEFORE UPDATE ON log_entry
    BEGIN SELECT RAISE(ABORT, 'table log_entry is append-only: UPDATE refused'); END;
CREATE TRIGGER log_entry_no_delete BEFORE DELETE ON log_entry
    BEGIN SELECT RAISE(ABORT, 'table log_entry is append-only: DELETE refused'); END;
INSERT INTO log_setting VALUES ('origin', 'zegel-log/test');
"""


def earliest(path: Path, entries: list[Entry]) -> None:
    frontier = Frontier()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(EARLIEST)
        for index, entry in enumerate(entries):
            data = entry.to_bytes()
            connection.execute("INSERT INTO log_entry VALUES (?, ?, ?)", (index, entry.kind, data))
            nodes: list[tuple[Any, ...]] = [(*node, value) for node, value in frontier.append(leaf_hash(data))]
            connection.executemany("INSERT INTO log_node VALUES (?, ?, ?)", nodes)
        connection.commit()


def test_a_log_from_before_revisions_is_brought_up_to_date(tmp_path: Path, entries: list[Entry]) -> None:
    earliest(tmp_path / "log.db", entries)
    with opened(SQLitePlace(tmp_path)) as log:
        assert [entry for _, entry in log.entries()] == entries
        found = log.check()
        assert found.revision == HEAD
        assert all(found.lineage[table.name] for table in lineage_tables())
        assert log.append(entries[:2]) == [len(entries), len(entries) + 1]
        log.check()


def test_an_upgrade_that_fails_leaves_the_old_log(tmp_path: Path, entries: list[Entry]) -> None:
    earliest(tmp_path / "log.db", entries)
    with closing(sqlite3.connect(tmp_path / "log.db")) as connection:
        connection.execute("DROP TRIGGER log_entry_no_update")
        connection.execute("UPDATE log_entry SET data = x'00' WHERE \"index\" = 4")
        connection.commit()
        before = connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
    with pytest.raises(CorruptLogError, match="entry 4"):
        opened(SQLitePlace(tmp_path))
    with closing(sqlite3.connect(tmp_path / "log.db")) as connection:
        assert connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall() == before


def test_a_log_of_a_newer_zegel_is_left_alone(place: Place, entries: list[Entry]) -> None:
    with opened(place) as log:
        log.append(entries[:3])
    altered(place, "UPDATE alembic_version SET version_num = '9999'")
    message = "made by a newer one" if isinstance(place, SQLitePlace) else "no log of this version of Zegel"
    with pytest.raises(LogError, match=message):
        opened(place)
    if isinstance(place, PostgreSQLPlace):
        owner = owner_of(place.server, place.database)
        with pytest.raises(LogError, match="made by a newer one"):
            owner.initialise(writer=WRITER)
        owner.close()
    altered(place, "UPDATE alembic_version SET version_num = '0002'")
    with opened(place) as log:
        log.check()


def test_lineage_made_by_other_rules_is_made_anew(place: Place, entries: list[Entry]) -> None:
    with opened(place) as log:
        log.append(entries)
        expected = log.check()
    altered(
        place,
        "UPDATE log_setting SET value = 'older' WHERE name = 'lineage'",
        "DELETE FROM lineage_round",
        "UPDATE lineage_metric SET value = 99",
    )
    if isinstance(place, PostgreSQLPlace):
        with pytest.raises(LogError, match="zegel audit database init"):
            opened(place)
        owner = owner_of(place.server, place.database)
        owner.initialise(writer=WRITER)
        owner.close()
    with opened(place) as log:
        assert log.check() == expected


def test_names_in_statements_are_plain() -> None:
    """Table and column names are written into statements as they are."""
    for table in LogTable.metadata.tables.values():
        for name in (table.name, *(column.name for column in table.columns)):
            assert re.fullmatch(r"[a-z_]+", name)


def test_options_of_the_url_are_kept(server_place: PostgreSQLPlace, tmp_path: Path) -> None:
    """A log in a schema of its own, named in the URL, and still durable."""
    server = server_place.server
    server.run(server_place.database, f"CREATE SCHEMA apart AUTHORIZATION {OWNER}")
    options = "&options=-csearch_path%3Dapart"
    owner = open_database(server.url(OWNER, server_place.database) + options)
    assert isinstance(owner, PostgreSQL)
    owner.initialise(writer=WRITER)
    owner.close()
    url = server.url(WRITER, server_place.database) + options
    with open_log(url, origin="zegel-log/apart", checkpoint_path=tmp_path / "apart") as log, log.rows() as connection:
        assert connection.exec_driver_sql("SHOW search_path").scalar_one() == "apart"
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "on"
        assert log.check().origin == "zegel-log/apart"
    with opened(server_place) as log:
        assert log.origin == ORIGIN
