"""Entries and their schemas; artifacts and durable files."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from audit.artifacts import Artifacts
from audit.canonical import canonical_json, digest_of
from audit.durable_file import write_durably
from audit.entry import KINDS, MAX_ENTRY_SIZE, Entry
from audit.errors import ArtifactError, CanonicalError, EntryError

if TYPE_CHECKING:
    from tests.audit.conftest import Story
else:
    Story = object


def first(story: Story, kind: str) -> Entry:
    return next(entry for entry in story.entries if entry.kind == kind)


def test_entries_round_trip(whole: Story) -> None:
    for entry in whole.entries:
        data = entry.to_bytes()
        assert Entry.from_bytes(data) == entry
        assert Entry.from_bytes(data).to_bytes() == data


def test_the_story_knows_every_kind(whole: Story) -> None:
    assert {entry.kind for entry in whole.entries} == set(KINDS)


def test_every_field_is_needed_and_no_other_is_allowed(whole: Story) -> None:
    for kind in {entry.kind for entry in whole.entries}:
        entry = first(whole, kind)
        for field in entry.body:
            with pytest.raises(EntryError, match=f"{kind}: missing {field}"):
                Entry(kind, entry.time, {k: v for k, v in entry.body.items() if k != field})
            with pytest.raises(EntryError, match=field):
                Entry(kind, entry.time, {**entry.body, field: [{"wrong": 1.5}]})
        with pytest.raises(EntryError, match=f"{kind}: unknown field note"):
            Entry(kind, entry.time, {**entry.body, "note": "x"})


BAD_BODIES: list[tuple[str, str, dict[str, Any], str]] = [
    ("a name for an account", "access.granted", {"account": "Ada Beheer"}, "16 hex digits"),
    ("nobody for an account", "access.granted", {"account": None}, "16 hex digits"),
    ("a name for whoever did it", "access.ended", {"by": "Ada"}, "16 hex digits"),
    ("a reason in words", "access.refused", {"reason": "198.51.100.7"}, "unknown or"),
    ("no refusal at all", "access.refused", {"count": 0}, "integer of at least 1"),
    ("round 0", "round.completed", {"round": 0}, "integer of at least 1"),
    ("round true", "round.completed", {"round": True}, "integer of at least 1"),
    ("the same site twice", "round.completed", {"participants": ["a", "a"]}, "distinct"),
    ("control character", "run.started", {"run_id": "a\nb"}, "printable"),
    ("empty name", "run.started", {"run_id": ""}, "printable"),
    ("epsilon below 0", "run.finished", {"epsilon": -0.1}, "number from 0"),
    ("epsilon as text", "run.finished", {"epsilon": "1"}, "number from 0"),
    ("delta above 1", "run.finished", {"delta": 1.1}, "number from 0 to 1"),
    ("one round bound", "version.created", {"rounds": [1]}, "expected 2 items, got 1"),
    ("upper-case digest", "version.created", {"version": "sha256:" + "A" * 64}, "lowercase"),
    ("not a statement", "site.accepted", {"acceptance": {"statement": {}}}, "expected exactly"),
    ("time without zone", "certificate.issued", {"not_after": "2026-11-22T05:00:00"}, "UTC time"),
]


@pytest.mark.parametrize(("name", "kind", "changes", "message"), BAD_BODIES, ids=[name for name, _, _, _ in BAD_BODIES])
def test_bad_bodies_are_refused(whole: Story, name: str, kind: str, changes: dict[str, Any], message: str) -> None:
    entry = first(whole, kind)
    with pytest.raises(EntryError, match=message):
        Entry(kind, entry.time, {**entry.body, **changes})


BAD_STATEMENTS: list[tuple[str, str, dict[str, Any], str]] = [
    ("another type", "receipt", {"type": "zegel/metrics/v1"}, "expected statement type zegel/receipt/v1"),
    ("round missing", "receipt", {"round": None}, "integer of at least 1"),
    ("small count", "data-manifest", {"admissions": 9}, "integer of at least 10"),
    (
        "subject of another kind",
        "approval",
        {"subject": {"kind": "site", "digest": ""}},
        "plan or release or withdrawal",
    ),
    ("proposal of a withdrawal", "proposal", {"subject": {"kind": "withdrawal", "digest": ""}}, "plan or release"),
    ("gate without threshold", "gates", {"gates": [{"name": "epsilon", "comparison": "at_most"}]}, "threshold"),
    ("undecided", "approval", {"decision": "perhaps"}, "approve or refuse"),
    ("meaning empty", "approval", {"meaning": ""}, "printable"),
    ("value not a number", "metrics", {"values": {"f1": {"value": "1", "lower": 0, "upper": 1}}}, "number"),
    ("interval missing", "metrics", {"values": {"f1": {"value": 1}}}, "missing lower, upper"),
    ("no cohort", "metrics", {"cohort": None}, "expected a value"),
]


@pytest.mark.parametrize(
    ("name", "kind", "changes", "message"), BAD_STATEMENTS, ids=[name for name, _, _, _ in BAD_STATEMENTS]
)
def test_bad_statements_are_refused(story: Story, name: str, kind: str, changes: dict[str, Any], message: str) -> None:
    story.hooks[f"signed {kind}"] = lambda fields: fields.update(changes)
    with pytest.raises(EntryError, match=message):
        story.tell()


def test_a_refusal_may_be_of_no_run_or_of_one(whole: Story) -> None:
    entry = first(whole, "site.refused")
    again = Entry("site.refused", entry.time, {**entry.body, "run_id": "run-1"})
    assert Entry.from_bytes(again.to_bytes()) == again


RARE_BODIES: list[tuple[str, str, dict[str, Any], str]] = [
    ("unknown status", "certificate.status", {"status": "lost"}, "suspended or reinstated or revoked"),
    ("predecessor is no name", "release.proposed", {"predecessor": ""}, "printable"),
    ("approval twice", "release.withdrawn", {"approvals": ["sha256:" + "0" * 64] * 2}, "distinct"),
    ("signed by nobody", "withdrawal.proposed", {"withdrawal": None}, "expected exactly"),
]


@pytest.mark.parametrize(
    ("name", "kind", "changes", "message"), RARE_BODIES, ids=[name for name, _, _, _ in RARE_BODIES]
)
def test_bad_bodies_of_rarer_kinds(whole: Story, name: str, kind: str, changes: dict[str, Any], message: str) -> None:
    entry = first(whole, kind)
    with pytest.raises(EntryError, match=message):
        Entry(kind, entry.time, {**entry.body, **changes})


SPOILED: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
    ("another schema", lambda v: {**v, "schema": "zegel/entry/v2"}),
    ("unknown kind", lambda v: {**v, "kind": "gossip"}),
    ("kind not text", lambda v: {**v, "kind": 1}),
    ("body not an object", lambda v: {**v, "body": []}),
    ("further field", lambda v: {**v, "note": 1}),
    ("time missing", lambda v: {k: x for k, x in v.items() if k != "time"}),
    ("time malformed", lambda v: {**v, "time": "yesterday"}),
    ("a list", lambda v: [v]),
]


@pytest.mark.parametrize(("name", "spoil"), SPOILED, ids=[name for name, _ in SPOILED])
def test_malformed_bytes_are_refused(told: Story, name: str, spoil: Callable[[dict[str, Any]], Any]) -> None:
    entry = first(told, "run.started")
    value = {
        "schema": "zegel/entry/v1",
        "kind": entry.kind,
        "time": "2026-11-22T05:00:00Z",
        "body": entry.body,
    }
    Entry.from_bytes(canonical_json(value))
    with pytest.raises(EntryError):
        Entry.from_bytes(canonical_json(spoil(value)))


def test_size_limit(told: Story) -> None:
    entry = first(told, "round.completed")
    base = {"run_id": "r", "round": 1, "reason": "", "participants": [], "dropped": []}
    empty = len(Entry("round.aborted", entry.time, base).to_bytes())
    fits = Entry("round.aborted", entry.time, {**base, "reason": "x" * (MAX_ENTRY_SIZE - empty)})
    assert len(fits.to_bytes()) == MAX_ENTRY_SIZE
    large = Entry("round.aborted", entry.time, {**base, "reason": "x" * (MAX_ENTRY_SIZE - empty + 1)})
    with pytest.raises(EntryError, match="at most 65535 bytes, got 65536"):
        large.to_bytes()
    with pytest.raises(EntryError, match="at most 65535 bytes"):
        Entry.from_bytes(b"x" * (MAX_ENTRY_SIZE + 1))


def test_time_is_utc_with_whole_seconds(told: Story) -> None:
    body = first(told, "run.started").body
    zone = timezone(timedelta(hours=2))
    entry = Entry("run.started", datetime(2026, 11, 22, 7, 0, 0, 123, tzinfo=zone), body)
    assert entry.time.isoformat() == "2026-11-22T05:00:00+00:00"
    with pytest.raises(EntryError, match="no time zone"):
        Entry("run.started", entry.time.replace(tzinfo=None), body)


def test_the_body_is_a_copy(told: Story) -> None:
    body: dict[str, Any] = dict(first(told, "run.started").body)
    entry = Entry("run.started", told.now, body)
    body["run_id"] = "changed"
    assert entry.body["run_id"] == told.run_id


def test_artifacts(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path / "artifacts")
    digest = artifacts.put(b"weights")
    assert digest == digest_of(b"weights")
    assert artifacts.get(digest) == b"weights"
    assert digest in artifacts
    assert artifacts.put(b"weights") == digest
    assert list(artifacts.digests()) == [digest]
    missing = digest_of(b"other")
    assert missing not in artifacts
    with pytest.raises(ArtifactError, match="is not in"):
        artifacts.get(missing)
    artifacts.path(digest).write_bytes(b"weightz")
    with pytest.raises(ArtifactError, match="has changed on disk"):
        artifacts.get(digest)
    artifacts.put(b"weights")
    assert artifacts.get(digest) == b"weights"
    for bad in ("../log.db", "sha256:../../log.db", "", digest.upper()):
        with pytest.raises(CanonicalError):
            artifacts.get(bad)


def test_durable_files_are_old_or_new(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_durably(path, b"one")
    write_durably(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    with pytest.raises(TypeError):
        write_durably(path, "text")  # type: ignore[arg-type]
    assert path.read_bytes() == b"two"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    with pytest.raises(FileNotFoundError):
        write_durably(tmp_path / "missing" / "file", b"x")
