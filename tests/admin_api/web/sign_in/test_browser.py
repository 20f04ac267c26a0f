"""A person's way in, in a real Chromium with a virtual authenticator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from playwright.sync_api import Browser, expect

from admin_api.web.app import create_app, make_workplace
from admin_api.web.context import Workplace
from admin_api.web.settings import Settings
from admin_api.web.sign_in.accounts import account_of, invite
from admin_api.web.sign_in.passkeys import passkeys_of, signing_request
from admin_api.web.sign_in.sessions import IDLE, RECENT
from jobs.home import ConsortiumHome
from tests.admin_api.consortium_folder import copied
from tests.admin_api.web.browser import Visit, chromium, free_port, serving, visiting
from tests.admin_api.web.sign_in.conftest import Clock

WORDS = {
    "en": {"sign in": "Sign in with a passkey", "make": "Make a passkey", "name": "What do you call this passkey?"},
    "nl": {"sign in": "Aanmelden met een passkey", "make": "Passkey maken", "name": "Hoe noemt u deze passkey?"},
}


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def here(founded: ConsortiumHome, tmp_path_factory: pytest.TempPathFactory, clock: Clock) -> Iterator[Workplace]:
    home = copied(founded.path, tmp_path_factory.mktemp("browser") / "consortium", clock)
    settings = Settings(home=home.path, public_url=f"http://localhost:{free_port()}")
    place = replace(make_workplace(settings), home=home)
    yield place
    place.database.close()


@pytest.fixture(scope="module")
def window(here: Workplace) -> Iterator[tuple[Browser, str]]:
    port = int(here.settings.public_url.rpartition(":")[2])
    with serving(create_app(here.settings, here), port) as address, chromium() as browser:
        yield browser, address


@pytest.fixture
def visit(window: tuple[Browser, str]) -> Iterator[Visit]:
    with visiting(*window) as visit:
        yield visit


def faults(visit: Visit) -> list[str]:
    """Chromium recommends RS256 as well; certificates for passkeys are for P-256 and Ed25519 alone."""
    return [each for each in visit.faults if "publicKey.pubKeyCredParams is missing" not in each]


def enrol(visit: Visit, here: Workplace, name: str, *, language: str = "en", role: str = "consortium_admin") -> str:
    """Open a one-time link and make a passkey; returns the account's id."""
    invitation = invite(here, name=name, role=role, organisation="bureau", language=language)
    visit.page.goto("about:blank")
    visit.page.goto(invitation.link)
    assert visit.page.evaluate("location.hash") == "", "the secret does not stay in the address"
    visit.page.get_by_label(WORDS[language]["name"]).fill("laptop")
    visit.page.get_by_role("button", name=WORDS[language]["make"]).click()
    expect(visit.page).to_have_url(f"{visit.address}/")
    return invitation.account.id


def sign_in(visit: Visit, path: str = "/sign-in", language: str = "en") -> None:
    visit.go(path)
    visit.page.get_by_role("button", name=WORDS[language]["sign in"]).click()


def test_from_a_link_to_signing_in_again(visit: Visit, here: Workplace, clock: Clock) -> None:
    authenticator = visit.passkeys()
    account = enrol(visit, here, "Ada Browser")
    assert len(authenticator.credentials()) == 1
    (passkey,) = passkeys_of(here.database, account)
    request, signature, assertion = signing_request(here, account, passkey.credential_id)
    assert request.name == "Ada Browser"
    assert signature
    assert b"webauthn.get" in assertion.client_data
    visit.go("/account")
    expect(visit.page.get_by_role("heading", name="laptop")).to_be_visible()
    assert visit.accessibility() == []
    visit.page.get_by_role("button", name="Sign out everywhere").click()
    expect(visit.page).to_have_url(f"{visit.address}/sign-in")
    assert visit.accessibility() == []
    sign_in(visit, "/sign-in?next=/account")
    expect(visit.page).to_have_url(f"{visit.address}/account")
    clock.forward(seconds=IDLE.total_seconds() + 1)
    visit.go("/account")
    expect(visit.page).to_have_url(f"{visit.address}/sign-in?next=%2Faccount")
    assert faults(visit) == []


def test_what_lasts_asks_for_the_passkey_again(visit: Visit, here: Workplace, clock: Clock) -> None:
    visit.passkeys()
    account = enrol(visit, here, "Bea Browser")
    clock.forward(seconds=RECENT.total_seconds() + 60)
    visit.go("/accounts")
    assert visit.accessibility() == []
    visit.page.get_by_label("Name", exact=True).fill("Cor Contact")
    visit.page.get_by_label("Role").select_option("hospital_contact")
    visit.page.get_by_label("Organisation").fill("geul")
    visit.page.get_by_label("Hospital's site").fill("geul")
    visit.page.get_by_role("button", name="Make a one-time link").click()
    expect(visit.page.get_by_role("heading", name="A link for Cor Contact")).to_be_visible()
    assert visit.page.locator("code", has_text="/enrol#").count() == 1
    assert visit.accessibility() == []
    visit.go("/account")
    visit.page.get_by_text("Add a passkey").click()
    visit.page.locator("#new-passkey").fill("key ring")
    visit.page.locator("form[data-passkey=add] button").click()
    expect(visit.page.locator("[data-passkey-message]").filter(has_text="has a passkey")).to_be_visible()
    assert [each.name for each in passkeys_of(here.database, account)] == ["laptop"]
    assert faults(visit) == []


def test_what_goes_wrong_is_told_in_words(visit: Visit, here: Workplace) -> None:
    visit.expected_statuses.add(403)
    authenticator = visit.passkeys()
    visit.go("/enrol")
    message = visit.page.locator("[data-passkey-message]")
    expect(message).to_contain_text("needs the whole link")
    visit.page.goto("about:blank")
    visit.page.goto(f"{visit.address}/enrol#{'A' * 43}")
    visit.page.get_by_label(WORDS["en"]["name"]).fill("x")
    visit.page.get_by_role("button", name=WORDS["en"]["make"]).click()
    expect(message).to_contain_text("This link does not work")
    enrol(visit, here, "Cas Browser")
    visit.page.context.clear_cookies()
    visit.faults.clear()
    authenticator.verified(False)
    sign_in(visit)
    expect(message).to_contain_text("Nothing was signed")
    visit.expected_statuses.add(403)
    authenticator.verified(True)
    visit.page.get_by_role("button", name=WORDS["en"]["sign in"]).click()
    expect(visit.page).to_have_url(f"{visit.address}/")


def test_another_address_is_told_before_anything_is_asked(visit: Visit, here: Workplace) -> None:
    visit.page.goto(f"{visit.address.replace('localhost', '127.0.0.1')}/sign-in")
    visit.page.get_by_role("button", name=WORDS["en"]["sign in"]).click()
    expect(visit.page.locator("[data-passkey-message]")).to_contain_text(f"belong to {here.settings.public_url}")


def test_the_same_in_dutch(window: tuple[Browser, str], here: Workplace) -> None:
    with visiting(*window, language="nl") as visit:
        visit.passkeys()
        account = enrol(visit, here, "Dirk Browser", language="nl")
        assert account_of(here.database, account).language == "nl"
        visit.go("/account")
        assert visit.page.locator("html").get_attribute("lang") == "nl"
        expect(visit.page.get_by_role("heading", name="Mijn account")).to_be_visible()
        visit.page.get_by_role("button", name="Overal afmelden").click()
        sign_in(visit, "/sign-in?next=/account", "nl")
        expect(visit.page).to_have_url(f"{visit.address}/account")
        assert visit.accessibility() == []
        assert faults(visit) == []
