"""The pages and the API on a large consortium: 200 hospitals, 5,000 versions, a log of a million entries.

    python benchmarks/admin_api.py --keep DIR [--databases sqlite postgresql] [--users 20] [--think 1.0] [--json]

The consortium is made once and kept in DIR (half an hour for a million entries; tests/admin_api/reading/
large_consortium.py says how it looks). Then, on each database:

1. The read model is made from nothing, and follows one entry at a time.
2. The functions of `admin_api.reading` are called one after the other, each with things chosen at random.
3. `zegel consortium serve` runs with two workers. Every GET route of the app is asked for once; those that answer 200
   are asked for by 20 users at once, who are another process: each asks for a route at random about a thing at random,
   reads the answer and thinks for a while (exponential, --think seconds on average). `/healthz`, which does nothing, is
   the floor: the column "floor" is how many times its median a route takes.
4. The weight of each page's first load: the page and everything it refers to, as it is and as it travels; and which
   other hosts it would contact.

The first requests after the start are not counted (five are made to each route). Times of a machine that does other
work as well are too long; "floor" and the processor time (of the functions' process; of the servers, the database's
with them, for a request of its own) are what to look at then.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for tests

from admin_api.reading import (
    certificates,
    hospitals,
    logbook,
    plans,
    privacy,
    releases,
    reports,
    runs,
    search,
    versions,
)
from admin_api.reading.room import ReadingRoom
from admin_api.web.database import Database
from audit.entry import ROUND_ABORTED, Entry
from jobs.home import ConsortiumHome
from tests.admin_api.reading.large_consortium import TASK, Size, found_large

TARGET = 100.0  # ms, 95th percentile
FOLLOW_TARGET = 5.0  # ms
WEIGHT_TARGET = 200_000  # bytes
CALLS = 60  # of each read function
FOLLOWED = 60  # entries, one at a time
WARM = 5  # requests to each route that are not counted
ALONE = 10  # requests to each route, one after the other, for the processor time they take
ROLES = ("consortium_admin", "privacy_officer", "release_manager", "authority")
_REFERENCE = re.compile(r"""<(?:link|script|img|source)\b[^>]*?\b(?:href|src)=["']([^"']+)["']""", re.IGNORECASE)
_STYLE_REFERENCE = re.compile(r"""url\(["']?([^"')]+)["']?\)|@import\s+["']([^"']+)["']""")
_PARAMETER = re.compile(r"{([a-z_]+)(?::[a-z]+)?}")


@dataclass(frozen=True)
class Times:
    """How long something took, in milliseconds."""

    database: str
    what: str  # follow, read, route
    name: str
    count: int
    p50: float
    p95: float
    p99: float
    target: float | None = None
    floor: float | None = None  # p50 as a multiple of that of /healthz
    processor: float | None = None  # ms, mean: of this process, or of the servers

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        return "holds" if self.p95 <= self.target else "MISSED"

    @classmethod
    def of(
        cls,
        database: str,
        what: str,
        name: str,
        seconds: Sequence[float],
        target: float | None,
        *,
        processor: float | None = None,
    ) -> Times:
        ordered = sorted(1e3 * each for each in seconds)

        def at(share: float) -> float:
            return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

        p50 = statistics.median(ordered)
        mean = None if processor is None else 1e3 * processor / len(ordered)
        return cls(database, what, name, len(ordered), p50, at(0.95), at(0.99), target, processor=mean)


@dataclass(frozen=True)
class Weight:
    """A page's first load."""

    page: str
    parts: int
    plain: int  # bytes
    travelling: int  # bytes, compressed where the server does
    hosts: tuple[str, ...]  # others that it would contact


@dataclass
class Outcome:
    """Everything measured."""

    size: Size
    projected: dict[str, float] = field(default_factory=dict)  # entries a second, by database
    times: list[Times] = field(default_factory=list)
    weights: list[Weight] = field(default_factory=list)
    not_measured: dict[str, str] = field(default_factory=dict)  # route and why


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--versions", type=int, default=5_000)
    parser.add_argument("--hospitals", type=int, default=200)
    parser.add_argument("--keep", type=Path, required=True, help="folder in which the consortium is made once")
    parser.add_argument("--databases", nargs="+", choices=["sqlite", "postgresql"], default=["sqlite", "postgresql"])
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--think", type=float, default=1.0, help="seconds between a user's requests, on average")
    parser.add_argument("--seconds", type=float, default=180.0, help="how long the users go on")
    parser.add_argument("--parts", nargs="+", choices=["model", "functions", "server"], help="measure only these")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    arguments = parser.parse_args()
    outcome = Outcome(Size(arguments.entries, arguments.versions, arguments.hospitals))
    say = silent if arguments.json else functools.partial(print, flush=True)
    home = kept(arguments.keep, outcome.size)
    for kind in arguments.databases:
        with ExitStack() as stack:
            folder, web_url, server = home.path, f"sqlite:///{home.path / 'web.db'}", []
            if kind == "postgresql":
                folder, web_url, pid = stack.enter_context(in_postgresql(arguments.keep, home))
                server = [pid]
            parts = arguments.parts or ("model", "functions", "server")
            if "model" in parts or kind == "postgresql":
                projection(outcome, kind, ConsortiumHome(folder), web_url)
                say(f"{kind}: the read model was made at {outcome.projected[kind]:,.0f} entries a second")
            if "functions" in parts:
                functions(outcome, kind, ConsortiumHome(folder), web_url)
                show(say, outcome, kind, ("follow", "read"))
            if "server" in parts:
                served(outcome, kind, folder, web_url, arguments, server)
                show(say, outcome, kind, ("route",))
    if arguments.json:
        print(json.dumps(asdict(outcome)))
        return
    for weight in outcome.weights:
        verdict = "holds" if weight.plain < WEIGHT_TARGET and not weight.hosts else "MISSED"
        hosts = ", ".join(weight.hosts) or "no other host"
        say(
            f"{weight.page:44} {weight.parts:3} parts {weight.plain:9,} B {weight.travelling:9,} B {hosts:16} {verdict}"
        )
    for name, why in sorted(outcome.not_measured.items()):
        say(f"not measured: {name}: {why}")


def silent(*_: object) -> None:
    """Says nothing."""


def show(say: Callable[..., None], outcome: Outcome, kind: str, what: tuple[str, ...]) -> None:
    chosen = [each for each in outcome.times if each.database == kind and each.what in what]
    for each in sorted(chosen, key=lambda times: -times.p95):
        floor = "" if each.floor is None else f"{each.floor:7.1f}x floor"
        floor += "" if each.processor is None else f"{each.processor:7.1f} ms of processor"
        say(
            f"{each.database:10} {each.what:6} {each.name:44} {each.count:5} "
            f"p50 {each.p50:8.1f} p95 {each.p95:8.1f} p99 {each.p99:8.1f} ms {floor} {each.verdict}"
        )


# The consortium and its databases


def kept(folder: Path, size: Size) -> ConsortiumHome:
    """The consortium in `folder`, made when it is not there."""
    path = folder / f"consortium-{size.entries}-{size.versions}-{size.hospitals}"
    done = path.with_suffix(".made")
    if not done.exists():
        shutil.rmtree(path, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        found_large(path, size, telling("making the consortium"))
        done.touch()
    return ConsortiumHome(path)


def telling(what: str) -> Callable[[int, int], None]:
    """Progress on standard error."""
    began = time.monotonic()

    def tell(done: int, size: int) -> None:
        taken = time.monotonic() - began
        print(f"\r{what}: {done:,} of {size:,} entries, {taken:.0f} s", end="", file=sys.stderr, flush=True)
        if done >= size:
            print(file=sys.stderr)

    return tell


@contextmanager
def in_postgresql(folder: Path, home: ConsortiumHome) -> Iterator[tuple[Path, str, int]]:
    """The same consortium with its log in PostgreSQL, the URL of an empty database for the pages, and the server."""
    from tests.audit.log_places import prepared
    from tests.audit.postgresql import OWNER, WRITER, running_server

    with running_server(folder) as server:
        name = prepared(server)
        copy_log(home, server.url("postgres", name))
        server.run(name, "VACUUM ANALYZE")
        other = folder / f"{home.path.name}-postgresql"
        shutil.rmtree(other, ignore_errors=True)
        shutil.copytree(home.path, other, ignore=shutil.ignore_patterns("log.db*", "web.db*"))
        config = json.loads((other / "consortium.json").read_text(encoding="utf-8"))
        config["log_url"] = server.url(WRITER, name)
        (other / "consortium.json").write_text(json.dumps(config), encoding="utf-8")
        pages = server.new_database()
        assert server.process is not None
        try:
            yield other, server.url(OWNER, pages), server.process.pid
        finally:
            shutil.rmtree(other)


def copy_log(home: ConsortiumHome, url: str) -> None:
    """Every row of the log's tables, from SQLite into a prepared database of PostgreSQL."""
    import sqlite3

    import psycopg

    from audit.tables import SETTINGS, LogTable

    lite = sqlite3.connect(home.path / "log.db")
    with psycopg.connect(url) as server, server.cursor() as cursor:
        for table in LogTable.metadata.sorted_tables:
            names = ", ".join(f'"{column.name}"' for column in table.columns)
            rows = lite.execute(f"SELECT {names} FROM {table.name}")  # noqa: S608 - our own names
            if table is SETTINGS:  # some are there
                there = "INSERT INTO log_setting (name, value) VALUES (%s, %s) ON CONFLICT (name) DO NOTHING"
                cursor.executemany(there, rows.fetchall())
                continue
            booleans = {place for place, column in enumerate(table.columns) if column.type.python_type is bool}
            with cursor.copy(f"COPY {table.name} ({names}) FROM STDIN".encode()) as copy:
                for row in rows:
                    copy.write_row([bool(value) if place in booleans else value for place, value in enumerate(row)])
    lite.close()


# The read model


def projection(outcome: Outcome, kind: str, home: ConsortiumHome, web_url: str) -> None:
    """Makes the read model from nothing; in SQLite the file of an earlier time is removed first."""
    if web_url.startswith("sqlite"):
        for path in home.path.glob("web.db*"):
            path.unlink()
    database = Database(web_url)
    database.prepare()
    room = ReadingRoom(database.engine, home)
    began = time.perf_counter()
    room.catch_up(telling(f"{kind}: making the read model"))
    outcome.projected[kind] = room.size / (time.perf_counter() - began)
    if kind == "postgresql":
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")
    room.close()
    database.close()


def functions(outcome: Outcome, kind: str, home: ConsortiumHome, web_url: str) -> None:
    """Each read function by itself, and following one entry."""
    database = Database(web_url)
    room = ReadingRoom(database.engine, home)
    room.catch_up()
    taken, worked = [], 0.0
    for number in range(FOLLOWED):
        with home.log() as log:
            parts = {"participants": ["hospital-001"], "dropped": ["hospital-002"]}
            body = {"run_id": "run-of-the-benchmark", "round": number + 1, "reason": "measured", **parts}
            log.append([Entry(ROUND_ABORTED, datetime.now(UTC), body)])
        began, busy = time.perf_counter(), time.process_time()
        room.follow()
        taken.append(time.perf_counter() - began)
        worked += time.process_time() - busy
    outcome.times.append(Times.of(kind, "follow", "one new entry", taken, FOLLOW_TARGET, processor=worked))
    things = Things(room)
    for name, call in {"nothing new": lambda: room.follow(), **reads(room, things)}.items():
        call()
        taken, worked = [], time.process_time()
        for _ in range(CALLS):
            began = time.perf_counter()
            call()
            taken.append(time.perf_counter() - began)
        worked = time.process_time() - worked
        what, target = ("follow", FOLLOW_TARGET) if name == "nothing new" else ("read", TARGET)
        outcome.times.append(Times.of(kind, what, name, taken, target, processor=worked))
    room.close()
    database.close()


class Things:
    """What there is in the consortium, to be asked about; each attribute's name is a parameter of routes."""

    def __init__(self, room: ReadingRoom) -> None:
        now = datetime.now(UTC)
        self.dice = random.Random(1)  # noqa: S311 - what is asked for
        listed = hospitals.listed(room, now=now, limit=200).items
        self.site = [each.name for each in listed]
        self.run = self.everything(lambda after: runs.listed(room, limit=200, after=after), "run")
        self.version = self.everything(lambda after: versions.listed(room, limit=200, after=after), "version")
        self.release = self.everything(lambda after: releases.listed(room, limit=200, after=after), "release")
        self.plan = self.everything(lambda after: plans.listed(room, limit=200, after=after), "plan_hash")
        self.person = [each.person for each in certificates.people(room, now=now).items]
        self.certificate = [each.digest for each in certificates.listed(room, now=now, limit=200).items]
        self.index = [str(self.dice.randrange(room.size)) for _ in range(500)]

    @staticmethod
    def everything(listed: Callable[[str | None], Any], name: str) -> list[str]:
        found: list[str] = []
        after = None
        for _ in range(5):  # the newest thousand
            piece = listed(after)
            found += [getattr(each, name) for each in piece.items]
            after = piece.after
            if after is None:
                break
        return found

    def one(self, name: str) -> str:
        found: str = self.dice.choice(getattr(self, name))
        return found


def reads(room: ReadingRoom, any_of: Things) -> Mapping[str, Callable[[], object]]:
    """Every read function, in the ways pages use it."""
    now, one = datetime.now(UTC), any_of.one
    return {
        "hospitals.listed": lambda: hospitals.listed(room, now=now),
        "hospitals.listed, 200": lambda: hospitals.listed(room, now=now, limit=200),
        "hospitals.listed, by days left": lambda: hospitals.listed(room, now=now, sort="days"),
        "hospitals.listed, in a state": lambda: hospitals.listed(room, now=now, state="good"),
        "hospitals.one": lambda: hospitals.one(room, one("site"), now=now),
        "hospitals.counts": lambda: hospitals.counts(room, now=now),
        "hospitals.manifests": lambda: hospitals.manifests(room, one("site")),
        "hospitals.parts": lambda: hospitals.parts(room, one("site")),
        "hospitals.reports": lambda: hospitals.reports(room, one("site")),
        "certificates.listed": lambda: certificates.listed(room, now=now),
        "certificates.ending": lambda: certificates.ending(room, now=now),
        "certificates.people": lambda: certificates.people(room, now=now),
        "plans.listed": lambda: plans.listed(room),
        "plans.listed, of one hospital": lambda: plans.listed(room, only=one("site")),
        "plans.one": lambda: plans.one(room, one("plan")),
        "runs.listed": lambda: runs.listed(room),
        "runs.listed, of one hospital": lambda: runs.listed(room, only=one("site")),
        "runs.one": lambda: runs.one(room, one("run")),
        "runs.parts": lambda: runs.parts(room, one("run")),
        "runs.rounds": lambda: runs.rounds(room, one("run")),
        "versions.listed": lambda: versions.listed(room),
        "versions.listed, of one hospital": lambda: versions.listed(room, only=one("site")),
        "versions.one": lambda: versions.one(room, one("version")),
        "versions.series, 50": lambda: versions.series(room, TASK),
        "versions.series, 200 of one hospital": lambda: versions.series(room, TASK, site=one("site"), limit=200),
        "reports.of_version, all cells": lambda: reports.of_version(room, one("version"), full=True),
        "releases.listed": lambda: releases.listed(room),
        "releases.one": lambda: releases.one(room, one("release")),
        "releases.history": lambda: releases.history(room, one("release")),
        "releases.with_code": lambda: releases.with_code(room, "I10"),
        "releases.gate_sets": lambda: releases.gate_sets(room),
        "privacy.listed": lambda: privacy.listed(room),
        "privacy.points": lambda: privacy.points(room, one("site")),
        "logbook.entries": lambda: logbook.entries(room),
        "logbook.entries, far back": lambda: logbook.entries(room, after=one("index")),
        "logbook.entries, of a rare kind": lambda: logbook.entries(room, kind="approval"),
        "logbook.entries, of one hospital": lambda: logbook.entries(room, site=one("site")),
        "logbook.entries, one hospital's reports": lambda: logbook.entries(
            room, site=one("site"), kind="metrics.reported"
        ),
        "logbook.entries, of one run": lambda: logbook.entries(room, run=one("run")),
        "logbook.entry": lambda: logbook.entry(room, int(one("index"))),
        "logbook.since, a day": lambda: logbook.since(room, room.size - 2880),
        "logbook.since, the beginning": lambda: logbook.since(room, 0),
        "logbook.since, one hospital": lambda: logbook.since(room, 0, only=one("site")),
        "search, a hospital": lambda: search.search(room, one("site")[-6:]),
        "search, a release": lambda: search.search(room, one("release")[:6]),
        "search, a digest": lambda: search.search(room, one("version")[7:19]),
        "search, a code": lambda: search.search(room, "I1"),
        "search, nothing": lambda: search.search(room, "there is no such thing"),
        "room.names": lambda: room.names(),
    }


# The server


def served(
    outcome: Outcome, kind: str, folder: Path, web_url: str, arguments: argparse.Namespace, database_server: list[int]
) -> None:
    """The real server with two workers; its routes asked for by users at once."""
    from admin_api.web.access import ACCESS
    from admin_api.web.app import create_app
    from admin_api.web.context import Workplace
    from admin_api.web.settings import Settings

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://localhost:{port}"
    settings = Settings(home=folder, public_url=url, database_url=None if kind == "sqlite" else web_url)
    home, database = ConsortiumHome(folder), Database(web_url)
    room = ReadingRoom(database.engine, home)
    room.catch_up()
    here = Workplace(settings, home, database, room)
    app = create_app(settings, here)
    things = Things(room)
    cookies = {role: signed_in(here, role) for role in ROLES}
    routes = {}
    for route in app.state.routes:
        if "GET" in route.methods:
            roles = ACCESS[route.name].roles
            role = ROLES[0] if roles is None else next((each for each in ROLES if each in roles), None)
            if role is None:
                outcome.not_measured[route.name] = "for a hospital's contact only"
                continue
            routes[route.name] = Asked(route.name, route.path, cookies[role], things)
    command = [sys.executable, "-m", "admin_api.cli", "consortium", "serve", "--home", str(folder), "--port", str(port)]
    if kind != "sqlite":
        command += ["--database-url", web_url]
    with running([*command, "--public-url", url, "--workers", "2"], port) as pid:
        measured = usable(outcome, routes, port)
        worked = {name: processor(asked, port, [pid, *database_server]) for name, asked in measured.items()}
        if kind == arguments.databases[0]:
            for asked in measured.values():
                weigh(outcome, asked, port)
        taken = users(measured, port, arguments.users, arguments.think, arguments.seconds)
    floor = statistics.median(taken["health"]) if taken.get("health") else None
    for name, seconds in taken.items():
        times = Times.of(kind, "route", name, seconds, TARGET)
        ratio = None if floor is None else times.p50 / (1e3 * floor)
        outcome.times.append(Times(**{**asdict(times), "floor": ratio, "processor": worked[name]}))
    room.close()
    database.close()


def signed_in(here: Any, role: str) -> str:
    """The cookie of a session of somebody with this role."""
    from admin_api.web.sign_in.sessions import PASSKEY, begin_session
    from admin_api.web.sign_in.site import SESSION, cookie_name
    from tests.admin_api.web.sign_in.signed_in import account_for_tests

    account = account_for_tests(here, role)
    secret = begin_session(here, account.id, via=PASSKEY, device="a benchmark", earlier=None)
    return f"{cookie_name(here.settings, SESSION)}={secret}"


@dataclass
class Asked:
    """A route, and how it is asked for."""

    name: str
    path: str
    cookie: str
    things: Things
    fixed: str | None = None

    @property
    def unknown(self) -> list[str]:
        """Parameters of the path of which there is nothing to choose from."""
        return [name for name in _PARAMETER.findall(self.path) if self.choice(name) is None]

    def target(self) -> str:
        """The path, about something at random."""
        return _PARAMETER.sub(lambda match: quote(self.choice(match[1]) or "", safe=":@"), self.path)

    def choice(self, name: str) -> str | None:
        known = {"hospital": "site", "run_id": "run", "plan_hash": "plan", "person_id": "person", "entry": "index"}
        if name == "task":
            return TASK
        if name == "digest":
            about = next((each for each in ("plan", "version", "certificate") if each in self.name), "version")
            return self.things.one(about)
        if name == "name":
            about = next((each for each in ("release", "run", "site") if each in self.name), "release")
            return self.things.one(about)
        name = known.get(name, name)
        return self.things.one(name) if hasattr(self.things, name) and name != "dice" else None


@contextmanager
def running(command: list[str], port: int) -> Iterator[int]:
    """A server in processes of its own, from its first answer on; stopped at the end."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        for _ in range(1200):
            with suppress(OSError, http.client.HTTPException):
                if ask(http.client.HTTPConnection("localhost", port, timeout=5), "/healthz", "")[0] == 200:
                    break
            if process.poll() is not None:
                raise SystemExit(f"the server ended with {process.returncode}")
            time.sleep(0.1)
        yield process.pid
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def ask(connection: http.client.HTTPConnection, path: str, cookie: str) -> tuple[int, bytes, str]:
    """Status, body as it travelled, and content type."""
    connection.request("GET", path, headers={"Cookie": cookie, "Accept-Encoding": "gzip", "Accept-Language": "en"})
    response = connection.getresponse()
    return response.status, response.read(), response.headers.get("content-type", "")


def usable(outcome: Outcome, routes: Mapping[str, Asked], port: int) -> dict[str, Asked]:
    """The routes that answer; each has answered some requests then."""
    found = {}
    for name, asked in routes.items():
        if asked.unknown:
            outcome.not_measured[name] = f"nothing to ask about: {', '.join(asked.unknown)}"
            continue
        if name.endswith((".events", ".stream", ".live")):
            outcome.not_measured[name] = "a stream"
            continue
        connection = http.client.HTTPConnection("localhost", port, timeout=60)
        try:
            for _ in range(WARM):
                status, _, kind = ask(connection, asked.target(), asked.cookie)
            if status == 200 and not kind.startswith("text/event-stream"):
                found[name] = asked
            else:
                outcome.not_measured[name] = f"answers {status} {kind} to {asked.target()}"
        except (OSError, http.client.HTTPException) as error:
            outcome.not_measured[name] = f"no answer: {error}"
        finally:
            connection.close()
    return found


def processor(asked: Asked, port: int, pids: Sequence[int]) -> float:
    """Milliseconds of processor that a request takes in the servers, on average over some, one after the other."""
    connection = http.client.HTTPConnection("localhost", port, timeout=60)
    before = worked_by(pids)
    for _ in range(ALONE):
        ask(connection, asked.target(), asked.cookie)
    connection.close()
    return (worked_by(pids) - before) / 1e6 / ALONE


def worked_by(pids: Sequence[int]) -> int:
    """Nanoseconds of processor that processes and all below them have used, those that have ended aside."""
    total = 0
    for pid in pids:
        found = psutil.Process(pid)
        for process in (found, *found.children(recursive=True)):
            for task in Path(f"/proc/{process.pid}/task").glob("*/schedstat"):
                with suppress(OSError):
                    total += int(task.read_text(encoding="ascii").split()[0])
    return total


def users(routes: Mapping[str, Asked], port: int, count: int, think: float, seconds: float) -> dict[str, list[float]]:
    """How long each request of each route took, the answer read, while `count` users ask at once."""
    taken: defaultdict[str, list[float]] = defaultdict(list)
    failures: list[str] = []
    ends = time.monotonic() + seconds
    names = sorted(routes)

    def use(number: int) -> None:
        dice = random.Random(number)  # noqa: S311 - what a user asks for
        connection = http.client.HTTPConnection("localhost", port, timeout=60)
        time.sleep(dice.random() * think)
        while time.monotonic() < ends:
            asked = routes[dice.choice(names)]
            path = asked.target()
            began = time.perf_counter()
            try:
                status, _, _ = ask(connection, path, asked.cookie)
            except (OSError, http.client.HTTPException) as error:
                failures.append(f"{path}: {error}")
                connection.close()
                continue
            took = time.perf_counter() - began
            if status == 200:
                taken[asked.name].append(took)
            else:
                failures.append(f"{path}: {status}")
            time.sleep(dice.expovariate(1 / think) if think else 0)
        connection.close()

    threads = [threading.Thread(target=use, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        print(f"{len(failures)} requests failed, such as {failures[0]}", file=sys.stderr)
    return dict(taken)


def weigh(outcome: Outcome, asked: Asked, port: int) -> None:
    """The first load of a page."""
    connection = http.client.HTTPConnection("localhost", port, timeout=60)
    base = f"http://localhost:{port}"
    start = asked.target()
    pending, seen, hosts, plain, travelling = [start], {start}, set(), 0, 0
    while pending:
        path = pending.pop()
        status, sent, kind = ask(connection, path, asked.cookie)
        if path == start and "html" not in kind:
            return
        if status != 200:
            outcome.not_measured[f"{asked.name} -> {path}"] = f"answers {status}"
            continue
        body = gzip.decompress(sent) if sent[:2] == b"\x1f\x8b" else sent
        plain, travelling = plain + len(body), travelling + len(sent)
        text = body.decode("utf-8", "replace")
        references = _REFERENCE.findall(text) if "html" in kind else []
        if "css" in kind:
            references = [one or other for one, other in _STYLE_REFERENCE.findall(text)]
        for reference in references:
            address = urlsplit(urljoin(base + path, reference))
            if address.scheme == "data":
                continue
            if f"{address.scheme}://{address.netloc}" != base:
                hosts.add(address.netloc)
            elif address.path not in seen:
                seen.add(address.path)
                pending.append(address.path + (f"?{address.query}" if address.query else ""))
    outcome.weights.append(Weight(asked.name, len(seen), plain, travelling, tuple(sorted(hosts))))
    connection.close()


if __name__ == "__main__":
    main()
