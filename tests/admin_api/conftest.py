"""One consortium, founded once per session; tests get copies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from jobs.home import ConsortiumHome
from tests.admin_api.consortium_folder import copied, found_at, plan_of, run_plan


@dataclass(frozen=True)
class AfterRun:
    """A consortium with a finished run, its people and hospitals."""

    home: ConsortiumHome
    people: Path
    sites: Path
    plan_hash: str


@pytest.fixture(scope="session")
def founded(tmp_path_factory: pytest.TempPathFactory) -> ConsortiumHome:
    """Read only. Beside it lie `user` and `tmp`: what founding left in the user's home and temporary folder."""
    return found_at(tmp_path_factory.mktemp("founded") / "consortium")


@pytest.fixture
def home(founded: ConsortiumHome, tmp_path: Path) -> ConsortiumHome:
    """A freshly founded consortium of the test's own."""
    return copied(founded.path, tmp_path / "consortium")


@pytest.fixture(scope="session")
def ran(founded: ConsortiumHome, tmp_path_factory: pytest.TempPathFactory) -> AfterRun:
    """A consortium after one real run over the in-memory transport. Read only."""
    folder = tmp_path_factory.mktemp("ran")
    home = copied(founded.path, folder / "consortium")
    plan_hash = run_plan(home, plan_of(), folder / "people", folder / "sites")
    return AfterRun(home, folder / "people", folder / "sites", plan_hash)


@pytest.fixture
def after_run(ran: AfterRun, tmp_path: Path) -> AfterRun:
    """A copy of it of the test's own; people and hospitals are shared."""
    return AfterRun(copied(ran.home.path, tmp_path / "consortium"), ran.people, ran.sites, ran.plan_hash)
