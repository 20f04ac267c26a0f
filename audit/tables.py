"""The log's own tables: entries, the tree's hashes, and what is fixed about the log.

What follows from the entries besides hashes has its tables in `audit.lineage_tables`.

Source: RFC 6962 section 2.1 (the hashes), C2SP tlog-tiles (an entry's size).
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, String
from sqlmodel import Field, SQLModel

ORIGIN = "origin"  # setting: the log's name
SIGNED = "signed"  # setting: present from the first signature on; from then the checkpoint file must exist
LINEAGE_RULES = "lineage"  # setting: by which rules the lineage rows were derived

# SQLite makes a column the row's own address only when its type is exactly INTEGER.
BIG = BigInteger().with_variant(Integer(), "sqlite")


class LogTable(SQLModel):
    """Keeps the log's tables apart from those of other databases in the same process."""

    metadata = MetaData()


class EntryRow(LogTable, table=True):
    """An entry's bytes, with its kind beside it for searching."""

    __tablename__ = "log_entry"
    __table_args__ = (Index("ix_log_entry_kind_index", "kind", "index"),)

    index: int = Field(sa_column=Column("index", BIG, primary_key=True, autoincrement=False))
    kind: str = Field(sa_column=Column("kind", String, nullable=False))
    data: bytes = Field(sa_column=Column("data", LargeBinary, nullable=False))


class NodeRow(LogTable, table=True):
    """The hash of a complete subtree; level 0 are the leaves."""

    __tablename__ = "log_node"

    level: int = Field(sa_column=Column("level", Integer, primary_key=True, autoincrement=False))
    index: int = Field(sa_column=Column("index", BIG, primary_key=True, autoincrement=False))
    hash: bytes = Field(sa_column=Column("hash", LargeBinary, nullable=False))


class SettingRow(LogTable, table=True):
    """What is fixed about a log, by name: `ORIGIN`, `SIGNED` and `LINEAGE_RULES`."""

    __tablename__ = "log_setting"

    name: str = Field(sa_column=Column("name", String, primary_key=True))
    value: str = Field(sa_column=Column("value", String, nullable=False))


ENTRIES = LogTable.metadata.tables["log_entry"]
NODES = LogTable.metadata.tables["log_node"]
SETTINGS = LogTable.metadata.tables["log_setting"]
