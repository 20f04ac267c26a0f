"""The release statement and the approval policy.

The statement says what a release is: which version, from which run, plan and hospitals, at what epsilon,
past which gates. It is canonical JSON; the log holds its digest, and approvers sign that digest.

Invariants:
- A gate's result follows from its value and threshold; a statement with a failed gate, or none, cannot be
  made.
- People, not certificates, approve: one person counts once, whatever certificates they hold, and the
  proposer never.
- The policy travels in the statement, but a verifier demands `DEFAULT_POLICY` at least.

All fields are public.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from audit import schema
from audit.canonical import canonical_json, digest_of, format_time, parse_json_object, parse_time, shown
from audit.certificates import PEOPLE, PRIVACY_OFFICER, RELEASE_MANAGER, Identity
from audit.errors import CanonicalError, EntryError, ReleaseError
from audit.schema import (
    digest,
    distinct,
    each_value,
    fields_of,
    instant,
    list_of,
    name,
    number,
    one_of,
    present,
)

SCHEMA = "zegel/release/v1"
AT_LEAST = "at_least"
AT_MOST = "at_most"
APPROVE = "approve"
REFUSE = "refuse"
EVERY_SITE = "every-site"


@dataclass(frozen=True)
class Policy:
    """Who must approve: one distinct person per role listed. A role may be listed more than once."""

    plan: tuple[str, ...] = (PRIVACY_OFFICER,)
    release: tuple[str, ...] = (PRIVACY_OFFICER, RELEASE_MANAGER)
    organisations: int = 1  # the approvers of a release must come from at least this many

    def __post_init__(self) -> None:
        for roles in (self.plan, self.release):
            unknown = sorted(set(roles) - PEOPLE)
            if unknown or not roles:
                raise ReleaseError(f"policy: expected roles of people, got {', '.join(unknown) or 'none'}")
        if type(self.organisations) is not int or not 1 <= self.organisations <= len(self.release):
            raise ReleaseError(
                f"policy: organisations: expected 1 to {len(self.release)} (one per approver), got {self.organisations}"
            )
        object.__setattr__(self, "plan", tuple(sorted(self.plan)))
        object.__setattr__(self, "release", tuple(sorted(self.release)))

    def to_json(self) -> dict[str, Any]:
        """The form carried in the release statement."""
        return {"plan": list(self.plan), "release": list(self.release), "organisations": self.organisations}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Policy:
        """Reads that form; raises ReleaseError for anything else."""
        try:
            _POLICY(value, "policy")
        except EntryError as error:
            raise ReleaseError(str(error)) from error
        policy = cls(tuple(value["plan"]), tuple(value["release"]), value["organisations"])
        if policy.to_json() != dict(value):
            raise ReleaseError("policy: expected roles in alphabetical order")
        return policy

    def demand_at_least(self, minimum: Policy) -> None:
        """Raises ReleaseError unless whatever satisfies this policy also satisfies `minimum`."""
        for what in ("plan", "release"):
            missing = Counter(getattr(minimum, what)) - Counter(getattr(self, what))
            if missing:
                roles = ", ".join(sorted(missing.elements()))
                raise ReleaseError(f"policy: a {what} must be approved by {roles}, which this policy leaves out")
        if self.organisations < minimum.organisations:
            raise ReleaseError(
                f"policy: expected approvers of at least {minimum.organisations} organisations, "
                f"got {self.organisations}"
            )


DEFAULT_POLICY = Policy()


@dataclass(frozen=True)
class Approval:
    """A verified decision of a person about a plan or a release."""

    approver: Identity
    decision: str  # "approve" or "refuse"
    meaning: str  # what the signature means
    reason: str
    time: datetime
    index: int  # of the log entry


def check_approvals(
    what: str,
    approvals: Sequence[Approval],
    required: Sequence[str],
    *,
    proposer: Identity,
    organisations: int = 1,
) -> None:
    """Raises ReleaseError unless `approvals` give every role in `required` a person of its own.

    `what` names the plan or release in messages; `approvals` are in log order and about this subject. A
    person's last decision counts. The proposer's does not: not to approve, nor to fill a role. A refusal by
    anybody in a required role stands until that person approves.
    """
    last = {a.approver.person: a for a in approvals if a.approver.person != proposer.person}
    for approval in last.values():
        if approval.decision == REFUSE and approval.approver.role in required:
            raise ReleaseError(f"{what}: refused by {approval.approver}: {approval.reason}")
    given = [approval for approval in last.values() if approval.decision == APPROVE]
    # A person has one last decision, under one role, so counting people per role matches people to roles.
    missing = Counter(required) - Counter(approval.approver.role for approval in given)
    if missing:
        have = ", ".join(str(a.approver) for a in given) or "nobody"
        own = any(a.approver.person == proposer.person for a in approvals)
        note = f" ({proposer.name} proposed it and does not count)" if own else ""
        raise ReleaseError(
            f"{what}: expected approval by {', '.join(sorted(missing.elements()))}, got it from {have}{note}"
        )
    found = {a.approver.organisation.casefold() for a in given if a.approver.role in required}
    if len(found) < organisations:
        raise ReleaseError(f"{what}: expected approvers of {organisations} organisations, got {len(found)}")


@dataclass(frozen=True)
class Gate:
    """A threshold the release had to pass.

    A verifier derives the value itself when the name allows: `epsilon`; `<metric>@<site>`, that hospital's
    reported value; `<metric>@every-site`, the worst over the evaluating hospitals.
    """

    name: str
    comparison: str  # "at_least" or "at_most"
    threshold: float
    value: float

    @property
    def passed(self) -> bool:
        """Whether the value is on the right side of the threshold; equality passes."""
        if self.comparison == AT_LEAST:
            return self.value >= self.threshold
        return self.value <= self.threshold

    def derive(self, *, epsilon: float, metrics: Mapping[str, Mapping[str, float]]) -> float | None:
        """The value according to `epsilon` and the metrics by site and name; None when it cannot be derived.

        Raises ReleaseError when the gate names a hospital or metric that was not reported.
        """
        if self.name == "epsilon":
            return epsilon
        metric, separator, site = self.name.rpartition("@")
        if not separator:
            return None
        sites = sorted(metrics) if site == EVERY_SITE else [site]
        values: list[float] = []
        for each in sites:
            if metric not in metrics.get(each, {}):
                raise ReleaseError(f"gate {self.name}: {each} reported no {metric}")
            values.append(metrics[each][metric])
        if not values:
            raise ReleaseError(f"gate {self.name}: no hospital reported")
        return min(values) if self.comparison == AT_LEAST else max(values)

    def to_json(self) -> dict[str, Any]:
        """The form in the release statement."""
        return {
            "name": self.name,
            "comparison": self.comparison,
            "threshold": self.threshold,
            "value": self.value,
            "passed": self.passed,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Gate:
        """Reads that form; raises ReleaseError when the stated result does not follow from the numbers."""
        gate = cls(value["name"], value["comparison"], float(value["threshold"]), float(value["value"]))
        if value["passed"] is not gate.passed:
            raise ReleaseError(
                f"gate {gate.name}: says passed={shown(value['passed'])}, but {gate.value} {gate.comparison} "
                f"{gate.threshold} is {gate.passed}"
            )
        return gate


@dataclass(frozen=True, kw_only=True)
class ReleaseStatement:
    """What a release is. Making one raises ReleaseError when a field is malformed or a gate failed."""

    consortium: str
    release: str
    version: str
    plan_hash: str
    run_id: str
    sites: tuple[str, ...]  # hospitals that contributed to at least one round of the run
    evaluation_sites: tuple[str, ...]  # hospitals whose metrics are listed
    epsilon: float  # of the run, against the released model's holder
    delta: float
    accountant: str
    metrics: Mapping[str, str]  # by site: digest of the signed metrics statement
    gates: tuple[Gate, ...]
    time: datetime
    proposer: str  # certificate digest
    policy: Policy = field(default=DEFAULT_POLICY)

    def __post_init__(self) -> None:
        object.__setattr__(self, "time", self.time.astimezone(UTC).replace(microsecond=0))
        object.__setattr__(self, "metrics", dict(self.metrics))
        try:
            _STATEMENT(self.to_json(), "release statement")
        except EntryError as error:
            raise ReleaseError(str(error)) from error
        if not self.sites:
            raise ReleaseError("release statement: expected at least one contributing site")
        if sorted(self.metrics) != sorted(self.evaluation_sites):
            raise ReleaseError(
                f"release statement: expected metrics of {sorted(self.evaluation_sites)}, got {sorted(self.metrics)}"
            )
        if not self.gates:
            raise ReleaseError("release statement: expected at least one gate, got none")
        names = [gate.name for gate in self.gates]
        if len(set(names)) != len(names):
            raise ReleaseError("release statement: a gate is listed twice")
        for gate in self.gates:
            if not gate.passed:
                raise ReleaseError(
                    f"gate {gate.name} failed: expected {gate.comparison} {gate.threshold}, got {gate.value}"
                )

    def to_json(self) -> dict[str, Any]:
        """The JSON object whose canonical bytes are the statement."""
        return {
            "schema": SCHEMA,
            "consortium": self.consortium,
            "release": self.release,
            "version": self.version,
            "plan_hash": self.plan_hash,
            "run_id": self.run_id,
            "sites": list(self.sites),
            "evaluation_sites": list(self.evaluation_sites),
            "epsilon": self.epsilon,
            "delta": self.delta,
            "accountant": self.accountant,
            "metrics": dict(self.metrics),
            "gates": [gate.to_json() for gate in self.gates],
            "policy": self.policy.to_json(),
            "time": format_time(self.time),
            "proposer": self.proposer,
        }

    def to_bytes(self) -> bytes:
        """Canonical JSON: what is stored as an artifact and whose digest is logged and signed."""
        return canonical_json(self.to_json())

    @property
    def digest(self) -> str:
        """Digest of `to_bytes()`."""
        return digest_of(self.to_bytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> ReleaseStatement:
        """Reads canonical bytes; raises ReleaseError for any other form and for failed gates."""
        try:
            value = parse_json_object(data, "release statement")
            _STATEMENT(value, "release statement")
            return cls(
                consortium=value["consortium"],
                release=value["release"],
                version=value["version"],
                plan_hash=value["plan_hash"],
                run_id=value["run_id"],
                sites=tuple(value["sites"]),
                evaluation_sites=tuple(value["evaluation_sites"]),
                epsilon=float(value["epsilon"]),
                delta=float(value["delta"]),
                accountant=value["accountant"],
                metrics=value["metrics"],
                gates=tuple(Gate.from_json(gate) for gate in value["gates"]),
                time=parse_time(value["time"], "release statement time"),
                proposer=value["proposer"],
                policy=Policy.from_json(value["policy"]),
            )
        except (CanonicalError, EntryError) as error:
            raise ReleaseError(str(error)) from error


_POLICY = fields_of(
    {
        "plan": list_of(one_of(*sorted(PEOPLE))),
        "release": list_of(one_of(*sorted(PEOPLE))),
        "organisations": present,
    },
    further=False,
)
_GATE = fields_of(
    {
        "name": name,
        "comparison": one_of(AT_LEAST, AT_MOST),
        "threshold": number(),
        "value": number(),
        "passed": present,
    },
    further=False,
)
_STATEMENT = fields_of(
    {
        "schema": one_of(SCHEMA),
        "consortium": name,
        "release": name,
        "version": digest,
        "plan_hash": digest,
        "run_id": name,
        "sites": distinct(name),
        "evaluation_sites": distinct(name),
        "epsilon": number(minimum=0),
        "delta": number(minimum=0, maximum=1),
        "accountant": name,
        "metrics": each_value(digest),
        "gates": list_of(_GATE),
        "policy": schema.mapping,
        "time": instant,
        "proposer": digest,
    },
    further=False,
)
