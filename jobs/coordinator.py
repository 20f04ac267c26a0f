"""The coordinator: carries out a plan over a transport, round by round, and records what happened.

    join -> keys -> rounds -> version -> evaluate -> finish

Invariants, and where they are kept:

* the coordinator never sees one hospital's vector, only masked ones and their sum (`secure_sum`);
* a round is asked for once; one that lacks too many hospitals, or that a crash cut off, is given up (`round`);
* a round is announced after the state before it is durable, and logged with every survivor's signed receipt, each
  checked, before the next one is announced (`journal`);
* before each round it looks who may still take part (`attendance`), and a round the log bars is given up;
* a coordinator that was killed goes on from its state (`run_state`) with the same result.

A hospital's answer is taken as data: whatever it is, at worst that hospital counts as dropped, with the reason.
The coordinator holds no keys and opens no files: what it records, and where its state goes, are arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography import x509

from audit.statement import SignedStatement
from jobs.attendance import Attendance
from jobs.errors import RunAborted
from jobs.evaluating import evaluate_everywhere
from jobs.icd_coding.lora import LoraParameters
from jobs.icd_coding.model import Parameters
from jobs.joining import Joining
from jobs.journal import Journal, Record
from jobs.plan import Plan
from jobs.progress import Progress, Reporter
from jobs.round import Rounds
from jobs.run_state import RunState
from jobs.secure_sum import SecureSum
from jobs.signed_answers import SignedAnswers
from jobs.standing import Standing
from jobs.transport import Timeouts, Transport
from jobs.witnessing import Witnesses, cosigning
from privacy.secagg.quantisation import FloatVector

WITNESSED_EVERY = 20  # rounds; and when a run begins and ends


@dataclass(frozen=True)
class Outcome:
    """What a run ends in."""

    version: str
    model: bytes
    parameters: Parameters | LoraParameters
    rounds: int
    metrics: Mapping[str, SignedStatement]  # by hospital


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
        self._timeouts = timeouts or Timeouts()
        self._predecessor = predecessor
        self._witnesses = witnesses
        self._report = Reporter(plan, progress)
        self._journal = Journal(
            plan=plan, run_id=run_id, record=record, recorded=recorded, store=store, fetch=fetch, save=save,
            resume=resume,
        )  # fmt: skip
        self._signed = SignedAnswers(consortium=plan.consortium, standing=standing(), root=root, clock=clock)
        joining = Joining(
            plan=plan, run_id=run_id, transport=transport, timeouts=self._timeouts, signed=self._signed,
            journal=self._journal, approvals=approvals, announced=announced, witnesses=witnesses,
        )  # fmt: skip
        self._attendance = Attendance(
            plan=plan, run_id=run_id, transport=transport, timeouts=self._timeouts, standing=standing,
            signed=self._signed, joining=joining, journal=self._journal, clock=clock,
        )  # fmt: skip
        secure_sum = SecureSum(
            plan=plan, run_id=run_id, transport=transport, timeouts=self._timeouts, signed=self._signed,
            attendance=self._attendance,
        )  # fmt: skip
        self._rounds = Rounds(
            plan=plan, run_id=run_id, attendance=self._attendance, secure_sum=secure_sum, journal=self._journal,
            report=self._report, opened=opened,
        )  # fmt: skip

    def run(self) -> Outcome:
        """Carry out what is left of the plan.

        Raises:
            RunAborted: when a hospital refuses, or the plan cannot be carried out any more.
            RunInterrupted: when too many hospitals are missing; another coordinator can go on later.
            All that happened is recorded.
        """
        plan, journal, attendance = self._plan, self._journal, self._attendance
        attendance.look()
        self._report("joining", journal.state.finished, sorted({*plan.sites, *plan.evaluation_sites}))
        attendance.gather()
        journal.start(attendance.joined.values())
        self._report("training", journal.state.finished, plan.sites)
        self._be_witnessed()
        for number in range(journal.next_round(attendance.answered), plan.aggregations + 1):
            self._rounds.carry_out(number)
            if number % WITNESSED_EVERY == 0:
                self._be_witnessed()
        return self._conclude()

    def _conclude(self) -> Outcome:
        plan, journal, attendance = self._plan, self._journal, self._attendance
        if len(journal.state.lost) == plan.aggregations:
            attendance.release()
            raise RunAborted("every round was lost, so there is no version; what was spent stays recorded")
        version, model = journal.conclude()
        self._report("evaluating", plan.aggregations, plan.evaluation_sites)
        attendance.look()
        metrics = evaluate_everywhere(
            version, model, plan=plan, run_id=self._run_id, predecessor=self._predecessor, transport=self._transport,
            timeouts=self._timeouts, signed=self._signed, attendance=attendance, journal=journal,
        )  # fmt: skip
        self._be_witnessed()
        attendance.release()
        self._report("done", plan.aggregations, plan.sites)
        return Outcome(version, model, journal.training.parameters, plan.aggregations, metrics)

    def _be_witnessed(self) -> None:
        """Have the hospitals that are there cosign the log as it stands."""
        if self._witnesses is None:
            return
        asked = [site for site in self._attendance.joined if not self._attendance.is_missing(site)]
        self._witnesses.ask({site: cosigning(site, self._transport, timeout_s=self._timeouts.call) for site in asked})
