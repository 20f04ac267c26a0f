"""A hospital's contact: the own hospital and nothing besides, a manifest sent, the way out; on a telephone's width."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from admin_api.web.context import HOSPITAL_CONTACT
from audit.entry import SITE_MANIFEST
from site_packages.home import SiteHome
from tests.admin_api.consortium_folder import TRAINERS, data_statement
from tests.admin_api.web.browser import Visit
from tests.admin_api.web.journeys.town import Town, looked_at

OWN, OTHER = TRAINERS[:2]


@pytest.fixture(scope="module")
def nel(place: Town) -> Visit:
    return place.at_work(place.resident("Nel Contact", HOSPITAL_CONTACT, OWN, hospital=OWN), width=390, height=844)


def test_only_the_own_hospital_is_shown(nel: Visit) -> None:
    page = nel.page
    nel.go("/")
    looked_at(nel, "contact-today")
    page.locator('[popovertarget="places"]:visible').click()
    places = page.get_by_role("navigation", name="Places")
    expect(places.get_by_role("link", name="Hospitals")).to_be_visible()
    for other in ("People", "Authority", "Runs"):
        expect(places.get_by_role("link", name=other)).to_have_count(0)
    page.keyboard.press("Escape")
    nel.go("/hospitals")
    expect(page.get_by_role("main")).to_contain_text(OWN)
    expect(page.get_by_role("main")).not_to_contain_text(OTHER)
    looked_at(nel, "contact-hospitals")
    nel.expected_statuses.update({403, 404})
    for path, status in ((f"/hospitals/{OTHER}", 404), (f"/privacy/{OTHER}", 404), ("/people", 403), ("/runs", 403)):
        assert nel.go(path).status == status, path
        expect(page.get_by_role("heading", level=1)).to_be_visible()
    looked_at(nel, "not-allowed")


def test_a_manifest_is_sent(nel: Visit, place: Town, tmp_path: Path) -> None:
    page = nel.page
    statement = data_statement(SiteHome(place.ran.sites / OWN), manifest="sha256:" + "2" * 64, patients=140)
    path = tmp_path / f"{OWN}.manifest.json"
    path.write_text(json.dumps(statement), encoding="utf-8")
    nel.go(f"/hospitals/{OWN}")
    looked_at(nel, "contact-own-hospital")
    page.get_by_text("Send the signed data manifest").click()
    page.locator("#field-manifest").set_input_files(path)
    page.locator(f'form[action="/hospitals/{OWN}/manifests"] button').click()
    page.wait_for_url(f"**/hospitals/{OWN}*")
    announced = page.get_by_role("table", name="What it announced about its data")
    expect(announced.get_by_role("row").nth(1)).to_contain_text("140")
    looked_at(nel, "contact-manifest-sent")
    with place.here.home.log() as log:
        _, entry = list(log.entries(kind=SITE_MANIFEST))[-1]
    assert entry.signed("manifest").statement["patients"] == 140


def test_what_is_wrong_with_a_file_is_said(nel: Visit, tmp_path: Path) -> None:
    page = nel.page
    path = tmp_path / "other.json"
    path.write_text('{"no": "statement"}', encoding="utf-8")
    nel.expected_statuses.update({409, 422})
    nel.go(f"/hospitals/{OWN}")
    page.get_by_text("Send the signed data manifest").click()
    page.locator("#field-manifest").set_input_files(path)
    page.locator(f'form[action="/hospitals/{OWN}/manifests"] button').click()
    page.wait_for_load_state()
    expect(page.get_by_text("What to do").first).to_be_visible()
    looked_at(nel, "contact-manifest-refused")


def test_signing_out_ends_it(nel: Visit, place: Town) -> None:
    page = nel.page
    nel.go("/")
    cookies: Any = page.context.cookies()
    page.locator('[popovertarget="viewer-menu"]:visible').first.click()
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in*")
    nel.go(f"/hospitals/{OWN}")
    page.wait_for_url("**/sign-in?next=*")
    page.context.add_cookies([each for each in cookies if "session" in each["name"]])
    nel.go("/")
    page.wait_for_url("**/sign-in*")
    page.get_by_role("button", name="Sign in with a passkey").click()
    page.wait_for_url(f"{nel.address}/")
