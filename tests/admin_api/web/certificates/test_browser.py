"""Founding and onboarding in a real Chromium: three people, each with a window and a passkey of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from admin_api.web.app import create_app, make_workplace
from admin_api.web.context import Workplace
from admin_api.web.settings import Settings
from admin_api.web.sign_in.accounts import invite
from jobs.home import ConsortiumHome
from site_packages.home import SiteHome
from site_packages.installing import install
from tests.admin_api.consortium_folder import PASSPHRASE, copied
from tests.admin_api.web.browser import Visit, chromium, free_port, serving, visiting
from tests.admin_api.web.certificates.cast import OFFICER, asked_at

_SEEN: set[tuple[str, ...]] = set()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@dataclass(frozen=True)
class Office:
    """The app at an address of its own, and windows to it that are closed at the end."""

    here: Workplace
    address: str
    browser: Browser
    windows: ExitStack

    def enrolled(self, link: str, language: str = "en") -> Visit:
        """Somebody who opened their link and made a passkey."""
        visit = self.windows.enter_context(visiting(self.browser, self.address, language=language))
        visit.passkeys()
        visit.go("/" + link.split("/", 3)[3])
        looked_at(visit)
        visit.page.locator("input[name=name]").fill("laptop")
        visit.page.locator("form[data-passkey] button[type=submit]").click()
        visit.page.wait_for_url(lambda url: "/enrol" not in url)
        # Chromium would have every site take RSA passkeys too; ours are P-256 and Ed25519.
        visit.faults[:] = [fault for fault in visit.faults if "pubKeyCredParams" not in fault]
        return visit


@pytest.fixture
def office(founded: ConsortiumHome, tmp_path: Path, browser: Browser) -> Iterator[Office]:
    home = copied(founded.path, tmp_path / "consortium")
    port = free_port()
    settings = Settings(home=home.path, public_url=f"http://localhost:{port}")
    here = make_workplace(settings)
    with serving(create_app(settings, here), port) as address, ExitStack() as windows:
        yield Office(here, address, browser, windows)
    here.database.close()


def looked_at(visit: Visit) -> None:
    """The page is accessible, and nothing on it went wrong; one that looks like an earlier one is not gone through."""
    outline = visit.page.evaluate("[...document.querySelectorAll('h1, h2, form, table')].map(e => e.tagName + e.id)")
    kind = (re.sub(r"[0-9a-f]{16,}", "", visit.page.url), *outline)
    if kind not in _SEEN:
        assert visit.accessibility() == [], visit.page.url
        _SEEN.add(kind)
    assert visit.faults == [], visit.page.url


def sent(visit: Visit, action: str, **fields: str) -> None:
    """Fill in the form with this action and send it; the next page is looked at."""
    form = visit.page.locator(f'form[action="{action}"]')
    for name, value in fields.items():
        form.locator(f"[name={name}]").fill(value)
    form.locator("button[type=submit]").first.click()
    visit.page.wait_for_load_state()
    looked_at(visit)


def asked(visit: Visit) -> str:
    """Ask for a certificate for one's passkey; returns the path of the request."""
    person = visit.page.evaluate("fetch('/api/v1/session').then(answer => answer.json())")["account"]
    visit.go(f"/people/{person}")
    looked_at(visit)
    visit.page.locator('form[action$="/request"] button').click()
    visit.page.wait_for_url("**/requests/*")
    looked_at(visit)
    return visit.page.url.removeprefix(visit.address)


def fingerprint_on(visit: Visit) -> list[str]:
    """The groups that this page shows."""
    return visit.page.locator(".fingerprint").inner_text().replace("sha256:", "").split()


def compared(admin: Visit, path: str, groups: list[str]) -> None:
    """The admin hears the last groups and types them."""
    admin.go(path)
    assert groups[-1] not in fingerprint_on(admin)
    sent(admin, f"{path}/comparison", groups=" ".join(groups[-4:]))


def issued(admin: Visit, path: str) -> None:
    admin.go(path)
    sent(admin, f"{path}/certificate", passphrase=PASSPHRASE)
    expect(admin.page.locator(".kv .chip").first).to_contain_text("issued")


def approved(visit: Visit, path: str) -> None:
    """Read what is signed, and sign it with the passkey."""
    visit.go(path)
    visit.page.locator('button[name=approve][value="true"]').click()
    visit.page.wait_for_url("**/acts/*")
    looked_at(visit)
    visit.page.locator("form[data-act-challenge] button").click()
    visit.page.wait_for_url(f"**{path}")
    looked_at(visit)


def test_two_found_and_a_hospital_joins(office: Office, tmp_path: Path) -> None:
    ada = office.enrolled(invite(office.here, name="Ada Beheer", role="consortium_admin", organisation="bureau").link)
    issued(ada, asked(ada))
    name, role, organisation = OFFICER
    pieter = office.enrolled(invite(office.here, name=name, role=role, organisation=organisation).link)
    path = asked(pieter)
    compared(ada, path, fingerprint_on(pieter))
    issued(ada, path)

    ada.go("/hospitals/new")
    looked_at(ada)
    sent(ada, "/hospitals/new", site="amstel", organisation="amstel", contact="Nel Amstel")
    link = ada.page.locator("code", has_text="/enrol#").inner_text()
    nel = office.enrolled(link, language="nl")
    nel.go("/hospitals/amstel")
    looked_at(nel)
    request = tmp_path / "amstel.request.zip"
    request.write_bytes(asked_at(tmp_path))
    nel.page.locator("#field-request").set_input_files(request)
    nel.page.locator('form[action="/hospitals/amstel/requests"] button').click()
    nel.page.wait_for_url("**/requests/*")
    looked_at(nel)
    own = nel.page.url.removeprefix(nel.address)
    path = f"/requests/{own.rpartition('/')[2]}"
    compared(ada, path, fingerprint_on(nel))
    approved(ada, path)
    approved(pieter, path)
    issued(ada, path)

    nel.go(own)
    looked_at(nel)
    with nel.page.expect_download() as download:
        nel.page.locator('a[href$="/reply"]').click()
    reply = tmp_path / download.value.suggested_filename
    download.value.save_as(reply)
    site = SiteHome(tmp_path / "amstel")
    install(site, reply, fingerprint=office.here.home.config().root_fingerprint)
    for visit, paths in (
        (ada, ("/hospitals", "/hospitals/amstel", "/people", "/requests?state=issued", "/certificates")),
        (nel, ("/hospitals", "/hospitals/amstel", "/hospitals/amstel/history")),
    ):
        for each in paths:
            visit.go(each)
            looked_at(visit)
            assert visit.overflow() == 0
