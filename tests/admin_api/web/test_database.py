"""The pages' own database, in SQLite and in PostgreSQL: schema, transactions, and the pages over it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from starlette.testclient import TestClient

from admin_api.errors import WebError
from admin_api.web.all_tables import METADATA
from admin_api.web.app import create_app, make_workplace
from admin_api.web.database import Database
from admin_api.web.migrations import HEAD
from admin_api.web.settings import Settings
from admin_api.web.tables import AnswerRow
from tests.admin_api.conftest import AfterRun
from tests.admin_api.web.conftest import URL
from tests.admin_api.web.sign_in.signed_in import sign_in_for_tests
from tests.audit.postgresql import Server, running_server


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'web.db'}"
        return
    server: Server = request.getfixturevalue("postgresql")
    name = server.new_database()
    yield server.url("postgres", name)
    server.drop(name)


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = Database(url)
    opened.prepare()
    yield opened
    opened.close()


def _answer(key: str) -> AnswerRow:
    return AnswerRow(account="person-1", key=key, request="r", begun=datetime(2026, 11, 22, tzinfo=UTC))


def test_the_migrated_schema_is_that_of_the_models(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": "web_revision"})
        own = [each for each in compare_metadata(context, METADATA) if "reading_" not in str(each)]
    assert own == []


def test_preparing_again_changes_nothing_and_a_newer_schema_is_refused(database: Database) -> None:
    with database.begin() as session:
        session.add(_answer("kept"))
    database.prepare()
    with database.reading() as session:
        assert session.get(AnswerRow, ("person-1", "kept")) is not None
    with database.engine.connect() as connection, connection.begin():
        connection.execute(text("UPDATE web_revision SET version_num = :newer"), {"newer": f"{int(HEAD) + 1:04}"})
    with pytest.raises(WebError, match="newer Zegel"):
        database.prepare()


def test_a_transaction_that_fails_leaves_nothing(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.begin() as session:
        session.add(_answer("lost"))
        session.flush()
        raise ZeroDivisionError
    with database.reading() as session:
        assert session.get(AnswerRow, ("person-1", "lost")) is None


def test_writers_at_once_lose_nothing(database: Database) -> None:
    def write(first: int) -> None:
        for number in range(first, first + 20):
            with database.begin() as session:
                session.add(_answer(str(number)))

    writers = [threading.Thread(target=write, args=(start,)) for start in (0, 20, 40)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    with database.reading() as session:
        assert all(session.get(AnswerRow, ("person-1", str(number))) is not None for number in range(60))


def test_the_pages_work_over_either(url: str, after_run: AfterRun) -> None:
    settings = Settings(home=after_run.home.path, public_url=URL, database_url=url)
    here = replace(make_workplace(settings), home=after_run.home)
    try:
        client = TestClient(create_app(settings, here), base_url=URL, follow_redirects=False)
        sign_in_for_tests(client, here, "consortium_admin")
        for path in ("/", "/hospitals", "/privacy", "/plans", "/runs", "/releases", "/log", "/api/v1/log/entries"):
            assert client.get(path).status_code == 200, path
        answer = client.post(
            "/preferences", data={"language": "nl", "next": "/", "csrf": client.headers["X-CSRF-Token"]}
        )
        assert answer.status_code == 303
    finally:
        here.reading.close()
        here.database.close()


def test_databases_that_are_not_taken() -> None:
    with pytest.raises(WebError, match="expected sqlite"):
        Database("mysql://root@localhost/zegel")
    with pytest.raises(WebError, match="password"):
        Database("postgresql://zegel:secret@localhost/zegel")
