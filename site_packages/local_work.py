"""The computation at a hospital: from its records to one vector of a round, or to counts of an evaluation.

Everything here is private data until noise was added: by the participant to what is sent, or here to every local step.
Patients are Poisson-sampled and each sampled patient contributes one admission, drawn at random, so one patient moves
a sum by at most the clip.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jobs.icd_coding.centring import feature_sum
from jobs.icd_coding.evaluation import top_labels
from jobs.icd_coding.iterate import from_iterate, to_iterate
from jobs.icd_coding.local_steps import local_move
from jobs.icd_coding.model import Parameters
from jobs.icd_coding.ridge import statistics
from jobs.icd_coding.sampling import one_admission_per_patient
from jobs.plan import Plan
from jobs.terms import aggregation_terms, evaluation_terms, plan_model, plan_recipe, plan_ridge, secagg_parameters
from privacy.events import FeatureMean, LocalSteps, StatisticsRelease
from privacy.noise import discrete_gaussian
from privacy.sampling import poisson_sample
from privacy.secagg.quantisation import CLIP_MARGIN, dequantise, quantise
from site_packages.dataset import Dataset, Indices
from site_packages.errors import DataError
from site_packages.learner import AnyParameters, LinearLearner, Rows, learner

_LOG = logging.getLogger(__name__)

RandomBytes = Callable[[int], bytes]


@dataclass(frozen=True, eq=False)
class Cohort:
    """Admissions of some patients, without their letters. All of it is private.

    Attributes:
        labels: (admissions,) columns of the label space; -1 is a code outside it.
        patient_index: (admissions,) patients numbered 0..patients-1.
    """

    labels: NDArray[np.int64]
    patient_index: Indices
    patients: int


@dataclass(frozen=True, eq=False)
class Earlier:
    """An earlier version, scored on the same admissions for comparison."""

    plan: Plan
    parameters: AnyParameters


class LocalWork:
    """A hospital's part of one plan's work."""

    def __init__(self, plan: Plan, training: Dataset, test: Dataset, *, models: Path | None = None) -> None:
        """Encodes the admissions of both sides of the split once for the whole run.

        Args: models: the folder of installed encoders, for plans whose encoder needs one.
        """
        self._plan = plan
        self._models = models
        self._length = secagg_parameters(plan, "work").dimension
        # Training on a code outside the label space is not possible; its admissions are left out before sampling.
        known = training.take(np.flatnonzero(training.label_indices(plan.label_space) >= 0))
        self.training = _cohort(plan, known)
        self._learner = learner(plan, known.texts, models)
        self._test = test
        self._test_learner = learner(plan, test.texts, models)

    def contribution(self, parameters: AnyParameters, number: int, random_bytes: RandomBytes) -> NDArray[np.float64]:
        """This hospital's vector for aggregation `number`: a sum without noise, or what noisy local steps moved.

        Returns: float64 of the run's vector length. One patient moves a sum by at most the aggregation's clip.
        """
        event = self._plan.event(number)
        if isinstance(event, LocalSteps):
            used = self._local_steps(parameters, number, random_bytes)
        else:
            chosen = self._sample(event.sampling_prob, random_bytes)
            if isinstance(event, FeatureMean):
                used, dropped = feature_sum(self._linear.rows[chosen])
            elif isinstance(event, StatisticsRelease):
                used, dropped = self._statistics(parameters, chosen)
            else:
                used, dropped = self._gradient_sum(parameters, chosen)
            self._tell(number, dropped)
            # The margin keeps float64 rounding of norms and sums inside the bound.
            used *= 1 - CLIP_MARGIN
        total = np.zeros(self._length)
        total[: len(used)] = used
        return total

    def metric_counts(
        self, parameters: AnyParameters, random_bytes: RandomBytes, *, earlier: Earlier | None = None
    ) -> NDArray[np.int64]:
        """The plan's counts (`MetricLayout.count`) of the test patients, one admission each, without noise."""
        test = self._test
        everybody = np.arange(len(test.patients), dtype=np.int64)
        chosen = one_admission_per_patient(test.patient_index, everybody, random_bytes)
        true_codes = np.array([test.labels[row] for row in chosen], dtype=np.str_)
        given: NDArray[np.str_] | None = None
        if earlier is not None:
            texts = [test.texts[row] for row in chosen]
            score = learner(earlier.plan, texts, self._models).scores(earlier.parameters, np.arange(len(texts)))
            given = np.array(earlier.plan.label_space, dtype=np.str_)[top_labels(score, 1)[:, 0]]
        return evaluation_terms(self._plan).layout.count(
            self._test_learner.scores(parameters, chosen), true_codes, given
        )

    # -- one round -----------------------------------------------------------------------------------------------

    @property
    def _linear(self) -> LinearLearner:
        if not isinstance(self._learner, LinearLearner):
            raise DataError("this sum needs fixed feature vectors, and the plan trains the encoder")
        return self._learner

    def _sample(self, sampling_prob: float, random_bytes: RandomBytes) -> Rows:
        sampled = poisson_sample(self.training.patients, sampling_prob, random_bytes)
        return one_admission_per_patient(self.training.patient_index, sampled, random_bytes)

    def _gradient_sum(self, parameters: AnyParameters, chosen: Rows) -> tuple[NDArray[np.float64], int]:
        return self._learner.gradient_sum(parameters, chosen, self.training.labels[chosen], self._plan.l2_clip_norm)

    def _statistics(self, parameters: AnyParameters, chosen: Rows) -> tuple[NDArray[np.float64], int]:
        settings = plan_ridge(self._plan)
        return statistics(
            self._linear.rows[chosen],
            self.training.labels[chosen],
            len(self._plan.label_space),
            gram_share=settings.gram_share,
            bias_scale=settings.bias_scale,
            feature_mean=parameters.feature_mean if isinstance(parameters, Parameters) else None,
        )

    def _local_steps(self, parameters: AnyParameters, number: int, random_bytes: RandomBytes) -> NDArray[np.float64]:
        plan, model = self._plan, plan_model(self._plan)
        terms, recipe = aggregation_terms(plan, number), plan_recipe(plan)
        mean = parameters.feature_mean if isinstance(parameters, Parameters) else None

        def noisy_gradient_sum(iterate: NDArray[np.float64]) -> NDArray[np.float64]:
            here = from_iterate(iterate, model, bias_scale=recipe.bias_scale, feature_mean=mean)
            total, dropped = self._gradient_sum(here, self._sample(plan.sampling_prob, random_bytes))
            self._tell(number, dropped)
            integers = quantise(total * (1 - CLIP_MARGIN), scale=terms.scale, bound=terms.step_bound)
            if plan.epsilon is not None:
                integers += discrete_gaussian(terms.dimension, terms.step_noise_std, random_bytes)
            return dequantise(integers, scale=terms.scale)

        return local_move(
            to_iterate(parameters, bias_scale=recipe.bias_scale),
            noisy_gradient_sum,
            recipe,
            steps=plan.local_steps,
            expected_batch=plan.expected_batch / len(plan.sites),
        )

    @staticmethod
    def _tell(number: int, dropped: int) -> None:
        if dropped:  # a private number: for the hospital's own log only
            _LOG.warning("round %d: %d records with numbers that are not finite were left out", number, dropped)


def _cohort(plan: Plan, dataset: Dataset) -> Cohort:
    return Cohort(
        labels=dataset.label_indices(plan.label_space),
        patient_index=dataset.patient_index,
        patients=len(dataset.patients),
    )
