"""An admin's first day: a one-time link, a certificate by the root's passphrase, a hospital invited, a plan.

From founding to a hospital's kit, with all three people in windows of their own, is in
tests/admin_api/web/certificates/test_browser.py. Here the consortium has run, so an admin joins it, gets keys to work
with the hands of others, and proposes its next plan.
"""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from admin_api.onboarding import decide_request
from admin_api.web.sign_in.accounts import invite
from tests.admin_api.consortium_folder import PASSPHRASE, TRAINERS, opened
from tests.admin_api.web.browser import Visit
from tests.admin_api.web.journeys.town import Town, looked_at, signed, unforeseen


@pytest.fixture(scope="module")
def ada(place: Town) -> Visit:
    """Her window, after she opened her link and made a passkey."""
    visit = place.window()
    visit.passkeys()
    link = invite(place.here, name="Ada Tweede", role="consortium_admin", organisation="bureau").link
    visit.page.goto(link)
    looked_at(visit, "enrol")
    visit.page.locator("input[name=name]").fill("laptop")
    visit.page.locator("form[data-passkey] button[type=submit]").click()
    expect(visit.page).to_have_url(f"{visit.address}/")
    looked_at(visit, "admin-first-day")
    return visit


def test_her_passkey_is_certified_with_the_roots_passphrase(ada: Visit, place: Town) -> None:
    page = ada.page
    person = page.evaluate("fetch('/api/v1/session').then(answer => answer.json())")["account"]
    ada.go(f"/people/{person}")
    looked_at(ada, "own-person")
    page.locator('form[action$="/request"] button').click()
    page.wait_for_url("**/requests/*")
    looked_at(ada, "own-request")
    path = page.url.removeprefix(ada.address)
    asked = page.evaluate(f"fetch('/api/v1{path}').then(answer => answer.json())")
    for who in ("admin", "officer"):
        signer = opened(place.here.home, place.ran.people / who)
        decide_request(place.here.home, asked["digest"], signer, approve=True, reason="known in person")
    ada.go(path)
    if page.locator(f'form[action="{path}/comparison"]').count():
        groups = page.locator(".fingerprint").inner_text().replace("sha256:", "").split()
        page.locator(f'form[action="{path}/comparison"] [name=groups]').fill(" ".join(groups[-4:]))
        page.locator(f'form[action="{path}/comparison"] button[type=submit]').click()
        page.wait_for_load_state()
    looked_at(ada, "request-to-issue")
    page.locator(f'form[action="{path}/certificate"] [name=passphrase]').fill(PASSPHRASE)
    page.locator(f'form[action="{path}/certificate"] button[type=submit]').click()
    expect(page.locator(".kv .chip").first).to_contain_text("issued")
    looked_at(ada, "request-issued")


def test_a_hospital_is_invited(ada: Visit) -> None:
    page = ada.page
    ada.go("/hospitals")
    looked_at(ada, "hospitals")
    ada.go("/hospitals/new")
    looked_at(ada, "invite")
    page.locator("[name=site]").fill("ijssel")
    page.locator("[name=organisation]").fill("ijssel")
    page.locator("[name=contact]").fill("Nel IJssel")
    page.locator('form[action="/hospitals/new"] button[type=submit]').click()
    expect(page.locator("code", has_text="/enrol#")).to_be_visible()
    looked_at(ada, "invited")
    ada.go("/hospitals/ijssel")
    looked_at(ada, "hospital-invited")


def test_a_plan_is_proposed(ada: Visit) -> None:
    page = ada.page
    ada.go("/plans/new")
    looked_at(ada, "plan-templates")
    form = page.locator("#wish")
    form.locator("[name=name]").fill("autumn-2026")
    form.locator("[name=epsilon]").fill("6")
    form.locator("[name=delta]").fill("1e-5")
    form.locator("[name=rounds]").fill("4")
    form.locator("[name=nominal_patients]").fill("300")
    for box in form.locator("[name=sites]").all():
        box.set_checked(box.get_attribute("value") in TRAINERS)
    form.locator("[name=labels]").fill("I10\nK40")
    expect(page.locator("#forecast table").first).to_be_visible()
    looked_at(ada, "plan-new")
    form.get_by_role("button", name="Look at what would be signed").click()
    signed(ada, "plan-proposal-sign")
    expect(page.get_by_role("heading", level=1)).to_contain_text("autumn-2026")
    expect(page.get_by_role("main")).to_contain_text("You proposed it")
    looked_at(ada, "plan-proposed")
    assert unforeseen(ada) == []
