"""Who was heard of, and when: noted by the server's door, read by the pages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs.errors import FederationError
from jobs.federation.door import Door, heartbeats
from jobs.federation.presence import CONNECTED_WITHIN, NOTED_EVERY, PresenceNotes, Seen, presence_path, read_presence
from jobs.home import ConsortiumHome

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path) -> ConsortiumHome:
    home = ConsortiumHome(tmp_path)
    presence_path(home).parent.mkdir()
    return home


def test_before_the_server_ever_ran_nobody_was_seen(home: ConsortiumHome) -> None:
    assert read_presence(home) == {}


def test_first_and_last_are_kept_over_a_restart_of_the_server(home: ConsortiumHome) -> None:
    later = NOON + timedelta(hours=3)
    assert PresenceNotes(presence_path(home), lambda: NOON).note({"amstel": NOON})
    assert PresenceNotes(presence_path(home), lambda: later).note({"amstel": later, "berkel": later})
    assert read_presence(home) == {"amstel": Seen(NOON, later), "berkel": Seen(later, later)}


def test_heartbeats_do_not_become_writes(home: ConsortiumHome) -> None:
    notes = PresenceNotes(presence_path(home), lambda: NOON + timedelta(hours=1))
    assert notes.note({"amstel": NOON})
    before = presence_path(home).stat().st_mtime_ns
    assert not notes.note({"amstel": NOON + NOTED_EVERY - timedelta(seconds=1)})
    assert not notes.note({})
    assert presence_path(home).stat().st_mtime_ns == before
    assert notes.note({"amstel": NOON + NOTED_EVERY})


def test_a_clock_that_runs_ahead_or_back_moves_nothing_wrongly(home: ConsortiumHome) -> None:
    notes = PresenceNotes(presence_path(home), lambda: NOON)
    assert notes.note({"amstel": NOON + timedelta(days=1)})
    assert read_presence(home)["amstel"].last == NOON
    assert not notes.note({"amstel": NOON - timedelta(days=1)})


def test_connected_is_heard_of_just_now() -> None:
    seen = Seen(NOON, NOON)
    assert seen.connected(NOON + CONNECTED_WITHIN)
    assert not seen.connected(NOON + CONNECTED_WITHIN + timedelta(seconds=1))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"schema":"other","sites":{}}',
        b'{"schema":"zegel/presence/v1","sites":{"a":{"first":1}}}',
        b'{"schema":"zegel/presence/v1","sites":[]}',
        b'{"schema":"zegel/presence/v1"}',
    ],
)
def test_a_damaged_file_is_named_and_written_anew(home: ConsortiumHome, content: bytes) -> None:
    presence_path(home).write_bytes(content)
    with pytest.raises(FederationError, match=r"presence\.json"):
        read_presence(home)
    PresenceNotes(presence_path(home), lambda: NOON).note({"amstel": NOON})
    assert read_presence(home) == {"amstel": Seen(NOON, NOON)}


class Closing:
    """A door that closes after so many looks."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def wait(self, _timeout: float) -> bool:
        self.looks -= 1
        return self.looks < 0


class Counting:
    """A denylist that counts how often it followed the log."""

    followed = 0

    def follow(self) -> None:
        self.followed += 1


@pytest.mark.parametrize("failing", [AttributeError("no such client"), OSError("disk full"), ValueError("time")])
def test_whatever_is_wrong_with_the_notes_the_denylist_is_kept(home: ConsortiumHome, failing: Exception) -> None:
    class Engine:
        def get_clients(self) -> list[object]:
            raise failing

    door, denylist = Door(), Counting()
    door._closing = Closing(3)  # type: ignore[assignment]
    door._watch(denylist, PresenceNotes(presence_path(home), lambda: NOON), Engine())  # type: ignore[arg-type]
    assert denylist.followed == 3


def test_of_two_sessions_of_a_hospital_the_later_counts() -> None:
    clients = [SimpleNamespace(name="amstel", last_connect_time=moment) for moment in (20.0, 30.0, 10.0)]
    assert heartbeats(clients) == {"amstel": datetime.fromtimestamp(30, UTC)}
