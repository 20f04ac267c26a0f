"""The app over a consortium after one real run, and somebody of each role signed in to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from admin_api.web.app import create_app, make_workplace
from admin_api.web.context import Workplace
from admin_api.web.settings import Settings
from tests.admin_api.conftest import AfterRun
from tests.admin_api.web.sign_in.signed_in import sign_in_for_tests

URL = "https://zegel.example"


@dataclass(frozen=True)
class Web:
    """An app over a consortium of the test's own."""

    app: FastAPI
    here: Workplace
    ran: AfterRun

    def client(self) -> TestClient:
        """A browser that nobody signed in with. It follows no redirects."""
        return TestClient(self.app, base_url=URL, follow_redirects=False, client=("127.0.0.1", 50000))

    def signed_in(self, role: str, *, hospital: str | None = None) -> TestClient:
        """Somebody's browser."""
        client = self.client()
        sign_in_for_tests(client, self.here, role, hospital=hospital)
        return client


@pytest.fixture
def web(after_run: AfterRun) -> Iterator[Web]:
    """The app over a copy of the consortium after a run."""
    settings = Settings(home=after_run.home.path, public_url=URL)
    here = replace(make_workplace(settings), home=after_run.home)
    yield Web(create_app(settings, here), here, after_run)
    here.database.close()


@pytest.fixture
def as_role(web: Web) -> Callable[..., TestClient]:
    """`as_role("privacy_officer")`: a browser with somebody of that role signed in."""
    return web.signed_in
