"""Entries: what the log records, one JSON object per event.

Invariants:
- An `Entry` that exists follows the schema of its kind; an unknown kind is an error.
- `Entry.from_bytes(e.to_bytes())` equals `e`, and no other bytes give `e`.
- An entry is at most 65,535 bytes, so that it fits the C2SP entry bundle: big things are logged by digest.
- Bodies hold exactly the fields of the tables: nothing unchecked, and no stray personal data, enters the log. People
  stand in it by person id; their names and the reasons they write only as salted commitments (`audit.disclosure`).

All fields are public. Source: C2SP tlog-tiles (entry size), RFC 8785 (bytes).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from audit.access import ENDED, GRANTED, REASONS, TRIED
from audit.canonical import canonical_json, format_time, parse_json_object, parse_time, plain, shown
from audit.errors import CanonicalError, EntryError
from audit.revocation import STATUSES
from audit.schema import (
    Fields,
    account,
    digest,
    distinct,
    fields_of,
    instant,
    integer,
    list_of,
    name,
    nullable,
    number,
    one_of,
    signed,
    text,
)
from audit.statement import (
    ACCEPTANCE,
    APPROVAL,
    CERTIFICATE_STATUS,
    DATA_MANIFEST,
    ERASURE,
    GATES,
    METRICS,
    PRIVACY_AUDITED,
    PROPOSAL,
    RECEIPT,
    REFUSAL,
    SUPERSESSION,
    WITHDRAWAL,
    WITNESS_ENROLMENT,
    SignedStatement,
)

SCHEMA = "zegel/entry/v1"
MAX_ENTRY_SIZE = 65_535  # bytes

CONSORTIUM_FOUNDED = "consortium.founded"
CERTIFICATE_ISSUED = "certificate.issued"
CERTIFICATE_STATUS_CHANGED = "certificate.status"
SITE_MANIFEST = "site.manifest"
PLAN_PROPOSED = "plan.proposed"
APPROVAL_GIVEN = "approval"
GATES_SET = "gates.set"
RUN_STARTED = "run.started"
SITE_ACCEPTED = "site.accepted"
SITE_REFUSED = "site.refused"
ROUND_COMPLETED = "round.completed"
ROUND_ABORTED = "round.aborted"
RUN_FINISHED = "run.finished"
VERSION_CREATED = "version.created"
METRICS_REPORTED = "metrics.reported"
RELEASE_PROPOSED = "release.proposed"
RELEASE_CERTIFIED = "release.certified"
RELEASE_SUPERSEDED = "release.superseded"
WITHDRAWAL_PROPOSED = "withdrawal.proposed"
RELEASE_WITHDRAWN = "release.withdrawn"
PRIVACY_AUDIT_REPORTED = "privacy.audited"
WITNESS_ENROLLED = "witness.enrolled"
VALUE_ERASED = "value.erased"
ACCESS_GRANTED = "access.granted"
ACCESS_REFUSED = "access.refused"
ACCESS_ENDED = "access.ended"

KINDS: Mapping[str, Fields] = {
    CONSORTIUM_FOUNDED: {
        "name": name,
        "root_certificate": digest,
        "log_vkey": name,
        "log_certificate": text,
        "server": name,
    },
    CERTIFICATE_ISSUED: {
        "certificate": text,
        "digest": digest,
        "name": name,
        "organisation": name,
        "role": name,
        "holder": nullable(digest),  # commitment to a person's name (audit.disclosure); null for machines
        "not_before": instant,
        "not_after": instant,
    },
    CERTIFICATE_STATUS_CHANGED: {
        "digest": digest,
        "status": one_of(*STATUSES),
        "revocation": signed(CERTIFICATE_STATUS),
    },
    SITE_MANIFEST: {"site": name, "manifest": signed(DATA_MANIFEST)},
    PLAN_PROPOSED: {"plan_hash": digest, "plan": digest, "proposal": signed(PROPOSAL)},
    GATES_SET: {"gates": signed(GATES)},
    APPROVAL_GIVEN: {"approval": signed(APPROVAL)},
    RUN_STARTED: {"run_id": name, "plan_hash": digest, "sites": distinct(name), "initial_version": digest},
    SITE_ACCEPTED: {"run_id": name, "acceptance": signed(ACCEPTANCE)},
    SITE_REFUSED: {"run_id": nullable(name), "refusal": signed(REFUSAL)},
    ROUND_COMPLETED: {
        "run_id": name,
        "round": integer(1),
        "plan_hash": digest,
        "version_in": digest,
        "version_out": digest,
        "participants": distinct(name),
        "dropped": distinct(name),
        "receipts": list_of(signed(RECEIPT)),
    },
    ROUND_ABORTED: {
        "run_id": name,
        "round": integer(1),
        "reason": text,
        "participants": distinct(name),
        "dropped": distinct(name),
    },
    RUN_FINISHED: {
        "run_id": name,
        "plan_hash": digest,
        "rounds": integer(1),
        "version": digest,
        "epsilon": number(minimum=0),
        "delta": number(minimum=0, maximum=1),
        "accountant": name,
    },
    VERSION_CREATED: {
        "version": digest,
        "parents": distinct(digest),
        "run_id": name,
        "rounds": list_of(integer(1), length=2),
        "plan_hash": digest,
        "model": digest,
    },
    METRICS_REPORTED: {"version": digest, "site": name, "metrics": signed(METRICS)},
    PRIVACY_AUDIT_REPORTED: {"audit": signed(PRIVACY_AUDITED)},
    RELEASE_PROPOSED: {
        "release": name,
        "task": name,
        "statement": digest,
        "version": digest,
        "predecessor": nullable(name),  # the certified release it would replace
        "proposal": signed(PROPOSAL),
    },
    RELEASE_CERTIFIED: {
        "release": name,
        "statement": digest,
        "version": digest,
        "approvals": distinct(digest),
    },
    # By its successor's certification (supersession null), or by a release manager's signed word.
    RELEASE_SUPERSEDED: {"release": name, "by": name, "supersession": nullable(signed(SUPERSESSION))},
    WITHDRAWAL_PROPOSED: {"release": name, "withdrawal": signed(WITHDRAWAL)},
    RELEASE_WITHDRAWN: {
        "release": name,
        "statement": digest,
        "withdrawal": digest,  # of the signed withdrawal
        "approvals": distinct(digest),
    },
    WITNESS_ENROLLED: {"witness": name, "enrolment": signed(WITNESS_ENROLMENT)},
    VALUE_ERASED: {"commitment": digest, "erasure": signed(ERASURE)},
    # Sign-in to the pages (audit.access). By whom: null when it was done in the consortium's folder.
    ACCESS_GRANTED: {"account": account, "method": one_of(*GRANTED), "by": nullable(account), "at": instant},
    ACCESS_REFUSED: {
        "account": nullable(account),  # null: nobody we know
        "method": one_of(*TRIED),
        "reason": one_of(*REASONS),
        "count": integer(1),
        "since": instant,  # the minute in which they were gathered
    },
    ACCESS_ENDED: {"account": account, "method": one_of(*ENDED), "by": nullable(account), "at": instant},
}
# Fields that came later: entries of earlier logs lack them.
OPTIONAL: Mapping[str, Fields] = {
    # Digests of the certificates that approved the request; none while nobody could (audit.certificate_request).
    CERTIFICATE_ISSUED: {"approvals": distinct(digest)},
}
_BODIES = {kind: fields_of(table, further=False, optional=OPTIONAL.get(kind)) for kind, table in KINDS.items()}
_FIELDS = frozenset({"schema", "kind", "time", "body"})


@dataclass(frozen=True)
class Entry:
    """One event. `time` is UTC with whole seconds; `body` follows `KINDS[kind]`.

    Making one raises EntryError when it does not.
    """

    kind: str
    time: datetime
    body: Mapping[str, Any]

    def __post_init__(self) -> None:
        check = _BODIES.get(self.kind)
        if check is None:
            raise EntryError(f"entry: unknown kind {shown(self.kind)}; known are {', '.join(KINDS)}")
        if self.time.tzinfo is None:
            raise EntryError(f"{self.kind}: time {self.time} has no time zone")
        try:
            body = plain(self.body)
        except CanonicalError as error:
            raise EntryError(f"{self.kind}: {error}") from error
        check(body, self.kind)
        object.__setattr__(self, "time", self.time.astimezone(UTC).replace(microsecond=0))
        object.__setattr__(self, "body", body)

    def to_bytes(self) -> bytes:
        """The canonical bytes that are logged; raises EntryError when they exceed 65,535."""
        try:
            data = canonical_json(
                {"schema": SCHEMA, "kind": self.kind, "time": format_time(self.time), "body": self.body}
            )
        except CanonicalError as error:
            raise EntryError(f"{self.kind}: {error}") from error
        if len(data) > MAX_ENTRY_SIZE:
            raise EntryError(
                f"{self.kind}: expected at most {MAX_ENTRY_SIZE} bytes, got {len(data)}; log a digest instead"
            )
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> Entry:
        """Reads logged bytes; raises EntryError unless they are canonical and follow the schema."""
        if len(data) > MAX_ENTRY_SIZE:
            raise EntryError(f"entry: expected at most {MAX_ENTRY_SIZE} bytes, got {len(data)}")
        try:
            value = parse_json_object(data, "entry")
            if set(value) != _FIELDS:
                raise EntryError(f"entry: expected exactly {sorted(_FIELDS)}, got {shown(sorted(value))}")
            if value["schema"] != SCHEMA:
                raise EntryError(f"entry: expected schema {SCHEMA}, got {shown(value['schema'])}")
            if not isinstance(value["kind"], str) or not isinstance(value["body"], dict):
                raise EntryError("entry: expected text in kind and an object in body")
            return cls(value["kind"], parse_time(value["time"], "entry time"), value["body"])
        except CanonicalError as error:
            raise EntryError(str(error)) from error

    def signed(self, field: str) -> SignedStatement:
        """The signed statement in a field of the body; its signature is not verified."""
        return SignedStatement.from_json(self.body[field])
