"""A consortium's folder around a story told in memory, and the databases that its read model can be in."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from admin_api.reading.room import ReadingRoom
from admin_api.web.database import Database
from audit.certificates import certificate_pem, root_fingerprint
from audit.checkpoint import log_origin, log_verifier_key
from jobs.home import ConsortiumConfig, ConsortiumHome
from tests.audit.conftest import NAME, Keys, Story, make_keys
from tests.audit.postgresql import OWNER, Server, memory_folder, running_server


@pytest.fixture(scope="session")
def keys() -> Keys:
    return make_keys()


@pytest.fixture(scope="session")
def whole(keys: Keys) -> Story:
    """A story with an entry of every kind; read only."""
    story = Story(keys).tell()
    story.rarities()
    return story


@pytest.fixture(scope="session")
def whole_home(whole: Story, tmp_path_factory: pytest.TempPathFactory) -> ConsortiumHome:
    """The story's consortium, with all of its log; read only."""
    found = empty_home(tmp_path_factory.mktemp("whole") / "consortium", whole.keys, whole.clock)
    told_in(found, whole)
    return found


@pytest.fixture
def home(whole_home: ConsortiumHome, tmp_path: Path) -> ConsortiumHome:
    """A copy of it of the test's own."""
    shutil.copytree(whole_home.path, tmp_path / "consortium")
    return ConsortiumHome(tmp_path / "consortium", whole_home.clock)


def empty_home(path: Path, keys: Keys, clock: Callable[[], datetime]) -> ConsortiumHome:
    """A consortium's folder as far as the log, what is beside it, and its certificates go."""
    path.mkdir(mode=0o700)
    home = ConsortiumHome(path, clock)
    log = keys.holders["log"]
    fingerprint = root_fingerprint(keys.root)
    vkey = str(log_verifier_key(log.certificate))
    home.write_config(
        ConsortiumConfig(
            NAME, "bureau", "localhost", 8002, 8003, "admin", fingerprint, fingerprint, log_origin(NAME), vkey
        )
    )
    home.ca.mkdir()
    (home.ca / "rootCA.pem").write_bytes(keys.root_pem)
    (path / "log.crt").write_text(certificate_pem(log.certificate), encoding="ascii")
    pem = log.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (path / "log.key").write_bytes(pem)
    return home


def told_in(home: ConsortiumHome, story: Story, upto: int | None = None) -> None:
    """The story's entries in the folder's log, as far as they are not there, and what belongs beside them."""
    for data in story.artifacts.values():
        home.artifacts().put(data)
    story.disclosures(home.path)
    grown(home, story, upto)


def grown(home: ConsortiumHome, story: Story, upto: int | None = None) -> None:
    """The story's further entries in the folder's log."""
    with home.log() as log:
        log.append(story.entries[log.size : upto])


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    with running_server(memory_folder()) as server:
        yield server


@contextmanager
def kept_in(kind: str, directory: Path, request: pytest.FixtureRequest) -> Iterator[Database]:
    """The pages' database, empty, of a kind."""
    if kind == "sqlite":
        found = Database(f"sqlite:///{directory / 'web.db'}")
        yield found
        found.close()
        return
    server: Server = request.getfixturevalue("postgresql")
    name = server.new_database()
    found = Database(server.url(OWNER, name))
    yield found
    found.close()
    server.drop(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """The pages' database, empty, of either kind."""
    with kept_in(request.param, tmp_path, request) as found:
        yield found


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def room(
    request: pytest.FixtureRequest, whole_home: ConsortiumHome, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ReadingRoom]:
    """The read model of the whole story, in either kind of database; read only."""
    with kept_in(request.param, tmp_path_factory.mktemp("room"), request) as database:
        found = ReadingRoom(database.engine, whole_home)
        found.catch_up()
        yield found
        found.close()


@pytest.fixture
def own_room(home: ConsortiumHome, tmp_path: Path) -> Iterator[ReadingRoom]:
    """A read model of the test's own, of a consortium of its own."""
    database = Database(f"sqlite:///{tmp_path / 'own.db'}")
    found = ReadingRoom(database.engine, home)
    found.catch_up()
    yield found
    found.close()
    database.close()
