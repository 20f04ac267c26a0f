"""The coordinator: carries out a plan over a transport, round by round, and records what happened.

    join all -> set up keys -> rounds -> version -> evaluate -> finish

Invariants:

* the coordinator never sees one hospital's vector, only masked ones and their sum;
* sums are divided by public constants of the plan only;
* a round is recorded before the next one starts, with every survivor's signed receipt, each checked;
* a round that lacks too many hospitals is recorded as aborted and the run ends; nothing was unmasked.

A hospital's answer is taken as data: whatever it is, at worst that hospital counts as dropped, with the reason.
The coordinator holds no keys and opens no files: what it records, and where checkpoints go, are arguments.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar

import numpy as np
from cryptography import x509

from audit.canonical import canonical_json, digest_of
from audit.certificates import CLIENT, certificate_pem, identity_of, public_key_of, verify_certificate
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
from audit.errors import AuditError, StatementError
from audit.schema import signed as signed_schema
from audit.signatures import verify_bytes
from audit.statement import ACCEPTANCE, METRICS, RECEIPT, REFUSAL, SignedStatement, verify_statement
from jobs.errors import RunAborted, SiteError, SiteRefused
from jobs.icd_coding.model import Parameters, version_id
from jobs.icd_coding.training import Training
from jobs.plan import Plan
from jobs.terms import aggregation_terms, model_shape, secagg_parameters
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
from privacy.secagg.quantisation import dequantise
from privacy.secagg.server import Aggregate, SecAggServer

M = TypeVar("M", bound=SecAggMessage)

_LOG = logging.getLogger(__name__)

JOIN_TIMEOUT_S = 300.0  # loading and encoding a hospital's letters
CALL_TIMEOUT_S = 120.0  # one call of a round
EVALUATE_TIMEOUT_S = 300.0
MAX_STATEMENT_BYTES = 8192  # of what a hospital signs; the log takes no entry above 65,535


class Record(Protocol):
    """Appends to the audit log. Durable when it returns."""

    def __call__(self, kind: str, body: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True)
class Progress:
    """What a watcher is told after each step. Public."""

    stage: str  # joining, training, evaluating, done
    round: int
    rounds: int
    participants: tuple[str, ...]
    epsilon: float  # spent by the training patients so far
    seconds: float  # since the run began
    round_seconds: float


@dataclass(frozen=True)
class Outcome:
    """What a run ends in."""

    version: str
    model: bytes
    parameters: Parameters
    rounds: int
    metrics: Mapping[str, SignedStatement]  # by hospital


class Coordinator:
    """Carries out one run.

    Args:
        approvals: the plan's approvals as JSON, sent to every hospital.
        certificates: all certificates the consortium issued, by digest.
        record: appends to the audit log.
        store: keeps an artifact and returns its digest.
        announced: the data manifests each hospital has in the log; None where there is no log to ask.
        progress: called after each step; must not raise.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        run_id: str,
        transport: Transport,
        approvals: Sequence[Mapping[str, Any]],
        certificates: Mapping[str, x509.Certificate],
        root: x509.Certificate,
        record: Record,
        store: Callable[[bytes], str],
        clock: Callable[[], datetime],
        announced: Mapping[str, frozenset[str]] | None = None,
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self._plan = plan
        self._run_id = run_id
        self._transport = transport
        self._approvals = [dict(approval) for approval in approvals]
        self._certificates = certificates
        self._root = root
        self._record = record
        self._store = store
        self._clock = clock
        self._announced = announced
        self._progress = progress
        self._problems: list[SiteError] = []  # of the round in progress
        self._secagg = SecAggServer(parameters=secagg_parameters(plan, run_id), verifier=self._verify_site)
        self._began = time.monotonic()
        events = [plan.event(number) for number in range(1, plan.aggregations + 1)]
        self._epsilon = [0.0, *epsilon_curve(events, plan.delta)]
        if plan.epsilon is not None:
            self._epsilon[-1] = min(self._epsilon[-1], plan.epsilon)  # the plan's is computed on a finer grid

    def run(self) -> Outcome:
        """Carry out the whole plan.

        Raises: RunAborted when a training hospital refuses or a round lacks too many; all that happened is recorded.
        """
        plan = self._plan
        initial = model_shape(plan).initial()
        if version_id(initial.to_bytes()) != plan.initial_version:
            raise RunAborted(f"the plan starts from {plan.initial_version}, this version of the code makes another")
        self._join_all()
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
        self._report("training", 0, plan.sites, 0.0)
        training = Training(plan, initial)
        for number in range(1, plan.aggregations + 1):
            self._carry_out_round(number, training)
        final = training.parameters
        model = final.to_bytes()
        version = version_id(model)
        self._record(
            VERSION_CREATED,
            {
                "version": version,
                "parents": [plan.initial_version],
                "run_id": self._run_id,
                "rounds": [1, plan.aggregations],
                "plan_hash": plan.hash,
                "model": self._store(model),
            },
        )
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
        self._transport.call("finish", {site: {} for site in self._joined}, timeout_s=CALL_TIMEOUT_S)
        self._report("done", plan.aggregations, plan.sites, 0.0)
        return Outcome(version, model, final, plan.aggregations, metrics)

    # -- joining -------------------------------------------------------------------------------------------------

    def _join_all(self) -> None:
        plan = self._plan
        everybody = sorted({*plan.sites, *plan.evaluation_sites})
        self._report("joining", 0, tuple(everybody), 0.0)
        request: Message = {
            "run_id": self._run_id,
            "plan_hash": plan.hash,
            "plan": plan.to_bytes(),
            "approvals": self._approvals,
            "certificates": [certificate_pem(certificate) for certificate in self._certificates.values()],
        }
        answers = self._transport.call("join", dict.fromkeys(everybody, request), timeout_s=JOIN_TIMEOUT_S)
        self._acceptances: dict[str, SignedStatement] = {}
        problems: list[SiteError] = []
        for site in everybody:
            answer = answers[site]
            try:
                acceptance = self._check_signed(
                    site,
                    _message(site, answer).get("acceptance"),
                    ACCEPTANCE,
                    {"run_id": self._run_id, "plan_hash": plan.hash, "site": site},
                )
                self._check_announced(site, acceptance)
                self._acceptances[site] = acceptance
            except SiteError as error:
                problems.append(error)
            except AuditError as error:
                problems.append(SiteError(site, "bad-answer", f"its acceptance does not hold: {error}"))
        for problem in problems:
            _LOG.warning("run %s: %s did not join: %s", self._run_id, problem.site, problem)
            if isinstance(problem, SiteRefused):
                self._record_refusal(problem)
        missing = [problem for problem in problems if problem.site in plan.sites]
        self._joined = sorted(self._acceptances)
        if missing:
            self._release_joined()
            raise RunAborted("; ".join(str(problem) for problem in missing))

    def _check_announced(self, site: str, acceptance: SignedStatement) -> None:
        """A release is traced to data sets the log knows: better found now than after the epsilon is spent."""
        if self._announced is None or acceptance.statement["manifest"] in self._announced.get(site, frozenset()):
            return
        self._transport.call("finish", {site: {}}, timeout_s=CALL_TIMEOUT_S)
        raise SiteError(
            site,
            "manifest-not-logged",
            "the log does not know its data set: run `zegel site manifest` there and `zegel consortium manifest` here",
        )

    def _record_refusal(self, problem: SiteRefused) -> None:
        try:
            signed = self._check_signed(
                problem.site, problem.refusal, REFUSAL, {"site": problem.site, "plan_hash": self._plan.hash}
            )
        except AuditError as error:
            # It still ends the run, but only what the hospital signed about this plan enters the log.
            _LOG.warning("run %s: the refusal of %s is not logged: %s", self._run_id, problem.site, error)
            return
        self._record(SITE_REFUSED, {"run_id": self._run_id, "refusal": signed.to_json()})

    def _release_joined(self) -> None:
        """Tell those who joined that the run is over, so that they free what they reserved."""
        self._transport.call("finish", {site: {} for site in self._joined}, timeout_s=CALL_TIMEOUT_S)

    # -- rounds --------------------------------------------------------------------------------------------------

    def _set_up(self, number: int, sites: Sequence[str]) -> None:
        """Keys for round `number` from hospitals that have none for it."""
        self._exchange(
            "announce",
            self._secagg.start_set_up(number, sites),
            Announcement,
            self._secagg.receive_announcement,
        )
        self._exchange("share_keys", self._secagg.share_requests(), KeyShares, self._secagg.receive_key_shares)

    def _carry_out_round(self, number: int, training: Training) -> None:
        started = time.monotonic()
        plan = self._plan
        model = training.parameters.to_bytes()
        version_in = version_id(model)
        receipts: dict[str, SignedStatement] = {}
        participants: tuple[str, ...] = ()
        self._problems = []
        try:
            if set(self._secagg.ready) != set(plan.sites):
                self._set_up(number, plan.sites)  # somebody is missing a key: give everyone the chance to come back
            requests = self._secagg.start_round()
            participants = tuple(requests)

            def receive(site: str, message: MaskedVector, answer: Message) -> None:
                receipt = self._check_receipt(site, number, version_in, message, answer.get("receipt"))
                self._secagg.receive_masked_vector(site, message)
                receipts[site] = receipt

            self._exchange("round", requests, MaskedVector, receive, extra={"version_in": version_in, "model": model})
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
            dropped = sorted(set(participants) - set(receipts))
            reasons = [str(error), *(str(problem) for problem in self._problems)]
            self._record(
                ROUND_ABORTED,
                {
                    "run_id": self._run_id,
                    "round": number,
                    "reason": "; ".join(reasons)[:4000],
                    "participants": list(participants),
                    "dropped": dropped,
                },
            )
            self._release_joined()
            raise RunAborted(f"round {number}: " + "; ".join(reasons)) from error
        training.apply(number, self._decode(number, aggregate))
        for problem in self._problems:
            _LOG.warning("run %s, round %d: %s", self._run_id, number, problem)
        self._record_round(number, version_in, training, aggregate, receipts)
        self._report("training", number, aggregate.survivors, time.monotonic() - started)

    def _decode(self, number: int, aggregate: Aggregate) -> np.ndarray[Any, np.dtype[np.float64]]:
        terms = aggregation_terms(self._plan, number)
        return dequantise(aggregate.total, scale=terms.scale)[: terms.dimension]

    def _record_round(
        self,
        number: int,
        version_in: str,
        training: Training,
        aggregate: Aggregate,
        receipts: Mapping[str, SignedStatement],
    ) -> None:
        self._record(
            ROUND_COMPLETED,
            {
                "run_id": self._run_id,
                "round": number,
                "plan_hash": self._plan.hash,
                "version_in": version_in,
                "version_out": version_id(training.parameters.to_bytes()),
                "participants": list(aggregate.survivors),
                # Also those that were lost before the round's vectors were asked for.
                "dropped": sorted(set(self._plan.sites) - set(aggregate.survivors)),
                "receipts": [receipts[site].to_json() for site in aggregate.survivors],
            },
        )

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
        signed = self._check_signed(site, value, RECEIPT, expected)
        # All receipts of a round share one entry of limited size, so none may bring fields of its own.
        if further := sorted(set(signed.statement) - {*expected, "type", "consortium", "time", "ledger_head"}):
            raise StatementError(f"receipt: unknown field(s) {', '.join(further)[:200]}")
        return signed

    # -- evaluation ----------------------------------------------------------------------------------------------

    def _evaluate_all(self, version: str, model: bytes) -> dict[str, SignedStatement]:
        self._report("evaluating", self._plan.aggregations, self._plan.evaluation_sites, 0.0)
        asked = [site for site in self._plan.evaluation_sites if site in self._joined]
        request: Message = {"version": version, "model": model}
        answers = self._transport.call("evaluate", dict.fromkeys(asked, request), timeout_s=EVALUATE_TIMEOUT_S)
        metrics: dict[str, SignedStatement] = {}
        problems: list[str] = []
        for site in asked:
            try:
                signed = self._check_signed(
                    site,
                    _message(site, answers[site]).get("metrics"),
                    METRICS,
                    {"run_id": self._run_id, "version": version, "site": site},
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
            self._release_joined()
            raise RunAborted("the model is trained, but not evaluated everywhere: " + "; ".join(problems))
        return metrics

    # -- what the steps share ------------------------------------------------------------------------------------

    def _exchange(
        self,
        method: str,
        requests: Mapping[str, SecAggMessage],
        answer_type: type[M],
        receive: Callable[..., None],
        *,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """One call of the protocol. A hospital that fails or answers wrongly counts as dropped, with its reason."""
        messages = {site: {"secagg": request.to_message(), **(extra or {})} for site, request in requests.items()}
        answers = self._transport.call(method, messages, timeout_s=CALL_TIMEOUT_S)
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
            except (SecAggError, AuditError) as error:
                self._problems.append(SiteError(site, "bad-answer", str(error)))

    def _check_signed(self, site: str, value: object, kind: str, expected: Mapping[str, Any]) -> SignedStatement:
        signed_schema(kind)(value, kind)
        signed = SignedStatement.from_json(value)
        if (size := len(canonical_json(signed.to_json()))) > MAX_STATEMENT_BYTES:
            raise StatementError(f"signed statement of {size} bytes, at most {MAX_STATEMENT_BYTES} allowed")
        identity = verify_statement(
            signed,
            self._certificates,
            self._root,
            at=self._clock(),
            expected_type=kind,
            consortium=self._plan.consortium,
            roles=frozenset({CLIENT}),
        )
        if identity.name != site:
            raise StatementError(f"signed by {identity.name}, expected {site}")
        for field, wanted in expected.items():
            if signed.statement.get(field) != wanted:
                raise StatementError(f"{field}: expected {wanted!r}, got {signed.statement.get(field)!r}")
        return signed

    def _verify_site(self, site: str, data: bytes, signature: bytes) -> None:
        problems = []
        for certificate in self._certificates.values():
            if identity_of(certificate).name != site:
                continue
            try:
                verify_certificate(certificate, self._root, at=self._clock(), roles=frozenset({CLIENT}))
                verify_bytes(public_key_of(certificate), signature, data)
                return
            except AuditError as error:
                problems.append(str(error))
        raise StatementError(f"{site}: " + ("; ".join(problems) or "no certificate was issued to it"))

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


def _message(site: str, answer: object) -> Message:
    """The answer, if it is a message. Raises SiteError: the hospital's own, or because it is none."""
    if isinstance(answer, SiteError):
        raise answer
    if not isinstance(answer, dict):
        raise SiteError(site, "bad-answer", f"answered with {type(answer).__name__}, expected a message")
    return answer
