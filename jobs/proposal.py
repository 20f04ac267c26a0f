"""From a wish to a plan: which hospitals, which codes, how much epsilon.

What a plan needs beyond the wish comes from public things only: the recipe measured for this model, and a nominal
number of patients that does not follow any one of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from jobs.errors import PlanError
from jobs.icd_coding.encoder import HashedNgrams
from jobs.icd_coding.model import LinearModel, version_id
from jobs.icd_coding.recipe import Hyperparameters, recommended
from jobs.plan import FEATURE_MEAN_PURPOSE, Plan
from jobs.terms import check_terms
from privacy.accounting import accountant
from privacy.calibration import calibrate_noise_multiplier
from privacy.events import NEIGHBORING_RELATION, UNIT, FeatureMean

_CATEGORY = re.compile(r"[A-Z][0-9][0-9A-Z]")

SCALE = 1 << 24  # integer units per 1.0: rounding adds about 1e-5 to the sensitivity at 4e5 coordinates
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
    features: int = 4096
    colluders: int = 1
    dropouts: int = 0
    metrics_epsilon: float = 4.0
    thresholds: tuple[float, ...] = (0.3, 0.5, 0.7, 0.9)
    precision_target: float = 0.9
    label_system: str = "ICD-10 (WHO 2019), three characters"


def make_plan(wish: Wish, *, cache_dir: Path | None = None) -> Plan:
    """Build and check the plan for a wish; the noise is calibrated so that the whole run costs `epsilon`.

    Raises: PlanError, AccountingError, EncoderError: what the wish cannot have.
    """
    encoder = HashedNgrams(features=wish.features)
    recipe = settings(wish)
    noise, mean_noise = _calibrate(wish, recipe, cache_dir)
    report_noise = calibrate_noise_multiplier(
        epsilon=wish.metrics_epsilon, delta=wish.delta, rounds=1, sampling_prob=1.0, cache_dir=cache_dir
    )
    shape = LinearModel(features=encoder.features, labels=len(wish.label_space))
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
        model={"kind": "linear", "bias_scale": recipe.bias_scale, "label_smoothing": recipe.label_smoothing},
        optimiser={
            "learning_rate": recipe.learning_rate,
            "momentum": recipe.momentum,
            "averaged_rounds": recipe.averaged_rounds,
        },
        rounds=recipe.rounds,
        sampling_prob=recipe.sampling_prob,
        l2_clip_norm=recipe.l2_clip_norm,
        noise_multiplier=noise,
        feature_mean_noise_multiplier=mean_noise,
        noise_mode="distributed",
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
        },
        initial_version=version_id(shape.initial().to_bytes()),
    )
    check_terms(plan)
    return plan


def settings(wish: Wish) -> Hyperparameters:
    """The recipe for a wish; another number of rounds keeps the length of the path."""
    recipe = recommended(
        wish.epsilon,
        nominal_patients=wish.nominal_patients,
        delta=wish.delta,
        sampling_prob=wish.sampling_prob,
    )
    if wish.rounds is None:
        return recipe
    if wish.rounds < 1:
        raise PlanError(f"rounds: at least 1, got {wish.rounds}")
    return replace(
        recipe,
        rounds=wish.rounds,
        learning_rate=recipe.learning_rate * recipe.rounds / wish.rounds,
        averaged_rounds=min(recipe.averaged_rounds, wish.rounds),
    )


def _calibrate(wish: Wish, recipe: Hyperparameters, cache_dir: Path | None) -> tuple[float, float | None]:
    """Noise multipliers of the steps and of the feature mean, if any, that together cost `wish.epsilon`.

    The mean is released over all patients; at noise / sampling_prob it costs about what one step does.
    """
    epsilon = wish.epsilon
    if epsilon is None:
        return 0.0, 0.0 if recipe.centring else None

    def calibrated(rounds: int, *extra_events: FeatureMean) -> float:
        return calibrate_noise_multiplier(
            epsilon=epsilon,
            delta=wish.delta,
            rounds=rounds,
            sampling_prob=recipe.sampling_prob,
            extra_events=extra_events,
            cache_dir=cache_dir,
        )

    if not recipe.centring:
        return calibrated(recipe.rounds), None
    mean_noise = round(calibrated(recipe.rounds + 1) / recipe.sampling_prob, 3)
    return calibrated(recipe.rounds, FeatureMean(mean_noise, FEATURE_MEAN_PURPOSE)), mean_noise


def read_labels(path: Path) -> tuple[str, ...]:
    """A label space from a file with one code per line; blank lines and lines starting with # are skipped.

    Raises: PlanError naming the line of a code that is not three characters of an ICD-10 category, or repeats; and for
        fewer than two codes.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: {error}") from None
    labels: set[str] = set()
    for number, line in enumerate(lines, start=1):
        code = line.split("#", 1)[0].strip().upper()
        if not code:
            continue
        if not _CATEGORY.fullmatch(code):
            raise PlanError(f"{path}, line {number}: {code!r} is not a three-character ICD-10 category, such as I10")
        if code in labels:
            raise PlanError(f"{path}, line {number}: {code} is listed twice")
        labels.add(code)
    if len(labels) < 2:
        raise PlanError(f"{path}: a label space needs at least two codes, found {len(labels)}")
    return tuple(sorted(labels))
