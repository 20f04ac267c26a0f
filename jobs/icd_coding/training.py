"""The model's way through a run: from the noisy sums of a plan's aggregations to versions.

Deterministic: the same plan and sums give the same versions. Everything here is computed from released sums and the
plan's constants, so it costs no privacy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from jobs.icd_coding.centring import feature_mean
from jobs.icd_coding.model import Parameters
from jobs.icd_coding.optimiser import initial_state, published_parameters, step
from jobs.plan import Plan
from jobs.terms import plan_recipe
from privacy.events import FeatureMean


class Training:
    """The coordinator's model and optimiser during one run."""

    def __init__(self, plan: Plan, initial: Parameters) -> None:
        self._plan = plan
        self._recipe = plan_recipe(plan)
        self._state = initial_state(initial.shape)
        self._shape = initial.shape
        self._mean: NDArray[np.float32] = initial.feature_mean
        self.parameters = initial  # the version that the next aggregation starts from

    def apply(self, number: int, noisy_sum: NDArray[np.float64]) -> None:
        """Take in the decoded sum of aggregation `number`; `parameters` is the version it makes.

        Raises: BatchError when the sum does not fit the model or is not finite.
        """
        if isinstance(self._plan.event(number), FeatureMean):
            self._mean = feature_mean(noisy_sum, expected_batch=float(self._plan.nominal_patients))
        else:
            self._state = step(self._state, noisy_sum, self._recipe, expected_batch=self._plan.expected_batch)
        self.parameters = published_parameters(self._state, self._shape, self._recipe, feature_mean=self._mean)
