"""From a finished run to a certified release: gates, statement, quorum, dossier.

A release statement gathers what the log has about a version. Its gates must hold before it can be proposed; its
approvals are counted when it is certified, under the same rules the offline verifier applies afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from admin_api.errors import ReleaseRefused
from admin_api.people import Person
from audit.certificates import CONSORTIUM_ADMIN, RELEASE_MANAGER
from audit.dossier import write_dossier
from audit.entry import (
    METRICS_REPORTED,
    RELEASE_CERTIFIED,
    RELEASE_PROPOSED,
    ROUND_COMPLETED,
    RUN_FINISHED,
    Entry,
)
from audit.errors import AuditError
from audit.evidence import Evidence
from audit.release import APPROVE, AT_LEAST, AT_MOST, Gate, ReleaseStatement, check_approvals
from audit.selection import entries_bearing_on
from audit.statement import SignedStatement
from audit.store import Log
from audit.trace import trace_release
from audit.verify import verify_dossier
from jobs.home import ConsortiumHome

_GATE = re.compile(r"(?P<name>[^<>=]+)(?P<comparison>>=|<=)(?P<threshold>[0-9.eE+-]+)")


def parse_gate(text: str) -> tuple[str, str, float]:
    """`hit@1@every-site>=0.4` -> name, comparison, threshold. Raises ReleaseRefused."""
    match = _GATE.fullmatch(text.replace(" ", ""))
    try:
        if match is None:
            raise ValueError
        return match["name"], AT_LEAST if match["comparison"] == ">=" else AT_MOST, float(match["threshold"])
    except ValueError:
        raise ReleaseRefused(
            f"gate {text!r}: expected name>=number or name<=number, such as 'hit@1@every-site>=0.4' or 'epsilon<=8'"
        ) from None


def propose_release(
    home: ConsortiumHome, *, run_id: str, release: str, gates: Sequence[str], proposer: Person
) -> ReleaseStatement:
    """Gather a finished run's evidence into a release statement and log it as a candidate.

    Raises: ReleaseRefused when the run has not finished, the name is taken, or a gate fails.
    """
    proposer.require(CONSORTIUM_ADMIN, RELEASE_MANAGER)
    if not gates:
        raise ReleaseRefused("a release needs at least one gate, such as --gate 'epsilon<=8'")
    with home.log() as log:
        finished = [entry for _, entry in log.entries(kind=RUN_FINISHED) if entry.body["run_id"] == run_id]
        reported = [entry for _, entry in log.entries(kind=METRICS_REPORTED)]
        rounds = [entry.body for _, entry in log.entries(kind=ROUND_COMPLETED) if entry.body["run_id"] == run_id]
        taken = {entry.body["release"] for _, entry in log.entries(kind=RELEASE_PROPOSED)}
    if not finished:
        raise ReleaseRefused(f"run {run_id} has not finished; `zegel run status {run_id}` says where it is")
    if release in taken:
        raise ReleaseRefused(f"release {release!r} was proposed already; choose another name")
    run = finished[0].body
    metrics: dict[str, SignedStatement] = {
        entry.body["site"]: entry.signed("metrics")
        for entry in reported
        if entry.body["version"] == run["version"] and entry.signed("metrics").statement["run_id"] == run_id
    }
    values = {
        site: {name: float(item["value"]) for name, item in signed.statement["values"].items()}
        for site, signed in metrics.items()
    }
    try:
        statement = ReleaseStatement(
            consortium=home.config().name,
            release=release,
            version=run["version"],
            plan_hash=run["plan_hash"],
            run_id=run_id,
            sites=tuple(sorted({site for body in rounds for site in body["participants"]})),
            evaluation_sites=tuple(sorted(metrics)),
            epsilon=run["epsilon"],
            delta=run["delta"],
            accountant=run["accountant"],
            metrics={site: signed.digest for site, signed in metrics.items()},
            gates=tuple(_gate(text, run["epsilon"], values) for text in gates),
            time=home.clock(),
            proposer=proposer.certificate_digest,
        )
    except AuditError as error:
        raise ReleaseRefused(str(error)) from None
    digest = home.artifacts().put(statement.to_bytes())
    home.record(
        Entry(RELEASE_PROPOSED, home.clock(), {"release": release, "statement": digest, "version": run["version"]})
    )
    return statement


def load_statement(home: ConsortiumHome, release: str) -> ReleaseStatement:
    """A proposed release's statement. Raises ReleaseRefused when there is none of that name."""
    with home.log() as log:
        found = [entry.body for _, entry in log.entries(kind=RELEASE_PROPOSED) if entry.body["release"] == release]
    if not found:
        raise ReleaseRefused(f"no release {release!r} was proposed; `zegel release list` shows those that were")
    return ReleaseStatement.from_bytes(home.artifacts().get(found[0]["statement"]))


def certify(home: ConsortiumHome, release: str) -> bytes:
    """Certify a proposed release whose approvals suffice, and write its dossier.

    The entry that certifies goes into the log first, since the dossier must hold it. Before that, the release is
    traced with this entry as the verifier will; if anything is missing, nothing is logged and nothing written. A
    release that was certified before only gets its dossier written again.

    Returns: the dossier's bytes. Raises: ReleaseRefused when approvals are missing or a part does not hold.
    """
    statement = load_statement(home, release)
    try:
        with home.log() as log:
            certified = any(entry.body["release"] == release for _, entry in log.entries(kind=RELEASE_CERTIFIED))
            if not certified:
                log.append([_certifying_entry(home, log, statement)])
            root_pem = (home.ca / "rootCA.pem").read_bytes()
            dossier = write_dossier(
                log, home.artifacts(), release, key=home.log_key(), root_pem=root_pem, clock=home.clock
            )
        verify_dossier(dossier, root_pem, now=home.clock())  # nothing is handed out that others would refuse
        return dossier
    except AuditError as error:
        raise ReleaseRefused(f"release {release!r} is not certified: {error}") from None


def _certifying_entry(home: ConsortiumHome, log: Log, statement: ReleaseStatement) -> Entry:
    """The entry that certifies a release, after tracing the release with it as a verifier will."""
    entries = list(log.entries())
    evidence = Evidence(entries, home.root())
    what = f"release {statement.release}"
    proposed = evidence.only(RELEASE_PROPOSED, what, statement=statement.digest)
    approvals = evidence.approvals("release", statement.digest, after=proposed.index, before=log.size)
    proposer = evidence.person(proposed, statement.proposer)
    check_approvals(
        what, approvals, statement.policy.release, proposer=proposer, organisations=statement.policy.organisations
    )
    last = {item.approver.person: item for item in approvals if item.approver.person != proposer.person}
    entry = Entry(
        RELEASE_CERTIFIED,
        home.clock(),
        {
            "release": statement.release,
            "statement": statement.digest,
            "version": statement.version,
            "approvals": sorted(
                {item.approver.certificate_digest for item in last.values() if item.decision == APPROVE}
            ),
        },
    )
    artifacts = home.artifacts()
    artifacts.get(statement.version)  # the model must be there: the dossier holds it
    bearing, plan_hashes = entries_bearing_on([*entries, (log.size, entry)], statement, statement.digest)
    plans = {plan_hash: artifacts.get(plan_hash) for plan_hash in plan_hashes}
    trace_release(Evidence(bearing, home.root()), statement.to_bytes(), plans)
    return entry


def _gate(text: str, epsilon: float, values: dict[str, dict[str, float]]) -> Gate:
    name, comparison, threshold = parse_gate(text)
    value = Gate(name, comparison, threshold, 0.0).derive(epsilon=epsilon, metrics=values)
    if value is None:
        raise ReleaseRefused(
            f"gate {name}: not a metric hospitals report; use METRIC@SITE, METRIC@every-site or epsilon"
        )
    return Gate(name, comparison, threshold, value)
