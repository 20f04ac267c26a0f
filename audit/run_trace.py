"""One run rebuilt from the log: its plan and who approved it, the hospitals, every round, what it spent.

What is checked: the plan was approved before the run started; rounds are numbered without a gap, lost ones
included; each completed round
starts from the version the last one made, from the plan's initial version to the run's result; each round's
receipts are exactly those of its participants, signed by them, for this run, round, plan and version, with
a data manifest the hospital announced and accepted the run with; enough hospitals took part for the noise
the epsilon relies on; the epsilon and delta spent are within the plan's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from audit.entry import (
    ROUND_ABORTED,
    RUN_FINISHED,
    RUN_STARTED,
    SITE_ACCEPTED,
    SITE_MANIFEST,
    SITE_REFUSED,
)
from audit.errors import TraceError
from audit.evidence import Evidence, Logged
from audit.plan_trace import PlanTrace, trace_plan
from audit.round_trace import Acceptance, RoundTrace, trace_rounds
from audit.statement import ACCEPTANCE, DATA_MANIFEST, REFUSAL, SignedStatement


@dataclass(frozen=True)
class HospitalTrace:
    """A hospital's part in a run. Counts below 10 are null."""

    site: str
    organisation: str
    accepted_index: int
    manifest: str
    admissions: int | None
    patients: int | None
    period_first: str | None
    period_last: str | None
    epsilon_reserved: float
    rounds_joined: int
    rounds_dropped: int


@dataclass(frozen=True)
class RefusalTrace:
    """A hospital that said no to the run."""

    site: str
    index: int
    code: str
    reason: str


@dataclass(frozen=True)
class RunTrace:
    """A finished run."""

    run_id: str
    plan: PlanTrace
    started_at: datetime
    started_index: int
    finished_at: datetime
    finished_index: int
    initial_version: str
    version: str
    epsilon: float
    delta: float
    accountant: str
    hospitals: tuple[HospitalTrace, ...]  # those that accepted
    refusals: tuple[RefusalTrace, ...]
    rounds: tuple[RoundTrace, ...]
    rounds_aborted: int


def trace_run(evidence: Evidence, created: Logged, plans: Mapping[str, bytes], plan_roles: Sequence[str]) -> RunTrace:
    """The run behind a `version.created` entry; raises TraceError at the first thing that does not fit."""
    run_id: str = created.body["run_id"]
    what = f"run {run_id}"
    started = evidence.only(RUN_STARTED, what, run_id=run_id)
    finished = evidence.only(RUN_FINISHED, what, run_id=run_id)
    plan = trace_plan(evidence, started, plans, plan_roles)
    started.expect("initial_version", plan.initial_version, started.body["initial_version"])
    stray = sorted(set(started.body["sites"]) - set(plan.sites))
    if stray:
        raise TraceError(f"{started}: {', '.join(stray)} trains, but the plan does not name it")
    acceptances = _acceptances(evidence, started, finished, plan)
    rounds = trace_rounds(evidence, started, finished, plan, acceptances)
    _check_end(created, finished, plan, rounds)
    return RunTrace(
        run_id=run_id,
        plan=plan,
        started_at=started.entry.time,
        started_index=started.index,
        finished_at=finished.entry.time,
        finished_index=finished.index,
        initial_version=plan.initial_version,
        version=finished.body["version"],
        epsilon=float(finished.body["epsilon"]),
        delta=float(finished.body["delta"]),
        accountant=finished.body["accountant"],
        hospitals=_hospitals(evidence, acceptances, rounds),
        refusals=_refusals(evidence, run_id),
        rounds=tuple(rounds),
        rounds_aborted=len(evidence.of_kind(ROUND_ABORTED, run_id=run_id)),
    )


def _acceptances(evidence: Evidence, started: Logged, finished: Logged, plan: PlanTrace) -> dict[str, list[Acceptance]]:
    run_id = started.body["run_id"]
    found: dict[str, list[Acceptance]] = {}
    for logged in evidence.of_kind(SITE_ACCEPTED, run_id=run_id):
        signed = logged.entry.signed("acceptance")
        site = signed.statement["site"]
        identity = evidence.verify_site(logged, signed, ACCEPTANCE, site)
        logged.expect("run_id", run_id, signed.statement["run_id"])
        logged.expect("plan_hash", plan.plan_hash, signed.statement["plan_hash"])
        # Hospitals that only evaluate accept the plan too; they are not among those that train.
        if site not in started.body["sites"] and site not in plan.evaluation_sites:
            raise TraceError(f"{logged}: {site} accepted, but is not part of the run")
        if not started.index < logged.index < finished.index:
            raise TraceError(f"{logged}: expected it between {started} and {finished}")
        manifest = signed.statement["manifest"]
        _manifest(evidence, logged, site, manifest)
        found.setdefault(site, []).append(
            Acceptance(logged.index, manifest, identity.organisation, float(signed.statement["epsilon_reserved"]))
        )
    return found


def _manifest(evidence: Evidence, user: Logged, site: str, digest: str) -> SignedStatement:
    """The data manifest a hospital announced before `user`."""
    for logged in evidence.of_kind(SITE_MANIFEST, site=site):
        signed = logged.entry.signed("manifest")
        if signed.statement["manifest"] == digest and logged.index < user.index:
            evidence.verify_site(logged, signed, DATA_MANIFEST, site)
            return signed
    raise TraceError(f"{user}: {site} uses data manifest {digest}, which it did not announce before")


def _check_end(created: Logged, finished: Logged, plan: PlanTrace, rounds: Sequence[RoundTrace]) -> None:
    body = finished.body
    finished.expect("plan_hash", plan.plan_hash, body["plan_hash"])
    finished.expect("accountant", plan.accountant, body["accountant"])
    if body["rounds"] > plan.rounds_allowed:
        raise TraceError(f"{finished}: the plan allows {plan.rounds_allowed} rounds, the log holds {body['rounds']}")
    if not rounds:
        raise TraceError(f"{finished}: every round was lost, so there is nothing to trace a version to")
    for field, allowed in (("epsilon", plan.epsilon), ("delta", plan.delta)):
        if body[field] > allowed:
            raise TraceError(f"{finished}: {field}: the plan allows {allowed}, got {body[field]}")
    created.expect("version", body["version"], created.body["version"])
    created.expect("model", created.body["version"], created.body["model"])
    created.expect("plan_hash", plan.plan_hash, created.body["plan_hash"])
    created.expect("rounds", [1, body["rounds"]], created.body["rounds"])
    created.expect("parents", [plan.initial_version], created.body["parents"])


def _hospitals(
    evidence: Evidence, acceptances: Mapping[str, list[Acceptance]], rounds: Sequence[RoundTrace]
) -> tuple[HospitalTrace, ...]:
    traces: list[HospitalTrace] = []
    by_index = {logged.index: logged for logged in evidence.of_kind(SITE_ACCEPTED)}
    for site, accepted in sorted(acceptances.items()):
        latest = accepted[-1]
        manifest = _manifest(evidence, by_index[latest.index], site, latest.manifest).statement
        traces.append(
            HospitalTrace(
                site=site,
                organisation=latest.organisation,
                accepted_index=latest.index,
                manifest=latest.manifest,
                admissions=manifest["admissions"],
                patients=manifest["patients"],
                period_first=manifest["period_first"],
                period_last=manifest["period_last"],
                epsilon_reserved=latest.epsilon_reserved,
                rounds_joined=sum(site in r.participants for r in rounds),
                rounds_dropped=sum(site in r.dropped for r in rounds),
            )
        )
    return tuple(traces)


def _refusals(evidence: Evidence, run_id: str) -> tuple[RefusalTrace, ...]:
    traces: list[RefusalTrace] = []
    for logged in evidence.of_kind(SITE_REFUSED, run_id=run_id):
        signed = logged.entry.signed("refusal")
        statement = signed.statement
        evidence.verify_site(logged, signed, REFUSAL, statement["site"])
        traces.append(RefusalTrace(statement["site"], logged.index, statement["code"], statement["reason"]))
    return tuple(traces)
