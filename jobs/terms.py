"""What follows from a plan, computed the same by the coordinator and by every hospital.

Nothing here is negotiated or sent: each side derives it from the approved plan. All of it is public.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, cast

from jobs.errors import PlanError
from jobs.icd_coding.centring import FEATURE_L2_NORM
from jobs.icd_coding.encoder import TextEncoder, encoder_from_config
from jobs.icd_coding.evaluation import proportion_interval
from jobs.icd_coding.model import LinearModel
from jobs.icd_coding.recipe import Hyperparameters
from jobs.plan import Plan
from privacy.events import Event, FeatureMean, MetricRelease
from privacy.noise import MAX_SIGMA, MIN_SIGMA, share_sigma
from privacy.secagg.errors import SecAggError
from privacy.secagg.parameters import SecAggParameters
from privacy.secagg.quantisation import check_no_wrap, rounded_l2_sensitivity

_WHOLE_SETTINGS = ("rounds", "averaged_rounds")


def plan_encoder(plan: Plan) -> TextEncoder:
    """The plan's text encoder. Raises EncoderError for one this version does not know."""
    return encoder_from_config(plan.encoder)


def model_shape(plan: Plan) -> LinearModel:
    """The model's shape: the encoder's features by the plan's label space."""
    if plan.model.get("kind") != "linear":
        raise PlanError(f"model: unknown kind {plan.model.get('kind')!r}; this version knows 'linear'")
    return LinearModel(features=plan_encoder(plan).features, labels=len(plan.label_space))


def plan_recipe(plan: Plan) -> Hyperparameters:
    """The training settings the plan's `model`, `optimiser` and DP fields spell out.

    Raises: PlanError for a missing, unknown or mistyped setting.
    """
    settings = {**plan.optimiser, **{key: value for key, value in plan.model.items() if key != "kind"}}
    settings |= {
        "rounds": plan.rounds,
        "sampling_prob": plan.sampling_prob,
        "l2_clip_norm": plan.l2_clip_norm,
        "centring": plan.feature_mean_noise_multiplier is not None,
    }
    names = {field.name for field in fields(Hyperparameters)}
    if set(settings) != names:
        odd = ", ".join(sorted(set(settings) ^ names))
        raise PlanError(f"optimiser and model: settings missing or unknown: {odd}")
    for name, value in settings.items():
        if name == "centring":
            continue  # ours, not the plan's words
        kind = int if name in _WHOLE_SETTINGS else (int, float)
        if isinstance(value, bool) or not isinstance(value, kind):
            whole = "whole " if name in _WHOLE_SETTINGS else ""
            raise PlanError(f"{name}: expected a {whole}number, got {value!r}")
    return Hyperparameters(**settings)


def secagg_parameters(plan: Plan, run_id: str) -> SecAggParameters:
    """The run's terms of secure aggregation. Raises PlanError when the plan's do not protect."""
    try:
        return SecAggParameters(
            consortium=plan.consortium,
            run_id=run_id,
            sites=plan.sites,
            dimension=model_shape(plan).vector_length,
            allowed_dropouts=plan.dropouts,
            ring_bits=cast(Literal[32, 64], plan.ring_bits),
        )
    except SecAggError as error:
        raise PlanError(str(error)) from None


@dataclass(frozen=True)
class AggregationTerms:
    """One aggregation: what is summed and how it is protected."""

    event: Event
    dimension: int  # coordinates in use; the rest of the vector stays zero
    l2_clip: float  # bound on one patient's contribution
    scale: int  # integer units per 1.0
    bound: int  # clamp of a hospital's integer coordinate
    share_sigma: float  # standard deviation of one hospital's noise, integer units; 0 in an unprotected plan


def aggregation_terms(plan: Plan, number: int) -> AggregationTerms:
    """The terms of aggregation `number`, from 1.

    Raises: PlanError when the noisy sum could wrap in the plan's ring, or the number is not in the plan.
    """
    event = plan.event(number)
    shape = model_shape(plan)
    mean = isinstance(event, FeatureMean)
    dimension = shape.features if mean else shape.vector_length
    l2_clip = FEATURE_L2_NORM if mean else plan.l2_clip_norm
    # Everybody takes part in the mean, a sample in a step; the plan bounds both by the same number.
    sigma = 0.0
    try:
        if plan.epsilon is not None:
            sigma = share_sigma(
                noise_multiplier=event.noise_multiplier,
                l2_sensitivity=rounded_l2_sensitivity(l2_clip=l2_clip, scale=plan.scale, dimension=dimension),
                sites=len(plan.sites),
                colluders=plan.colluders,
                dropouts=plan.dropouts,
            )
            _check_sigma(f"scale and noise of aggregation {number}", sigma)
        proof = check_no_wrap(
            ring_bits=cast(Literal[32, 64], plan.ring_bits),
            sites=len(plan.sites),
            dimension=dimension,
            l2_clip=l2_clip,
            scale=plan.scale,
            noise_std=sigma,
            sampled_patients_per_site=plan.max_patients_per_round,
        )
    except SecAggError as error:
        raise PlanError(str(error)) from None
    return AggregationTerms(event, dimension, l2_clip, plan.scale, proof.bound, sigma)


@dataclass(frozen=True)
class EvaluationTerms:
    """How hospitals report a version's quality: counts with noise, at thresholds fixed in the plan."""

    thresholds: tuple[float, ...]  # confidences at or above which a code would be automatic, ascending
    precision_target: float
    noise_multiplier: float
    epsilon: float  # of one report, per patient of the validation cohort
    delta: float

    @property
    def counts(self) -> int:
        """Length of the count vector: admissions, right@1, right@3, then two per threshold."""
        return 3 + 2 * len(self.thresholds)

    @property
    def l2_sensitivity(self) -> float:
        """One patient, with one admission, adds at most 1 to each count."""
        return float(self.counts**0.5)

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise on each count."""
        return self.noise_multiplier * self.l2_sensitivity

    @property
    def event(self) -> MetricRelease:
        """What a report does to the validation patients."""
        return MetricRelease(self.noise_multiplier, "counts of right and automatic codes")

    def values(self, noisy: Sequence[int]) -> dict[str, Any]:
        """Metrics with 95% intervals from noisy counts; only post-processing, so it costs nothing.

        Returns: name -> {value, lower, upper}: admissions, hit@1, hit@3, and threshold, coverage and precision of the
            lowest threshold whose noisy precision reaches the target (threshold 1 and coverage 0 if none does).
        """
        admissions, right, among_three = (float(count) for count in noisy[:3])
        std = self.noise_std
        values: dict[str, Any] = {
            "admissions": {"value": admissions, "lower": admissions - 2 * std, "upper": admissions + 2 * std},
            "hit@1": _proportion(right, admissions, std),
            "hit@3": _proportion(among_three, admissions, std),
        }
        chosen = (1.0, 0.0, 0.0)
        for position, threshold in enumerate(self.thresholds):
            automatic, automatic_right = (float(count) for count in noisy[3 + 2 * position : 5 + 2 * position])
            if automatic > 0 and automatic_right / automatic >= self.precision_target:
                chosen = (threshold, automatic, automatic_right)
                break
        threshold, automatic, automatic_right = chosen
        values["threshold"] = {"value": threshold, "lower": None, "upper": None}
        values["coverage"] = _proportion(automatic, admissions, std)
        values["precision"] = _proportion(automatic_right, automatic, std)
        return values


def evaluation_terms(plan: Plan) -> EvaluationTerms:
    """The plan's `evaluation` part. Raises PlanError naming a bad field."""
    value = plan.evaluation
    names = {"thresholds", "precision_target", "noise_multiplier", "epsilon", "delta"}
    if set(value) != names:
        raise PlanError(f"evaluation: expected exactly the fields {', '.join(sorted(names))}")
    thresholds = value["thresholds"]
    if not isinstance(thresholds, (list, tuple)) or not all(
        isinstance(item, (int, float)) and 0 < item < 1 for item in thresholds
    ):
        raise PlanError("evaluation.thresholds: expected numbers between 0 and 1")
    if list(thresholds) != sorted(set(thresholds)):
        raise PlanError("evaluation.thresholds: must ascend")
    for name in names - {"thresholds"}:
        number = value[name]
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 < number < float("inf"):
            raise PlanError(f"evaluation.{name}: expected a positive number, got {number!r}")
    if value["delta"] >= 1:
        raise PlanError(f"evaluation.delta: in (0, 1), got {value['delta']}")
    terms = EvaluationTerms(
        tuple(float(item) for item in thresholds),
        *(float(value[name]) for name in ("precision_target", "noise_multiplier", "epsilon", "delta")),
    )
    _check_sigma("evaluation.noise_multiplier", terms.noise_std)
    return terms


def check_terms(plan: Plan) -> None:
    """Derive everything once, so that a plan that cannot be carried out is refused when it is proposed or joined."""
    secagg_parameters(plan, "check")
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


def _proportion(part: float, whole: float, noise_std: float) -> dict[str, float]:
    interval = proportion_interval(part, whole, noise_std=noise_std)
    value = 0.0 if interval.value is None else interval.value
    return {"value": value, "lower": interval.lower, "upper": interval.upper}
