"""The bridge study: ratios and intervals worked out by hand, suppression, sums over hospitals."""

from __future__ import annotations

import json
from dataclasses import replace
from math import sqrt
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.documents.bridge import ALL_HOSPITALS, Z, bridge_study, chapter_order, code_level
from audit.documents.candidate import Candidate
from tests.audit.documented import candidate_in, documented, figure

if TYPE_CHECKING:
    from tests.audit.conftest import Keys, Story
else:
    Keys = Story = object


@pytest.fixture(scope="module")
def candidate(keys: Keys) -> Candidate:
    story = documented(_story(keys))
    assert story.statement is not None
    return candidate_in(story, story.statement, {})


def _story(keys: Keys) -> Story:
    from tests.audit.conftest import Story as Told

    return Told(keys)


def with_values(candidate: Candidate, *values: dict[str, Any], noise: Any = 4.0) -> Candidate:
    metrics = tuple(
        replace(metrics, values=each, mechanism={"noise_std": noise})
        for metrics, each in zip(candidate.metrics, values, strict=False)
    )
    return replace(candidate, metrics=metrics)


def test_a_ratio_by_hand(candidate: Candidate) -> None:
    values = {"true/IX": figure(100), "predicted/IX": figure(110), "hit@1/IX": figure(0.6)}
    (site,) = bridge_study(with_values(candidate, values)).sites
    (ratio,) = site.human.ratios
    half = Z * sqrt(110 + 100 - 2 * 60 + 16 * (1 + 1.1**2)) / 100
    assert (ratio.chapter, ratio.ratio) == ("IX", 1.1)
    assert ratio.lower == pytest.approx(1.1 - half)
    assert ratio.upper == pytest.approx(1.1 + half)
    assert [(each.chapter, each.value) for each in site.human.agreement] == [("IX", 0.6)]
    assert site.predecessor.ratios == ()


def test_the_predecessor_is_compared_without_assuming_overlap(candidate: Candidate) -> None:
    values = {
        "predecessor-predicted/IX": figure(100),
        "predicted/IX": figure(90),
        "agreement": figure(0.9),
        "agreement/IX": figure(0.8),
    }
    (site,) = bridge_study(with_values(candidate, values)).sites
    (ratio,) = site.predecessor.ratios
    half = Z * sqrt(90 + 100 + 16 * (1 + 0.9**2)) / 100
    assert ratio.ratio == 0.9
    assert ratio.upper == pytest.approx(0.9 + half)
    assert [(each.chapter, each.value) for each in site.predecessor.agreement] == [(None, 0.9), ("IX", 0.8)]


def test_hospitals_add_up_and_a_half_suppressed_chapter_does_not_count(candidate: Candidate) -> None:
    one = {"true/IX": figure(100), "predicted/IX": figure(110), "true/X": figure(50), "predicted/X": figure(60)}
    two = {"true/IX": figure(300), "predicted/IX": figure(270), "true/X": figure(None), "predicted/X": figure(70)}
    total, *hospitals = bridge_study(with_values(candidate, one, two)).sites
    assert total.site == ALL_HOSPITALS
    assert [(r.chapter, r.count, r.reference) for r in total.human.ratios] == [("IX", 380, 400), ("X", 60, 50)]
    half = Z * sqrt(380 + 400 + 32 * (1 + 0.95**2)) / 400
    assert total.human.ratios[0].upper == pytest.approx(0.95 + half)
    assert [len(each.human.ratios) for each in hospitals] == [2, 1]


@pytest.mark.parametrize("noise", [None, "4", True, -1.0, float("nan")])
def test_without_a_stated_noise_there_is_no_interval(candidate: Candidate, noise: object) -> None:
    values = {"true/IX": figure(100), "predicted/IX": figure(110)}
    study = bridge_study(with_values(candidate, values, values, noise=noise))
    for site in study.sites:
        assert [(each.lower, each.upper) for each in site.human.ratios] == [(None, None)]


def test_noise_may_take_counts_below_zero(candidate: Candidate) -> None:
    values = {"true/IX": figure(-3), "predicted/IX": figure(4), "true/X": figure(10), "predicted/X": figure(-4)}
    (site,) = bridge_study(with_values(candidate, values)).sites
    (ratio,) = site.human.ratios
    assert (ratio.chapter, ratio.ratio, ratio.lower) == ("X", 0.0, 0.0)
    assert ratio.upper is not None
    assert ratio.upper > 0


def test_what_is_not_there_is_said(candidate: Candidate) -> None:
    study = bridge_study(with_values(candidate, {"hit@1": figure(0.5)}))
    assert study.absent == (
        "No hospital reported counts per chapter, so there is no comparability ratio by chapter.",
        "There is no earlier certified release to compare with.",
        "The release notes state no agreement between two human coders to hold these figures against.",
    )
    later = replace(candidate, predecessor="2026.1")
    assert any("2026.1 does on the same admissions" in each for each in bridge_study(later).absent)
    missing = replace(candidate, sites_without_metrics=("hospital-x",))
    assert "Planned, but without metrics: hospital-x." in bridge_study(missing).absent


def test_the_document_holds_it_all(candidate: Candidate) -> None:
    value = json.loads(bridge_study(candidate).to_bytes(candidate))
    assert [site["site"] for site in value["sites"]][:2] == [ALL_HOSPITALS, "hospital-a"]
    assert [each["chapter"] for each in value["sites"][0]["human"]["ratios"]] == ["II", "IX", "X"]
    assert value["codes"] == "ICD-10 categories (3 characters), 2 of them"


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.floats(-50, 1e6), st.floats(-50, 1e6), st.floats(-1, 2), st.floats(0, 1e4))
def test_an_interval_holds_its_ratio(
    candidate: Candidate, count: float, reference: float, share: float, noise: float
) -> None:
    values = {"true/I": figure(reference), "predicted/I": figure(count), "hit@1/I": figure(share)}
    for ratio in bridge_study(with_values(candidate, values, noise=noise)).sites[0].human.ratios:
        assert ratio.lower is not None
        assert ratio.upper is not None
        assert 0 <= ratio.lower <= ratio.ratio < ratio.upper


def test_chapters_come_in_their_own_order() -> None:
    assert sorted(["XIX", "IX", "I", "other", "V"], key=chapter_order) == ["I", "V", "IX", "XIX", "other"]


def test_the_level_of_codes_is_said() -> None:
    assert code_level(["I10", "J18"]) == "ICD-10 categories (3 characters), 2 of them"
    assert code_level(["I10", "J18.9"]) == "ICD-10 codes of up to 4 characters, 2"
