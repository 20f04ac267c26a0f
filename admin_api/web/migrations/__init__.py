"""The schema of the pages' own database, brought up to date by Alembic: one revision per change, upwards only."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect

from admin_api.errors import WebError

HEAD = "0001"
_TABLE = "web_revision"


def upgrade(connection: Connection) -> None:
    """Make the tables or bring them up to date, within the transaction of `connection`. Raises WebError."""
    if inspect(connection).has_table(_TABLE):
        found = connection.exec_driver_sql(f"SELECT version_num FROM {_TABLE}").scalars().all()  # noqa: S608
        if list(found) == [HEAD]:
            return
    # Half a second to load, and needed once in a database's life.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise WebError(f"the pages' database was made by a newer Zegel; use that ({error})") from error
