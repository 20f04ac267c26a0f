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
    CountRelease,
    Event,
    FeatureMean,
    LabelCounts,
    MetricRelease,
    Repeated,
    StatisticsRelease,
    TrainingRound,
    event_from_json,
    repeated_from_json,
    tally,
    to_dp_event,
)

RELEASES = [CountRelease, MetricRelease, FeatureMean, LabelCounts, StatisticsRelease]
noise = st.floats(min_value=0.0, max_value=1e6, allow_nan=False)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(TrainingRound, st.floats(min_value=0.0, max_value=1.0), noise),
    *(st.builds(cls, noise, st.sampled_from(["f1 at the threshold", "counts per ward"])) for cls in RELEASES),
)


@settings(derandomize=True, max_examples=200)
@given(events, st.integers(min_value=1, max_value=10_000_000))
def test_json_round_trip(event: Event, count: int) -> None:
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


def test_conversion_to_dp_accounting() -> None:
    gaussian = dp_accounting.GaussianDpEvent(2.0)
    assert to_dp_event(TrainingRound(0.1, 2.0)) == dp_accounting.PoissonSampledDpEvent(0.1, gaussian)
    assert to_dp_event(TrainingRound(1.0, 2.0)) == gaussian
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
