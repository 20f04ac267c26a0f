"""The model's way through a run: from the noisy sums of a plan's aggregations to versions.

Deterministic: the same plan and sums give the same versions. Everything here is computed from released sums and the
plan's constants, so it costs no privacy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from jobs.icd_coding.centring import feature_mean
from jobs.icd_coding.errors import BatchError, ModelFormatError
from jobs.icd_coding.iterate import from_iterate, to_iterate
from jobs.icd_coding.lora import LoraParameters
from jobs.icd_coding.model import LinearModel, Parameters
from jobs.icd_coding.optimiser import initial_state, load_state, move, published_iterate, skipped, state_bytes, step
from jobs.icd_coding.ridge import solve
from jobs.plan import RIDGE, Plan
from jobs.terms import aggregation_terms, plan_model, plan_recipe, plan_ridge
from privacy.events import FeatureMean, LocalSteps, StatisticsRelease


class Training:
    """The coordinator's model and optimiser during one run."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._model = plan_model(plan)
        self._recipe = None if plan.estimator == RIDGE else plan_recipe(plan)
        self.parameters: Parameters | LoraParameters = self._model.initial()  # what the next aggregation starts from
        if self._recipe is not None:
            self._state = initial_state(to_iterate(self.parameters, bias_scale=self._recipe.bias_scale))

    def apply(self, number: int, noisy_sum: NDArray[np.float64], *, hospitals: int) -> None:
        """Take in the decoded sum of aggregation `number`; `parameters` is the version it makes.

        Args: hospitals: how many are in the sum; public.
        Raises: BatchError when the sum does not fit the model or is not finite.
        """
        event = self._plan.event(number)
        if isinstance(event, FeatureMean):
            mean = feature_mean(noisy_sum, expected_batch=float(self._plan.nominal_patients))
            self.parameters = self._with_mean(mean)
        elif isinstance(event, StatisticsRelease):
            self.parameters = self._solved(number, noisy_sum, hospitals)
        else:
            self._step(noisy_sum, hospitals, local=isinstance(event, LocalSteps))

    def skip(self, number: int) -> None:
        """Go on without aggregation `number`, whose sum was lost; the model stays as it is."""
        if not isinstance(self._plan.event(number), FeatureMean | StatisticsRelease):
            self._state = skipped(self._state)

    def optimiser_bytes(self) -> bytes | None:
        """The optimiser's state; with `parameters` it is all that `restore` needs. None where there is none."""
        return None if self._recipe is None else state_bytes(self._state)

    def restore(self, model: bytes, optimiser: bytes | None) -> None:
        """Take up a model and an optimiser's state from earlier.

        Raises: ModelFormatError when they are not of this plan's model.
        """
        if (optimiser is None) != (self._recipe is None):
            raise ModelFormatError("optimiser state: expected one exactly if the plan takes gradient steps")
        self.parameters = self._model.load(model)
        if optimiser is not None:
            self._state = load_state(optimiser, self._model.vector_length)

    def _linear(self) -> tuple[LinearModel, Parameters]:
        if not isinstance(self._model, LinearModel) or not isinstance(self.parameters, Parameters):
            raise BatchError("this sum belongs to a linear model, and the plan trains another kind")
        return self._model, self.parameters

    def _with_mean(self, mean: NDArray[np.float32]) -> Parameters:
        _, parameters = self._linear()
        return Parameters(weight=parameters.weight, bias=parameters.bias, feature_mean=mean)

    def _solved(self, number: int, noisy_sum: NDArray[np.float64], hospitals: int) -> Parameters:
        model, parameters = self._linear()
        terms, settings = aggregation_terms(self._plan, number), plan_ridge(self._plan)
        return solve(
            noisy_sum,
            features=model.features,
            labels=model.labels,
            gram_share=settings.gram_share,
            # What the hospitals in the sum added together; each adds the same.
            noise_std=terms.noise_std / terms.scale * hospitals**0.5,
            regularisation=settings.regularisation,
            bias_scale=settings.bias_scale,
            feature_mean=parameters.feature_mean,
            confidence_scale=settings.confidence_scale,
        )

    def _step(self, noisy_sum: NDArray[np.float64], hospitals: int, *, local: bool) -> None:
        recipe = self._recipe
        if recipe is None:
            raise BatchError("a ridge plan has no gradient steps")
        if local:
            self._state = move(self._state, noisy_sum, recipe, hospitals=hospitals)
        else:
            self._state = step(self._state, noisy_sum, recipe, expected_batch=self._plan.expected_batch)
        mean = self.parameters.feature_mean if isinstance(self.parameters, Parameters) else None
        self.parameters = from_iterate(
            published_iterate(self._state, recipe), self._model, bias_scale=recipe.bias_scale, feature_mean=mean
        )
