"""The hospital in a run: what it answers, in which order it acts, and what never leaves."""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from audit.certificates import certificate_pem
from audit.entry import METRICS_REPORTED, ROUND_COMPLETED, RUN_STARTED
from jobs.errors import RunAborted, RunInterrupted, SiteError
from jobs.icd_coding.model import version_id
from jobs.plan import Plan
from jobs.terms import evaluation_terms, linear_model, plan_model
from jobs.transport import InMemoryTransport, Message
from privacy.errors import AlreadySpent, LedgerBusy, LedgerUnusable
from privacy.events import Charge, Repeated
from privacy.ledger import Ledger
from privacy.noise import discrete_gaussian
from privacy.secagg.memory import InMemoryRoundMemory
from privacy.secagg.messages import RoundRequest, ShareRequest
from site_packages.errors import DataError, DatasetError
from site_packages.limits import TRAINING, VALIDATION
from site_packages.local_work import LocalWork
from site_packages.outbox import FileOutbox, InMemoryOutbox
from site_packages.participant import Participant
from site_packages.simulation import Simulation, approve_plan
from tests.jobs.small_federation import (
    NOW,
    SITES,
    Answer,
    bodies,
    clock,
    seeded,
    simulation,
    small_plan,
)

torch.set_num_threads(1)
LETTER = "Mevrouw de Vries, geboren 3-4-1951, heeft een liesbreuk"
THREE = SITES[:3]


def join_request(whole: Simulation, **changes: Any) -> Message:
    plan = whole.plan
    return {
        "run_id": whole.run_id,
        "plan_hash": plan.hash,
        "plan": plan.to_bytes(),
        "approvals": [approve_plan(whole.keyring, plan, now=NOW)],
        "certificates": [certificate_pem(certificate) for certificate in whole.keyring.certificates.values()],
        **changes,
    }


def replaced(whole: Simulation, site: str, **changes: Any) -> Participant:
    """A participant of this hospital with other parts, put in the place of the one there was."""
    key, certificate = whole.keyring.sites[site]
    parts: dict[str, Any] = {
        "site": site,
        "consortium": whole.plan.consortium,
        "key": key,
        "certificate": certificate,
        "root": whole.keyring.root,
        "limits": whole.limits,
        "ledger": whole.ledgers[site],
        "memory": InMemoryRoundMemory(),
        "outbox": InMemoryOutbox(),
        "manifest": lambda: b"manifest",
        "load_work": lambda plan: LocalWork(plan, whole.records[site].training, whole.records[site].test),
        "known_codes": None,
        "random_bytes": seeded(5),
        "clock": clock,
    }
    participant = Participant(**{**parts, **changes})
    whole.participants[site] = participant
    whole.transport = InMemoryTransport({name: each.handle for name, each in whole.participants.items()})
    return participant


def held(whole: Simulation, site: str) -> dict[str, float]:
    return {cohort.cohort: cohort.reserved_rdp for cohort in whole.ledgers[site].summary().cohorts}


# -- calls out of place ------------------------------------------------------------------------------------------


@pytest.fixture
def idle(tmp_path: Path) -> Simulation:
    """Nobody has joined yet; amstel also evaluates, zenne only evaluates."""
    return simulation(tmp_path, small_plan(sites=THREE, rounds=1, evaluation_sites=("amstel", "zenne")))


CALLS = ("announce", "share_keys", "round", "survivors", "unmask", "evaluate", "finish")


@pytest.mark.parametrize("method", CALLS)
def test_every_call_before_joining_is_refused(method: str, idle: Simulation) -> None:
    with pytest.raises(SiteError, match="send the plan first") as refused:
        idle.participants["amstel"].handle(method, {})
    assert refused.value.code == "not-joined"


@pytest.mark.parametrize(
    ("method", "message"),
    [("train", {}), ("_join", {}), ("__init__", {}), ("", {}), ("join", None), ("join", []), ("round", "x")],
)
def test_an_unknown_call_is_refused(method: str, message: object, idle: Simulation) -> None:
    with pytest.raises(SiteError, match="known are alive, cosign, join, announce") as refused:
        idle.participants["amstel"].handle(method, message)
    assert refused.value.code == "unknown-call"


def certificate_without_role() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nobody")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    built = builder.serial_number(1).not_valid_before(NOW).not_valid_after(NOW.replace(year=2027))
    return certificate_pem(built.sign(key, hashes.SHA256()))


MALFORMED: dict[str, tuple[dict[str, Any], str]] = {
    "no run": ({"run_id": None}, "run_id: expected a text"),
    "an empty run": ({"run_id": ""}, "run_id: expected a text"),
    "a long run": ({"run_id": "x" * 101}, "run_id: expected a text of at most 100"),
    "plan as text": ({"plan": "{}"}, "plan: expected bytes, got str"),
    "no hash": ({"plan_hash": 5}, "plan_hash: expected a text"),
    "approvals missing": ({"approvals": None}, "approvals: expected a list of objects"),
    "approvals of texts": ({"approvals": ["yes"]}, "approvals: expected a list of objects"),
    "certificates missing": ({"certificates": None}, "certificates: expected a list of PEM texts"),
    "certificates of bytes": ({"certificates": [b"x"]}, "certificates: expected a list of PEM texts"),
    "garbage for a certificate": ({"certificates": ["garbage"]}, "certificates: not a certificate"),
    "not ASCII": ({"certificates": ["é"]}, "certificates: "),
    "a certificate without a role": ({"certificates": [certificate_without_role()]}, "certificates: .*exactly one"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_join_reserves_nothing(case: str, idle: Simulation) -> None:
    changes, reason = MALFORMED[case]
    with pytest.raises(SiteError, match=reason) as refused:
        idle.participants["amstel"].handle("join", join_request(idle, **changes))
    assert refused.value.code == "bad-call"
    assert held(idle, "amstel") == {TRAINING: 0, VALIDATION: 0}
    with pytest.raises(SiteError, match="not-joined"):
        idle.participants["amstel"].handle("finish", {})


def test_only_what_the_plan_asks_of_a_hospital(idle: Simulation) -> None:
    for site in ("berkel", "zenne"):
        idle.participants[site].handle("join", join_request(idle))
    with pytest.raises(SiteError, match="not-invited"):
        idle.participants["berkel"].handle("evaluate", {})
    for method in ("announce", "share_keys", "round", "survivors", "unmask"):
        with pytest.raises(SiteError, match="not-training"):
            idle.participants["zenne"].handle(method, {})


def test_finish_frees_what_was_reserved_and_ends_the_run(idle: Simulation) -> None:
    amstel = idle.participants["amstel"]
    amstel.handle("join", join_request(idle))
    assert all(value > 0 for value in held(idle, "amstel").values())
    assert amstel.handle("finish", {}) == {"ledger_head": idle.ledgers["amstel"].head}
    assert held(idle, "amstel") == {TRAINING: 0, VALIDATION: 0}
    for method in CALLS:
        with pytest.raises(SiteError, match="not-joined"):
            amstel.handle(method, {})
    # The run is over for this hospital, also if it is asked to join again.
    with pytest.raises(SiteError, match=r"was closed.*start a new run") as refused:
        amstel.handle("join", join_request(idle))
    assert refused.value.code == "ledger"


def test_joining_twice_reserves_once(idle: Simulation) -> None:
    amstel = idle.participants["amstel"]
    first = amstel.handle("join", join_request(idle))["acceptance"]["statement"]
    before = held(idle, "amstel")
    again = amstel.handle("join", join_request(idle))["acceptance"]["statement"]
    assert held(idle, "amstel") == before
    assert again == first


def test_joining_another_run_frees_the_one_that_can_no_longer_be_reached(idle: Simulation) -> None:
    amstel = idle.participants["amstel"]
    amstel.handle("join", join_request(idle))
    once = held(idle, "amstel")
    amstel.handle("join", join_request(idle, run_id="run-20260102T000000Z-000000"))
    assert held(idle, "amstel") == once
    runs = {run.run_id: run.is_open for run in idle.ledgers["amstel"].summary().cohorts[0].runs}
    assert runs == {idle.run_id: False, "run-20260102T000000Z-000000": True}


# -- data stays --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["load_work", "manifest"])
def test_what_goes_wrong_with_the_data_stays_in_the_hospitals_log(
    part: str, idle: Simulation, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> Any:
        raise DatasetError(f"row 17 of /data/records.parquet: {LETTER}")

    participant = replaced(idle, "amstel", **{part: fail})
    with caplog.at_level(logging.ERROR), pytest.raises(SiteError) as told:
        participant.handle("join", join_request(idle))
    assert told.value.code == "data"
    for text in (str(told.value), told.value.detail, repr(told.value), *map(str, told.value.args)):
        assert not any(word in text for word in ("Vries", "liesbreuk", "1951", "parquet", "row 17"))
    assert LETTER in caplog.text
    assert held(idle, "amstel") == {TRAINING: 0, VALIDATION: 0}
    with pytest.raises(SiteError, match="not-joined"):
        participant.handle("announce", {})


def test_a_defect_while_loading_is_not_dressed_up_and_frees_the_reservation(idle: Simulation) -> None:
    """Whatever stands before a network turns it into `internal`; here it must not become a text that leaves."""

    def fail(plan: Plan) -> LocalWork:
        raise ValueError(LETTER)

    participant = replaced(idle, "amstel", load_work=fail)
    with pytest.raises(ValueError, match="liesbreuk"):
        participant.handle("join", join_request(idle))
    assert held(idle, "amstel") == {TRAINING: 0, VALIDATION: 0}


def test_data_that_fails_at_one_hospital_ends_the_run_and_frees_the_others(tmp_path: Path) -> None:
    whole = simulation(tmp_path, small_plan(sites=THREE))

    def fail(plan: Plan) -> LocalWork:
        raise DatasetError(LETTER)

    replaced(whole, "berkel", load_work=fail)
    with pytest.raises(RunAborted, match="berkel: the local data set cannot be used") as aborted:
        whole.run()
    assert "liesbreuk" not in str(aborted.value)
    assert whole.entries == []
    assert all(held(whole, site)[TRAINING] == 0 for site in THREE)


# -- spent before released ---------------------------------------------------------------------------------------


class TracedLedger(Ledger):
    """A ledger that notes its commits, and may fail instead."""

    steps: list[str]
    failure: Exception | None = None

    def commit(self, run_id: str, key: str, event: Charge | Repeated, *, cohort: str | None = None) -> str:
        self.steps.append(f"commit {key.split(' of ')[0]}")
        if self.failure is not None:
            raise self.failure
        return super().commit(run_id, key, event, cohort=cohort)


class TracedWork(LocalWork):
    """Work that notes when records are used, and may fail then."""

    steps: list[str]
    fails = False

    def contribution(self, *args: Any) -> Any:
        self.steps.append("contribution")
        if self.fails:
            raise RuntimeError("power cut")
        return super().contribution(*args)

    def metric_counts(self, *args: Any, **named: Any) -> Any:
        self.steps.append("metric counts")
        return super().metric_counts(*args, **named)


class TracedMemory(InMemoryRoundMemory):
    steps: list[str]

    def record(self, *args: Any) -> None:
        self.steps.append(str(args[2]))
        super().record(*args)


BUSY = LedgerBusy("/srv/site/ledger.db is locked by another process for 5 s: try again")


def traced(whole: Simulation, site: str, *, ledger_failure: Exception | None = None) -> list[str]:
    """The order in which this hospital acts."""
    steps: list[str] = []
    number = sorted(whole.records).index(site) + 1
    ledger = TracedLedger.open(whole.folder / f"site-{number:02}" / "ledger.db", clock=clock)
    ledger.steps, ledger.failure = steps, ledger_failure

    def load(plan: Plan) -> LocalWork:
        work = TracedWork(plan, whole.records[site].training, whole.records[site].test)
        work.steps = steps
        return work

    memory = TracedMemory()
    memory.steps = steps
    replaced(whole, site, ledger=ledger, load_work=load, memory=memory)
    return steps


def test_the_ledger_is_written_before_anything_is_computed(tmp_path: Path) -> None:
    whole = simulation(tmp_path, small_plan(sites=THREE, rounds=1, evaluation_sites=("amstel",)))
    steps = traced(whole, "amstel")
    whole.run()
    assert steps == [
        "commit round 1", "contribution", "masked", "signed", "revealed",
        "commit round 2", "contribution", "masked", "signed", "revealed",
        "commit metrics", "metric counts",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (BUSY, r"another process holds the ledger; the hospital's own log says why \[ledger\]"),
        (LedgerUnusable("/srv/site/ledger.db: disk I/O error"), r"the ledger cannot be used; .* \[ledger\]"),
        (
            OSError(errno.ENOSPC, "no space", "/srv/site/x"),
            r"a file cannot be read or written; .* \[storage\]",
        ),
    ],
)
def test_when_the_ledger_cannot_be_written_no_vector_leaves(tmp_path: Path, failure: Exception, told: str) -> None:
    """Nor does the name of a file at the hospital."""
    answers: list[Answer] = []

    def alter(method: str, site: str, request: Message, real: Callable[[], Answer]) -> Answer:
        answer = real()
        if (method, site) == ("round", "amstel"):
            answers.append(answer)
        return answer

    whole = simulation(tmp_path, small_plan(sites=THREE, rounds=1), alter=alter)
    steps = traced(whole, "amstel", ledger_failure=failure)
    with pytest.raises(RunInterrupted, match=f"amstel: {told}") as interrupted:
        whole.run()
    assert "/srv" not in str(interrupted.value)
    assert steps == ["commit round 1"]
    (answer,) = answers
    assert isinstance(answer, SiteError)
    assert whole.transport.bytes_received["amstel"] < 10_000  # its keys and acceptance, no vector


def test_when_the_ledger_cannot_be_written_no_metrics_leave(tmp_path: Path) -> None:
    whole = simulation(tmp_path, small_plan(sites=THREE, rounds=1, evaluation_sites=("zenne",)))
    steps = traced(whole, "zenne", ledger_failure=BUSY)
    with pytest.raises(RunInterrupted, match=r"not evaluated everywhere: zenne: another process holds the ledger"):
        whole.run()
    assert steps == ["commit metrics"]
    assert not bodies(whole.entries, METRICS_REPORTED)


def test_a_round_that_was_spent_before_a_crash_is_not_answered_again(tmp_path: Path) -> None:
    """The ledger knows round 1, the masking's memory does not: the process died between the two.

    A coordinator that does not know of round 1 has lost its state, and must not go on from an older one.
    """
    plan = small_plan(sites=THREE, rounds=1)
    whole = simulation(tmp_path, plan)
    ledger = whole.ledgers["amstel"]
    ledger.reserve(whole.run_id, TRAINING, plan.training_events(), plan_hash=plan.hash)
    ledger.commit(whole.run_id, "round 1", plan.event(1), cohort=TRAINING)
    steps = traced(whole, "amstel")
    with pytest.raises(RunAborted, match=r"amstel: last_round: expected a round up to 0, got 1"):
        whole.run()
    assert steps == []
    with pytest.raises(AlreadySpent, match="nothing may be released for it again"):
        ledger.commit(whole.run_id, "round 1", plan.event(1), cohort=TRAINING)


def test_a_hospital_that_crashes_in_a_round_is_out_of_it_and_comes_back(tmp_path: Path) -> None:
    """With a dropout allowed: round 1 is lost to it and stays spent; after a restart it takes part in round 2."""
    holder: list[Simulation] = []
    requests: dict[str, Message] = {}
    second: list[SiteError] = []

    def alter(method: str, site: str, request: Message, real: Callable[[], Answer]) -> Answer:
        if site != "amstel":
            return real()
        requests.setdefault(method, request)
        if method == "round" and request["secagg"]["round"] == 1:
            with pytest.raises(RuntimeError, match="power cut"):
                real()
            restarted = replaced(holder[0], site)
            restarted.handle("join", requests["join"])
            with pytest.raises(SiteError) as refused:
                restarted.handle("round", request)  # its keys are gone with the process
            second.append(refused.value)
            return SiteError(site, "unreachable", "no answer")
        return holder[0].participants[site].handle(method, request)

    whole = simulation(tmp_path, small_plan(dropouts=1, rounds=1), alter=alter)
    holder.append(whole)

    def load(plan: Plan) -> LocalWork:
        work = TracedWork(plan, whole.records["amstel"].training, whole.records["amstel"].test)
        work.steps, work.fails = [], True
        return work

    replaced(whole, "amstel", load_work=load)
    whole.run()
    first, last = bodies(whole.entries, ROUND_COMPLETED)
    assert first["dropped"] == ["amstel"]
    assert last["participants"] == list(SITES)
    assert [error.code for error in second] == ["protocol"]
    (run,) = whole.ledgers["amstel"].summary().cohorts[0].runs
    assert (run.committed, run.is_open) == (2, False)


# -- a lying coordinator -----------------------------------------------------------------------------------------


def changed_secagg(request: Message, **fields: Any) -> Message:
    return {**request, "secagg": {**request["secagg"], **fields}}


def without_dommel(message: Message) -> Message:
    request = RoundRequest.from_message(message)
    keys = {site: key for site, key in request.mask_keys.items() if site != "dommel"}
    return dict(RoundRequest(round=request.round, mask_keys=keys).to_message())


def other_model(plan: Plan) -> bytes:
    parameters = linear_model(plan).initial()
    return replace(parameters, bias=parameters.bias + 1).to_bytes()


LIES: dict[str, tuple[Callable[[Message, Plan], Message], str, str]] = {
    "another model than it names": (
        lambda request, plan: {**request, "model": other_model(plan)}, "model-differs", "expected sha256",
    ),
    "another start than the plan's": (
        lambda request, plan: {
            **request, "model": other_model(plan), "version_in": version_id(other_model(plan)),
        },
        "model-differs",
        "the plan starts from sha256",
    ),
    "no model": (lambda request, plan: {**request, "model": None}, "bad-call", "model: expected bytes"),
    "no version": (lambda request, plan: {**request, "version_in": 1}, "bad-call", "version_in: expected a text"),
    "a round after the plan's last": (
        lambda request, plan: changed_secagg(request, round=3), "no-such-round", "the plan has rounds 1 to 2",
    ),
    "a round without keys": (lambda request, plan: changed_secagg(request, round=2), "protocol", "set up first"),
    "round zero": (lambda request, plan: changed_secagg(request, round=0), "protocol", "round"),
    "a hospital left out": (
        lambda request, plan: {**request, "secagg": without_dommel(request["secagg"])}, "protocol", "participants",
    ),
    "no message": (lambda request, plan: {**request, "secagg": None}, "protocol", "expected a dict"),
}  # fmt: skip


@pytest.fixture(scope="module")
def lies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SiteError | Message]:
    """What amstel answered to each lie, told before the honest request of round 1; and to replays after it."""
    answers: dict[str, SiteError | Message] = {}
    holder: list[Simulation] = []

    def ask(name: str, method: str, request: Message) -> None:
        try:
            answers[name] = holder[0].participants["amstel"].handle(method, request)
        except SiteError as error:
            answers[name] = error

    def alter(method: str, site: str, request: Message, real: Callable[[], Answer]) -> Answer:
        if site != "amstel":
            return real()
        first_round = method == "round" and request["secagg"]["round"] == 1
        if first_round:
            for name, (lie, _, _) in LIES.items():
                ask(name, method, lie(request, holder[0].plan))
            answers["spent by lies"] = {"runs": holder[0].ledgers["amstel"].summary().cohorts[0].spent}
        answer = real()
        if first_round:
            ask("replayed round", method, request)
        if method in ("survivors", "unmask") and f"replayed {method}" not in answers:
            ask(f"replayed {method}", method, request)
        return answer

    plan = small_plan(sites=THREE, rounds=1)
    holder.append(simulation(tmp_path_factory.mktemp("lies"), plan, alter=alter))
    holder[0].run()
    answers["rounds completed"] = {"rounds": len(bodies(holder[0].entries, ROUND_COMPLETED))}
    (run,) = holder[0].ledgers["amstel"].summary().cohorts[0].runs
    answers["committed"] = {"committed": run.committed}
    return answers


@pytest.mark.parametrize("case", LIES)
def test_a_lying_coordinator_is_refused(case: str, lies: dict[str, SiteError | Message]) -> None:
    _, code, reason = LIES[case]
    answer = lies[case]
    assert isinstance(answer, SiteError)
    assert answer.code == code
    assert re.search(reason, answer.detail), answer.detail


@pytest.mark.parametrize("method", ["round", "survivors", "unmask"])
def test_a_replay_is_refused(method: str, lies: dict[str, SiteError | Message]) -> None:
    answer = lies[f"replayed {method}"]
    assert isinstance(answer, SiteError)
    assert answer.code == "protocol"


def test_lies_cost_nothing_and_do_not_stop_the_run(lies: dict[str, SiteError | Message]) -> None:
    assert lies["spent by lies"] == {"runs": 0}
    assert lies["rounds completed"] == {"rounds": 2}
    assert lies["committed"] == {"committed": 2}


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (b"garbage", "not a readable safetensors file"),
        (plan_model(small_plan(label_space=("H25", "I10"))).initial().to_bytes(), "must be .* of shape"),
    ],
)
def test_a_model_that_is_none_is_told_as_such_and_costs_nothing(model: bytes, reason: str, idle: Simulation) -> None:
    zenne = idle.participants["zenne"]
    zenne.handle("join", join_request(idle))
    with pytest.raises(SiteError, match=reason) as refused:
        zenne.handle("evaluate", {"version": version_id(model), "model": model})
    assert refused.value.code == "bad-model"
    assert idle.ledgers["zenne"].summary().cohorts[1].spent == 0


# -- metrics -----------------------------------------------------------------------------------------------------


def test_metrics_are_the_counts_with_the_planned_noise(idle: Simulation) -> None:
    plan = idle.plan
    model = other_model(plan)
    participant = replaced(idle, "zenne", random_bytes=seeded(99))
    participant.handle("join", join_request(idle))
    statement = participant.handle("evaluate", {"version": version_id(model), "model": model})["metrics"]["statement"]

    # The same randomness again: first one admission of each patient, then the noise.
    terms, again = evaluation_terms(plan), seeded(99)
    records = idle.records["zenne"]
    work = LocalWork(plan, records.training, records.test)
    counts = work.metric_counts(plan_model(plan).load(model), again)
    noise = discrete_gaussian(len(counts), 2.0 * 10**0.5, again)
    assert noise.any()
    assert statement["values"] == terms.values(counts + noise)
    assert statement["mechanism"] == {
        "event": {"kind": "metric-release", "noise_multiplier": 2.0, "purpose": terms.event.purpose},
        "noise": "discrete Gaussian on counts",
        "noise_std": terms.noise_std,
        "epsilon": terms.epsilon,
        "delta": 1e-5,
    }
    assert (statement["run_id"], statement["version"]) == (idle.run_id, version_id(model))


def test_metrics_of_a_version_leave_once(idle: Simulation) -> None:
    zenne = idle.participants["zenne"]
    zenne.handle("join", join_request(idle))
    model = other_model(idle.plan)
    first = zenne.handle("evaluate", {"version": version_id(model), "model": model})
    spent = idle.ledgers["zenne"].summary().cohorts[1].spent
    assert first["metrics"]["statement"]["ledger_head"] == idle.ledgers["zenne"].head
    # Asked again, perhaps because the answer was lost: the same bytes, not new ones.
    assert zenne.handle("evaluate", {"version": version_id(model), "model": model}) == first
    # Nor of another version: the plan asks for one report.
    start = plan_model(idle.plan).initial().to_bytes()
    with pytest.raises(SiteError, match="Only what the approved plan reserved"):
        zenne.handle("evaluate", {"version": version_id(start), "model": start})
    assert idle.ledgers["zenne"].summary().cohorts[1].spent == spent > 0


def test_metrics_lost_between_ledger_and_outbox_are_not_computed_again(idle: Simulation) -> None:
    zenne = replaced(idle, "zenne", outbox=FullOutbox())
    zenne.handle("join", join_request(idle))
    model = other_model(idle.plan)
    request = {"version": version_id(model), "model": model}
    with pytest.raises(SiteError, match="the local data set cannot be used"):
        zenne.handle("evaluate", request)
    with pytest.raises(SiteError, match="was committed before; nothing may be released") as refused:
        zenne.handle("evaluate", request)
    assert refused.value.code == "ledger"


class FullOutbox(InMemoryOutbox):
    def keep(self, key: str, statement: dict[str, Any]) -> None:
        raise DataError("no space left on device")


def test_the_outbox_on_disk_gives_back_what_it_kept(tmp_path: Path) -> None:
    outbox = FileOutbox(tmp_path / "outbox")
    assert outbox.get("run-1 metrics") is None
    outbox.keep("run-1 metrics", {"statement": {"a": 1}})
    assert FileOutbox(tmp_path / "outbox").get("run-1 metrics") == {"statement": {"a": 1}}
    assert outbox.get("run-2 metrics") is None
    (kept,) = (tmp_path / "outbox").iterdir()
    kept.write_bytes(b"{")
    with pytest.raises(DataError, match="cannot be read"):
        outbox.get("run-1 metrics")


def test_a_version_that_is_not_its_models_is_refused(idle: Simulation) -> None:
    zenne = idle.participants["zenne"]
    zenne.handle("join", join_request(idle))
    with pytest.raises(SiteError, match="model-differs"):
        zenne.handle("evaluate", {"version": idle.plan.initial_version, "model": other_model(idle.plan)})
    assert idle.ledgers["zenne"].summary().cohorts[1].spent == 0


def test_a_peers_key_with_anothers_certificate_stops_the_set_up(tmp_path: Path) -> None:
    """Swapped keys: the server passes on berkel's announcement as if dommel had signed it."""

    def alter(method: str, site: str, request: Message, real: Callable[[], Answer]) -> Answer:
        if (method, site) != ("share_keys", "amstel"):
            return real()
        honest = ShareRequest.from_message(request["secagg"])
        mask_keys = {**honest.mask_keys, "dommel": honest.mask_keys["berkel"]}
        lie = ShareRequest(round=honest.round, channel_keys=honest.channel_keys, mask_keys=mask_keys)
        return holder[0].participants[site].handle(method, {"secagg": lie.to_message()})

    holder: list[Simulation] = []
    holder.append(simulation(tmp_path, small_plan(sites=THREE), alter=alter))
    with pytest.raises(SiteError, match=r"dommel: .*mask key"):
        holder[0].run()
    assert len(bodies(holder[0].entries, RUN_STARTED)) == 1
