"""Events: strict JSON, ranges, conversion."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import dp_accounting
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.errors import EventError
from privacy.events import (
    CalibrationRelease,
    Charge,
    CountRelease,
    Event,
    FeatureMean,
    LabelCounts,
    LocalSteps,
    MetricRelease,
    Repeated,
    StatisticsRelease,
    TrainingRound,
    Tuning,
    event_from_json,
    repeated_from_json,
    tally,
    to_dp_event,
    with_noise_scaled,
)

RELEASES = [CountRelease, MetricRelease, FeatureMean, LabelCounts, CalibrationRelease, StatisticsRelease]
noise = st.floats(min_value=0.0, max_value=1e6, allow_nan=False)
probs = st.floats(min_value=0.0, max_value=1.0)
counts = st.integers(min_value=1, max_value=10_000_000)
gaussians: st.SearchStrategy[Event] = st.one_of(
    st.builds(TrainingRound, probs, noise),
    st.builds(LocalSteps, probs, noise, counts),
    *(st.builds(cls, noise, st.sampled_from(["f1 at the threshold", "counts per ward"])) for cls in RELEASES),
)
tunings = st.builds(
    Tuning,
    st.lists(st.builds(Repeated, gaussians, counts), min_size=1, max_size=3).map(tuple),
    st.floats(min_value=1.0, max_value=1e6),
    st.one_of(st.none(), st.floats(min_value=0.0, max_value=1e3)),
)
events: st.SearchStrategy[Charge] = st.one_of(gaussians, tunings)


@settings(derandomize=True, max_examples=200)
@given(events, counts)
def test_json_round_trip(event: Charge, count: int) -> None:
    assert event_from_json(json.loads(event.canonical())) == event
    repeated = Repeated(event, count)
    assert repeated_from_json(json.loads(repeated.canonical())) == repeated


def test_canonical_form_is_fixed() -> None:
    assert (
        TrainingRound(0.01, 1.0).canonical() == b'{"kind":"training-round","noise_multiplier":1,"sampling_prob":0.01}'
    )
    assert Repeated(CountRelease(2.5, "wards"), 3).canonical() == (
        b'{"count":3,"event":{"kind":"count-release","noise_multiplier":2.5,"purpose":"wards"},"kind":"repeated"}'
    )


def test_canonical_form_of_local_steps_and_tuning_is_fixed() -> None:
    steps = LocalSteps(0.01, 1.0, 20)
    assert steps.canonical() == b'{"kind":"local-steps","noise_multiplier":1,"sampling_prob":0.01,"steps":20}'
    for shape, written in ((1.0, b"1"), (None, b"null")):
        assert Tuning((Repeated(steps, 2),), 10.0, shape).canonical() == (
            b'{"kind":"tuning","mean_trials":10,"shape":' + written + b',"trial":[{"count":2,"event":'
            + steps.canonical() + b',"kind":"repeated"}]}'
        )  # fmt: skip


def test_an_integer_equals_its_float() -> None:
    assert TrainingRound(1, 2) == TrainingRound(1.0, 2.0)
    assert TrainingRound(1, 2).canonical() == TrainingRound(1.0, 2.0).canonical()
    assert str(TrainingRound(0.5, -0.0).noise_multiplier) == "0.0"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1e-9, True, "1", None, [1]])
def test_numbers_out_of_range(value: Any) -> None:
    with pytest.raises(EventError, match="noise_multiplier"):
        TrainingRound(0.5, value)
    with pytest.raises(EventError, match="noise_multiplier"):
        CountRelease(value, "x")
    with pytest.raises(EventError, match="sampling_prob"):
        TrainingRound(value, 1.0)
    with pytest.raises(EventError, match="local-steps: noise_multiplier"):
        LocalSteps(0.5, value, 3)
    with pytest.raises(EventError, match="local-steps: sampling_prob"):
        LocalSteps(value, 1.0, 3)
    with pytest.raises(EventError, match="tuning: mean_trials"):
        Tuning(TRIAL, value, 1.0)
    if value is not None:
        with pytest.raises(EventError, match="tuning: shape"):
            Tuning(TRIAL, 2.0, value)


TRIAL = (Repeated(TrainingRound(0.1, 1.0), 5), Repeated(MetricRelease(3.0, "score"), 1))


@pytest.mark.parametrize(
    ("mean_trials", "shape", "allowed"),
    [
        pytest.param(1.0, 1.0, True, id="one trial"),
        pytest.param(0.999, 1.0, False, id="less than one trial"),
        pytest.param(0.0, 1.0, False, id="no trial"),
        pytest.param(1e6, 0.0, True, id="very many, logarithmic"),
        pytest.param(1_000_001, 0.0, False, id="too many"),
        pytest.param(2, 1000, True, id="the largest shape"),
        pytest.param(2, 1000.1, False, id="too large a shape"),
        pytest.param(2, None, True, id="Poisson"),
    ],
)
def test_edges_of_a_tuning(mean_trials: float, shape: float | None, allowed: bool) -> None:
    if allowed:
        assert Tuning(TRIAL, mean_trials, shape).mean_trials == float(mean_trials)
        return
    with pytest.raises(EventError, match="tuning"):
        Tuning(TRIAL, mean_trials, shape)


@pytest.mark.parametrize(
    "trial",
    [
        pytest.param((), id="empty"),
        pytest.param(list(TRIAL), id="a list"),
        pytest.param((TrainingRound(0.1, 1.0),), id="not repeated"),
        pytest.param((Repeated(Tuning(TRIAL, 2.0, 1.0), 1),), id="a tuning in a tuning"),
        pytest.param(None, id="nothing"),
    ],
)
def test_a_trial_is_of_repeated_events(trial: Any) -> None:
    with pytest.raises(EventError, match="trial must"):
        Tuning(trial, 2.0, 1.0)


def test_sampling_prob_is_at_most_one() -> None:
    assert TrainingRound(0.0, 0.0).sampling_prob == 0.0
    assert TrainingRound(1.0, 0.0).sampling_prob == 1.0
    with pytest.raises(EventError, match=r"in \[0, 1\], got 1.0000000000000002"):
        TrainingRound(math.nextafter(1.0, 2.0), 1.0)


@pytest.mark.parametrize("purpose", ["", "x" * 201, "two\nlines", 7, None])
def test_a_purpose_is_one_line_of_text(purpose: Any) -> None:
    with pytest.raises(EventError, match="purpose"):
        MetricRelease(1.0, purpose)


@pytest.mark.parametrize("count", [0, -1, 10_000_001, 1.0, True, "2", None])
def test_counts_out_of_range(count: Any) -> None:
    with pytest.raises(EventError, match="count"):
        Repeated(TrainingRound(0.1, 1.0), count)
    with pytest.raises(EventError, match="local-steps: steps"):
        LocalSteps(0.1, 1.0, count)


def test_repetitions_do_not_nest() -> None:
    inner: Any = Repeated(TrainingRound(0.1, 1.0), 2)
    with pytest.raises(EventError, match="single privacy event"):
        Repeated(inner, 2)


GOOD = {"kind": "training-round", "sampling_prob": 0.1, "noise_multiplier": 1.0}


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(None, id="null"),
        pytest.param([GOOD], id="list"),
        pytest.param({}, id="empty"),
        pytest.param({**GOOD, "kind": "training-rounds"}, id="unknown kind"),
        pytest.param({**GOOD, "kind": "_Release"}, id="a class that is no kind"),
        pytest.param({**GOOD, "kind": 1}, id="kind is a number"),
        pytest.param({**GOOD, "kind": ["training-round"]}, id="kind is a list"),
        pytest.param({"sampling_prob": 0.1, "noise_multiplier": 1.0}, id="no kind"),
        pytest.param({**GOOD, "delta": 1e-5}, id="an additional member"),
        pytest.param({"kind": "training-round", "sampling_prob": 0.1}, id="a missing member"),
        pytest.param({**GOOD, "sampling_prob": "0.1"}, id="a number as text"),
        pytest.param({**GOOD, "noise_multiplier": None}, id="null for a number"),
        pytest.param({"kind": "count-release", "noise_multiplier": 1.0}, id="no purpose"),
        pytest.param({"kind": "repeated", "event": GOOD, "count": 2}, id="a repetition is no single event"),
        pytest.param({**GOOD, "kind": "local-steps"}, id="local steps without their number"),
        pytest.param({**GOOD, "steps": 3}, id="a round with steps"),
        pytest.param({"kind": "tuning", "trial": [], "mean_trials": 2, "shape": 1}, id="a tuning of nothing"),
        pytest.param({"kind": "tuning", "trial": [GOOD], "mean_trials": 2, "shape": 1}, id="a trial not repeated"),
        pytest.param({"kind": "tuning", "trial": GOOD, "mean_trials": 2, "shape": 1}, id="a trial that is no list"),
        pytest.param(
            {"kind": "tuning", "trial": [{"kind": "repeated", "event": GOOD, "count": 2}], "mean_trials": 2},
            id="a tuning without a shape",
        ),
    ],
)
def test_malformed_events_are_refused(value: Any) -> None:
    with pytest.raises(EventError):
        event_from_json(value)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(GOOD, id="a single event"),
        pytest.param({"kind": "repeat", "event": GOOD, "count": 2}, id="unknown kind"),
        pytest.param({"kind": "repeated", "event": GOOD}, id="no count"),
        pytest.param({"kind": "repeated", "event": GOOD, "count": 2.5}, id="half a count"),
        pytest.param(
            {"kind": "repeated", "event": {"kind": "repeated", "event": GOOD, "count": 2}, "count": 2},
            id="nested",
        ),
    ],
)
def test_malformed_repetitions_are_refused(value: Any) -> None:
    with pytest.raises(EventError):
        repeated_from_json(value)


def test_tally_merges_equal_events_only() -> None:
    one, other = TrainingRound(0.1, 1.0), CountRelease(1.0, "wards")
    same_noise = CountRelease(1.0, "ages")
    counts = tally([one, Repeated(other, 2), one, same_noise, Repeated(one, 3)])
    assert counts == {one: 5, other: 2, same_noise: 1}
    stranger: Any = dp_accounting.GaussianDpEvent(1.0)
    with pytest.raises(EventError, match="not a privacy event"):
        tally([stranger])


def test_mechanisms_are_counted() -> None:
    assert LocalSteps(0.1, 1.0, 7).mechanisms == 7
    assert TrainingRound(0.1, 1.0).mechanisms == LabelCounts(1.0, "codes").mechanisms == 1


@settings(derandomize=True, max_examples=50)
@given(events, st.floats(min_value=0.1, max_value=10.0))
def test_only_the_noise_is_scaled(event: Charge, factor: float) -> None:
    assert with_noise_scaled(event, 1.0) == event
    scaled = with_noise_scaled(event, factor)
    if isinstance(event, Tuning):
        assert isinstance(scaled, Tuning)
        assert (scaled.mean_trials, scaled.shape) == (event.mean_trials, event.shape)
        assert [item.event for item in scaled.trial] == [with_noise_scaled(each.event, factor) for each in event.trial]
        return
    assert not isinstance(scaled, Tuning)
    assert scaled.noise_multiplier == event.noise_multiplier * factor
    assert scaled.to_json() == {**event.to_json(), "noise_multiplier": scaled.noise_multiplier}


def test_conversion_to_dp_accounting() -> None:
    gaussian = dp_accounting.GaussianDpEvent(2.0)
    assert to_dp_event(TrainingRound(0.1, 2.0)) == dp_accounting.PoissonSampledDpEvent(0.1, gaussian)
    assert to_dp_event(TrainingRound(1.0, 2.0)) == gaussian
    sampled = dp_accounting.PoissonSampledDpEvent(0.1, gaussian)
    assert to_dp_event(LocalSteps(0.1, 2.0, 6)) == dp_accounting.SelfComposedDpEvent(sampled, 6)
    assert to_dp_event(LocalSteps(1.0, 2.0, 1)) == gaussian
    tuning = to_dp_event(Tuning((Repeated(TrainingRound(0.1, 2.0), 3),), 10.0, None))
    assert (tuning.mean, tuning.shape) == (10.0, math.inf)
    assert tuning.event == dp_accounting.ComposedDpEvent([dp_accounting.SelfComposedDpEvent(sampled, 3)])
    four_times = dp_accounting.SelfComposedDpEvent(gaussian, 4)
    assert to_dp_event(Repeated(LabelCounts(2.0, "codes"), 4)) == four_times
    stranger: Any = "event"
    with pytest.raises(EventError):
        to_dp_event(stranger)


def test_light_imports_stay_light() -> None:
    code = (
        "import sys, privacy.events, privacy.noise, privacy.sampling, privacy.ledger, privacy.commands;"
        "print(sorted(m for m in ('dp_accounting', 'scipy', 'torch') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
