"""The plan's model on a hospital's letters: gradients and scores of admissions, whatever the kind of model.

A linear model sees letters as feature vectors, encoded once for the whole run; a fine-tuned encoder sees them as
tokens. Both give sums in which one patient counts for at most the clip, and scores. Everything here is private data.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from jobs.icd_coding.errors import ModelFormatError
from jobs.icd_coding.lora import LoraModel, LoraParameters
from jobs.icd_coding.model import FeatureRows, LinearModel, Parameters, scores
from jobs.plan import Plan
from jobs.terms import plan_encoder, plan_model, plan_recipe

AnyParameters: TypeAlias = Parameters | LoraParameters
Rows: TypeAlias = NDArray[np.int64]


class LinearLearner:
    """A linear model on encoded letters; `rows` are the feature vectors, norm at most 1."""

    def __init__(self, plan: Plan, texts: Sequence[str], models: Path | None) -> None:
        self._plan = plan
        cache = None if models is None else models / "cache"
        self.rows: FeatureRows = plan_encoder(plan).opened(models=models, cache=cache).encode(texts)

    def gradient_sum(
        self, parameters: AnyParameters, chosen: Rows, labels: NDArray[np.int64], l2_clip_norm: float
    ) -> tuple[NDArray[np.float64], int]:
        """Sum of clipped gradients of these admissions, one per patient; and how many were dropped as not finite."""
        from jobs.icd_coding.gradient import clipped_gradient_sum  # seconds to import, and only training needs it

        recipe = plan_recipe(self._plan)
        return clipped_gradient_sum(
            linear_parameters(parameters),
            self.rows[chosen],
            labels,
            l2_clip_norm,
            bias_scale=recipe.bias_scale,
            label_smoothing=recipe.label_smoothing,
        )

    def scores(self, parameters: AnyParameters, chosen: Rows) -> NDArray[np.float64]:
        """(chosen, labels) scores."""
        return scores(linear_parameters(parameters), self.rows[chosen])


class TunedLearner:
    """A fine-tuned encoder (LoRA) on letters as tokens."""

    def __init__(self, model: LoraModel, texts: Sequence[str], models: Path | None) -> None:
        from jobs.icd_coding.lora_learner import LoraLearner  # torch and transformers take seconds to import

        self._learner = LoraLearner.open(model, models)
        self._tokens: Any = self._learner.tokens(texts)

    def gradient_sum(
        self, parameters: AnyParameters, chosen: Rows, labels: NDArray[np.int64], l2_clip_norm: float
    ) -> tuple[NDArray[np.float64], int]:
        """Sum of clipped gradients of these admissions, one per patient; and how many were dropped as not finite."""
        return self._learner.clipped_gradient_sum(_tuned(parameters), self._tokens, chosen, labels, l2_clip_norm)

    def scores(self, parameters: AnyParameters, chosen: Rows) -> NDArray[np.float64]:
        """(chosen, labels) scores."""
        return self._learner.scores(_tuned(parameters), self._tokens, chosen)


Learner: TypeAlias = LinearLearner | TunedLearner


def learner(plan: Plan, texts: Sequence[str], models: Path | None) -> Learner:
    """The plan's model on these letters.

    Args: models: the folder of installed encoders; None where none is installed.
    """
    model = plan_model(plan)
    return LinearLearner(plan, texts, models) if isinstance(model, LinearModel) else TunedLearner(model, texts, models)


def linear_parameters(parameters: AnyParameters) -> Parameters:
    """The parameters, if they are a linear model's. Raises ModelFormatError."""
    if not isinstance(parameters, Parameters):
        raise ModelFormatError("expected a linear model's parameters")
    return parameters


def _tuned(parameters: AnyParameters) -> LoraParameters:
    if not isinstance(parameters, LoraParameters):
        raise ModelFormatError("expected a fine-tuned encoder's parameters")
    return parameters
