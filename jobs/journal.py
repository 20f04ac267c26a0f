"""The journal of a run: its model, its durable state and its log entries, kept in step.

Invariants:

* a round is announced after the state before it is durable, and its result is kept before it is logged: a crash
  between any two of these steps loses neither (the table is in `run_state`);
* each round is in the log once, completed or aborted; a lost round's sum is not used, and what it cost stays spent;
* nothing rests on a round whose entry the log bars: the model goes back to what it was before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from audit.entry import (
    ROUND_ABORTED,
    ROUND_COMPLETED,
    RUN_FINISHED,
    RUN_STARTED,
    SITE_ACCEPTED,
    VERSION_CREATED,
)
from audit.statement import SignedStatement
from jobs.errors import RunAborted, SignerBarred
from jobs.icd_coding.model import version_id
from jobs.icd_coding.training import Training
from jobs.plan import Plan
from jobs.run_state import RunState

_LOG = logging.getLogger(__name__)

_OF_LAST_ROUND = ("finished", "version", "optimiser", "participants")  # fields of the state that a round changes


class Record(Protocol):
    """Appends to the audit log. Durable when it returns; returns the log's size.

    Raises SignerBarred, and appends nothing, for a statement whose certificate the log suspended or revoked.
    """

    def __call__(self, kind: str, body: Mapping[str, Any]) -> int: ...


class Journal:
    """One run's journal.

    Args:
        record: appends to the audit log.
        recorded: the bodies of this run's log entries of a kind, in order.
        store, fetch: keep an artifact and return its digest; read it again.
        save: keeps the run's state durably.
        resume: the state that an earlier coordinator of this run kept.

    Attributes:
        training: the model after the last finished round.
        state: where the run stands.

    Raises: RunAborted when the state is of another run, or the plan starts from another model than this code makes.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        run_id: str,
        record: Record,
        recorded: Callable[[str], Sequence[Mapping[str, Any]]],
        store: Callable[[bytes], str],
        fetch: Callable[[str], bytes],
        save: Callable[[RunState], None],
        resume: RunState | None,
    ) -> None:
        self._plan = plan
        self._run_id = run_id
        self.record = record
        self.recorded = recorded
        self._store = store
        self._fetch = fetch
        self._save = save
        self.training = Training(plan)
        self.state = self._first_state() if resume is None else self._settled(resume)
        self._train_up_to_state()

    @property
    def started(self) -> bool:
        """Whether the log says that the run started."""
        return bool(self.recorded(RUN_STARTED))

    def start(self, acceptances: Iterable[SignedStatement]) -> None:
        """Log that the run started, once, and who takes part, each time."""
        plan = self._plan
        if not self.started:
            self.record(
                RUN_STARTED,
                {
                    "run_id": self._run_id,
                    "plan_hash": plan.hash,
                    "sites": list(plan.sites),
                    "initial_version": plan.initial_version,
                },
            )
        for acceptance in acceptances:
            self.accept(acceptance)

    def accept(self, acceptance: SignedStatement) -> None:
        """Log a hospital's acceptance of the plan."""
        self.record(SITE_ACCEPTED, {"run_id": self._run_id, "acceptance": acceptance.to_json()})

    def next_round(self, answered: Iterable[int]) -> int:
        """The first round that no hospital can have answered; those before it without a result are lost.

        Args: answered: the last round of each hospital.
        """
        last = max([self.state.finished, *self.state.lost, *answered])
        for number in range(self.state.finished + 1, last + 1):
            if number not in self.state.lost:
                self.lose(number, "the coordinator was stopped before the round's sum was known", [])
        return last + 1

    def announce(self, number: int) -> None:
        """Before hospitals are asked for their vectors: from now on the round may have been answered."""
        self.state = replace(self.state, announced=number)
        self._save(self.state)

    def finish(self, number: int, survivors: tuple[str, ...], receipts: Mapping[str, SignedStatement]) -> None:
        """Keep the result of a round that `training` has taken in, then log it.

        Args: receipts: by hospital, of the survivors at least.
        Raises: SignerBarred when the log bars a receipt's certificate; the round is to be taken back.
        """
        version_in = self.state.version
        optimiser = self.training.optimiser_bytes()
        version_out = self._store(self.training.parameters.to_bytes())
        entry = {
            "run_id": self._run_id,
            "round": number,
            "plan_hash": self._plan.hash,
            "version_in": version_in,
            "version_out": version_out,
            "participants": list(survivors),
            # Also those that were lost before the round's vectors were asked for.
            "dropped": sorted(set(self._plan.sites) - set(survivors)),
            "receipts": [receipts[site].to_json() for site in survivors],
        }
        before = {field: getattr(self.state, field) for field in _OF_LAST_ROUND}
        self.state = replace(
            self.state,
            finished=number,
            version=version_out,
            optimiser=None if optimiser is None else self._store(optimiser),
            participants=survivors,
            pending={"kind": ROUND_COMPLETED, "body": entry, "before": before},
        )
        self._save(self.state)
        size = self.record(ROUND_COMPLETED, entry)
        self.state = replace(self.state, pending=None, log_size=size)

    def lose(self, number: int, reason: str, participants: Sequence[str]) -> None:
        """Give a round up: what it cost stays spent, the model stays as it was."""
        if number not in {body["round"] for body in self.recorded(ROUND_ABORTED)}:
            self.record(
                ROUND_ABORTED,
                {
                    "run_id": self._run_id,
                    "round": number,
                    "reason": reason[:4000],
                    "participants": list(participants),
                    "dropped": sorted(set(self._plan.sites) - set(participants)),
                },
            )
        self.training.skip(number)
        self.state = replace(self.state, announced=max(number, self.state.announced), lost=(*self.state.lost, number))
        self._save(self.state)

    def take_back(self, number: int, reason: str, participants: Sequence[str]) -> None:
        """Lose a round whose entry the log barred, with everything that rests on it."""
        self.state = _before_last_round(self.state)
        self._train_up_to_state()
        self.lose(number, reason, participants)

    def conclude(self) -> tuple[str, bytes]:
        """After the last round: log the version that the run made, once; returns its digest and its bytes."""
        plan = self._plan
        model = self.training.parameters.to_bytes()
        version = self._store(model)
        if not self.recorded(VERSION_CREATED):
            self.record(
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
        if not self.recorded(RUN_FINISHED):
            self.record(
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
        return version, model

    def _first_state(self) -> RunState:
        version = version_id(self.training.parameters.to_bytes())
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
            if body["round"] not in {entry["round"] for entry in self.recorded(kind)}:
                self.record(kind, body)
        except SignerBarred as error:
            _LOG.warning("run %s, round %d is lost: %s", self._run_id, body["round"], error)
            return _before_last_round(state)
        return replace(state, pending=None)

    def _train_up_to_state(self) -> None:
        """Take the training to where the state says it is."""
        self.training = Training(self._plan)
        state = self.state
        if state.finished:
            optimiser = None if state.optimiser is None else self._fetch(state.optimiser)
            self.training.restore(self._fetch(state.version), optimiser)
        for number in state.lost:
            if number > state.finished:
                self.training.skip(number)


def _before_last_round(state: RunState) -> RunState:
    """The state before the round whose entry is pending; the round stays announced, and is never asked for again."""
    if state.pending is None:
        raise RuntimeError("expected a state whose last round is not yet logged")
    before = state.pending["before"]
    return replace(state, **{**before, "participants": tuple(before["participants"])}, pending=None)
