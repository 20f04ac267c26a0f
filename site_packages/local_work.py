"""The computation at a hospital: from its records to one vector of a round, or to counts of an evaluation.

Everything here is private data until the participant has added noise. Patients are Poisson-sampled and each sampled
patient contributes one admission, drawn at random, so one patient moves a sum by at most the clip.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from jobs.icd_coding.centring import feature_sum
from jobs.icd_coding.evaluation import metric_counts
from jobs.icd_coding.model import Parameters, scores
from jobs.icd_coding.sampling import one_admission_per_patient
from jobs.plan import Plan
from jobs.terms import model_shape, plan_encoder
from privacy.events import FeatureMean
from privacy.sampling import poisson_sample
from privacy.secagg.quantisation import CLIP_MARGIN
from site_packages.dataset import Dataset, Indices

_LOG = logging.getLogger(__name__)

RandomBytes = Callable[[int], bytes]


@dataclass(frozen=True, eq=False)
class Cohort:
    """Encoded admissions of some patients. All of it is private.

    Attributes:
        rows: (admissions, features), norm at most 1.
        labels: (admissions,) columns of the label space; -1 is a code outside it.
        patient_index: (admissions,) patients numbered 0..patients-1.
    """

    rows: sparse.csr_matrix
    labels: NDArray[np.int64]
    patient_index: Indices
    patients: int


class LocalWork:
    """A hospital's part of one plan's work."""

    def __init__(self, plan: Plan, training: Dataset, test: Dataset) -> None:
        """Encodes the admissions of both sides of the split once for the whole run."""
        self._plan = plan
        self._shape = model_shape(plan)
        # Training on a code outside the label space is not possible; its admissions are left out before sampling.
        known = np.flatnonzero(training.label_indices(plan.label_space) >= 0)
        self.training = _encode(plan, training.take(known))
        self.test = _encode(plan, test)

    def contribution(self, parameters: Parameters, number: int, random_bytes: RandomBytes) -> NDArray[np.float64]:
        """This hospital's sum for aggregation `number`, without noise.

        Returns: float64 of the model's vector length; one patient moves it by at most the aggregation's clip.
        """
        plan, cohort = self._plan, self.training
        event = plan.event(number)
        sampled = poisson_sample(cohort.patients, event.sampling_prob, random_bytes)
        chosen = one_admission_per_patient(cohort.patient_index, sampled, random_bytes)
        rows = cohort.rows[chosen]
        if isinstance(event, FeatureMean):
            features, dropped = feature_sum(rows)
            total = np.zeros(self._shape.vector_length)
            # The margin keeps float64 rounding of norms and sums inside the bound.
            total[: self._shape.features] = features * (1 - CLIP_MARGIN)
            self._tell(number, dropped)
            return total
        from jobs.icd_coding.gradient import clipped_gradient_sum  # seconds to import, and only training needs it

        total, dropped = clipped_gradient_sum(
            parameters,
            rows,
            cohort.labels[chosen],
            plan.l2_clip_norm * (1 - CLIP_MARGIN),
            bias_scale=plan.model["bias_scale"],
            label_smoothing=plan.model["label_smoothing"],
        )
        self._tell(number, dropped)
        return total

    @staticmethod
    def _tell(number: int, dropped: int) -> None:
        if dropped:  # a private number: for the hospital's own log only
            _LOG.warning("round %d: %d records with numbers that are not finite were left out", number, dropped)

    def metric_counts(
        self, parameters: Parameters, thresholds: tuple[float, ...], random_bytes: RandomBytes
    ) -> NDArray[np.int64]:
        """`evaluation.metric_counts` of the test patients, one admission each, without noise."""
        cohort = self.test
        everybody = np.arange(cohort.patients, dtype=np.int64)
        chosen = one_admission_per_patient(cohort.patient_index, everybody, random_bytes)
        return metric_counts(scores(parameters, cohort.rows[chosen]), cohort.labels[chosen], thresholds)


def _encode(plan: Plan, dataset: Dataset) -> Cohort:
    return Cohort(
        rows=plan_encoder(plan).encode(dataset.texts),
        labels=dataset.label_indices(plan.label_space),
        patient_index=dataset.patient_index,
        patients=len(dataset.patients),
    )
