"""The app over a freshly founded consortium, with a clock that tests move."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from admin_api.web.all_tables import METADATA
from admin_api.web.app import create_app, make_workplace
from admin_api.web.context import Workplace
from admin_api.web.settings import Settings
from admin_api.web.sign_in.recording import write_due
from audit.entry import ACCESS_ENDED, ACCESS_GRANTED, ACCESS_REFUSED, Entry
from jobs.home import ConsortiumHome
from tests.admin_api.consortium_folder import copied

URL = "https://zegel.example"


@dataclass
class Clock:
    """The time, moved forward by hand; it begins at the real one, since certificates are real."""

    now: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **step: float) -> None:
        self.now += timedelta(**step)


@dataclass(frozen=True)
class Door:
    """An app that people come in by. `began` is where the log stood."""

    app: FastAPI
    here: Workplace
    clock: Clock
    began: int = 0

    def client(self, address: str = "192.0.2.1") -> TestClient:
        """A browser at some address that nobody signed in with. It follows no redirects, and says where it is."""
        client = TestClient(self.app, base_url=URL, follow_redirects=False, client=(address, 50000))
        client.headers["Origin"] = URL
        return client

    def entries(self) -> list[Entry]:
        """What the log says about access, after everything that was noted is written."""
        write_due(self.here, everything=True)
        kinds = (ACCESS_GRANTED, ACCESS_REFUSED, ACCESS_ENDED)
        with self.here.home.log() as log:
            return [entry for _, entry in log.entries(since=self.began) if entry.kind in kinds]

    def said(self) -> list[tuple[str, ...]]:
        """The same in short: (kind, method) and of refusals the reason and count."""
        return [
            (entry.kind.removeprefix("access."), entry.body["method"])
            + ((entry.body["reason"], str(entry.body["count"])) if entry.kind == ACCESS_REFUSED else ())
            for entry in self.entries()
        ]


def open_door(home: ConsortiumHome, clock: Clock, **settings: Any) -> Door:
    chosen = Settings(home=home.path, public_url=URL, **settings)
    here = replace(make_workplace(chosen), home=home)
    return Door(create_app(chosen, here), here, clock)


def emptied(door: Door) -> Door:
    """The same door for another test: nobody has an account, and what the log said before is not counted."""
    with door.here.database.begin() as session:
        for table in METADATA.sorted_tables:
            session.execute(table.delete())
    with door.here.home.log() as log:
        return replace(door, began=log.size)


@pytest.fixture(scope="session")
def opened_door(founded: ConsortiumHome, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """Opening one costs more than a test does."""
    clock = Clock()
    opened = open_door(copied(founded.path, tmp_path_factory.mktemp("door") / "consortium", clock), clock)
    yield opened
    opened.here.database.close()


@pytest.fixture
def door(opened_door: Door) -> Door:
    return emptied(opened_door)
