"""One consortium, founded once per session; tests get copies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from admin_api.gate_setting import parse_gate
from audit.entry import GATES_SET, Entry
from audit.release import DEFAULT_POLICY, GateSet
from audit.statement import sign_statement
from jobs.home import ConsortiumHome
from tests.admin_api.consortium_folder import copied, found_at, opened, plan_of, run_plan


@dataclass(frozen=True)
class AfterRun:
    """A consortium with a finished run, its people and hospitals."""

    home: ConsortiumHome
    people: Path
    sites: Path
    plan_hash: str


def judged_by(ran: AfterRun, folder: Path, *gates: str) -> AfterRun:
    """The same run in a log in which other gates were set before it."""
    home = copied(ran.home.path, folder / "consortium")
    manager = opened(home, ran.people / "manager")
    with home.log() as log:
        entries = [entry for _, entry in log.entries()]
    for path in (*home.path.glob("log.db*"), home.path / "log.checkpoint"):
        path.unlink()
    position = next(index for index, entry in enumerate(entries) if entry.kind == GATES_SET)
    chosen = GateSet("icd_coding", tuple(map(parse_gate, gates)), DEFAULT_POLICY, None)
    statement = {**entries[position].signed("gates").statement, **chosen.to_json()}
    signed = sign_statement(statement, manager.key, manager.certificate)
    entries[position] = Entry(GATES_SET, entries[position].time, {"gates": signed.to_json()})
    with home.log() as log:
        log.append(entries)
    home.sign_checkpoint()
    return AfterRun(home, ran.people, ran.sites, ran.plan_hash)


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
