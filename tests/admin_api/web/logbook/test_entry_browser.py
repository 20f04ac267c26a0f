"""An entry's page in a real Chromium: it checks what the server says, and a server that lies is caught at its step."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import Route, expect
from starlette.testclient import TestClient

from admin_api.web.app import create_app, make_workplace
from admin_api.web.settings import Settings
from tests.admin_api.conftest import AfterRun
from tests.admin_api.consortium_folder import copied
from tests.admin_api.web.browser import Visit, chromium, free_port, serving, visiting
from tests.admin_api.web.sign_in.signed_in import sign_in_for_tests

INDEX = 5
ENDED = re.compile("passed|attention|failed")  # attention: no witness has seen this tree yet


@pytest.fixture(scope="module")
def visit(ran: AfterRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    """A window in which somebody of the authority is signed in."""
    home = copied(ran.home.path, tmp_path_factory.mktemp("entry") / "consortium")
    port = free_port()
    settings = Settings(home=home.path, public_url=f"http://localhost:{port}")
    here = replace(make_workplace(settings), home=home)
    app = create_app(settings, here)
    client = TestClient(app, base_url=settings.public_url)
    sign_in_for_tests(client, here, "authority")
    with chromium() as browser, serving(app, port) as address, visiting(browser, address) as opened:
        opened.page.context.add_cookies(
            [{"name": name, "value": value, "url": address} for name, value in client.cookies.items()]
        )
        yield opened
    here.reading.close()
    here.database.close()


def states(visit: Visit) -> dict[str, str]:
    """Steps and how each ended, once the last of them has."""
    expect(visit.page.locator('[data-verify-step="witnesses"]')).to_have_attribute("data-state", ENDED)
    found: dict[str, str] = visit.page.locator("[data-verify-step]").evaluate_all(
        "all => Object.fromEntries(all.map((each) => [each.dataset.verifyStep, each.dataset.state]))"
    )
    return found


def lying(visit: Visit, path: str, change: Callable[[dict[str, Any]], None]) -> dict[str, str]:
    """The steps when the server's answer to `path` is changed on its way."""

    def answered(route: Route) -> None:
        answer = route.fetch()
        value = answer.json()
        change(value)
        route.fulfill(response=answer, body=json.dumps(value))

    visit.page.route(f"**{path}", answered)
    try:
        visit.go(f"/log/{INDEX}")
        return states(visit)
    finally:
        visit.page.unroute(f"**{path}")


def test_an_entry_is_checked_and_the_tree_remembered(visit: Visit) -> None:
    visit.go(f"/log/{INDEX}")
    first = states(visit)
    assert {first[step] for step in ("leaf", "inclusion", "signature")} == {"passed"}
    assert first["continued"] == "info"
    assert visit.accessibility() == []
    visit.go("/log/0")
    assert states(visit)["continued"] == "passed"
    assert visit.faults == []


def _other_entry(value: dict[str, Any]) -> None:
    entry = json.loads(base64.b64decode(value["data"]))
    entry["body"]["name"] = "somebody else"
    value["data"] = base64.b64encode(json.dumps(entry).encode()).decode()


def _same_body_other_time(value: dict[str, Any]) -> None:
    head, year, tail = base64.b64decode(value["data"]).rpartition(b'"time":"2')
    value["data"] = base64.b64encode(head + year[:-1] + b"3" + tail).decode()


def _other_hash(value: dict[str, Any]) -> None:
    value["hashes"][0] = "00" * 32


def _other_size(value: dict[str, Any]) -> None:
    origin, size, rest = value["checkpoint"].split("\n", 2)
    value["checkpoint"] = f"{origin}\n{int(size) + 1}\n{rest}"


@pytest.mark.parametrize(
    ("path", "change", "step"),
    [
        (f"/api/v1/log/entries/{INDEX}", _other_entry, "leaf"),
        (f"/api/v1/log/entries/{INDEX}", _same_body_other_time, "inclusion"),
        (f"/api/v1/log/entries/{INDEX}/proof", _other_hash, "inclusion"),
        (f"/api/v1/log/entries/{INDEX}/proof", _other_size, "inclusion"),
    ],
)
def test_a_server_that_lies_is_caught(
    visit: Visit, path: str, change: Callable[[dict[str, Any]], None], step: str
) -> None:
    found = lying(visit, path, change)
    assert next(name for name, state in found.items() if state == "failed") == step


def test_a_log_that_was_rewritten_is_caught(visit: Visit) -> None:
    visit.go(f"/log/{INDEX}")
    states(visit)
    visit.page.evaluate(
        """() => {
          const name = Object.keys(localStorage).find((key) => key.startsWith("zegel-checkpoint:"));
          const seen = JSON.parse(localStorage.getItem(name));
          localStorage.setItem(name, JSON.stringify({ ...seen, root: "00".repeat(32) }));
        }"""
    )
    visit.go(f"/log/{INDEX}")
    assert states(visit)["continued"] == "failed"
    said = visit.page.locator('[data-verify-step="continued"]').inner_text()
    assert "two roots were signed" in said or "does not start from the tree that was seen before" in said
