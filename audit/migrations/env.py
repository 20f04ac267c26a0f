"""What Alembic runs: the revisions, over the connection it is handed, or over the URL of `alembic -x url=...`."""

from __future__ import annotations

from alembic import context

from audit import lineage_tables  # noqa: F401 - puts its tables into the metadata
from audit.database import open_database
from audit.tables import LogTable

given = context.config.attributes.get("connection")
if given is not None:
    context.configure(connection=given, target_metadata=LogTable.metadata)
    context.run_migrations()
else:
    # A developer comparing models and schema: `alembic revision --autogenerate`, `alembic check`.
    database = open_database(context.get_x_argument(as_dictionary=True)["url"])
    with database.writing() as connection:
        context.configure(connection=connection, target_metadata=LogTable.metadata)
        context.run_migrations()
    database.close()
