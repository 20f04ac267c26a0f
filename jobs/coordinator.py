"""The coordinator: carries out a plan over a transport, round by round, and records what happened.

    join -> keys -> rounds -> version -> evaluate -> finish

Invariants:

* the coordinator never sees one hospital's vector, only masked ones and their sum;
* sums are divided by public constants of the plan only;
* a round is announced after the state before it is durable, and logged with every survivor's signed receipt, each
  checked, before the next one is announced;
* a round is asked for once. One that lacks too many hospitals, or that a crash cut off, is logged as aborted: its sum
  is not used, what it cost stays spent, and the next round goes on with those who are there;
* before each round it looks who may still take part: a hospital whose certificate was suspended, revoked or has ended
  is asked nothing more, and a round the log bars for such a signature is given up;
* a coordinator that was killed goes on from its state (`run_state`) with the same result.

A hospital's answer is taken as data: whatever it is, at worst that hospital counts as dropped, with the reason.
The coordinator holds no keys and opens no files: what it records, and where its state goes, are arguments.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol, TypeVar

import numpy as np
from cryptography import x509

from audit.canonical import digest_of
from audit.entry import (
    METRICS_REPORTED,
    ROUND_ABORTED,
    ROUND_COMPLETED,
    RUN_FINISHED,
    RUN_STARTED,
    SITE_ACCEPTED,
    SITE_REFUSED,
    VERSION_CREATED,
)
from audit.errors import AuditError, StatementError, WitnessError
from audit.statement import ACCEPTANCE, METRICS, RECEIPT, REFUSAL, SignedStatement
from audit.witness_protocol import Answer
from jobs.errors import UNREACHABLE, RunAborted, RunInterrupted, SignerBarred, SiteError, SiteRefused
from jobs.icd_coding.lora import LoraParameters
from jobs.icd_coding.model import Parameters, version_id
from jobs.icd_coding.training import Training
from jobs.plan import Plan
from jobs.run_state import RunState
from jobs.signed_answers import MAX_METRICS_BYTES, SignedAnswers
from jobs.standing import Standing, certificate_pems
from jobs.terms import PATIENTS_SLACK, aggregate_norm_bound, aggregation_terms, secagg_parameters
from jobs.transport import Message, Transport
from privacy.curve import epsilon_curve
from privacy.secagg.errors import SecAggError
from privacy.secagg.messages import (
    Announcement,
    KeyShares,
    MaskedVector,
    SurvivorsSignature,
    UnmaskAnswer,
)
from privacy.secagg.messages import Message as SecAggMessage
from privacy.secagg.quantisation import FloatVector, dequantise
from privacy.secagg.server import Aggregate, SecAggServer

M = TypeVar("M", bound=SecAggMessage)

_LOG = logging.getLogger(__name__)

PROBE_PAUSE = 3  # as many times as hospitals that are missing took to answer; so asking costs at most a quarter
WITNESSED_EVERY = 20  # rounds; and when a run begins and ends
_UNLOGGED = "manifest-not-logged"
_BARRED = "barred"
_OF_LAST_ROUND = ("finished", "version", "optimiser", "participants")  # fields of the state that a round changes


class Record(Protocol):
    """Appends to the audit log. Durable when it returns; returns the log's size.

    Raises SignerBarred, and appends nothing, for a statement whose certificate the log suspended or revoked.
    """

    def __call__(self, kind: str, body: Mapping[str, Any]) -> int: ...


@dataclass(frozen=True)
class Timeouts:
    """How long a hospital may take, in seconds, before it counts as missing."""

    join: float = 300.0  # loading and encoding a hospital's letters
    call: float = 120.0  # one call of a round
    evaluate: float = 300.0
    probe: float = 5.0  # a sign of life from a hospital that was missing


@dataclass(frozen=True)
class Progress:
    """What a watcher is told after each step. Public."""

    stage: str  # joining, training, aborted, evaluating, done
    round: int
    rounds: int
    participants: tuple[str, ...]
    epsilon: float  # spent by the training patients so far
    seconds: float  # since this coordinator began
    round_seconds: float


@dataclass(frozen=True)
class Outcome:
    """What a run ends in."""

    version: str
    model: bytes
    parameters: Parameters | LoraParameters
    rounds: int
    metrics: Mapping[str, SignedStatement]  # by hospital


class Witnesses(Protocol):
    """Hospitals that cosign the log's checkpoints."""

    def enrol(self, site: str, value: object) -> None:
        """Take a hospital's signed enrolment; must not raise for what is wrong with it."""
        ...

    def ask(self, sends: Mapping[str, Callable[[bytes], Answer]]) -> int:
        """Ask hospitals to cosign; raises RunAborted when one saw another history."""
        ...


class Coordinator:
    """Carries out one run, or goes on with it.

    Args:
        approvals: the plan's approvals as JSON, sent to every hospital.
        standing: whose certificates count, as of when it is called.
        record: appends to the audit log.
        recorded: the bodies of this run's log entries of a kind, in order.
        store, fetch: keep an artifact and return its digest; read it again.
        save: keeps the run's state durably.
        resume: the state of an earlier coordinator of this run.
        predecessor: plan and model of the version the plan compares with, if it names one.
        announced: the data manifests each hospital has in the log; None where there is no log to ask.
        opened: shown the number and the sum of every aggregation, for an audit of what a run releases.
        witnesses: what hospitals cosign; None where there is no log.
        progress: called after each step; must not raise.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        run_id: str,
        transport: Transport,
        approvals: Sequence[Mapping[str, Any]],
        standing: Callable[[], Standing],
        root: x509.Certificate,
        record: Record,
        recorded: Callable[[str], Sequence[Mapping[str, Any]]],
        store: Callable[[bytes], str],
        fetch: Callable[[str], bytes],
        save: Callable[[RunState], None],
        clock: Callable[[], datetime],
        resume: RunState | None = None,
        predecessor: tuple[bytes, bytes] | None = None,
        announced: Mapping[str, frozenset[str]] | None = None,
        witnesses: Witnesses | None = None,
        opened: Callable[[int, FloatVector], None] = lambda number, total: None,
        progress: Callable[[Progress], None] = lambda _: None,
        timeouts: Timeouts | None = None,
    ) -> None:
        self._plan = plan
        self._run_id = run_id
        self._transport = transport
        self._approvals = [dict(approval) for approval in approvals]
        self._ask_standing = standing
        self._standing = standing()
        self._clock = clock
        self._signed = SignedAnswers(consortium=plan.consortium, standing=self._standing, root=root, clock=clock)
        self._record = record
        self._recorded = recorded
        self._store = store
        self._fetch = fetch
        self._save = save
        self._predecessor = predecessor
        self._announced = announced
        self._witnesses = witnesses
        self._opened = opened
        self._progress = progress
        self._timeouts = timeouts or Timeouts()
        self._secagg = SecAggServer(parameters=secagg_parameters(plan, run_id), verifier=self._signed.key)
        self._began = time.monotonic()
        self._acceptances: dict[str, SignedStatement] = {}  # of the hospitals that joined this coordinator
        self._answered: dict[str, int] = {}  # the last round each of them took part in, when it joined
        self._probe_from = 0.0  # when to ask those that are missing for a sign of life again, by the monotonic clock
        self._missing: set[str] = set()  # training hospitals that did not answer when they were last asked
        self._barred: dict[str, str] = {}  # hospitals of the plan that may not take part now, and why
        self._set_aside: set[str] = set()  # those of them that had joined; they may come back
        self._problems: list[SiteError] = []  # of the round in progress
        events = [plan.event(number) for number in range(1, plan.aggregations + 1)]
        self._epsilon = [0.0, *epsilon_curve(events, plan.delta)]
        if plan.epsilon is not None:
            self._epsilon[-1] = min(self._epsilon[-1], plan.epsilon)  # the plan's is computed on a finer grid
        self._training = Training(plan)
        self._state = self._first_state() if resume is None else self._settled(resume)
        self._train_up_to(self._state)

    def run(self) -> Outcome:
        """Carry out what is left of the plan.

        Raises:
            RunAborted: when a hospital refuses, or the plan cannot be carried out any more.
            RunInterrupted: when too many hospitals are missing; another coordinator can go on later.
            All that happened is recorded.
        """
        self._join_all()
        self._start()
        self._be_witnessed()
        for number in range(self._next_round(), self._plan.aggregations + 1):
            self._carry_out_round(number)
            if number % WITNESSED_EVERY == 0:
                self._be_witnessed()
        return self._conclude()

    # -- where the run stands ------------------------------------------------------------------------------------

    def _first_state(self) -> RunState:
        version = version_id(self._training.parameters.to_bytes())
        if version != self._plan.initial_version:
            raise RunAborted(
                f"the plan starts from {self._plan.initial_version}, this version of the code makes another"
            )
        return RunState(
            run_id=self._run_id, plan_hash=self._plan.hash, announced=0, finished=0, lost=(), version=version,
            optimiser=None, participants=(), log_size=0, pending=None,
        )  # fmt: skip

    def _settled(self, state: RunState) -> RunState:
        """A state kept earlier, with the entry of its last round in the log.

        Where the log bars that entry, the state is the one before the round, which is lost.
        """
        if (state.run_id, state.plan_hash) != (self._run_id, self._plan.hash):
            raise RunAborted(f"the state is of run {state.run_id} and plan {state.plan_hash}, not of this one")
        if state.pending is None:
            return state
        kind, body = state.pending["kind"], state.pending["body"]
        try:
            if body["round"] not in {entry["round"] for entry in self._recorded(kind)}:
                self._record(kind, body)
        except SignerBarred as error:
            _LOG.warning("run %s, round %d is lost: %s", self._run_id, body["round"], error)
            return _before_last_round(state)
        return replace(state, pending=None)

    def _train_up_to(self, state: RunState) -> None:
        """Take the training to where a state says it is."""
        self._training = Training(self._plan)
        if state.finished:
            optimiser = None if state.optimiser is None else self._fetch(state.optimiser)
            self._training.restore(self._fetch(state.version), optimiser)
        for number in state.lost:
            if number > state.finished:
                self._training.skip(number)

    def _start(self) -> None:
        """Log that the run started, once, and who takes part, each time."""
        plan = self._plan
        if not self._recorded(RUN_STARTED):
            self._record(
                RUN_STARTED,
                {
                    "run_id": self._run_id,
                    "plan_hash": plan.hash,
                    "sites": list(plan.sites),
                    "initial_version": plan.initial_version,
                },
            )
        for acceptance in self._acceptances.values():
            self._record(SITE_ACCEPTED, {"run_id": self._run_id, "acceptance": acceptance.to_json()})
        self._report("training", self._state.finished, plan.sites, 0.0)

    def _next_round(self) -> int:
        """The first round that no hospital can have answered; those before it without a result are lost."""
        answered = max([self._state.finished, *self._state.lost, *self._answered.values()])
        for number in range(self._state.finished + 1, answered + 1):
            if number not in self._state.lost:
                self._lose(number, "the coordinator was stopped before the round's sum was known", [])
        return answered + 1

    def _lose(self, number: int, reason: str, participants: Sequence[str]) -> None:
        """Give a round up: what it cost stays spent, the model stays as it was."""
        if number not in {body["round"] for body in self._recorded(ROUND_ABORTED)}:
            self._record(
                ROUND_ABORTED,
                {
                    "run_id": self._run_id,
                    "round": number,
                    "reason": reason[:4000],
                    "participants": list(participants),
                    "dropped": sorted(set(self._plan.sites) - set(participants)),
                },
            )
        self._training.skip(number)
        self._state = replace(
            self._state, announced=max(number, self._state.announced), lost=(*self._state.lost, number)
        )
        self._save(self._state)

    # -- who may take part ---------------------------------------------------------------------------------------

    def _look(self) -> None:
        """See whose certificates count now, and drop the hospitals that hold none.

        Raises: RunAborted when so many of them are revoked for ever that the plan cannot be carried out.
        """
        plan = self._plan
        self._standing = self._ask_standing()
        self._signed.follow(self._standing)
        everybody = self._standing.barred(at=self._clock())
        barred = {site: everybody[site] for site in (*plan.sites, *plan.evaluation_sites) if site in everybody}
        newly, self._barred = sorted(set(barred) - set(self._barred)), barred
        self._missing |= set(barred) & set(plan.sites)
        for site in newly:
            _LOG.warning("run %s: %s takes no part for now: %s", self._run_id, site, barred[site])
            if self._acceptances.pop(site, None) is not None:
                self._set_aside.add(site)
        gone = [site for site in plan.sites if site in barred and self._standing.revoked_for_ever(site)]
        if len(plan.sites) - len(gone) < plan.minimum_sites:
            self._release_joined()
            raise RunAborted("; ".join(f"{site}: {barred[site]}" for site in gone))

    def _news(self) -> Message:
        """What hospitals learn of it: the log's signed list of revocations."""
        return {} if self._standing.signed is None else {"revocations": self._standing.signed}

    # -- joining -------------------------------------------------------------------------------------------------

    def _join_all(self) -> None:
        """Ask every hospital to join. The first time all that train must; later as many as a round needs."""
        plan = self._plan
        self._look()
        everybody = sorted({*plan.sites, *plan.evaluation_sites})
        self._report("joining", self._state.finished, tuple(everybody), 0.0)
        problems = self._join(everybody, timeout_s=self._timeouts.join)
        missing = [problem for problem in problems if problem.site in plan.sites]
        self._missing = {problem.site for problem in missing}
        refused = [problem for problem in missing if isinstance(problem, SiteRefused) or problem.code == _UNLOGGED]
        first = not self._recorded(RUN_STARTED)
        if first and missing:
            self._release_joined()
            reasons = "; ".join(str(problem) for problem in missing)
            if all(problem.code == UNREACHABLE for problem in missing):
                raise RunInterrupted(reasons)
            raise RunAborted(reasons)
        if len(plan.sites) - len(missing) < plan.minimum_sites:
            reasons = "; ".join(str(problem) for problem in missing)
            if len(plan.sites) - len(refused) < plan.minimum_sites:
                self._release_joined()
                raise RunAborted(reasons)
            raise RunInterrupted(f"{len(missing)} of {len(plan.sites)} training hospitals are missing: {reasons}")

    def _join(self, sites: Sequence[str], *, timeout_s: float) -> list[SiteError]:
        """Send the plan; returns what kept hospitals from joining."""
        plan = self._plan
        request: Message = {
            "run_id": self._run_id,
            "plan_hash": plan.hash,
            "plan": plan.to_bytes(),
            "approvals": self._approvals,
            "certificates": certificate_pems(self._standing),
            **self._news(),
        }
        if self._standing.log_certificate is not None:
            request["log_certificate"] = self._standing.log_certificate
        asked = [site for site in sites if site not in self._barred]
        answers = self._transport.call("join", dict.fromkeys(asked, request), timeout_s=timeout_s)
        problems = [SiteError(site, _BARRED, self._barred[site]) for site in sites if site in self._barred]
        for site in asked:
            try:
                answer = _message(site, answers[site])
                acceptance = self._signed.statement(
                    site,
                    answer.get("acceptance"),
                    ACCEPTANCE,
                    {"run_id": self._run_id, "plan_hash": plan.hash, "site": site},
                )
                self._check_announced(site, acceptance)
                self._take_answered(site, answer.get("last_round"))
                self._acceptances[site] = acceptance
                self._set_aside.discard(site)
                if self._witnesses is not None and "enrolment" in answer:
                    self._witnesses.enrol(site, answer["enrolment"])
            except SiteError as error:
                problems.append(error)
            except AuditError as error:
                problems.append(SiteError(site, "bad-answer", f"its acceptance does not hold: {error}"))
        for problem in problems:
            _LOG.warning("run %s: %s did not join: %s", self._run_id, problem.site, problem)
            if isinstance(problem, SiteRefused):
                self._record_refusal(problem)
        return problems

    def _take_answered(self, site: str, last_round: object) -> None:
        """The last round the hospital took part in; a claim beyond what was announced would make us skip rounds."""
        most = self._state.announced
        if isinstance(last_round, bool) or not isinstance(last_round, int) or not 0 <= last_round <= most:
            raise SiteError(site, "bad-answer", f"last_round: expected a round up to {most}, got {last_round!r}")
        self._answered[site] = last_round

    def _check_announced(self, site: str, acceptance: SignedStatement) -> None:
        """A release is traced to data sets the log knows: better found now than after the epsilon is spent."""
        if self._announced is None or acceptance.statement["manifest"] in self._announced.get(site, frozenset()):
            return
        self._transport.call("finish", {site: {}}, timeout_s=self._timeouts.call)
        raise SiteError(
            site,
            _UNLOGGED,
            "the log does not know its data set: run `zegel site manifest` there and `zegel consortium manifest` here",
        )

    def _record_refusal(self, problem: SiteRefused) -> None:
        try:
            signed = self._signed.statement(
                problem.site, problem.refusal, REFUSAL, {"site": problem.site, "plan_hash": self._plan.hash}
            )
        except AuditError as error:
            # It still ends the run, but only what the hospital signed about this plan enters the log.
            _LOG.warning("run %s: the refusal of %s is not logged: %s", self._run_id, problem.site, error)
            return
        self._record(SITE_REFUSED, {"run_id": self._run_id, "refusal": signed.to_json()})

    def _release_joined(self) -> None:
        """Tell those who joined that the run is over, so that they free what they reserved."""
        self._transport.call("finish", {site: {} for site in self._acceptances}, timeout_s=self._timeouts.call)
        self._transport.call("finish", {site: {} for site in self._set_aside}, timeout_s=self._timeouts.probe)

    # -- rounds --------------------------------------------------------------------------------------------------

    def _set_up(self, number: int) -> None:
        """Keys for round `number` from everybody who is there."""
        there = [site for site in self._plan.sites if site not in self._missing]
        self._exchange(
            "announce",
            self._secagg.start_set_up(number, there),
            Announcement,
            self._secagg.receive_announcement,
            also={"certificates": certificate_pems(self._standing), **self._news()},
        )
        self._exchange("share_keys", self._secagg.share_requests(), KeyShares, self._secagg.receive_key_shares)

    def _welcome_back(self, *, at_once: bool = False) -> None:
        """Let hospitals that were missing join again, if they answer at once; nobody waits long for them."""
        absent = sorted(self._missing - set(self._barred))
        asked = time.monotonic()
        if not absent or (asked < self._probe_from and not at_once):
            return
        probes = self._transport.call("alive", {site: {} for site in absent}, timeout_s=self._timeouts.probe)
        now = time.monotonic()
        self._probe_from = now + PROBE_PAUSE * (now - asked)
        there = sorted(site for site, answer in probes.items() if isinstance(answer, dict))
        # A process that was started again has to join, and so has one that joined an earlier coordinator.
        strangers = [
            site
            for site in there
            if site not in self._acceptances or _message(site, probes[site]).get("run_id") != self._run_id
        ]
        refused = (
            {problem.site for problem in self._join(strangers, timeout_s=self._timeouts.join)} if strangers else set()
        )
        for site in sorted(set(strangers) - refused):
            self._record(SITE_ACCEPTED, {"run_id": self._run_id, "acceptance": self._acceptances[site].to_json()})
        self._missing -= set(there) - refused

    def _carry_out_round(self, number: int) -> None:
        started = time.monotonic()
        plan = self._plan
        model = self._training.parameters.to_bytes()
        version_in = version_id(model)
        receipts: dict[str, SignedStatement] = {}
        self._problems = []
        self._look()
        try:
            self._welcome_back()
            if self._secagg.next_round != number or set(self._secagg.ready) != set(plan.sites) - self._missing:
                self._set_up(number)  # somebody who is there has no key
            requests = self._secagg.start_round()
            self._state = replace(self._state, announced=number)
            self._save(self._state)

            def receive(site: str, message: MaskedVector, answer: Message) -> None:
                receipt = self._check_receipt(site, number, version_in, message, answer.get("receipt"))
                self._secagg.receive_masked_vector(site, message)
                receipts[site] = receipt

            extra = {"version_in": version_in, "model": model}
            self._exchange("round", requests, MaskedVector, receive, extra=extra, also=self._news())
            self._exchange(
                "survivors",
                self._secagg.survivors_requests(),
                SurvivorsSignature,
                self._secagg.receive_signature,
            )
            following = number + 1 if number < plan.aggregations else None
            self._exchange("unmask", self._secagg.unmask_requests(following), UnmaskAnswer, self._secagg.receive_answer)
            aggregate = self._secagg.finish()
        except SecAggError as error:
            self._give_up(number, str(error), tuple(sorted(receipts)))
            return
        total = self._decode(number, aggregate)
        self._opened(number, total)
        self._check_norm(number, aggregate)
        self._training.apply(number, total, hospitals=len(aggregate.survivors))
        if aggregate.suspects:
            names = ", ".join(aggregate.suspects)
            _LOG.warning("run %s, round %d: shares do not fit, some of these lie: %s", self._run_id, number, names)
        for problem in self._problems:
            _LOG.warning("run %s, round %d: %s", self._run_id, number, problem)
        try:
            self._finish_round(number, version_in, aggregate, receipts)
        except SignerBarred as error:
            self._take_back(number, error, aggregate.survivors)
            return
        self._report("training", number, aggregate.survivors, time.monotonic() - started)

    def _give_up(self, number: int, reason: str, participants: tuple[str, ...]) -> None:
        """A round that did not come about. The run goes on while enough hospitals are there."""
        reasons = "; ".join([reason, *(str(problem) for problem in self._problems)])
        _LOG.warning("run %s, round %d: %s", self._run_id, number, reasons)
        there = len(self._plan.sites) - len(self._missing)
        if number <= self._state.announced:
            self._lose(number, reasons, participants)
            self._report("aborted", number, participants, 0.0)
            if there >= self._plan.minimum_sites:
                return
        raise RunInterrupted(
            f"round {number}: {there} of {len(self._plan.sites)} training hospitals are there, "
            f"the plan needs {self._plan.minimum_sites}: {reasons}"
        )

    def _check_norm(self, number: int, aggregate: Aggregate) -> None:
        """A sum that honest hospitals do not make is not used, and somebody has to look before more is spent.

        Raises: RunInterrupted, after the round was logged as aborted.
        """
        plan, survivors = self._plan, aggregate.survivors
        # The whole vector: honest hospitals leave zero what is beyond this aggregation's dimension.
        norm = float(np.linalg.norm(dequantise(aggregate.total, scale=aggregation_terms(plan, number).scale)))
        bound = aggregate_norm_bound(plan, number, hospitals=len(survivors))
        if norm <= bound:
            return
        reason = (
            f"the sum of {len(survivors)} hospitals has L2 norm {norm:.6g}, honest ones make at most {bound:.6g}: one "
            f"sent what its patients cannot make, or they hold more than {PATIENTS_SLACK:g} times the "
            f"{plan.nominal_patients} patients the plan counts with; masks hide whose it is, and the sum is not used"
        )
        _LOG.error("run %s, round %d: %s", self._run_id, number, reason)
        self._lose(number, reason, survivors)
        self._report("aborted", number, survivors, 0.0)
        raise RunInterrupted(
            f"round {number}: {reason}. Have the hospitals check their software and data; then go on with "
            f"`zegel run resume`, or propose a plan without the one at fault"
        )

    def _decode(self, number: int, aggregate: Aggregate) -> np.ndarray[Any, np.dtype[np.float64]]:
        terms = aggregation_terms(self._plan, number)
        return dequantise(aggregate.total, scale=terms.scale)[: terms.dimension]

    def _finish_round(
        self, number: int, version_in: str, aggregate: Aggregate, receipts: Mapping[str, SignedStatement]
    ) -> None:
        """Keep the round's result, then log it: in this order, so that a crash loses neither."""
        optimiser = self._training.optimiser_bytes()
        version_out = self._store(self._training.parameters.to_bytes())
        entry = {
            "run_id": self._run_id,
            "round": number,
            "plan_hash": self._plan.hash,
            "version_in": version_in,
            "version_out": version_out,
            "participants": list(aggregate.survivors),
            # Also those that were lost before the round's vectors were asked for.
            "dropped": sorted(set(self._plan.sites) - set(aggregate.survivors)),
            "receipts": [receipts[site].to_json() for site in aggregate.survivors],
        }
        before = {field: getattr(self._state, field) for field in _OF_LAST_ROUND}
        self._state = replace(
            self._state,
            finished=number,
            version=version_out,
            optimiser=None if optimiser is None else self._store(optimiser),
            participants=aggregate.survivors,
            pending={"kind": ROUND_COMPLETED, "body": entry, "before": before},
        )
        self._save(self._state)
        size = self._record(ROUND_COMPLETED, entry)
        self._state = replace(self._state, pending=None, log_size=size)

    def _take_back(self, number: int, error: SignerBarred, participants: tuple[str, ...]) -> None:
        """The log took a hospital's certificate back while the round went on, so nothing may rest on the round."""
        _LOG.warning("run %s, round %d is lost: %s", self._run_id, number, error)
        self._state = _before_last_round(self._state)
        self._train_up_to(self._state)
        self._lose(number, str(error), participants)
        self._report("aborted", number, participants, 0.0)

    def _check_receipt(
        self, site: str, number: int, version_in: str, message: MaskedVector, value: object
    ) -> SignedStatement:
        expected = {
            "run_id": self._run_id,
            "round": number,
            "plan_hash": self._plan.hash,
            "version_in": version_in,
            "masked_upload": digest_of(message.vector.tobytes()),
            "privacy_event": self._plan.event(number).to_json(),
            "manifest": self._acceptances[site].statement["manifest"],
            "site": site,
        }
        signed = self._signed.statement(site, value, RECEIPT, expected)
        # All receipts of a round share one entry of limited size, so none may bring fields of its own.
        if further := sorted(set(signed.statement) - {*expected, "type", "consortium", "time", "ledger_head"}):
            raise StatementError(f"receipt: unknown field(s) {', '.join(further)[:200]}")
        return signed

    # -- the end -------------------------------------------------------------------------------------------------

    def _conclude(self) -> Outcome:
        plan, final = self._plan, self._training.parameters
        if len(self._state.lost) == plan.aggregations:
            self._release_joined()
            raise RunAborted("every round was lost, so there is no version; what was spent stays recorded")
        model = final.to_bytes()
        version = self._store(model)
        if not self._recorded(VERSION_CREATED):
            self._record(
                VERSION_CREATED,
                {
                    "version": version,
                    "parents": [plan.initial_version],
                    "run_id": self._run_id,
                    "rounds": [1, plan.aggregations],
                    "plan_hash": plan.hash,
                    "model": version,
                },
            )
        if not self._recorded(RUN_FINISHED):
            self._record(
                RUN_FINISHED,
                {
                    "run_id": self._run_id,
                    "plan_hash": plan.hash,
                    "rounds": plan.aggregations,
                    "version": version,
                    "epsilon": plan.epsilon,
                    "delta": plan.delta,
                    "accountant": plan.accountant,
                },
            )
        metrics = self._evaluate_all(version, model)
        self._be_witnessed()
        self._release_joined()
        self._report("done", plan.aggregations, plan.sites, 0.0)
        return Outcome(version, model, final, plan.aggregations, metrics)

    def _evaluate_all(self, version: str, model: bytes) -> dict[str, SignedStatement]:
        """Metrics of every evaluating hospital that joined; those the log already has are not asked for again."""
        self._report("evaluating", self._plan.aggregations, self._plan.evaluation_sites, 0.0)
        self._look()
        metrics = {
            body["site"]: SignedStatement.from_json(body["metrics"])
            for body in self._recorded(METRICS_REPORTED)
            if body["version"] == version
        }
        self._welcome_back(at_once=True)
        joined = [site for site in self._plan.evaluation_sites if site in self._acceptances and site not in metrics]
        asked = [site for site in joined if site not in self._missing]
        request: Message = {"version": version, "model": model}
        if self._predecessor is not None:
            request["predecessor_plan"], request["predecessor"] = self._predecessor
        answers = self._transport.call("evaluate", dict.fromkeys(asked, request), timeout_s=self._timeouts.evaluate)
        problems = [f"{site} is missing" for site in joined if site in self._missing]
        for site in asked:
            try:
                signed = self._signed.statement(
                    site,
                    _message(site, answers[site]).get("metrics"),
                    METRICS,
                    {"run_id": self._run_id, "version": version, "site": site},
                    longest=MAX_METRICS_BYTES,
                )
            except SiteError as error:
                problems.append(str(error))
                continue
            except AuditError as error:
                problems.append(f"{site}: its metrics do not hold: {error}")
                continue
            self._record(METRICS_REPORTED, {"version": version, "site": site, "metrics": signed.to_json()})
            metrics[site] = signed
        if problems:
            raise RunInterrupted("the model is trained, but not evaluated everywhere: " + "; ".join(problems))
        return metrics

    def _be_witnessed(self) -> None:
        """Have the hospitals that are there cosign the log as it stands."""
        if self._witnesses is None:
            return

        def send_to(site: str) -> Callable[[bytes], Answer]:
            def send(body: bytes) -> Answer:
                answers = self._transport.call("cosign", {site: {"request": body}}, timeout_s=self._timeouts.call)
                try:
                    return Answer.from_json(_message(site, answers[site]).get("answer"))
                except SiteError as error:
                    raise WitnessError(str(error)) from error

            return send

        self._witnesses.ask({site: send_to(site) for site in self._acceptances if site not in self._missing})

    # -- what the steps share ------------------------------------------------------------------------------------

    def _exchange(
        self,
        method: str,
        requests: Mapping[str, SecAggMessage],
        answer_type: type[M],
        receive: Callable[..., None],
        *,
        extra: Mapping[str, Any] | None = None,
        also: Mapping[str, Any] | None = None,
    ) -> None:
        """One call of the protocol. A hospital that fails or answers wrongly counts as dropped, with its reason.

        Args:
            extra, also: go with every request; `receive` is given the whole answer where there is `extra`.
        """
        fields = {**(extra or {}), **(also or {})}
        messages = {site: {"secagg": request.to_message(), **fields} for site, request in requests.items()}
        answers = self._transport.call(method, messages, timeout_s=self._timeouts.call)
        for site in requests:
            try:
                answer = _message(site, answers[site])
                message = answer_type.from_message(answer.get("secagg"))
                if extra is None:
                    receive(site, message)
                else:
                    receive(site, message, answer)
            except SiteError as error:
                self._problems.append(error)
                self._missing.add(site)
            except (SecAggError, AuditError) as error:
                self._problems.append(SiteError(site, "bad-answer", str(error)))
                self._missing.add(site)

    def _report(self, stage: str, number: int, participants: Sequence[str], round_seconds: float) -> None:
        self._progress(
            Progress(
                stage,
                number,
                self._plan.aggregations,
                tuple(participants),
                self._epsilon[number],
                time.monotonic() - self._began,
                round_seconds,
            )
        )


def _before_last_round(state: RunState) -> RunState:
    """The state before the round whose entry is pending; the round stays announced, and is never asked for again."""
    if state.pending is None:
        raise RuntimeError("expected a state whose last round is not yet logged")
    before = state.pending["before"]
    return replace(state, **{**before, "participants": tuple(before["participants"])}, pending=None)


def _message(site: str, answer: object) -> Message:
    """The answer, if it is a message. Raises SiteError: the hospital's own, or because it is none."""
    if isinstance(answer, SiteError):
        raise answer
    if not isinstance(answer, dict):
        raise SiteError(site, "bad-answer", f"answered with {type(answer).__name__}, expected a message")
    return answer
