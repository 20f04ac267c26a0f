"""Joining: the plan goes to hospitals, their signed acceptance or refusal comes back.

A hospital is taken in only if its acceptance holds, the log knows its data set, and it does not claim rounds that were
never announced. What keeps it out is told as a SiteError; a refusal is logged with the hospital's signature.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from audit.entry import SITE_REFUSED
from audit.errors import AuditError
from audit.statement import ACCEPTANCE, REFUSAL, SignedStatement
from jobs.errors import SiteError, SiteRefused
from jobs.journal import Journal
from jobs.plan import Plan
from jobs.signed_answers import SignedAnswers
from jobs.standing import certificate_pems
from jobs.transport import Message, Timeouts, Transport, message_of
from jobs.witnessing import Witnesses

_LOG = logging.getLogger(__name__)

UNLOGGED = "manifest-not-logged"  # the code of a SiteError: the log does not know the hospital's data set


@dataclass(frozen=True)
class Joined:
    """A hospital that joined."""

    acceptance: SignedStatement
    last_round: int  # of this run that it took part in, perhaps before a crash; 0 if none


class Joining:
    """Asks hospitals to join one run.

    Args:
        approvals: the plan's approvals as JSON, sent to every hospital.
        announced: the data manifests each hospital has in the log; None where there is no log to ask.
        witnesses: what hospitals cosign; None where there is no log.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        run_id: str,
        transport: Transport,
        timeouts: Timeouts,
        signed: SignedAnswers,
        journal: Journal,
        approvals: Sequence[Mapping[str, Any]],
        announced: Mapping[str, frozenset[str]] | None,
        witnesses: Witnesses | None,
    ) -> None:
        self._plan = plan
        self._run_id = run_id
        self._transport = transport
        self._timeouts = timeouts
        self._signed = signed
        self._journal = journal
        self._approvals = [dict(approval) for approval in approvals]
        self._announced = announced
        self._witnesses = witnesses

    def ask(self, sites: Sequence[str]) -> tuple[dict[str, Joined], list[SiteError]]:
        """Send the plan; returns who joined, and what kept the others from it."""
        standing = self._signed.standing
        request: Message = {
            "run_id": self._run_id,
            "plan_hash": self._plan.hash,
            "plan": self._plan.to_bytes(),
            "approvals": self._approvals,
            "certificates": certificate_pems(standing),
        }
        if standing.signed is not None:
            request["revocations"] = standing.signed
        if standing.log_certificate is not None:
            request["log_certificate"] = standing.log_certificate
        answers = self._transport.call("join", dict.fromkeys(sites, request), timeout_s=self._timeouts.join)
        joined: dict[str, Joined] = {}
        problems: list[SiteError] = []
        for site in sites:
            try:
                joined[site] = self._check(site, message_of(site, answers[site]))
            except SiteError as error:
                problems.append(error)
            except AuditError as error:
                problems.append(SiteError(site, "bad-answer", f"its acceptance does not hold: {error}"))
        for problem in problems:
            if isinstance(problem, SiteRefused):
                self._record_refusal(problem)
        return joined, problems

    def _check(self, site: str, answer: Message) -> Joined:
        acceptance = self._signed.statement(
            site,
            answer.get("acceptance"),
            ACCEPTANCE,
            {"run_id": self._run_id, "plan_hash": self._plan.hash, "site": site},
        )
        self._check_announced(site, acceptance)
        joined = Joined(acceptance, self._last_round(site, answer.get("last_round")))
        if self._witnesses is not None and "enrolment" in answer:
            self._witnesses.enrol(site, answer["enrolment"])
        return joined

    def _last_round(self, site: str, last_round: object) -> int:
        """The last round the hospital took part in; a claim beyond what was announced would make us skip rounds."""
        most = self._journal.state.announced
        if isinstance(last_round, bool) or not isinstance(last_round, int) or not 0 <= last_round <= most:
            raise SiteError(site, "bad-answer", f"last_round: expected a round up to {most}, got {last_round!r}")
        return last_round

    def _check_announced(self, site: str, acceptance: SignedStatement) -> None:
        """A release is traced to data sets the log knows: better found now than after the epsilon is spent."""
        if self._announced is None or acceptance.statement["manifest"] in self._announced.get(site, frozenset()):
            return
        self._transport.call("finish", {site: {}}, timeout_s=self._timeouts.call)
        raise SiteError(
            site,
            UNLOGGED,
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
        self._journal.record(SITE_REFUSED, {"run_id": self._run_id, "refusal": signed.to_json()})
