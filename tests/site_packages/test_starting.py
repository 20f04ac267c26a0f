"""Starting a hospital's client and seeing it let in; a small script stands in for NVFlare's client."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from audit.certificates import certificate_digest
from jobs.errors import FederationError
from jobs.federation import process
from site_packages import starting
from site_packages.home import CONNECTED_FILE, SiteHome
from site_packages.starting import start_until_let_in
from tests.admin_api.consortium_folder import enrol_site, found_at

# The caller forgets the process on purpose, which Python reports.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")

LET_IN = "pathlib.Path({note!r}).write_text({text!r}); time.sleep(60)"
TURNED_AWAY = "print('x - Authenticator - ERROR - registration rejected: certificate 1 is revoked since entry 7')"
DROPPED = "print('FLCommunicationError: server is not in secure mode')"
UNANSWERED = "time.sleep(60)"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> SiteHome:
    folder = tmp_path_factory.mktemp("started")
    return enrol_site(found_at(folder / "consortium"), "amstel", folder / "amstel")


@pytest.fixture
def client(site: SiteHome, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[str]]]:
    """Says what the client does at its first start, its second, and so on; the last is repeated."""
    note = {"certificate": certificate_digest(site.certificate())}
    starts: list[str] = []

    def behaves(*scripts: str) -> list[str]:
        def command(*_: object, **__: object) -> list[str]:
            script = scripts[min(len(starts), len(scripts) - 1)]
            starts.append(script)
            filled = script.format(note=str(site.kit / CONNECTED_FILE), text=json.dumps(note))
            return [sys.executable, "-c", f"import pathlib, time; {filled}"]

        monkeypatch.setattr(process, "site_command", command)
        return starts

    monkeypatch.setattr(starting, "AGAIN_S", 0.0)
    yield behaves
    process.stop(site.kit)


def start(site: SiteHome, timeout_s: float) -> bool:
    return start_until_let_in(site, clock=lambda: datetime.now(UTC), timeout_s=timeout_s)


def test_it_is_let_in(site: SiteHome, client: Callable[..., list[str]]) -> None:
    starts = client(LET_IN)
    assert start(site, 60) is True
    assert process.find(site.kit) is not None
    assert starts == [LET_IN]


def test_a_server_that_does_not_answer_is_waited_for_and_then_left_to_the_client(
    site: SiteHome, client: Callable[..., list[str]]
) -> None:
    client(UNANSWERED)
    assert start(site, 0.5) is False
    assert process.find(site.kit) is not None


def test_one_that_is_turned_away_is_told_why_and_not_started_again(
    site: SiteHome, client: Callable[..., list[str]]
) -> None:
    starts = client(LET_IN, TURNED_AWAY)
    assert start(site, 60) is True
    process.stop(site.kit)
    with pytest.raises(FederationError, match="does not let amstel in: certificate 1 is revoked since entry 7"):
        start(site, 60)
    assert starts == [LET_IN, TURNED_AWAY]
    assert process.find(site.kit) is None


def test_a_server_that_is_only_just_coming_up_is_asked_again(site: SiteHome, client: Callable[..., list[str]]) -> None:
    starts = client(DROPPED, DROPPED, LET_IN)
    assert start(site, 60) is True
    assert starts == [DROPPED, DROPPED, LET_IN]


def test_an_earlier_refusal_in_the_log_is_not_taken_for_this_one(
    site: SiteHome, client: Callable[..., list[str]]
) -> None:
    starts = client(TURNED_AWAY, DROPPED, LET_IN)
    with pytest.raises(FederationError, match="is revoked"):
        start(site, 60)
    assert start(site, 60) is True, "reinstated meanwhile"
    assert starts == [TURNED_AWAY, DROPPED, LET_IN]


def test_one_that_keeps_ending_is_an_error(
    site: SiteHome, client: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def seen_to_end(home: SiteHome, **_: object) -> Callable[[], bool]:
        def wait() -> bool:
            while process.find(home.kit) is not None:
                time.sleep(0.02)
            return False

        return wait

    monkeypatch.setattr(starting, "waiting_to_be_let_in", seen_to_end)
    starts = client(DROPPED)
    with pytest.raises(FederationError, match=r"amstel was started and ended again; .*console\.log says why"):
        start(site, 0)
    assert starts == [DROPPED]


def test_the_note_of_an_earlier_start_does_not_count(site: SiteHome, client: Callable[..., list[str]]) -> None:
    client(LET_IN, UNANSWERED)
    assert start(site, 60) is True
    process.stop(site.kit)
    assert Path(site.kit / CONNECTED_FILE).exists()
    assert start(site, 0.5) is False
