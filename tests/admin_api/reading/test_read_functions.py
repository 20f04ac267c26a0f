"""What pages read is what the log says: compared with the functions that read all of it, and with the entries."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from admin_api.errors import BadCursor, NotKnown
from admin_api.holders import holdings
from admin_api.planning import decisions as all_decisions
from admin_api.reading import (
    certificates,
    hospitals,
    logbook,
    plans,
    privacy,
    releases,
    reports,
    runs,
    search,
    versions,
)
from admin_api.reading.room import ReadingRoom
from admin_api.reading.slices import Slice
from admin_api.recording import read_evidence
from admin_api.web.database import Database
from audit import lineage
from audit.canonical import parse_json
from audit.disclosure_store import Disclosures
from audit.entry import VALUE_ERASED, Entry
from audit.release_state import standings
from audit.wording import entry_words
from jobs.home import ConsortiumHome
from tests.admin_api.reading.conftest import empty_home, told_in
from tests.admin_api.reading.test_following import contents
from tests.audit.conftest import EVALUATOR, SITES, START, TASK, Story, pseudonym

NOW = START + timedelta(days=3)
ADA, BOB, CAROL = map(pseudonym, ("Ada", "Bob", "Carol"))


def everything(listed: Callable[..., Slice[Any]], **options: Any) -> list[Any]:
    """A list to its end, one item at a time."""
    found: list[Any] = []
    after = None
    while True:
        piece = listed(limit=1, after=after, **options)
        found += piece.items
        after = piece.after
        if after is None:
            assert piece.total in (None, len(found))
            return found


def test_certificates_are_as_the_holders_list_has_them(room: ReadingRoom, home: ConsortiumHome) -> None:
    expected = {each.digest: each for each in holdings(home) if each.role not in ("root", "log")}
    found = certificates.listed(room, now=home.clock())
    assert {each.digest for each in found.items} == set(expected)
    for each in found.items:
        wanted = expected[each.digest]
        got = (each.name, each.organisation, each.role, each.not_after, each.days, each.state, each.last)
        assert got == (
            wanted.name,
            wanted.organisation,
            wanted.role,
            wanted.ends,
            wanted.days,
            wanted.state,
            wanted.last,
        )
    assert everything(lambda **o: certificates.listed(room, now=NOW, **o)) == list(
        certificates.listed(room, now=NOW).items
    )


def test_certificates_at_other_times(room: ReadingRoom) -> None:
    later, earlier = START + timedelta(days=361), START - timedelta(days=1)
    assert {each.state for each in certificates.listed(room, now=later).items} == {"expired"}
    assert {each.state for each in certificates.listed(room, now=earlier).items} == {"not yet valid"}
    soon = START + timedelta(days=340)
    assert {each.holder for each in certificates.ending(room, now=soon)} == {*SITES, EVALUATOR, ADA, BOB, CAROL}
    assert certificates.ending(room, now=NOW) == ()
    for state in certificates.STATES:
        for now in (NOW, later, earlier):
            filtered = certificates.listed(room, now=now, state=state)
            assert filtered.items == tuple(e for e in certificates.listed(room, now=now).items if e.state == state)


def test_a_change_of_status_tells_who_and_why(room: ReadingRoom) -> None:
    (changed,) = certificates.of_holder(room, EVALUATOR, now=NOW)
    assert (changed.state, changed.status_by) == ("good", ADA)
    assert room.log.entry(changed.status_entry or 0).body["status"] == "reinstated"


def test_keys_lead_to_certificates(room: ReadingRoom) -> None:
    (ada,) = certificates.of_holder(room, ADA, now=NOW)
    assert certificates.by_key(room, ada.key, now=NOW) == ada
    assert certificates.one(room, ada.digest, now=NOW) == ada
    assert certificates.keys(room, [ada.key, "sha256:" + "0" * 64], now=NOW) == {ada.key: ada}


def test_people(room: ReadingRoom, whole: Story) -> None:
    people = {each.person: each for each in certificates.people(room, now=NOW).items}
    assert {person: each.name for person, each in people.items()} == {ADA: "Ada", BOB: "Bob", CAROL: "Carol"}
    assert people[BOB].roles == ("privacy_officer",)
    approvals = [e.body["approval"]["statement"] for e in whole.entries if e.kind == "approval"]
    assert people[BOB].decisions == sum(each["name"] == BOB for each in approvals)
    assert certificates.person(room, BOB, now=NOW) == people[BOB]
    assert [each.person for each in certificates.people(room, now=NOW, role="release_manager").items] == [CAROL]
    mentions = logbook.entries(room, person=BOB).items
    assert people[BOB].last_entry == mentions[0].index


def test_hospitals(room: ReadingRoom, whole: Story) -> None:
    found = {each.name: each for each in hospitals.listed(room, now=NOW).items}
    assert sorted(found) == [*SITES, EVALUATOR]
    first = found["hospital-a"]
    kinds = [(step.word, whole.entries[step.entry].kind) for step in first.journey]
    assert kinds == [
        ("certified", "certificate.issued"),
        ("data", "site.manifest"),
        ("evaluated", "metrics.reported"),
        ("trained", "round.completed"),
    ]
    assert found[EVALUATOR].reached == "evaluated"
    receipts = Counter(
        receipt["statement"]["site"]
        for entry in whole.entries
        if entry.kind == "round.completed"
        for receipt in entry.body["receipts"]
    )
    assert {name: each.receipts for name, each in found.items() if each.receipts} == dict(receipts)
    assert first.patients is None
    assert (first.admissions, first.period_first, first.standing) == (1200, "2025-01-01", "good")
    assert (first.asked, first.accepted, first.refused) == (2, 1, 1)  # a round of another run missed it
    assert hospitals.one(room, "hospital-a", now=NOW) == first
    assert hospitals.counts(room, now=NOW) == {
        "all": 4, "certified": 0, "data": 0, "evaluated": 1, "trained": 3, "good": 4, "ends soon": 0, "expired": 0,
        "not yet valid": 0, "suspended": 0, "revoked": 0,
    }  # fmt: skip


@pytest.mark.parametrize("sort", ["name", "days", "last", "trained", "evaluated", "patients", "receipts", "spent"])
def test_hospitals_in_every_order_and_in_pieces(room: ReadingRoom, sort: str) -> None:
    up = everything(lambda **o: hospitals.listed(room, now=NOW, sort=sort, **o))
    down = everything(lambda **o: hospitals.listed(room, now=NOW, sort=sort, descending=True, **o))
    assert len(up) == 4
    assert down == up[::-1]

    def value(each: hospitals.Hospital) -> Any:
        steps = {step.word: step.entry for step in each.journey}
        given = {"last": each.last_entry, "patients": -1 if each.patients is None else each.patients}
        return steps.get(sort, -1) if sort in ("trained", "evaluated") else given.get(sort, getattr(each, sort, None))

    assert [value(each) for each in up] == sorted(value(each) for each in up)


def test_hospitals_by_state_search_and_for_one_of_them(room: ReadingRoom) -> None:
    def names(**options: Any) -> list[str]:
        return [each.name for each in hospitals.listed(room, now=NOW, **options).items]

    assert names(state="evaluated") == [EVALUATOR]
    assert names(state="good") == [*SITES, EVALUATOR]
    assert names(state="revoked") == []
    assert names(search="TAL-B") == ["hospital-b"]
    assert names(search="%") == []
    assert names(only="hospital-c") == ["hospital-c"]


def test_what_a_hospital_said_and_did(room: ReadingRoom, whole: Story) -> None:
    (manifest,) = hospitals.manifests(room, "hospital-a").items
    assert whole.entries[manifest.entry].body["site"] == "hospital-a"
    later, part = hospitals.parts(room, "hospital-a").items
    assert (later.run, later.state, later.dropped) == ("run-1", "asked", 1)
    assert (part.run, part.state, part.reserved) == (whole.run_id, "accepted", 2.0)
    (report,) = hospitals.reports(room, "hospital-a").items
    assert report == reports.of_version(room, whole.version)[0]


def test_plans(room: ReadingRoom, home: ConsortiumHome, whole: Story) -> None:
    (plan,) = plans.listed(room).items
    told = parse_json(whole.plan, "plan")
    assert isinstance(told, dict)
    assert (plan.title, plan.epsilon, plan.rounds) == (told["name"], told["epsilon"], told["rounds"])
    assert (plan.sites, plan.state, plan.proposer, plan.proposer_name) == (SITES, "carried out", ADA, "Ada")
    one = plans.one(room, plan.plan_hash)
    assert one.runs == (whole.run_id,)
    assert plans.label_space(room, plan.plan_hash) == ("I10", "J18")
    expected = all_decisions(home, "plan", plan.plan_hash)
    fields = ("person", "name", "reason", "organisation", "role", "decision")
    assert [tuple(getattr(each, field) for field in fields) for each in one.decisions] == [
        tuple(each[field] for field in fields) for each in expected
    ]
    assert plans.listed(room, task=TASK, state="carried out", only="hospital-d").items == (plan,)
    assert plans.listed(room, state="proposed").items == plans.listed(room, only="nobody").items == ()


def test_runs_and_rounds_are_as_the_lineage_has_them(room: ReadingRoom, whole: Story) -> None:
    (run,) = runs.listed(room).items
    wanted = lineage.run(room.log, whole.run_id)
    assert (run.run, run.state, run.epsilon, run.version) == (
        wanted.run_id,
        wanted.state,
        wanted.epsilon,
        wanted.version,
    )
    assert {part.site: part.state for part in runs.parts(room, run.run)} == dict(wanted.sites)
    found = runs.rounds(room, run.run)
    expected = lineage.rounds_of(room.log, whole.version)
    assert [(each.entry, each.number) for each in found] == [(each.entry, each.round) for each in expected]
    for got, each in zip(found, expected, strict=True):
        assert got.took_part == tuple(part.site for part in each.participants if part.part == "took part")
        assert got.dropped == tuple(part.site for part in each.participants if part.part == "dropped")
    assert (run.completed, run.dropouts) == (len(expected), sum(len(each.dropped) for each in found))
    assert runs.rounds(room, run.run, first=2, limit=1) == found[1:2]
    assert runs.one(room, run.run) == run == runs.of_version(room, whole.version)
    assert runs.listed(room, state="finished", plan=run.plan_hash, only="hospital-a").items == (run,)
    assert runs.listed(room, only=EVALUATOR).items == runs.listed(room, state="started").items == ()


def test_versions_and_reports(room: ReadingRoom, whole: Story) -> None:
    (version,) = versions.listed(room, task=TASK).items
    wanted = lineage.version(room.log, whole.version)
    assert (version.version, version.entry, version.parents) == (wanted.version, wanted.entry, wanted.parents)
    assert (version.epsilon, version.reports, [each.release for each in version.releases]) == (1.5, 4, ["2027.1"])
    assert versions.one(room, whole.version) == version
    assert versions.listed(room, only=EVALUATOR).items == (version,)
    full = reports.of_version(room, whole.version, full=True)
    assert {each.site: each.cells["micro_f1"].value for each in full} == {
        metric.site: metric.value for metric in lineage.metrics_of(room.log, whole.version)
    }
    assert reports.one(room, whole.version, EVALUATOR) == full[-1]
    (point,) = versions.series(room, TASK)
    assert [each.site for each in point.reports] == [*SITES, EVALUATOR]
    (of_one,) = versions.series(room, TASK, site="hospital-b")
    assert [each.site for each in of_one.reports] == ["hospital-b"]


def test_several_at_once_are_as_each_by_itself(room: ReadingRoom, whole: Story) -> None:
    (run,) = runs.listed(room).items
    (plan,) = plans.listed(room).items
    (release,) = releases.listed(room).items
    none = "sha256:" + "0" * 64
    assert runs.several(room, [run.run, "run-nothing"]) == {run.run: run}
    assert runs.parts_of_several(room, [run.run]) == {run.run: runs.parts(room, run.run)}
    assert plans.several(room, [plan.plan_hash, none]) == {plan.plan_hash: plan}
    decided = plans.decisions_about_several(room, "release", [release.statement, none])
    assert decided == {release.statement: plans.decisions(room, "release", release.statement)}
    assert releases.of_versions(room, [whole.version, none]) == {whole.version: (release,)}
    assert versions.ancestry(room, whole.version) == versions.listed(room).items


def test_releases_are_as_their_moves_have_them(told_room: ReadingRoom) -> None:
    room = told_room
    expected = standings(read_evidence(room.home))
    found = releases.listed(room).items
    assert {each.release for each in found} == set(expected)
    for each in found:
        wanted = expected[each.release]
        got = (each.state, each.state_entry, each.task, each.version, each.statement, each.predecessor)
        assert got == (wanted.state, wanted.since, wanted.task, wanted.version, wanted.statement, wanted.predecessor)
        assert (each.proposer, each.certified_entry) == (wanted.proposer.name, wanted.certified_index)
        if wanted.withdrawal is not None:
            assert each.withdrawal == wanted.withdrawal.digest
            assert (each.withdrawal_by, each.withdrawal_by_name) == (wanted.withdrawal.proposer.name, "Carol")
            assert each.withdrawal_reason == "codes the dead as living"
        assert releases.statement(room, each).release == each.release
    assert releases.certified(room, TASK) is None
    assert releases.tasks(room) == (TASK,)
    assert releases.listed(room, state="withdrawn", search="27.").items == found
    assert releases.of_version(room, found[0].version) == found
    words = [(each.event, each.name) for each in releases.history(room, "2027.1")]
    assert words == [
        ("candidate", "Ada"),
        ("approved", "Bob"),
        ("approved", "Carol"),
        ("certified", ""),
        ("withdrawal proposed", "Carol"),
        ("withdrawal approved", "Bob"),
        ("withdrawn", ""),
    ]


@pytest.fixture
def told_room(whole: Story, tmp_path: Path) -> Iterator[ReadingRoom]:
    """After a release was certified and withdrawn, and nothing else happened that the rules do not allow."""
    story = Story(whole.keys).tell()
    story.withdraw()
    home = empty_home(tmp_path / "told", story.keys, story.clock)
    told_in(home, story)
    database = Database(f"sqlite:///{tmp_path / 'told.db'}")
    room = ReadingRoom(database.engine, home)
    room.catch_up()
    yield room
    room.close()
    database.close()


def test_gates_audits_and_witnesses(room: ReadingRoom, whole: Story) -> None:
    gates = releases.gate_set_in_force(room, TASK)
    assert gates is not None
    assert (gates.digest, gates.by, gates.by_name) == (whole.gate_set, CAROL, "Carol")
    assert [rule.name for rule in gates.rules] == [gate.name for gate in whole.gates]
    assert (gates.policy, gates.reason) == (whole.policy, "as every year")
    assert releases.gate_sets(room, TASK).items == (gates,)
    assert releases.gate_set_in_force(room, TASK, before=gates.entry) is None
    (audit,) = releases.audits(room).items
    assert (audit.passed, audit.quick, audit.claim, audit.by_name) == (True, False, 1.5, "Bob")
    (witness,) = logbook.witnesses(room)
    assert witness.name == "witness.hospital-a"


def test_privacy_adds_up_what_was_stated(room: ReadingRoom, whole: Story) -> None:
    (cohort,) = privacy.of_hospital(room, "hospital-a")
    assert (cohort.cohort, cohort.spent, cohort.reserved, cohort.budget) == ("training", 1.5, 0.0, None)
    points = privacy.points(room, "hospital-a").items
    assert [(each.event, each.epsilon, each.spent, each.reserved) for each in points] == [
        ("spent", 1.5, 1.5, 0.0),
        ("reserved", 2.0, 0.0, 2.0),
    ]
    assert {each.site for each in privacy.listed(room)} == set(SITES)


def test_every_entry_in_words(room: ReadingRoom, home: ConsortiumHome, whole: Story) -> None:
    said = home.disclosures().disclosed(list(enumerate(whole.entries)))
    lines = everything(lambda **o: logbook.entries(room, **o))
    assert [line.index for line in lines] == list(reversed(range(len(whole.entries))))
    for line in lines:
        assert line.words == entry_words(whole.entries[line.index], said)
        one = logbook.entry(room, line.index)
        assert (one.words, one.body, one.data) == (
            line.words,
            whole.entries[line.index].body,
            whole.entries[line.index].to_bytes(),
        )
    assert logbook.counts(room) == Counter(entry.kind for entry in whole.entries)


def mentioning(whole: Story, name: str) -> list[int]:
    """The entries in which a name stands as a value, newest first."""

    def within(value: object) -> bool:
        if isinstance(value, dict):
            return any(map(within, value.values()))
        return any(map(within, value)) if isinstance(value, list) else value == name

    return [index for index, entry in reversed(list(enumerate(whole.entries))) if within(entry.body)]


@pytest.mark.parametrize("site", SITES)
def test_entries_about_a_hospital(room: ReadingRoom, whole: Story, site: str) -> None:
    in_plan = next(index for index, entry in enumerate(whole.entries) if entry.kind == "plan.proposed")
    expected = sorted({*mentioning(whole, site), in_plan}, reverse=True)
    enrolled = [i for i, e in enumerate(whole.entries) if e.kind == "witness.enrolled"]  # by certificate only
    expected = sorted({*expected, *(enrolled if site == "hospital-a" else [])}, reverse=True)
    found = everything(lambda **o: logbook.entries(room, site=site, **o))
    # The hospitals a release lists stand in its statement, not in its entries.
    assert [line.index for line in found] == expected
    for kind in sorted({line.kind for line in found}):
        filtered = everything(partial(logbook.entries, room, site=site, kind=kind))
        assert filtered == [line for line in found if line.kind == kind]


def test_entries_about_other_things(room: ReadingRoom, whole: Story) -> None:
    run = everything(lambda **o: logbook.entries(room, run=whole.run_id, **o))
    assert [line.index for line in run] == mentioning(whole, whole.run_id)
    release = everything(lambda **o: logbook.entries(room, release="2027.1", **o))
    assert {line.index for line in release} >= set(mentioning(whole, "2027.1"))
    both = logbook.entries(room, run=whole.run_id, only="hospital-a").items
    assert both == tuple(line for line in run if line in logbook.entries(room, site="hospital-a").items)
    assert logbook.entries(room, site="nobody").items == logbook.entries(room, kind="of.the.future").items == ()


def test_news(room: ReadingRoom, whole: Story) -> None:
    news = logbook.since(room, 10)
    assert (news.size, news.total) == (len(whole.entries), len(whole.entries) - 10)
    assert news.counts == Counter(entry.kind for entry in whole.entries[10:])
    frequent = {"round.completed", "round.aborted", "site.accepted", "metrics.reported"}
    frequent |= {"access.granted", "access.refused", "access.ended"}
    expected = [i for i in range(len(whole.entries) - 1, 9, -1) if whole.entries[i].kind not in frequent]
    assert [line.index for line in news.notable] == expected
    own = logbook.since(room, 10, only="hospital-b")
    assert {line.index for line in own.notable} <= set(expected)
    assert own.counts["round.completed"] == len(logbook.entries(room, site="hospital-b", kind="round.completed").items)
    nothing = logbook.since(room, room.size + 5)
    assert (nothing.total, nothing.counts, nothing.notable) == (0, {}, ())


SEARCHES = {
    "a hospital by part of its name": ("tal-B", ("hospital", "hospital-b")),
    "a release": ("2027", ("release", "2027.1")),
    "a run": ("run-2026", ("run", "run-20261122T050000Z-abcdef")),
    "a person by name": ("aDa", ("person", ADA)),
    "a person by id": (ADA[:12], ("person", ADA)),
    "a code": ("i1", ("code", "I10")),
    "an entry": ("7", ("entry", "7")),
}


@pytest.mark.parametrize("text, wanted", SEARCHES.values(), ids=SEARCHES.keys())
def test_search(room: ReadingRoom, text: str, wanted: tuple[str, str]) -> None:
    found = search.search(room, f" {text} ")
    assert wanted in [(hit.kind, hit.name) for hit in found], found


def test_search_by_digest(room: ReadingRoom, whole: Story) -> None:
    (plan,) = plans.listed(room).items
    (certificate,) = certificates.of_holder(room, ADA, now=NOW)
    for kind, digest in (("version", whole.version), ("plan", plan.plan_hash), ("certificate", certificate.digest)):
        for text in (digest, digest.removeprefix("sha256:")[:12], digest[:20].upper().replace("SHA", "sha")):
            assert [(hit.kind, hit.name) for hit in search.search(room, text)] == [(kind, digest)]


def test_search_finds_nothing_and_not_others_affairs(room: ReadingRoom) -> None:
    for text in ("", " ", "%", "_", "nobody", "\U0010ffff", "x" * 300, "9" * 30):
        assert search.search(room, text) == ()
    found = search.search(room, "hospital", only="hospital-b")
    assert [(hit.kind, hit.name) for hit in found] == [("hospital", "hospital-b")]
    assert search.search(room, "ada", only="hospital-b") == search.search(room, "8", only="hospital-b") == ()


def test_releases_that_can_give_a_code(room: ReadingRoom) -> None:
    assert [each.release for each in releases.with_code(room, "i10").items] == ["2027.1"]
    assert releases.with_code(room, "Z99").items == ()


UNKNOWN: dict[str, Callable[[ReadingRoom], object]] = {
    "hospital": lambda room: hospitals.one(room, "nobody", now=NOW),
    "certificate": lambda room: certificates.one(room, "sha256:" + "0" * 64, now=NOW),
    "key": lambda room: certificates.by_key(room, "sha256:" + "0" * 64, now=NOW),
    "person": lambda room: certificates.person(room, "person-0000000000000000", now=NOW),
    "plan": lambda room: plans.one(room, "sha256:" + "0" * 64),
    "label space": lambda room: plans.label_space(room, "sha256:" + "0" * 64),
    "run": lambda room: runs.one(room, "run-nothing"),
    "version": lambda room: versions.one(room, "sha256:" + "0" * 64),
    "ancestry": lambda room: versions.ancestry(room, "sha256:" + "0" * 64),
    "run of a version": lambda room: runs.of_version(room, "sha256:" + "0" * 64),
    "report": lambda room: reports.one(room, "sha256:" + "0" * 64, "hospital-a"),
    "release": lambda room: releases.one(room, "1999.1"),
    "entry": lambda room: logbook.entry(room, room.size),
    "entry before the first": lambda room: logbook.entry(room, -1),
}


@pytest.mark.parametrize("read", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_what_is_not_there(room: ReadingRoom, read: Callable[[ReadingRoom], object]) -> None:
    with pytest.raises(NotKnown):
        read(room)


CURSORS = [
    "",
    "x",
    "e30",
    "WzFd",
    "W10",
    "bnVsbA",
    "WyJhIiwgImIiLCAiYyJd",
    "W251bGwsICJhIl0",
    "W3RydWUsICJhIl0",
    "é",
    "a" * 300,
]


@pytest.mark.parametrize("after", CURSORS)
def test_a_cursor_that_no_list_gave(room: ReadingRoom, after: str) -> None:
    lists: tuple[Callable[..., Slice[Any]], ...] = (
        lambda **o: hospitals.listed(room, now=NOW, **o),
        lambda **o: privacy.points(room, "hospital-a", **o),
        lambda **o: logbook.entries(room, **o),
    )
    for each in lists:
        with pytest.raises(BadCursor):
            each(after=after)
    with pytest.raises(BadCursor):
        hospitals.listed(room, now=NOW, sort="name", after=hospitals.listed(room, now=NOW, sort="last", limit=1).after)


@pytest.mark.parametrize("limit", [0, 201, -1])
def test_pieces_have_a_size(room: ReadingRoom, limit: int) -> None:
    with pytest.raises(BadCursor, match="200"):
        hospitals.listed(room, now=NOW, limit=limit)
    with pytest.raises(BadCursor, match="200"):
        logbook.entries(room, limit=limit)


def test_names_and_reasons_are_nowhere_in_the_tables(room: ReadingRoom, whole: Story) -> None:
    kept = json.dumps(contents(room), default=str)
    for said in (*whole.keys.names.values(), *whole.reasons):
        assert f'"{said.value}"' not in kept
        assert said.commitment in kept or said.value in ("asked for it", "another task")


def test_an_erased_name_is_gone_at_the_next_request(own_room: ReadingRoom, home: ConsortiumHome, whole: Story) -> None:
    room = own_room
    assert room.names()[ADA] == "Ada"
    commitment = whole.keys.names[ADA].commitment
    erasure = next(entry for entry in whole.entries if entry.kind == VALUE_ERASED)
    with home.log() as log:
        log.append([Entry(VALUE_ERASED, whole.now, {**erasure.body, "commitment": commitment})])
    room.follow()
    assert ADA not in room.names()  # the entry alone suffices: the file goes afterwards
    Disclosures(home.path / "disclosures").erase(commitment)
    assert room.disclosed([commitment]).value(commitment) == "[erased]"
    person = certificates.person(room, ADA, now=NOW)
    assert (person.name, person.erased) == (ADA, True)
    assert "Ada" not in " ".join(line.words for line in logbook.entries(room, limit=200).items)


def test_a_name_that_is_lost_is_withheld(own_room: ReadingRoom, home: ConsortiumHome, whole: Story) -> None:
    assert own_room.names()[BOB] == "Bob"
    assert home.disclosures().erase(whole.keys.names[BOB].commitment)
    assert BOB not in own_room.names()


def test_the_moment_matters(room: ReadingRoom) -> None:
    end: datetime = START + timedelta(days=360)
    assert hospitals.one(room, "hospital-a", now=end - timedelta(days=29)).standing == "ends soon"
    assert hospitals.one(room, "hospital-a", now=end - timedelta(days=31)).standing == "good"
    assert hospitals.one(room, "hospital-a", now=end + timedelta(days=1)).standing == "expired"
