"""Approvals and releases over a log that a real run filled: quorum, gates, dossier."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from admin_api.errors import AdminError, ApprovalError, ReleaseRefused
from admin_api.gate_setting import parse_gate, set_gates
from admin_api.planning import decide, decisions, propose, two_digits
from admin_api.releasing import certify, load_statement, propose_release
from admin_api.running import check_approved, start_run
from audit.archive import unpack
from audit.entry import RELEASE_CERTIFIED, RELEASE_PROPOSED
from audit.errors import AuditError, DossierError
from audit.gates import AT_LEAST, AT_MOST, GateRule
from audit.release import DEFAULT_POLICY, Policy, ReleaseStatement
from audit.verify import verify_dossier
from jobs.errors import FederationError, PlanError
from jobs.federation import session
from jobs.home import ConsortiumHome
from tests.admin_api.conftest import AfterRun, judged_by
from tests.admin_api.consortium_folder import (
    RUN,
    TRAINERS,
    agree_on_gates,
    copied,
    opened,
    plan_of,
    refused,
    snapshot,
    zegel,
)

RELEASE = "2027.1"
UNKNOWN = "sha256:" + "0" * 64


def candidate(after: AfterRun, *, proposer: str = "admin", release: str = RELEASE) -> ReleaseStatement:
    return propose_release(
        after.home, run_id=RUN, release=release, proposer=opened(after.home, after.people / proposer)
    )


def vote(after: AfterRun, who: str, *, approve: bool = True, release: str = RELEASE) -> None:
    digest = load_statement(after.home, release).digest
    person = opened(after.home, after.people / who)
    decide(after.home, "release", digest, person, approve=approve, reason="because of the gates")


def certified(home: ConsortiumHome) -> int:
    with home.log() as log:
        return len(list(log.entries(kind=RELEASE_CERTIFIED)))


@pytest.fixture(scope="module")
def dossier(ran: AfterRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """A certified release's dossier and the root it verifies under."""
    home = copied(ran.home.path, tmp_path_factory.mktemp("certified") / "consortium")
    after = AfterRun(home, ran.people, ran.sites, ran.plan_hash)
    candidate(after)
    vote(after, "officer")
    vote(after, "manager")
    return certify(home, RELEASE), (home.ca / "rootCA.pem").read_bytes()


# -- plans


def test_an_unknown_plan_is_told(ran: AfterRun) -> None:
    officer = opened(ran.home, ran.people / "officer")
    for digest in (UNKNOWN, "first plan", ""):
        with pytest.raises(PlanError, match=rf"no plan {digest} was proposed; `zegel plan list`"):
            decide(ran.home, "plan", digest, officer, approve=True, reason="")
        assert "was proposed" in refused("plan", "show", digest, "--home", ran.home.path)


def test_a_plan_is_proposed_once(after_run: AfterRun) -> None:
    before = snapshot(after_run.home.path)
    with pytest.raises(AdminError, match="was proposed already; `zegel plan list` shows its decisions"):
        propose(after_run.home, plan_of(), opened(after_run.home, after_run.people / "admin"))
    assert snapshot(after_run.home.path) == before
    check_approved(after_run.home, after_run.plan_hash)  # a second entry would have made this impossible


def test_a_plan_needs_an_officer(after_run: AfterRun) -> None:
    home = after_run.home
    plan_hash = propose(home, plan_of(name="second"), opened(home, after_run.people / "admin"))
    with pytest.raises(ApprovalError, match=r"expected approval by privacy_officer, got it from nobody\. Nothing was"):
        check_approved(home, plan_hash)
    officer = opened(home, after_run.people / "officer")
    decide(home, "plan", plan_hash, officer, approve=True, reason="fits")
    check_approved(home, plan_hash)
    decide(home, "plan", plan_hash, officer, approve=False, reason="read it again")
    with pytest.raises(ApprovalError, match=r"refused by person-\w+ \(privacy_officer, .*\): sha256:"):
        check_approved(home, plan_hash)
    assert [item["decision"] for item in decisions(home, "plan", plan_hash)] == ["approve", "refuse"]


def test_a_run_that_cannot_start_leaves_no_folder(after_run: AfterRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "LOGIN_TIMEOUT_S", 0.5)
    home = after_run.home
    admin = opened(home, after_run.people / "admin")
    unapproved = propose(home, plan_of(name="second"), admin)
    unannounced = propose(home, plan_of(name="third", sites=(*TRAINERS, "zwin")), admin)
    decide(home, "plan", unannounced, opened(home, after_run.people / "officer"), approve=True, reason="fits")
    before = snapshot(home.path / "runs")
    with pytest.raises(ApprovalError, match="expected approval by privacy_officer"):
        start_run(home, unapproved, timeout_s=0)
    with pytest.raises(ApprovalError, match="no data manifest of zwin is logged: they make one with `zegel site man"):
        start_run(home, unannounced, timeout_s=0)
    with pytest.raises(PlanError):
        start_run(home, UNKNOWN, timeout_s=0)
    with pytest.raises(FederationError, match="the server does not answer"):
        start_run(home, after_run.plan_hash, timeout_s=0)  # no server runs
    assert snapshot(home.path / "runs") == before


@pytest.mark.parametrize(
    ("number", "rounded"), [(0, 0), (9, 9), (99, 99), (101, 100), (4690, 4700), (96, 96), (999, 1000), (123456, 120000)]
)
def test_two_digits(number: int, rounded: int) -> None:
    assert two_digits(number) == rounded


# -- gates


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("epsilon<=8", ("epsilon", AT_MOST, 8.0)),
        (" hit@1@every-site >= 0.4 ", ("hit@1@every-site", AT_LEAST, 0.4)),
        ("coverage@amstel>=1e-2", ("coverage@amstel", AT_LEAST, 0.01)),
        ("gap:hit@1<=-1", ("gap:hit@1", AT_MOST, -1.0)),
    ],
)
def test_gates_are_read(text: str, parsed: tuple[str, str, float]) -> None:
    assert parse_gate(text) == GateRule(*parsed)


@pytest.mark.parametrize(
    "text",
    ["", "epsilon", "epsilon<8", "epsilon==8", "<=8", "epsilon<=", "epsilon<=eight", "a<=1<=2", "epsilon<=1.2.3"],
)
def test_what_is_no_gate_is_told(text: str) -> None:
    with pytest.raises(ReleaseRefused, match="expected name>=number or name<=number, such as"):
        parse_gate(text)


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        ((), "a release needs at least one gate"),
        (("hit@1@nowhere>=0",), "'nowhere' is no hospital of this consortium"),
        (("hit@1>=0.4",), "write hit@1@every-site for the worst of all"),
        (("beauty>=0",), "'beauty': not a metric hospitals report"),
        (("epsilon>=9",), "expected comparison at_most"),
        (("epsilon<=1e999",), "number"),
        (("epsilon<=90", "epsilon<=91"), "a gate is listed twice"),
    ],
)
def test_gates_that_could_never_be_measured_are_not_set(
    after_run: AfterRun, gates: tuple[str, ...], message: str
) -> None:
    before = snapshot(after_run.home.path)
    manager = opened(after_run.home, after_run.people / "manager")
    with pytest.raises(ReleaseRefused, match=message):
        set_gates(after_run.home, task="icd_coding", gates=gates, policy=DEFAULT_POLICY, reason="", person=manager)
    assert snapshot(after_run.home.path) == before


def test_only_a_release_manager_sets_gates(after_run: AfterRun) -> None:
    for who in ("admin", "officer"):
        with pytest.raises(ApprovalError, match="it needs the role release_manager"):
            set_gates(
                after_run.home,
                task="icd_coding",
                gates=["epsilon<=8"],
                policy=DEFAULT_POLICY,
                reason="",
                person=opened(after_run.home, after_run.people / who),
            )


def test_a_policy_below_the_least_is_not_set(after_run: AfterRun) -> None:
    with pytest.raises(ReleaseRefused, match="expected approvers of at least 2 organisations, got 1"):
        set_gates(
            after_run.home,
            task="icd_coding",
            gates=["epsilon<=8"],
            policy=Policy(),
            reason="",
            person=opened(after_run.home, after_run.people / "manager"),
        )


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ("epsilon<=0.001", "gate epsilon failed: expected at_most 0.001"),
        ("hit@1@every-site>=7", "gate hit@1@every-site failed"),
        ("beauty@every-site>=0", "reported no beauty; it reported admissions, "),
        ("empirical-audit<=90", "no empirical privacy audit is logged"),
        ("witnesses>=99", "gate witnesses failed"),
    ],
)
def test_a_gate_that_does_not_hold_stops_the_proposal(ran: AfterRun, gate: str, message: str, tmp_path: Path) -> None:
    after = judged_by(ran, tmp_path, gate)
    before = snapshot(after.home.path)
    with pytest.raises(ReleaseRefused, match=message):
        candidate(after)
    assert snapshot(after.home.path) == before


def test_gates_set_after_the_run_do_not_judge_it(after_run: AfterRun) -> None:
    agree_on_gates(after_run.home, after_run.people, "hit@1@every-site>=7")
    assert {gate.name for gate in candidate(after_run).gates} == {"epsilon", "hit@1@every-site"}
    assert "hit@1@every-site >= 7" in zegel("release", "gates", "--home", after_run.home.path).stdout


def test_a_release_is_of_a_finished_run_and_has_its_own_name(after_run: AfterRun) -> None:
    home, admin = after_run.home, opened(after_run.home, after_run.people / "admin")
    with pytest.raises(ReleaseRefused, match="run run-none has not finished; `zegel run status run-none`"):
        propose_release(home, run_id="run-none", release=RELEASE, proposer=admin)
    candidate(after_run)
    before = snapshot(home.path)
    with pytest.raises(ReleaseRefused, match=r"release '2027\.1' was proposed already; choose another name"):
        candidate(after_run, proposer="manager")
    assert snapshot(home.path) == before
    with pytest.raises(ReleaseRefused, match=r"no release 'other' was proposed; `zegel release list`"):
        load_statement(home, "other")


def test_the_statement_says_what_the_log_says(after_run: AfterRun) -> None:
    statement = candidate(after_run)
    assert statement.sites == TRAINERS
    assert statement.evaluation_sites == (*TRAINERS, "geul")
    assert statement.plan_hash == after_run.plan_hash
    with after_run.home.log() as log:
        proposed = [entry.body for _, entry in log.entries(kind=RELEASE_PROPOSED)]
    assert [body["statement"] for body in proposed] == [statement.digest]


# -- quorum


@pytest.mark.parametrize(
    ("proposer", "votes", "message"),
    [
        ("admin", [], "expected approval by privacy_officer, release_manager, got it from nobody"),
        ("admin", [("officer", True)], "expected approval by release_manager"),
        ("admin", [("manager", True)], "expected approval by privacy_officer"),
        ("admin", [("manager", True), ("second", True)], "expected approval by privacy_officer"),
        (
            "manager",
            [("officer", True), ("manager", True)],
            r"expected approval by release_manager, .*person-[0-9a-f]{16} proposed it and does not count",
        ),
        (
            "admin",
            [("officer", True), ("manager", False)],
            r"refused by person-\w+ .*coding centre\): sha256:",
        ),
        (
            "admin",
            [("officer", True), ("manager", True), ("second", False)],
            r"refused by person-\w+ .*bureau",
        ),
        (
            "admin",
            [("officer", True), ("manager", True), ("officer", False)],
            r"refused by person-\w+ .*board",
        ),
    ],
    ids=[
        "nobody",
        "no manager",
        "no officer",
        "one role twice",
        "proposer",
        "refused",
        "refused by one more",
        "withdrawn",
    ],
)
def test_without_a_quorum_nothing_is_certified(
    after_run: AfterRun, proposer: str, votes: list[tuple[str, bool]], message: str
) -> None:
    candidate(after_run, proposer=proposer)
    for who, approve in votes:
        vote(after_run, who, approve=approve)
    before = snapshot(after_run.home.path)
    with pytest.raises(ReleaseRefused, match=message):
        certify(after_run.home, RELEASE)
    assert certified(after_run.home) == 0
    assert snapshot(after_run.home.path) == before


def test_another_manager_may_stand_in_for_the_proposer(after_run: AfterRun) -> None:
    candidate(after_run, proposer="manager")
    for who in ("manager", "officer", "second"):
        vote(after_run, who)
    data = certify(after_run.home, RELEASE)
    report = verify_dossier(data, (after_run.home.ca / "rootCA.pem").read_bytes(), now=datetime.now(UTC))
    assert report.trace.release == RELEASE
    with after_run.home.log() as log:
        body = next(entry.body for _, entry in log.entries(kind=RELEASE_CERTIFIED))
    people = {who: opened(after_run.home, after_run.people / who) for who in ("officer", "second")}
    assert sorted(body["approvals"]) == sorted(person.certificate_digest for person in people.values())


def test_a_refusal_taken_back_counts_no_longer(after_run: AfterRun) -> None:
    candidate(after_run)
    for who, approve in (("manager", False), ("officer", True), ("manager", True)):
        vote(after_run, who, approve=approve)
    assert certify(after_run.home, RELEASE)
    assert certified(after_run.home) == 1


@pytest.mark.parametrize("lost", ["model", "plan"])
def test_what_the_dossier_needs_is_looked_for_first(after_run: AfterRun, lost: str) -> None:
    """A certified entry cannot be taken back, so the artifacts must be there before it."""
    statement = candidate(after_run)
    for who in ("officer", "manager"):
        vote(after_run, who)
    artifacts = after_run.home.artifacts()
    path = artifacts.path(statement.version if lost == "model" else statement.plan_hash)
    kept = path.read_bytes()
    path.write_bytes(kept[:-1] + b"?")
    with pytest.raises(ReleaseRefused, match="has changed on disk"):
        certify(after_run.home, RELEASE)
    assert certified(after_run.home) == 0
    path.write_bytes(kept)
    assert certify(after_run.home, RELEASE)


def test_certifying_again_gives_the_same_dossier(after_run: AfterRun) -> None:
    candidate(after_run)
    for who in ("officer", "manager"):
        vote(after_run, who)
    first = certify(after_run.home, RELEASE)
    assert certify(after_run.home, RELEASE) == first
    assert certified(after_run.home) == 1
    candidate(after_run, release="2027.2")  # the log grows; the dossier still verifies
    again = certify(after_run.home, RELEASE)
    assert verify_dossier(again, (after_run.home.ca / "rootCA.pem").read_bytes(), now=datetime.now(UTC))


def test_the_dossier_verifies_and_any_changed_byte_is_found(dossier: tuple[bytes, bytes]) -> None:
    data, root = dossier
    now = datetime.now(UTC) + timedelta(minutes=1)
    report = verify_dossier(data, root, now=now)
    assert report.trace.release == RELEASE
    generator = random.Random("bytes")  # noqa: S311
    for position in generator.sample(range(len(data)), 200):
        flipped = bytearray(data)
        flipped[position] ^= generator.randrange(1, 256)
        with pytest.raises(AuditError):
            verify_dossier(bytes(flipped), root, now=now)
    with pytest.raises(DossierError):
        verify_dossier(data[:-1], root, now=now)
    with pytest.raises(DossierError):
        verify_dossier(data + b"\n", root, now=now)


def test_the_dossier_holds_no_key_and_no_letter(dossier: tuple[bytes, bytes]) -> None:
    for name, member in unpack(dossier[0]).items():
        assert b"PRIVATE KEY" not in member, name
        assert b"opname wegens" not in member, name


# -- the commands


def test_the_commands_lead_from_run_to_release(after_run: AfterRun, tmp_path: Path) -> None:
    home, people, out = after_run.home.path, after_run.people, tmp_path / "r.dossier"
    shown = zegel("plan", "show", after_run.plan_hash, "--home", home)
    assert shown.exit_code == 0, shown.output
    assert "Privacy loss      of a patient at a training hospital" in shown.stdout
    listed = zegel("plan", "list", "--home", home)
    assert "Pieter Privacy (privacy_officer): approve" in listed.stdout
    proposed = zegel(
        *("release", "propose", RELEASE, "--run", RUN),
        *("--as", people / "admin", "--home", home),
    )
    assert proposed.exit_code == 0, proposed.output
    assert "Gate epsilon at most 100: " in proposed.stdout
    assert f"zegel release approve {RELEASE}" in proposed.stdout
    told = refused("release", "certify", RELEASE, "--out", out, "--home", home)
    assert f"release '{RELEASE}' is not certified: release {RELEASE}: expected approval by" in told
    assert "give a --reason" in refused(
        "release", "approve", RELEASE, "--refuse", "--as", people / "officer", "--home", home
    )
    for who in ("officer", "manager"):
        result = zegel("release", "approve", RELEASE, "--as", people / who, "--home", home)
        assert f"approved the release {RELEASE}; the log keeps it." in result.stdout
    assert "is not a folder" in refused("release", "certify", RELEASE, "--out", tmp_path / "no" / "r", "--home", home)
    assert certified(after_run.home) == 0
    result = zegel("release", "certify", RELEASE, "--out", out, "--home", home)
    assert result.exit_code == 0, result.output
    assert "exists already" in refused("release", "certify", RELEASE, "--out", out, "--home", home)
    checked = zegel("verify", out, "--root", after_run.home.ca / "rootCA.pem")
    assert checked.exit_code == 0, checked.output
    listed = zegel("release", "list", "--home", home, "--json")
    assert [(row["release"], row["state"]) for row in json.loads(listed.stdout)["releases"]] == [(RELEASE, "certified")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["consortium", "r.dossier"]
