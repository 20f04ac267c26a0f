"""What a hospital counts when it evaluates a version, and what everybody may read from the counts with noise.

The counts fall into groups in which one patient, with one admission, adds at most 1 to at most one cell:

    admissions | right@1 | right@3 | per threshold: automatic | automatic and right
    per chapter: true code in it | code given in it | true code in it and right
    with a predecessor, on the same admissions: right@1 | both give the same code
    per chapter: code given in it | true code in it and right | true code in it and both give the same code

A histogram over chapters is one group however many chapters it has. So the whole vector moves by at most the square
root of the number of groups, and one Gaussian mechanism releases all of it.

Invariants:
- The layout follows from the plan alone: thresholds, label space, whether there is a predecessor.
- Everything after the noise is post-processing and costs nothing.
- A chapter with fewer than `MINIMUM_CELL` admissions by the noisy count is reported as null, all of its figures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.icd_coding.chapters import chapter_of, chapters_of
from jobs.icd_coding.errors import EvaluationError
from jobs.icd_coding.evaluation import confidence_and_correct, proportion_interval, top_labels

MINIMUM_CELL = 10
_Z = 1.96  # a 95% interval of a count under noise


@dataclass(frozen=True)
class MetricLayout:
    """Which counts a report holds, in order.

    Attributes:
        thresholds: confidences at or above which a code would be automatic, ascending.
        label_space: the plan's codes, in the order of the model's columns.
        predecessor: whether an earlier version is scored on the same admissions.
    """

    thresholds: tuple[float, ...]
    label_space: tuple[str, ...]
    predecessor: bool

    @property
    def chapters(self) -> tuple[str, ...]:
        """Chapters of the label space; true codes of other chapters are in no chapter's cell."""
        return chapters_of(self.label_space)

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each count, in order."""
        names = ["admissions", "right@1", "right@3"]
        for threshold in self.thresholds:
            names += [f"automatic {threshold:g}", f"automatic right {threshold:g}"]
        names += [f"{what}/{chapter}" for what in ("true", "predicted", "right") for chapter in self.chapters]
        if self.predecessor:
            names += ["predecessor right", "same"]
            cells = ("predecessor predicted", "predecessor right", "same")
            names += [f"{what}/{chapter}" for what in cells for chapter in self.chapters]
        return tuple(names)

    @property
    def l2_sensitivity(self) -> float:
        """By how much one patient moves the vector at most: the root of the number of groups."""
        histograms = 3 * bool(self.chapters)
        groups = 3 + 2 * len(self.thresholds) + histograms
        return float((groups + (2 + histograms if self.predecessor else 0)) ** 0.5)

    def count(
        self, score: NDArray[np.floating], true_codes: NDArray[np.str_], earlier: NDArray[np.str_] | None
    ) -> NDArray[np.int64]:
        """Count, without noise.

        Args:
            score: (n, labels) of one admission per patient.
            true_codes: (n,) codes; one outside the label space is never right, but has its chapter.
            earlier: (n,) codes the predecessor gives, or None if the layout has none.
        Returns: whole numbers in the order of `names`.
        Raises: EvaluationError if shapes do not fit, or a predecessor is missing or not asked for.
        """
        if (earlier is not None) != self.predecessor:
            raise EvaluationError("metrics: the predecessor's codes are needed exactly if the plan names one")
        if true_codes.shape != (len(score),) or (earlier is not None and earlier.shape != true_codes.shape):
            raise EvaluationError(f"metrics: expected {len(score)} codes, got shapes that differ")
        position = {code: index for index, code in enumerate(self.label_space)}
        truth = np.array([position.get(str(code), -1) for code in true_codes], dtype=np.int64)
        confidence, correct = confidence_and_correct(score, truth)
        counts = [len(truth), correct.sum(), (top_labels(score, 3) == truth[:, None]).any(axis=1).sum()]
        for threshold in self.thresholds:
            automatic = confidence >= threshold
            counts += [automatic.sum(), (automatic & correct).sum()]
        given = np.array(self.label_space, dtype=np.str_)[top_labels(score, 1)[:, 0]]
        true_chapter = self._chapter_index(true_codes)
        counts += [
            *self._histogram(true_chapter),
            *self._histogram(self._chapter_index(given)),
            *self._histogram(true_chapter[correct]),
        ]
        if earlier is not None:
            earlier_right, same = earlier == true_codes, earlier == given
            counts += [
                earlier_right.sum(),
                same.sum(),
                *self._histogram(self._chapter_index(earlier)),
                *self._histogram(true_chapter[earlier_right]),
                *self._histogram(true_chapter[same]),
            ]
        return np.array(counts, dtype=np.int64)

    def values(
        self, noisy: NDArray[np.integer], *, noise_std: float, precision_target: float
    ) -> dict[str, dict[str, float | None]]:
        """Metrics with 95% intervals from the noisy counts.

        Returns: name -> {value, lower, upper}: admissions, hit@1, hit@3; threshold, coverage and precision at the
            lowest threshold whose noisy precision reaches the target (threshold 1, coverage 0 if none does); per
            chapter true, predicted (counts) and hit@1; with a predecessor predecessor-hit@1, agreement, and per
            chapter predecessor-predicted, predecessor-hit@1, agreement.
        """
        counts = dict(zip(self.names, (float(count) for count in noisy.tolist()), strict=True))

        def share(part: float, whole: float) -> dict[str, float | None]:
            interval = proportion_interval(part, whole, noise_std=noise_std)
            return _figure(0.0 if interval.value is None else interval.value, interval.lower, interval.upper)

        def count(value: float) -> dict[str, float | None]:
            return _figure(value, value - _Z * noise_std, value + _Z * noise_std)

        admissions = counts["admissions"]
        values = {
            "admissions": count(admissions),
            "hit@1": share(counts["right@1"], admissions),
            "hit@3": share(counts["right@3"], admissions),
        }
        threshold, automatic, right = 1.0, 0.0, 0.0
        for each in self.thresholds:
            found, found_right = counts[f"automatic {each:g}"], counts[f"automatic right {each:g}"]
            if found > 0 and found_right / found >= precision_target:
                threshold, automatic, right = each, found, found_right
                break
        values["threshold"] = _figure(threshold, None, None)
        values["coverage"] = share(automatic, admissions)
        values["precision"] = share(right, automatic)
        if self.predecessor:
            values["predecessor-hit@1"] = share(counts["predecessor right"], admissions)
            values["agreement"] = share(counts["same"], admissions)
        for chapter in self.chapters:
            true = counts[f"true/{chapter}"]
            figures = {
                f"true/{chapter}": count(true),
                f"predicted/{chapter}": count(counts[f"predicted/{chapter}"]),
                f"hit@1/{chapter}": share(counts[f"right/{chapter}"], true),
            }
            if self.predecessor:
                figures |= {
                    f"predecessor-predicted/{chapter}": count(counts[f"predecessor predicted/{chapter}"]),
                    f"predecessor-hit@1/{chapter}": share(counts[f"predecessor right/{chapter}"], true),
                    f"agreement/{chapter}": share(counts[f"same/{chapter}"], true),
                }
            if true < MINIMUM_CELL:
                figures = dict.fromkeys(figures, _figure(None, None, None))
            values |= figures
        return values

    def _chapter_index(self, codes: NDArray[np.str_]) -> NDArray[np.int64]:
        """The chapter's place in `chapters`; -1 for another chapter."""
        place = {chapter: index for index, chapter in enumerate(self.chapters)}
        kinds, which = np.unique(codes, return_inverse=True)
        places = np.array([place.get(chapter_of(str(code)) or "", -1) for code in kinds], dtype=np.int64)
        return np.asarray(places[which], dtype=np.int64) if len(kinds) else np.zeros(0, dtype=np.int64)

    def _histogram(self, chapters: NDArray[np.int64]) -> list[int]:
        return [int(cell) for cell in np.bincount(chapters[chapters >= 0], minlength=len(self.chapters))]


def _figure(value: float | None, lower: float | None, upper: float | None) -> dict[str, float | None]:
    return {"value": value, "lower": lower, "upper": upper}
