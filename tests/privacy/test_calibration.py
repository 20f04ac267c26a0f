"""Calibration, and answers kept on disk."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from privacy import accounting, calibration
from privacy.calibration import calibrate_noise_multiplier
from privacy.errors import AccountingError, EventError
from privacy.events import Charge, FeatureMean, LabelCounts, Repeated, TrainingRound, Tuning

EXTRA: list[Charge | Repeated] = [FeatureMean(20.0, "centring"), LabelCounts(30.0, "codes")]


@pytest.mark.parametrize(
    ("epsilon", "delta", "rounds", "prob", "extra"),
    [
        pytest.param(4.0, 1e-5, 60, 1.0, [], id="everybody, weak"),
        pytest.param(1.0, 1e-5, 60, 1.0, EXTRA, id="everybody, strong, with releases"),
        pytest.param(0.01, 1e-6, 500, 1.0, [], id="everybody, very strong"),
        pytest.param(1.5, 1e-6, 20, 0.3, EXTRA, id="sampled, with releases"),
        pytest.param(20.0, 1e-5, 1, 0.5, [], id="one round, hardly any noise"),
    ],
)
def test_it_is_the_smallest_of_the_grid(
    epsilon: float, delta: float, rounds: int, prob: float, extra: list[Charge | Repeated]
) -> None:
    sigma = calibrate_noise_multiplier(
        epsilon=epsilon, delta=delta, rounds=rounds, sampling_prob=prob, extra_events=extra
    )
    assert sigma == round(sigma, 3)

    def cost(noise: float) -> float:
        return accounting.epsilon([Repeated(TrainingRound(prob, noise), rounds), *extra], delta)

    assert cost(sigma) <= epsilon < cost(round(sigma - 0.001, 3))


GOOD: dict[str, Any] = {"epsilon": 1.0, "delta": 1e-5, "rounds": 10, "sampling_prob": 1.0}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"epsilon": 0.0}, AccountingError),
        ({"epsilon": math.inf}, AccountingError),
        ({"epsilon": math.nan}, AccountingError),
        ({"epsilon": 201.0}, AccountingError),
        ({"delta": 0.0}, AccountingError),
        ({"delta": 1.0}, AccountingError),
        ({"rounds": 0}, EventError),
        ({"rounds": 2.0}, EventError),
        ({"sampling_prob": 0.0}, AccountingError),
        ({"sampling_prob": 1.1}, EventError),
        ({"sampling_prob": math.nan}, EventError),
        ({"extra_events": [FeatureMean(0.0, "plain")]}, AccountingError),
        ({"extra_events": [FeatureMean(1.0, "too little noise")]}, AccountingError),
        ({"epsilon": 1e-6, "delta": 1e-9, "rounds": 10_000_000, "sampling_prob": 1.0}, AccountingError),
    ],
)
def test_questions_without_an_answer(change: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        calibrate_noise_multiplier(**{**GOOD, **change})


def test_answers_are_kept_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "answers"
    question: dict[str, Any] = {**GOOD, "cache_dir": folder}
    first = calibrate_noise_multiplier(**question)
    assert len(list(folder.iterdir())) == 1  # no temporary file left

    def refuse(*_: object) -> float:
        raise AssertionError("computed although the answer was kept")

    monkeypatch.setattr(accounting, "epsilon", refuse)
    assert calibrate_noise_multiplier(**question) == first
    with pytest.raises(AssertionError, match="computed"):
        calibrate_noise_multiplier(**{**question, "rounds": 11})


def test_whoever_waits_is_told_what_is_tried(tmp_path: Path) -> None:
    tried: list[str] = []
    sigma = calibrate_noise_multiplier(**GOOD, cache_dir=tmp_path, progress=tried.append)
    assert f"trying noise multiplier {sigma:.3f}" in tried
    seen = len(tried)
    calibrate_noise_multiplier(**GOOD, cache_dir=tmp_path, progress=tried.append)
    assert len(tried) == seen  # the answer was kept, nothing is tried


def test_beside_a_tuning_the_noise_is_by_renyi_dp() -> None:
    tuning = Tuning((Repeated(TrainingRound(1.0, 60.0), 3),), 2.0, 1.0)
    sigma = calibrate_noise_multiplier(**GOOD, extra_events=[tuning])

    def cost(noise: float) -> float:
        return accounting.rdp_epsilon([Repeated(TrainingRound(1.0, noise), 10), tuning], 1e-5)

    assert cost(sigma) <= 1.0 < cost(round(sigma - 0.001, 3))
    assert sigma > calibrate_noise_multiplier(**GOOD)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"asked":{},"answer":{"steps":1}}', b"\xff"])
def test_a_damaged_answer_is_computed_again(tmp_path: Path, damage: bytes) -> None:
    question: dict[str, Any] = {**GOOD, "cache_dir": tmp_path}
    first = calibrate_noise_multiplier(**question)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage)
    assert calibrate_noise_multiplier(**question) == first
    assert path.read_bytes() == whole


def test_the_search_finds_the_first_true_integer() -> None:
    for answer in (1, 2, 3, 50, 999, 12_345):
        for guess in (1, 2, 49, 51, 998, 20_000):
            found = calibration._smallest(lambda x, answer=answer: x >= answer, guess, max(1, guess // 50))  # type: ignore[misc]
            assert found == answer
