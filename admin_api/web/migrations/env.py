"""What Alembic runs: the revisions, over the connection it is handed."""

from __future__ import annotations

from alembic import context

from admin_api.web.all_tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table="web_revision",
    render_as_batch=True,
)
context.run_migrations()
