"""The read model's tables: what pages list and look up, projected from the log (`admin_api.reading.projection`).

Invariants:
- Everything here follows from the log's entries and the plans' texts, and can be made again from them at any time: the
  tables are never a source, and never backed up for their own sake.
- No personal data: people stand here by person id, names and reasons by commitment. What may be shown in their place is
  looked up beside the log when a page is made, so that an erasure leaves nothing behind here.
- A change of a table or of what is written into it is a new number in `LAYOUT`: the tables are then made anew.

Times are RFC 3339 text as in the log (they sort as they follow each other), lists and objects JSON text.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index, LargeBinary, MetaData, String, Table, Text
from sqlmodel import Field, SQLModel

from audit.tables import BIG

LAYOUT = 2

# Compared letter by letter, whatever the server's language: what begins with a prefix then stands together.
_FOLDED = String().with_variant(String(collation="C"), "postgresql")


class ReadingTable(SQLModel):
    """Keeps these tables apart from others in the same database."""

    metadata = MetaData()


def _key(*, big: bool = False) -> Any:
    if big:
        return Field(primary_key=True, sa_type=BIG, sa_column_kwargs={"autoincrement": False})
    return Field(primary_key=True)


def _entry(*, index: bool = False, unique: bool = False) -> Any:
    return Field(sa_type=BIG, index=index, unique=unique)


def _no_entry() -> Any:
    return Field(default=None, sa_type=BIG, nullable=True)


def _folded() -> Any:
    return Field(sa_type=_FOLDED)


def _long() -> Any:
    return Field(sa_type=Text)


class PositionRow(ReadingTable, table=True):
    """How far the log is projected; one row. Whoever projects holds it locked."""

    __tablename__ = "reading_position"

    id: int = _key(big=True)  # always 1
    layout: int
    size: int = _entry()  # entries projected
    leaf: bytes | None = Field(default=None, sa_type=LargeBinary, nullable=True)  # leaf hash of the last of them
    committing: int = _entry()  # the last entry that holds or erases a commitment; -1: none
    subjects: int = _entry()  # ids given to subjects


class KindRow(ReadingTable, table=True):
    """A kind of entries, and how many there are."""

    __tablename__ = "reading_kind"

    kind: str = _key()
    id: int
    entries: int = _entry()


class SubjectRow(ReadingTable, table=True):
    """Something that entries mention and people look for."""

    __tablename__ = "reading_subject"
    __table_args__ = (Index("ix_reading_subject_folded", "folded", "what"),)

    what: str = _key()  # site, run, release, version, plan, person, certificate, manifest, statement
    name: str = _key()
    id: int = Field(sa_type=BIG, unique=True)
    folded: str = _folded()  # of a digest its hexadecimal digits, else the name without regard to case
    entry: int = _entry()  # that mentioned it first
    mentions: int


class MentionRow(ReadingTable, table=True):
    """An entry mentions a subject."""

    __tablename__ = "reading_mention"
    __table_args__ = (Index("ix_reading_mention_kind", "subject", "kind", "entry"), {"sqlite_with_rowid": False})

    subject: int = _key(big=True)
    entry: int = _key(big=True)
    kind: int


class HospitalRow(ReadingTable, table=True):
    """A hospital, with all that is counted about it."""

    __tablename__ = "reading_hospital"

    site: str = _key()
    folded: str = _folded()
    organisation: str
    entry: int = _entry()  # of its first certificate
    time: str
    data_entry: int | None = _no_entry()  # first manifest
    data_time: str | None = None
    evaluated_entry: int | None = _no_entry()  # first report
    evaluated_time: str | None = None
    trained_entry: int | None = _no_entry()  # first round with a receipt
    trained_time: str | None = None
    manifest: str | None = None  # the latest, and what it says
    patients: int | None = None
    admissions: int | None = None
    period_first: str | None = None
    period_last: str | None = None
    manifests: int
    asked: int  # runs
    accepted: int
    refused: int
    rounds: int  # completed ones, with a receipt
    dropped: int
    reports: int
    last_entry: int = _entry()  # that it signed, or that is about its certificate
    last_time: str
    last_run: str | None = None
    last_version: str | None = None
    spent: float
    reserved: float


class CertificateRow(ReadingTable, table=True):
    """A certificate with the last change of its status."""

    __tablename__ = "reading_certificate"

    digest: str = _key()
    entry: int = _entry(unique=True)
    time: str
    holder: str = Field(index=True)  # a hospital's or machine's name, or a person id
    name: str | None = None  # commitment to a person's name
    organisation: str
    role: str = Field(index=True)
    not_before: str
    not_after: str = Field(index=True)
    key: str = Field(index=True)  # digest of the SubjectPublicKeyInfo
    relying_party: str | None = None
    status: str | None = None
    status_entry: int | None = _no_entry()
    status_time: str | None = None
    status_by: str | None = None  # digest of the certificate that signed the change
    status_reason: str | None = None  # commitment


class ManifestRow(ReadingTable, table=True):
    """A hospital announced its data."""

    __tablename__ = "reading_manifest"
    __table_args__ = (Index("ix_reading_manifest_site", "site", "entry"),)

    entry: int = _key(big=True)
    time: str
    site: str
    manifest: str
    patients: int | None = None
    admissions: int | None = None
    period_first: str | None = None
    period_last: str | None = None
    certificate: str


class PlanRow(ReadingTable, table=True):
    """A plan that was proposed. What its text says is null when the text is not kept beside the log."""

    __tablename__ = "reading_plan"
    __table_args__ = (Index("ix_reading_plan_task", "task", "entry"), Index("ix_reading_plan_state", "state", "entry"))

    plan_hash: str = _key()
    entry: int = _entry(index=True)
    time: str
    proposer: str
    readable: bool
    title: str | None = None
    task: str | None = None
    rounds: int | None = None
    aggregations: int | None = None
    epsilon: float | None = None
    delta: float | None = None
    noise_mode: str | None = None
    estimator: str | None = None
    sites: str = _long()
    evaluation_sites: str = _long()
    label_space: str | None = Field(default=None, index=True)
    labels: int | None = None
    initial_version: str | None = None
    compared_with: str | None = None
    state: str  # proposed, approved, refused, carried out
    approvals: int
    refusals: int
    runs: int


class LabelSpaceRow(ReadingTable, table=True):
    """A label space that plans share."""

    __tablename__ = "reading_label_space"

    label_space: str = _key()  # digest of its codes
    codes: str = _long()
    labels: int


class CodeRow(ReadingTable, table=True):
    """A code in a label space."""

    __tablename__ = "reading_code"

    code: str = Field(primary_key=True, sa_type=_FOLDED)
    label_space: str = _key()


class DecisionRow(ReadingTable, table=True):
    """Somebody approved or refused something."""

    __tablename__ = "reading_decision"
    __table_args__ = (Index("ix_reading_decision_subject", "digest", "entry"),)

    entry: int = _key(big=True)
    time: str
    what: str  # plan, release, withdrawal, request
    digest: str
    person: str = Field(index=True)
    organisation: str
    role: str
    decision: str
    meaning: str
    reason: str | None = None  # commitment
    certificate: str


class RunRow(ReadingTable, table=True):
    """A run as its entries so far have it."""

    __tablename__ = "reading_run"
    __table_args__ = (Index("ix_reading_run_state", "state", "entry"),)

    run: str = _key()
    entry: int = _entry(index=True)  # that started it
    time: str
    plan_hash: str = Field(index=True)
    title: str | None = None
    task: str | None = None
    planned: int | None = None  # aggregations
    state: str  # started, finished
    finished_entry: int | None = _no_entry()
    finished_time: str | None = None
    completed: int
    aborted: int
    last_round: int
    dropouts: int  # hospitals missing, summed over the rounds
    participants: int  # of the last round
    asked: int
    accepted: int
    refused: int
    initial_version: str
    version: str  # as of the last round, or final
    epsilon: float | None = None
    delta: float | None = None
    accountant: str | None = None
    last_entry: int = _entry()
    last_time: str


class PartRow(ReadingTable, table=True):
    """A hospital's part in a run."""

    __tablename__ = "reading_part"
    __table_args__ = (Index("ix_reading_part_site", "site", "entry"),)

    run: str = _key()
    site: str = _key()
    entry: int = _entry()  # that first names it in this run
    time: str
    state: str  # asked, accepted, refused
    reserved: float
    manifest: str | None = None
    code: str | None = None  # the guard's, when it refused
    reason: str | None = Field(default=None, sa_type=Text, nullable=True)
    rounds: int
    dropped: int
    last_round: int


class VersionRow(ReadingTable, table=True):
    """A model's state."""

    __tablename__ = "reading_version"
    __table_args__ = (Index("ix_reading_version_task", "task", "entry"),)

    version: str = _key()
    entry: int = _entry(index=True)
    time: str
    task: str | None = None
    run: str = Field(index=True)
    plan_hash: str = Field(index=True)
    first_round: int
    last_round: int
    model: str
    parents: str = _long()
    epsilon: float | None = None
    delta: float | None = None
    reports: int


class ParentRow(ReadingTable, table=True):
    """A version that another was made from."""

    __tablename__ = "reading_parent"

    parent: str = _key()
    version: str = _key()


class ReportRow(ReadingTable, table=True):
    """A hospital's first report about a version; the cells are the headline ones, as JSON [value, lower, upper]."""

    __tablename__ = "reading_report"
    __table_args__ = (Index("ix_reading_report_site", "site", "entry"),)

    version: str = _key()
    site: str = _key()
    entry: int = _entry()
    time: str
    run: str
    cohort: str = _long()
    epsilon: float | None = None
    delta: float | None = None
    cells: str = _long()


class PrivacyRow(ReadingTable, table=True):
    """What the log knows of a cohort's privacy loss at a hospital."""

    __tablename__ = "reading_privacy"

    site: str = _key()
    cohort: str = _key()
    spent: float
    reserved: float
    budget: float | None = None  # as the hospital last said, when it says so
    budget_delta: float | None = None
    ledger_spent: float | None = None
    ledger_reserved: float | None = None
    stated_entry: int | None = _no_entry()
    events: int
    last_entry: int = _entry()
    last_time: str


class PointRow(ReadingTable, table=True):
    """A change of that, with the totals after it."""

    __tablename__ = "reading_point"

    site: str = _key()
    entry: int = _key(big=True)
    cohort: str = _key()
    time: str
    event: str  # reserved, spent, ended, reported, stated
    run: str
    epsilon: float
    delta: float | None = None
    spent: float
    reserved: float
    budget: float | None = None
    ledger_spent: float | None = None
    ledger_reserved: float | None = None


class ReleaseRow(ReadingTable, table=True):
    """A release in its newest state."""

    __tablename__ = "reading_release"
    __table_args__ = (
        Index("ix_reading_release_task", "task", "state", "entry"),
        Index("ix_reading_release_state", "state", "entry"),
    )

    release: str = _key()
    folded: str = _folded()
    entry: int = _entry(index=True)  # of its proposal
    time: str
    task: str
    version: str = Field(index=True)
    statement: str = Field(index=True)
    predecessor: str | None = Field(default=None, index=True)
    proposer: str
    state: str
    state_entry: int = _entry()
    state_time: str
    certified_entry: int | None = _no_entry()
    certified_time: str | None = None
    superseded_by: str | None = None
    withdrawal: str | None = Field(default=None, index=True)  # digest of the last one proposed
    withdrawal_entry: int | None = _no_entry()
    withdrawal_by: str | None = None  # digest of the certificate that signed it
    withdrawal_reason: str | None = None  # commitment
    approvals: int
    refusals: int


class ReleaseEventRow(ReadingTable, table=True):
    """Something happened to a release."""

    __tablename__ = "reading_release_event"
    __table_args__ = (Index("ix_reading_release_event_release", "release", "entry"),)

    entry: int = _key(big=True)
    time: str
    release: str
    event: str  # candidate, approved, refused, certified, superseded, withdrawal proposed, withdrawn
    certificate: str | None = None  # digest of the signer's, where somebody signed
    reason: str | None = None  # commitment
    other: str | None = None  # the release that replaces it


class GateSetRow(ReadingTable, table=True):
    """Gates and policy set for a task."""

    __tablename__ = "reading_gate_set"
    __table_args__ = (Index("ix_reading_gate_set_task", "task", "entry"),)

    entry: int = _key(big=True)
    time: str
    task: str
    digest: str  # of the signed statement
    certificate: str
    gates: str = _long()
    policy: str = _long()
    reason: str | None = None  # commitment


class PrivacyAuditRow(ReadingTable, table=True):
    """An empirical privacy audit that somebody signed."""

    __tablename__ = "reading_privacy_audit"

    entry: int = _key(big=True)
    time: str
    audited_at: str
    report: str
    software: str
    claim: float
    lower_bound: float
    delta: float
    passed: bool
    quick: bool
    certificate: str


class WitnessRow(ReadingTable, table=True):
    """The last enrolment of an organisation's witness."""

    __tablename__ = "reading_witness"

    folded: str = Field(primary_key=True, sa_type=_FOLDED)  # the organisation without regard to case
    entry: int = _entry()
    time: str
    name: str
    organisation: str
    vkey: str
    certificate: str


class ErasureRow(ReadingTable, table=True):
    """A commitment whose value was erased."""

    __tablename__ = "reading_erasure"

    commitment: str = _key()
    entry: int = _entry()


def table(row: type[ReadingTable]) -> Table:
    """The table behind a class of rows."""
    found: Table = ReadingTable.metadata.tables[str(row.__tablename__)]
    return found
