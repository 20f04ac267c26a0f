"""After certification: replaced, withdrawn; and revocation. Over a log that a real run filled."""

from __future__ import annotations

import json
import shutil
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from admin_api.errors import ApprovalError, OnboardingError, ReleaseRefused
from admin_api.gate_setting import log_audit
from admin_api.planning import decide, propose
from admin_api.recording import record_judged
from admin_api.releasing import (
    approve_withdrawal,
    certify,
    list_releases,
    load_statement,
    propose_release,
    propose_withdrawal,
    supersede,
)
from admin_api.revoking import change_status, current_revocations, signed_revocations
from audit.canonical import canonical_json
from audit.cosignature import cosign, witness_key
from audit.cosigned import Cosigned
from audit.entry import GATES_SET, RELEASE_CERTIFIED, RELEASE_SUPERSEDED, Entry
from audit.errors import LogConflictError
from audit.evidence import Evidence
from audit.note import VerifierKey, parse_note
from audit.revocation import REINSTATED, REVOKED, SUSPENDED, open_revocations
from audit.verify import Report, verify_dossier
from audit.witness import Witness
from jobs.home import ConsortiumHome
from jobs.run import carry_out_run
from jobs.transport import InMemoryTransport
from site_packages.home import SiteHome
from tests.admin_api.conftest import AfterRun, judged_by
from tests.admin_api.consortium_folder import (
    EVALUATOR,
    RUN,
    TRAINERS,
    agree_on_gates,
    copied,
    opened,
    participant,
    plan_of,
    refused,
    snapshot,
    zegel,
)

FIRST, SECOND = "2027.1", "2027.2"


def put_up(after: AfterRun, release: str, run_id: str = RUN) -> None:
    propose_release(after.home, run_id=run_id, release=release, proposer=opened(after.home, after.people / "admin"))


def approve(after: AfterRun, release: str, *people: str) -> None:
    digest = load_statement(after.home, release).digest
    for who in people or ("officer", "manager"):
        person = opened(after.home, after.people / who)
        decide(after.home, "release", digest, person, approve=True, reason="")


def states(home: ConsortiumHome) -> dict[str, str]:
    return {each.release: each.state for each in list_releases(home)}


def verified(after: AfterRun, dossier: bytes) -> Report:
    return verify_dossier(dossier, (after.home.ca / "rootCA.pem").read_bytes(), now=datetime.now(UTC))


@pytest.fixture(scope="module")
def once(ran: AfterRun, tmp_path_factory: pytest.TempPathFactory) -> AfterRun:
    """A consortium with one certified release. Read only."""
    home = copied(ran.home.path, tmp_path_factory.mktemp("once") / "consortium")
    after = AfterRun(home, ran.people, ran.sites, ran.plan_hash)
    put_up(after, FIRST)
    approve(after, FIRST)
    certify(home, FIRST)
    return after


@pytest.fixture
def released(once: AfterRun, tmp_path: Path) -> AfterRun:
    """A copy of it of the test's own."""
    return AfterRun(copied(once.home.path, tmp_path / "consortium"), once.people, once.sites, once.plan_hash)


def second_run(after: AfterRun, sites: Path) -> str:
    """Another run of another plan; hospitals with fresh ledgers, since the test's are shared."""
    shutil.copytree(after.sites, sites)
    for ledger in sites.glob("*/ledger*"):
        ledger.unlink()
    home, run_id = after.home, "run-20261123T050000Z-00000b"
    plan_hash = propose(home, plan_of(name="second", nominal_patients=77), opened(home, after.people / "admin"))
    decide(home, "plan", plan_hash, opened(home, after.people / "officer"), approve=True, reason="fits")
    hospitals = {name: SiteHome(sites / name) for name in (*TRAINERS, EVALUATOR)}
    transport = InMemoryTransport({name: participant(site).handle for name, site in hospitals.items()})
    assert carry_out_run(home.path, run_id=run_id, plan_hash=plan_hash, transport=transport) is not None
    return run_id


def test_a_successor_retires_its_predecessor_in_the_same_step(released: AfterRun, tmp_path: Path) -> None:
    run_id = second_run(released, tmp_path / "sites")
    put_up(released, SECOND, run_id)
    put_up(released, "late", run_id)
    approve(released, SECOND)
    approve(released, "late")
    report = verified(released, certify(released.home, SECOND))
    assert states(released.home) == {FIRST: "superseded", SECOND: "certified", "late": "candidate"}
    assert report.trace.predecessor is not None
    assert report.trace.predecessor.release == FIRST
    with released.home.log() as log:
        ends = [(index, entry.kind) for index, entry in log.entries()][-2:]
    assert [kind for _, kind in ends] == [RELEASE_CERTIFIED, RELEASE_SUPERSEDED]
    # What was compared with the first release never replaces the second.
    before = snapshot(released.home.path)
    with pytest.raises(ReleaseRefused, match=f"late was compared with {FIRST}, but {SECOND} is certified now; propose"):
        certify(released.home, "late")
    assert snapshot(released.home.path) == before
    # The old release's dossier can still be written, and says what became of it.
    old = verified(released, certify(released.home, FIRST))
    assert next(check.detail for check in old.checks if check.name == "state").endswith(f"superseded by {SECOND}")
    listed = zegel("release", "list", "--home", released.home.path).stdout
    assert f"superseded by {SECOND}" in listed


def test_two_people_withdraw_by_command(released: AfterRun, tmp_path: Path) -> None:
    home, people = released.home.path, released.people
    withdraw = ("release", "withdraw", FIRST, "--home", home)
    assert "give a --reason" in refused(*withdraw, "--as", people / "manager")
    assert "nobody proposed to withdraw it" in refused(*withdraw, "--confirm", "--as", people / "officer")
    first = zegel(*withdraw, "--reason", "codes the dead as living", "--as", people / "manager")
    assert f"zegel release withdraw {FIRST} --confirm" in first.stdout
    listed = zegel("release", "list", "--home", home).stdout
    assert "certified" in listed
    assert "withdrawal proposed: codes the dead as living" in listed
    alone = refused(*withdraw, "--confirm", "--as", people / "manager")
    assert "expected approval by somebody besides Rosa Release" in alone
    assert states(released.home) == {FIRST: "certified"}
    done = zegel(*withdraw, "--confirm", "--as", people / "officer", "--json")
    assert json.loads(done.stdout) == {"release": FIRST, "state": "withdrawn"}
    assert states(released.home) == {FIRST: "withdrawn"}
    assert "was withdrawn in entry" in refused("release", "certify", FIRST, "--out", tmp_path / "r", "--home", home)
    again = refused(*withdraw, "--reason", "again", "--as", people / "manager")
    assert "is withdrawn and cannot become withdrawn" in again


def test_what_is_not_in_use_is_not_withdrawn(after_run: AfterRun) -> None:
    manager = opened(after_run.home, after_run.people / "manager")
    with pytest.raises(ReleaseRefused, match="no release 'x' was proposed"):
        propose_withdrawal(after_run.home, "x", reason="harm", person=manager)
    put_up(after_run, FIRST)
    before = snapshot(after_run.home.path)
    with pytest.raises(ReleaseRefused, match="is candidate and cannot become withdrawn"):
        propose_withdrawal(after_run.home, FIRST, reason="harm", person=manager)
    admin = opened(after_run.home, after_run.people / "admin")
    with pytest.raises(ApprovalError, match="needs the role authority or privacy_officer or release_manager"):
        propose_withdrawal(after_run.home, FIRST, reason="harm", person=admin)
    with pytest.raises(ReleaseRefused, match="nobody proposed to withdraw it"):
        approve_withdrawal(after_run.home, FIRST, reason="", person=manager)
    with pytest.raises(ReleaseRefused, match="release other was never proposed"):
        supersede(after_run.home, FIRST, by="other", reason="both", person=manager)
    assert snapshot(after_run.home.path) == before


def test_nothing_is_decided_about_a_certified_release(released: AfterRun) -> None:
    before = snapshot(released.home.path)
    with pytest.raises(ApprovalError, match=f"release {FIRST} is certified; there is nothing to decide"):
        approve(released, FIRST, "officer")
    assert snapshot(released.home.path) == before


# -- witnesses


def cosigned(after: AfterRun) -> None:
    """Every hospital's witness signs the log as it is, as its next run or request would have it do."""
    with after.home.log() as log:
        checkpoint = log.last_checkpoint()
    assert checkpoint is not None
    collected = []
    for name in (*TRAINERS, EVALUATOR):
        each = Witness(after.sites / name / "witness", after.home.clock)
        line = cosign(parse_note(checkpoint).text, each.name, each.private_key, after.home.clock())
        collected.append((witness_key(each.name, each.private_key), line))
    Cosigned(after.home.path / "cosigned").add(checkpoint, collected)


def test_a_dossier_waits_for_the_witnesses_its_gates_ask_for(ran: AfterRun, tmp_path: Path) -> None:
    after = judged_by(ran, tmp_path, "epsilon<=100", "witnesses>=3")
    put_up(after, FIRST)
    approve(after, FIRST)
    for _ in range(2):
        with pytest.raises(
            ReleaseRefused, match=r"no dossier is handed out: .*at least 3 of 4 witnesses, got 0.*`zegel audit cosign`"
        ):
            certify(after.home, FIRST)
        assert states(after.home) == {FIRST: "certified"}  # in the log; only its proof is incomplete
    cosigned(after)
    agree_on_gates(after.home, after.people)  # the log goes on: the newest checkpoint is no longer the cosigned one
    report = verified(after, certify(after.home, FIRST))
    assert [check.detail for check in report.checks if check.name == "witnesses"] == [
        "4 of 4 cosigned the checkpoint, 3 needed"
    ]


# -- two at once


def test_two_certify_at_once_and_one_does(after_run: AfterRun) -> None:
    put_up(after_run, FIRST)
    approve(after_run, FIRST)
    dossiers: list[bytes] = []
    both = threading.Barrier(2)

    def one() -> None:
        both.wait()
        dossiers.append(certify(ConsortiumHome(after_run.home.path), FIRST))

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(dossiers) == 2
    assert {verified(after_run, dossier).trace.release for dossier in dossiers} == {FIRST}
    with after_run.home.log() as log:
        assert len(list(log.entries(kind=RELEASE_CERTIFIED))) == 1


def test_what_was_judged_on_a_shorter_log_is_judged_again(after_run: AfterRun) -> None:
    sizes: list[int] = []

    def build(evidence: Evidence) -> list[Entry]:
        sizes.append(evidence.size)
        if len(sizes) == 1:
            agree_on_gates(after_run.home, after_run.people)  # somebody else is quicker
        return [evidence.of_kind(GATES_SET)[-1].entry]

    record_judged(after_run.home, build)
    assert sizes == [sizes[0], sizes[0] + 1]
    with after_run.home.log() as log:
        assert log.size == sizes[0] + 2


def test_a_log_that_never_rests_is_told(after_run: AfterRun) -> None:
    with after_run.home.log() as log:
        gates = next(entry for _, entry in log.entries(kind=GATES_SET))

    def build(evidence: Evidence) -> list[Entry]:
        with after_run.home.log() as log:
            log.append([gates])
        return [gates]

    with pytest.raises(LogConflictError, match="somebody else wrote meanwhile"):
        record_judged(after_run.home, build)


# -- revocation


def test_a_revoked_person_signs_no_more_but_what_they_signed_stays(after_run: AfterRun) -> None:
    home, people = after_run.home.path, after_run.people
    put_up(after_run, FIRST)
    approve(after_run, FIRST, "officer")
    revoke = ("consortium", "revoke", "Pieter Privacy", "--home", home, "--as", people / "admin")
    assert "give a --reason" in refused(*revoke)
    told = zegel(*revoke, "--reason", "left the board")
    assert told.exit_code == 0, told.output
    assert "Pieter Privacy is revoked; the log keeps it." in told.stdout
    assert "every certificate is revoked" in refused(*revoke, "--reason", "again")
    assert "is revoked since entry" in refused("release", "approve", FIRST, "--as", people / "officer", "--home", home)
    with pytest.raises(ApprovalError, match="is revoked since entry"):  # also past the command
        approve(after_run, FIRST, "officer")
    approve(after_run, FIRST, "manager")
    assert verified(after_run, certify(after_run.home, FIRST)).trace.release == FIRST


def test_a_suspension_is_taken_back(after_run: AfterRun) -> None:
    home, people = after_run.home, after_run.people
    admin = opened(home, people / "admin")
    put_up(after_run, FIRST)
    for status in (SUSPENDED, REINSTATED):
        change_status(home, "Rosa Release", status=status, reason="key mislaid", admin=admin)
    approve(after_run, FIRST, "manager")
    assert [change.status for change in current_revocations(home).changes] == [SUSPENDED, REINSTATED]
    tree, revocations = open_revocations(signed_revocations(home), VerifierKey.parse(home.config().log_vkey))
    assert revocations == current_revocations(home)
    with home.log() as log:
        assert tree.size == log.size


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("Nobody", REVOKED, "nobody here is called 'Nobody'"),
        ("localhost", REVOKED, "the consortium's own server"),
        ("amstel", REINSTATED, "cannot be reinstated: every certificate is good"),
    ],
)
def test_what_cannot_be_revoked(after_run: AfterRun, name: str, status: str, message: str) -> None:
    before = snapshot(after_run.home.path)
    admin = opened(after_run.home, after_run.people / "admin")
    with pytest.raises(OnboardingError, match=message):
        change_status(after_run.home, name, status=status, reason="why", admin=admin)
    with pytest.raises(ApprovalError, match="needs the role consortium_admin"):
        officer = opened(after_run.home, after_run.people / "officer")
        change_status(after_run.home, name, status=status, reason="why", admin=officer)
    assert snapshot(after_run.home.path) == before


def test_a_hospital_that_was_suspended_announces_no_data(after_run: AfterRun, tmp_path: Path) -> None:
    home = after_run.home
    admin = opened(home, after_run.people / "admin")
    change_status(home, "amstel", status=SUSPENDED, reason="break-in", admin=admin)
    statement = after_run.sites / "amstel.statement.json"
    told = refused("consortium", "manifest", statement, "--home", home.path)
    assert "is suspended since entry" in told


def test_the_list_for_hospitals_by_command(after_run: AfterRun, tmp_path: Path) -> None:
    out = tmp_path / "revocations.note"
    told = zegel("consortium", "revocations", "--out", out, "--home", after_run.home.path, "--json")
    assert json.loads(told.stdout) == {"changes": 0, "out": str(out)}
    _, revocations = open_revocations(out.read_bytes(), VerifierKey.parse(after_run.home.config().log_vkey))
    assert revocations.changes == ()


# -- the empirical audit

REPORT = {
    "schema": "zegel/privacy-audit/v1",
    "software": "zegel 0.1.0",
    "time": "2026-01-02T03:04:05Z",
    "quick": False,
    "passed": True,
    "claim": 1.5,
    "delta": 1e-6,
    "lower_bound": 0.4,
    "confidence": 0.95,
    "false_alarm": 0.01,
    "configurations": [],
    "checks": [],
}


def test_an_audit_is_logged_by_command(after_run: AfterRun, tmp_path: Path) -> None:
    report = tmp_path / "audit.json"
    report.write_bytes(canonical_json(REPORT))
    command = ("release", "audited", report, "--home", after_run.home.path)
    assert "needs the role authority or privacy_officer" in refused(*command, "--as", after_run.people / "manager")
    told = zegel(*command, "--as", after_run.people / "officer")
    assert "passed, epsilon at least 0.4 beside a claim of 1.5" in told.stdout
    shown = zegel("audit", "log", "-n", "1", "--home", after_run.home.path).stdout
    assert "empirical privacy audit passed: found epsilon 0.4, claimed 1.5 (zegel 0.1.0)" in shown


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "zegel/privacy-audit/v2"}, "expected schema zegel/privacy-audit/v1"),
        ({"claim": None}, "claim"),
        ({"passed": "yes"}, "expected true or false"),
        ({"time": "yesterday"}, "UTC time"),
        ({"time": "2099-01-02T03:04:05Z"}, "dated 2099-01-02T03:04:05Z, but it is"),
    ],
)
def test_reports_that_are_none(after_run: AfterRun, tmp_path: Path, change: dict[str, object], message: str) -> None:
    officer = opened(after_run.home, after_run.people / "officer")
    report = tmp_path / "audit.json"
    report.write_bytes(canonical_json(REPORT | change))
    before = snapshot(after_run.home.path)
    with pytest.raises(ReleaseRefused, match=message):
        log_audit(after_run.home, report, officer)
    for content, why in ((b"{", "unchanged"), (canonical_json(REPORT) + b"\n", "unchanged"), (b" " * 70_000, "larger")):
        report.write_bytes(content)
        with pytest.raises(ReleaseRefused, match=why):
            log_audit(after_run.home, report, officer)
    with pytest.raises(ReleaseRefused, match="cannot be read"):
        log_audit(after_run.home, tmp_path / "none.json", officer)
    assert snapshot(after_run.home.path) == before
