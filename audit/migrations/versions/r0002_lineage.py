"""Lineage as rows, and entries of one kind found in the log's order."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.drop_index("ix_log_entry_kind", "log_entry")
    op.create_index("ix_log_entry_kind_index", "log_entry", ["kind", "index"])
    _table(
        "lineage_version",
        sa.Column("version", sa.String(), nullable=False, index=True),
        sa.Column("run_id", sa.String(), nullable=False, index=True),
        sa.Column("first_round", _BIG, nullable=False),
        sa.Column("last_round", _BIG, nullable=False),
        sa.Column("plan_hash", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
    )
    _table(
        "lineage_parent",
        sa.Column("parent", sa.String(), primary_key=True, index=True),
        sa.Column("version", sa.String(), nullable=False, index=True),
    )
    _table(
        "lineage_run",
        sa.Column("run_id", sa.String(), nullable=False, index=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("plan_hash", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("rounds", _BIG, nullable=True),
        sa.Column("epsilon", sa.Double(), nullable=True),
        sa.Column("delta", sa.Double(), nullable=True),
        sa.Column("accountant", sa.String(), nullable=True),
    )
    _table(
        "lineage_run_site",
        sa.Column("site", sa.String(), primary_key=True),
        sa.Column("run_id", sa.String(), nullable=True, index=True),
        sa.Column("state", sa.String(), nullable=False),
    )
    _table(
        "lineage_round",
        sa.Column("run_id", sa.String(), nullable=False, index=True),
        sa.Column("round", _BIG, nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("version_in", sa.String(), nullable=True),
        sa.Column("version_out", sa.String(), nullable=True, index=True),
    )
    _table(
        "lineage_participant",
        sa.Column("position", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("round", _BIG, nullable=False),
        sa.Column("site", sa.String(), nullable=False, index=True),
        sa.Column("part", sa.String(), nullable=False),
        sa.Column("receipt", sa.String(), nullable=True),
    )
    _table(
        "lineage_metric",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("version", sa.String(), nullable=False, index=True),
        sa.Column("site", sa.String(), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("lower", sa.Double(), nullable=True),
        sa.Column("upper", sa.Double(), nullable=True),
        sa.Column("suppressed", sa.Boolean(create_constraint=False), nullable=False),
    )
    _table(
        "lineage_release",
        sa.Column("release", sa.String(), nullable=False, index=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=True, index=True),
        sa.Column("statement", sa.String(), nullable=True),
    )


def _table(name: str, *columns: sa.Column[object]) -> None:
    op.create_table(name, sa.Column("entry", _BIG, primary_key=True, autoincrement=False), *columns)


def downgrade() -> None:
    raise NotImplementedError("the log's schema only goes up; restore the copy taken before the upgrade")
