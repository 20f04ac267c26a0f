"""A privacy officer decides about a plan, entirely in Dutch: the forecast, a field that moves it, the signature."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from playwright.sync_api import expect

from tests.admin_api.consortium_folder import TRAINERS
from tests.admin_api.web.browser import PATIENCE_S, Visit
from tests.admin_api.web.certificates.cast import signed as signed_by
from tests.admin_api.web.journeys.town import Town, looked_at, signed

TITLE = "herfst-2026"
ENGLISH = ("The ", "What ", "Your ", "Nobody ", "Nothing ", "waits for", "Approve", "Reason", "Sign ")


@dataclass(frozen=True)
class Desk:
    """The officer's window, and the plan that waits for them."""

    visit: Visit
    plan: str


@pytest.fixture(scope="module")
def desk(place: Town) -> Desk:
    ada = place.resident("Ada Tweede", "consortium_admin", "bureau")
    wish = {"name": TITLE, "sites": list(TRAINERS), "epsilon": 6.0, "delta": 1e-5, "rounds": 4,
            "nominal_patients": 300, "labels": ["I10", "K40"]}  # fmt: skip
    answer = signed_by(ada.visitor, "plan-proposal", **wish)
    for _ in range(PATIENCE_S // 5):  # its noise is calibrated first; an answer that takes longer says so after 5 s
        if answer.status_code != 503:
            break
        answer = signed_by(ada.visitor, "plan-proposal", **wish)
    assert answer.status_code == 200, answer.text
    petra = place.resident("Petra Privacy", "privacy_officer", "privacy board")
    return Desk(place.at_work(petra, language="nl"), answer.json()["result"]["plan_hash"])


def test_today_says_what_waits(desk: Desk) -> None:
    visit = desk.visit
    visit.go("/")
    looked_at(visit, "officer-today-nl")
    main = visit.page.get_by_role("main")
    expect(main).to_contain_text(TITLE)
    main.get_by_role("link").filter(has_text=TITLE).first.click()
    visit.page.wait_for_url(f"**/plans/{desk.plan}*")


def test_a_field_moves_the_forecast(desk: Desk) -> None:
    visit, page = desk.visit, desk.visit.page
    visit.go("/plans")
    looked_at(visit, "plans-nl")
    visit.go("/plans/forecast?epsilon=6&delta=1e-5&rounds=4&nominal_patients=300&" + _sites())
    forecast = page.locator("#forecast")
    # A process computes the first one; the page asks again until it is there.
    expect(forecast.locator(".chip").filter(has_text="…")).to_have_count(0)
    expect(forecast.get_by_role("table").first).to_be_visible()
    looked_at(visit, "forecast-nl")
    before = forecast.inner_text()
    page.locator("[name=epsilon]").fill("2")
    page.wait_for_function(
        "before => { const part = document.querySelector('#forecast');"
        " return part.querySelector('table') && part.innerText !== before; }",
        arg=before,
    )
    expect(forecast).to_contain_text("2")
    page.locator("[name=delta]").fill("0.5")
    expect(forecast.locator("code").filter(has_text="delta")).to_be_visible()
    looked_at(visit, "forecast-refused-nl")


def _sites() -> str:
    return "&".join(f"sites={site}" for site in TRAINERS)


def test_the_plan_is_approved_with_a_passkey(desk: Desk) -> None:
    visit, page = desk.visit, desk.visit.page
    visit.expected_statuses.add(422)
    visit.go(f"/plans/{desk.plan}")
    expect(page.locator(".columns [aria-live] table").first).to_be_visible()
    looked_at(visit, "plan-nl")
    decide = page.locator('form[action="/acts/new/plan-decision"]')
    decide.locator('button[value="refuse"]').click()
    expect(page.get_by_text("give a reason").first).to_be_visible()
    expect(page.get_by_role("main")).not_to_contain_text("Value error")
    looked_at(visit, "plan-refused-without-reason-nl")
    visit.go(f"/plans/{desk.plan}")
    decide.locator("[name=reason]").fill("past binnen het budget")
    decide.locator('button[value="approve"]').click()
    page.wait_for_url("**/acts/*")
    shown = page.locator("pre.mono").text_content() or ""
    assert desk.plan in shown, "the exact bytes name another plan"
    assert "past binnen" not in shown, "a reason is bound by its commitment, not written in the log"
    signed(visit, "plan-sign-nl")
    page.wait_for_url(f"**/plans/{desk.plan}")
    expect(page.locator(".approval .decisions")).to_contain_text("Petra Privacy")
    expect(page.locator(".approval .decisions")).to_contain_text("past binnen het budget")
    looked_at(visit, "plan-approved-nl")


def test_budgets_and_runs_are_there_to_read(desk: Desk) -> None:
    visit = desk.visit
    for path, name in (
        ("/privacy", "privacy-nl"),
        (f"/privacy/{TRAINERS[0]}", "privacy-one-nl"),
        ("/runs", "runs-nl"),
        ("/hospitals", "hospitals-nl"),
        ("/people", "people-nl"),
        ("/account", "account-nl"),
    ):
        visit.go(path)
        expect(visit.page.locator("html")).to_have_attribute("lang", "nl")
        looked_at(visit, name)


def test_nothing_is_left_in_english(desk: Desk) -> None:
    visit = desk.visit
    for path in ("/", "/plans", f"/plans/{desk.plan}", "/privacy", "/runs", "/releases", "/authority", "/log"):
        visit.go(path)
        headings = visit.page.locator("h1, h2, .sentence, button, label, caption, nav a").all_inner_texts()
        left = [text for text in headings if text.startswith(ENGLISH)]
        assert not left, f"{path}: {left}"
