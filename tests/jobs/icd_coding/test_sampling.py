"""One admission for every sampled patient."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.icd_coding.errors import BatchError
from jobs.icd_coding.sampling import one_admission_per_patient

PATIENTS = np.array([7, 3, 7, 9, 7, 3])


def seeded(seed: int) -> Callable[[int], bytes]:
    return np.random.default_rng(seed).bytes


def test_each_sampled_patient_is_there_once_in_order() -> None:
    for seed in range(50):
        chosen = one_admission_per_patient(PATIENTS, np.array([9, 7, 3]), seeded(seed))
        assert PATIENTS[chosen].tolist() == [9, 7, 3]


def test_every_admission_is_equally_likely() -> None:
    patients = np.repeat(np.arange(3000), 3)
    chosen = one_admission_per_patient(patients, np.arange(3000), seeded(0))
    counts = np.bincount(chosen % 3, minlength=3)
    assert (abs(counts - 1000) < 4 * (3000 * 2 / 9) ** 0.5).all()


def test_nobody_sampled_draws_nothing() -> None:
    assert one_admission_per_patient(PATIENTS, np.zeros(0, np.int64), seeded(0)).tolist() == []


def test_bytes_decide_alone() -> None:
    sampled = np.array([3, 7])
    assert (
        one_admission_per_patient(PATIENTS, sampled, seeded(5))
        == one_admission_per_patient(PATIENTS, sampled, seeded(5))
    ).all()


@pytest.mark.parametrize(
    ("patients", "sampled", "message"),
    [
        (PATIENTS, np.array([7, 7]), "sampled twice"),
        (PATIENTS, np.array([8]), "1 sampled patients have no admission"),
        (PATIENTS[:0], np.array([8]), "no admission"),
        (PATIENTS.reshape(2, 3), np.array([7]), "flat arrays"),
    ],
)
def test_bad_samples_are_refused(patients: NDArray[np.int64], sampled: NDArray[np.int64], message: str) -> None:
    with pytest.raises(BatchError, match=message):
        one_admission_per_patient(patients, sampled, seeded(0))
