"""What `zegel audit check` finds: every table and column changed, removed, swapped or duplicated, each named.

The administrator's changes are made in a transaction that the check is let into and that is then rolled back:
every case starts from the same log.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Boolean, Column, Connection, LargeBinary, String, Table, func, select

from audit.database import Database, open_database
from audit.entry import Entry
from audit.errors import CorruptLogError, LogError
from audit.lineage_rows import TABLES
from audit.log_check import LogCheck, Progress, check_log
from audit.merkle import root_of
from audit.replay import compare_rows
from audit.tables import ENTRIES, NODES, SETTINGS, LogTable
from tests.audit.conftest import Story
from tests.audit.log_places import KEY, ORIGIN, Place, altered, kept, opened

ALL = LogTable.metadata.sorted_tables
COLUMNS = [(table, column) for table in ALL for column in table.columns if not column.primary_key]


class Within:
    """A database of which every state is that of one transaction (an `audit.database.Database`).

    Its triggers are away for good, so it must not be asked about them.
    """

    def __init__(self, database: Database, connection: Connection) -> None:
        self._database = database
        self._connection = connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        yield self._connection

    def guard_differences(self, connection: Connection) -> list[str]:
        return []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)


class Altered:
    """A log whose administrator is at work."""

    def __init__(self, database: Database, connection: Connection) -> None:
        self.connection = connection
        self.sqlite = connection.dialect.name == "sqlite"
        self._database = database

    def check(self) -> LogCheck:
        database: Any = Within(self._database, self.connection)
        return check_log(database, ORIGIN, None, processes=1)

    def run(self, statement: str) -> None:
        self.connection.exec_driver_sql(statement)


@pytest.fixture(scope="module")
def logged(told: Story) -> list[Entry]:
    """Entries with at least two different rows for every table."""
    story = Story(told.keys).tell()
    refusal = story.sign(
        "refusal", "hospital-a", plan_hash=story.version, site="hospital-a", code="budget", reason="no more"
    )
    story.add("site.refused", run_id=story.run_id, refusal=refusal)
    sites = {"participants": ["hospital-a"], "dropped": ["hospital-b"]}
    story.add("round.aborted", run_id="another run", round=7, reason="too few", **sites)
    versions = [entry.body for entry in story.entries if entry.kind == "version.created"]
    parents = [story.version, story.initial_version]
    story.add("version.created", **{**versions[0], "run_id": "another run", "rounds": [4, 9], "parents": parents})
    return story.entries


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def unprotected(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, logged: list[Entry]
) -> Iterator[Database]:
    """A log with every kind of row and without triggers."""
    with kept(request.param, tmp_path_factory.mktemp("log"), request) as place:
        with opened(place) as log:
            log.append(logged)
        database = place.administrator()
        with database.writing() as connection:
            database.unguard_rows(connection)
        yield database
        database.close()


@pytest.fixture
def administered(unprotected: Database) -> Iterator[Altered]:
    """A transaction in that log that may do anything and comes to nothing."""
    with unprotected.writing() as connection:
        yield Altered(unprotected, connection)
        connection.rollback()


def test_a_sound_log(administered: Altered, logged: list[Entry]) -> None:
    found = administered.check()
    assert found.size == len(logged)
    assert found.nodes == administered.connection.execute(select(func.count()).select_from(NODES)).scalar_one()
    for name, table in TABLES.items():
        count = administered.connection.execute(select(func.count()).select_from(table)).scalar_one()
        assert found.lineage[name] == count
        assert count >= 2


def named(table: Table, key: Any) -> str:
    """How a message must name a row."""
    if table is ENTRIES:
        return rf"entry {key[0]}\b"
    if table is NODES:
        level, index = key
        return rf"entry {index}\b" if level == 0 else rf"level {level}, index {index}\b"
    return rf"table {table.name}, row \(.*{re.escape(repr(key[0]))}"


def other(column: Column[Any], value: Any) -> Any:
    """Another value that the column takes as well."""
    if value is None:
        return "x" if isinstance(column.type, String) else 7
    if isinstance(column.type, Boolean):
        return not value
    if isinstance(column.type, String):
        return value + "x"
    if isinstance(column.type, LargeBinary):
        return value[:-1] + bytes([value[-1] ^ 1])
    return value + 1000


def where(table: Table, key: Any) -> Any:
    conditions = [column == value for column, value in zip(table.primary_key, key, strict=True)]
    return conditions[0] if len(conditions) == 1 else conditions[0] & conditions[1]


def rows(administered: Altered, table: Table) -> list[Any]:
    return list(administered.connection.execute(table.select().order_by(*table.primary_key)).all())


def key_of(table: Table, row: Any) -> tuple[Any, ...]:
    return tuple(row[: len(table.primary_key)])


@pytest.mark.parametrize("table", ALL, ids=lambda table: table.name)
def test_every_column_changed(administered: Altered, table: Table) -> None:
    stored = rows(administered, table)
    row = stored[len(stored) // 2]
    key = key_of(table, row)
    for position, column in enumerate(table.columns):
        values = [other(column, row[position])]
        if column.nullable and row[position] is not None:
            values.append(None)
        for value in values:
            with administered.connection.begin_nested() as savepoint:
                change = table.update().where(where(table, key)).values({column: value})
                assert administered.connection.execute(change).rowcount == 1
                with pytest.raises(CorruptLogError, match=named(table, key)):
                    administered.check()
                savepoint.rollback()
    administered.check()


@pytest.mark.parametrize("table", ALL, ids=lambda table: table.name)
def test_a_row_removed(administered: Altered, table: Table) -> None:
    stored = rows(administered, table)
    for row in (stored[0], stored[len(stored) // 2], stored[-1]):
        key = key_of(table, row)
        with administered.connection.begin_nested() as savepoint:
            administered.connection.execute(table.delete().where(where(table, key)))
            # Without its last entry the log is a shorter log, with rows left over that follow from nothing.
            last = table is ENTRIES and key[0] == len(rows(administered, ENTRIES))
            with pytest.raises(CorruptLogError, match="follows from no entry" if last else named(table, key)):
                administered.check()
            savepoint.rollback()


@pytest.mark.parametrize(("table", "column"), COLUMNS, ids=lambda part: part.name)
def test_values_of_two_rows_swapped(administered: Altered, table: Table, column: Column[Any]) -> None:
    # (Two rows that swap their whole key are swapped in every other column.)
    position = list(table.columns).index(column)
    stored = rows(administered, table)
    pairs = [(one, two) for one in stored for two in stored if one[position] != two[position]]
    if not pairs:
        # One value everywhere (a metric that is never suppressed): then nothing can be swapped.
        assert len({row[position] for row in stored}) == 1
        return
    one, two = pairs[0]
    for row, value in ((one, two[position]), (two, one[position])):
        change = table.update().where(where(table, key_of(table, row))).values({column: value})
        administered.connection.execute(change)
    first = min(key_of(table, one), key_of(table, two))
    with pytest.raises(CorruptLogError, match=named(table, first)):
        administered.check()


@pytest.mark.parametrize("table", ALL, ids=lambda table: table.name)
def test_a_row_stored_twice(administered: Altered, table: Table) -> None:
    """Only without its primary key does a table take a row twice: the key's absence is named."""
    if administered.sqlite:
        administered.run(f"CREATE TABLE doubled AS SELECT * FROM {table.name}")  # noqa: S608
        administered.run(f"DROP TABLE {table.name}")
        administered.run(f"ALTER TABLE doubled RENAME TO {table.name}")
    else:
        administered.run(f"ALTER TABLE {table.name} DROP CONSTRAINT {table.name}_pkey")
    administered.run(f"INSERT INTO {table.name} SELECT * FROM {table.name}")  # noqa: S608
    with pytest.raises(
        CorruptLogError, match=rf"table {table.name}: (the primary key is missing|column \w+ may be NULL)"
    ):
        administered.check()


@pytest.mark.parametrize("table", ALL, ids=lambda table: table.name)
def test_a_row_added(administered: Altered, table: Table) -> None:
    stored = rows(administered, table)
    size = len(rows(administered, ENTRIES))
    added: dict[str, list[tuple[Any, ...]]] = {
        "log_entry": [(-1,), (size + 4,)],
        "log_node": [(9, 9), (0, size), (0, -1), (-1, 0), (63, 0)],
        "log_setting": [("further",)],
    }
    for key in added.get(table.name, [(-1,), (size,), (0,)]):
        row = (*key, *stored[0][len(key) :])
        with administered.connection.begin_nested() as savepoint:
            administered.connection.execute(table.insert().values(row))
            expected = r"entry \d+ is missing" if key == (size + 4,) else named_added(table, key)
            with pytest.raises(CorruptLogError, match=expected):
                administered.check()
            savepoint.rollback()


def named_added(table: Table, key: tuple[Any, ...]) -> str:
    first = next(iter(table.primary_key)).name
    return rf"table {table.name}, row \(.*{first} {re.escape(repr(key[0]))}"


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DROP TABLE lineage_round", "table lineage_round is missing"),
        ("ALTER TABLE log_entry ADD COLUMN extra VARCHAR", "table log_entry: column extra is not ours"),
        ("ALTER TABLE log_setting RENAME COLUMN value TO worth", "table log_setting: column value is missing"),
        ("DROP INDEX ix_log_entry_kind_index", "index ix_log_entry_kind_index is missing"),
        ("CREATE INDEX stray ON log_node (hash)", "table log_node: index stray is not ours"),
        ("UPDATE alembic_version SET version_num = '0001'", "table alembic_version: expected revision 0002"),
        ("DELETE FROM alembic_version", "table alembic_version: expected one revision, got 0"),
        ("INSERT INTO alembic_version VALUES ('0001')", "table alembic_version: expected one revision, got 2"),
    ],
)
def test_the_schema_changed(administered: Altered, statement: str, message: str) -> None:
    administered.run(statement)
    with pytest.raises(LogError, match=message):
        administered.check()


def test_a_check_by_several_processes_names_the_first_bad_row(place: Place, entries: list[Entry]) -> None:
    size = 1100

    def check(processes: int, progress: Progress | None = None) -> LogCheck:
        database = open_database(place.url)
        try:
            return check_log(database, ORIGIN, None, progress, processes=processes, stretch=200)
        finally:
            database.close()

    with opened(place) as log:
        log.append([entries[-1]] * size)
        root = log.root()
    if place.url.startswith("sqlite"):  # starting processes is slow; one way of connecting is enough here
        seen: list[tuple[int, int]] = []
        found = check(2, lambda done, total: seen.append((done, total)))
        assert (found.size, found.root) == (size, root)
        assert found.lineage["lineage_release"] == size
        assert seen == [(done, size) for done in (200, 400, 600, 800, 1000, 1100)]
    altered(
        place,
        "UPDATE log_entry SET kind = 'approval' WHERE \"index\" IN (730, 1099)",
        "UPDATE lineage_release SET state = 'withdrawn' WHERE entry = 1010",
    )
    for processes in (1, 2):
        with pytest.raises(CorruptLogError, match="entry 730: stored as approval"):
            check(processes)


def test_a_signed_log_is_checked_with_its_checkpoint(place: Place, logged: list[Entry]) -> None:
    with opened(place) as log:
        log.append(logged[:20])
        log.sign_checkpoint(KEY, lambda: logged[-1].time)
        log.append(logged[20:])
        found = log.check()
        assert (found.signed_size, found.size) == (20, len(logged))
    altered(place, "UPDATE log_setting SET value = 'no' WHERE name = 'signed'")
    with opened(place) as log, pytest.raises(CorruptLogError, match=r"name 'signed'.*expected 'yes', stored is 'no'"):
        log.check()


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ([(4, "a", "v")], r"entry 4, parent 'b'\): is missing"),
        ([(4, "a", "v"), (4, "b", "v"), (5, "a", "v")], r"entry 5, parent 'a'\): follows from no entry"),
        ([(4, "a", "v"), (4, "b", "v"), (4, "b", "v")], r"entry 4, parent 'b'\): is stored twice"),
        ([(4, "a", "w"), (4, "b", "v")], r"entry 4, parent 'a'\): version: expected 'v', stored is 'w'"),
        ([(3, "a", "v"), (4, "b", "w")], r"entry 3, parent 'a'\): follows from no entry"),
    ],
)
def test_rows_are_compared(stored: list[tuple[Any, ...]], message: str) -> None:
    expected = [(4, "b", "v"), (4, "a", "v")]
    compare_rows(TABLES["lineage_parent"], expected, sorted(expected))
    with pytest.raises(CorruptLogError, match=message):
        compare_rows(TABLES["lineage_parent"], expected, stored)


def test_an_empty_log_is_sound(place: Place) -> None:
    with opened(place) as log:
        found = log.check(processes=2)
    assert (found.size, found.nodes, found.root) == (0, 0, root_of([]))
    assert set(found.lineage) == set(TABLES)
    assert {SETTINGS.name, ENTRIES.name, NODES.name}.isdisjoint(found.lineage)
