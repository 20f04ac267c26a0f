"""The plan: everything a training run will do, fixed, hashed and approved before it starts.

A plan is canonical JSON (RFC 8785); its hash names it in approvals, receipts and the log. Hospitals compute the hash
from the bytes they receive, so that the plan they check is the plan they carry out. A plan holds public things only.

Invariants, checked by `Plan.from_bytes` and whenever a Plan is made:

* distributed noise protects against the server together with `colluders` hospitals even if `dropouts` more fail to
  deliver: n - colluders - dropouts >= 1, colluders >= 1; local noise is all added by each hospital on its own;
* a plan without an epsilon has no noise at all and is unprotected; hospitals refuse it unless their limits say that
  their data is public;
* sums are divided by `nominal_patients * sampling_prob`, a public constant; nothing depends on a hospital's counts;
* the label space is sorted and free of duplicates; its order is the model's column order.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, get_type_hints

from audit.canonical import canonical_json, digest_of, parse_json_object
from audit.errors import CanonicalError
from jobs.errors import PlanError
from privacy.events import (
    NEIGHBORING_RELATION,
    UNIT,
    Event,
    FeatureMean,
    LocalSteps,
    Repeated,
    StatisticsRelease,
    TrainingRound,
)

SCHEMA = "zegel/plan/v2"
FEATURE_MEAN_PURPOSE = "sum of encoded letters, for centring"
STATISTICS_PURPOSE = "sums for a closed-form estimator, one release"
DISTRIBUTED, LOCAL = "distributed", "local"
NOISE_MODES = (DISTRIBUTED, LOCAL)
DP_SGD, RIDGE = "dp-sgd", "ridge"
ESTIMATORS = (DP_SGD, RIDGE)
MAX_SITES = 50
MAX_LABELS = 20_000
MAX_NAME = 100  # characters of a hospital's name or a code
MAX_ROUNDS = 10_000
MAX_LOCAL_STEPS = 1_000
MAX_PLAN_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run will do. Field names follow the differential privacy literature where it has a word."""

    name: str
    consortium: str
    task: str  # "icd_coding"
    sites: tuple[str, ...]  # hospitals that train, sorted
    evaluation_sites: tuple[str, ...]  # hospitals that evaluate the result, sorted; may include those that train
    minimum_sites: int  # a round with fewer deliveries is aborted
    label_system: str  # which edition the codes are from
    label_space: tuple[str, ...]  # sorted codes; the model's columns
    encoder: dict[str, Any]
    model: dict[str, Any]
    estimator: str  # "dp-sgd": gradient steps; "ridge": closed form from one aggregation of sufficient statistics
    optimiser: dict[str, Any]  # the estimator's settings
    rounds: int  # secure aggregations after the feature mean; of distributed DP-SGD each is one optimiser step
    local_steps: int  # optimiser steps a hospital takes in a round; 1 unless the noise is local
    sampling_prob: float  # Poisson rate per patient and round, (0, 1]
    l2_clip_norm: float  # of one patient's gradient; 1 for ridge, whose statistics are made that long at most
    noise_multiplier: float  # std / l2_clip_norm of the noise: distributed, in the opened sum; local, each hospital's
    feature_mean_noise_multiplier: float | None  # one sum of features before the first step; None: no centring
    noise_mode: str  # "distributed": shares under secure aggregation; "local": each hospital adds all of it
    colluders: int  # hospitals that may work with the server
    dropouts: int  # hospitals that may fail to deliver in a round
    scale: int  # integer units per 1.0 of a clipped gradient
    ring_bits: int  # modulus of the masked sum, 32 or 64
    max_patients_per_round: int  # bound per hospital that keeps the sum from wrapping
    nominal_patients: int  # public constant for the expected batch, all hospitals together
    # Of the whole run; distributed: against the server with `colluders` hospitals; local: against everyone else.
    epsilon: float | None  # None: unprotected
    delta: float
    unit: str  # "patient"
    neighboring_relation: str  # "ADD_OR_REMOVE_ONE"
    accountant: str
    evaluation: dict[str, Any]  # thresholds, precision_target, noise_multiplier, epsilon, delta, predecessor
    initial_version: str  # digest of the model the run starts from

    def __post_init__(self) -> None:
        _check(self)

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return canonical_json({"schema": SCHEMA, **_plain(asdict(self))})

    @property
    def hash(self) -> str:
        """`sha256:` and the hex digest of the canonical bytes."""
        return digest_of(self.to_bytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> Plan:
        """Parse and check. Raises PlanError naming the field."""
        if len(data) > MAX_PLAN_BYTES:
            raise PlanError(f"plan of {len(data)} bytes, at most {MAX_PLAN_BYTES} allowed")
        try:
            value = parse_json_object(data, "plan")
        except CanonicalError as error:
            raise PlanError(str(error)) from None
        if value.pop("schema", None) != SCHEMA:
            raise PlanError(f"expected a plan of schema {SCHEMA!r}")
        return cls.from_mapping(value)

    @classmethod
    def from_mapping(cls, value: Mapping[str, Any]) -> Plan:
        """Make a plan from plain JSON values. Raises PlanError on a missing, unknown or mistyped field."""
        names = {field.name for field in fields(cls)}
        if missing := sorted(names - set(value)):
            raise PlanError(f"missing field(s): {', '.join(missing)}")
        if unknown := sorted(set(value) - names):
            raise PlanError(f"unknown field(s): {', '.join(unknown)}")
        hints = get_type_hints(cls)
        return cls(**{name: _typed(name, value[name], hints[name]) for name in sorted(names)})

    @property
    def expected_batch(self) -> float:
        """Patients expected in one round over all hospitals; a public constant."""
        return self.sampling_prob * self.nominal_patients

    @property
    def aggregations(self) -> int:
        """Secure aggregations in the run: the feature mean, if any, and one per optimiser step."""
        return self.rounds + (self.feature_mean_noise_multiplier is not None)

    def event(self, aggregation: int) -> Event:
        """What the aggregation with this number, from 1, does to a training hospital's patients."""
        if not 1 <= aggregation <= self.aggregations:
            raise PlanError(f"aggregation {aggregation} is not in 1..{self.aggregations}")
        if self.feature_mean_noise_multiplier is not None and aggregation == 1:
            return FeatureMean(self.feature_mean_noise_multiplier, FEATURE_MEAN_PURPOSE)
        if self.estimator == RIDGE:
            return StatisticsRelease(self.noise_multiplier, STATISTICS_PURPOSE)
        if self.noise_mode == LOCAL:
            return LocalSteps(self.sampling_prob, self.noise_multiplier, self.local_steps)
        return TrainingRound(self.sampling_prob, self.noise_multiplier)

    def training_events(self) -> tuple[Event | Repeated, ...]:
        """All that the run does to a training hospital's patients, for accountants."""
        steps = Repeated(self.event(self.aggregations), self.rounds)
        return (steps,) if self.feature_mean_noise_multiplier is None else (self.event(1), steps)


def _typed(name: str, value: Any, hint: Any) -> Any:
    if hint == tuple[str, ...]:
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
            raise PlanError(f"{name}: expected a list of strings")
        return tuple(value)
    if hint is float or hint == float | None:
        if value is None and hint is not float:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise PlanError(f"{name}: expected a number, got {type(value).__name__}")
        return float(value)
    kind = dict if hint == dict[str, Any] else hint
    if isinstance(value, bool) or not isinstance(value, kind):
        raise PlanError(f"{name}: expected {kind.__name__}, got {type(value).__name__}")
    return value


def _check(plan: Plan) -> None:
    def need(condition: bool, message: str) -> None:
        if not condition:
            raise PlanError(message)

    for name in ("name", "consortium"):
        need(
            _NAME.fullmatch(getattr(plan, name)) is not None,
            f"{name}: letters, digits, space, . _ -, at most 64",
        )
    need(plan.task == "icd_coding", f"task: expected 'icd_coding', got {plan.task!r}")
    for name in ("sites", "evaluation_sites", "label_space"):
        values = getattr(plan, name)
        need(list(values) == sorted(set(values)), f"{name}: must be sorted and without duplicates")
        need(
            all(0 < len(value) <= MAX_NAME and value.isprintable() for value in values),
            f"{name}: names of 1 to {MAX_NAME} printable characters",
        )
    n = len(plan.sites)
    need(3 <= n <= MAX_SITES, f"sites: secure aggregation needs 3 to {MAX_SITES} training hospitals, got {n}")
    need(
        2 <= len(plan.label_space) <= MAX_LABELS,
        f"label_space: 2 to {MAX_LABELS} codes, got {len(plan.label_space)}",
    )
    need(1 <= plan.rounds <= MAX_ROUNDS, f"rounds: 1 to {MAX_ROUNDS}, got {plan.rounds}")
    need(
        plan.noise_mode in NOISE_MODES,
        f"noise_mode: one of {', '.join(NOISE_MODES)}, got {plan.noise_mode!r}",
    )
    need(
        plan.estimator in ESTIMATORS,
        f"estimator: one of {', '.join(ESTIMATORS)}, got {plan.estimator!r}",
    )
    most_steps = MAX_LOCAL_STEPS if plan.noise_mode == LOCAL else 1
    need(
        1 <= plan.local_steps <= most_steps,
        f"local_steps: 1 to {most_steps} under {plan.noise_mode} noise, got {plan.local_steps}",
    )
    if plan.estimator == RIDGE:
        for name, only in (("rounds", 1), ("local_steps", 1), ("sampling_prob", 1.0), ("l2_clip_norm", 1.0)):
            value = getattr(plan, name)
            need(value == only, f"{name}: the ridge estimator needs {only}, one sum over all patients; got {value}")
    need(plan.colluders >= 1, "colluders: at least 1, since every hospital knows its own noise")
    need(plan.dropouts >= 0, "dropouts: must not be negative")
    need(
        n - plan.colluders - plan.dropouts >= 1,
        f"sites: {n} hospitals cannot carry {plan.colluders} colluders and {plan.dropouts} dropouts",
    )
    need(
        n - plan.dropouts == plan.minimum_sites,
        f"minimum_sites: expected sites - dropouts = {n - plan.dropouts}, got {plan.minimum_sites}",
    )
    need(0 < plan.sampling_prob <= 1, f"sampling_prob: in (0, 1], got {plan.sampling_prob}")
    need(
        0 < plan.l2_clip_norm < math.inf,
        f"l2_clip_norm: must be positive and finite, got {plan.l2_clip_norm}",
    )
    need(0 < plan.delta < 1, f"delta: in (0, 1), got {plan.delta}")
    if plan.epsilon is not None:
        need(0 < plan.epsilon < math.inf, f"epsilon: positive and finite, or null, got {plan.epsilon}")
    for name in ("noise_multiplier", "feature_mean_noise_multiplier"):
        value = getattr(plan, name)
        if plan.epsilon is None:
            need(value in (0.0, None), f"{name}: an unprotected plan (epsilon null) has no noise, got {value}")
        elif value is not None:
            need(0 < value < math.inf, f"{name}: must be positive and finite, got {value}")
    need(plan.scale >= 1, f"scale: at least 1, got {plan.scale}")
    need(plan.ring_bits in (32, 64), f"ring_bits: 32 or 64, got {plan.ring_bits}")
    need(plan.max_patients_per_round >= 1, "max_patients_per_round: at least 1")
    need(plan.nominal_patients >= 1, "nominal_patients: at least 1")
    need(plan.unit == UNIT, f"unit: expected {UNIT!r}, got {plan.unit!r}")
    need(
        plan.neighboring_relation == NEIGHBORING_RELATION,
        f"neighboring_relation: expected {NEIGHBORING_RELATION!r}, got {plan.neighboring_relation!r}",
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
