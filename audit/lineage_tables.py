"""The lineage's tables: what entries say about versions, runs, rounds, hospitals, metrics and releases, as rows.

Every row names the entry it follows from and nothing in it comes from anywhere else (`audit.lineage_rows`).
Rows are added in the transaction of their entry and never changed: the state of a run, a hospital in it or a
release is its row with the highest `entry`.
"""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Double, Integer, String, Table
from sqlmodel import Field

from audit.tables import BIG, LogTable


def _entry() -> Column[int]:
    return Column("entry", BIG, primary_key=True, autoincrement=False)


class VersionRow(LogTable, table=True):
    """A model's state came into being: rounds `first_round` to `last_round` of a run."""

    __tablename__ = "lineage_version"

    entry: int = Field(sa_column=_entry())
    version: str = Field(sa_column=Column("version", String, nullable=False, index=True))
    run_id: str = Field(sa_column=Column("run_id", String, nullable=False, index=True))
    first_round: int = Field(sa_column=Column("first_round", BIG, nullable=False))
    last_round: int = Field(sa_column=Column("last_round", BIG, nullable=False))
    plan_hash: str = Field(sa_column=Column("plan_hash", String, nullable=False))
    model: str = Field(sa_column=Column("model", String, nullable=False))  # digest of the weights


class ParentRow(LogTable, table=True):
    """A version that another one was made from."""

    __tablename__ = "lineage_parent"

    entry: int = Field(sa_column=_entry())
    parent: str = Field(sa_column=Column("parent", String, primary_key=True, index=True))
    version: str = Field(sa_column=Column("version", String, nullable=False, index=True))


class RunRow(LogTable, table=True):
    """A run started or finished; what only a finished run has is null before."""

    __tablename__ = "lineage_run"

    entry: int = Field(sa_column=_entry())
    run_id: str = Field(sa_column=Column("run_id", String, nullable=False, index=True))
    state: str = Field(sa_column=Column("state", String, nullable=False))  # started, finished
    plan_hash: str = Field(sa_column=Column("plan_hash", String, nullable=False))
    version: str = Field(sa_column=Column("version", String, nullable=False))  # initial or final
    rounds: int | None = Field(sa_column=Column("rounds", BIG, nullable=True))
    epsilon: float | None = Field(sa_column=Column("epsilon", Double, nullable=True))
    delta: float | None = Field(sa_column=Column("delta", Double, nullable=True))
    accountant: str | None = Field(sa_column=Column("accountant", String, nullable=True))


class RunSiteRow(LogTable, table=True):
    """A hospital was asked to take part in a run, accepted or refused."""

    __tablename__ = "lineage_run_site"

    entry: int = Field(sa_column=_entry())
    site: str = Field(sa_column=Column("site", String, primary_key=True))
    run_id: str | None = Field(sa_column=Column("run_id", String, nullable=True, index=True))
    state: str = Field(sa_column=Column("state", String, nullable=False))  # asked, accepted, refused


class RoundRow(LogTable, table=True):
    """One secure aggregation, completed or aborted; an aborted one leaves no version."""

    __tablename__ = "lineage_round"

    entry: int = Field(sa_column=_entry())
    run_id: str = Field(sa_column=Column("run_id", String, nullable=False, index=True))
    round: int = Field(sa_column=Column("round", BIG, nullable=False))
    state: str = Field(sa_column=Column("state", String, nullable=False))  # completed, aborted
    version_in: str | None = Field(sa_column=Column("version_in", String, nullable=True))
    version_out: str | None = Field(sa_column=Column("version_out", String, nullable=True, index=True))


class ParticipantRow(LogTable, table=True):
    """A hospital in a round: took part, with the digest of its receipt, or dropped out."""

    __tablename__ = "lineage_participant"

    entry: int = Field(sa_column=_entry())
    position: int = Field(sa_column=Column("position", Integer, primary_key=True, autoincrement=False))
    run_id: str = Field(sa_column=Column("run_id", String, nullable=False))
    round: int = Field(sa_column=Column("round", BIG, nullable=False))
    site: str = Field(sa_column=Column("site", String, nullable=False, index=True))
    part: str = Field(sa_column=Column("part", String, nullable=False))  # took part, dropped, receipt only
    receipt: str | None = Field(sa_column=Column("receipt", String, nullable=True))  # sha256 of the signed receipt


class MetricRow(LogTable, table=True):
    """One figure of one hospital about one version. `suppressed`: its cell was too small to report."""

    __tablename__ = "lineage_metric"

    entry: int = Field(sa_column=_entry())
    name: str = Field(sa_column=Column("name", String, primary_key=True))
    version: str = Field(sa_column=Column("version", String, nullable=False, index=True))
    site: str = Field(sa_column=Column("site", String, nullable=False))
    value: float | None = Field(sa_column=Column("value", Double, nullable=True))
    lower: float | None = Field(sa_column=Column("lower", Double, nullable=True))
    upper: float | None = Field(sa_column=Column("upper", Double, nullable=True))
    suppressed: bool = Field(sa_column=Column("suppressed", Boolean(create_constraint=False), nullable=False))


class ReleaseRow(LogTable, table=True):
    """A release entered a state. `version` and `statement` are null where the entry does not repeat them."""

    __tablename__ = "lineage_release"

    entry: int = Field(sa_column=_entry())
    release: str = Field(sa_column=Column("release", String, nullable=False, index=True))
    state: str = Field(sa_column=Column("state", String, nullable=False))  # candidate, certified, superseded, withdrawn
    version: str | None = Field(sa_column=Column("version", String, nullable=True, index=True))
    statement: str | None = Field(sa_column=Column("statement", String, nullable=True))


def lineage_tables() -> list[Table]:
    """The tables of this module, in the order of their names."""
    return [table for table in LogTable.metadata.sorted_tables if table.name.startswith("lineage_")]
