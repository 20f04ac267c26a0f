"""The database's schema, brought up to date by Alembic: one revision per change, upwards only.

Invariants:
- A migration runs inside the log's one writing transaction: it happens whole or not at all.
- Entries and tree hashes are never touched; lineage rows follow from entries and may be made anew.
- The triggers that keep rows from changing are taken away before and put back after, whatever a revision did
  to the tables (Alembic's batch mode drops them without a word).
- There is no way down: an older Zegel refuses a newer log. Take a copy of the database before upgrading.

`alembic revision` works from the project's root with `-c audit/migrations/alembic.ini`.

Source: Alembic documentation, "Sharing a Connection across one or more programmatic migration commands",
"Building an Up to Date Database from Scratch".
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import inspect

from audit.errors import LogError
from audit.lineage_rows import RULES, rebuild
from audit.tables import LINEAGE_RULES, SETTINGS

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from audit.database import Database

FIRST = "0001"  # the schema of databases made before revisions were recorded
HEAD = "0002"
_REVISION_TABLE = "alembic_version"


def revision(connection: Connection) -> str | None:
    """The schema's revision; `FIRST` for a log from before they were recorded, None for no log at all."""
    tables = inspect(connection)
    if tables.has_table(_REVISION_TABLE):
        found = connection.exec_driver_sql(f"SELECT version_num FROM {_REVISION_TABLE}").scalars().all()  # noqa: S608
        if len(found) != 1:
            raise LogError(f"table {_REVISION_TABLE}: expected one revision, got {len(found)}")
        return str(found[0])
    return FIRST if tables.has_table("log_entry") else None


def is_current(connection: Connection) -> bool:
    """Whether schema and lineage are those of this version of Zegel."""
    return revision(connection) == HEAD and _rules(connection) == RULES


def upgrade(database: Database, connection: Connection) -> None:
    """Makes the tables, or brings them up to date, within the writing transaction of `connection`.

    Raises LogError for a log made by a newer Zegel.
    """
    # Half a second to load, and needed once in a log's life.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    database.unguard_rows(connection)
    try:
        if revision(connection) == FIRST and not inspect(connection).has_table(_REVISION_TABLE):
            command.stamp(config, FIRST)
        command.upgrade(config, "head")
    except CommandError as error:
        raise LogError(
            f"{database.shown}: the log's tables are of revision {revision(connection)}, this Zegel knows up to "
            f"{HEAD}: it was made by a newer one; use that ({error})"
        ) from error
    if _rules(connection) != RULES:
        rebuild(database, connection)
        connection.execute(SETTINGS.delete().where(SETTINGS.c.name == LINEAGE_RULES))
        connection.execute(SETTINGS.insert().values(name=LINEAGE_RULES, value=RULES))
    database.guard_rows(connection)


def _rules(connection: Connection) -> str | None:
    return connection.execute(SETTINGS.select().where(SETTINGS.c.name == LINEAGE_RULES)).scalars(1).one_or_none()
