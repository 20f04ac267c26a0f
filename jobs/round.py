"""One round: a secure sum, checked and taken in, or given up.

A round is asked for once. One that lacks too many hospitals is logged as aborted: its sum is not used, what it cost
stays spent, and the next round goes on with those who are there. Sums are divided by public constants of the plan only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from jobs.attendance import Attendance
from jobs.errors import RunInterrupted, SignerBarred
from jobs.journal import Journal
from jobs.plan import Plan
from jobs.progress import Reporter
from jobs.secure_sum import SecureSum
from jobs.terms import PATIENTS_SLACK, aggregate_norm_bound, aggregation_terms
from jobs.timings import Stopwatch
from privacy.secagg.errors import SecAggError
from privacy.secagg.quantisation import FloatVector, dequantise
from privacy.secagg.server import Aggregate

_LOG = logging.getLogger(__name__)


class Rounds:
    """The rounds of one run.

    Args: opened: shown the number and the sum of every aggregation, for an audit of what a run releases.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        run_id: str,
        attendance: Attendance,
        secure_sum: SecureSum,
        journal: Journal,
        report: Reporter,
        opened: Callable[[int, FloatVector], None],
    ) -> None:
        self._plan = plan
        self._run_id = run_id
        self._attendance = attendance
        self._sum = secure_sum
        self._journal = journal
        self._report = report
        self._opened = opened

    def carry_out(self, number: int) -> None:
        """Round `number`, from who is there to the log's entry.

        Raises:
            RunInterrupted: when the run cannot go on now, because too few are there or the sum cannot be honest.
            RunAborted: when so many are revoked that it never can.
        """
        watch = Stopwatch()
        journal = self._journal
        with watch("who is there"):
            self._attendance.look()
            self._attendance.welcome_back()

        def announce(number: int) -> None:
            with watch("durable writes"):
                journal.announce(number)

        try:
            aggregate = self._sum.of_round(
                number,
                journal.training.parameters.to_bytes(),
                version_in=journal.state.version,
                announce=announce,
                watch=watch,
            )
        except SecAggError as error:
            self._give_up(number, str(error))
            return
        self._tell_problems(number, aggregate)
        terms, survivors = aggregation_terms(self._plan, number), aggregate.survivors
        with watch("decoding and model"):
            # The whole vector: honest hospitals leave zero what is beyond this aggregation's dimension.
            whole = dequantise(aggregate.total, scale=terms.scale)
            self._opened(number, whole[: terms.dimension])
            self._check_norm(number, whole, survivors)
            journal.training.apply(number, whole[: terms.dimension], hospitals=len(survivors))
        try:
            with watch("durable writes"):
                journal.finish(number, survivors, self._sum.receipts)
        except SignerBarred as error:
            # The log took a hospital's certificate back while the round went on, so nothing may rest on the round.
            _LOG.warning("run %s, round %d is lost: %s", self._run_id, number, error)
            journal.take_back(number, str(error), survivors)
            self._report("aborted", number, survivors)
            return
        self._report("training", number, survivors, timings=watch.read())

    def _give_up(self, number: int, reason: str) -> None:
        """A round that did not come about. The run goes on while enough hospitals are there."""
        reasons = "; ".join([reason, *(str(problem) for problem in self._sum.problems)])
        _LOG.warning("run %s, round %d: %s", self._run_id, number, reasons)
        there = len(self._attendance.there)
        if number <= self._journal.state.announced:
            participants = tuple(sorted(self._sum.receipts))
            self._journal.lose(number, reasons, participants)
            self._report("aborted", number, participants)
            if there >= self._plan.minimum_sites:
                return
        raise RunInterrupted(
            f"round {number}: {there} of {len(self._plan.sites)} training hospitals are there, "
            f"the plan needs {self._plan.minimum_sites}: {reasons}"
        )

    def _tell_problems(self, number: int, aggregate: Aggregate) -> None:
        if aggregate.suspects:
            names = ", ".join(aggregate.suspects)
            _LOG.warning("run %s, round %d: shares do not fit, some of these lie: %s", self._run_id, number, names)
        for problem in self._sum.problems:
            _LOG.warning("run %s, round %d: %s", self._run_id, number, problem)

    def _check_norm(self, number: int, whole: FloatVector, survivors: tuple[str, ...]) -> None:
        """A sum that honest hospitals do not make is not used, and somebody has to look before more is spent.

        Raises: RunInterrupted, after the round was logged as aborted.
        """
        plan = self._plan
        norm = float(np.linalg.norm(whole))
        bound = aggregate_norm_bound(plan, number, hospitals=len(survivors))
        if norm <= bound:
            return
        reason = (
            f"the sum of {len(survivors)} hospitals has L2 norm {norm:.6g}, honest ones make at most {bound:.6g}: one "
            f"sent what its patients cannot make, or they hold more than {PATIENTS_SLACK:g} times the "
            f"{plan.nominal_patients} patients the plan counts with; masks hide whose it is, and the sum is not used"
        )
        _LOG.error("run %s, round %d: %s", self._run_id, number, reason)
        self._journal.lose(number, reason, survivors)
        self._report("aborted", number, survivors)
        raise RunInterrupted(
            f"round {number}: {reason}. Have the hospitals check their software and data; then go on with "
            f"`zegel run resume`, or propose a plan without the one at fault"
        )
