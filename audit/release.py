"""The release statement and the approval policy.

The statement says what a release is: which version, from which run, plan and hospitals, at what epsilon,
past which gates, with which documents, in place of which release. It is canonical JSON; the log holds its
digest, and approvers sign that digest: whatever they rely on is under it, and any change voids every approval.

Invariants:
- A statement with a failed gate, or none, cannot be made.
- People, not certificates, approve: one person counts once, whatever certificates they hold, and the
  proposer never.
- The policy was set together with the gates, before the run; a verifier demands `DEFAULT_POLICY` at least.

All fields are public.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from audit import schema
from audit.canonical import canonical_json, digest_of, format_time, parse_json_object, parse_time, shown
from audit.certificates import PEOPLE, PRIVACY_OFFICER, RELEASE_MANAGER, Identity
from audit.errors import CanonicalError, EntryError, ReleaseError
from audit.gates import GATE_FIELDS, Gate, GateRule, check_distinct
from audit.schema import (
    digest,
    distinct,
    each_value,
    fields_of,
    instant,
    list_of,
    name,
    nullable,
    number,
    one_of,
    present,
)

SCHEMA = "zegel/release/v1"
APPROVE = "approve"
REFUSE = "refuse"
_DOCUMENT = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)  # a plain name: no folder, no dot in front


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


DEFAULT_POLICY = Policy(organisations=2)  # one organisation alone certifies nothing


@dataclass(frozen=True)
class GateSet:
    """What a release manager fixed before a run: the gates a version must pass, and who must approve it."""

    task: str
    rules: tuple[GateRule, ...]
    policy: Policy
    reason: str | None  # commitment (audit.disclosure)

    def __post_init__(self) -> None:
        check_distinct(self.rules, "gates")
        self.policy.demand_at_least(DEFAULT_POLICY)

    def to_json(self) -> dict[str, Any]:
        """The fields of the signed statement, without type, consortium and time."""
        return {
            "task": self.task,
            "gates": [rule.to_json() for rule in self.rules],
            "policy": self.policy.to_json(),
            "reason": self.reason,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> GateSet:
        """Reads those fields, others left aside; raises ReleaseError."""
        rules = tuple(GateRule.from_json(rule) for rule in value["gates"])
        return cls(value["task"], rules, Policy.from_json(value["policy"]), value["reason"])


@dataclass(frozen=True)
class Approval:
    """A verified decision of a person about a plan or a release."""

    approver: Identity
    decision: str  # "approve" or "refuse"
    meaning: str  # what the signature means
    reason: str | None  # commitment (audit.disclosure)
    time: datetime
    index: int  # of the log entry
    relying_party: str | None = None  # for which a passkey signed it; None: a key in a file


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
            raise ReleaseError(f"{what}: refused by {approval.approver}: {approval.reason or 'no reason given'}")
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
class Predecessor:
    """The certified release that a candidate would replace."""

    release: str
    statement: str  # digest
    version: str  # digest

    def to_json(self) -> dict[str, Any]:
        """The form in the release statement."""
        return {"release": self.release, "statement": self.statement, "version": self.version}


@dataclass(frozen=True, kw_only=True)
class ReleaseStatement:
    """What a release is. Making one raises ReleaseError when a field is malformed or a gate failed."""

    consortium: str
    release: str
    task: str  # of the plan; a release replaces the certified one of the same task
    version: str
    predecessor: Predecessor | None
    plan_hash: str
    run_id: str
    sites: tuple[str, ...]  # hospitals that contributed to at least one round of the run
    evaluation_sites: tuple[str, ...]  # hospitals whose metrics are listed
    epsilon: float  # of the run, against the released model's holder
    delta: float
    accountant: str
    metrics: Mapping[str, str]  # by site: digest of the signed metrics statement
    gates: tuple[Gate, ...]
    gate_set: str  # digest of the signed statement that set them, in force when the run started
    time: datetime
    proposer: str  # certificate digest
    policy: Policy = field(default=DEFAULT_POLICY)  # of the same gate set
    documents: Mapping[str, str] = field(default_factory=dict)  # by name in the dossier: digest

    def __post_init__(self) -> None:
        object.__setattr__(self, "time", self.time.astimezone(UTC).replace(microsecond=0))
        object.__setattr__(self, "metrics", dict(self.metrics))
        object.__setattr__(self, "documents", dict(self.documents))
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
        for document in self.documents:
            if not _DOCUMENT.fullmatch(document):
                raise ReleaseError(
                    f"release statement: document name: expected lower-case letters, digits and . _ -, "
                    f"got {shown(document)}"
                )
        check_distinct(self.gates, "release statement")
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
            "task": self.task,
            "version": self.version,
            "predecessor": None if self.predecessor is None else self.predecessor.to_json(),
            "plan_hash": self.plan_hash,
            "run_id": self.run_id,
            "sites": list(self.sites),
            "evaluation_sites": list(self.evaluation_sites),
            "epsilon": self.epsilon,
            "delta": self.delta,
            "accountant": self.accountant,
            "metrics": dict(self.metrics),
            "gates": [gate.to_json() for gate in self.gates],
            "gate_set": self.gate_set,
            "documents": dict(self.documents),
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
                task=value["task"],
                version=value["version"],
                predecessor=None if value["predecessor"] is None else Predecessor(**value["predecessor"]),
                plan_hash=value["plan_hash"],
                run_id=value["run_id"],
                sites=tuple(value["sites"]),
                evaluation_sites=tuple(value["evaluation_sites"]),
                epsilon=float(value["epsilon"]),
                delta=float(value["delta"]),
                accountant=value["accountant"],
                metrics=value["metrics"],
                gates=tuple(Gate.from_json(gate) for gate in value["gates"]),
                gate_set=value["gate_set"],
                documents=value["documents"],
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
_PREDECESSOR = fields_of({"release": name, "statement": digest, "version": digest}, further=False)
_STATEMENT = fields_of(
    {
        "schema": one_of(SCHEMA),
        "consortium": name,
        "release": name,
        "task": name,
        "version": digest,
        "predecessor": nullable(_PREDECESSOR),
        "plan_hash": digest,
        "run_id": name,
        "sites": distinct(name),
        "evaluation_sites": distinct(name),
        "epsilon": number(minimum=0),
        "delta": number(minimum=0, maximum=1),
        "accountant": name,
        "metrics": each_value(digest),
        "gates": list_of(GATE_FIELDS),
        "gate_set": digest,
        "documents": each_value(digest),
        "policy": schema.mapping,
        "time": instant,
        "proposer": digest,
    },
    further=False,
)
