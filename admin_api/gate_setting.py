"""Gates, policy and audits: what a release will be measured by, put into the log before anybody knows the figures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from admin_api.errors import ReleaseRefused
from admin_api.recording import read_evidence, reason_of, record_judged, signed_by
from admin_api.signing import Signer
from audit.canonical import digest_of, format_time, parse_json_object, parse_time
from audit.certificates import CLIENT, identity_of
from audit.disclosure import commitment_of
from audit.entry import GATES_SET, PRIVACY_AUDIT_REPORTED, Entry
from audit.errors import AuditError, CanonicalError
from audit.evidence import Evidence
from audit.gate_trace import AUDITORS, GATE_SETTERS, gates_in_force
from audit.gates import AT_LEAST, AT_MOST, EVERY_NON_TRAINING_SITE, EVERY_SITE, GateRule
from audit.release import GateSet, Policy
from audit.statement import GATES, PRIVACY_AUDITED
from jobs.home import ConsortiumHome

REPORT_SCHEMA = "zegel/privacy-audit/v1"
MAX_REPORT_BYTES = 1 << 16
_GATE = re.compile(r"(?P<name>[^<>=]+)(?P<comparison>>=|<=)(?P<threshold>[0-9.eE+-]+)")


def parse_gate(text: str) -> GateRule:
    """`hit@1@every-site>=0.4` as a rule. Raises ReleaseRefused for what is no gate, or none that can be measured."""
    match = _GATE.fullmatch(text.replace(" ", ""))
    try:
        if match is None:
            raise ValueError
        comparison, threshold = AT_LEAST if match["comparison"] == ">=" else AT_MOST, float(match["threshold"])
    except ValueError:
        raise ReleaseRefused(
            f"gate {text!r}: expected name>=number or name<=number, such as 'hit@1@every-site>=0.4' or 'epsilon<=8'"
        ) from None
    try:
        return GateRule(match["name"], comparison, threshold)
    except AuditError as error:
        raise ReleaseRefused(str(error)) from None


def set_gates(
    home: ConsortiumHome, *, task: str, gates: Sequence[str], policy: Policy, reason: str, person: Signer
) -> GateSet:
    """Fix the gates and the policy of a task for the runs that start from now on.

    Raises: ReleaseRefused for a gate that cannot be measured or names no hospital of this consortium, ApprovalError
        unless the person is a release manager.
    """
    person.require(*GATE_SETTERS)
    if not gates:
        raise ReleaseRefused("a release needs at least one gate, such as --gate 'epsilon<=8'")
    try:
        why = reason_of(reason, person)
        chosen = GateSet(task, tuple(parse_gate(text) for text in gates), policy, commitment_of(why))
        _check_hospitals(read_evidence(home), chosen)
        signed = signed_by(home, person, GATES, chosen.to_json())

        def build(evidence: Evidence) -> list[Entry]:
            _check_hospitals(evidence, chosen)
            return [Entry(GATES_SET, home.clock(), {"gates": signed.to_json()})]

        record_judged(home, build, beside=[why])
    except AuditError as error:
        raise ReleaseRefused(f"gates of {task}: {error}") from None
    return chosen


def gates_now(home: ConsortiumHome, task: str) -> GateSet:
    """The gates that a run starting now would be judged by. Raises ReleaseRefused when none are set."""
    try:
        evidence = read_evidence(home)
        return gates_in_force(evidence, task, before=evidence.size).gates
    except AuditError as error:
        raise ReleaseRefused(f"{error}; a release manager sets them with --gate and --as") from None


def _check_hospitals(evidence: Evidence, gates: GateSet) -> None:
    """Raises ReleaseRefused for a gate on a hospital nobody knows: it would fail when it is too late to correct it."""
    holders = map(identity_of, evidence.certificates.values())
    known = {holder.name for holder in holders if holder.role == CLIENT} | {EVERY_SITE, EVERY_NON_TRAINING_SITE}
    for rule in gates.rules:
        metric, separator, site = rule.name.rpartition("@")
        if separator and not rule.name.startswith(("gap:", "predecessor:")) and site not in known:
            raise ReleaseRefused(
                f"gate {rule.name}: {site!r} is no hospital of this consortium; write {rule.name}@{EVERY_SITE} for the "
                f"worst of all, or {metric}@HOSPITAL"
            )


def log_audit(home: ConsortiumHome, path: Path, person: Signer) -> dict[str, Any]:
    """Keep the report of `zegel privacy audit` and log what it found; see `log_audit_report`.

    Raises: ReleaseRefused also when the file cannot be read.
    """
    try:
        if path.stat().st_size > MAX_REPORT_BYTES:
            raise ReleaseRefused(f"{path}: larger than any audit report ({MAX_REPORT_BYTES} bytes)")
        data = path.read_bytes()
    except OSError as error:
        raise ReleaseRefused(f"{path} cannot be read: {error.strerror}") from None
    return log_audit_report(home, data, str(path), person)


def log_audit_report(home: ConsortiumHome, data: bytes, what: str, person: Signer) -> dict[str, Any]:
    """Keep an audit's report and log what it found, signed by whoever stands for it.

    Returns: the statement's fields. Raises: ReleaseRefused when these bytes are no such report, ApprovalError unless
        the person is a privacy officer or of the authority.
    """
    person.require(*sorted(AUDITORS))
    fields = read_report(data, what, home.clock())
    signed = signed_by(home, person, PRIVACY_AUDITED, fields)

    def build(_: Evidence) -> list[Entry]:
        entry = Entry(PRIVACY_AUDIT_REPORTED, home.clock(), {"audit": signed.to_json()})
        home.artifacts().put(data)
        return [entry]

    try:
        record_judged(home, build)
    except AuditError as error:
        raise ReleaseRefused(f"{what}: {error}") from None
    return fields


def read_report(data: bytes, what: str, now: datetime) -> dict[str, Any]:
    """What an audit's report says of itself, as the statement about it has it. Raises ReleaseRefused."""
    try:
        report = parse_json_object(data, what)
    except CanonicalError as error:
        raise ReleaseRefused(f"{error}; give what `zegel privacy audit --json` wrote, unchanged") from None
    if report.get("schema") != REPORT_SCHEMA:
        raise ReleaseRefused(f"{what}: expected schema {REPORT_SCHEMA}, got {report.get('schema')!r}")
    names = ("software", "claim", "lower_bound", "delta", "passed", "quick")
    missing = [each for each in (*names, "time") if each not in report]
    if missing:
        raise ReleaseRefused(f"{what}: missing {', '.join(missing)}")
    try:
        audited_at = parse_time(report["time"], f"{what}: time")
    except CanonicalError as error:
        raise ReleaseRefused(str(error)) from None
    if audited_at > now:
        raise ReleaseRefused(f"{what}: dated {report['time']}, but it is {format_time(now)} now")
    return {"report": digest_of(data), "audited_at": report["time"], **{each: report[each] for each in names}}
