"""What follows from a plan, computed the same by the coordinator and by every hospital.

Nothing here is negotiated or sent: each side derives it from the approved plan. All of it is public.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from jobs.errors import PlanError
from jobs.icd_coding.centring import FEATURE_L2_NORM
from jobs.icd_coding.encoder import TextEncoder, encoder_from_config
from jobs.icd_coding.lora import LoraModel, lora_model
from jobs.icd_coding.metric_report import MetricLayout
from jobs.icd_coding.model import LinearModel
from jobs.icd_coding.recipe import Hyperparameters
from jobs.icd_coding.ridge import statistics_length
from jobs.icd_coding.ridge_recipe import RidgeSettings
from jobs.plan import LOCAL, RIDGE, Plan
from privacy.events import Event, FeatureMean, LocalSteps, MetricRelease, StatisticsRelease
from privacy.noise import MAX_SIGMA, MIN_SIGMA, share_sigma
from privacy.secagg.aggregate_norm import most_sampled, noise_norm_bound, noisy_norm_bound, rounding_norm
from privacy.secagg.errors import SecAggError
from privacy.secagg.parameters import SecAggParameters, threshold_against
from privacy.secagg.quantisation import check_no_wrap, rounded_l2_sensitivity

Model: TypeAlias = LinearModel | LoraModel
"""A model's shape: its vector's length, how it starts, and how it is read and written."""

_WHOLE_SETTINGS = ("rounds", "averaged_rounds")
_LARGEST_UNIT = 1 << 53  # integers up to here are exact as float64
PATIENTS_SLACK = 2.0  # hospitals may hold this many times the plan's nominal patients before their sum seems too long
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

S = TypeVar("S", Hyperparameters, RidgeSettings)


def plan_encoder(plan: Plan) -> TextEncoder:
    """The plan's text encoder. Raises EncoderError for one this version does not know."""
    return encoder_from_config(plan.encoder)


def plan_model(plan: Plan) -> Model:
    """The model's shape, from the plan alone.

    Raises: PlanError for a kind this version does not know, or one that the estimator or encoder does not go with.
    """
    kind = plan.model.get("kind")
    if kind == "linear":
        return LinearModel(features=plan_encoder(plan).features, labels=len(plan.label_space))
    if kind != "lora":
        raise PlanError(f"model: unknown kind {kind!r}; this version knows 'linear' and 'lora'")
    if plan.estimator == RIDGE:
        raise PlanError("model: the ridge estimator makes linear models; a 'lora' model is trained by dp-sgd")
    if plan.feature_mean_noise_multiplier is not None:
        raise PlanError("feature_mean_noise_multiplier: a 'lora' model has no fixed features to centre; expected null")
    return lora_model(plan.model, plan.encoder, labels=len(plan.label_space))


def linear_model(plan: Plan) -> LinearModel:
    """The shape of a plan's linear model. Raises PlanError when the plan has another kind of model."""
    model = plan_model(plan)
    if not isinstance(model, LinearModel):
        raise PlanError(f"model: expected a linear one, the plan has {plan.model.get('kind')!r}")
    return model


def plan_recipe(plan: Plan) -> Hyperparameters:
    """The training settings that the plan's `model`, `optimiser` and DP fields spell out for DP-SGD.

    Raises: PlanError for a missing, unknown or mistyped setting.
    """
    named = ("bias_scale", "label_smoothing") if plan.model.get("kind") == "linear" else ("label_smoothing",)
    settings = {**plan.optimiser, **{name: plan.model[name] for name in named if name in plan.model}}
    settings |= {
        "rounds": plan.rounds,
        "sampling_prob": plan.sampling_prob,
        "l2_clip_norm": plan.l2_clip_norm,
        "centring": plan.feature_mean_noise_multiplier is not None,
    }
    if plan.model.get("kind") == "linear":
        _no_further(plan.model, {"kind", *named}, "model")
    else:
        settings["bias_scale"] = 1.0
    return _settings(Hyperparameters, settings)


def plan_ridge(plan: Plan) -> RidgeSettings:
    """The settings of the plan's ridge estimator.

    Raises: PlanError for a missing, unknown or mistyped setting.
    """
    _no_further(plan.model, {"kind", "bias_scale"}, "model")
    given = {name: value for name, value in plan.model.items() if name != "kind"}
    settings = {**plan.optimiser, **given, "centring": plan.feature_mean_noise_multiplier is not None}
    return _settings(RidgeSettings, settings)


def _no_further(value: Mapping[str, Any], names: set[str], what: str) -> None:
    if further := sorted(set(value) - names):
        raise PlanError(f"{what}: unknown setting(s) {', '.join(further)}")


def _settings(kind: type[S], settings: Mapping[str, Any]) -> S:
    names = {field.name for field in fields(kind)}
    if set(settings) != names:
        odd = ", ".join(sorted(set(settings) ^ names))
        raise PlanError(f"optimiser and model: settings missing or unknown: {odd}")
    for name, value in settings.items():
        if name == "centring":
            continue  # ours, not the plan's words
        number = int if name in _WHOLE_SETTINGS else (int, float)
        if isinstance(value, bool) or not isinstance(value, number):
            whole = "whole " if name in _WHOLE_SETTINGS else ""
            raise PlanError(f"{name}: expected a {whole}number, got {value!r}")
    return kind(**settings)


def secagg_parameters(plan: Plan, run_id: str) -> SecAggParameters:
    """The run's terms of secure aggregation. Raises PlanError when the plan's do not protect."""
    try:
        return SecAggParameters(
            consortium=plan.consortium,
            run_id=run_id,
            sites=plan.sites,
            dimension=max(_dimension(plan, plan.event(number)) for number in (1, plan.aggregations)),
            allowed_dropouts=plan.dropouts,
            ring_bits=cast(Literal[32, 64], plan.ring_bits),
            shamir_threshold=threshold_against(plan.colluders, sites=len(plan.sites)),
        )
    except SecAggError as error:
        raise PlanError(str(error)) from None


def _dimension(plan: Plan, event: Event) -> int:
    """How many coordinates an aggregation sums."""
    model = plan_model(plan)
    if isinstance(model, LinearModel):
        if isinstance(event, FeatureMean):
            return model.features
        if isinstance(event, StatisticsRelease):
            return statistics_length(model.features, model.labels, gram_share=plan_ridge(plan).gram_share)
    return model.vector_length


@dataclass(frozen=True)
class AggregationTerms:
    """One aggregation: what is summed and how it is protected. Integer units are 1/scale.

    With distributed noise, and wherever a sum itself is released, a hospital adds `noise_std` to what it sends. In a
    round of local steps the noise is in the steps, `step_noise_std` in each step's sum, and what is sent follows from
    noisy sums alone.
    """

    event: Event
    dimension: int  # coordinates in use; the rest of the vector stays zero
    l2_clip: float  # bound on one patient's contribution to a sum
    scale: int  # integer units per 1.0
    bound: int  # clamp of a coordinate of what is sent, integer units
    noise_std: float  # of one hospital's noise on what it sends, integer units; 0: none
    step_bound: int = 0  # clamp of a coordinate of a local step's sum, integer units
    step_noise_std: float = 0.0  # of the noise on a local step's sum, integer units; 0: none


def aggregation_terms(plan: Plan, number: int) -> AggregationTerms:
    """The terms of aggregation `number`, from 1.

    Raises: PlanError when the noisy sum could wrap in the plan's ring, or the number is not in the plan.
    """
    event = plan.event(number)
    dimension = _dimension(plan, event)
    l2_clip = FEATURE_L2_NORM if isinstance(event, FeatureMean) else plan.l2_clip_norm
    local = plan.noise_mode == LOCAL
    try:
        noise_std = 0.0
        if plan.epsilon is not None:
            noise_std = share_sigma(
                noise_multiplier=event.noise_multiplier,
                l2_sensitivity=rounded_l2_sensitivity(l2_clip=l2_clip, scale=plan.scale, dimension=dimension),
                sites=1 if local else len(plan.sites),
                colluders=0 if local else plan.colluders,
                dropouts=0 if local else plan.dropouts,
            )
            _check_sigma(f"scale and noise of aggregation {number}", noise_std)
        # Everybody takes part in a release, a sample in a step; the plan bounds both by the same number.
        in_steps = isinstance(event, LocalSteps)
        proof = check_no_wrap(
            ring_bits=64 if in_steps else cast(Literal[32, 64], plan.ring_bits),
            sites=1 if in_steps else len(plan.sites),
            dimension=dimension,
            l2_clip=l2_clip,
            scale=plan.scale,
            noise_std=noise_std,
            sampled_patients_per_site=plan.max_patients_per_round,
        )
    except SecAggError as error:
        raise PlanError(str(error)) from None
    if not in_steps:
        return AggregationTerms(event, dimension, l2_clip, plan.scale, proof.bound, noise_std)
    # What a hospital sends carries its noise already, so that it may be clamped to what the ring can hold.
    room = min((1 << (plan.ring_bits - 1)) // len(plan.sites) - 1, _LARGEST_UNIT)
    return AggregationTerms(
        event, dimension, l2_clip, plan.scale, room, 0.0, step_bound=proof.bound, step_noise_std=noise_std
    )


def aggregate_norm_bound(plan: Plan, number: int, *, hospitals: int) -> float:
    """The L2 norm that the opened sum of so many honest hospitals does not exceed, but with probability 2^-62.

    From public numbers alone: clip, noise, rate, and at most `PATIENTS_SLACK` times the plan's nominal patients, for
    hospitals' own counts are private. The sum of a round of local steps is at most as long as the learning rate and
    momentum can make it from gradients and noise of such lengths; later gradients depend on earlier noise, so there
    the two lengths are added.

    Returns: in the units of the decoded sum.
    """
    terms, event = aggregation_terms(plan, number), plan.event(number)
    population = PATIENTS_SLACK * plan.nominal_patients
    rounding = rounding_norm(dimension=terms.dimension, vectors=hospitals) / terms.scale
    expected = event.sampling_prob * population
    if not isinstance(event, LocalSteps):
        signal = terms.l2_clip * most_sampled(expected, population=population) + rounding
        noise_std = terms.noise_std / terms.scale * math.sqrt(hospitals)
        return noisy_norm_bound(signal, dimension=terms.dimension, noise_std=noise_std)
    recipe, steps = plan_recipe(plan), plan.local_steps
    # How far one unit of a step's sum can move the iterate by the end of the round.
    reach = recipe.learning_rate * sum(recipe.momentum**step for step in range(steps))
    reach *= len(plan.sites) / (plan.expected_batch * terms.l2_clip)
    signal = terms.l2_clip * most_sampled(steps * expected, population=steps * population) + steps * rounding
    noise_std = terms.step_noise_std / terms.scale * math.sqrt(steps * hospitals)
    return reach * (signal + noise_norm_bound(dimension=terms.dimension, noise_std=noise_std)) + rounding


@dataclass(frozen=True)
class Predecessor:
    """The version a new one is compared with, on the same admissions."""

    plan_hash: str  # of the run that made it
    version: str


@dataclass(frozen=True)
class EvaluationTerms:
    """How hospitals report a version's quality: counts with noise, in a layout fixed by the plan."""

    layout: MetricLayout
    precision_target: float
    noise_multiplier: float
    epsilon: float  # of one report, per patient of the validation cohort
    delta: float
    predecessor: Predecessor | None

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise on each count."""
        return self.noise_multiplier * self.layout.l2_sensitivity

    @property
    def event(self) -> MetricRelease:
        """What a report does to the validation patients."""
        return MetricRelease(self.noise_multiplier, "counts of right and automatic codes")

    def values(self, noisy: NDArray[np.integer[Any]]) -> dict[str, Any]:
        """Metrics with 95% intervals from the noisy counts; see `MetricLayout.values`."""
        return self.layout.values(noisy, noise_std=self.noise_std, precision_target=self.precision_target)


def evaluation_terms(plan: Plan) -> EvaluationTerms:
    """The plan's `evaluation` part. Raises PlanError naming a bad field."""
    value = plan.evaluation
    names = {"thresholds", "precision_target", "noise_multiplier", "epsilon", "delta", "predecessor"}
    if set(value) != names:
        raise PlanError(f"evaluation: expected exactly the fields {', '.join(sorted(names))}")
    thresholds = value["thresholds"]
    if not isinstance(thresholds, (list, tuple)) or not all(
        isinstance(item, (int, float)) and 0 < item < 1 for item in thresholds
    ):
        raise PlanError("evaluation.thresholds: expected numbers between 0 and 1")
    if list(thresholds) != sorted(set(thresholds)):
        raise PlanError("evaluation.thresholds: must ascend")
    for name in names - {"thresholds", "predecessor"}:
        number = value[name]
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 < number < float("inf"):
            raise PlanError(f"evaluation.{name}: expected a positive number, got {number!r}")
    if value["delta"] >= 1:
        raise PlanError(f"evaluation.delta: in (0, 1), got {value['delta']}")
    predecessor = _predecessor(value["predecessor"])
    layout = MetricLayout(tuple(float(item) for item in thresholds), plan.label_space, predecessor is not None)
    precision_target, noise_multiplier, epsilon, delta = (
        float(value[name]) for name in ("precision_target", "noise_multiplier", "epsilon", "delta")
    )
    terms = EvaluationTerms(layout, precision_target, noise_multiplier, epsilon, delta, predecessor)
    _check_sigma("evaluation.noise_multiplier", terms.noise_std)
    return terms


def _predecessor(value: object) -> Predecessor | None:
    if value is None:
        return None
    if not isinstance(value, dict) or set(value) != {"plan_hash", "version"}:
        raise PlanError("evaluation.predecessor: expected null or exactly the fields plan_hash, version")
    for name, digest in value.items():
        if not isinstance(digest, str) or _DIGEST.fullmatch(digest) is None:
            raise PlanError(f"evaluation.predecessor.{name}: expected sha256:<64 hex digits>, got {digest!r}")
    return Predecessor(value["plan_hash"], value["version"])


def check_terms(plan: Plan) -> None:
    """Derive everything once, so that a plan that cannot be carried out is refused when it is proposed or joined."""
    secagg_parameters(plan, "check")
    if plan.estimator == RIDGE:
        plan_ridge(plan)
    else:
        plan_recipe(plan)
    for number in {1, plan.aggregations}:
        aggregation_terms(plan, number)
    evaluation_terms(plan)


def _check_sigma(what: str, sigma: float) -> None:
    # Found out at a hospital, it would be after the ledger spent the round.
    if not MIN_SIGMA <= sigma <= MAX_SIGMA:
        raise PlanError(
            f"{what}: a hospital's noise would have a standard deviation of {sigma:.3g} integer units, "
            f"the sampler needs {MIN_SIGMA:g} to 2^40; "
            + ("ask for a smaller epsilon or a larger scale" if sigma < MIN_SIGMA else "lower the scale or the noise")
        )
