"""`zegel consortium enrol`: from the folder alone to somebody at the pages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from admin_api.web.sign_in.accounts import account_of, end_account
from jobs.home import ConsortiumHome
from tests.admin_api.consortium_folder import copied, refused, zegel
from tests.admin_api.web.sign_in.conftest import URL, Clock, Door, open_door
from tests.admin_api.web.sign_in.visitor import Visitor, enrolled

ADA = ("consortium", "enrol", "Ada Beheer", "--role", "consortium_admin", "--organisation", "bureau")


@pytest.fixture
def door(founded: ConsortiumHome, tmp_path: Path) -> Iterator[Door]:
    """A door at the real time, by which the command goes; the shared one's clock was moved by other tests."""
    clock = Clock()
    opened = open_door(copied(founded.path, tmp_path / "consortium", clock), clock)
    yield opened
    opened.here.database.close()


def test_the_first_admin(door: Door) -> None:
    home = door.here.home.path
    result = zegel(*ADA, "--home", home, "--public-url", URL)
    assert result.exit_code == 0, result.output
    link, who, until, *_ = result.stdout.splitlines()
    assert link.startswith(f"{URL}/enrol#")
    assert "Ada Beheer (consortium_admin, bureau), account person-" in who
    assert "works once" in until
    visitor = Visitor(door.client())
    assert visitor.enrol(link).status_code == 200
    assert ("granted", "invited") in door.said()
    again = json.loads(zegel(*ADA, "--new-link", "--home", home, "--public-url", URL, "--json").stdout)
    assert again["account"] == visitor.who()
    assert Visitor(door.client()).enrol(again["link"]).status_code == 200


def test_settings_from_the_environment(door: Door) -> None:
    result = zegel(*ADA, "--home", door.here.home.path, "--json", ZEGEL_PUBLIC_URL="https://other.example")
    assert json.loads(result.stdout)["link"].startswith("https://other.example/enrol#")


def test_a_contact(door: Door) -> None:
    result = zegel(
        "consortium", "enrol", "Greet", "--role", "hospital_contact", "--organisation", "geul", "--hospital", "geul",
        "--language", "nl", "--home", door.here.home.path, "--json",
    )  # fmt: skip
    said = json.loads(result.stdout)
    account = account_of(door.here.database, said["account"])
    assert (account.hospital, account.language, account.state) == ("geul", "nl", "invited")


def test_what_cannot_be(door: Door) -> None:
    home = door.here.home.path
    enrolled(door)
    assert "has an account already" in refused(*ADA, "--home", home)
    assert "expected one of" in refused(
        "consortium", "enrol", "X", "--role", "king", "--organisation", "b", "--home", home
    )
    assert "has no account" in refused(
        "consortium", "enrol", "Nobody", "--role", "authority", "--organisation", "b", "--new-link", "--home", home
    )
    assert "public_url" in refused(*ADA, "--home", home, "--public-url", "http://zegel.example")
    assert "not a consortium's folder" in refused(*ADA, "--home", home / "nowhere")
    assert "missing" in refused("consortium", "enrol", "Ada", "--organisation", "b", code=2).lower()


def test_an_ended_account_gets_no_link(door: Door) -> None:
    enrolled(door)
    account = enrolled(door, "Bob Tweede").who()
    assert account is not None
    end_account(door.here, account, by=None)
    said = refused(
        "consortium", "enrol", "Bob Tweede", "--role", "consortium_admin", "--organisation", "bureau", "--new-link",
        "--home", door.here.home.path,
    )  # fmt: skip
    assert "has no account" in said
