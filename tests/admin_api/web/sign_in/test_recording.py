"""From the pages to the log: nothing lost, nothing twice, no flood, nothing personal."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from admin_api.recording import read_evidence
from admin_api.web.sign_in import recording
from admin_api.web.sign_in.recording import note_ended, note_granted, note_refusal, waiting, write_due, write_now
from audit.entry import ACCESS_REFUSED
from audit.errors import LogError
from jobs.home import ConsortiumHome
from tests.admin_api.web.sign_in.conftest import Door
from tests.admin_api.web.sign_in.visitor import Visitor, enrolled, invited

PERSON = "person-0123456789abcdef"


def test_a_flood_becomes_one_entry_a_minute(door: Door) -> None:
    for _ in range(3):
        for _ in range(50):
            note_refusal(door.here, None, "passkey", "unknown")
        note_refusal(door.here, PERSON, "passkey", "not-proven")
        door.clock.forward(minutes=1)
    counts = [(entry.body["account"], entry.body["count"]) for entry in door.entries()]
    assert sorted(counts, key=str) == sorted([(None, 50), (PERSON, 1)] * 3, key=str)


def test_a_minute_that_is_not_over_waits(door: Door) -> None:
    door.clock.now = door.clock.now.replace(second=10)
    note_refusal(door.here, None, "passkey", "unknown")
    assert write_due(door.here) == 0
    door.clock.forward(seconds=49)
    assert write_due(door.here) == 0
    door.clock.forward(seconds=1)
    note_refusal(door.here, None, "passkey", "unknown")
    assert (write_due(door.here), waiting(door.here)) == (1, 1)
    assert write_due(door.here, everything=True) == 1
    assert waiting(door.here) == 0


def test_a_log_that_refuses_loses_nothing_and_keeps_nobody_out(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: ConsortiumHome, *entries: object) -> None:
        raise LogError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(ConsortiumHome, "record", refuse)
        ada = enrolled(door)
        assert ada.who() is not None
        assert waiting(door.here) == 3
        with pytest.raises(LogError):
            write_due(door.here)
        write_now(door.here)
    assert sorted(door.said()) == [("granted", "enrolment"), ("granted", "invited"), ("granted", "passkey")]
    assert waiting(door.here) == 0


def signed_and_died(real: Callable[..., None]) -> Callable[..., None]:
    def record(self: ConsortiumHome, *entries: Any) -> None:
        real(self, *entries)
        raise LogError("the machine stopped after the log had it")

    return record


def test_what_the_log_has_already_is_not_written_again(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash between the append and the deletion of the notes."""
    invited(door)
    for _ in range(3):
        note_refusal(door.here, None, "token", "unknown")
    with monkeypatch.context() as patch:
        patch.setattr(ConsortiumHome, "record", signed_and_died(ConsortiumHome.record))
        with pytest.raises(LogError):
            write_due(door.here, everything=True)
    assert waiting(door.here) == 2
    note_refusal(door.here, None, "token", "unknown")  # in the same minute, after the crash
    counts = [entry.body.get("count") for entry in door.entries()]
    assert sorted(counts, key=str) == [1, 3, None]


def test_notes_taken_by_a_process_that_died_are_taken_again(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    class Died(BaseException):
        pass

    def die(*_: object) -> int:
        raise Died

    invited(door)
    with monkeypatch.context() as patch:
        patch.setattr(recording, "_write", die)
        with pytest.raises(Died):
            write_due(door.here)
    assert write_due(door.here, everything=True) == 0, "another process may be writing them"
    door.clock.forward(minutes=1)
    assert write_due(door.here) == 1


def test_a_refusal_counted_while_it_is_written_is_kept(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    note_refusal(door.here, None, "token", "unknown")
    real = ConsortiumHome.record

    def slow(self: ConsortiumHome, *entries: Any) -> None:
        note_refusal(door.here, None, "token", "unknown")
        real(self, *entries)

    with monkeypatch.context() as patch:
        patch.setattr(ConsortiumHome, "record", slow)
        assert write_due(door.here, everything=True) == 1
    assert waiting(door.here) == 1
    assert [entry.body["count"] for entry in door.entries()] == [1, 1]


def test_many_notes_are_written_in_pieces(door: Door) -> None:
    with door.here.database.begin() as session:
        for _ in range(250):
            note_granted(session, door.here, PERSON, "passkey", by=PERSON)
        note_ended(session, door.here, PERSON, "locked", by=None)
    assert write_due(door.here) == 251


def test_a_note_is_gone_with_the_transaction_that_failed(door: Door) -> None:
    def fail() -> None:
        with door.here.database.begin() as session:
            note_granted(session, door.here, PERSON, "passkey", by=PERSON)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert waiting(door.here) == 0


def test_nothing_personal_is_logged(door: Door) -> None:
    client = door.client("198.51.100.77")
    client.headers["User-Agent"] = "Mozilla/5.0 (X11; Linux) Firefox/140.0 SecretDevice"
    ada = Visitor(client)
    ada.enrol(invited(door, "Adriana Geheim").link, name="Adriana's telephone")
    client.cookies.clear()
    Visitor(client, ada.passkey, ada.handle).sign_in(origin="https://evil.example")
    said = json.dumps([entry.body for entry in door.entries()])
    for personal in ("Adriana", "Geheim", "telephone", "198.51", "Firefox", "Secret", "evil"):
        assert personal not in said
    with pytest.raises(ValueError, match="account's id"):
        note_refusal(door.here, "Adriana", "passkey", "unknown")


def test_the_log_still_holds_together(door: Door) -> None:
    enrolled(door)
    note_refusal(door.here, None, "passkey", "unknown")
    write_due(door.here, everything=True)
    evidence = read_evidence(door.here.home)
    assert evidence.of_kind(ACCESS_REFUSED)
    with door.here.home.log() as log:
        log.check()
