"""Entries and traces in words, for people who read a terminal or a printed page.

Everything is returned as lines or as a tree of lines; nothing is printed here. Free text from statements is
made printable first, so that it cannot forge a line or colour. People and reasons appear as person ids and
commitments; `audit.disclosure.Disclosed.in_words` puts what may be shown in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from audit import access
from audit import entry as kinds
from audit.canonical import format_time
from audit.disclosure import NOTHING_DISCLOSED, Disclosed
from audit.entry import Entry
from audit.gate_trace import GateTrace
from audit.gates import AT_LEAST, GateRule
from audit.metrics_trace import MetricsTrace
from audit.release import APPROVE, Approval
from audit.release_state import WITHDRAWN, Standing
from audit.run_trace import HospitalTrace, RunTrace
from audit.trace import ReleaseTrace
from audit.version_trace import VersionTrace

_SHORT = 19  # characters of a digest in running text: "sha256:" and 12 hex digits
_MAX_TEXT = 200


@dataclass
class Branch:
    """A line and the lines under it."""

    text: str
    branches: list[Branch] = field(default_factory=list)

    def add(self, text: str) -> Branch:
        """Adds a line under this one and returns it."""
        branch = Branch(text)
        self.branches.append(branch)
        return branch

    def lines(self, depth: int = 0) -> list[str]:
        """The tree as indented lines."""
        return ["  " * depth + self.text] + [line for branch in self.branches for line in branch.lines(depth + 1)]

    def said(self, said: Disclosed) -> Branch:
        """The same tree with names and reasons where they may be shown."""
        return Branch(said.in_words(self.text), [branch.said(said) for branch in self.branches])


def printable(value: object) -> str:
    """Text on one line without control characters, cut at 200 characters."""
    text = "".join(c if c.isprintable() else "?" for c in str(value))
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "..."


def short(digest: str) -> str:
    """Enough of a digest to recognise it; the JSON output holds it in full."""
    return digest[:_SHORT]


def entry_words(entry: Entry, said: Disclosed = NOTHING_DISCLOSED) -> str:
    """One line on what an entry says."""
    return printable(said.in_words(_WORDS[entry.kind](entry.body)))


def _approval_words(body: Mapping[str, Any]) -> str:
    s = body["approval"]["statement"]
    verb = "approved" if s["decision"] == APPROVE else "refused"
    subject = f"{s['subject']['kind']} {short(s['subject']['digest'])}"
    return f"{s['name']} ({s['role']}, {s['organisation']}) {verb} {subject}{_because(s)}"


def _refusal_words(body: Mapping[str, Any]) -> str:
    s = body["refusal"]["statement"]
    run = f"run {body['run_id']}" if body["run_id"] else f"plan {short(s['plan_hash'])}"
    return f"{s['site']} refused {run}: {s['code']}, {s['reason']}"


def _granted_words(body: Mapping[str, Any]) -> str:
    by = "" if body["by"] in (None, body["account"]) else f", by {body['by']}"
    return f"{body['account']}: {_GRANTED[body['method']]}{by}"


def _refused_words(body: Mapping[str, Any]) -> str:
    who = body["account"] or "somebody unknown"
    times = "" if body["count"] == 1 else f", {body['count']} times within a minute"
    return f"{who} was refused ({body['method']}): {_REFUSED[body['reason']]}{times}"


def _ended_words(body: Mapping[str, Any]) -> str:
    by = "" if body["by"] in (None, body["account"]) else f", by {body['by']}"
    return f"{body['account']}: {_ENDED[body['method']]}{by}"


def _agreed_words(body: Mapping[str, Any]) -> str:
    """Of a certificate: on whose approval it was issued; nothing for the consortium's machines and in earlier logs."""
    approvals = body.get("approvals")
    if approvals is None:
        return ""
    return f", approved by {len(approvals)} people" if approvals else ", by the root's holder alone"


def _because(statement: Mapping[str, Any]) -> str:
    return f": {statement['reason']}" if statement["reason"] else ""


def _audit_words(statement: Mapping[str, Any]) -> str:
    verdict = "passed" if statement["passed"] else "FAILED"
    return (
        f"empirical privacy audit {verdict}: found epsilon {statement['lower_bound']:g}, "
        f"claimed {statement['claim']:g} ({statement['software']})"
    )


def _without(dropped: list[str]) -> str:
    return f", without {', '.join(dropped)}" if dropped else ""


_GRANTED: Mapping[str, str] = {
    access.PASSKEY: "signed in with a passkey",
    access.OIDC: "signed in through the organisation's own sign-in",
    access.INVITED: "a one-time link was made",
    access.ENROLMENT: "used the one-time link and registered a passkey",
    access.PASSKEY_ADDED: "added a passkey",
    access.TOKEN_MADE: "made an API token",
    access.UNLOCKED: "unlocked",
}
_ENDED: Mapping[str, str] = {
    access.SIGN_OUT_EVERYWHERE: "signed out everywhere",
    access.PASSKEY_REMOVED: "removed a passkey",
    access.TOKEN_REVOKED: "revoked an API token",
    access.LOCKED: "locked",
    access.ACCOUNT_ENDED: "account ended",
    access.ROLE_CHANGED: "has another role now; earlier sessions and tokens ended",
}
_REFUSED: Mapping[str, str] = {
    access.UNKNOWN: "no such passkey, link or token",
    access.NOT_PROVEN: "the proof does not hold",
    access.STALE: "the challenge was used or has expired",
    access.COUNTER: "the passkey's counter went back, there may be a copy",
    access.NOT_ACTIVE: "the account is not active",
    access.TOO_MANY: "too many attempts",
    access.CROSS_SITE: "the request came from elsewhere",
    access.OUTSIDE_ROLE: "the role does not allow it",
    access.UNMAPPED: "the organisation's own sign-in names no role here",
}

_WORDS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    kinds.CONSORTIUM_FOUNDED: lambda b: f"consortium {b['name']} founded, server {b['server']}",
    kinds.CERTIFICATE_ISSUED: lambda b: (
        f"certificate for {b['name']} ({b['role']}, {b['organisation']}) until {b['not_after']}{_agreed_words(b)}"
    ),
    kinds.SITE_MANIFEST: lambda b: f"{b['site']} announced data {short(b['manifest']['statement']['manifest'])}",
    kinds.CERTIFICATE_STATUS_CHANGED: lambda b: (
        f"certificate of {b['revocation']['statement']['name']} {b['status']}{_because(b['revocation']['statement'])}"
    ),
    kinds.PLAN_PROPOSED: lambda b: f"plan {short(b['plan_hash'])} proposed by {b['proposal']['statement']['name']}",
    kinds.GATES_SET: lambda b: (
        f"gates set for {b['gates']['statement']['task']}: "
        + ", ".join(str(GateRule.from_json(rule)) for rule in b["gates"]["statement"]["gates"])
    ),
    kinds.PRIVACY_AUDIT_REPORTED: lambda b: _audit_words(b["audit"]["statement"]),
    kinds.APPROVAL_GIVEN: _approval_words,
    kinds.RUN_STARTED: lambda b: f"{b['run_id']} started with {', '.join(b['sites'])}",
    kinds.SITE_ACCEPTED: lambda b: f"{b['acceptance']['statement']['site']} accepted {b['run_id']}",
    kinds.SITE_REFUSED: _refusal_words,
    kinds.ROUND_COMPLETED: lambda b: (
        f"{b['run_id']} round {b['round']}: {', '.join(b['participants'])}{_without(b['dropped'])}"
    ),
    kinds.ROUND_ABORTED: lambda b: f"{b['run_id']} round {b['round']} aborted: {b['reason']}",
    kinds.RUN_FINISHED: lambda b: (
        f"{b['run_id']} finished after {b['rounds']} rounds, epsilon {b['epsilon']:g} at delta {b['delta']:g}"
    ),
    kinds.VERSION_CREATED: lambda b: f"version {short(b['version'])} made by {b['run_id']}",
    kinds.METRICS_REPORTED: lambda b: f"{b['site']} reported metrics of version {short(b['version'])}",
    kinds.RELEASE_PROPOSED: lambda b: (
        f"release {b['release']} proposed by {b['proposal']['statement']['name']}: version {short(b['version'])}"
    ),
    kinds.RELEASE_SUPERSEDED: lambda b: f"release {b['release']} superseded by {b['by']}",
    kinds.WITHDRAWAL_PROPOSED: lambda b: (
        f"withdrawal of release {b['release']} proposed{_because(b['withdrawal']['statement'])}"
    ),
    kinds.RELEASE_WITHDRAWN: lambda b: f"release {b['release']} withdrawn",
    kinds.WITNESS_ENROLLED: lambda b: (
        f"{b['enrolment']['statement']['organisation']} enrolled the witness {b['witness']}"
    ),
    kinds.VALUE_ERASED: lambda b: f"value behind {short(b['commitment'])} erased{_because(b['erasure']['statement'])}",
    kinds.RELEASE_CERTIFIED: lambda b: f"release {b['release']} certified: version {short(b['version'])}",
    kinds.ACCESS_GRANTED: _granted_words,
    kinds.ACCESS_REFUSED: _refused_words,
    kinds.ACCESS_ENDED: _ended_words,
}


def trace_tree(trace: ReleaseTrace) -> Branch:
    """The trace as an authority would read it, from the release down to hospitals and rounds."""
    tree = Branch(f"Release {trace.release} of {trace.consortium}")
    tree.add(f"version {trace.version}")
    tree.add(_standing_words(trace.standing))
    tree.add(f"certified {format_time(trace.certified_at)}, entry {trace.certified_index}")
    spent = tree.add(
        f"privacy: epsilon {trace.epsilon:g} at delta {trace.delta:g} per {trace.run.plan.unit} ({trace.accountant})"
    )
    for earlier in trace.runs[:-1]:
        spent.add(f"besides epsilon {earlier.epsilon:g} of the earlier run {earlier.run_id}: the two add up")
    people = tree.add(f"proposed by {trace.proposer}, approved by {_approving(trace.approvals)} people")
    _add_approvals(people, trace.approvals)
    set_by = trace.gate_set
    gates = tree.add(
        f"gates: {len(trace.gates)} passed, set by {set_by.set_by} on {format_time(set_by.set_at)}, before the run"
    )
    for gate in trace.gates:
        gates.add(_gate_words(gate))
    metrics = tree.add(f"metrics of {len(trace.metrics)} hospitals")
    for reported in trace.metrics:
        _add_metrics(metrics, reported)
    if trace.sites_without_metrics:
        metrics.add(f"planned, but not in the statement: {', '.join(trace.sites_without_metrics)}")
    for run in reversed(trace.runs):
        _add_run(tree, run)
    return tree


def _standing_words(standing: Standing) -> str:
    if standing.state == WITHDRAWN and standing.withdrawal is not None:
        return f"WITHDRAWN, entry {standing.since}: {standing.withdrawal.reason or 'no reason given'}"
    by = f" by {standing.superseded_by}" if standing.superseded_by else ""
    replaced = f", in place of {standing.predecessor}" if standing.predecessor else ""
    return f"{standing.state}{by}, entry {standing.since}{replaced}"


def version_tree(trace: VersionTrace) -> Branch:
    """A version's story, from what became of it down to hospitals and rounds."""
    tree = Branch(f"Version {trace.version} of {trace.consortium}, entry {trace.created_index}")
    releases = tree.add(f"releases: {len(trace.releases) or 'none was proposed with it'}")
    for release in trace.releases:
        branch = releases.add(
            f"{printable(release.release)}: {release.state} {format_time(release.since)}, entry {release.index}"
        )
        _add_approvals(branch, release.approvals)
    spent = sum(run.epsilon for run in trace.runs)
    words = f"privacy: epsilon {trace.run.epsilon:g} at delta {trace.run.delta:g} per {trace.run.plan.unit}"
    tree.add(words + (f"; with the runs before it at most {spent:g}" if len(trace.runs) > 1 else ""))
    metrics = tree.add(f"metrics of {len(trace.metrics)} hospitals")
    for reported in trace.metrics:
        _add_metrics(metrics, reported)
    for run in reversed(trace.runs):
        _add_run(tree, run)
    return tree


def _approving(approvals: tuple[Approval, ...]) -> int:
    return len({a.approver.person for a in approvals if a.decision == APPROVE})


def _add_approvals(branch: Branch, approvals: tuple[Approval, ...]) -> None:
    for a in approvals:
        reason = f" ({a.reason})" if a.reason else ""
        how = "" if a.relying_party is None else f", by passkey for {a.relying_party}"
        branch.add(f"{a.approver}: {a.decision}, {format_time(a.time)}{how}, {printable(a.meaning)!r}{reason}")


def _gate_words(gate: GateTrace) -> str:
    relation = ">=" if gate.comparison == AT_LEAST else "<="
    return f"{gate.name}: {_figure(gate.value)} {relation} {gate.threshold:g} ({printable(gate.detail)})"


def _add_metrics(branch: Branch, metrics: MetricsTrace) -> None:
    values = branch.add(f"{metrics.site} ({metrics.organisation}), entry {metrics.index}")
    for name, value in sorted(metrics.values.items()):
        interval = ""
        if value["lower"] is not None and value["upper"] is not None:
            interval = f" [{_figure(value['lower'])}, {_figure(value['upper'])}]"
        shown = "suppressed" if value["value"] is None else _figure(value["value"])
        values.add(f"{printable(name)} {shown}{interval}")


def _add_run(tree: Branch, run: RunTrace) -> None:
    plan = run.plan
    branch = tree.add(
        f"{run.run_id}: {len(run.rounds)} rounds, {format_time(run.started_at)} to {format_time(run.finished_at)}"
    )
    planned = branch.add(f"plan {plan.name}, {short(plan.plan_hash)}, proposed by {plan.proposer}")
    _add_approvals(planned, plan.approvals)
    planned.add(f"allows epsilon {plan.epsilon:g} at delta {plan.delta:g} in {plan.rounds} rounds")
    planned.add(
        f"sampling {plan.sampling_prob:g}, clip {plan.l2_clip_norm:g}, noise {plan.noise_multiplier:g} "
        f"({plan.noise_mode}), against {plan.colluders} colluding, {plan.dropouts} missing"
    )
    planned.add(f"{plan.labels} labels, from version {short(plan.initial_version)}")
    hospitals = branch.add(f"{len(run.hospitals)} hospitals")
    for hospital in run.hospitals:
        hospitals.add(_hospital_words(hospital, len(run.rounds)))
    for refusal in run.refusals:
        hospitals.add(f"{refusal.site} refused: {printable(refusal.code)}, {printable(refusal.reason)}")
    receipts = sum(len(r.receipts) for r in run.rounds)
    rounds = branch.add(f"rounds 1 to {len(run.rounds)} unbroken, {receipts} signed receipts")
    if run.rounds_aborted:
        rounds.add(f"{run.rounds_aborted} rounds were lost and not repeated")
    for completed in run.rounds:
        if completed.dropped:
            rounds.add(f"round {completed.number}{_without(list(completed.dropped))}, entry {completed.index}")


def _hospital_words(hospital: HospitalTrace, rounds: int) -> str:
    counts = ", ".join(
        f"{'fewer than 10' if count is None else count} {what}"
        for what, count in (("admissions", hospital.admissions), ("patients", hospital.patients))
    )
    period = ""
    if hospital.period_first and hospital.period_last:
        period = f", {printable(hospital.period_first)} to {printable(hospital.period_last)}"
    return (
        f"{hospital.site} ({hospital.organisation}): {hospital.rounds_joined} of {rounds} rounds, {counts}"
        f"{period}, data {short(hospital.manifest)}"
    )


def _figure(value: float) -> str:
    """Three decimals are more than any hospital's test patients can tell."""
    return f"{value:.3f}".rstrip("0").rstrip(".")
