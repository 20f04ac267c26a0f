"""Releases over a log in which anybody may append anything: no certified release without its quorum, ever.

The machine plays a consortium whose people append what they like, and a log's keeper who cheats. Entries go in as an
honest writer admits them (`audit.certification`), or past it. Beside the log it keeps a plain model of what each
release deserves, written without any code under test. After every step the three must agree: the model, the replay of
states, and the trace that the verifier makes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from audit.canonical import canonical_json, digest_of
from audit.certification import admit, certifying_entries, withdrawing_entry
from audit.entry import Entry
from audit.errors import AuditError, ReleaseError, TraceError
from audit.evidence import Evidence
from audit.release import Predecessor, ReleaseStatement
from audit.release_state import (
    CANDIDATE,
    CERTIFIED,
    SUPERSEDED,
    TRANSITIONS,
    WITHDRAWN,
    certified_of,
    standings,
)
from audit.trace import trace_release
from tests.audit.conftest import TASK, Story, make_keys, pseudonym

if TYPE_CHECKING:
    from tests.audit.conftest import Keys
else:
    Keys = object

PEOPLE = {  # name: organisation, role
    "Ada": ("Consortium", "consortium_admin"),
    "Bob": ("Hospital A", "privacy_officer"),
    "Carol": ("Statistics", "release_manager"),
    "Dan": ("Hospital A", "release_manager"),
    "Eve": ("Statistics", "privacy_officer"),
    "Aud": ("Authority", "authority"),
}
BESIDES_CAROL = f"expected approval by somebody besides {pseudonym('Carol')}"
WITHDRAWERS = {"Bob", "Carol", "Dan", "Eve", "Aud"}
MANAGERS = {"Carol", "Dan"}
names = st.sampled_from(sorted(PEOPLE))
officers, managers = st.sampled_from(["Bob", "Eve"]), st.sampled_from(["Carol", "Dan"])
proposers = st.sampled_from(["Ada", "Carol", "Dan", "Bob"])
refusing = st.sampled_from([None, "Eve", "Dan", "Aud"])
places = st.integers(0, 11)
STATUSES = ["suspended", "reinstated", "reinstated", "revoked"]
FORGED = ["superseded", "withdrawn", "certified again", "proposed again"]


@dataclass
class Candidate:
    """What the model knows of a release."""

    statement: ReleaseStatement
    proposer: str
    predecessor: str | None
    state: str = CANDIDATE
    decisions: dict[str, str] = field(default_factory=dict)  # the last one of each person
    withdrawal: tuple[str, str] | None = None  # digest, proposer
    agreed: set[str] = field(default_factory=set)

    def has_quorum(self) -> bool:
        """A privacy officer and a release manager of two organisations, the proposer apart, nobody refusing."""
        deciding = {
            who: decision
            for who, decision in self.decisions.items()
            if who != self.proposer and PEOPLE[who][1] in ("privacy_officer", "release_manager")
        }
        approving = {who for who, what in deciding.items() if what == "approve"}
        return (
            "refuse" not in deciding.values()
            and {PEOPLE[who][1] for who in approving} == {"privacy_officer", "release_manager"}
            and len({PEOPLE[who][0] for who in approving}) >= 2
        )


_KEYS: list[Keys] = []
_AFTER_RUN: list[Story] = []


def after_run() -> Story:
    """A story up to a finished run with its metrics; made once, it needs the hospitals' slow keys."""
    if not _AFTER_RUN:
        keys = make_keys()
        for name in ("Dan", "Eve", "Aud"):
            keys.holders[name] = keys.person(name, *PEOPLE[name])
        story = Story(keys, rounds=1)
        story.found()
        story.run()
        story.report()
        _AFTER_RUN.append(story)
    story = copy(_AFTER_RUN[0])
    story.entries = list(story.entries)
    story.artifacts = dict(story.artifacts)
    return story


class Releases(RuleBasedStateMachine):
    """People propose, decide, certify, withdraw and revoke in any order, honestly and not."""

    @initialize(attempts=st.lists(st.tuples(proposers, officers, managers, refusing), min_size=1, max_size=4))
    def found(self, attempts: list[tuple[str, str, str, str | None]]) -> None:
        """Chance alone seldom leads far, so every game begins with some releases that people try to get through."""
        self.story = after_run()
        self.model: dict[str, Candidate] = {}
        self.barred: set[str] = set()  # suspended or revoked
        self.revoked: set[str] = set()
        for attempt in attempts:
            self.go_all_the_way(*attempt)

    # -- what people do

    @rule(who=names)
    def propose(self, who: str) -> None:
        name = f"2027.{len(self.model) + 1}"
        certified = self.certified()
        predecessor = None
        if certified is not None:
            old = self.model[certified].statement
            predecessor = Predecessor(certified, old.digest, old.version)
        statement = replace(
            self.story.draft(name), predecessor=predecessor, proposer=self.story.keys.holders[who].digest
        )
        entry = self.proposed(name, statement, certified, who)
        allowed = who not in self.barred and PEOPLE[who][1] in ("consortium_admin", "release_manager")
        if self.admitted([entry], allowed):
            self.story.store(statement.to_bytes())
            self.model[name] = Candidate(statement, who, certified)

    @precondition(lambda self: self.model)
    @rule(who=names, decision=st.sampled_from(["approve", "approve", "approve", "refuse"]), which=places)
    def decide(self, who: str, decision: str, which: int) -> None:
        self.decide_about(self.pick(self.model, which), who, decision)

    @precondition(lambda self: self.candidates())
    @rule(which=places, officer=officers, manager=managers)
    def reach_a_quorum(self, which: int, officer: str, manager: str) -> None:
        self.approve_both(self.pick(self.candidates(), which), officer, manager)

    @rule(who=proposers, officer=officers, manager=managers, refusing=refusing)
    def go_all_the_way(self, who: str, officer: str, manager: str, refusing: str | None) -> None:
        """A release from proposal to certification, with nothing in between but perhaps a refusal."""
        known = set(self.model)
        self.propose(who)
        for name in set(self.model) - known:
            self.approve_both(name, officer, manager)
            if refusing is not None:
                self.decide_about(name, refusing, "refuse")
            self.certify_release(name)

    @precondition(lambda self: self.model)
    @rule(which=places)
    def certify(self, which: int) -> None:
        self.certify_release(self.pick(self.model, which))

    @precondition(lambda self: self.model)
    @rule(who=names, which=places)
    def propose_withdrawal(self, who: str, which: int) -> None:
        self.propose_to_withdraw(self.pick(self.model, which), who)

    @precondition(lambda self: any(each.withdrawal for each in self.model.values()))
    @rule(who=names, which=places)
    def agree_to_withdraw(self, who: str, which: int) -> None:
        self.agree(self.pick([n for n, each in self.model.items() if each.withdrawal], which), who)

    @precondition(lambda self: self.model)
    @rule(which=places)
    def withdraw(self, which: int) -> None:
        self.carry_out_withdrawal(self.pick(self.model, which))

    @precondition(lambda self: any(each.state in (CERTIFIED, SUPERSEDED) for each in self.model.values()))
    @rule(who=names, other=names, which=places)
    def withdraw_all_the_way(self, who: str, other: str, which: int) -> None:
        used = [name for name, each in self.model.items() if each.state in (CERTIFIED, SUPERSEDED)]
        name = self.pick(used, which)
        self.propose_to_withdraw(name, who)
        if self.model[name].withdrawal is not None:
            self.agree(name, other)
            self.carry_out_withdrawal(name)

    @rule(
        who=st.sampled_from(["Ada", *sorted(WITHDRAWERS)]),
        by=st.sampled_from(["Ada", "Ada", "Bob", "Carol"]),
        status=st.sampled_from(["suspended", "suspended", "reinstated", "reinstated", "revoked"]),
    )
    def change_status(self, who: str, by: str, status: str) -> None:
        entry = self.made(lambda: self.story.change_status(who, status, by=by))
        possible = {
            "suspended": who not in self.barred,
            "reinstated": who in self.barred and who not in self.revoked,
            "revoked": who not in self.revoked,
        }[status]
        if self.admitted([entry], possible and by == "Ada" and by not in self.barred):
            self.barred = self.barred - {who} if status == "reinstated" else self.barred | {who}
            if status == "revoked":
                self.revoked.add(who)

    # -- what a cheating keeper of the log does: past every check of the writers, so the readers must notice

    @precondition(lambda self: self.model)
    @rule(which=places, supersede=st.booleans())
    def forge_a_certification(self, which: int, supersede: bool) -> None:
        name = self.pick(self.model, which)
        release = self.model[name]
        before = self.certified()
        body = {
            "release": name,
            "statement": release.statement.digest,
            "version": release.statement.version,
            "approvals": [],
        }
        forged = [Entry("release.certified", self.later(), body)]
        if supersede and before is not None:
            retired = {"release": before, "by": name, "supersession": None}
            forged.append(Entry("release.superseded", self.later(), retired))
        # Without anybody's list of approvals it is good only if everything else would have been.
        complete = supersede or before is None
        deserved = release.state == CANDIDATE and release.has_quorum() and self.replaces(release) and complete
        assert self.verifies(self.evidence([*self.story.entries, *forged]), release) == deserved

    @precondition(lambda self: any(each.state == CERTIFIED for each in self.model.values()))
    @rule(which=places, kind=st.sampled_from(FORGED))
    def forge_a_move(self, which: int, kind: str) -> None:
        name = self.pick([n for n, each in self.model.items() if each.state == CERTIFIED], which)
        release = self.model[name]
        digest = release.statement.digest
        moves: dict[str, tuple[str, dict[str, Any]]] = {
            "superseded": ("release.superseded", {"release": name, "by": name, "supersession": None}),
            "withdrawn": (
                "release.withdrawn",
                {"release": name, "statement": digest, "withdrawal": digest, "approvals": []},
            ),
            "certified again": (
                "release.certified",
                {"release": name, "statement": digest, "version": release.statement.version, "approvals": []},
            ),
            "proposed again": ("release.proposed", dict(self.first("release.proposed", name))),
        }
        forged = Entry(moves[kind][0], self.later(), moves[kind][1])
        with pytest.raises(AuditError):
            standings(self.evidence([*self.story.entries, forged]))

    # -- what must hold after every step

    @invariant()
    def states_agree(self) -> None:
        found = standings(self.evidence())
        assert {name: each.state for name, each in found.items()} == {n: each.state for n, each in self.model.items()}

    @invariant()
    def certified_means_quorum(self) -> None:
        evidence = self.evidence()
        for name, release in self.model.items():
            verified = self.verifies(evidence, release)
            assert verified == (release.state != CANDIDATE), name
            if verified:
                assert release.has_quorum()

    @invariant()
    def one_release_is_current(self) -> None:
        assert sum(each.state == CERTIFIED for each in self.model.values()) <= 1

    # -- means

    def pick(self, names: Collection[str], which: int) -> str:
        return sorted(names)[which % len(names)]

    def decide_about(self, name: str, who: str, decision: str) -> None:
        release = self.model[name]
        entry = self.made(lambda: self.story.approve("release", release.statement.digest, who, decision))
        if self.admitted([entry], who not in self.barred and release.state == CANDIDATE):
            release.decisions[who] = decision

    def approve_both(self, name: str, officer: str, manager: str) -> None:
        for who in (officer, manager):
            self.decide_about(name, who, "approve")

    def certify_release(self, name: str) -> None:
        release = self.model[name]
        deserved = release.state == CANDIDATE and release.has_quorum() and self.replaces(release)
        before = self.certified()
        try:
            entries = certifying_entries(
                self.evidence(), release.statement.to_bytes(), self.story.artifacts, at=self.later()
            )
        except (ReleaseError, TraceError):
            assert not deserved
            return
        assert deserved
        self.story.entries += entries
        release.state = CERTIFIED
        if before is not None:
            self.model[before].state = SUPERSEDED

    def propose_to_withdraw(self, name: str, who: str) -> None:
        release = self.model[name]
        digests: list[str] = []

        def write() -> None:
            fields = {"release": name, "digest": release.statement.digest, "reason": digest_of(b"harm")}
            signed = self.story.sign("withdrawal", who, **fields)
            digests.append(digest_of(canonical_json(signed)))
            self.story.add("withdrawal.proposed", release=name, withdrawal=signed)

        allowed = who not in self.barred and who in WITHDRAWERS and release.state in (CERTIFIED, SUPERSEDED)
        if self.admitted([self.made(write)], allowed):
            release.withdrawal, release.agreed = (digests[0], who), set()

    def agree(self, name: str, who: str) -> None:
        release = self.model[name]
        assert release.withdrawal is not None
        digest = release.withdrawal[0]
        entry = self.made(lambda: self.story.approve("withdrawal", digest, who))
        if self.admitted([entry], who not in self.barred):
            release.agreed.add(who)

    def carry_out_withdrawal(self, name: str) -> None:
        release = self.model[name]
        try:
            entry = withdrawing_entry(self.evidence(), name, at=self.later())
        except (ReleaseError, TraceError):
            assert not self.may_withdraw(release)
            return
        assert self.may_withdraw(release)
        self.story.entries.append(entry)
        release.state = WITHDRAWN

    def candidates(self) -> list[str]:
        return [name for name, each in self.model.items() if each.state == CANDIDATE]

    def certified(self) -> str | None:
        return next((name for name, each in self.model.items() if each.state == CERTIFIED), None)

    def replaces(self, release: Candidate) -> bool:
        """Whether the candidate was compared with what is certified now, if anything is."""
        return self.certified() in (None, release.predecessor)

    def may_withdraw(self, release: Candidate) -> bool:
        if release.withdrawal is None or release.state not in (CERTIFIED, SUPERSEDED):
            return False
        proposer = release.withdrawal[1]
        agreeing = (release.agreed & WITHDRAWERS) - {proposer}
        return bool(agreeing) and bool(({proposer} | agreeing) & MANAGERS)

    def evidence(self, entries: list[Entry] | None = None) -> Evidence:
        return Evidence(enumerate(self.story.entries if entries is None else entries), self.story.keys.root)

    def verifies(self, evidence: Evidence, release: Candidate) -> bool:
        try:
            trace_release(evidence, release.statement.to_bytes(), self.story.artifacts)
        except AuditError:
            return False
        return True

    def later(self) -> Any:
        self.story.now += timedelta(seconds=10)
        return self.story.now

    def made(self, write: Callable[[], None]) -> Entry:
        """What `write` appends, taken back out."""
        write()
        return self.story.entries.pop()

    def admitted(self, entries: list[Entry], expected: bool) -> bool:
        """Appends what an honest writer would append, and holds that to the model."""
        try:
            admit(self.evidence(), entries)
        except AuditError:
            assert not expected
            return False
        assert expected
        self.story.entries += entries
        return True

    def first(self, kind: str, release: str) -> dict[str, Any]:
        return dict(next(e.body for e in self.story.entries if e.kind == kind and e.body["release"] == release))

    def proposed(self, name: str, statement: ReleaseStatement, predecessor: str | None, who: str) -> Entry:
        body = {
            "release": name,
            "task": TASK,
            "statement": statement.digest,
            "version": statement.version,
            "predecessor": predecessor,
            "proposal": self.story.proposal("release", statement.digest, who),
        }
        return Entry("release.proposed", self.later(), body)


Releases.TestCase.settings = settings(
    max_examples=15,
    stateful_step_count=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestReleases = Releases.TestCase


def any_move(machine: Releases, dice: random.Random) -> None:
    """One move of the machine, each kind as likely as it is telling; nothing when it is not possible now."""
    who, other = dice.choice(sorted(PEOPLE)), dice.choice(sorted(PEOPLE))
    officer, manager = dice.choice(["Bob", "Eve"]), dice.choice(["Carol", "Dan"])
    which, releases = dice.randrange(12), machine.model
    moves: list[tuple[int, bool, Callable[[], object]]] = [
        (2, True, lambda: machine.propose(dice.choice(["Ada", "Carol", "Dan", who]))),
        (
            4,
            True,
            lambda: machine.go_all_the_way(
                dice.choice(["Ada", "Carol", "Dan"]), officer, manager, dice.choice([None, None, "Eve", "Dan", "Bob"])
            ),
        ),
        (4, bool(releases), lambda: machine.decide(who, dice.choice(["approve", "approve", "refuse"]), which)),
        (3, bool(machine.candidates()), lambda: machine.reach_a_quorum(which, officer, manager)),
        (4, bool(releases), lambda: machine.certify(which)),
        (1, bool(releases), lambda: machine.propose_withdrawal(who, which)),
        (2, any(each.withdrawal for each in releases.values()), lambda: machine.agree_to_withdraw(who, which)),
        (2, bool(releases), lambda: machine.withdraw(which)),
        (
            3,
            any(each.state in (CERTIFIED, SUPERSEDED) for each in releases.values()),
            lambda: machine.withdraw_all_the_way(who, other, which),
        ),
        (3, True, lambda: machine.change_status(who, dice.choice(["Ada", "Ada", other]), dice.choice(STATUSES))),
        (2, bool(releases), lambda: machine.forge_a_certification(which, dice.random() < 0.5)),
        (1, machine.certified() is not None, lambda: machine.forge_a_move(which, dice.choice(FORGED))),
    ]
    weights = [weight * possible for weight, possible, _ in moves]
    dice.choices([move for _, _, move in moves], weights)[0]()


@pytest.mark.parametrize("game", range(12))
def test_games_of_chance(game: int) -> None:
    """Hypothesis looks for the shortest counterexample and stays near the simple; these games go far instead."""
    dice = random.Random(game)  # noqa: S311
    machine = Releases()
    machine.found([])
    for _ in range(18):
        any_move(machine, dice)
        machine.states_agree()
        machine.certified_means_quorum()
        machine.one_release_is_current()


# -- the same moves one by one, each named


@pytest.fixture
def log() -> Story:
    """A finished run; entries of releases go on top, whatever anybody would say to them."""
    return after_run()


def proposed(log: Story, name: str, *, predecessor: str | None = None, task: str = TASK, who: str = "Ada") -> str:
    """An entry that proposes a release; returns its statement's digest. The states do not look into statements."""
    digest = digest_of(name.encode())
    log.add(
        "release.proposed",
        release=name,
        task=task,
        statement=digest,
        version=log.version,
        predecessor=predecessor,
        proposal=log.proposal("release", digest, who),
    )
    return digest


def certified(log: Story, name: str, *, retires: str | None = None) -> None:
    log.add("release.certified", release=name, statement=digest_of(name.encode()), version=log.version, approvals=[])
    if retires is not None:
        log.add("release.superseded", release=retires, by=name, supersession=None)


def withdrawal(log: Story, name: str, who: str, **changes: Any) -> str:
    fields = {"release": name, "digest": digest_of(name.encode()), "reason": digest_of(b"harm"), **changes}
    signed = log.sign("withdrawal", who, **fields)
    log.add("withdrawal.proposed", release=name, withdrawal=signed)
    return digest_of(canonical_json(signed))


def withdrawn(log: Story, name: str, digest: str, *approvers: str) -> None:
    approvals = sorted(log.keys.holders[who].digest for who in approvers)
    body = {"release": name, "statement": digest_of(name.encode()), "withdrawal": digest, "approvals": approvals}
    log.add("release.withdrawn", **body)


def states(log: Story) -> dict[str, str]:
    return {name: each.state for name, each in standings(log.evidence()).items()}


def test_a_release_is_retired_by_its_successor(log: Story) -> None:
    proposed(log, "1")
    certified(log, "1")
    proposed(log, "2", predecessor="1")
    assert states(log) == {"1": CERTIFIED, "2": CANDIDATE}
    certified(log, "2", retires="1")
    assert states(log) == {"1": SUPERSEDED, "2": CERTIFIED}
    found = standings(log.evidence())
    assert found["1"].superseded_by == "2"
    assert certified_of(found, TASK) == found["2"]
    assert certified_of(found, "another task") is None


@pytest.mark.parametrize(
    ("state", "proposer", "approver"),
    [(CERTIFIED, "Carol", "Bob"), (CERTIFIED, "Bob", "Dan"), (SUPERSEDED, "Aud", "Carol"), (CERTIFIED, "Dan", "Carol")],
)
def test_two_people_withdraw(log: Story, state: str, proposer: str, approver: str) -> None:
    proposed(log, "1")
    certified(log, "1")
    if state == SUPERSEDED:
        proposed(log, "2", predecessor="1")
        certified(log, "2", retires="1")
    digest = withdrawal(log, "1", proposer)
    assert states(log)["1"] == state
    log.approve("withdrawal", digest, "Eve", "refuse")  # does not stop it
    log.approve("withdrawal", digest, approver)
    withdrawn(log, "1", digest, approver)
    found = standings(log.evidence())["1"]
    assert found.state == WITHDRAWN
    assert found.withdrawal is not None
    assert [each.name for each in found.withdrawal.approvers] == [pseudonym(approver)]


def test_after_a_withdrawal_a_candidate_takes_the_empty_place(log: Story) -> None:
    proposed(log, "1")
    certified(log, "1")
    proposed(log, "2", predecessor="1")
    digest = withdrawal(log, "1", "Carol")
    log.approve("withdrawal", digest, "Bob")
    withdrawn(log, "1", digest, "Bob")
    certified(log, "2")
    assert states(log) == {"1": WITHDRAWN, "2": CERTIFIED}


def test_releases_of_two_tasks_do_not_retire_each_other(log: Story) -> None:
    proposed(log, "1")
    certified(log, "1")
    proposed(log, "other", task="case_patterns")
    certified(log, "other")
    assert states(log) == {"1": CERTIFIED, "other": CERTIFIED}
    signed = log.sign("supersession", "Carol", release="1", by="other", reason=digest_of(b"does both"))
    log.add("release.superseded", release="1", by="other", supersession=signed)
    assert states(log) == {"1": SUPERSEDED, "other": CERTIFIED}


def first_certified(log: Story) -> None:
    proposed(log, "1")
    certified(log, "1")


def second(log: Story) -> None:
    first_certified(log)
    proposed(log, "2", predecessor="1")


def raced(log: Story) -> None:
    first_certified(log)
    proposed(log, "2", predecessor="1")
    proposed(log, "3", predecessor="1")
    certified(log, "2", retires="1")
    certified(log, "3", retires="2")


def gap(log: Story) -> None:
    second(log)
    certified(log, "2")
    proposed(log, "3", predecessor="2")
    log.add("release.superseded", release="1", by="2", supersession=None)


def alone(log: Story, *approvers: str, proposer: str = "Carol") -> None:
    first_certified(log)
    digest = withdrawal(log, "1", proposer)
    for who in approvers:
        log.approve("withdrawal", digest, who)
    withdrawn(log, "1", digest, *approvers)


def signed_by(log: Story, who: str, **changes: Any) -> None:
    first_certified(log)
    proposed(log, "other", task="case_patterns")
    certified(log, "other")
    fields = {"release": "1", "by": "other", "reason": digest_of(b"does both"), **changes}
    log.add("release.superseded", release="1", by="other", supersession=log.sign("supersession", who, **fields))


Step = Callable[[Story], object]


def steps(*each: Step) -> Step:
    """Several entries in order."""

    def forge(log: Story) -> None:
        for step in each:
            step(log)

    return forge


ILLEGAL: list[tuple[str, Callable[[Story], object], str]] = [
    (
        "a name twice",
        steps(lambda log: proposed(log, "1"), lambda log: proposed(log, "1")),
        "release 1 was proposed already",
    ),
    ("proposed by an officer", lambda log: proposed(log, "1", who="Bob"), "expected role consortium_admin or release"),
    (
        "a predecessor that is none",
        lambda log: proposed(log, "1", predecessor="0"),
        "expected None, got 0",
    ),
    (
        "the predecessor kept quiet",
        steps(first_certified, lambda log: proposed(log, "2")),
        "predecessor: expected 1, got None",
    ),
    ("certified, never proposed", lambda log: certified(log, "1"), "release 1 was never proposed"),
    ("certified twice", steps(first_certified, lambda log: certified(log, "1")), "is certified and cannot become cert"),
    ("two certified", steps(second, lambda log: certified(log, "2")), "expected release.superseded: 1 by 2, just"),
    ("an entry in between", gap, "expected release.superseded: 1 by 2, just certified"),
    ("compared with an older one", raced, "release 3 was compared with 1, but 2 is certified now; propose it anew"),
    (
        "another one retired",
        steps(second, lambda log: proposed(log, "3", predecessor="1"), lambda log: certified(log, "2", retires="3")),
        "release, by: expected",
    ),
    (
        "superseded by nobody's word",
        steps(second, lambda log: log.add("release.superseded", release="1", by="2", supersession=None)),
        "nobody signed that 2 supersedes 1",
    ),
    ("superseded by an officer's word", lambda log: signed_by(log, "Bob"), "expected role release_manager, got priv"),
    ("another supersession signed", lambda log: signed_by(log, "Carol", by="2"), "by: expected other, got 2"),
    (
        "a candidate withdrawn",
        steps(lambda log: proposed(log, "1"), lambda log: withdrawal(log, "1", "Carol")),
        "is candidate and cannot become withdrawn",
    ),
    ("withdrawn by one", alone, BESIDES_CAROL),
    (
        "withdrawn by one twice",
        lambda log: alone(log, "Carol"),
        BESIDES_CAROL,
    ),
    (
        "withdrawn by an admin",
        lambda log: alone(log, "Ada"),
        BESIDES_CAROL,
    ),
    (
        "withdrawn without a release manager",
        lambda log: alone(log, "Bob", proposer="Aud"),
        "expected a release_manager among proposer and approvers",
    ),
    ("proposed by an admin", lambda log: alone(log, "Carol", proposer="Ada"), "got consortium_admin"),
    (
        "withdrawal of another statement",
        steps(first_certified, lambda log: withdrawal(log, "1", "Carol", digest=digest_of(b"x"))),
        "digest: expected",
    ),
    (
        "withdrawn by another proposal",
        steps(
            first_certified, lambda log: withdrawal(log, "1", "Carol"), lambda log: withdrawn(log, "1", digest_of(b"x"))
        ),
        "which is not the last proposal",
    ),
    (
        "back from withdrawn",
        steps(lambda log: alone(log, "Bob"), lambda log: certified(log, "1")),
        "is withdrawn and cannot become certified",
    ),
    (
        "withdrawn twice",
        steps(lambda log: alone(log, "Bob"), lambda log: withdrawal(log, "1", "Carol")),
        "is withdrawn and cannot become withdrawn",
    ),
]


@pytest.mark.parametrize(("name", "forge", "message"), ILLEGAL, ids=[case[0] for case in ILLEGAL])
def test_moves_that_do_not_exist(log: Story, name: str, forge: Callable[[Story], object], message: str) -> None:
    forge(log)
    with pytest.raises((ReleaseError, TraceError), match=message):
        states(log)


def test_every_arrow_is_tested_above() -> None:
    assert {
        CANDIDATE: {CERTIFIED},
        CERTIFIED: {SUPERSEDED, WITHDRAWN},
        SUPERSEDED: {WITHDRAWN},
        WITHDRAWN: set(),
    } == TRANSITIONS
