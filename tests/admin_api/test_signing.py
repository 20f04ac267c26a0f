"""One way of signing: every act in two steps with a passkey; what is signed is written, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from admin_api.erasing import erasable, erase
from admin_api.errors import (
    ApprovalError,
    ReleaseRefused,
    SignatureNeeded,
    StatementChanged,
)
from admin_api.gate_setting import log_audit, set_gates
from admin_api.passkeys import PasskeyHolder, open_passkey, passkey_certificates
from admin_api.people import disclosed_now, open_person
from admin_api.planning import decide, decisions, propose
from admin_api.releasing import (
    approve_withdrawal,
    certify,
    load_statement,
    propose_release,
    propose_withdrawal,
    supersede,
)
from admin_api.revoking import change_status, current_revocations
from admin_api.signing import SIGNING_TIME, Prepared, Signer, complete, prepare
from audit.canonical import canonical_json, digest_of, format_time
from audit.certificates import certificate_pem
from audit.entry import APPROVAL_GIVEN, CERTIFICATE_STATUS_CHANGED, VALUE_ERASED
from audit.passkey import Assertion
from audit.release import DEFAULT_POLICY
from audit.revocation import REINSTATED, REVOKED, SUSPENDED
from audit.statement import statement_bytes
from audit.verify import verify_dossier
from jobs.home import ConsortiumHome
from tests.admin_api.conftest import AfterRun
from tests.admin_api.consortium_folder import PASSPHRASE, PEOPLE, RUN, agree_on_gates, copied, opened, plan_of, snapshot
from tests.admin_api.passkey_people import asked_to_sign, enrol_passkey, signed_with
from tests.passkey import ED25519, P256, SoftwarePasskey

RELEASE = "2027.1"
Act = Callable[[Signer], object]


@dataclass(frozen=True)
class Office:
    """A consortium after a run; everybody has a passkey beside the key in a file."""

    home: ConsortiumHome
    people: Path
    plan_hash: str
    passkeys: Mapping[str, SoftwarePasskey]
    holders: Mapping[str, PasskeyHolder]

    def sign(self, who: str, act: Callable[[Signer], Any]) -> Any:
        return signed_with(self.home, self.holders[who], self.passkeys[who], act)

    def ask(self, who: str, act: Act) -> Prepared:
        return asked_to_sign(self.home, self.holders[who], act)

    def complete(self, who: str, act: Act, prepared: Prepared, **changes: Any) -> object:
        signature, assertion = self.passkeys[who].assertion(prepared.challenge)
        arguments: dict[str, Any] = {"signature": signature, "assertion": assertion, "now": self.home.clock()}
        return complete(self.holders[who], act, prepared, **(arguments | changes))


@pytest.fixture(scope="module")
def template(ran: AfterRun, tmp_path_factory: pytest.TempPathFactory) -> Office:
    """Read only."""
    folder = tmp_path_factory.mktemp("office")
    home = copied(ran.home.path, folder / "consortium")
    people = folder / "people"
    shutil.copytree(ran.people, people)
    passkeys = {who: SoftwarePasskey(algorithm=ED25519 if who == "admin" else P256) for who in PEOPLE}
    holders = {who: enrol_passkey(home, who, passkeys[who], people / who) for who in PEOPLE}
    return Office(home, people, ran.plan_hash, passkeys, holders)


@pytest.fixture
def office(template: Office, tmp_path: Path) -> Office:
    """One of the test's own."""
    return replace(template, home=copied(template.home.path, tmp_path / "consortium"))


def audit_report(folder: Path) -> Path:
    value = {
        "schema": "zegel/privacy-audit/v1",
        "software": "zegel 0.1",
        "claim": 1.5,
        "lower_bound": 0.4,
        "delta": 1e-6,
        "passed": True,
        "quick": False,
        "time": "2026-11-01T05:00:00Z",
    }
    path = folder / "audit.json"
    path.write_bytes(canonical_json(value))
    return path


def acts(home: ConsortiumHome, plan_hash: str, folder: Path) -> dict[str, tuple[str, Act]]:
    """Every act that people sign, and who can do it."""
    reason = "because it is so"
    withdrawn = erasable(home, person="Pieter Privacy") if home.path.exists() else ()
    values = tuple(each for each in withdrawn if each.field == "reason")
    return {
        "propose a plan": ("admin", lambda s: propose(home, plan_of(name="another"), s)),
        "decide": ("officer", lambda s: decide(home, "plan", plan_hash, s, approve=False, reason=reason)),
        "set gates": (
            "manager",
            lambda s: set_gates(
                home, task="icd_coding", gates=["epsilon<=9"], policy=DEFAULT_POLICY, reason=reason, person=s
            ),
        ),
        "log an audit": ("officer", lambda s: log_audit(home, audit_report(folder), s)),
        "propose a release": ("admin", lambda s: propose_release(home, run_id=RUN, release="2027.9", proposer=s)),
        "propose a withdrawal": ("manager", lambda s: propose_withdrawal(home, RELEASE, reason=reason, person=s)),
        "suspend": ("admin", lambda s: change_status(home, "Sven Tweede", status=SUSPENDED, reason=reason, admin=s)),
        "erase": ("admin", lambda s: erase(home, values, reason="article 17", admin=s)),
    }


ACTS = (
    *("propose a plan", "decide", "set gates", "log an audit", "propose a release", "propose a withdrawal"),
    *("suspend", "erase"),
)


@pytest.fixture(scope="module")
def certified(template: Office, tmp_path_factory: pytest.TempPathFactory) -> Office:
    """With a release that people certified with passkeys, and a dossier. Read only."""
    office = replace(template, home=copied(template.home.path, tmp_path_factory.mktemp("certified") / "consortium"))
    office.sign("admin", lambda s: propose_release(office.home, run_id=RUN, release=RELEASE, proposer=s))
    digest = load_statement(office.home, RELEASE).digest
    for who in ("officer", "manager"):
        office.sign(who, lambda s: decide(office.home, "release", digest, s, approve=True, reason="gates passed"))
    (office.home.path / "dossier").write_bytes(certify(office.home, RELEASE))
    return office


@pytest.fixture
def after(certified: Office, tmp_path: Path) -> Office:
    return replace(certified, home=copied(certified.home.path, tmp_path / "consortium"))


def test_a_release_approved_by_passkeys_verifies_offline(certified: Office) -> None:
    data, root = (certified.home.path / "dossier").read_bytes(), (certified.home.ca / "rootCA.pem").read_bytes()
    report = verify_dossier(data, root, now=datetime.now(UTC))
    assert {each.approver.certificate_digest for each in report.trace.approvals} == {
        certified.holders[who].certificate_digest for who in ("officer", "manager")
    }
    said = decisions(certified.home, "release", report.trace.statement_digest)
    assert [each["reason"] for each in said] == ["gates passed"] * 2
    # Signatures for other tools need a key in a file; nobody had one in hand.
    assert "provenance.dsse.json" not in {each.name for each in report.documents}


@pytest.mark.parametrize("name", ACTS)
def test_nothing_is_written_before_it_is_signed(after: Office, tmp_path: Path, name: str) -> None:
    who, act = acts(after.home, after.plan_hash, tmp_path)[name]
    before = snapshot(after.home.path)
    prepared = after.ask(who, act)
    assert prepared.statement["time"] == format_time(prepared.moment)
    assert snapshot(after.home.path) == before
    # A signature over anything else writes nothing either.
    signature, assertion = after.passkeys[who].assertion(bytes(32))
    with pytest.raises(ApprovalError, match="nothing was signed: passkey: client data: expected challenge"):
        after.complete(who, act, prepared, signature=signature, assertion=assertion)
    assert snapshot(after.home.path) == before


@pytest.mark.parametrize("name", ACTS)
def test_what_was_signed_is_what_is_logged(after: Office, tmp_path: Path, name: str) -> None:
    who, act = acts(after.home, after.plan_hash, tmp_path)[name]
    prepared = after.ask(who, act)
    with after.home.log() as log:
        size = log.size
    after.complete(who, act, prepared)
    with after.home.log() as log:
        new = [entry for index, entry in log.entries() if index >= size]
    embedded = [value for entry in new for value in entry.body.values() if isinstance(value, dict)]
    assert new
    assert len(embedded) == len(new)  # one statement in each entry
    for value in embedded:
        assert statement_bytes(value["statement"]) == statement_bytes(prepared.statement)
        assert value["certificate"] == after.holders[who].certificate_digest
        assert set(value["passkey"]) == {"authenticator_data", "client_data"}
    assert disclosed_now(after.home)  # reasons open the commitments that were signed


@pytest.mark.parametrize("name", ACTS)
def test_keys_in_files_still_sign_at_once(after: Office, tmp_path: Path, name: str) -> None:
    who, act = acts(after.home, after.plan_hash, tmp_path)[name]
    with after.home.log() as log:
        size = log.size
    act(opened(after.home, after.people / who))
    with after.home.log() as log:
        assert log.size > size


@pytest.mark.parametrize("name", ACTS)
def test_what_the_act_refuses_is_refused_before_anybody_signs(after: Office, tmp_path: Path, name: str) -> None:
    who, act = acts(after.home, after.plan_hash, tmp_path)[name]
    wrong = "officer" if who == "admin" else "admin"
    before = snapshot(after.home.path)
    with pytest.raises(ApprovalError, match="may not do this; it needs the role"):
        prepare(after.holders[wrong], act, now=after.home.clock())
    assert snapshot(after.home.path) == before


def test_two_people_withdraw_with_passkeys(after: Office) -> None:
    after.sign("manager", lambda s: propose_withdrawal(after.home, RELEASE, reason="harm", person=s))
    after.sign("officer", lambda s: approve_withdrawal(after.home, RELEASE, reason="read it", person=s))
    with pytest.raises(ReleaseRefused, match="was withdrawn"):
        certify(after.home, RELEASE)


def test_a_supersession_is_asked_for_too(after: Office) -> None:
    act: Act = lambda s: supersede(after.home, RELEASE, by="2028.1", reason="another task", person=s)  # noqa: E731
    prepared = after.ask("manager", act)
    assert prepared.statement["by"] == "2028.1"
    with pytest.raises(ReleaseRefused, match=r"release 2028\.1 was never proposed"):
        after.complete("manager", act, prepared)


# -- one signature per act


def test_several_certificates_are_one_act(office: Office) -> None:
    """Sven holds two, a key's and a passkey's; one signature is about both, and each has its entry."""
    held = set(office.sign("admin", lambda s: change_status(
        office.home, "Sven Tweede", status=SUSPENDED, reason="on leave", admin=s)))  # fmt: skip
    with office.home.log() as log:
        changed = [entry for _, entry in log.entries(kind=CERTIFICATE_STATUS_CHANGED)]
    assert {entry.body["digest"] for entry in changed} == held
    assert len(held) == 2
    assert [entry.body["revocation"]["statement"]["subject"] for entry in changed] == [sorted(held)] * 2
    with pytest.raises(ApprovalError, match="suspended"):
        open_passkey(office.home, office.holders["second"].certificate_digest)
    office.sign("admin", lambda s: change_status(
        office.home, "Sven Tweede", status=REINSTATED, reason="back", admin=s,
        only=office.holders["second"].certificate_digest))  # fmt: skip
    with office.home.log() as log:
        last = [entry for _, entry in log.entries(kind=CERTIFICATE_STATUS_CHANGED)][-1]
    assert last.body["revocation"]["statement"]["subject"] == office.holders["second"].certificate_digest
    assert open_passkey(office.home, office.holders["second"].certificate_digest)


def test_a_person_is_erased_with_one_signature(after: Office) -> None:
    home = after.home
    after.sign("admin", lambda s: change_status(home, "Pieter Privacy", status=REVOKED, reason="left", admin=s))
    chosen = erasable(home, person="Pieter Privacy")
    assert len(chosen) > 2
    after.sign("admin", lambda s: erase(home, chosen, reason="article 17", admin=s))
    with home.log() as log:
        erased = [entry for _, entry in log.entries(kind=VALUE_ERASED)]
    assert len({canonical_json(entry.body["erasure"]) for entry in erased}) == 1
    assert {entry.body["commitment"] for entry in erased} == {each.commitment for each in chosen}
    assert "Pieter" not in str(disclosed_now(home).to_json())
    assert verify_dossier(certify(home, RELEASE), (home.ca / "rootCA.pem").read_bytes(), now=datetime.now(UTC))


def test_an_act_that_needs_no_signature_is_done(after: Office) -> None:
    """What a stopped machine left of an erasure is removed, and the log says so already."""
    home = after.home
    values = tuple(each for each in erasable(home, person="Pieter Privacy") if each.field == "reason")
    files = {path: path.read_bytes() for path in (home.path / "disclosures").iterdir()}
    after.sign("admin", lambda s: erase(home, values, reason="article 17", admin=s))
    for path, content in files.items():
        path.write_bytes(content)
    again = erasable(home, [each.commitment for each in values])
    assert prepare(after.holders["admin"], lambda s: erase(home, again, reason="x", admin=s), now=home.clock()) is None
    assert not set(home.disclosures().commitments()) & {each.commitment for each in values}


# -- between the two steps


def test_the_log_may_grow_where_the_statement_stays(office: Office) -> None:
    act: Act = lambda s: decide(office.home, "plan", office.plan_hash, s, approve=False, reason="no")  # noqa: E731
    prepared = office.ask("officer", act)
    agree_on_gates(office.home, office.people)
    office.complete("officer", act, prepared)
    with office.home.log() as log:
        last = [entry for _, entry in log.entries(kind=APPROVAL_GIVEN)][-1]
    assert last.signed("approval").statement == prepared.statement


def test_when_the_log_says_something_else_now_nothing_is_written(office: Office) -> None:
    home = office.home
    act: Act = lambda s: change_status(home, "Sven Tweede", status=REVOKED, reason="lost", admin=s)  # noqa: E731
    prepared = office.ask("admin", act)
    admin = opened(home, office.people / "admin")
    change_status(home, "Sven Tweede", status=REVOKED, reason="lost", admin=admin,
                  only=office.holders["second"].certificate_digest)  # fmt: skip
    before = snapshot(home.path)
    with pytest.raises(StatementChanged, match=r"\(subject\): the log has moved on; nothing was written"):
        office.complete("admin", act, prepared)
    assert snapshot(home.path) == before


@pytest.mark.parametrize("changed", ["reason", "approve"])
def test_other_arguments_are_another_statement(office: Office, changed: str) -> None:
    arguments: dict[str, Any] = {"approve": False, "reason": "no"}
    prepared = office.ask("officer", lambda s: decide(office.home, "plan", office.plan_hash, s, **arguments))
    other = arguments | ({"reason": "yes"} if changed == "reason" else {"approve": True})
    before = snapshot(office.home.path)
    with pytest.raises(StatementChanged):
        office.complete("officer", lambda s: decide(office.home, "plan", office.plan_hash, s, **other), prepared)
    assert snapshot(office.home.path) == before


def test_who_was_revoked_meanwhile_signs_nothing(office: Office) -> None:
    home = office.home
    act: Act = lambda s: decide(home, "plan", office.plan_hash, s, approve=False, reason="no")  # noqa: E731
    prepared = office.ask("officer", act)
    admin = opened(home, office.people / "admin")
    change_status(home, "Pieter Privacy", status=SUSPENDED, reason="phone lost", admin=admin)
    before = snapshot(home.path)
    with pytest.raises(ApprovalError, match="suspended"):
        office.complete("officer", act, prepared)
    assert snapshot(home.path) == before
    assert len(current_revocations(home).changes) == 2


def test_a_signature_counts_for_its_time_and_its_person(office: Office) -> None:
    act: Act = lambda s: decide(office.home, "plan", office.plan_hash, s, approve=False, reason="no")  # noqa: E731
    prepared = office.ask("officer", act)
    before = snapshot(office.home.path)
    for late in (SIGNING_TIME + timedelta(seconds=1), -timedelta(minutes=2)):
        with pytest.raises(ApprovalError, match="expected within 15 minutes; look again, then sign"):
            office.complete("officer", act, prepared, now=prepared.moment + late)
    signature, assertion = office.passkeys["manager"].assertion(prepared.challenge)
    with pytest.raises(ApprovalError, match=r"prepared for the certificate sha256:\w+, not for"):
        complete(
            office.holders["manager"], act, prepared, signature=signature, assertion=assertion, now=prepared.moment
        )
    with pytest.raises(ApprovalError, match="does not fit these bytes and this key"):
        office.complete("officer", act, prepared, signature=signature, assertion=assertion)
    with pytest.raises(ApprovalError, match="client data"):
        office.complete("officer", act, prepared, assertion=Assertion(assertion.authenticator_data, b"{}"))
    assert snapshot(office.home.path) == before
    office.complete("officer", act, prepared)


def test_an_act_that_swallows_the_question_is_a_defect(office: Office) -> None:
    def act(signer: Signer) -> None:
        try:
            decide(office.home, "plan", office.plan_hash, signer, approve=False, reason="no")
        except SignatureNeeded:
            return

    with pytest.raises(RuntimeError, match="went on without the signature"):
        prepare(office.holders["officer"], act, now=office.home.clock())


def test_salts_are_fresh_in_each_ceremony_and_the_same_in_its_two_steps(office: Office) -> None:
    salts: list[bytes] = []

    def act(signer: Signer) -> None:
        salts.extend(signer.random_bytes(16) for _ in range(2))
        decide(office.home, "plan", office.plan_hash, signer, approve=False, reason="no")

    prepared = office.ask("officer", act)
    office.complete("officer", act, prepared)
    office.ask("officer", act)
    assert salts[:2] == salts[2:4]
    assert len(set(salts)) == 4


# -- what the server keeps


def test_what_is_kept_between_the_steps(office: Office) -> None:
    prepared = office.ask("officer", lambda s: decide(
        office.home, "plan", office.plan_hash, s, approve=False, reason="nobody asked"))  # fmt: skip
    assert Prepared.from_bytes(prepared.to_bytes()) == prepared
    assert b"nobody asked" not in prepared.to_bytes()
    assert "sha256:" + prepared.challenge.hex() == digest_of(statement_bytes(prepared.statement))
    good = prepared.to_bytes()
    for spoiled in (
        *(good[:-1], good + b" ", b"{}", good.replace(b"prepared-signature/v1", b"prepared-signature/v2")),
        *(good.replace(b'"seed":"', b'"seed":"AAAA'), good.replace(b'"consortium":', b'"consort":')),
    ):
        assert spoiled != good
        with pytest.raises(ApprovalError):
            Prepared.from_bytes(spoiled)


def test_who_signs_how(office: Office, tmp_path: Path) -> None:
    assert set(passkey_certificates(office.home)) == {each.certificate_digest for each in office.holders.values()}
    key = opened(office.home, office.people / "officer").certificate_digest
    with pytest.raises(ApprovalError, match="signs with a key in a file"):
        open_passkey(office.home, key)
    with pytest.raises(ApprovalError, match="was not issued by this consortium"):
        open_passkey(office.home, "sha256:" + "0" * 64)
    later = ConsortiumHome(office.home.path, lambda: datetime.now(UTC) + timedelta(days=366))
    with pytest.raises(ApprovalError, match="expected a time from"):
        open_passkey(later, office.holders["officer"].certificate_digest)
    folder = tmp_path / "officer"
    shutil.copytree(office.people / "officer", folder)
    (folder / "person.crt").write_text(certificate_pem(office.holders["officer"].certificate), encoding="ascii")
    with pytest.raises(ApprovalError, match=r"person\.crt is a passkey's, which signs in a browser"):
        open_person(folder, passphrase=PASSPHRASE.encode(), root=office.home.root(), now=office.home.clock())
