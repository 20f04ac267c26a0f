"""The authority's afternoon: from a code to a release, its run, its rounds, to an entry that the browser checks itself.

Then the server lies: one byte of what it sends for the check is changed on the way, and the panel names what failed.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from admin_api.planning import decide
from admin_api.releasing import certify, load_statement, propose_release
from tests.admin_api.consortium_folder import EVALUATOR, RUN, TRAINERS, opened
from tests.admin_api.test_states_of_releases import cosigned
from tests.admin_api.web.browser import Visit
from tests.admin_api.web.journeys.town import Town, looked_at, switch_language

NAME = "winter-2026"
STEPS = ("leaf", "inclusion", "signature", "continued", "witnesses")
Lie = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def augusta(place: Town) -> Visit:
    """Her window, over a consortium with one certified release."""
    home, people = place.here.home, place.ran.people
    propose_release(home, run_id=RUN, release=NAME, proposer=opened(home, people / "admin"))
    statement = load_statement(home, NAME).digest
    for who in ("officer", "manager"):
        decide(home, "release", statement, opened(home, people / who), approve=True, reason="read")
    certify(home, NAME)
    return place.at_work(place.resident("Augusta Toezicht", "authority", "statistics office"))


def states(page: Page) -> dict[str, str]:
    """How each step of the verification ended."""
    last = page.locator(f'[data-verify-step="{STEPS[-1]}"]')
    expect(last).not_to_have_attribute("data-state", re.compile("waiting|running"))
    return {name: str(page.locator(f'[data-verify-step="{name}"]').get_attribute("data-state")) for name in STEPS}


def test_from_a_code_to_an_entry_that_the_browser_checks(augusta: Visit, place: Town) -> None:
    page = augusta.page
    augusta.go("/")
    looked_at(augusta, "authority-today")
    page.keyboard.press("/")
    page.keyboard.type("I10")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search?q=I10*")
    looked_at(augusta, "search")
    page.get_by_role("main").get_by_role("link", name="I10").first.click()
    page.wait_for_url("**/authority?code=I10")
    looked_at(augusta, "authority-code")
    page.get_by_role("region", name="Releases that can give I10").get_by_role("link", name=NAME).click()
    page.wait_for_url(f"**/trace/{NAME}")
    looked_at(augusta, "trace")
    for site in TRAINERS:
        expect(page.get_by_role("cell", name=site).or_(page.get_by_role("rowheader", name=site)).first).to_be_visible()
    page.get_by_text(re.compile(r"^The \d+ rounds and their receipts")).click()
    rounds = page.get_by_role("table").filter(has_text="Took part")
    expect(rounds).to_be_visible()
    looked_at(augusta, "trace-rounds")
    rounds.locator("a.seal").first.click()
    page.wait_for_url("**/log/*")
    found = states(page)
    assert [found[name] for name in ("leaf", "inclusion", "signature")] == ["passed"] * 3
    assert found["continued"] == "info", "the first checkpoint that this browser sees continues nothing"
    assert found["witnesses"] == "attention", "nobody has cosigned it yet"
    looked_at(augusta, "entry")
    cosigned(place.ran)
    page.reload()
    assert states(page) == dict.fromkeys(STEPS, "passed")
    for site in (*TRAINERS, EVALUATOR):
        expect(page.locator('[data-verify-step="witnesses"]')).to_contain_text(site)
    looked_at(augusta, "entry-cosigned")
    page.get_by_text("As it was logged").click()
    expect(page.locator("[data-verify-body]")).to_contain_text("round")


@contextmanager
def lying(page: Page, path: str, lie: Lie) -> Iterator[None]:
    """Answers to this path are changed on their way to the browser."""

    def changed(route: Route) -> None:
        answer = route.fetch()
        body = answer.json()
        lie(body)
        route.fulfill(response=answer, body=json.dumps(body))

    page.route(path, changed)
    try:
        yield
    finally:
        page.unroute(path)


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def in_the_data(answer: dict[str, Any]) -> None:
    data = base64.b64decode(answer["data"])
    answer["data"] = base64.b64encode(_flipped(data, data.index(b'"time":"') + 9)).decode()


def in_the_proof(answer: dict[str, Any]) -> None:
    answer["hashes"][-1] = _flipped(bytes.fromhex(answer["hashes"][-1]), 0).hex()


def in_the_root(answer: dict[str, Any]) -> None:
    lines = answer["checkpoint"].split("\n")
    lines[2] = base64.b64encode(_flipped(base64.b64decode(lines[2]), 0)).decode()
    answer["checkpoint"] = "\n".join(lines)


def in_the_signature(answer: dict[str, Any]) -> None:
    lines = answer["checkpoint"].split("\n")
    dash, name, signature = lines[4].split(" ")
    lines[4] = " ".join((dash, name, base64.b64encode(_flipped(base64.b64decode(signature), 20)).decode()))
    answer["checkpoint"] = "\n".join(lines)


@pytest.mark.parametrize(
    ("path", "lie", "step", "words"),
    [
        ("**/api/v1/log/entries/2", in_the_data, "inclusion", "proof"),
        ("**/api/v1/log/entries/2/proof", in_the_proof, "inclusion", "proof"),
        ("**/api/v1/log/entries/2/proof", in_the_root, "inclusion", "signature"),
        ("**/api/v1/log/entries/2/proof", in_the_signature, "inclusion", "signature"),
    ],
)
def test_a_server_that_lies_is_found_out(augusta: Visit, path: str, lie: Lie, step: str, words: str) -> None:
    page = augusta.page
    with lying(page, path, lie):
        augusta.go("/log/2")
        found = states(page)
    assert found[step] == "failed", found
    assert "passed" not in list(found.values())[list(found).index(step) :], found
    expect(page.locator(f'[data-verify-step="{step}"]')).to_contain_text(words)


def test_another_body_than_the_hashed_one_is_found_out(augusta: Visit) -> None:
    page = augusta.page

    def changed(route: Route) -> None:
        answer = route.fetch()
        other = re.sub(
            r"(data-verify-body>[^<]*?)([0-8])", lambda found: found[1] + str(int(found[2]) + 1), answer.text(), count=1
        )
        assert other != answer.text()
        route.fulfill(response=answer, body=other)

    page.route("**/log/2", changed)
    try:
        augusta.go("/log/2")
        found = states(page)
    finally:
        page.unroute("**/log/2")
    assert found["leaf"] == "failed"
    assert set(found.values()) <= {"failed", "waiting"}


def test_a_log_that_forks_is_found_out(augusta: Visit) -> None:
    """What this browser remembers of the log, another log has never said."""
    page = augusta.page
    augusta.go("/log/2")
    states(page)
    page.evaluate(
        """() => {
            for (const key of Object.keys(localStorage).filter((each) => each.startsWith("zegel-checkpoint:"))) {
                const seen = JSON.parse(localStorage.getItem(key));
                localStorage.setItem(key, JSON.stringify({ ...seen, root: "00".repeat(32) }));
            }
        }"""
    )
    page.reload()
    assert states(page)["continued"] == "failed"
    page.evaluate("localStorage.clear()")


def test_the_language_is_switched_and_kept(augusta: Visit) -> None:
    augusta.go(f"/trace/{NAME}")
    switch_language(augusta, "nl")
    looked_at(augusta, "trace-nl")
    augusta.go("/log")
    expect(augusta.page.get_by_role("heading", level=1)).to_have_text("Logboek")
    looked_at(augusta, "log-nl")
    augusta.go("/log/2")
    states(augusta.page)
    looked_at(augusta, "entry-nl")
    switch_language(augusta, "en")
