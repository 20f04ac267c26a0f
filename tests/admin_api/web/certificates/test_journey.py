"""How far a hospital has come, in steps and in a sentence, from what the log, the pages and the server know."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from admin_api.reading.hospitals import Hospital, Step
from admin_api.web.certificates.tables import InvitationRow, RequestRow
from admin_api.web.hospitals.journey import journey, own_sentence, reached_word, sentence
from jobs.federation.presence import Seen

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
SEEN = Seen(NOON, NOON)


def hospital(*words: str, **changes: object) -> Hospital:
    known: dict[str, object] = {
        "name": "amstel", "organisation": "amstel", "since": NOON,
        "journey": tuple(Step(word, 7 + n, NOON) for n, word in enumerate(words)), "reached": words[-1],
        "standing": "good", "until": NOON, "days": 300, "certificates": 1, "manifest": None, "patients": None,
        "admissions": None, "period_first": None, "period_last": None, "manifests": 0, "asked": 0, "accepted": 0,
        "refused": 0, "rounds": 0, "dropped": 0, "receipts": 0, "reports": 0, "last_entry": 9, "last_time": NOON,
        "last_run": None, "last_version": None, "spent": 0.0, "reserved": 0.0,
    }  # fmt: skip
    return Hospital(**{**known, **changes})  # type: ignore[arg-type]


def invitation(**changes: Any) -> InvitationRow:
    return InvitationRow(
        **{"site": "amstel", "organisation": "amstel", "contact": "c", "invited": NOON, "invited_by": "p", **changes}
    )


def asked(**changes: Any) -> RequestRow:
    return RequestRow(
        **{"id": "1", "kind": "site", "holder": "amstel", "organisation": "amstel", "role": "client", "digest": "d",
           "fingerprint": "sha256:0", "state": "open", "received": NOON, "received_by": "c", **changes}
    )  # fmt: skip


def states(*steps: str) -> str:
    return " ".join(steps)


@pytest.mark.parametrize(
    ("known", "invited", "requests", "heard", "expected", "says"),
    [
        (None, invitation(), [], None, "done now todo todo todo todo todo", "not come yet"),
        (None, invitation(withdrawn=NOON), [], None, "failed now todo todo todo todo todo", "withdrawn"),
        (None, invitation(), [asked()], None, "done done now todo todo todo todo", "telephone"),
        (None, invitation(), [asked(compared=NOON)], None, "done done now todo todo todo todo", "waits for approvals"),
        (hospital("certified"), invitation(), [asked(state="issued")], None,
         "done done done now todo todo todo", "not announced its data"),
        (hospital("certified"), None, [], SEEN, "done done done done now todo todo", "not announced its data"),
        (hospital("certified", "data", manifest="sha256:1"), None, [], SEEN,
         "done done done done done now todo", "evaluated nothing yet"),
        (hospital("certified", "data", manifest="sha256:1"), None, [], None,
         "done done done now done todo todo", "has not heard of it"),
        (hospital("certified", "data", "evaluated", manifest="sha256:1", reports=1), None, [], None,
         "done done done done done done now", "Nothing is needed"),
        (hospital("certified", "data", "evaluated", "trained", manifest="sha256:1", reports=1, rounds=3), None, [],
         SEEN, "done done done done done done done", "connected"),
        (hospital("certified", standing="suspended"), None, [], None, "done done done now todo todo todo", "Suspended"),
        (hospital("certified", standing="revoked"), None, [], None, "done done done now todo todo todo", "Revoked"),
        (hospital("certified", standing="expired", days=-3), None, [], None,
         "done done done now todo todo todo", "has ended"),
        (hospital("certified", days=9), None, [], None, "done done done now todo todo todo", "ends in 9 days"),
        (hospital("certified", days=9), None, [asked()], None, "done done done now todo todo todo", "renew"),
    ],
)  # fmt: skip
def test_the_steps_and_the_sentence(
    known: Hospital | None,
    invited: InvitationRow | None,
    requests: list[RequestRow],
    heard: Seen | None,
    expected: str,
    says: str,
) -> None:
    assert states(*(step.state for step in journey(known, invited, requests, heard))) == expected
    said = sentence(known, invited, requests, heard, connected=heard is not None, server_runs=True)
    assert says in said


def test_only_what_the_log_shows_has_an_entry() -> None:
    steps = journey(hospital("certified", "data"), invitation(), [asked()], SEEN)
    assert {step.name: step.entry for step in steps if step.entry is not None} == {"approved": 7, "data": 8}


@pytest.mark.parametrize(
    ("known", "heard", "expected"),
    [
        (hospital("certified"), None, "approved"),
        (hospital("certified"), SEEN, "connected"),
        (hospital("certified", "data"), SEEN, "data"),
        (hospital("certified", "data", "evaluated"), None, "evaluated"),
        (hospital("certified", "data", "evaluated", "trained"), None, "training"),
    ],
)
def test_the_last_step_in_one_word(known: Hospital, heard: Seen | None, expected: str) -> None:
    assert reached_word(known, heard) == expected


@pytest.mark.parametrize(
    ("known", "requests", "says"),
    [
        (None, [], "Send your hospital's certificate request"),
        (None, [asked()], "They will call you"),
        (None, [asked(compared=NOON)], "nothing is needed from you now"),
        (hospital("certified"), [asked(state="issued")], "download the reply"),
        (hospital("certified"), [], "Announce"),
        (hospital("certified", days=3, manifest="sha256:1"), [], "send a request to renew"),
        (hospital("certified", standing="suspended"), [], "takes part in nothing"),
        (hospital("certified", manifest="sha256:1"), [], "Nothing is needed from you"),
    ],
)
def test_what_a_contact_is_told(known: Hospital | None, requests: list[RequestRow], says: str) -> None:
    assert says in own_sentence(known, requests)
