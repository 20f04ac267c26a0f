"""What a plan costs, told to whoever approves it: both noise modes, from a file, without a consortium's folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from admin_api.planning import describe, plan_forecast, privacy_lines
from jobs.plan import Plan
from privacy import accounting
from tests.admin_api.consortium_folder import refused, zegel
from tests.jobs.small_federation import small_plan

DISTRIBUTED = small_plan(evaluation_sites=("amstel",))
LOCAL = small_plan(noise_mode="local", local_steps=2, epsilon=50.0, evaluation_sites=("amstel",))


@pytest.fixture
def plan_file(tmp_path: Path) -> Path:
    path = tmp_path / "plan.json"
    path.write_bytes(DISTRIBUTED.to_bytes())
    return path


def test_three_adversaries_in_distributed_mode() -> None:
    outlook = plan_forecast(DISTRIBUTED)
    assert outlook.against_server == accounting.epsilon(DISTRIBUTED.training_events(), DISTRIBUTED.delta)
    text = "\n".join(privacy_lines(DISTRIBUTED, outlook))
    assert f"epsilon {outlook.released_model:.3f} against whoever has the released model alone" in text
    assert f"epsilon {outlook.against_server:.3f} against the server with 1 colluding hospital, 0 missing" in text
    assert f"epsilon {outlook.against_everyone:.3f} against the server and all other hospitals together" in text
    assert f"Budget needed     {outlook.against_server_rdp:.3f}" in text
    assert outlook.released_model < outlook.against_server < outlook.against_everyone


def test_one_epsilon_in_local_mode() -> None:
    outlook = plan_forecast(LOCAL)
    text = "\n".join(privacy_lines(LOCAL, outlook))
    assert outlook.against_everyone == accounting.epsilon(LOCAL.training_events(), LOCAL.delta)
    assert "local: each hospital adds all of the noise itself" in text
    assert text.count("epsilon ") == 1
    assert f"epsilon {outlook.against_everyone:.3f} against everyone else" in text


@pytest.mark.parametrize("plan", [DISTRIBUTED, LOCAL], ids=["distributed", "local"])
def test_a_plan_is_read_from_its_file(plan: Plan, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(plan.to_bytes())
    value, lines = describe(plan)
    asked = ("plan", "forecast", path, "--cache-dir", tmp_path / "cache")
    assert zegel(*asked).stdout == "\n".join(lines) + "\n"
    shown = json.loads(zegel(*asked, "--json").stdout)
    assert shown == json.loads(json.dumps(value))
    assert shown["plan_hash"] == plan.hash
    assert len(list((tmp_path / "cache").iterdir())) in (1, 3)


def test_what_is_no_plan_is_refused(plan_file: Path, tmp_path: Path) -> None:
    assert "No such file" in refused("plan", "forecast", tmp_path / "none.json")
    plan_file.write_bytes(plan_file.read_bytes() + b" ")
    assert "canonical form" in refused("plan", "forecast", plan_file)
    plan_file.write_bytes(b"{}")
    assert "expected a plan of schema" in refused("plan", "forecast", plan_file)
