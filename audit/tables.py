"""The log's tables, and reading the tree's hashes from them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Column, Integer, LargeBinary, MetaData, tuple_
from sqlmodel import Field, Session, SQLModel, col, select

from audit.errors import CorruptLogError
from audit.merkle import Node

_BATCH = 500  # nodes asked for in one query, well under SQLite's limit of bound values


class LogTable(SQLModel):
    """Keeps the log's tables apart from those of other databases in the same process."""

    metadata = MetaData()


class EntryRow(LogTable, table=True):
    """An entry's bytes, with its kind beside it for searching."""

    __tablename__ = "log_entry"

    index: int = Field(sa_column=Column("index", Integer, primary_key=True, autoincrement=False))
    kind: str = Field(index=True)
    data: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class NodeRow(LogTable, table=True):
    """The hash of a complete subtree; level 0 are the leaves."""

    __tablename__ = "log_node"

    level: int = Field(primary_key=True)
    index: int = Field(primary_key=True)
    hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class SettingRow(LogTable, table=True):
    """What is fixed about a log: its origin, and that a checkpoint has been signed."""

    __tablename__ = "log_setting"

    name: str = Field(primary_key=True)
    value: str


ENTRIES = LogTable.metadata.tables["log_entry"]
NODES = LogTable.metadata.tables["log_node"]


class Hashes:
    """Reads the tree's hashes within one database session (a `merkle.HashReader`)."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def read_hashes(self, nodes: Sequence[Node]) -> list[bytes]:
        """One hash per node; raises CorruptLogError when one is missing."""
        found = self.stored(nodes)
        for level, index in nodes:
            if (level, index) not in found:
                raise CorruptLogError(f"tree node (level {level}, index {index}) is missing; check the log")
        return [found[node] for node in nodes]

    def stored(self, nodes: Sequence[Node]) -> dict[Node, bytes]:
        """The hashes that are there; missing ones are left out."""
        found: dict[Node, bytes] = {}
        for start in range(0, len(nodes), _BATCH):
            wanted = tuple_(col(NodeRow.level), col(NodeRow.index)).in_(list(nodes[start : start + _BATCH]))
            rows = self._session.exec(select(NodeRow.level, NodeRow.index, NodeRow.hash).where(wanted))
            found.update({(level, index): value for level, index, value in rows})
        return found
