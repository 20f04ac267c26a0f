"""The attacker of an audit, who sees what every participant of a run sees: the model before and after each round.

From two versions in a row and the plan's public constants follows the sum that the round released. What is attacked is
therefore exactly what left, whatever the code on the way to it did. The ridge estimator's sum cannot be read from its
model; there the attacker is the server, which opens the sum.

The score of a canary is its log-likelihood ratio, in or out, given every release: the optimal test (Neyman and Pearson)
of an attacker who knows the canary, the versions and the plan.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from jobs.errors import SiteError
from jobs.icd_coding.centring import FEATURE_L2_NORM
from jobs.icd_coding.model import LinearModel, Parameters, scores, softmax
from jobs.icd_coding.ridge import statistics
from jobs.plan import LOCAL, Plan
from jobs.terms import plan_ridge
from jobs.transport import Message, Transport
from privacy.events import FeatureMean, LocalSteps


class Onlooker:
    """A transport that keeps the models it carries, and may keep one hospital's vector of a round from arriving."""

    def __init__(self, inner: Transport, *, lost: Mapping[int, str]) -> None:
        """Args: lost: round -> the hospital that is missing from it."""
        self._inner = inner
        self._lost = lost
        self.models: list[bytes] = []  # the model each round starts from, in order

    def call(
        self, method: str, requests: Mapping[str, Message], *, timeout_s: float
    ) -> Mapping[str, Message | SiteError]:
        if method != "round":
            return self._inner.call(method, requests, timeout_s=timeout_s)
        self.models.append(next(iter(requests.values()))["model"])
        answers = dict(self._inner.call(method, requests, timeout_s=timeout_s))
        lost = self._lost.get(len(self.models))
        if lost is not None:
            answers[lost] = SiteError(lost, "lost", "the audit keeps its vector from arriving")
        return answers


@dataclass(frozen=True, eq=False)
class Release:
    """One released sum, as the versions around it show it.

    Attributes:
        before: the model the round started from.
        total: (labels, features) the sum of clipped gradients, or (1, features) the sum of feature vectors. Of local
            steps the mean of the steps' sums, weighted as momentum weights them.
        clip: bound on one patient's part of it.
        noise_std: standard deviation of a coordinate, as claimed, with the hospitals that were there.
        sampling_prob: chance of a patient to be in it.
        is_mean: whether it is the sum of feature vectors.
    """

    before: Parameters
    total: NDArray[np.float64]
    clip: float
    noise_std: float
    sampling_prob: float
    is_mean: bool


def releases(plan: Plan, models: Sequence[bytes], hospitals: Sequence[int]) -> list[Release]:
    """The sums a run released, from its versions.

    The noise is computed from the plan's words alone, not by the code that hospitals use. Every hospital that was there
    adds a variance of (noise_multiplier * clip)^2 under local noise, and 1 / (sites - colluders - dropouts) of it else.

    Args:
        models: before the first aggregation, after it, ..., after the last.
        hospitals: how many were in each aggregation.
    """
    shape = LinearModel(features=int(plan.encoder["features"]), labels=len(plan.label_space))
    versions = [shape.load(model) for model in models]
    share = _noise_share(plan)
    rate, momentum = float(plan.optimiser["learning_rate"]), float(plan.optimiser["momentum"])
    carried = np.zeros((shape.labels, shape.features))
    found = []
    for number, (before, after) in enumerate(pairwise(versions), start=1):
        event, there = plan.event(number), hospitals[number - 1]
        clip = FEATURE_L2_NORM if isinstance(event, FeatureMean) else plan.l2_clip_norm
        std = event.noise_multiplier * clip * math.sqrt(share * there)
        moved = after.weight.astype(np.float64) - before.weight.astype(np.float64)
        if isinstance(event, FeatureMean):
            total = after.feature_mean.astype(np.float64)[None, :] * plan.nominal_patients
        elif isinstance(event, LocalSteps):
            # Momentum starts at rest in each round; the l-th of L steps counts 1 + momentum + ... + momentum^(L - l).
            counts = np.cumsum(momentum ** np.arange(event.steps))
            batch = plan.expected_batch / len(plan.sites)
            total = moved * (-there * batch * clip / rate / counts.sum())
            std *= float(np.linalg.norm(counts)) / float(counts.sum())
        else:
            total = (momentum * carried - moved) * (plan.expected_batch * clip / rate)
            carried = moved
        found.append(
            Release(
                before=before,
                total=total,
                clip=clip,
                noise_std=std,
                sampling_prob=plan.sampling_prob if isinstance(event, LocalSteps) else event.sampling_prob,
                is_mean=isinstance(event, FeatureMean),
            )
        )
    return found


@dataclass(frozen=True, eq=False)
class Seen:
    """What one release shows of the canaries and of its noise.

    Attributes:
        along: (m,) the released sum along each canary's own direction, in units of the clip.
        own: (m,) how much of that the canary itself would be, at most 1.
        noise: the coordinates that no canary touches, in units of the noise's claimed standard deviation.
        noise_std: claimed standard deviation of a coordinate, in units of the clip.
        sampling_prob: chance of a patient to be in the release.
    """

    along: NDArray[np.float64]
    own: NDArray[np.float64]
    noise: NDArray[np.float64]
    noise_std: float
    sampling_prob: float


def seen_sum(plan: Plan, release: Release, rows: sparse.csr_matrix, labels: NDArray[np.int64]) -> Seen:
    """What a sum of gradients or of feature vectors shows.

    No canary has text in the columns that the noise is read from, so a sum holds nothing there but noise. A centred
    text has a little of the mean in every column: a share of 1e-5 of the noise's variance, which no test here sees.
    """
    before = release.before
    if release.is_mean:
        along = np.asarray(rows @ release.total[0], dtype=np.float64)
        own = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
    else:
        smoothing, bias_scale = float(plan.model["label_smoothing"]), float(plan.model["bias_scale"])
        error = softmax(scores(before, rows)) - smoothing / before.shape.labels
        error[np.arange(len(labels)), labels] -= 1 - smoothing
        size = np.linalg.norm(error, axis=1)
        # A sum of gradients read as a model: its scores are the inner products with everyone's (centred) text vector.
        read = Parameters(
            weight=release.total.astype(np.float32),
            bias=np.zeros(before.shape.labels, dtype=np.float32),
            feature_mean=before.feature_mean,
        )
        along = np.einsum("ij,ij->i", error / size[:, None], scores(read, rows))
        own = size * np.minimum(1.0, release.clip / (size * math.hypot(1.0, bias_scale)))
    untouched = np.setdiff1d(np.arange(rows.shape[1]), rows.indices)
    return Seen(
        along=along / release.clip,
        own=own / release.clip,
        noise=(release.total[:, untouched] / release.noise_std).ravel(),
        noise_std=release.noise_std / release.clip,
        sampling_prob=release.sampling_prob,
    )


def seen_statistics(
    plan: Plan, total: NDArray[np.float64], hospitals: int, rows: sparse.csr_matrix, labels: NDArray[np.int64]
) -> Seen:
    """What the ridge estimator's one sum shows, which cannot be read from the model made of it.

    A canary's direction is its vector of statistics without the few coordinates that it shares with others.

    Args:
        total: the opened sum, as the server has it.
        hospitals: how many are in it.
    """
    settings = plan_ridge(plan)
    nowhere = np.zeros(rows.shape[1])
    vectors = []
    for index in range(len(labels)):
        alone, _ = statistics(
            rows[index],
            labels[index : index + 1],
            len(plan.label_space),
            gram_share=settings.gram_share,
            bias_scale=settings.bias_scale,
            feature_mean=nowhere,
        )
        vectors.append(sparse.csr_matrix(alone))
    matrix = sparse.vstack(vectors, format="csr")
    touched_by = np.bincount(matrix.indices, minlength=matrix.shape[1])
    matrix.data[touched_by[matrix.indices] > 1] = 0.0
    own = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    std = plan.noise_multiplier * math.sqrt(_noise_share(plan) * hospitals)
    return Seen(
        along=np.asarray(matrix @ total, dtype=np.float64) / own,
        own=own,
        noise=total[touched_by == 0] / std,
        noise_std=std,
        sampling_prob=1.0,
    )


def log_likelihood_ratio(found: Sequence[Seen]) -> NDArray[np.float64]:
    """How much likelier all releases are with each canary than without: (m,), in nats."""
    total = np.zeros(len(found[0].own))
    for seen in found:
        gain = (seen.along * seen.own - seen.own**2 / 2) / seen.noise_std**2
        absent = math.log1p(-seen.sampling_prob) if seen.sampling_prob < 1 else -math.inf
        total += np.logaddexp(absent, math.log(seen.sampling_prob) + gain)
    return total


def _noise_share(plan: Plan) -> float:
    """What each hospital brings of the variance (noise_multiplier * clip)^2, by the plan's words alone."""
    return 1 / (1 if plan.noise_mode == LOCAL else len(plan.sites) - plan.colluders - plan.dropouts)
