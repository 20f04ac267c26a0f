"""Keeping up with the log: the same rows however the entries come, once, and anew when the log is another."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, select, update
from sqlalchemy.exc import OperationalError

from admin_api.errors import ReadingBehind, ReadingError
from admin_api.reading import plans
from admin_api.reading.projection import project
from admin_api.reading.room import ReadingRoom
from admin_api.reading.tables import PositionRow, ReadingTable, table
from admin_api.web.database import Database
from audit.entry import Entry
from jobs.home import ConsortiumHome
from tests.admin_api.reading.conftest import empty_home, grown, told_in
from tests.audit.conftest import Story


def contents(room: ReadingRoom) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of the read model."""
    with room.rows() as connection:
        return {
            each.name: sorted(map(tuple, connection.execute(select(each))), key=repr)
            for each in ReadingTable.metadata.sorted_tables
        }


@contextmanager
def statements(engine: Engine) -> Iterator[list[str]]:
    """What is sent to a database meanwhile, transactions' beginnings aside."""
    seen: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not statement.startswith("BEGIN"):
            seen.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


@contextmanager
def another(database: Database, home: ConsortiumHome, **options: Any) -> Iterator[ReadingRoom]:
    room = ReadingRoom(database.engine, home, **options)
    try:
        yield room
    finally:
        room.close()


@pytest.fixture(scope="session")
def expected(whole_home: ConsortiumHome, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of the whole story, projected at once."""
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('expected') / 'web.db'}")
    with another(database, whole_home) as room:
        room.catch_up()
        found = contents(room)
    database.close()
    return found


def test_one_by_one_gives_the_same_rows_as_all_at_once(
    database: Database, expected: dict[str, Any], whole: Story, tmp_path: Path
) -> None:
    home = empty_home(tmp_path / "slow", whole.keys, whole.clock)
    told_in(home, whole, 1)
    with another(database, home) as room:
        room.catch_up()
        for size in range(2, len(whole.entries) + 1):
            grown(home, whole, size)
            room.follow()
            assert room.size == size
        assert contents(room) == expected


@pytest.mark.parametrize("chunk", [1, 7])
def test_catching_up_in_pieces_gives_the_same_rows_and_tells_how_far_it_is(
    database: Database, whole_home: ConsortiumHome, expected: dict[str, Any], chunk: int
) -> None:
    told: list[tuple[int, int]] = []
    with another(database, whole_home, chunk=chunk) as room:
        room.catch_up(lambda done, size: told.append((done, size)))
        assert contents(room) == expected
        assert told == [(min(done, room.size), room.size) for done in range(chunk, room.size + chunk, chunk)]


def test_nothing_new_costs_one_query_of_the_log_and_none_of_the_read_model(
    database: Database, whole_home: ConsortiumHome
) -> None:
    with another(database, whole_home) as room:
        room.catch_up()
        of_log = room.log._database._engine  # type: ignore[attr-defined]
        with statements(database.engine) as asked, statements(of_log) as asked_of_log:
            room.follow()
        assert (len(asked), len(asked_of_log)) == (0, 1)


def test_another_process_has_followed_already(database: Database, whole: Story, tmp_path: Path) -> None:
    home = empty_home(tmp_path / "early", whole.keys, whole.clock)
    told_in(home, whole, 20)
    with another(database, home) as first, another(database, home) as second:
        first.catch_up()
        second.catch_up()
        grown(home, whole)
        first.follow()
        assert (first.size, second.size) == (len(whole.entries), 20)
        before = contents(first)
        second.follow()
        assert second.size == len(whole.entries)
        assert contents(second) == before


def test_many_follow_at_once_and_every_entry_is_projected_once(
    database: Database, expected: dict[str, Any], whole: Story, tmp_path: Path
) -> None:
    home = empty_home(tmp_path / "busy", whole.keys, whole.clock)
    told_in(home, whole, 1)
    done = threading.Event()
    failures: list[BaseException] = []

    def follow() -> None:
        try:
            with another(database, home) as mine:
                mine.catch_up()
                while not done.wait(0.01):
                    mine.follow()
                mine.follow()
                assert mine.size == len(whole.entries)
        except BaseException as error:  # noqa: BLE001 - told to the test
            failures.append(error)

    threads = [threading.Thread(target=follow) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for size in range(2, len(whole.entries) + 1, 2):
            grown(home, whole, size)
        grown(home, whole)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert failures == []
    with another(database, home) as last:
        last.follow()
        assert contents(last) == expected


def test_an_older_log_was_restored(database: Database, whole: Story, tmp_path: Path) -> None:
    home = empty_home(tmp_path / "new", whole.keys, whole.clock)
    older = empty_home(tmp_path / "old", whole.keys, whole.clock)
    grown(home, whole)
    grown(older, whole, 30)
    with another(database, home) as before, another(database, older) as after:
        before.catch_up()
        after.follow()
        assert after.size == 30
        assert contents(after) == anew(older, tmp_path)


def test_another_log_of_the_same_size(database: Database, whole: Story, tmp_path: Path) -> None:
    home = empty_home(tmp_path / "one", whole.keys, whole.clock)
    grown(home, whole, 30)
    forked = empty_home(tmp_path / "other", whole.keys, whole.clock)
    with forked.log() as log:
        last = whole.entries[29]
        log.append([*whole.entries[:29], Entry(whole.entries[31].kind, last.time, whole.entries[31].body)])
    with another(database, home) as before, another(database, forked) as after:
        before.catch_up()
        one = contents(before)
        after.follow()
        assert contents(after) != one
        assert contents(after) == anew(forked, tmp_path)


def anew(home: ConsortiumHome, folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of a log in a database of their own."""
    database = Database(f"sqlite:///{folder / 'anew.db'}")
    with another(database, home) as room:
        room.catch_up()
        found = contents(room)
    database.close()
    return found


def test_the_logs_file_was_replaced_while_it_was_open(database: Database, whole: Story, tmp_path: Path) -> None:
    home = empty_home(tmp_path / "new", whole.keys, whole.clock)
    older = empty_home(tmp_path / "old", whole.keys, whole.clock)
    grown(home, whole)
    grown(older, whole, 30)
    with another(database, home) as room:
        room.catch_up()
        for path in older.path.glob("log.db*"):
            path.replace(home.path / path.name)
        room.follow()
        assert room.size == 30


def test_tables_of_another_layout_are_made_anew(
    database: Database, whole_home: ConsortiumHome, expected: dict[str, Any]
) -> None:
    with another(database, whole_home) as room:
        room.catch_up()
        with room.rows() as connection:
            connection.exec_driver_sql("ALTER TABLE reading_hospital DROP COLUMN patients")
            connection.exec_driver_sql("ALTER TABLE reading_position DROP COLUMN committing")
            connection.execute(update(table(PositionRow)).values(layout=0))
    with another(database, whole_home) as following:
        following.catch_up()
        assert contents(following) == expected


def test_a_request_waits_for_so_much_only_and_each_brings_it_nearer(
    database: Database, whole_home: ConsortiumHome, expected: dict[str, Any]
) -> None:
    size = len(expected["reading_kind"]) and expected["reading_position"][0][2]
    with another(database, whole_home, at_once=size // 2) as room:
        for done in (size // 2, 2 * (size // 2))[: 1 + size % 2]:
            with pytest.raises(ReadingBehind, match=f"have read {done} of the log's {size} entries"):
                room.follow()
        room.follow()
        assert contents(room) == expected


BROKEN = {
    "no JSON": b"{",
    "no kind": b'{"body":{},"time":"2026-11-22T05:00:00Z"}',
    "a body without its fields": b'{"body":{},"kind":"run.started","time":"2026-11-22T05:00:00Z"}',
    "a body that is no object": b'{"body":null,"kind":"run.started","time":"2026-11-22T05:00:00Z"}',
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_an_entry_that_is_not_as_it_must_be_is_named_and_nothing_is_kept(own_room: ReadingRoom, data: bytes) -> None:
    before = contents(own_room)
    good = own_room.log.entry_bytes(own_room.size - 1)
    with pytest.raises(ReadingError, match=f"entry {own_room.size + 1} of the log"), own_room.rows() as connection:
        project(connection, [(own_room.size, good), (own_room.size + 1, data)], lambda _: None)
    assert contents(own_room) == before


def test_an_entry_out_of_order_is_refused(own_room: ReadingRoom) -> None:
    data = own_room.log.entry_bytes(0)
    with pytest.raises(ReadingError, match=f"expected entry {own_room.size}"), own_room.rows() as connection:
        project(connection, [(own_room.size + 1, data)], lambda _: None)


def test_a_kind_that_nobody_asks_about_is_counted(own_room: ReadingRoom) -> None:
    data = b'{"body":{},"kind":"of.the.future","time":"2026-11-22T05:00:00Z"}'
    with own_room.rows() as connection:
        position = project(connection, [(own_room.size, data)], lambda _: None)
    assert position["size"] == own_room.size + 1
    assert ("of.the.future", 1) in {(kind, entries) for kind, _, entries in contents(own_room)["reading_kind"]}


def test_a_plan_whose_text_is_not_kept_has_a_row_all_the_same(database: Database, whole: Story, tmp_path: Path) -> None:
    home = empty_home(tmp_path / "bare", whole.keys, whole.clock)
    grown(home, whole)
    with another(database, home) as room:
        room.catch_up()
        (plan,) = plans.listed(room).items
    assert (plan.readable, plan.title, plan.sites, plan.state) == (False, None, (), "carried out")


def test_a_database_that_fails_says_so_as_everywhere(own_room: ReadingRoom) -> None:
    with own_room.rows() as connection:
        connection.exec_driver_sql("DROP TABLE reading_run")
    data = next(entry.to_bytes() for _, entry in own_room.log.entries(kind="run.started"))
    with pytest.raises(OperationalError, match="reading_run"), own_room.rows() as connection:
        project(connection, [(own_room.size, data)], lambda _: None)
