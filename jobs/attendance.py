"""Attendance: which of a plan's hospitals take part now, which are missing, and which may not take part.

Invariants:

* a hospital whose certificate was suspended, revoked or has ended is asked nothing, until it holds one that counts;
* at the start every training hospital joins, or the run does not start; later as many as a round needs;
* a hospital that is missing comes back between rounds, if it answers at once; nobody waits long for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime

from audit.statement import SignedStatement
from jobs.errors import UNREACHABLE, RunAborted, RunInterrupted, SiteError, SiteRefused
from jobs.joining import UNLOGGED, Joined, Joining
from jobs.journal import Journal
from jobs.plan import Plan
from jobs.signed_answers import SignedAnswers
from jobs.standing import Standing
from jobs.transport import Message, Timeouts, Transport, message_of

_LOG = logging.getLogger(__name__)

PROBE_PAUSE = 3  # as many times as hospitals that are missing took to answer; so asking costs at most a quarter
_BARRED = "barred"


class Attendance:
    """The hospitals of one run.

    Args:
        standing: whose certificates count, as of when it is called.
        signed: judges hospitals' signatures; it is told of every newer standing.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        run_id: str,
        transport: Transport,
        timeouts: Timeouts,
        standing: Callable[[], Standing],
        signed: SignedAnswers,
        joining: Joining,
        journal: Journal,
        clock: Callable[[], datetime],
    ) -> None:
        self._plan = plan
        self._run_id = run_id
        self._transport = transport
        self._timeouts = timeouts
        self._ask_standing = standing
        self._signed = signed
        self._joining = joining
        self._journal = journal
        self._clock = clock
        self._joined: dict[str, Joined] = {}  # to this coordinator
        self._answered: dict[str, int] = {}  # the last round of each that ever joined it
        self._missing: set[str] = set()  # training hospitals that did not answer when they were last asked
        self._barred: Mapping[str, str] = {}  # hospitals of the plan that may not take part now, and why
        self._set_aside: set[str] = set()  # those of them that had joined; they may come back
        self._probe_from = 0.0  # when to ask those that are missing for a sign of life again, by the monotonic clock

    # -- who is there --------------------------------------------------------------------------------------------

    @property
    def there(self) -> tuple[str, ...]:
        """Training hospitals that answered when they were last asked."""
        return tuple(site for site in self._plan.sites if site not in self._missing)

    @property
    def joined(self) -> Mapping[str, SignedStatement]:
        """Acceptances of the hospitals that joined and may take part, training or evaluating."""
        return {site: each.acceptance for site, each in self._joined.items()}

    @property
    def answered(self) -> Collection[int]:
        """The last round of each hospital, as it said when it joined."""
        return self._answered.values()

    def is_missing(self, site: str) -> bool:
        """Whether a hospital that trains did not answer when it was last asked."""
        return site in self._missing

    def lost(self, site: str) -> None:
        """A hospital did not answer, or wrongly."""
        self._missing.add(site)

    # -- who may be ----------------------------------------------------------------------------------------------

    def look(self) -> None:
        """See whose certificates count now, and drop the hospitals that hold none.

        Raises: RunAborted when so many of them are revoked for ever that the plan cannot be carried out.
        """
        plan = self._plan
        self._signed.standing = standing = self._ask_standing()
        everybody = standing.barred(at=self._clock())
        barred = {site: everybody[site] for site in (*plan.sites, *plan.evaluation_sites) if site in everybody}
        newly, self._barred = sorted(set(barred) - set(self._barred)), barred
        self._missing |= set(barred) & set(plan.sites)
        for site in newly:
            _LOG.warning("run %s: %s takes no part for now: %s", self._run_id, site, barred[site])
            if self._joined.pop(site, None) is not None:
                self._set_aside.add(site)
        gone = [site for site in plan.sites if site in barred and standing.revoked_for_ever(site)]
        if len(plan.sites) - len(gone) < plan.minimum_sites:
            self.release()
            raise RunAborted("; ".join(f"{site}: {barred[site]}" for site in gone))

    def news(self) -> Message:
        """What hospitals learn of it: the log's signed list of revocations."""
        signed = self._signed.standing.signed
        return {} if signed is None else {"revocations": signed}

    # -- coming and going ----------------------------------------------------------------------------------------

    def gather(self) -> None:
        """Ask every hospital to join.

        Raises:
            RunAborted: when a hospital refuses that cannot be done without.
            RunInterrupted: when too few answer.
        """
        plan = self._plan
        problems = self._join(sorted({*plan.sites, *plan.evaluation_sites}))
        missing = [problem for problem in problems if problem.site in plan.sites]
        self._missing = {problem.site for problem in missing}
        refused = [problem for problem in missing if isinstance(problem, SiteRefused) or problem.code == UNLOGGED]
        reasons = "; ".join(str(problem) for problem in missing)
        if missing and not self._journal.started:
            self.release()
            if all(problem.code == UNREACHABLE for problem in missing):
                raise RunInterrupted(reasons)
            raise RunAborted(reasons)
        if len(plan.sites) - len(missing) < plan.minimum_sites:
            if len(plan.sites) - len(refused) < plan.minimum_sites:
                self.release()
                raise RunAborted(reasons)
            raise RunInterrupted(f"{len(missing)} of {len(plan.sites)} training hospitals are missing: {reasons}")

    def welcome_back(self, *, at_once: bool = False) -> None:
        """Let hospitals that were missing join again, if they answer at once.

        Args: at_once: ask them even if they were asked a moment ago.
        """
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
            if site not in self._joined or message_of(site, probes[site]).get("run_id") != self._run_id
        ]
        refused = {problem.site for problem in self._join(strangers)} if strangers else set()
        for site in sorted(set(strangers) - refused):
            self._journal.accept(self._joined[site].acceptance)
        self._missing -= set(there) - refused

    def release(self) -> None:
        """Tell those who joined that the run is over, so that they free what they reserved."""
        self._transport.call("finish", {site: {} for site in self._joined}, timeout_s=self._timeouts.call)
        self._transport.call("finish", {site: {} for site in self._set_aside}, timeout_s=self._timeouts.probe)

    def _join(self, sites: Sequence[str]) -> list[SiteError]:
        """Ask these to join, those of them that may; returns what kept hospitals from it."""
        joined, problems = self._joining.ask([site for site in sites if site not in self._barred])
        for site, each in joined.items():
            self._joined[site] = each
            self._answered[site] = each.last_round
            self._set_aside.discard(site)
        kept_out = [SiteError(site, _BARRED, self._barred[site]) for site in sites if site in self._barred] + problems
        for problem in kept_out:
            _LOG.warning("run %s: %s did not join: %s", self._run_id, problem.site, problem)
        return kept_out
