"""The pages without a mouse, and a live run whose connection is lost."""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from jobs.records import LOCK_FILE, PLAN_FILE, PROGRESS_FILE
from tests.admin_api.consortium_folder import RUN
from tests.admin_api.web.browser import Visit
from tests.admin_api.web.journeys.town import Town, looked_at

LIVE = "run-other"


@pytest.fixture(scope="module")
def window(place: Town) -> Visit:
    return place.at_work(place.resident("Augusta Toezicht", "authority", "statistics office"))


def test_g_and_a_letter_go_everywhere(window: Visit) -> None:
    page = window.page
    window.go("/")
    places = [
        (str(each.get_attribute("data-go")), str(each.get_attribute("href")))
        for each in page.locator(".places [data-go]").all()
    ]
    assert len(places) > 6
    for letter, path in [*places, ("m", "/account")]:
        page.keyboard.press("g")
        page.keyboard.press(letter)
        page.wait_for_url(window.address + path)
        page.wait_for_load_state()


def test_a_list_is_walked_and_opened(window: Visit) -> None:
    page = window.page
    window.go("/hospitals")
    page.keyboard.press("j")
    first = page.locator("tr.at")
    expect(first).to_have_count(1)
    page.keyboard.press("j")
    second = page.locator("tr.at").inner_text()
    page.keyboard.press("k")
    expect(page.locator("tr.at")).not_to_have_text(second)
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/hospitals/[a-z]+$"))


def test_keys_are_explained_and_search_is_near(window: Visit) -> None:
    page = window.page
    window.go("/plans")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    looked_at(window, "keys")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keyboard")).not_to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("amstel")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search?q=amstel*")
    expect(page.get_by_role("main").get_by_role("link", name="amstel").first).to_be_visible()


def test_the_first_tab_leads_past_the_navigation(window: Visit) -> None:
    page = window.page
    window.go("/runs")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Go to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()


@pytest.fixture
def live_run(place: Town) -> Iterator[str]:
    """A run that some process carries out: it holds the lock and has told three steps."""
    done = place.here.home.run_folder(RUN)
    folder = done.parent / LIVE
    folder.mkdir()
    (folder / PLAN_FILE).write_text(place.ran.plan_hash)
    lines = (done / PROGRESS_FILE).read_text().splitlines(keepends=True)
    (folder / PROGRESS_FILE).write_text("".join(lines[:3]))
    with (folder / LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield f"/runs/{LIVE}"


def test_a_lost_stream_says_so_and_comes_back(window: Visit, place: Town, live_run: str) -> None:
    page = window.page
    page.route("**/events*", lambda route: route.abort())
    window.go(live_run)
    expect(page.locator(".lost")).to_contain_text("No connection since")
    assert window.accessibility() == []
    page.unroute("**/events*")
    expect(page.locator(".lost")).to_have_count(0)
    window.faults.clear()  # the browser's own words about the connection
    looked_at(window, "run-live")
    told = (place.here.home.run_folder(RUN) / PROGRESS_FILE).read_text().splitlines(keepends=True)
    epsilon = page.locator('[data-live-value="epsilon"]').first
    expect(epsilon).to_contain_text("0.926")
    with (place.here.home.run_folder(LIVE) / PROGRESS_FILE).open("a") as progress:
        progress.write("".join(told[3:-1]))
    expect(epsilon).to_contain_text("2.14")
    window.go("/")
