"""The hospital in a run: one object that answers the coordinator, and refuses.

    join -> announce, share_keys -> round, survivors, unmask (per round) -> evaluate -> finish
    cosign at any time in between, alive at any time

Invariants, whatever the coordinator sends:

* nothing is read and nothing computed before the guard let the plan pass and the ledger reserved its cost;
* a round's spend is durable in the ledger before its vector exists; a round is answered once, also after a crash;
* what leaves is a masked noisy vector, counts with noise, or plain and listed in `jobs.leaves.LEAVES`;
* errors leave as a code and a sentence without data.

Keys, clock, randomness, data and storage are arguments: tests and benchmarks run this same code in memory.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography import x509

from audit.canonical import canonical_json, digest_of, format_time
from audit.certificates import (
    CLIENT,
    PrivateKey,
    certificate_digest,
    identity_of,
    load_certificate,
    public_key_of,
    verify_certificate,
)
from audit.errors import AuditError, CertificateError, StatementError
from audit.revocation import NO_REVOCATIONS, Revocations
from audit.signatures import sign_bytes, verify_bytes
from audit.statement import ACCEPTANCE, METRICS, RECEIPT, REFUSAL, SignedStatement, sign_statement
from jobs.errors import PlanError, SiteError, SiteRefused
from jobs.icd_coding.errors import CodingError
from jobs.icd_coding.model import version_id
from jobs.plan import Plan
from jobs.terms import (
    Predecessor,
    aggregation_terms,
    evaluation_terms,
    plan_encoder,
    plan_model,
    secagg_parameters,
)
from jobs.timings import Stopwatch, TimedCall
from jobs.transport import Message
from privacy.errors import (
    BudgetExceeded,
    BudgetMissing,
    LedgerBusy,
    LedgerCorrupt,
    LedgerRolledBack,
    LedgerUnusable,
    NotReserved,
    PrivacyError,
)
from privacy.events import LocalSteps
from privacy.ledger import Ledger
from privacy.noise import discrete_gaussian
from privacy.secagg.client import SecAggClient
from privacy.secagg.errors import SecAggError
from privacy.secagg.memory import RoundMemory
from privacy.secagg.messages import (
    AnnounceRequest,
    RoundRequest,
    ShareRequest,
    SurvivorsRequest,
    UnmaskRequest,
)
from privacy.secagg.quantisation import quantise
from site_packages.errors import DataError
from site_packages.guard import Admitted, GuardRefusal, check_plan
from site_packages.learner import AnyParameters
from site_packages.limits import TRAINING, VALIDATION, Limits
from site_packages.local_work import Earlier, LocalWork
from site_packages.outbox import Outbox
from site_packages.revocations import KnownRevocations
from site_packages.witnessing import HospitalWitness

_LOG = logging.getLogger(__name__)


@dataclass
class _Run:
    """A run this hospital has joined."""

    run_id: str
    admitted: Admitted
    certificates: Mapping[str, tuple[x509.Certificate, ...]]  # of the other hospitals, by name
    client: SecAggClient | None  # None where this hospital only evaluates
    work: LocalWork

    @property
    def plan(self) -> Plan:
        return self.admitted.plan


class Participant:
    """Answers the coordinator's calls for one hospital.

    Args:
        key, certificate: sign receipts and protocol messages.
        root: the consortium's root, as installed out of band.
        manifest: reads the current data set's manifest (canonical bytes, no records).
        load_work: prepares the data of an admitted plan; called only after the guard and the ledger agreed.
        known_codes: the codes the hospital's code table has, or None when it cannot say.
        installed_encoders: digests of the language models on this machine.
        witness: cosigns the consortium's log; None: this hospital does not.
        revocations: what it knows about revoked certificates; then every run and round must bring the log's list. None
            where there is no log.
        random_bytes: cryptographically secure, `os.urandom`.
        timed: told how long each call took; it stays at the hospital. Must not raise.
    """

    def __init__(
        self,
        *,
        site: str,
        consortium: str,
        key: PrivateKey,
        certificate: x509.Certificate,
        root: x509.Certificate,
        limits: Limits,
        ledger: Ledger,
        memory: RoundMemory,
        outbox: Outbox,
        witness: HospitalWitness | None = None,
        revocations: KnownRevocations | None = None,
        manifest: Callable[[], bytes],
        load_work: Callable[[Plan], LocalWork],
        known_codes: frozenset[str] | None,
        random_bytes: Callable[[int], bytes],
        clock: Callable[[], datetime],
        installed_encoders: frozenset[str] = frozenset(),
        timed: Callable[[TimedCall], None] = lambda _: None,
    ) -> None:
        self._site = site
        self._consortium = consortium
        self._key = key
        self._certificate = certificate
        self._root = root
        self._limits = limits
        self._ledger = ledger
        self._memory = memory
        self._outbox = outbox
        self._witness = witness
        self._revocations = revocations
        self._manifest = manifest
        self._load_work = load_work
        self._known_codes = known_codes
        self._installed_encoders = installed_encoders
        self._random_bytes = random_bytes
        self._clock = clock
        self._timed = timed
        self._watch = Stopwatch()  # of the call being answered
        self._run: _Run | None = None
        self._methods: dict[str, Callable[[Message], Message]] = {
            "alive": self._alive,
            "cosign": self._cosign,
            "join": self._join,
            "announce": self._announce,
            "share_keys": self._share_keys,
            "round": self._round,
            "survivors": self._survivors,
            "unmask": self._unmask,
            "evaluate": self._evaluate,
            "finish": self._finish,
        }

    def handle(self, method: str, message: Any) -> Message:
        """Answer one call.

        Raises: SiteError with a code and a sentence that holds no data; SiteRefused, with a signed statement, when
            the guard says no. Anything else is a defect, and must not be passed on over a network as it is.
        """
        answer = self._methods.get(method)
        if answer is None or not isinstance(message, dict):
            raise SiteError(self._site, "unknown-call", f"no such call; known are {', '.join(self._methods)}")
        self._watch = Stopwatch()
        try:
            return answer(message)
        except GuardRefusal as error:
            raise self._refusal(error, str(message.get("plan_hash"))) from error
        except SecAggError as error:
            raise SiteError(self._site, "protocol", str(error)) from error
        except (LedgerBusy, LedgerCorrupt, LedgerUnusable) as error:
            # Their texts name files; they are for the hospital's own log.
            _LOG.error("%s: %s", method, error)
            busy = "another process holds the ledger" if isinstance(error, LedgerBusy) else "the ledger cannot be used"
            raise SiteError(self._site, "ledger", f"{busy}; the hospital's own log says why") from error
        except PrivacyError as error:
            raise SiteError(self._site, "ledger", str(error)) from error
        except (DataError, CodingError) as error:
            # Their texts may name files or quote values; they are for the hospital's own log.
            _LOG.error("%s: %s", method, error)
            raise SiteError(
                self._site, "data", "the local data set cannot be used; the hospital's own log says why"
            ) from error
        except OSError as error:  # a full disk, above all
            _LOG.error("%s: %s", method, error)
            raise SiteError(
                self._site, "storage", "a file cannot be read or written; the hospital's own log says why"
            ) from error
        finally:
            self._timed(TimedCall(method, _round_of(message), self._watch.read()))

    # -- calls ---------------------------------------------------------------------------------------------------

    def _join(self, message: Message) -> Message:
        run_id = _text(self._site, message, "run_id", 100)
        certificates, peers = self._read_certificates(message.get("certificates"))
        try:
            revoked = self._learn_first(message)
        except AuditError as error:
            raise GuardRefusal("revocations-unknown", str(error)) from error
        self._check_own_certificate(revoked)
        admitted = check_plan(
            _bytes(self._site, message, "plan"),
            _list(self._site, message, "approvals"),
            certificates,
            expected_hash=_text(self._site, message, "plan_hash", 71),
            site=self._site,
            consortium=self._consortium,
            root=self._root,
            limits=self._limits,
            known_codes=self._known_codes,
            installed_encoders=self._installed_encoders,
            now=self._clock(),
            revocations=revoked,
        )
        plan = admitted.plan
        previous = self._run
        self._reserve(run_id, admitted)
        try:
            manifest = digest_of(self._manifest())
            work = self._load_work(plan)
        except Exception:
            self._free(run_id)  # the run goes on without this hospital, so it spends nothing here
            raise
        client = None
        if self._site in plan.sites:
            client = SecAggClient(
                parameters=secagg_parameters(plan, run_id),
                site=self._site,
                signer=lambda data: sign_bytes(self._key, data),
                verifier=self._verify_peer,
                randomness=self._random_bytes,
                memory=self._memory,
            )
        self._run = _Run(run_id, admitted, peers, client, work)
        if previous is not None and previous.run_id != run_id:
            self._free(previous.run_id)  # no call can reach it any more
        return {
            **self._enrolment(message),
            "last_round": self._last_round(run_id, plan),
            "acceptance": self._sign(
                ACCEPTANCE,
                run_id=run_id,
                plan_hash=admitted.plan_hash,
                manifest=manifest,
                ledger_head=self._ledger.hand_out(),
                epsilon_reserved=(plan.epsilon or 0) if self._site in plan.sites else 0,
                budgets=self._budgets(),
            ),
        }

    def _alive(self, message: Message) -> Message:
        """A sign of life, and which run this process has joined."""
        return {"run_id": None if self._run is None else self._run.run_id}

    def _enrolment(self, message: Message) -> Message:
        """This hospital's witness of the log, once the coordinator has shown the log's certificate."""
        if self._witness is None or "log_certificate" not in message:
            return {}
        try:
            return {"enrolment": self._witness.enrol(_text(self._site, message, "log_certificate", 20_000))}
        except AuditError as error:
            raise SiteError(self._site, "witness", str(error)) from error

    def _cosign(self, message: Message) -> Message:
        """Cosign the log's checkpoint, if it continues the last one seen here."""
        self._joined()
        if self._witness is None:
            raise SiteError(self._site, "witness", "this hospital does not witness the log")
        return {"answer": self._witness.cosign(_bytes(self._site, message, "request"))}

    def _last_round(self, run_id: str, plan: Plan) -> int:
        """The last round of a run that this hospital masked or paid for, perhaps before a crash; 0 if none."""
        if self._site not in plan.sites:
            return 0
        masked = self._memory.last_masked(secagg_parameters(plan, run_id).run_label)
        paid = (key.split() for key in self._ledger.committed(run_id, TRAINING))
        return max([masked, *(int(number) for word, number in paid if word == "round")])

    def _announce(self, message: Message) -> Message:
        run, client = self._joined(), self._client()
        self._learn(message)
        if "certificates" in message:  # somebody may have renewed one since this hospital joined
            _, run.certificates = self._read_certificates(message["certificates"])
        request = AnnounceRequest.from_message(message.get("secagg"))
        return {"secagg": client.announce(request).to_message()}

    def _share_keys(self, message: Message) -> Message:
        client = self._client()
        request = ShareRequest.from_message(message.get("secagg"))
        return {"secagg": client.share_keys(request).to_message()}

    def _round(self, message: Message) -> Message:
        run, client = self._joined(), self._client()
        request = RoundRequest.from_message(message.get("secagg"))
        self._check_peers(request, self._learn(message))
        version_in = _text(self._site, message, "version_in", 71)
        model = _bytes(self._site, message, "model")
        if version_id(model) != version_in:
            raise SiteError(self._site, "model-differs", f"expected {version_in}, got {version_id(model)}")
        if not 1 <= request.round <= run.plan.aggregations:
            raise SiteError(self._site, "no-such-round", f"the plan has rounds 1 to {run.plan.aggregations}")
        if request.round == 1 and version_in != run.plan.initial_version:
            raise SiteError(
                self._site, "model-differs", f"the plan starts from {run.plan.initial_version}, got {version_in}"
            )
        parameters = self._read_model(run.plan, model)
        terms = aggregation_terms(run.plan, request.round)
        client.open_round(request)

        # Spent before anything derived from data exists; a crash from here on loses the round, not the record.
        # An unprotected plan, which only public data lets pass, has nothing to spend and adds nothing. Local steps
        # bring their own noise; every other vector gets this hospital's here, before it can be masked.
        protected = run.plan.epsilon is not None
        head = self._ledger.head
        if protected:
            with self._watch("ledger"):
                head = self._ledger.commit(run.run_id, f"round {request.round}", terms.event, cohort=TRAINING)
        with self._watch("local work"):
            total = run.work.contribution(parameters, request.round, self._random_bytes)
        with self._watch("noise"):
            vector = quantise(total, scale=terms.scale, bound=terms.bound)
            if protected and not isinstance(terms.event, LocalSteps):
                vector[: terms.dimension] += discrete_gaussian(terms.dimension, terms.noise_std, self._random_bytes)
        with self._watch("masking"):
            masked = client.mask(vector).to_message()
        with self._watch("receipt"):
            receipt = self._sign(
                RECEIPT,
                run_id=run.run_id,
                round=request.round,
                plan_hash=run.admitted.plan_hash,
                version_in=version_in,
                masked_upload=digest_of(masked["vector"].tobytes()),  # type: ignore[union-attr]
                privacy_event=terms.event.to_json(),
                manifest=digest_of(self._manifest()),
                ledger_head=self._ledger.hand_out(head),
            )
        return {"secagg": masked, "receipt": receipt}

    def _survivors(self, message: Message) -> Message:
        client = self._client()
        request = SurvivorsRequest.from_message(message.get("secagg"))
        return {"secagg": client.sign_survivors(request).to_message()}

    def _unmask(self, message: Message) -> Message:
        client = self._client()
        request = UnmaskRequest.from_message(message.get("secagg"))
        return {"secagg": client.unmask(request).to_message()}

    def _evaluate(self, message: Message) -> Message:
        run = self._joined()
        if self._site not in run.plan.evaluation_sites:
            raise SiteError(self._site, "not-invited", "the plan does not ask this hospital to evaluate")
        version = _text(self._site, message, "version", 71)
        model = _bytes(self._site, message, "model")
        if version_id(model) != version:
            raise SiteError(self._site, "model-differs", f"expected {version}, got {version_id(model)}")
        parameters = self._read_model(run.plan, model)
        evaluation = evaluation_terms(run.plan)
        key = f"{run.run_id} metrics of {version}"
        if (kept := self._outbox.get(key)) is not None:
            return {"metrics": kept}
        earlier = self._read_predecessor(message, evaluation.predecessor)
        head = self._ledger.commit(run.run_id, f"metrics of {version}", evaluation.event, cohort=VALIDATION)
        counts = run.work.metric_counts(parameters, self._random_bytes, earlier=earlier)
        noisy = counts + discrete_gaussian(len(counts), evaluation.noise_std, self._random_bytes)
        compared = {} if evaluation.predecessor is None else {"predecessor": evaluation.predecessor.version}
        metrics = self._sign(
            METRICS,
            run_id=run.run_id,
            version=version,
            cohort={
                "name": VALIDATION,
                "patients": "test side of the hospital's split, one admission each",
            },
            values=evaluation.values(noisy),
            **compared,
            mechanism={
                "event": evaluation.event.to_json(),
                "noise": "discrete Gaussian on counts",
                "noise_std": evaluation.noise_std,
                "epsilon": evaluation.epsilon,
                "delta": evaluation.delta,
            },
            ledger_head=self._ledger.hand_out(head),
            budgets=self._budgets(),
        )
        self._outbox.keep(key, metrics)
        return {"metrics": metrics}

    def _finish(self, message: Message) -> Message:
        run = self._joined()
        self._free(run.run_id)
        self._run = None
        return {"ledger_head": self._ledger.hand_out()}

    # -- whose certificates count --------------------------------------------------------------------------------

    def _learn_first(self, message: Message) -> Revocations:
        """The log's list that came with a plan, believed by the log's certificate. Raises AuditError."""
        if self._revocations is None:
            return NO_REVOCATIONS
        for field, kind in (("log_certificate", str), ("revocations", bytes)):
            if not isinstance(message.get(field), kind):
                raise CertificateError(f"{field} did not come with the plan")
        self._revocations.trust(message["log_certificate"])
        return self._revocations.take(message["revocations"])

    def _learn(self, message: Message) -> Revocations:
        """The log's list that came with a call of a run this hospital joined."""
        if self._revocations is None:
            return NO_REVOCATIONS
        try:
            return self._revocations.take(_bytes(self._site, message, "revocations"))
        except AuditError as error:
            raise SiteError(self._site, "revocations", str(error)) from error

    def _check_own_certificate(self, revoked: Revocations) -> None:
        try:
            revoked.check(certificate_digest(self._certificate))
        except CertificateError as error:
            raise SiteError(self._site, "revoked", f"{error}; ask the consortium") from error

    def _check_peers(self, request: RoundRequest, revoked: Revocations) -> None:
        """Nothing is masked together with a hospital that holds no certificate that counts."""
        for peer in request.mask_keys:
            problems = []
            for certificate in self._joined().certificates.get(peer, ()):
                try:
                    revoked.check(certificate_digest(certificate))
                    break
                except CertificateError as error:
                    problems.append(str(error))
            else:
                reason = "; ".join(problems) or "no certificate of it was sent"
                raise SiteError(self._site, "peer-revoked", f"{peer} may not take part: {reason}")

    # -- what the calls share ------------------------------------------------------------------------------------

    def _reserve(self, run_id: str, admitted: Admitted) -> None:
        plan = admitted.plan
        try:
            if self._site in plan.sites and plan.epsilon is not None:
                self._ledger.reserve(run_id, TRAINING, plan.training_events(), plan_hash=admitted.plan_hash)
            if self._site in plan.evaluation_sites:
                self._ledger.reserve(run_id, VALIDATION, [evaluation_terms(plan).event], plan_hash=admitted.plan_hash)
        except (BudgetExceeded, BudgetMissing) as error:
            self._free(run_id)
            raise GuardRefusal("over-budget", str(error)) from error
        except LedgerRolledBack as error:
            _LOG.error("join: %s", error)  # its text names files, which are the hospital's own
            raise GuardRefusal(
                "ledger-rolled-back",
                "what this hospital signed before is not in its ledger any more; its operator puts back the newest "
                "copy, or its privacy officer declares the loss with `zegel site recover-ledger`",
            ) from error

    def _budgets(self) -> list[dict[str, Any]]:
        """Where the ledger stands, for the consortium's forecasts: each cohort with a budget, as admission counts."""
        found = []
        for cohort in (TRAINING, VALIDATION):
            with contextlib.suppress(BudgetMissing):  # none set, or suspended: there is nothing to plan with
                stands = self._ledger.price(cohort)
                found.append(
                    {
                        "cohort": cohort,
                        "epsilon": stands.budget,
                        "delta": stands.delta,
                        "spent": round(stands.spent, 6),
                        "reserved": round(stands.reserved, 6),
                    }
                )
        return found

    def _free(self, run_id: str) -> None:
        """Give back what the run reserved and did not spend, if it reserved anything."""
        with contextlib.suppress(NotReserved):
            self._ledger.close(run_id)

    def _joined(self) -> _Run:
        if self._run is None:
            raise SiteError(self._site, "not-joined", "this hospital has not joined a run; send the plan first")
        return self._run

    def _client(self) -> SecAggClient:
        client = self._joined().client
        if client is None:
            raise SiteError(self._site, "not-training", "this hospital only evaluates in this plan")
        return client

    def _verify_peer(self, peer: str, data: bytes, signature: bytes) -> None:
        """A peer's signature counts if any of its certificates counts now and made it."""
        problems = []
        revoked = NO_REVOCATIONS if self._revocations is None else self._revocations.current
        for certificate in self._joined().certificates.get(peer, ()):
            try:
                revoked.check(certificate_digest(certificate))
                verify_certificate(certificate, self._root, at=self._clock(), roles=frozenset({CLIENT}))
                verify_bytes(public_key_of(certificate), signature, data)
                return
            except AuditError as error:
                problems.append(str(error))
        raise StatementError(f"{peer}: " + ("; ".join(problems) or "no certificate of this hospital was sent"))

    def _read_model(self, plan: Plan, model: bytes) -> AnyParameters:
        """The coordinator's model. What is wrong with it is no secret, so it is told."""
        try:
            return plan_model(plan).load(model)
        except CodingError as error:
            raise SiteError(self._site, "bad-model", str(error)) from error

    def _read_predecessor(self, message: Message, expected: Predecessor | None) -> Earlier | None:
        """The version to compare with, which must be the one the approved plan names, on an encoder allowed here."""
        if expected is None:
            return None
        plan_bytes, model = _bytes(self._site, message, "predecessor_plan"), _bytes(self._site, message, "predecessor")
        for what, wanted, got in (
            ("plan", expected.plan_hash, digest_of(plan_bytes)),
            ("model", expected.version, version_id(model)),
        ):
            if got != wanted:
                raise SiteError(self._site, "model-differs", f"the predecessor's {what}: expected {wanted}, got {got}")
        try:
            plan = Plan.from_bytes(plan_bytes)
            kinds = plan_encoder(plan).kinds
        except (PlanError, CodingError) as error:
            raise SiteError(self._site, "bad-model", f"the predecessor's plan: {error}") from error
        if refused := sorted(kinds - set(self._limits.encoders)):
            raise SiteError(self._site, "encoder-not-allowed", f"the predecessor's encoder: {', '.join(refused)}")
        return Earlier(plan, self._read_model(plan, model))

    def _read_certificates(
        self, value: object
    ) -> tuple[dict[str, x509.Certificate], dict[str, tuple[x509.Certificate, ...]]]:
        """The certificates sent along, by digest, and those of hospitals by name. Nothing is verified yet."""
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise SiteError(self._site, "bad-call", "certificates: expected a list of PEM texts")
        try:
            loaded = [load_certificate(item.encode("ascii")) for item in value]
            identities = [identity_of(certificate) for certificate in loaded]
        except (AuditError, UnicodeEncodeError) as error:
            raise SiteError(self._site, "bad-call", f"certificates: {error}") from error
        peers: dict[str, tuple[x509.Certificate, ...]] = {}
        for certificate, identity in zip(loaded, identities, strict=True):
            if identity.role == CLIENT:
                peers[identity.name] = (*peers.get(identity.name, ()), certificate)
        return {certificate_digest(certificate): certificate for certificate in loaded}, peers

    def _refusal(self, error: GuardRefusal, plan_hash: str) -> SiteRefused:
        if not plan_hash.startswith("sha256:"):
            plan_hash = digest_of(b"")
        signed = self._sign(REFUSAL, plan_hash=plan_hash, code=error.code, reason=error.detail)
        return SiteRefused(self._site, error.code, error.detail, signed)

    def _sign(self, kind: str, **fields: Any) -> dict[str, Any]:
        statement = {
            "type": kind,
            "consortium": self._consortium,
            "time": format_time(self._clock()),
            "site": self._site,
            **fields,
        }
        canonical_json(statement)  # what cannot be written canonically cannot be signed
        signed: SignedStatement = sign_statement(statement, self._key, self._certificate)
        return signed.to_json()


def _text(site: str, message: Message, field: str, longest: int) -> str:
    value = message.get(field)
    if not isinstance(value, str) or not 0 < len(value) <= longest:
        raise SiteError(site, "bad-call", f"{field}: expected a text of at most {longest} characters")
    return value


def _bytes(site: str, message: Message, field: str) -> bytes:
    value = message.get(field)
    if not isinstance(value, bytes):
        raise SiteError(site, "bad-call", f"{field}: expected bytes, got {type(value).__name__}")
    return value


def _list(site: str, message: Message, field: str) -> Sequence[Mapping[str, Any]]:
    value = message.get(field)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise SiteError(site, "bad-call", f"{field}: expected a list of objects")
    return value


def _round_of(message: Message) -> int | None:
    """The round a call is of, if it names one."""
    request = message.get("secagg")
    number = request.get("round") if isinstance(request, dict) else None
    return number if type(number) is int else None
