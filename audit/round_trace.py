"""The rounds of a run, rebuilt from the log: one unbroken chain of versions, each with its receipts.

A round that was lost, because too few hospitals were there or a crash cut it off, is in the log as aborted: it changes
no version and is never carried out later. Every number from 1 to the last is there once, completed or aborted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from audit.entry import ROUND_ABORTED, ROUND_COMPLETED
from audit.errors import TraceError
from audit.evidence import Evidence, Logged
from audit.plan_trace import PlanTrace
from audit.statement import RECEIPT, SignedStatement

DISTRIBUTED = "distributed"  # the noise mode in which the hospitals' noise adds up


@dataclass(frozen=True)
class ReceiptTrace:
    """A hospital's signed part in one round."""

    site: str
    time: datetime
    masked_upload: str
    manifest: str
    ledger_head: str
    certificate: str


@dataclass(frozen=True)
class RoundTrace:
    """One aggregation."""

    number: int
    index: int
    time: datetime
    version_in: str
    version_out: str
    participants: tuple[str, ...]
    dropped: tuple[str, ...]
    receipts: tuple[ReceiptTrace, ...]


@dataclass(frozen=True)
class Acceptance:
    """A hospital's verified consent to a run."""

    index: int
    manifest: str
    organisation: str
    epsilon_reserved: float


def trace_rounds(
    evidence: Evidence,
    started: Logged,
    finished: Logged,
    plan: PlanTrace,
    acceptances: Mapping[str, list[Acceptance]],
) -> list[RoundTrace]:
    """The run's completed rounds in order, from the plan's initial version to the run's result; raises TraceError.

    `acceptances` are the verified acceptances of this run by hospital, in log order.
    """
    run_id = started.body["run_id"]
    version = plan.initial_version
    rounds: list[RoundTrace] = []
    logged_rounds = [
        *evidence.of_kind(ROUND_COMPLETED, run_id=run_id),
        *evidence.of_kind(ROUND_ABORTED, run_id=run_id),
    ]
    for number, logged in enumerate(sorted(logged_rounds, key=lambda each: each.index), start=1):
        if logged.body["round"] != number:
            raise TraceError(f"{logged}: run {run_id}: expected round {number}, got round {logged.body['round']}")
        if not started.index < logged.index < finished.index:
            raise TraceError(f"{logged}: expected it between {started} and {finished}")
        if logged.entry.kind == ROUND_ABORTED:
            continue
        logged.expect("plan_hash", plan.plan_hash, logged.body["plan_hash"])
        logged.expect("version_in", version, logged.body["version_in"])
        rounds.append(_round(evidence, logged, started, plan, acceptances))
        version = logged.body["version_out"]
    finished.expect("rounds", len(logged_rounds), finished.body["rounds"])
    finished.expect("version", version, finished.body["version"])
    return rounds


def _round(
    evidence: Evidence,
    logged: Logged,
    started: Logged,
    plan: PlanTrace,
    acceptances: Mapping[str, list[Acceptance]],
) -> RoundTrace:
    body = logged.body
    participants, dropped = body["participants"], body["dropped"]
    if set(participants) & set(dropped):
        raise TraceError(f"{logged}: a hospital both took part and dropped out")
    stray = sorted((set(participants) | set(dropped)) - set(started.body["sites"]))
    if stray:
        raise TraceError(f"{logged}: {', '.join(stray)} is not part of the run")
    needed = len(plan.sites) - plan.dropouts
    if plan.noise_mode == DISTRIBUTED and len(participants) < needed:
        # Each hospital adds a share of the noise sized for at most `dropouts` missing shares.
        raise TraceError(
            f"{logged}: expected at least {needed} participants for the plan's noise, got {len(participants)}"
        )
    receipts = [_receipt(evidence, logged, value, acceptances) for value in body["receipts"]]
    signers = sorted(receipt.site for receipt in receipts)
    if signers != sorted(participants):
        raise TraceError(f"{logged}: expected one receipt of each of {sorted(participants)}, got {signers}")
    return RoundTrace(
        number=body["round"],
        index=logged.index,
        time=logged.entry.time,
        version_in=body["version_in"],
        version_out=body["version_out"],
        participants=tuple(participants),
        dropped=tuple(dropped),
        receipts=tuple(receipts),
    )


def _receipt(
    evidence: Evidence, logged: Logged, value: object, acceptances: Mapping[str, list[Acceptance]]
) -> ReceiptTrace:
    signed = SignedStatement.from_json(value)
    statement = signed.statement
    site = statement["site"]
    evidence.verify_site(logged, signed, RECEIPT, site)
    if site not in logged.body["participants"]:
        raise TraceError(f"{logged}: holds a receipt of {site}, which is not among the participants")
    for field in ("run_id", "round", "plan_hash", "version_in"):
        logged.expect(f"receipt of {site}, {field}", logged.body[field], statement[field])
    accepted = [a.manifest for a in acceptances.get(site, ()) if a.index < logged.index]
    if not accepted:
        raise TraceError(f"{logged}: {site} took part without having accepted the run")
    if statement["manifest"] not in accepted:
        raise TraceError(
            f"{logged}: receipt of {site}: expected the data manifest of its acceptance, {accepted[-1]}, "
            f"got {statement['manifest']}"
        )
    return ReceiptTrace(
        site=site,
        time=signed.time,
        masked_upload=statement["masked_upload"],
        manifest=statement["manifest"],
        ledger_head=statement["ledger_head"],
        certificate=signed.certificate,
    )
