"""From a wish to a plan: calibrated, on the path the recipe wants, and refused when it cannot be had."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jobs.errors import PlanError
from jobs.icd_coding.errors import CodingError
from jobs.plan import Plan
from jobs.proposal import Wish, make_plan, read_labels, settings
from jobs.terms import evaluation_terms
from privacy.accounting import epsilon
from privacy.errors import AccountingError
from tests.jobs.small_federation import CODES, SITES

WISH = Wish(
    name="eerste",
    consortium="Delta",
    sites=SITES,
    evaluation_sites=("amstel", "zenne"),
    label_space=CODES,
    nominal_patients=400,
    epsilon=3.0,
    rounds=4,
    features=256,
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("calibrations")


@pytest.mark.parametrize("target", [3.0])
def test_the_plan_costs_what_was_asked(target: float, cache: Path) -> None:
    plan = make_plan(replace(WISH, epsilon=target), cache_dir=cache)
    spent = epsilon(plan.training_events(), plan.delta)
    assert target - 0.05 <= spent <= target == plan.epsilon
    report = evaluation_terms(plan)
    assert report.epsilon - 0.05 <= epsilon([report.event], report.delta) <= report.epsilon == 4.0
    assert Plan.from_bytes(plan.to_bytes()) == plan


def test_what_a_plan_takes_from_the_wish(cache: Path) -> None:
    plan = make_plan(replace(WISH, dropouts=1), cache_dir=cache)
    assert (plan.sites, plan.evaluation_sites, plan.label_space) == (SITES, ("amstel", "zenne"), CODES)
    assert (plan.colluders, plan.dropouts, plan.minimum_sites) == (1, 1, 3)
    assert (plan.rounds, plan.aggregations, plan.nominal_patients) == (4, 5, 400)
    assert plan.encoder["features"] == 256


def test_another_number_of_rounds_keeps_the_path() -> None:
    own = settings(replace(WISH, rounds=None))
    for rounds in (1, 5, 2 * own.rounds):
        recipe = settings(replace(WISH, rounds=rounds))
        assert recipe.rounds == rounds
        assert recipe.rounds * recipe.learning_rate == pytest.approx(own.rounds * own.learning_rate)
        assert replace(recipe, rounds=own.rounds, learning_rate=own.learning_rate) == own


@pytest.mark.parametrize("rounds", [0, -1])
def test_no_rounds_are_no_plan(rounds: int) -> None:
    with pytest.raises(PlanError, match=f"rounds: at least 1, got {rounds}"):
        settings(replace(WISH, rounds=rounds))


def test_without_privacy_there_is_no_noise(cache: Path) -> None:
    plan = make_plan(replace(WISH, epsilon=None), cache_dir=cache)
    assert (plan.epsilon, plan.noise_multiplier, plan.feature_mean_noise_multiplier) == (None, 0.0, 0.0)
    assert evaluation_terms(plan).noise_multiplier > 0  # metrics are noisy even then
    assert Plan.from_bytes(plan.to_bytes()).hash == plan.hash


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"sites": ("amstel", "berkel")}, PlanError, "needs 3 to 50 training hospitals, got 2"),
        ({"sites": ("geul", "berkel", "amstel")}, PlanError, "sites: must be sorted"),
        ({"dropouts": 2}, PlanError, "allowed_dropouts: expected 0-1"),
        ({"label_space": ("I10",)}, PlanError, "label_space: 2 to 20000"),
        ({"features": 300}, CodingError, "power of two"),
        ({"nominal_patients": 0}, CodingError, "nominal_patients >= 1"),
        ({"epsilon": 0.0}, CodingError, "0 < epsilon <= 200"),
        ({"epsilon": 201.0}, CodingError, "0 < epsilon <= 200"),
        ({"metrics_epsilon": 0.0}, AccountingError, "epsilon must be in"),
        ({"metrics_epsilon": 60.0}, PlanError, r"evaluation\.noise_multiplier: .*ask for a smaller epsilon"),
        ({"thresholds": (0.5, 0.3)}, PlanError, "thresholds: must ascend"),
        ({"name": "a/b"}, PlanError, "name: letters"),
    ],
)
def test_what_a_wish_cannot_have(changes: dict[str, object], error: type[Exception], message: str, cache: Path) -> None:
    with pytest.raises(error, match=message):
        make_plan(replace(WISH, **changes), cache_dir=cache)  # type: ignore[arg-type]


def test_labels_are_read_sorted_without_comments(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("# oogheelkunde\nh25\n\n  I10  # hoge bloeddruk\nC4A\n", encoding="utf-8")
    assert read_labels(path) == ("C4A", "H25", "I10")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"I10\nH25.1\n", r"labels.txt, line 2: 'H25.1' is not a three-character"),
        (b"I10\n# x\n\nhello\n", r"labels.txt, line 4: 'HELLO'"),
        (b"I10\nH25\ni10\n", r"labels.txt, line 3: I10 is listed twice"),
        (b"", "needs at least two codes, found 0"),
        (b"# only\nI10\n", "needs at least two codes, found 1"),
        (b"I10\n\xff\xfe\n", "can't decode byte"),
    ],
)
def test_malformed_labels_name_the_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    with pytest.raises(PlanError, match=message):
        read_labels(path)


def test_a_missing_file_of_labels_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"nowhere\.txt"):
        read_labels(tmp_path / "nowhere.txt")
