"""From a wish to a plan: which hospitals, which codes, how much epsilon.

What a plan needs beyond the wish comes from public things only: the recipe measured for this model, and a nominal
number of patients that does not follow any one of them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jobs.errors import PlanError
from jobs.icd_coding.encoder import HashedNgrams, TextEncoder, encoder_from_config
from jobs.icd_coding.model import version_id
from jobs.icd_coding.recipe import Hyperparameters, recommended
from jobs.icd_coding.ridge_recipe import MEAN_SHARE, recommended_features, recommended_ridge
from jobs.plan import DISTRIBUTED, DP_SGD, FEATURE_MEAN_PURPOSE, LOCAL, RIDGE, Plan
from jobs.terms import check_terms, plan_model
from privacy.accounting import accountant
from privacy.answers import Progress, in_silence
from privacy.calibration import calibrate_noise_multiplier
from privacy.events import NEIGHBORING_RELATION, UNIT, FeatureMean

_CATEGORY = re.compile(r"[A-Z][0-9][0-9A-Z]")

SCALE = 1 << 24  # integer units per 1.0: rounding adds about 1e-5 to the sensitivity at 4e5 coordinates
DEFAULT_FEATURES = 4096
_LORA = {"rank": 8, "alpha": 16.0, "head_scale": 8.0, "bias_scale": 0.05, "seed": 1}  # where a wish leaves them open
_LOCAL_STEPS = 3  # between two aggregations, under local noise
MAX_PATIENTS_PER_ROUND = 1 << 20  # per hospital; with SCALE far from wrapping the 2^64 ring


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a person asks for; everything else of a plan follows."""

    name: str
    consortium: str
    label_space: tuple[str, ...]
    epsilon: float | None  # None: no privacy at all, for public data
    sites: tuple[str, ...] = ()
    evaluation_sites: tuple[str, ...] = ()
    nominal_patients: int = 1
    delta: float = 1e-5
    rounds: int | None = None
    sampling_prob: float = 1.0
    noise_mode: str = DISTRIBUTED
    local_steps: int | None = None  # of local noise; the recipe's if None
    estimator: str = DP_SGD
    features: int | None = None  # of hashed n-grams; the estimator's default if None
    encoder: Mapping[str, Any] | None = None  # another than hashed n-grams; see `zegel site encoder list`
    lora: Mapping[str, Any] | None = None  # adapters to train in that encoder, beside the codes' weights
    predecessor: tuple[str, str] | None = None  # plan hash and version to compare with
    colluders: int = 1
    dropouts: int = 0
    metrics_epsilon: float = 4.0
    thresholds: tuple[float, ...] = (0.3, 0.5, 0.7, 0.9)
    precision_target: float = 0.9
    label_system: str = "ICD-10 (WHO 2019), three characters"


@dataclass(frozen=True)
class _Answers:
    """Where the accountant's answers are kept, and who is told while it computes."""

    cache_dir: Path | None
    progress: Progress


def make_plan(wish: Wish, *, cache_dir: Path | None = None, progress: Progress = in_silence) -> Plan:
    """Build and check the plan for a wish; the noise is calibrated so that the whole run costs `epsilon`.

    Raises: PlanError, AccountingError, EncoderError: what the wish cannot have.
    """
    encoder = _encoder(wish)
    answers = _Answers(cache_dir, progress)
    way = _ridge(wish, answers) if wish.estimator == RIDGE else _dp_sgd(wish, answers)
    report_noise = calibrate_noise_multiplier(
        epsilon=wish.metrics_epsilon,
        delta=wish.delta,
        rounds=1,
        sampling_prob=1.0,
        cache_dir=cache_dir,
        progress=progress,
    )
    plan = Plan(
        name=wish.name,
        consortium=wish.consortium,
        task="icd_coding",
        sites=wish.sites,
        evaluation_sites=wish.evaluation_sites,
        minimum_sites=len(wish.sites) - wish.dropouts,
        label_system=wish.label_system,
        label_space=wish.label_space,
        encoder=encoder.config(),
        **way,
        noise_mode=wish.noise_mode,
        estimator=wish.estimator,
        colluders=wish.colluders,
        dropouts=wish.dropouts,
        scale=SCALE,
        ring_bits=64,
        max_patients_per_round=MAX_PATIENTS_PER_ROUND,
        nominal_patients=wish.nominal_patients,
        epsilon=wish.epsilon,
        delta=wish.delta,
        unit=UNIT,
        neighboring_relation=NEIGHBORING_RELATION,
        accountant=accountant(),
        evaluation={
            "thresholds": list(wish.thresholds),
            "precision_target": wish.precision_target,
            "noise_multiplier": report_noise,
            "epsilon": wish.metrics_epsilon,
            "delta": wish.delta,
            "predecessor": None
            if wish.predecessor is None
            else {"plan_hash": wish.predecessor[0], "version": wish.predecessor[1]},
        },
        initial_version="",
    )
    plan = replace(plan, initial_version=version_id(plan_model(plan).initial().to_bytes()))
    check_terms(plan)
    return plan


def _encoder(wish: Wish) -> TextEncoder:
    if wish.encoder is not None:
        return encoder_from_config(wish.encoder)
    if wish.features is not None:
        return HashedNgrams(features=wish.features)
    if wish.estimator == RIDGE:
        patients = _signal_patients(wish)
        return HashedNgrams(features=recommended_features(wish.epsilon, nominal_patients=patients, delta=wish.delta))
    return HashedNgrams(features=DEFAULT_FEATURES)


def _dp_sgd(wish: Wish, answers: _Answers) -> dict[str, Any]:
    """The plan's fields that follow from training by gradient steps."""
    recipe, local_steps = settings(wish), _local_steps(wish)
    model: dict[str, Any] = {"kind": "linear", "bias_scale": recipe.bias_scale}
    if wish.lora is not None:
        model = {**_LORA, **wish.lora, "kind": "lora"}
        # Scores move with the square of the head's scale for one step; the encoder's features are not centred.
        scale = float(model["head_scale"])
        recipe = replace(recipe, centring=False, learning_rate=recipe.learning_rate / scale**2)
    rounds = math.ceil(recipe.rounds / local_steps)
    steps, rate = rounds * local_steps, recipe.sampling_prob
    # The mean costs about what one step does.
    noise, mean_noise = _calibrate(
        wish, answers, steps, rate, mean_like=(steps + 1, 1 / rate) if recipe.centring else None
    )
    return {
        "model": {"label_smoothing": recipe.label_smoothing, **model},
        "optimiser": {
            "learning_rate": recipe.learning_rate,
            "momentum": recipe.momentum,
            "averaged_rounds": min(recipe.averaged_rounds, rounds),
        },
        "rounds": rounds,
        "local_steps": local_steps,
        "sampling_prob": rate,
        "l2_clip_norm": recipe.l2_clip_norm,
        "noise_multiplier": noise,
        "feature_mean_noise_multiplier": mean_noise,
    }


def _ridge(wish: Wish, answers: _Answers) -> dict[str, Any]:
    """The plan's fields that follow from one aggregation of sufficient statistics."""
    if wish.rounds not in (None, 1) or wish.local_steps not in (None, 1) or wish.sampling_prob != 1.0:
        raise PlanError("the ridge estimator takes all patients in one sum: leave rounds, local steps and rate out")
    chosen = recommended_ridge(wish.epsilon, nominal_patients=_signal_patients(wish), delta=wish.delta)
    mean_like = (1, MEAN_SHARE**-0.5) if chosen.centring else None
    noise, mean_noise = _calibrate(wish, answers, 1, 1.0, mean_like=mean_like)
    return {
        "model": {"kind": "linear", "bias_scale": chosen.bias_scale},
        "optimiser": {
            "gram_share": chosen.gram_share,
            "regularisation": chosen.regularisation,
            "confidence_scale": chosen.confidence_scale,
        },
        "rounds": 1,
        "local_steps": 1,
        "sampling_prob": 1.0,
        "l2_clip_norm": 1.0,
        "noise_multiplier": noise,
        "feature_mean_noise_multiplier": mean_noise,
    }


def _signal_patients(wish: Wish) -> int:
    """Patients that stand against the noise: local noise is stronger by the root of the number of hospitals."""
    if wish.noise_mode != LOCAL or wish.epsilon is None:
        return wish.nominal_patients
    return max(1, round(wish.nominal_patients / math.sqrt(len(wish.sites))))


def _local_steps(wish: Wish) -> int:
    if wish.noise_mode != LOCAL:
        if wish.local_steps not in (None, 1):
            raise PlanError("local steps need local noise: under distributed noise every step is one secure sum")
        return 1
    steps = _LOCAL_STEPS if wish.local_steps is None else wish.local_steps
    if steps < 1:
        raise PlanError(f"local steps: at least 1, got {steps}")
    return steps


def settings(wish: Wish) -> Hyperparameters:
    """The recipe for a wish; another number of steps keeps the length of the path."""
    recipe = recommended(
        wish.epsilon,
        nominal_patients=_signal_patients(wish),
        delta=wish.delta,
        sampling_prob=wish.sampling_prob,
    )
    if wish.rounds is None:
        return recipe
    if wish.rounds < 1:
        raise PlanError(f"rounds: at least 1, got {wish.rounds}")
    steps = wish.rounds * _local_steps(wish)
    return replace(
        recipe,
        rounds=steps,
        learning_rate=recipe.learning_rate * recipe.rounds / steps,
        averaged_rounds=min(recipe.averaged_rounds, steps),
    )


def _calibrate(
    wish: Wish, answers: _Answers, steps: int, sampling_prob: float, *, mean_like: tuple[int, float] | None
) -> tuple[float, float | None]:
    """Noise multipliers of the steps and of the feature mean, if any, that together cost `wish.epsilon`.

    Args: mean_like: the mean gets the noise that this many steps alone would need, times the factor; None: no mean.
    """
    epsilon = wish.epsilon
    if epsilon is None:
        return 0.0, 0.0 if mean_like is not None else None

    def calibrated(rounds: int, *extra_events: FeatureMean) -> float:
        return calibrate_noise_multiplier(
            epsilon=epsilon,
            delta=wish.delta,
            rounds=rounds,
            sampling_prob=sampling_prob,
            extra_events=extra_events,
            cache_dir=answers.cache_dir,
            progress=answers.progress,
        )

    if mean_like is None:
        return calibrated(steps), None
    mean_noise = round(calibrated(mean_like[0]) * mean_like[1], 3)
    return calibrated(steps, FeatureMean(mean_noise, FEATURE_MEAN_PURPOSE)), mean_noise


def read_settings(path: Path) -> dict[str, Any]:
    """A JSON object of settings, such as an encoder's. Raises PlanError for anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError(f"{path}: {error}") from None
    if not isinstance(value, dict):
        raise PlanError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def read_labels(path: Path) -> tuple[str, ...]:
    """A label space from a file; see `parse_labels`. Raises PlanError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: {error}") from None
    return parse_labels(text, str(path))


def parse_labels(text: str, what: str) -> tuple[str, ...]:
    """A label space, one code per line; blank lines and lines starting with # are skipped.

    Raises: PlanError naming the line of a code that is not three characters of an ICD-10 category, or repeats; and for
        fewer than two codes.
    """
    labels: set[str] = set()
    for number, line in enumerate(text.splitlines(), start=1):
        code = line.split("#", 1)[0].strip().upper()
        if not code:
            continue
        if not _CATEGORY.fullmatch(code):
            raise PlanError(f"{what}, line {number}: {code!r} is not a three-character ICD-10 category, such as I10")
        if code in labels:
            raise PlanError(f"{what}, line {number}: {code} is listed twice")
        labels.add(code)
    if len(labels) < 2:
        raise PlanError(f"{what}: a label space needs at least two codes, found {len(labels)}")
    return tuple(sorted(labels))
