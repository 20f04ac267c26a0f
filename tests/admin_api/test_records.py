"""What a run leaves behind, read while it is being written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.errors import FederationError, PlanError
from jobs.home import ConsortiumHome
from jobs.records import PROGRESS_FILE, load_plan, plan_approvals, read_progress, read_result
from tests.admin_api.conftest import AfterRun
from tests.admin_api.consortium_folder import RUN, refused, zegel


def test_a_half_written_line_waits_for_the_next_call(home: ConsortiumHome) -> None:
    folder = home.run_folder("run-1")
    folder.mkdir()
    path = folder / PROGRESS_FILE
    lines = [json.dumps({"stage": "training", "round": number}) + "\n" for number in range(3)]
    whole = "".join(lines)
    for cut in range(len(whole) + 1):
        path.write_text(whole[:cut], encoding="utf-8")
        complete = whole[:cut].count("\n")
        assert [step["round"] for step in read_progress(home, "run-1")] == list(range(complete))
        assert [step["round"] for step in read_progress(home, "run-1", 1)] == list(range(1, complete))


def test_a_run_nobody_started_has_no_records(home: ConsortiumHome) -> None:
    assert read_progress(home, "run-unknown") == []
    assert read_result(home, "run-unknown") is None
    told = refused("run", "status", "run-unknown", "--home", home.path)
    assert f"no run run-unknown in {home.path}" in told


@pytest.mark.parametrize("run_id", ["..", "../consortium", "a/b", "", ".hidden", "x" * 101])
def test_a_runs_name_is_no_path(home: ConsortiumHome, run_id: str) -> None:
    with pytest.raises(FederationError, match="is not the name of a run"):
        home.run_folder(run_id)
    assert "is not the name of a run" in refused("run", "status", run_id, "--home", home.path)


def test_a_run_just_handed_over_is_told(home: ConsortiumHome) -> None:
    home.run_folder("run-1").mkdir()
    result = zegel("run", "status", "run-1", "--home", home.path)
    assert result.exit_code == 0
    assert "handed to the server; no step was reported yet" in result.stdout


def test_a_finished_run_is_told(ran: AfterRun) -> None:
    steps = read_progress(ran.home, RUN)
    rounds = load_plan(ran.home, ran.plan_hash).aggregations
    assert [step["round"] for step in steps if step["stage"] == "training" and step["round"]] == [*range(1, rounds + 1)]
    result = read_result(ran.home, RUN)
    assert result is not None
    assert result["status"] == "finished"
    told = zegel("run", "status", RUN, "--home", ran.home.path)
    assert f"finished: {result['version']}" in told.stdout


def test_a_plan_is_read_from_what_was_proposed(after_run: AfterRun) -> None:
    home = after_run.home
    assert load_plan(home, after_run.plan_hash).hash == after_run.plan_hash
    assert len(plan_approvals(home, after_run.plan_hash)) == 1
    unproposed = home.artifacts().put(b'{"schema": "zegel/plan/v1"}')
    with pytest.raises(PlanError, match=f"no plan {unproposed} was proposed"):
        load_plan(home, unproposed)
    path = home.artifacts().path(after_run.plan_hash)
    path.write_bytes(path.read_bytes().replace(b"small", b"large"))
    with pytest.raises(PlanError, match=r"the plan's text cannot be read: .* has changed on disk"):
        load_plan(home, after_run.plan_hash)
    path.unlink()
    with pytest.raises(PlanError, match="the plan's text cannot be read"):
        load_plan(home, after_run.plan_hash)


def test_a_folder_that_is_no_consortium_is_told(tmp_path: Path) -> None:
    assert "is not a consortium's folder; found one with `zegel consortium init`" in refused(
        "plan", "list", "--home", tmp_path
    )
    (tmp_path / "consortium.json").write_text('{"name": "x"}', encoding="utf-8")
    assert f"{tmp_path / 'consortium.json'} cannot be read" in refused("plan", "list", "--home", tmp_path)
