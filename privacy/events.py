"""What was done to patients' data that costs privacy: one frozen value for each kind of release.

An event says what was done, never what it costs; `privacy.accounting` prices it. The ledger and the
receipts store events, because epsilons cannot be composed tightly afterwards and events can.

Invariants:
- Unit: a patient, with the whole history at one hospital. Neighbouring data sets differ by adding or
  removing one patient (`ADD_OR_REMOVE_ONE`).
- `noise_multiplier` is the standard deviation of the noise divided by the L2 sensitivity of what was
  released, rounding to integers included.
- Every `Event` is one or more (Poisson sampled) Gaussian mechanisms. Discrete Gaussian noise of integer
  standard deviation >= 2 is accounted as Gaussian noise of the same variance (see `privacy.noise`). The one
  kind made of others is `Tuning`.
- Parsing is strict: an unknown kind, a missing or an additional field, a NaN or an infinity is an
  `EventError`. Canonical bytes are RFC 8785.
- Events hold public parameters only, nothing computed from data.

Edge values:

| field | 0 | 1 | inf, NaN |
|---|---|---|---|
| `sampling_prob` | allowed: nobody takes part, costs nothing | allowed: everybody takes part | `EventError` |
| `noise_multiplier` | allowed: unprotected, epsilon is infinite | allowed | `EventError` |
| `count`, `steps` | `EventError` | allowed | `EventError` |
| `mean_trials` | `EventError` | allowed | `EventError` |
| `shape` | allowed: logarithmic | allowed: geometric | `EventError`; null is Poisson |

Example:
    >>> event_from_json({"kind": "training-round", "sampling_prob": 0.01, "noise_multiplier": 1})
    TrainingRound(sampling_prob=0.01, noise_multiplier=1.0)

Source: the event language of dp-accounting (`dp_event.py`); Abadi et al. 2016, arXiv 1607.00133; Papernot and
Steinke 2021, arXiv 2110.03620 (tuning).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, TypeAlias

import rfc8785

from privacy.errors import EventError

UNIT = "patient"
NEIGHBORING_RELATION = "ADD_OR_REMOVE_ONE"
MAX_COUNT = 10_000_000  # repetitions; beyond any plan, and small enough for exact float arithmetic
MAX_PURPOSE_LENGTH = 200  # characters
MAX_TRIALS = 1e6  # mean number of trials of a tuning
MAX_SHAPE = 1e3  # of its distribution; above it is Poisson in all but name


def _number(kind: str, field: str, value: object, upper: float) -> float:
    """`value` as a finite float in [0, upper]; integers are accepted because RFC 8785 writes 1.0 as 1."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise EventError(f"{kind}: {field} must be a number, got {value!r}")
    number = float(value)
    if not math.isfinite(number) or not 0.0 <= number <= upper:
        bound = f"in [0, {upper:g}]" if math.isfinite(upper) else "finite and not negative"
        raise EventError(f"{kind}: {field} must be {bound}, got {value!r}")
    return abs(number)  # -0.0 would have a canonical form of its own kind


def _check_count(kind: str, field: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_COUNT:
        raise EventError(f"{kind}: {field} must be an integer in [1, {MAX_COUNT}], got {value!r}")


class _Event:
    """What all kinds share: the JSON form. `kind` names the class in JSON."""

    kind: ClassVar[str]

    @property
    def mechanisms(self) -> int:
        """How many sampled Gaussian mechanisms, each with fresh noise and a fresh sample, the event consists of."""
        return 1

    def to_json(self) -> dict[str, Any]:
        """The event as a JSON object: `kind` and the fields."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return {"kind": self.kind, **values}

    def canonical(self) -> bytes:
        """The event's RFC 8785 bytes."""
        return rfc8785.dumps(self.to_json())


@dataclass(frozen=True, order=True)
class _Sampled(_Event):
    """Optimiser steps on Poisson sampled patients: sums of clipped vectors plus Gaussian noise."""

    sampling_prob: float
    noise_multiplier: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "sampling_prob", _number(self.kind, "sampling_prob", self.sampling_prob, 1.0))
        sigma = _number(self.kind, "noise_multiplier", self.noise_multiplier, math.inf)
        object.__setattr__(self, "noise_multiplier", sigma)


@dataclass(frozen=True, order=True)
class TrainingRound(_Sampled):
    """One optimiser step whose noisy sum is opened by secure aggregation.

    Attributes:
        sampling_prob: Each patient's probability to be in the round, in [0, 1].
        noise_multiplier: Standard deviation of the noise in the opened sum / L2 sensitivity, >= 0.
    """

    kind: ClassVar[str] = "training-round"


@dataclass(frozen=True, order=True)
class LocalSteps(_Sampled):
    """Optimiser steps that a hospital takes alone, each with all of the noise, before anything leaves it.

    Priced as `steps` sampled Gaussians: as if the model after every step were seen, although only the last one
    leaves. No other hospital and no aggregation has to be trusted for it.

    Attributes:
        sampling_prob: Each patient's probability to be in a step, in [0, 1].
        noise_multiplier: Standard deviation of the hospital's own noise in a step / L2 sensitivity, >= 0.
        steps: How many, 1..10,000,000.
    """

    kind: ClassVar[str] = "local-steps"
    steps: int

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_count(self.kind, "steps", self.steps)

    @property
    def mechanisms(self) -> int:
        """One for each step."""
        return self.steps


@dataclass(frozen=True, order=True)
class _Release(_Event):
    """A release over all patients of the cohort by the Gaussian mechanism.

    Attributes:
        noise_multiplier: Standard deviation of the noise / L2 sensitivity, >= 0.
        purpose: What was released, for the officer who reads the ledger. Public; never patient data.
    """

    noise_multiplier: float
    purpose: str

    def __post_init__(self) -> None:
        sigma = _number(self.kind, "noise_multiplier", self.noise_multiplier, math.inf)
        object.__setattr__(self, "noise_multiplier", sigma)
        if not isinstance(self.purpose, str) or not 0 < len(self.purpose) <= MAX_PURPOSE_LENGTH:
            raise EventError(
                f"{self.kind}: purpose must be a text of 1 to {MAX_PURPOSE_LENGTH} characters, got {self.purpose!r}"
            )
        if not self.purpose.isprintable():
            raise EventError(f"{self.kind}: purpose must be printable on one line, got {self.purpose!r}")

    @property
    def sampling_prob(self) -> float:
        """1: everybody takes part."""
        return 1.0


@dataclass(frozen=True, order=True)
class CountRelease(_Release):
    """Counts (a histogram, cells of a table), all under one L2 sensitivity."""

    kind: ClassVar[str] = "count-release"


@dataclass(frozen=True, order=True)
class MetricRelease(_Release):
    """A model's metrics on the hospital's patients."""

    kind: ClassVar[str] = "metric-release"


@dataclass(frozen=True, order=True)
class FeatureMean(_Release):
    """The sum of the feature vectors, for centring."""

    kind: ClassVar[str] = "feature-mean"


@dataclass(frozen=True, order=True)
class LabelCounts(_Release):
    """How often each code occurs."""

    kind: ClassVar[str] = "label-counts"


@dataclass(frozen=True, order=True)
class CalibrationRelease(_Release):
    """Right and all codes by confidence, on the calibration patients: what a threshold is chosen from."""

    kind: ClassVar[str] = "calibration-release"


@dataclass(frozen=True, order=True)
class StatisticsRelease(_Release):
    """Sufficient statistics of a closed-form estimator, such as X^T X or X^T Y."""

    kind: ClassVar[str] = "statistics-release"


Event: TypeAlias = (
    TrainingRound
    | LocalSteps
    | CountRelease
    | MetricRelease
    | FeatureMean
    | LabelCounts
    | CalibrationRelease
    | StatisticsRelease
)
"""What consists of sampled Gaussian mechanisms."""

_GAUSSIANS: tuple[type[Event], ...] = (
    TrainingRound,
    LocalSteps,
    CountRelease,
    MetricRelease,
    FeatureMean,
    LabelCounts,
    CalibrationRelease,
    StatisticsRelease,
)


@dataclass(frozen=True)
class Tuning:
    """The best of several trials with different settings, of which the best alone is ever seen.

    Formal guarantees, only if all of this holds: the number of trials is drawn in secret from the distribution
    named; the settings tried do not come from the data; every trial costs at most `trial`, its score
    included; nothing of the other trials, not even how many there were, leaves the hospital. Where others
    see the trials, as the server sees the rounds of a run, this event is wrong: charge each trial in full.

    Attributes:
        trial: What one trial does, the score that it is judged by included; not empty.
        mean_trials: Mean of the number of trials, in [1, 1e6].
        shape: Of the truncated negative binomial distribution of the number of trials, in [0, 1000]: 0 is the
            logarithmic, 1 the geometric distribution. None is the Poisson distribution.
    """

    kind: ClassVar[str] = "tuning"
    trial: tuple[Repeated, ...]
    mean_trials: float
    shape: float | None

    def __post_init__(self) -> None:
        if not isinstance(self.trial, tuple) or not self.trial:
            raise EventError(f"tuning: trial must be a tuple of at least one repeated event, got {self.trial!r}")
        for item in self.trial:
            if not isinstance(item, Repeated) or isinstance(item.event, Tuning):
                raise EventError(f"tuning: trial must hold repeated events that are no tuning, got {item!r}")
        mean = _number(self.kind, "mean_trials", self.mean_trials, MAX_TRIALS)
        if mean < 1.0:
            raise EventError(f"tuning: mean_trials must be in [1, {MAX_TRIALS:g}], got {self.mean_trials!r}")
        object.__setattr__(self, "mean_trials", mean)
        if self.shape is not None:
            object.__setattr__(self, "shape", _number(self.kind, "shape", self.shape, MAX_SHAPE))

    def to_json(self) -> dict[str, Any]:
        """The tuning as a JSON object."""
        return {
            "kind": self.kind,
            "trial": [item.to_json() for item in self.trial],
            "mean_trials": self.mean_trials,
            "shape": self.shape,
        }

    def canonical(self) -> bytes:
        """The tuning's RFC 8785 bytes."""
        return rfc8785.dumps(self.to_json())


Charge: TypeAlias = Event | Tuning
"""Whatever the ledger can be charged with."""

_CHARGES: tuple[type[Charge], ...] = (*_GAUSSIANS, Tuning)


@dataclass(frozen=True)
class Repeated:
    """The same event `count` times, each time with fresh noise (and a fresh sample).

    Attributes:
        event: The event.
        count: How often, 1..10,000,000.
    """

    kind: ClassVar[str] = "repeated"
    event: Charge
    count: int

    def __post_init__(self) -> None:
        if not isinstance(self.event, _CHARGES):
            raise EventError(f"repeated: event must be a single privacy event, got {self.event!r}")
        _check_count(self.kind, "count", self.count)

    def to_json(self) -> dict[str, Any]:
        """The repetition as a JSON object."""
        return {"kind": self.kind, "event": self.event.to_json(), "count": self.count}

    def canonical(self) -> bytes:
        """The repetition's RFC 8785 bytes."""
        return rfc8785.dumps(self.to_json())


_KINDS: dict[str, type[Event]] = {cls.kind: cls for cls in _GAUSSIANS}
_ALL_KINDS = (*_KINDS, Tuning.kind)


def _members(value: object, names: set[str]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise EventError(f"a privacy event must be a JSON object, got {type(value).__name__}")
    if set(value) != names:
        raise EventError(
            f"a privacy event of kind {value.get('kind')!r} has the members {sorted(names)}, "
            f"got {sorted(map(str, value))}"
        )
    return value


def event_from_json(value: object) -> Charge:
    """Parses one event from a JSON object.

    Args:
        value: What `to_json` gave, after any trip through JSON.

    Returns:
        The event.

    Raises:
        EventError: Unknown kind, missing or additional member, wrong type or range.
    """
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if kind == Tuning.kind:
        return _tuning_from_json(value)
    cls = _KINDS.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise EventError(f"unknown kind of privacy event: expected one of {sorted(_ALL_KINDS)}, got {kind!r}")
    members = _members(value, {"kind", *(field.name for field in fields(cls))})
    return cls(**{name: member for name, member in members.items() if name != "kind"})


def _tuning_from_json(value: object) -> Tuning:
    members = _members(value, {"kind", "trial", "mean_trials", "shape"})
    if not isinstance(members["trial"], list):
        raise EventError(f"tuning: trial must be a list of repeated events, got {members['trial']!r}")
    trial = tuple(repeated_from_json(item) for item in members["trial"])
    return Tuning(trial, members["mean_trials"], members["shape"])


def repeated_from_json(value: object) -> Repeated:
    """Parses a `Repeated` from a JSON object; raises `EventError` like `event_from_json`."""
    members = _members(value, {"kind", "event", "count"})
    if members["kind"] != Repeated.kind:
        raise EventError(f"expected a privacy event of kind 'repeated', got {members['kind']!r}")
    return Repeated(event_from_json(members["event"]), members["count"])


def tally(events: Iterable[Charge | Repeated]) -> dict[Charge, int]:
    """Counts equal events, in the order in which each first occurs.

    Raises:
        EventError: If something else than an event is among them.
    """
    counts: dict[Charge, int] = {}
    for item in events:
        event, count = (item.event, item.count) if isinstance(item, Repeated) else (item, 1)
        if not isinstance(event, _CHARGES):
            raise EventError(f"not a privacy event: {item!r}")
        counts[event] = counts.get(event, 0) + count
    return counts


def with_noise_scaled(event: Charge, factor: float) -> Charge:
    """The same event with `factor` times the noise; in a tuning, of everything a trial does."""
    if isinstance(event, Tuning):
        scaled = (Repeated(with_noise_scaled(item.event, factor), item.count) for item in event.trial)
        return replace(event, trial=tuple(scaled))
    return replace(event, noise_multiplier=event.noise_multiplier * factor)


def to_dp_event(item: Charge | Repeated) -> Any:
    """The event in dp-accounting's language, a `dp_accounting.DpEvent`.

    dp-accounting is imported here, not with the module: it takes more than a second.
    """
    import dp_accounting
    from dp_accounting.dp_event import RepeatAndSelectDpEvent

    if isinstance(item, Repeated):
        return dp_accounting.SelfComposedDpEvent(to_dp_event(item.event), item.count)
    tally([item])  # refuses anything that is no event
    if isinstance(item, Tuning):
        trial = dp_accounting.ComposedDpEvent([to_dp_event(each) for each in item.trial])
        shape = math.inf if item.shape is None else item.shape
        return RepeatAndSelectDpEvent(trial, item.mean_trials, shape)
    step = dp_accounting.GaussianDpEvent(item.noise_multiplier)
    if item.sampling_prob < 1.0:
        step = dp_accounting.PoissonSampledDpEvent(item.sampling_prob, step)
    return step if item.mechanisms == 1 else dp_accounting.SelfComposedDpEvent(step, item.mechanisms)
