"""Lineage as rows: what the log's keeper is told about versions, rounds, hospitals, metrics and releases."""

from __future__ import annotations

from dataclasses import replace

import pytest

from audit.entry import Entry
from audit.errors import LogError
from audit.lineage import (
    Participant,
    ancestry,
    metrics_of,
    release,
    releases,
    releases_of_version,
    rounds_of,
    run,
    version,
    versions,
    versions_of_release,
)
from audit.lineage_rows import TABLES, rows_of
from audit.statement import SignedStatement
from tests.audit.conftest import EVALUATOR, SITES, Story
from tests.audit.log_places import Place, opened


def entry_of(story: Story, kind: str) -> Entry:
    return next(entry for entry in reversed(story.entries) if entry.kind == kind)


def test_from_a_release_to_its_receipts(place: Place, told: Story) -> None:
    with opened(place) as log:
        log.append(told.entries)
        (found,) = releases(log)
        assert (found.state, found.version) == ("certified", told.version)
        assert [state for _, state in found.history] == ["candidate", "certified"]
        assert release(log, found.release) == found
        assert releases_of_version(log, told.version) == (found,)
        assert releases_of_version(log, told.initial_version) == ()

        made = version(log, found.version)
        assert versions(log) == ancestry(log, made.version) == versions_of_release(log, found.release) == (made,)
        assert (made.run_id, made.first_round, made.last_round) == (told.run_id, 1, 3)
        assert made.parents == (told.initial_version,)
        assert log.entry(made.entry).body["version"] == made.version

        rounds = rounds_of(log, made.version)
        logged = [entry.body for entry in told.entries if entry.kind == "round.completed"]
        assert [each.round for each in rounds] == [1, 2, 3]
        for each, body in zip(rounds, logged, strict=True):
            assert (each.state, each.version_in, each.version_out) == (
                "completed",
                body["version_in"],
                body["version_out"],
            )
            receipts = {r["statement"]["site"]: SignedStatement.from_json(r).digest for r in body["receipts"]}
            expected = [Participant(site, "took part", receipts[site]) for site in body["participants"]]
            expected += [Participant(site, "dropped", None) for site in body["dropped"]]
            assert list(each.participants) == expected

        done = run(log, told.run_id)
        finished = entry_of(told, "run.finished").body
        assert (done.state, done.initial_version, done.version) == ("finished", told.initial_version, told.version)
        assert (done.epsilon, done.delta, done.rounds) == (finished["epsilon"], finished["delta"], 3)
        assert done.sites == dict.fromkeys(SITES, "accepted")

        metrics = metrics_of(log, made.version)
        assert {metric.site for metric in metrics} == {*SITES, EVALUATOR}
        for metric in metrics:
            cell = log.entry(metric.entry).body["metrics"]["statement"]["values"][metric.name]
            assert (metric.value, metric.lower, metric.upper) == (cell["value"], cell["lower"], cell["upper"])
            assert not metric.suppressed


def test_what_the_log_does_not_know(place: Place, told: Story) -> None:
    with opened(place) as log:
        log.append(told.entries)
        with pytest.raises(LogError, match=f"knows no version {told.initial_version}"):
            version(log, told.initial_version)
        with pytest.raises(LogError, match="knows no run elsewhere"):
            run(log, "elsewhere")
        with pytest.raises(LogError, match="knows no release 1999"):
            release(log, "1999")
        assert metrics_of(log, told.initial_version) == ()


def test_a_run_on_its_way(place: Place, told: Story) -> None:
    started = next(i for i, entry in enumerate(told.entries) if entry.kind == "run.started")
    with opened(place) as log:
        log.append(told.entries[: started + 2])  # one hospital has answered
        found = run(log, told.run_id)
        assert (found.state, found.version, found.rounds, found.epsilon) == ("started", None, None, None)
        assert found.sites == {SITES[0]: "accepted", SITES[1]: "asked", SITES[2]: "asked"}
        story = Story(told.keys)
        refusal = story.sign("refusal", SITES[1], plan_hash=found.plan_hash, site=SITES[1], code="budget", reason="")
        story.add("site.refused", run_id=told.run_id, refusal=refusal)
        log.append(story.entries)
        assert run(log, told.run_id).sites == {SITES[0]: "accepted", SITES[1]: "refused", SITES[2]: "asked"}


def test_parents_are_followed_and_each_is_told_once(place: Place, told: Story) -> None:
    """A version of two parents that share one, and one that (wrongly) names itself: no end, no repetition."""
    first = entry_of(told, "version.created")
    names = ["sha256:" + letter * 64 for letter in "abcd"]
    parents = {names[0]: [], names[1]: [names[0]], names[2]: [names[0], names[2]], names[3]: [names[1], names[2]]}
    with opened(place) as log:
        log.append([replace(first, body={**first.body, "version": v, "parents": p}) for v, p in parents.items()])
        assert [each.version for each in ancestry(log, names[3])] == [names[3], names[1], names[2], names[0]]
        assert [each.parents for each in versions(log)] == [tuple(each) for each in parents.values()]


def test_a_later_report_takes_the_place_of_an_earlier_one(place: Place, told: Story) -> None:
    story = Story(told.keys)

    def report(values: dict[str, dict[str, float | None]]) -> None:
        statement = story.sign(
            "metrics", SITES[0], run_id=told.run_id, version=told.version, site=SITES[0],
            cohort={"kind": "evaluation"}, values=values, mechanism={}, ledger_head=told.version,
        )  # fmt: skip
        story.add("metrics.reported", version=told.version, site=SITES[0], metrics=statement)

    report({"hit@1": {"value": 0.5, "lower": 0.4, "upper": 0.6}, "hit@3": {"value": 1, "lower": None, "upper": None}})
    report({"hit@1": {"value": 0.7, "lower": 0.6, "upper": 0.8}, "true/IX": dict.fromkeys(("value", "lower", "upper"))})
    with opened(place) as log:
        log.append(story.entries)
        found = {metric.name: metric for metric in metrics_of(log, told.version)}
        assert set(found) == {"hit@1", "true/IX"}
        assert (found["hit@1"].value, found["hit@1"].entry) == (0.7, 1)
        assert found["true/IX"].suppressed
        assert found["true/IX"].value is None
        assert log.check().lineage["lineage_metric"] == 4


def test_aborted_rounds_and_receipts_nobody_accounts_for(place: Place, told: Story) -> None:
    completed = entry_of(told, "round.completed")
    # The schema leaves both to the trace, which refuses them: rows there must be all the same.
    body = {**completed.body, "participants": [SITES[0]], "dropped": [SITES[1]]}
    doubled = {**completed.body, "receipts": [*completed.body["receipts"], completed.body["receipts"][0]]}
    story = Story(told.keys)
    story.add("round.aborted", run_id=told.run_id, round=1, reason="a\0b", participants=[SITES[0]], dropped=[SITES[0]])
    with opened(place) as log:
        log.append([replace(completed, body=body), replace(completed, body=doubled), *story.entries])
        log.check()
        with log.rows() as connection:
            rows = connection.execute(TABLES["lineage_participant"].select().order_by("entry", "position")).all()
    parts = [(row.entry, row.site, row.part, row.receipt is not None) for row in rows]
    assert parts == [
        (0, SITES[0], "took part", True),
        (0, SITES[1], "dropped", False),
        (0, SITES[1], "receipt only", True),
        (0, SITES[2], "receipt only", True),
        (1, SITES[0], "took part", True),
        (1, SITES[1], "took part", True),
        (1, SITES[2], "took part", True),
        (1, SITES[0], "receipt only", True),
        (2, SITES[0], "took part", False),
        (2, SITES[0], "dropped", False),
    ]


def test_rows_fit_their_tables(told: Story) -> None:
    filled: set[str] = set()
    for index, entry in enumerate(told.entries):
        for name, added in rows_of(index, entry).items():
            filled.add(name)
            for row in added:
                assert len(row) == len(TABLES[name].columns)
                assert row[0] == index
    assert filled == set(TABLES)
    assert rows_of(0, entry_of(told, "certificate.issued")) == {}
