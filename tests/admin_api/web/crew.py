"""People with passkeys over a consortium after a run, forecasts computed without a process, and their apps."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from httpx2 import Response
from starlette.testclient import TestClient

from admin_api.onboarding import decide_request
from admin_api.web.app import create_app, make_workplace
from admin_api.web.context import Workplace
from admin_api.web.plans import desk
from admin_api.web.plans.computing import serve
from admin_api.web.settings import Settings
from tests.admin_api.conftest import AfterRun
from tests.admin_api.consortium_folder import copied, opened
from tests.admin_api.web.certificates.cast import asked_to_sign, compared, issued
from tests.admin_api.web.conftest import URL, Web
from tests.admin_api.web.sign_in.visitor import HOST, Visitor, enrolled
from tests.passkey import SoftwarePasskey

PATIENCE_S = 120.0  # on a loaded machine


class InThisProcess:
    """Computes as the process of `computing` does, when it is asked for the answer."""

    def __init__(self, cache_dir: Path) -> None:
        self._cache_dir = cache_dir
        self._lines: list[str] = []

    def send(self, question: Mapping[str, Any]) -> None:
        answers = io.StringIO()
        serve(io.StringIO(json.dumps(dict(question)) + "\n"), answers, self._cache_dir)
        self._lines = answers.getvalue().splitlines()

    def receive(self, timeout_s: float) -> dict[str, Any] | None:
        value: dict[str, Any] = json.loads(self._lines.pop(0))
        return value

    def end(self) -> None:
        self._lines = []


class NothingComputed:
    """Refuses every forecast at once: for tests that ask for many and care for none."""

    def send(self, question: Mapping[str, Any]) -> None:
        pass

    def receive(self, timeout_s: float) -> dict[str, Any] | None:
        return {"error": "this test computes nothing"}

    def end(self) -> None:
        pass


@contextmanager
def computing_nothing(home: Path) -> Iterator[None]:
    """No forecast of this consortium starts a process while the block runs."""
    cache_dir = home / desk.CACHE
    desk._DESKS[cache_dir] = at_work = desk.Desk(cache_dir, start=NothingComputed)
    try:
        yield
    finally:
        at_work.close()
        desk._DESKS.pop(cache_dir, None)


@dataclass(frozen=True)
class Office(Web):
    """An app with people who can sign: an admin and a privacy officer, besides those whose keys are in files."""

    ada: Visitor
    pieter: Visitor

    def somebody(self, role: str, **more: Any) -> TestClient:
        """A browser with somebody of that role signed in, without a certificate."""
        return self.signed_in(role, **more)


class _Doorway(Web):
    """What `enrolled` needs of a door."""

    def client(self, address: str = "192.0.2.1") -> TestClient:
        client = super().client()
        client.headers["Origin"] = URL
        return client


def with_certificate(web: Web, name: str, role: str, organisation: str) -> Visitor:
    """Somebody enrolled, and certified by two people who were there before."""
    door: Any = _Doorway(web.app, web.here, web.ran)
    visitor = enrolled(door, name, role, organisation=organisation)
    request = asked_to_sign(visitor)
    for who in ("admin", "officer"):
        signer = opened(web.here.home, web.ran.people / who)
        decide_request(web.here.home, request["digest"], signer, approve=True, reason="known in person")
    admin = Visitor(door.client(), SoftwarePasskey(HOST))
    admin.client = web.signed_in("consortium_admin")
    fresh = admin.client.get(f"/api/v1/requests/{request['id']}").json()
    answer = issued(admin, compared(admin, fresh, request["fingerprint"]))
    assert answer.status_code == 201, answer.text
    return visitor


@contextmanager
def office(ran: AfterRun, folder: Path) -> Iterator[Office]:
    """An app over a copy of the consortium after a run."""
    home = copied(ran.home.path, folder / "consortium")
    settings = Settings(home=home.path, public_url=URL)
    here: Workplace = replace(make_workplace(settings), home=home)
    app = create_app(settings, here)
    web = Web(app, here, AfterRun(home, ran.people, ran.sites, ran.plan_hash))
    cache_dir = home.path / desk.CACHE
    desk._DESKS[cache_dir] = at_work = desk.Desk(cache_dir, start=lambda: InThisProcess(cache_dir))
    try:
        ada = with_certificate(web, "Ada Tweede", "consortium_admin", "bureau")
        pieter = with_certificate(web, "Petra Privacy", "privacy_officer", "privacy board")
        yield Office(app, here, web.ran, ada, pieter)
    finally:
        at_work.close()
        desk._DESKS.pop(cache_dir, None)
        here.reading.close()
        here.database.close()


def computed(ask: Callable[[], Response]) -> Response:
    """The answer once its forecast is computed: asked again as clients do when they are told to."""
    deadline = time.monotonic() + PATIENCE_S
    while (answer := ask()).status_code == 503 and answer.json()["type"] == "/problems/forecast-going-on":
        assert time.monotonic() < deadline, answer.text
    return answer


def posted(client: TestClient, path: str, fields: Mapping[str, Any], key: str) -> Response:
    """A form of a page, as a browser sends it."""
    form = {**fields, "csrf": client.headers["X-CSRF-Token"], "idempotency_key": key}
    answer: Response = client.post(path, data=form)
    return answer
