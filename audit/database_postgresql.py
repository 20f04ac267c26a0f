"""The log in PostgreSQL: the tables belong to an owner's role, the log is kept with a writer's role.

- One writer: each writing transaction first takes an advisory lock, and reads only after it has it. (A table
  lock would need rights the writer must not have.) The primary keys stop a client that takes no lock.
- Durable: `synchronous_commit=on` for each connection; a server with `fsync=off` is refused.
- One state for readers: REPEATABLE READ.
- Append-only twice over: triggers that also fire for replicas refuse UPDATE, DELETE and TRUNCATE, and the
  writer has no right to them. A role that has such a right (the owner, a superuser) is refused as a writer.

The owner makes and upgrades the tables (`zegel audit database init`); the writer cannot.

Source: PostgreSQL documentation, "Explicit Locking", "Transaction Isolation", "CREATE TRIGGER",
"ALTER TABLE ... ENABLE ALWAYS TRIGGER", "Asynchronous Commit".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import psycopg
from sqlalchemy import URL, Connection, Table, create_engine, event
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError

from audit.database import BUSY_TIMEOUT_S, Row
from audit.errors import LogError
from audit.merkle import Node
from audit.migrations import is_current, upgrade
from audit.postgresql_arrays import Array, BigIntegers, Integers, array_class, register
from audit.tables import LogTable

_BEGIN = "zegel_begin"  # execution option: what begins a transaction
_LOCK = 0x7A6567656C6C6F67  # the advisory lock's number, "zegellog"; one log per database
_TIP = b'SELECT (SELECT max("index") FROM log_entry), (SELECT hash FROM log_node WHERE level = 0 AND "index" = %b)'
# One search per node wanted, whatever the planner knows of the table: a subquery cannot become a scan of it all.
_STORED = b"""
SELECT level, "index", (SELECT hash FROM log_node AS n WHERE n.level = wanted.level AND n."index" = wanted."index")
FROM unnest(%b::integer[], %b::bigint[]) AS wanted (level, "index")
"""
_FUNCTION = "log_is_append_only"
_FUNCTION_BODY = "BEGIN RAISE EXCEPTION 'table % is append-only: % refused', TG_TABLE_NAME, TG_OP; END"
_ROLE = re.compile(r"[a-z_][a-z0-9_]{0,62}", re.ASCII)
_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


class PostgreSQL:
    """A log's database on a server (an `audit.database.Database`)."""

    checkpoint_path = None  # the server keeps no files for us: the caller says where the checkpoint lies

    def __init__(self, url: URL) -> None:
        """Connects to nothing yet."""
        self.url = url.set(drivername="postgresql+psycopg")
        given = url.query.get("options", ())
        options = [*([given] if isinstance(given, str) else given)]
        settings = {"synchronous_commit": "on", "lock_timeout": f"{BUSY_TIMEOUT_S}s", "client_min_messages": "warning"}
        options += [f"-c {name}={value}" for name, value in settings.items()]
        connecting = {"options": " ".join(options), "connect_timeout": BUSY_TIMEOUT_S}
        self._engine = create_engine(self.url, connect_args=connecting)
        event.listen(self._engine, "connect", _configure)
        event.listen(self._engine, "begin", _begin)
        self._reader = self._engine.execution_options(**{_BEGIN: b"BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"})
        # Two statements in one message. The lock comes first: what is read later was committed by then.
        self._writer = self._engine.execution_options(**{_BEGIN: b"BEGIN; SELECT pg_advisory_xact_lock(%d)" % _LOCK})
        self._inserts: dict[tuple[str, ...], tuple[bytes, list[type[Array]]]] = {}  # by the tables' names

    @property
    def shown(self) -> str:
        return self.url.set(drivername="postgresql").render_as_string(hide_password=True)

    def prepare(self) -> None:
        """Refuses a server that may lose commits, tables that are missing or old, and a role that could change rows."""
        with self.snapshot() as connection:
            if connection.exec_driver_sql("SHOW fsync").scalar_one() != "on":
                raise LogError(f"{self.shown}: the server runs with fsync=off and can lose entries; turn it on")
            if not is_current(connection):
                raise LogError(
                    f"{self.shown} holds no log of this version of Zegel; make or upgrade its tables as their owner: "
                    "zegel audit database init --url OWNER_URL --writer ROLE"
                )
            role, changeable = connection.exec_driver_sql(
                "SELECT current_user, string_agg(t, ', ') FILTER (WHERE "
                "has_table_privilege(t, 'UPDATE, DELETE, TRUNCATE, TRIGGER') OR has_any_column_privilege(t, 'UPDATE')) "
                "FROM unnest(%b::text[]) AS t",
                (list(LogTable.metadata.tables),),
            ).one()
            if changeable is not None:
                raise LogError(
                    f"{self.shown}: expected a role that may only read and add, but {role} may change rows of "
                    f"{changeable}; connect with the role given to `zegel audit database init --writer`"
                )

    def initialise(self, *, writer: str) -> None:
        """As the tables' owner: makes them or brings them up to date, and gives `writer` its rights.

        The role `writer` is made when it does not exist (without a password; give it one with ALTER ROLE, or let
        pg_hba.conf recognise it otherwise). Raises LogError for a role's name outside [a-z_][a-z0-9_]*, for one
        that is the owner, a superuser or a member of the owner's role, and when this role may not do it.
        """
        if not _ROLE.fullmatch(writer):
            raise LogError(f"role {writer!r}: expected lower-case letters, digits and _, at most 63")
        with self.writing() as connection:
            if not is_current(connection):
                upgrade(self, connection)
            found = connection.exec_driver_sql(
                "SELECT rolsuper OR pg_has_role(rolname, current_user, 'MEMBER') FROM pg_roles WHERE rolname = %b",
                (writer,),
            ).scalar_one_or_none()
            if found is None:
                connection.exec_driver_sql(f"CREATE ROLE {writer} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE")
            elif found:
                raise LogError(f"role {writer} is the owner, its member or a superuser; name one that owns nothing")
            names = ", ".join(LogTable.metadata.tables)
            connection.exec_driver_sql(f"REVOKE ALL ON {names}, alembic_version FROM PUBLIC, {writer}")
            connection.exec_driver_sql(f"GRANT SELECT, INSERT ON {names} TO {writer}")
            connection.exec_driver_sql(f"GRANT SELECT ON alembic_version TO {writer}")
            schema = connection.exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one()
            connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA {schema} TO {writer}")

    def reading(self) -> AbstractContextManager[Connection]:
        return self._engine.connect()

    def snapshot(self) -> AbstractContextManager[Connection]:
        return self._reader.begin()

    def writing(self) -> AbstractContextManager[Connection]:
        return self._writer.begin()

    def tip(self, connection: Connection, leaf: int) -> tuple[int, bytes | None]:
        ((last, value),) = _run(connection, _TIP, (leaf,)).fetchall()
        return (0 if last is None else last + 1), value

    def stored(self, connection: Connection, nodes: Sequence[Node]) -> dict[Node, bytes]:
        wanted = Integers([level for level, _ in nodes]), BigIntegers([index for _, index in nodes])
        rows = _run(connection, _STORED, wanted).fetchall()
        return {(level, index): value for level, index, value in rows if value is not None}

    def insert(self, connection: Connection, rows: Mapping[Table, Sequence[Row]]) -> None:
        # One array per column and one statement for all tables: one round trip for any number of rows.
        names = tuple(table.name for table in rows)
        if names not in self._inserts:
            self._inserts[names] = _insert(list(rows)), [array_class(c.type) for table in rows for c in table.columns]
        statement, arrays = self._inserts[names]
        columns = (column for added in rows.values() for column in zip(*added, strict=True))
        _run(connection, statement, [array(column) for array, column in zip(arrays, columns, strict=True)])

    def guard_rows(self, connection: Connection) -> None:
        connection.exec_driver_sql(
            f"CREATE OR REPLACE FUNCTION {_FUNCTION}() RETURNS trigger LANGUAGE plpgsql AS $${_FUNCTION_BODY}$$",
            execution_options={"no_parameters": True},  # the per cent signs are the function's
        )
        for table in LogTable.metadata.tables:
            connection.exec_driver_sql(
                f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
                f"FOR EACH STATEMENT EXECUTE FUNCTION {_FUNCTION}()"
            )
            connection.exec_driver_sql(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_append_only")

    def unguard_rows(self, connection: Connection) -> None:
        for table in LogTable.metadata.tables:
            if connection.exec_driver_sql("SELECT to_regclass(%b)", (table,)).scalar_one() is not None:
                connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {table}_append_only ON {table}")

    def guard_differences(self, connection: Connection) -> list[str]:
        names = list(LogTable.metadata.tables)
        rows = connection.exec_driver_sql(
            "SELECT c.relname, t.tgname, t.tgenabled = 'A' AND t.tgtype = 58 AND p.proname = %b AND p.prosrc = %b "
            "FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid "
            "WHERE NOT t.tgisinternal AND c.oid = ANY (SELECT to_regclass(n) FROM unnest(%b::text[]) AS n)",
            (_FUNCTION, _FUNCTION_BODY, names),
        ).all()
        found = {(table, name): bool(ours) for table, name, ours in rows}
        expected = {(table, f"{table}_append_only") for table in names}
        differences = [f"trigger {name} is missing" for _, name in sorted(expected - set(found))]
        differences += [
            f"trigger {name} on {table} is not ours"
            for (table, name), ours in sorted(found.items())
            if not ours or (table, name) not in expected
        ]
        rules = connection.exec_driver_sql(
            "SELECT tablename, rulename FROM pg_rules WHERE schemaname = current_schema() AND tablename = ANY (%b)",
            (names,),
        )
        differences += [f"rule {rule} on {table} is not ours" for table, rule in rules]
        open_to = connection.exec_driver_sql(
            "SELECT DISTINCT c.relname, coalesce(r.rolname, 'PUBLIC') FROM pg_class c CROSS JOIN LATERAL ("
            "SELECT * FROM aclexplode(c.relacl) UNION ALL "
            "SELECT e.* FROM pg_attribute a CROSS JOIN aclexplode(a.attacl) e WHERE a.attrelid = c.oid"
            ") AS acl LEFT JOIN pg_roles r ON r.oid = acl.grantee "
            "WHERE c.oid = ANY (SELECT to_regclass(n) FROM unnest(%b::text[]) AS n) AND acl.grantee <> c.relowner "
            "AND acl.privilege_type IN ('UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER')",
            (names,),
        )
        differences += [f"{grantee} may change rows of {table}" for table, grantee in open_to]
        return differences

    def close(self) -> None:
        self._engine.dispose()


def _configure(connection: Any, _record: object) -> None:
    register(connection)
    connection.autocommit = True  # the driver must not begin transactions behind our back; see _begin


def _begin(connection: Connection) -> None:
    statement = connection.get_execution_options().get(_BEGIN)
    if statement is not None:
        _run(connection, statement)


def _run(connection: Connection, statement: bytes, values: Sequence[Any] | None = None) -> psycopg.Cursor[Any]:
    """A statement by the driver itself: SQLAlchemy would double the time of what the log does most."""
    driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
    try:
        return driver.execute(statement, values)
    except psycopg.Error as error:
        if driver.closed:
            connection.invalidate(error)
        raise DBAPIError(statement.decode(), None, error) from error


def _insert(tables: Sequence[Table]) -> bytes:
    parts = []
    for table in tables:
        names = ", ".join(f'"{column.name}"' for column in table.columns)
        arrays = ", ".join(f"%b::{column.type.compile(_DIALECT)}[]" for column in table.columns)
        parts.append(f"INSERT INTO {table.name} ({names}) SELECT * FROM unnest({arrays})")  # noqa: S608 - our own names
    *first, last = parts
    others = ", ".join(f"part{i} AS ({part})" for i, part in enumerate(first))
    return (f"WITH {others} {last}" if others else last).encode()
