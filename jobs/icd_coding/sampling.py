"""Which admission stands for a sampled patient.

The unit of privacy is the patient: each round samples patients independently (Poisson sampling), and a
sampled patient is present with exactly one admission, drawn at random. However many admissions a patient has,
they then contribute one clipped vector, and the accountant's analysis of Poisson sampling is exact.

`patient_index` is private data and stays at the hospital.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from jobs.icd_coding.errors import BatchError


def one_admission_per_patient(
    patient_index: NDArray[np.integer],
    sampled_patients: NDArray[np.integer],
    random_bytes: Callable[[int], bytes],
) -> NDArray[np.int64]:
    """Draw one admission for every sampled patient, uniformly among that patient's admissions.

    Args:
        patient_index: (admissions,) the patient of each admission.
        sampled_patients: (k,) distinct patients drawn for this round.
        random_bytes: a cryptographic source, `n -> n bytes`; called once, for 8 bytes per patient.

    Returns: (k,) row numbers into `patient_index`, in the order of `sampled_patients`.
    Raises: BatchError if a sampled patient repeats (they would contribute twice) or has no admission.
    """
    if patient_index.ndim != 1 or sampled_patients.ndim != 1:
        raise BatchError(f"sampling: expected two flat arrays, got {patient_index.shape} and {sampled_patients.shape}")
    if len(np.unique(sampled_patients)) != len(sampled_patients):
        raise BatchError("sampling: a patient was sampled twice; each may contribute one vector only")
    if not len(sampled_patients):
        return np.zeros(0, dtype=np.int64)
    by_patient = np.argsort(patient_index, kind="stable")
    ordered = patient_index[by_patient]
    first = np.searchsorted(ordered, sampled_patients, side="left")
    admissions = np.searchsorted(ordered, sampled_patients, side="right") - first
    if not admissions.all():
        raise BatchError(f"sampling: {int((admissions == 0).sum())} sampled patients have no admission")
    drawn = np.frombuffer(random_bytes(8 * len(sampled_patients)), dtype="<u8")
    # The remainder's bias is at most admissions / 2**64, far below what any sample could show.
    chosen = (drawn % admissions.astype(np.uint64)).astype(np.int64)
    return np.asarray(by_patient[first + chosen], dtype=np.int64)
