"""A dossier checked by a real Chromium: a good one holds, each tampered one fails at the step that names the harm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from playwright.sync_api import expect
from starlette.testclient import TestClient

from admin_api.web.app import create_app
from admin_api.web.settings import Settings
from audit.archive import pack
from audit.dossier import (
    MANIFEST,
    MANIFEST_SIGNATURE,
    MODEL,
    PLAN,
    ROOT,
    manifest_note,
    manifest_of,
    open_dossier,
    write_dossier,
)
from audit.note import sign_note
from jobs.home import ConsortiumHome
from tests.admin_api.conftest import AfterRun
from tests.admin_api.web.browser import Visit, chromium, free_port, serving, visiting
from tests.admin_api.web.certificates.cast import signed
from tests.admin_api.web.releases.board import Board, board_of
from tests.admin_api.web.sign_in.signed_in import sign_in_for_tests

NAME = "spring-2027"
Members = dict[str, bytes]


@dataclass(frozen=True)
class Panel:
    """The page that checks, open in a browser, and a dossier that holds."""

    board: Board
    visit: Visit
    dossier: bytes

    def states(self) -> dict[str, str]:
        """Steps and how each ended."""
        steps = self.visit.page.locator("[data-dossier-step]")
        found: dict[str, str] = steps.evaluate_all(
            "all => Object.fromEntries(all.map((each) => [each.dataset.dossierStep, each.dataset.state]))"
        )
        return found

    def check(self, data: bytes) -> tuple[str | None, str]:
        """The step at which a file fails, and what the page says there."""
        page = self.visit.page
        self.visit.go("/verify")
        page.locator("input[type=file]").set_input_files(
            {"name": "some.dossier", "mimeType": "application/octet-stream", "buffer": data}
        )
        expect(page.locator("[data-dossier-verdict]")).to_have_class("sentence danger")
        states = self.states()
        failed = [step for step, state in states.items() if state == "failed"]
        assert len(failed) == 1
        after = list(states)[list(states).index(failed[0]) + 1 :]
        assert {states[step] for step in after} <= {"unknown"}
        said = page.locator(f'[data-dossier-step="{failed[0]}"] [data-dossier-word]').inner_text()
        return failed[0], said


@pytest.fixture(scope="module")
def panel(ran: AfterRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Panel]:
    """The board's consortium, once more at an address that a browser on this machine can open."""
    with chromium() as browser, board_of(ran, tmp_path_factory.mktemp("panel"), NAME) as board:
        dossier = board.certified()
        port = free_port()
        settings = Settings(home=board.office.here.home.path, public_url=f"http://localhost:{port}")
        here = replace(board.office.here, settings=settings)
        app = create_app(settings, here)
        client = TestClient(app, base_url=settings.public_url)
        sign_in_for_tests(client, here, "authority")
        with serving(app, port) as address, visiting(browser, address) as visit:
            visit.page.context.add_cookies(
                [{"name": name, "value": value, "url": address} for name, value in client.cookies.items()]
            )
            yield Panel(board, visit, dossier)


def test_a_release_that_holds_passes_every_step(panel: Panel) -> None:
    panel.visit.go(f"/verify?release={NAME}")
    assert panel.visit.accessibility() == []
    panel.visit.page.locator("#dossier-fetch").click()
    verdict = panel.visit.page.locator("[data-dossier-verdict]")
    expect(verdict).to_have_class("sentence ok")
    expect(verdict).to_contain_text(NAME)
    states = panel.states()
    assert states.pop("witnesses") == "attention"  # they have not seen this tree yet
    assert set(states.values()) == {"passed"}
    assert panel.visit.accessibility() == []
    assert panel.visit.faults == []


def _remade(dossier: bytes, home: ConsortiumHome, change: Callable[[Members], None]) -> bytes:
    """A dossier with a change that its keeper, with the log's key, covers up as far as that key goes."""
    members = dict(open_dossier(dossier).members)
    change(members)
    members[MANIFEST] = manifest_of(members)
    note = manifest_note(NAME, members[MANIFEST])
    members[MANIFEST_SIGNATURE] = sign_note(note, home.config().log_origin, home.log_key())
    return pack(members)


def _entry_of(members: Members, kind: str) -> str:
    return next(name for name in members if name.startswith("log/entries/") and f'"{kind}"'.encode() in members[name])


def _without(members: Members, kind: str) -> None:
    name = _entry_of(members, kind)
    del members[name]
    del members[name.replace("entries", "proofs").replace(".json", ".txt")]


def _no_approvals(members: Members) -> None:
    while any(name.startswith("log/entries/") and b'"zegel/approval/v1"' in members[name] for name in members):
        _without(members, "zegel/approval/v1")


def _other_approval(members: Members) -> None:
    name = _entry_of(members, "zegel/approval/v1")
    members[name] = members[name].replace(b'"decision":"approve"', b'"decision":"refuse"')


def _other_root(members: Members) -> None:
    members[ROOT] = next(content for name, content in members.items() if name.startswith("certificates/"))


def _fewer_certificates(members: Members) -> None:
    del members[next(name for name in members if name.startswith("certificates/"))]


def _other_member(name: str) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        members[name] = members[name] + b" "

    return change


@pytest.mark.parametrize(
    ("change", "step", "words"),
    [
        (_other_root, "identity", "made under the root"),
        (_other_approval, "inclusion", "do not give the signed root"),
        (lambda members: _without(members, "gates.set"), "register", "(gates.set) must not be missing"),
        (_fewer_certificates, "statements", "is not here"),
        (_other_member(MODEL), "release", MODEL),
        (_other_member(PLAN), "release", PLAN),
        (_other_member("documents/candidate.html"), "release", "candidate.html"),
        (_no_approvals, "approvals", "did not sign"),
    ],
)
def test_a_dossier_that_its_keeper_changed_fails_where_the_harm_is(
    panel: Panel, change: Callable[[Members], None], step: str, words: str
) -> None:
    failed, said = panel.check(_remade(panel.dossier, panel.board.office.here.home, change))
    assert failed == step, said
    assert words in said


def test_without_the_keepers_key_a_change_is_found_sooner(panel: Panel) -> None:
    members = dict(open_dossier(panel.dossier).members)
    members[PLAN] += b" "
    assert panel.check(pack(members))[0] == "manifest"
    members[MANIFEST] = manifest_of(members)
    assert panel.check(pack(members))[0] == "checkpoint"
    middle = len(panel.dossier) // 2
    flipped = bytes([panel.dossier[middle] ^ 1])
    assert panel.check(panel.dossier[:middle] + flipped + panel.dossier[middle + 1 :])[0] == "container"
    assert panel.check(panel.dossier[:-1])[0] == "container"
    assert panel.check(panel.dossier + b"\0")[0] == "container"
    assert panel.check(b"a letter, perhaps")[0] == "container"


def test_a_withdrawn_release_must_not_be_used(panel: Panel) -> None:
    board, home = panel.board, panel.board.office.here.home
    assert signed(board.rosa, "withdrawal-proposal", release=NAME, reason="codes were wrong").status_code == 200
    assert signed(board.office.pieter, "withdrawal-decision", release=NAME, reason="seen").status_code == 200
    with home.log() as log:
        later = write_dossier(
            log, home.artifacts(), home.disclosures(), NAME,
            key=home.log_key(), root_pem=Path(home.ca / "rootCA.pem").read_bytes(), clock=home.clock,
        )  # fmt: skip
    failed, said = panel.check(later)
    assert failed == "standing"
    assert "withdrawn" in said
