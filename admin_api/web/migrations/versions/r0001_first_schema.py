"""Accounts, sessions, tokens, answers given again, and acts that wait for a signature."""

from __future__ import annotations

from alembic import op

from admin_api.web.all_tables import METADATA

revision = "0001"
down_revision = None


def upgrade() -> None:
    METADATA.create_all(op.get_bind())
