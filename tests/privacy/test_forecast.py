"""The forecast: three epsilons, both noise modes, whatever events a plan consists of."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy import accounting
from privacy.errors import AccountingError, EventError, NoiseError
from privacy.events import Charge, FeatureMean, LocalSteps, Repeated, StatisticsRelease, TrainingRound, Tuning
from privacy.forecast import DISTRIBUTED, LOCAL, Forecast, forecast

CONSORTIUM: dict[str, Any] = {"delta": 1e-5, "sites": 8, "colluders": 2, "dropouts": 2}


def plan(noise: float) -> list[Charge | Repeated]:
    return [Repeated(TrainingRound(1.0, noise), 60), FeatureMean(4 * noise, "centring")]


def test_three_epsilons_in_distributed_mode() -> None:
    outlook = forecast(plan(10.0), **CONSORTIUM)
    # 8 - 2 - 2 = 4 shares are calibrated for: a hospital's own noise is half of the sum's, and 6 shares are there.
    server, alone, model = plan(10.0), plan(5.0), plan(10.0 * math.sqrt(6 / 4))
    assert outlook.against_server == accounting.epsilon(server, 1e-5)
    assert outlook.against_server_rdp == accounting.rdp_epsilon(server, 1e-5)
    assert outlook.against_everyone == accounting.epsilon(alone, 1e-5)
    assert outlook.against_everyone_rdp == accounting.rdp_epsilon(alone, 1e-5)
    assert outlook.released_model == accounting.epsilon(model, 1e-5)
    assert outlook.released_model < outlook.against_server < outlook.against_everyone
    assert outlook.accountant == accounting.accountant()
    value = outlook.to_json()
    assert (value["colluders"], value["dropouts"], value["noise_mode"]) == (2, 2, DISTRIBUTED)


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([Repeated(LocalSteps(0.1, 3.0, 5), 3)], id="local steps"),
        pytest.param([StatisticsRelease(9.0, "sums")], id="ridge"),
        pytest.param([FeatureMean(30.0, "mean"), Repeated(LocalSteps(0.1, 3.0, 5), 3)], id="with a mean"),
    ],
)
def test_in_local_mode_nobody_is_trusted(events: list[Charge | Repeated]) -> None:
    outlook = forecast(events, **CONSORTIUM, noise_mode=LOCAL)
    assert outlook.released_model == outlook.against_server == outlook.against_everyone
    assert outlook.against_everyone == accounting.epsilon(events, 1e-5)
    assert outlook.against_everyone_rdp == outlook.against_server_rdp == accounting.rdp_epsilon(events, 1e-5)


def test_local_steps_have_all_of_their_noise_in_any_mode() -> None:
    steps = [LocalSteps(0.1, 3.0, 5)]
    assert forecast(steps, **CONSORTIUM).against_everyone == accounting.epsilon(steps, 1e-5)
    mixed: list[Charge | Repeated] = [*steps, FeatureMean(40.0, "mean")]
    scaled: list[Charge | Repeated] = [*steps, FeatureMean(20.0, "mean")]
    assert forecast(mixed, **CONSORTIUM).against_everyone == accounting.epsilon(scaled, 1e-5)


def test_a_tuning_is_scaled_inside() -> None:
    tuning = Tuning((Repeated(TrainingRound(1.0, 40.0), 5),), 3.0, 1.0)
    outlook = forecast([tuning], **CONSORTIUM)
    assert "RDP" in outlook.accountant
    half = Tuning((Repeated(TrainingRound(1.0, 20.0), 5),), 3.0, 1.0)
    assert outlook.against_everyone == accounting.rdp_epsilon([half], 1e-5)


def test_one_hospital_has_nobody_to_trust() -> None:
    outlook = forecast(plan(10.0), delta=1e-5, sites=1, colluders=0, dropouts=0)
    assert outlook.released_model == outlook.against_server == outlook.against_everyone


def test_without_noise_it_is_infinite_and_null_in_json() -> None:
    outlook = forecast([TrainingRound(0.1, 0.0)], **CONSORTIUM)
    assert outlook.against_server == outlook.released_model == math.inf
    assert outlook.to_json()["against_server"] is None
    json.dumps(outlook.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"delta": 0.0}, AccountingError, "delta"),
        ({"delta": math.nan}, AccountingError, "delta"),
        ({"noise_mode": "central"}, AccountingError, "one of distributed, local"),
        ({"sites": 4}, NoiseError, "at least 1"),
        ({"colluders": 0}, NoiseError, "colluders"),
        ({"dropouts": -1}, NoiseError, "dropouts"),
    ],
)
def test_questions_without_an_answer(change: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        forecast(plan(10.0), **{**CONSORTIUM, **change})


def test_something_else_than_an_event_is_refused() -> None:
    stranger: Any = "training"
    with pytest.raises(EventError):
        forecast([stranger], **CONSORTIUM)


def test_answers_are_the_same_whether_kept_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    doing: list[str] = []
    first = forecast(plan(10.0), **CONSORTIUM, cache_dir=tmp_path, progress=doing.append)
    assert len(doing) == 3
    assert first == forecast(plan(10.0), **CONSORTIUM)

    def refuse(*_: object, **__: object) -> float:
        raise AssertionError("computed although the answer was kept")

    monkeypatch.setattr(accounting, "epsilon", refuse)
    monkeypatch.setattr(accounting, "rdp_epsilon", refuse)
    assert forecast(plan(10.0), **CONSORTIUM, cache_dir=tmp_path) == first
    with pytest.raises(AssertionError, match="computed"):
        forecast(plan(11.0), **CONSORTIUM, cache_dir=tmp_path)


@settings(derandomize=True, max_examples=15, deadline=None)
@given(
    sites=st.integers(2, 20),
    colluders=st.integers(1, 5),
    dropouts=st.integers(0, 5),
    noise=st.sampled_from([8.0, 30.0]),
    mode=st.sampled_from([DISTRIBUTED, LOCAL]),
)
def test_whoever_knows_more_noise_is_protected_against_less(
    sites: int, colluders: int, dropouts: int, noise: float, mode: str
) -> None:
    def outlook(dropouts: int) -> Forecast:
        return forecast(
            [Repeated(TrainingRound(1.0, noise), 3)],
            delta=1e-5, sites=sites, colluders=colluders, dropouts=dropouts, noise_mode=mode,
        )  # fmt: skip

    if sites - colluders - dropouts < 1:
        with pytest.raises(NoiseError):
            outlook(dropouts)
        return
    found, slack = outlook(dropouts), 2e-4
    assert found.released_model <= found.against_server + slack
    assert found.against_server <= found.against_everyone + slack
    if dropouts:
        # The opened sum's noise is fixed by the plan: fewer shares make each one larger.
        assert outlook(dropouts - 1).against_everyone >= found.against_everyone - slack
