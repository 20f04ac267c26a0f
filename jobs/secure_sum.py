"""One round's secure sum: the protocol's calls to hospitals, their answers, and their receipts.

    announce, share_keys (where somebody has no key) -> round -> survivors -> unmask

A hospital's answer is taken as data: whatever it is, at worst that hospital counts as dropped, with the reason. A
vector counts only with its hospital's signed receipt, which names the vector, the model and the cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from audit.canonical import digest_of
from audit.errors import AuditError, StatementError
from audit.statement import RECEIPT, SignedStatement
from jobs.attendance import Attendance
from jobs.errors import SiteError
from jobs.plan import Plan
from jobs.signed_answers import SignedAnswers
from jobs.standing import certificate_pems
from jobs.terms import secagg_parameters
from jobs.timings import Stopwatch
from jobs.transport import Message, Timeouts, Transport, message_of
from privacy.secagg.errors import SecAggError
from privacy.secagg.messages import (
    Announcement,
    KeyShares,
    MaskedVector,
    SurvivorsSignature,
    UnmaskAnswer,
)
from privacy.secagg.messages import Message as SecAggMessage
from privacy.secagg.server import Aggregate, SecAggServer

M = TypeVar("M", bound=SecAggMessage)


class SecureSum:
    """Sums hospitals' vectors, round by round.

    Attributes:
        receipts: of the round in progress, by hospital, as far as they arrived and hold.
        problems: of the round in progress: why hospitals were dropped.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        run_id: str,
        transport: Transport,
        timeouts: Timeouts,
        signed: SignedAnswers,
        attendance: Attendance,
    ) -> None:
        self._plan = plan
        self._run_id = run_id
        self._transport = transport
        self._timeouts = timeouts
        self._signed = signed
        self._attendance = attendance
        self._protocol = SecAggServer(parameters=secagg_parameters(plan, run_id), verifier=signed.key)
        self.receipts: dict[str, SignedStatement] = {}
        self.problems: list[SiteError] = []
        self._watch = Stopwatch()

    def of_round(
        self, number: int, model: bytes, *, version_in: str, announce: Callable[[int], None], watch: Stopwatch
    ) -> Aggregate:
        """The sum of the hospitals that are there and stay to the end.

        Args:
            model: what they start from; its digest is `version_in`.
            announce: called once it is settled who is asked, before any is; durable when it returns.
            watch: told of each call, and of what is done with the answers.
        Raises: SecAggError when too few of them are left; nothing was unmasked then.
        """
        self.receipts, self.problems, self._watch = {}, [], watch
        there = self._attendance.there
        if self._protocol.next_round != number or set(self._protocol.ready) != set(there):
            self._set_up(number, there)  # somebody who is there has no key
        requests = self._protocol.start_round()
        announce(number)

        def receive(site: str, message: MaskedVector, answer: Message) -> None:
            receipt = self._check_receipt(site, number, version_in, message, answer.get("receipt"))
            self._protocol.receive_masked_vector(site, message)
            self.receipts[site] = receipt

        sent = {"version_in": version_in, "model": model, **self._attendance.news()}
        self._exchange("round", requests, MaskedVector, receive, sent)
        self._exchange(
            "survivors",
            self._protocol.survivors_requests(),
            SurvivorsSignature,
            lambda site, message, _: self._protocol.receive_signature(site, message),
        )
        following = number + 1 if number < self._plan.aggregations else None
        self._exchange(
            "unmask",
            self._protocol.unmask_requests(following),
            UnmaskAnswer,
            lambda site, message, _: self._protocol.receive_answer(site, message),
        )
        with watch("unmasking"):
            return self._protocol.finish()

    def _set_up(self, number: int, there: tuple[str, ...]) -> None:
        """Keys for round `number` from everybody who is there."""
        self._exchange(
            "announce",
            self._protocol.start_set_up(number, there),
            Announcement,
            lambda site, message, _: self._protocol.receive_announcement(site, message),
            {"certificates": certificate_pems(self._signed.standing), **self._attendance.news()},
        )
        self._exchange(
            "share_keys",
            self._protocol.share_requests(),
            KeyShares,
            lambda site, message, _: self._protocol.receive_key_shares(site, message),
        )

    def _exchange(
        self,
        method: str,
        requests: Mapping[str, SecAggMessage],
        answer_type: type[M],
        receive: Callable[[str, M, Message], None],
        sent: Mapping[str, Any] | None = None,
    ) -> None:
        """One call of the protocol. A hospital that fails or answers wrongly counts as dropped, with its reason.

        Args:
            receive: takes the protocol's message and the whole answer.
            sent: goes with every request.
        """
        messages = {site: {"secagg": request.to_message(), **(sent or {})} for site, request in requests.items()}
        with self._watch(f"call {method}"):
            answers = self._transport.call(method, messages, timeout_s=self._timeouts.call)
        with self._watch("checking and adding"):
            for site in requests:
                try:
                    answer = message_of(site, answers[site])
                    receive(site, answer_type.from_message(answer.get("secagg")), answer)
                except SiteError as error:
                    self._drop(error)
                except (SecAggError, AuditError) as error:
                    self._drop(SiteError(site, "bad-answer", str(error)))

    def _drop(self, problem: SiteError) -> None:
        self.problems.append(problem)
        self._attendance.lost(problem.site)

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
            "manifest": self._attendance.joined[site].statement["manifest"],
            "site": site,
        }
        signed = self._signed.statement(site, value, RECEIPT, expected)
        # All receipts of a round share one entry of limited size, so none may bring fields of its own.
        if further := sorted(set(signed.statement) - {*expected, "type", "consortium", "time", "ledger_head"}):
            raise StatementError(f"receipt: unknown field(s) {', '.join(further)[:200]}")
        return signed
