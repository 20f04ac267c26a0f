"""What may be appended to the log: entries are judged as the verifier will judge them, before they are there.

Nothing can be taken back from a log. So whoever appends an entry about plans, releases or certificates first
asks `admit` what a log with it would say, and appends only when nobody would refuse it later. The append
names the size of the log that was judged (`Log.append(expected_size=...)`): of two writers who read the same
log one is told to read again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from audit.certificate_request import check_issued
from audit.enrolment import enrolments
from audit.entry import (
    APPROVAL_GIVEN,
    CERTIFICATE_ISSUED,
    CERTIFICATE_STATUS_CHANGED,
    GATES_SET,
    PLAN_PROPOSED,
    PRIVACY_AUDIT_REPORTED,
    RELEASE_CERTIFIED,
    RELEASE_SUPERSEDED,
    RELEASE_WITHDRAWN,
    VALUE_ERASED,
    WITNESS_ENROLLED,
    Entry,
)
from audit.erasure import check_erasure
from audit.errors import ReleaseError, TraceError
from audit.evidence import Evidence, Logged
from audit.gate_trace import gates_in_force, last_audit
from audit.plan_trace import PLAN_PROPOSERS
from audit.release import APPROVE, ReleaseStatement, check_approvals
from audit.release_state import CANDIDATE, Standing, certified_of, standings, withdrawal_approvers
from audit.selection import entries_bearing_on
from audit.trace import trace_release


def admit(evidence: Evidence, entries: Sequence[Entry]) -> Evidence:
    """The log with `entries` behind it.

    `evidence` holds the whole log, or at least its register, certificates, plans' proposals and approvals.
    Raises TraceError, ReleaseError or another AuditError for the first entry that nobody should rely on: signed
    with a certificate that is unknown, revoked or of another role, about something never proposed, or a move
    between states that does not exist.
    """
    size = evidence.size
    after = Evidence(
        [*((each.index, each.entry) for each in evidence.entries), *enumerate(entries, size)], evidence.root
    )
    standings(after)
    for logged in after.entries[len(evidence.entries) :]:
        check = _CHECKS.get(logged.entry.kind)
        if check is not None:
            check(after, logged)
    return after


def _check_plan(evidence: Evidence, logged: Logged) -> None:
    plan_hash = logged.body["plan_hash"]
    evidence.only(PLAN_PROPOSED, f"plan {plan_hash}", plan_hash=plan_hash)
    evidence.proposer(logged, "plan", plan_hash, PLAN_PROPOSERS)


def _check_approval(evidence: Evidence, logged: Logged) -> None:
    subject = logged.entry.signed("approval").statement["subject"]
    kind, digest = subject["kind"], subject["digest"]
    evidence.approvals(kind, digest, after=logged.index - 1, before=logged.index + 1)  # verifies the signature
    if kind == "request":  # arrives outside the log; a digest that nobody asked for approves nothing
        return
    if kind == "plan":
        proposed = bool(evidence.of_kind(PLAN_PROPOSED, plan_hash=digest))
    elif kind == "release":
        proposed = _candidate(evidence, logged, digest)
    else:
        pending = [each.withdrawal for each in standings(evidence).values() if each.withdrawal is not None]
        proposed = digest in {each.digest for each in pending}
    if not proposed:
        raise TraceError(f"{logged}: no {kind} {digest} was proposed")


def _candidate(evidence: Evidence, logged: Logged, digest: str) -> bool:
    """Whether a statement was proposed; raises ReleaseError when it is decided already."""
    found = [each for each in standings(evidence).values() if each.statement == digest]
    if found and found[0].state != CANDIDATE and (found[0].certified_index or 0) < logged.index:
        raise ReleaseError(f"{logged}: release {found[0].release} is {found[0].state}; there is nothing to decide")
    return bool(found)


def _check_gates(evidence: Evidence, logged: Logged) -> None:
    gates_in_force(evidence, logged.entry.signed("gates").statement["task"], before=logged.index + 1)


def _check_audit(evidence: Evidence, logged: Logged) -> None:
    last_audit(evidence, before=logged.index + 1, at=logged.entry.time)


def _check_status(evidence: Evidence, logged: Logged) -> None:
    if logged.body["digest"] not in evidence.certificates:
        raise TraceError(f"{logged}: certificate {logged.body['digest']} was never announced in the log")


def _check_certificate(evidence: Evidence, logged: Logged) -> None:
    check_issued(evidence, [logged])


def _check_enrolment(evidence: Evidence, logged: Logged) -> None:
    enrolments(evidence)


_CHECKS: Mapping[str, Callable[[Evidence, Logged], None]] = {
    PLAN_PROPOSED: _check_plan,
    APPROVAL_GIVEN: _check_approval,
    GATES_SET: _check_gates,
    PRIVACY_AUDIT_REPORTED: _check_audit,
    CERTIFICATE_ISSUED: _check_certificate,
    CERTIFICATE_STATUS_CHANGED: _check_status,
    WITNESS_ENROLLED: _check_enrolment,
    VALUE_ERASED: check_erasure,
}


def certifying_entries(
    evidence: Evidence, statement_bytes: bytes, plans: Mapping[str, bytes], *, at: datetime
) -> list[Entry]:
    """The entries that certify a candidate, and retire the release it replaces, in one append.

    `evidence` holds the whole log; `plans` maps the hashes of the plans the version rests on to their bytes.
    Raises ReleaseError or TraceError, and nothing is to be appended, unless the release's whole trace holds
    with these entries: quorum, gates, states, run.
    """
    statement = ReleaseStatement.from_bytes(statement_bytes)
    what = f"release {statement.release}"
    releases = standings(evidence)
    standing = releases.get(statement.release)
    if standing is None or standing.statement != statement.digest:
        raise TraceError(f"{what}: this statement was never proposed")
    entries = [
        Entry(
            RELEASE_CERTIFIED,
            at,
            {
                "release": statement.release,
                "statement": statement.digest,
                "version": statement.version,
                "approvals": _approving(evidence, statement, standing),
            },
        )
    ]
    current = certified_of(releases, statement.task)
    if current is not None:
        entries.append(
            Entry(RELEASE_SUPERSEDED, at, {"release": current.release, "by": statement.release, "supersession": None})
        )
    after = admit(evidence, entries)
    bearing, _ = entries_bearing_on([(each.index, each.entry) for each in after.entries], statement, statement.digest)
    trace_release(Evidence(bearing, after.root), statement_bytes, plans)
    return entries


def _approving(evidence: Evidence, statement: ReleaseStatement, standing: Standing) -> list[str]:
    """Digests of the certificates behind the approvals that count; raises ReleaseError without a quorum."""
    approvals = evidence.approvals("release", statement.digest, after=standing.proposed_index, before=evidence.size)
    check_approvals(
        f"release {statement.release}",
        approvals,
        statement.policy.release,
        proposer=standing.proposer,
        organisations=statement.policy.organisations,
    )
    last = {each.approver.person: each for each in approvals if each.approver.person != standing.proposer.person}
    return sorted({each.approver.certificate_digest for each in last.values() if each.decision == APPROVE})


def withdrawing_entry(evidence: Evidence, release: str, *, at: datetime) -> Entry:
    """The entry that withdraws a release whose withdrawal was proposed and approved by two people.

    Raises ReleaseError or TraceError unless the states allow it and the approvals suffice.
    """
    standing = standings(evidence).get(release)
    if standing is None or standing.withdrawal is None:
        raise ReleaseError(f"release {release}: nobody proposed to withdraw it")
    approvers = withdrawal_approvers(evidence, standing.withdrawal, before=evidence.size)
    entry = Entry(
        RELEASE_WITHDRAWN,
        at,
        {
            "release": release,
            "statement": standing.statement,
            "withdrawal": standing.withdrawal.digest,
            "approvals": sorted(each.certificate_digest for each in approvers),
        },
    )
    admit(evidence, [entry])
    return entry
