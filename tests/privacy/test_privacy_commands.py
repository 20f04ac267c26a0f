"""`zegel privacy`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from privacy.commands import privacy_app

REFERENCE = ["--sampling-rate", ".01", "--noise-multiplier", "1", "--steps", "1000", "--delta", "1e-5"]


def test_epsilon_of_the_reference() -> None:
    done = CliRunner().invoke(privacy_app, ["epsilon", *REFERENCE])
    assert done.exit_code == 0
    assert "epsilon 1.8282 at delta 1e-05, per patient" in done.stdout
    assert "epsilon 2.1014 by Renyi DP" in done.stdout


def test_epsilon_as_json() -> None:
    done = CliRunner().invoke(privacy_app, ["epsilon", *REFERENCE, "--json"])
    answer = json.loads(done.stdout)
    assert answer["epsilon"] == pytest.approx(1.828, abs=1e-3)
    assert answer["epsilon_rdp"] == pytest.approx(2.101, abs=1e-3)
    assert (answer["unit"], answer["neighboring_relation"]) == ("patient", "ADD_OR_REMOVE_ONE")
    assert answer["accountant"].startswith("dp-accounting")
    assert answer["tuning"] is None
    assert "epsilon_against_everyone" not in answer


def test_epsilon_of_a_consortium() -> None:
    question = ["--sampling-rate", "1", "--noise-multiplier", "20", "--steps", "20", "--delta", "1e-5"]
    done = CliRunner().invoke(privacy_app, ["epsilon", *question, "--hospitals", "5", "--json"])
    answer = json.loads(done.stdout)
    assert answer["epsilon_released_model"] < answer["epsilon"] < answer["epsilon_against_everyone"]
    text = CliRunner().invoke(privacy_app, ["epsilon", *question, "--hospitals", "5"]).stdout
    assert "at most 1 of 5 hospitals" in text
    assert f"epsilon {answer['epsilon_against_everyone']:.4f} if all other hospitals side with the server" in text
    assert f"epsilon {answer['epsilon_released_model']:.4f} against whoever has the released model alone" in text


def test_epsilon_of_local_noise() -> None:
    question = ["--sampling-rate", "1", "--noise-multiplier", "20", "--steps", "20", "--delta", "1e-5"]
    local = ["epsilon", *question, "--hospitals", "5", "--noise-mode", "local"]
    answer = json.loads(CliRunner().invoke(privacy_app, [*local, "--json"]).stdout)
    assert answer["epsilon_released_model"] == answer["epsilon"] == answer["epsilon_against_everyone"]
    assert "holds against everybody else" in CliRunner().invoke(privacy_app, local).stdout


def test_epsilon_of_a_tuning() -> None:
    done = CliRunner().invoke(privacy_app, ["epsilon", *REFERENCE, "--tuning-trials", "10"])
    assert "epsilon 4.1033 at delta 1e-05, per patient   (Renyi DP" in done.stdout
    assert "RDP (the events hold a tuning" in done.stdout
    answer = json.loads(
        CliRunner().invoke(privacy_app, ["epsilon", *REFERENCE, "--tuning-trials", "10", "--json"]).stdout
    )
    assert answer["tuning"] == {"mean_trials": 10.0, "shape": 1.0}
    assert answer["epsilon"] == answer["epsilon_rdp"]


def test_no_noise_is_null_in_json() -> None:
    question = ["--sampling-rate", ".1", "--noise-multiplier", "0", "--steps", "1", "--delta", "1e-5"]
    done = CliRunner().invoke(privacy_app, ["epsilon", *question, "--json"])
    assert json.loads(done.stdout)["epsilon"] is None
    assert "epsilon inf" in CliRunner().invoke(privacy_app, ["epsilon", *question]).stdout


def test_noise_is_the_inverse(tmp_path: Path) -> None:
    question = ["--sampling-rate", "1", "--epsilon", "2", "--steps", "20", "--delta", "1e-6"]
    done = CliRunner().invoke(privacy_app, ["noise", *question, "--json", "--cache-dir", str(tmp_path)])
    answer = json.loads(done.stdout)
    assert answer["epsilon"] <= 2.0 < answer["epsilon"] + 0.01
    text = CliRunner().invoke(privacy_app, ["noise", *question, "--cache-dir", str(tmp_path)]).stdout
    assert f"noise multiplier {answer['noise_multiplier']:.3f}" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["epsilon", *REFERENCE[2:], "--sampling-rate", "1.5"], "sampling_prob"),
        (["epsilon", *REFERENCE[:-1], "1"], "delta"),
        (["epsilon", *REFERENCE, "--hospitals", "2", "--dropouts", "1"], "at least 1"),
        (["epsilon", *REFERENCE, "--hospitals", "3", "--noise-mode", "central"], "noise_mode"),
        (["epsilon", *REFERENCE, "--tuning-trials", "0.5"], "mean_trials"),
        (["epsilon", *REFERENCE, "--tuning-trials", "5", "--tuning-shape", "nan"], "shape"),
        (["epsilon", "--sampling-rate", "nan", *REFERENCE[2:]], "sampling_prob"),
        (["epsilon", *REFERENCE[:2], "--noise-multiplier", "inf", *REFERENCE[4:]], "noise_multiplier"),
        (["noise", "--sampling-rate", ".1", "--epsilon", "0", "--steps", "1", "--delta", "1e-5"], "epsilon"),
        (["noise", "--sampling-rate", ".1", "--epsilon", "1", "--steps", "0", "--delta", "1e-5"], "count"),
    ],
)
def test_bad_questions_end_with_a_sentence(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(privacy_app, arguments)
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert message in done.stderr


def test_usage_errors_are_two() -> None:
    assert CliRunner().invoke(privacy_app, ["epsilon"]).exit_code == 2
    assert CliRunner().invoke(privacy_app, ["epsilon", *REFERENCE[:-1], "small"]).exit_code == 2


def test_help_teaches() -> None:
    text = " ".join(CliRunner().invoke(privacy_app, ["--help"], terminal_width=200).stdout.split())
    assert "Epsilon bounds how much anyone can learn" in text
