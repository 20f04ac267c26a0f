"""Keepers: processes of their own that start and follow runs, found again by whoever asks."""

from __future__ import annotations

import fcntl
import json
import time
from pathlib import Path

import pytest

from admin_api import keeping
from admin_api.keeping import FAILED, LOST, RESUME, SERVER, START, STARTING, STOPPED
from jobs.errors import FederationError
from jobs.home import ConsortiumHome
from jobs.records import PLAN_FILE
from tests.admin_api.conftest import AfterRun
from tests.admin_api.consortium_folder import RUN

PATIENCE_S = 90.0


def settled(home: ConsortiumHome, launch_id: str) -> keeping.Launch:
    """The launch once its keeper has ended."""
    deadline = time.monotonic() + PATIENCE_S
    while (found := keeping.launch_of(home, launch_id)).lives:
        assert time.monotonic() < deadline, keeping.last_words(home, launch_id)
        time.sleep(0.05)
    return found


def begun(home: ConsortiumHome, launch_id: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not (home.path / keeping.FOLDER / launch_id / "process.json").exists():
        assert time.monotonic() < deadline, keeping.last_words(home, launch_id)
        time.sleep(0.05)


def by_hand(home: ConsortiumHome, launch_id: str, kind: str, subject: str) -> Path:
    """A launch's folder without a process."""
    folder = home.path / keeping.FOLDER / launch_id
    folder.mkdir(parents=True)
    asked = {"kind": kind, "subject": subject, "by": "person-00", "begun": "2026-11-22T05:00:00Z"}
    (folder / "asked.json").write_text(json.dumps(asked))
    return folder


def test_a_keeper_that_cannot_do_it_leaves_its_reason(after_run: AfterRun) -> None:
    home = after_run.home
    made = keeping.launch(home, RESUME, "run-none", by="person-0011223344556677")
    assert (made.kind, made.subject, made.state) == (RESUME, "run-none", STARTING)
    found = settled(home, made.id)
    assert found.state == FAILED
    assert "no run run-none" in found.words
    assert found.by == "person-0011223344556677"
    assert keeping.launches(home) == [found]
    assert keeping.keeper_of(home, "run-none") is None


def test_a_keeper_of_a_run_that_is_over_has_nothing_to_do(after_run: AfterRun) -> None:
    (after_run.home.run_folder(RUN) / PLAN_FILE).write_text(after_run.plan_hash)
    made = keeping.launch(after_run.home, RESUME, RUN, by="person-00")
    found = settled(after_run.home, made.id)
    assert (found.state, found.run_id, found.words) == ("ended", RUN, "")


def test_a_keeper_is_stopped_while_it_waits(after_run: AfterRun) -> None:
    """Nobody answers where the server should be, so it waits for a minute."""
    home = after_run.home
    made = keeping.launch(home, START, after_run.plan_hash, by="person-00")
    with pytest.raises(FederationError, match="was asked for already"):
        keeping.launch(home, START, after_run.plan_hash, by="person-01")
    begun(home, made.id)
    keeping.stop_keeper(home, made.id)
    assert keeping.launch_of(home, made.id).state == STOPPED
    keeping.stop_keeper(home, made.id)  # again: nothing to do
    assert not list((home.path / "runs").glob(f"{RUN[:4]}*None"))


def test_whether_a_keeper_lives_is_asked_of_its_lock(after_run: AfterRun) -> None:
    home = after_run.home
    folder = by_hand(home, "launch-20261122T050000Z-00000a", RESUME, RUN)
    assert keeping.launch_of(home, folder.name).state == LOST
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert keeping.launch_of(home, folder.name).lives
        found = keeping.keeper_of(home, RUN)
        assert found is not None
        assert found.id == folder.name
        with pytest.raises(FederationError, match="goes on"):
            keeping.launch(home, RESUME, RUN, by="person-00")
        with pytest.raises(FederationError, match="just starting"):
            keeping.stop_keeper(home, folder.name)
    assert keeping.keeper_of(home, RUN) is None


@pytest.mark.parametrize("name", ["launch-x", "../consortium", "launch-20261122T050000Z-00000a"])
def test_what_is_no_launch(after_run: AfterRun, name: str) -> None:
    with pytest.raises(FederationError, match="no launch"):
        keeping.launch_of(after_run.home, name)


def test_a_damaged_record_is_named(after_run: AfterRun) -> None:
    folder = by_hand(after_run.home, "launch-20261122T050000Z-00000b", SERVER, "")
    (folder / "asked.json").write_text("{")
    with pytest.raises(FederationError, match="cannot be read"):
        keeping.launches(after_run.home)
