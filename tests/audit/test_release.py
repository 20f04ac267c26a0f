"""Release statements, gates, policy and approvals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from audit.canonical import canonical_json, digest_of
from audit.certificates import Identity
from audit.errors import ReleaseError
from audit.release import DEFAULT_POLICY, Approval, Policy, ReleaseStatement, check_approvals

if TYPE_CHECKING:
    from tests.audit.conftest import Story
else:
    Story = object

ADA = Identity("Ada", "Consortium", "consortium_admin", "sha256:" + "1" * 64)
BOB = Identity("Bob", "Hospital A", "privacy_officer", "sha256:" + "2" * 64)
CAROL = Identity("Carol", "Statistics", "release_manager", "sha256:" + "3" * 64)
NOW = datetime(2026, 11, 22, tzinfo=UTC)


def decision(who: Identity, what: str = "approve") -> Approval:
    return Approval(who, what, "reviewed", "because", NOW, 1)


def checked(*approvals: Approval, proposer: Identity = ADA, organisations: int = 1) -> None:
    check_approvals("release 1", approvals, DEFAULT_POLICY.release, proposer=proposer, organisations=organisations)


def test_enough_approvals() -> None:
    checked(decision(BOB), decision(CAROL))
    checked(decision(BOB, "refuse"), decision(CAROL), decision(BOB))
    checked(decision(BOB), decision(CAROL), decision(ADA))
    checked(decision(BOB), decision(CAROL), organisations=2)
    checked(decision(BOB), decision(CAROL), decision(replace(ADA, name="Zoe"), "refuse"))


SAME_ORGANISATION = replace(CAROL, organisation="hospital a")
BAD: list[tuple[str, list[Approval], dict[str, Any], str]] = [
    ("nobody", [], {}, "expected approval by privacy_officer, release_manager, got it from nobody"),
    ("one role missing", [decision(CAROL)], {}, "expected approval by privacy_officer, got it from Carol"),
    ("proposer", [decision(BOB), decision(CAROL)], {"proposer": BOB}, "Bob proposed it and does not count"),
    (
        "proposer under another certificate",
        [decision(BOB), decision(CAROL)],
        {"proposer": replace(BOB, role="consortium_admin", certificate_digest="sha256:" + "9" * 64)},
        "Bob proposed it and does not count",
    ),
    (
        "one person in both roles",
        [decision(BOB), decision(replace(BOB, name="bob", role="release_manager"))],
        {},
        "expected approval by privacy_officer",
    ),
    ("refused", [decision(CAROL), decision(BOB, "refuse")], {}, "refused by Bob .*because"),
    (
        "approved, then refused",
        [decision(BOB), decision(CAROL), decision(BOB, "refuse")],
        {},
        "refused by Bob",
    ),
    (
        "second privacy officer refuses",
        [decision(BOB), decision(CAROL), decision(replace(BOB, name="Dan"), "refuse")],
        {},
        "refused by Dan",
    ),
    (
        "one organisation",
        [decision(BOB), decision(SAME_ORGANISATION)],
        {"organisations": 2},
        "expected approvers of 2 organisations, got 1",
    ),
]


@pytest.mark.parametrize(("name", "approvals", "options", "message"), BAD, ids=[case[0] for case in BAD])
def test_approvals_that_do_not_suffice(
    name: str, approvals: list[Approval], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ReleaseError, match=message):
        checked(*approvals, **options)


def test_two_of_a_role() -> None:
    required = ["privacy_officer", "privacy_officer"]
    dan = replace(BOB, name="Dan")
    check_approvals("plan 1", [decision(BOB), decision(dan)], required, proposer=ADA)
    with pytest.raises(ReleaseError, match="expected approval by privacy_officer"):
        check_approvals("plan 1", [decision(BOB), decision(BOB)], required, proposer=ADA)


def test_policy() -> None:
    stricter = Policy(
        plan=("privacy_officer", "authority"),
        release=("release_manager", "privacy_officer", "authority"),
        organisations=2,
    )
    assert Policy.from_json(stricter.to_json()) == stricter
    stricter.demand_at_least(DEFAULT_POLICY)
    DEFAULT_POLICY.demand_at_least(DEFAULT_POLICY)
    with pytest.raises(ReleaseError, match="a plan must be approved by authority"):
        DEFAULT_POLICY.demand_at_least(stricter)
    with pytest.raises(ReleaseError, match="at least 2 organisations, got 1"):
        Policy().demand_at_least(DEFAULT_POLICY)
    with pytest.raises(ReleaseError, match="a release must be approved by privacy_officer"):
        Policy(release=("release_manager",)).demand_at_least(DEFAULT_POLICY)
    with pytest.raises(ReleaseError, match="at least 2 organisations, got 1"):
        replace(stricter, organisations=1).demand_at_least(stricter)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"plan": [], "release": ["release_manager"], "organisations": 1},
        {"plan": ["client"], "release": ["release_manager"], "organisations": 1},
        {"plan": ["privacy_officer"], "release": ["release_manager"], "organisations": 2},
        {"plan": ["privacy_officer"], "release": ["release_manager"], "organisations": True},
        {"plan": ["privacy_officer"], "release": ["release_manager", "privacy_officer"], "organisations": 1},
        {"plan": "privacy_officer", "release": ["release_manager"], "organisations": 1},
    ],
)
def test_malformed_policies(value: dict[str, Any]) -> None:
    with pytest.raises(ReleaseError):
        Policy.from_json(value)


def statement_of(told: Story) -> ReleaseStatement:
    assert told.statement is not None
    return told.statement


def test_statement_round_trip(told: Story) -> None:
    statement = statement_of(told)
    data = statement.to_bytes()
    assert ReleaseStatement.from_bytes(data) == statement
    assert ReleaseStatement.from_bytes(data).to_bytes() == data
    assert statement.digest == digest_of(data)


SPOILED: list[tuple[str, Callable[[dict[str, Any]], object], str]] = [
    ("another schema", lambda v: v.update(schema="zegel/release/v2"), "zegel/release/v1"),
    ("further field", lambda v: v.update(note=1), "unknown field note"),
    ("field missing", lambda v: v.pop("epsilon"), "missing epsilon"),
    ("no gates", lambda v: v.update(gates=[]), "at least one gate"),
    ("gate twice", lambda v: v.update(gates=v["gates"][:1] * 2), "listed twice"),
    ("gate failed", lambda v: v["gates"][0].update(value=0.1, passed=False), "failed: expected at_least"),
    ("gate says passed", lambda v: v["gates"][0].update(value=0.1), "says passed=True, but"),
    ("comparison unknown", lambda v: v["gates"][0].update(comparison="near"), "at_least or at_most"),
    ("no sites", lambda v: v.update(sites=[]), "at least one contributing site"),
    ("site twice", lambda v: v.update(sites=["a", "a"]), "distinct"),
    ("metrics of a stranger", lambda v: v["metrics"].update(x="sha256:" + "0" * 64), "expected metrics of"),
    ("metrics missing", lambda v: v["metrics"].popitem(), "expected metrics of"),
    ("delta above 1", lambda v: v.update(delta=2), "from 0 to 1"),
    ("policy empty", lambda v: v.update(policy={}), "policy: missing"),
    ("no task", lambda v: v.pop("task"), "missing task"),
    ("predecessor halved", lambda v: v.update(predecessor={"release": "2026.1"}), "missing statement, version"),
    ("a gate nobody can measure", lambda v: v["gates"][0].update(name="beauty"), "not a metric hospitals report"),
    ("document in a folder", lambda v: v["documents"].update({"../x": "sha256:" + "0" * 64}), "document name"),
    ("document without digest", lambda v: v["documents"].update(x="y"), "documents.x"),
    ("time malformed", lambda v: v.update(time="now"), "UTC time"),
]


@pytest.mark.parametrize(("name", "spoil", "message"), SPOILED, ids=[case[0] for case in SPOILED])
def test_malformed_statements(told: Story, name: str, spoil: Callable[[dict[str, Any]], object], message: str) -> None:
    value = statement_of(told).to_json()
    spoil(value)
    with pytest.raises(ReleaseError, match=message):
        ReleaseStatement.from_bytes(canonical_json(value))


def test_not_canonical(told: Story) -> None:
    with pytest.raises(ReleaseError, match="canonical"):
        ReleaseStatement.from_bytes(statement_of(told).to_bytes() + b"\n")
