"""A consortium after a run, served to real browsers, and people with passkeys who work in it.

Somebody enrols and is certified by the real flow with a passkey in software; then their window's authenticator holds
the same key, and they sign in on the page like anybody. What a window shows is looked at by `looked_at`: axe in the
light and in the dark theme, nothing wider than the window, nothing on the console, and a picture of both under
build/screenshots.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fastapi import FastAPI
from playwright.sync_api import Browser, expect
from starlette.testclient import TestClient

from admin_api.onboarding import decide_request
from admin_api.web.app import create_app, make_workplace
from admin_api.web.context import HOSPITAL_CONTACT, Workplace
from admin_api.web.plans import desk
from admin_api.web.settings import Settings
from admin_api.web.sign_in.accounts import invite
from tests.admin_api.conftest import AfterRun
from tests.admin_api.consortium_folder import copied, opened
from tests.admin_api.web.browser import Visit, free_port, serving, visiting
from tests.admin_api.web.certificates.cast import asked_to_sign, compared, issued
from tests.admin_api.web.crew import InThisProcess
from tests.admin_api.web.sign_in.signed_in import sign_in_for_tests
from tests.admin_api.web.sign_in.visitor import Visitor
from tests.passkey import SoftwarePasskey

PICTURES = Path(__file__).resolve().parents[4] / "build" / "screenshots"
WORDS = {"en": "Sign in with a passkey", "nl": "Aanmelden met een passkey"}
# Chromium recommends RS256 as well; certificates for passkeys are for P-256 and Ed25519 alone. And htmx calls it an
# error when a newer question takes the place of one that is being answered.
HARMLESS = ("pubKeyCredParams", "htmx:sendAbort", "htmx:afterRequest")


@dataclass(frozen=True)
class Resident:
    """Somebody who can sign: their passkey, and a browser in software beside the real one."""

    name: str
    visitor: Visitor

    @property
    def account(self) -> str:
        account = self.visitor.who()
        assert account is not None
        return account


@dataclass
class Town:
    """The app at an address of its own. Windows are closed with it."""

    app: FastAPI
    here: Workplace
    ran: AfterRun
    address: str
    browser: Browser
    windows: ExitStack = field(default_factory=ExitStack)

    def client(self) -> TestClient:
        """A browser in software."""
        client = TestClient(self.app, base_url=self.address, follow_redirects=False)
        client.headers["Origin"] = self.address
        return client

    def resident(self, name: str, role: str, organisation: str, *, hospital: str | None = None) -> Resident:
        """Somebody enrolled; of the four roles that sign also certified, by two people who were there before."""
        passkey = SoftwarePasskey("localhost", origin=self.address)
        visitor = Visitor(self.client(), passkey)
        link = invite(self.here, name=name, role=role, organisation=organisation, hospital=hospital).link
        answer = visitor.enrol(link)
        assert answer.status_code == 200, answer.text
        visitor.carry_csrf()
        if role != HOSPITAL_CONTACT:
            self._certified(visitor)
        return Resident(name, visitor)

    def _certified(self, visitor: Visitor) -> None:
        request = asked_to_sign(visitor)
        for who in ("admin", "officer"):
            signer = opened(self.here.home, self.ran.people / who)
            decide_request(self.here.home, request["digest"], signer, approve=True, reason="known in person")
        admin = Visitor(self.client(), SoftwarePasskey("localhost"))
        sign_in_for_tests(admin.client, self.here, "consortium_admin")
        fresh = admin.client.get(f"/api/v1/requests/{request['id']}").json()
        answer = issued(admin, compared(admin, fresh, request["fingerprint"]))
        assert answer.status_code == 201, answer.text

    def window(self, **look: Any) -> Visit:
        """A window that nobody has signed in at."""
        return self.windows.enter_context(visiting(self.browser, self.address, **look))

    def at_work(self, resident: Resident, language: str = "en", **look: Any) -> Visit:
        """Their window, signed in with their passkey on the page."""
        visit = self.window(language=language, **look)
        hold(visit, resident.visitor)
        visit.go("/sign-in")
        looked_at(visit, f"sign-in-{language}")
        visit.page.get_by_role("button", name=WORDS[language]).click()
        expect(visit.page).to_have_url(f"{visit.address}/")
        if language != "en":  # the account's language, as its page changes it
            switch_language(visit, language)
        return visit


def hold(visit: Visit, visitor: Visitor) -> None:
    """From now on the window's authenticator holds this person's passkey."""
    authenticator = visit.passkeys()
    passkey, handle = visitor.passkey, visitor.handle
    assert handle is not None
    key = passkey.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    authenticator.session.send(
        "WebAuthn.addCredential",
        {
            "authenticatorId": authenticator.id,
            "credential": {
                "credentialId": base64.b64encode(passkey.credential_id).decode(),
                "isResidentCredential": True,
                "rpId": passkey.relying_party,
                "privateKey": base64.b64encode(key).decode(),
                "userHandle": base64.b64encode(base64.urlsafe_b64decode(handle + "=" * (-len(handle) % 4))).decode(),
                "signCount": passkey.sign_count,
                "backupEligibility": True,
                "backupState": True,
            },
        },
    )


@contextmanager
def town(ran: AfterRun, folder: Path, browser: Browser) -> Iterator[Town]:
    """The app over a copy of the consortium after a run; forecasts are computed in this process."""
    home = copied(ran.home.path, folder / "consortium")
    port = free_port()
    settings = Settings(home=home.path, public_url=f"http://localhost:{port}")
    here = replace(make_workplace(settings), home=home)
    app = create_app(settings, here)
    cache_dir = home.path / desk.CACHE
    desk._DESKS[cache_dir] = computing = desk.Desk(cache_dir, start=lambda: InThisProcess(cache_dir))
    try:
        with serving(app, port) as address:
            opened_town = Town(app, here, AfterRun(home, ran.people, ran.sites, ran.plan_hash), address, browser)
            with opened_town.windows:
                yield opened_town
    finally:
        computing.close()
        desk._DESKS.pop(cache_dir, None)
        here.reading.close()
        here.database.close()


def looked_at(visit: Visit, name: str) -> None:
    """The page as it stands is accessible in both themes, fits the window, and nothing went wrong on it."""
    page = visit.page
    PICTURES.mkdir(parents=True, exist_ok=True)
    found: list[str] = []
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        page.screenshot(path=PICTURES / f"{name}.{theme}.png", full_page=True)
        found += [f"{theme}: {each}" for each in visit.accessibility()]
    page.emulate_media(color_scheme="light")
    assert found == [], f"{page.url}\n" + "\n".join(found)
    assert visit.overflow() == 0, f"{page.url} is wider than the window"
    wrong = unforeseen(visit)
    assert wrong == [], f"{page.url}: {wrong}"


def unforeseen(visit: Visit) -> list[str]:
    """What went wrong on the window's pages so far."""
    return [each for each in visit.faults if not any(known in each for known in HARMLESS)]


def signed(visit: Visit, name: str) -> None:
    """On the page that shows an act: look, open the exact bytes, and sign with the passkey."""
    page = visit.page
    page.wait_for_url("**/acts/*")
    looked_at(visit, name)
    page.locator("details summary").last.click()
    expect(page.locator("pre.mono")).to_be_visible()
    page.locator("form[data-act-challenge] button[type=submit]").click()
    page.wait_for_url(lambda url: "/acts/" not in url)


def switch_language(visit: Visit, language: str) -> None:
    """By the menu, as people do."""
    page = visit.page
    page.locator('[popovertarget="viewer-menu"]:visible').first.click()
    page.locator(f'#viewer-menu [name=language][value="{language}"], #viewer-menu [value="{language}"]').first.click()
    expect(page.locator("html")).to_have_attribute("lang", language)
