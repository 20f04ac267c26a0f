"""What an evaluation counts, how far one patient moves it, and what is read from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from audit.schema import each_value, fields_of, nullable, number
from jobs.icd_coding.chapters import chapter_of
from jobs.icd_coding.errors import EvaluationError
from jobs.icd_coding.evaluation import confidence_and_correct, hit_at_k
from jobs.icd_coding.metric_report import MetricLayout

SPACE = ("A09", "H25", "H91", "I10", "I21", "K40")
PLAIN = MetricLayout((0.3, 0.5), SPACE, predecessor=False)
COMPARED = MetricLayout((0.3, 0.5), SPACE, predecessor=True)


def some(n: int = 60, seed: int = 1) -> tuple[NDArray[np.float64], NDArray[np.str_], NDArray[np.str_]]:
    """Scores, true codes (some outside the label space) and a predecessor's codes."""
    rng = np.random.default_rng(seed)
    score = rng.normal(size=(n, len(SPACE))) * 2
    return score, rng.choice([*SPACE, "Z99"], n), rng.choice([*SPACE, "M17"], n)


def by_name(layout: MetricLayout, counts: NDArray[np.int64]) -> dict[str, int]:
    return dict(zip(layout.names, counts.tolist(), strict=True))


def test_counts_by_hand() -> None:
    score, truth, earlier = some()
    counts = by_name(COMPARED, COMPARED.count(score, truth, earlier))
    index = np.array([SPACE.index(code) if code in SPACE else -1 for code in truth])
    confidence, correct = confidence_and_correct(score, index)
    given = np.array(SPACE)[score.argmax(axis=1)]
    assert counts["admissions"] == 60
    assert counts["right@1"] == correct.sum() == (given == truth).sum()
    assert counts["right@3"] == round(60 * hit_at_k(score, index, 3))
    assert counts["automatic 0.5"] == (confidence >= 0.5).sum()
    assert counts["automatic right 0.5"] == ((confidence >= 0.5) & correct).sum()
    assert counts["predecessor right"] == (earlier == truth).sum()
    assert counts["same"] == (earlier == given).sum()
    for chapter in ("I", "VII", "VIII", "IX", "XI"):
        there = np.array([chapter_of(code) == chapter for code in truth])
        assert counts[f"true/{chapter}"] == there.sum()
        assert counts[f"right/{chapter}"] == (there & correct).sum()
        assert counts[f"predicted/{chapter}"] == sum(chapter_of(code) == chapter for code in given)
        assert counts[f"predecessor predicted/{chapter}"] == sum(chapter_of(code) == chapter for code in earlier)
        assert counts[f"predecessor right/{chapter}"] == (there & (earlier == truth)).sum()
        assert counts[f"same/{chapter}"] == (there & (earlier == given)).sum()


@pytest.mark.parametrize("layout", [PLAIN, COMPARED])
def test_one_patient_moves_the_vector_by_at_most_the_sensitivity(layout: MetricLayout) -> None:
    score, truth, earlier = some()
    compared = earlier if layout.predecessor else None
    whole = layout.count(score, truth, compared)
    most = 0.0
    for without in range(len(truth)):
        kept = np.arange(len(truth)) != without
        part = layout.count(score[kept], truth[kept], None if compared is None else compared[kept])
        assert set((whole - part).tolist()) <= {0, 1}
        most = max(most, float(np.linalg.norm(whole - part)))
    assert most <= layout.l2_sensitivity


def test_the_sensitivity_is_reached() -> None:
    """A patient who is right, automatic at every threshold, and right and the same before: 1 in every group."""
    score = np.full((1, len(SPACE)), -9.0)
    score[0, 3] = 9.0
    code = np.array(["I10"])
    assert np.linalg.norm(PLAIN.count(score, code, None)) == pytest.approx(PLAIN.l2_sensitivity)
    assert np.linalg.norm(COMPARED.count(score, code, code)) == pytest.approx(COMPARED.l2_sensitivity)


def test_nobody_gives_zeros_and_odd_codes_no_chapters() -> None:
    assert PLAIN.count(np.zeros((0, len(SPACE))), np.array([], dtype=np.str_), None).sum() == 0
    odd = MetricLayout((), ("colour", "shape"), predecessor=False)
    assert odd.names == ("admissions", "right@1", "right@3")
    assert odd.l2_sensitivity == pytest.approx(3**0.5)
    assert odd.count(np.eye(2), np.array(["colour", "colour"]), None).tolist() == [2, 1, 2]


@pytest.mark.parametrize(("layout", "earlier"), [(PLAIN, True), (COMPARED, False)])
def test_a_predecessor_is_scored_exactly_when_the_plan_names_one(layout: MetricLayout, earlier: bool) -> None:
    score, truth, codes = some()
    with pytest.raises(EvaluationError, match="exactly if the plan names one"):
        layout.count(score, truth, codes if earlier else None)
    with pytest.raises(EvaluationError, match="expected 60 codes"):
        PLAIN.count(score, truth[:-1], None)


def named(layout: MetricLayout, **counts: int) -> NDArray[np.int64]:
    """A count vector with these counts (spaces and slashes as _ and __); zero elsewhere."""
    wanted = {name.replace("__", "/").replace("_", " "): count for name, count in counts.items()}
    odd = set(wanted) - set(layout.names)
    assert not odd
    return np.array([wanted.get(name, 0) for name in layout.names])


THREE = MetricLayout((0.3, 0.5, 0.7), ("colour", "shape"), predecessor=False)


@pytest.mark.parametrize(
    ("by_threshold", "threshold", "coverage", "precision"),
    [
        ([90, 75, 50, 45, 20, 20], 0.3, 0.9, 75 / 90),  # the lowest that reaches .8, not the most precise
        ([90, 60, 50, 45, 20, 20], 0.5, 0.5, 0.9),
        ([90, 60, 50, 20, 20, 16], 0.7, 0.2, 0.8),  # exactly at the target
        ([90, 60, 50, 20, 20, 15], 1.0, 0.0, 0.0),  # none: nothing is automatic
        ([-4, 3, 0, 0, -1, -1], 1.0, 0.0, 0.0),  # a count at or below zero never qualifies
        ([90, 99, 50, 45, 20, 20], 0.3, 0.9, 1.0),  # noise may put right above automatic
    ],
)
def test_the_threshold_chosen_from_noisy_counts(
    by_threshold: list[int], threshold: float, coverage: float, precision: float
) -> None:
    values: dict[str, Any] = THREE.values(np.array([100, 60, 80, *by_threshold]), noise_std=3.0, precision_target=0.8)
    assert list(values) == ["admissions", "hit@1", "hit@3", "threshold", "coverage", "precision"]
    assert values["threshold"] == {"value": threshold, "lower": None, "upper": None}
    assert values["coverage"]["value"] == pytest.approx(coverage)
    assert values["precision"]["value"] == pytest.approx(precision)
    assert (values["hit@1"]["value"], values["hit@3"]["value"]) == (0.6, 0.8)


@pytest.mark.parametrize("noisy", [[100, 60, 80, 90, 75, 50, 45, 20, 20], [0] * 9, [-9, 4, -3, 5, -2, -1, 7, 0, -8]])
def test_metrics_fit_the_logs_schema_and_lie_in_their_intervals(noisy: list[int]) -> None:
    values: dict[str, Any] = THREE.values(np.array(noisy), noise_std=3.0, precision_target=0.8)
    each_value(fields_of(dict.fromkeys(("value", "lower", "upper"), nullable(number())), further=False))(values, "v")
    assert values["admissions"] == {"value": noisy[0], "lower": noisy[0] - 1.96 * 3, "upper": noisy[0] + 1.96 * 3}
    for name in ("hit@1", "hit@3", "coverage", "precision"):
        assert 0 <= values[name]["lower"] <= values[name]["value"] <= values[name]["upper"] <= 1, name


def test_chapters_and_small_cells() -> None:
    counts = named(
        COMPARED, admissions=50, true__IX=20, predicted__IX=25, right__IX=15, predecessor_right__IX=10,
        predecessor_predicted__IX=18, same__IX=12, true__I=9, right__I=9, same=30, predecessor_right=25,
    )  # fmt: skip
    values: dict[str, Any] = COMPARED.values(counts, noise_std=2.0, precision_target=0.9)
    assert values["hit@1/IX"]["value"] == 0.75
    assert values["predecessor-hit@1/IX"]["value"] == 0.5
    assert values["agreement/IX"]["value"] == 0.6
    assert values["predicted/IX"] == {"value": 25.0, "lower": 25 - 3.92, "upper": 25 + 3.92}
    assert (values["agreement"]["value"], values["predecessor-hit@1"]["value"]) == (0.6, 0.5)
    nothing = {"value": None, "lower": None, "upper": None}
    for name in ("true/I", "predicted/I", "hit@1/I", "predecessor-hit@1/I", "predecessor-predicted/I", "agreement/I"):
        assert values[name] == nothing, name
    assert not any(name.startswith("predecessor") for name in PLAIN.values(
        np.zeros(len(PLAIN.names), dtype=np.int64), noise_std=1.0, precision_target=0.9
    ))  # fmt: skip
