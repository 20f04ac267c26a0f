"""Data sets in memory and the split by patient."""

from __future__ import annotations

import numpy as np
import pytest

from site_packages.dataset import Dataset, dataset_from_records, patient_side, split_patients
from site_packages.errors import DatasetError

KEY = b"a hospital's own secret"


def many(patients: int) -> Dataset:
    ids = [f"p{i % patients}" for i in range(patients * 2)]
    return dataset_from_records(ids, [f"text {i}" for i in range(len(ids))], ["H25"] * len(ids))


def test_patients_are_numbered_by_their_sorted_ids() -> None:
    dataset = dataset_from_records(["b", "a", "b"], ["1", "2", "3"], ["H25", "H26", "G35"], sexes=["male"] * 3)
    assert dataset.patients == ("a", "b")
    assert dataset.patient_index.dtype == np.int64
    assert dataset.patient_index.tolist() == [1, 0, 1]
    assert [rows.tolist() for rows in dataset.rows_by_patient()] == [[1], [0, 2]]
    assert dataset.age.tolist() == [-1, -1, -1]
    assert dataset.category_counts() == {"G35": 1, "H25": 1, "H26": 1}


def test_labels_outside_the_label_space_are_marked() -> None:
    dataset = dataset_from_records(["b", "a", "b"], ["1", "2", "3"], ["H25", "H26", "G35"])
    assert dataset.label_indices(["G35", "H25"]).tolist() == [1, -1, 0]


def test_take_numbers_patients_anew() -> None:
    dataset = dataset_from_records(["b", "a", "c"], ["1", "2", "3"], ["H25", "H26", "G35"], years=[2021, 2022, 2023])
    part = dataset.take(np.array([2, 0]))
    assert part.patients == ("b", "c")
    assert part.patient_index.tolist() == [1, 0]
    assert (part.texts, part.labels, part.year.tolist()) == (("3", "1"), ("G35", "H25"), [2023, 2021])
    assert len(dataset.take(np.array([], dtype=np.int64))) == 0
    for rows in ([3], [-1]):
        with pytest.raises(DatasetError, match="from 0 to 2"):
            dataset.take(np.array(rows))


def test_empty_data_set() -> None:
    dataset = dataset_from_records([], [], [])
    assert (len(dataset), dataset.rows_by_patient(), dataset.label_indices(["H25"]).tolist()) == (0, [], [])


def test_records_of_different_lengths_and_unknown_sex() -> None:
    with pytest.raises(DatasetError, match="texts has 1 entries, expected 2"):
        dataset_from_records(["a", "b"], ["1"], ["H25", "H25"])
    with pytest.raises(DatasetError, match="got 'V'"):
        dataset_from_records(["a"], ["1"], ["H25"], sexes=["V"])


def test_a_patient_is_on_one_side() -> None:
    dataset = many(500)
    split = split_patients(dataset, KEY, (0.7, 0.1, 0.2))
    sides = [set(dataset.patient_index[rows].tolist()) for rows in (split.train, split.calibration, split.test)]
    assert sum(len(side) for side in sides) == len(set.union(*sides)) == 500
    assert sorted(np.concatenate([split.train, split.calibration, split.test]).tolist()) == list(range(1000))
    shares = [len(side) / 500 for side in sides]
    assert np.allclose(shares, (0.7, 0.1, 0.2), atol=0.05)


def test_sides_stay_when_more_is_imported_and_change_with_the_key() -> None:
    small, large = many(100), many(400)
    before = {small.patients[i] for i in small.patient_index[split_patients(small, KEY).train]}
    after = {large.patients[i] for i in large.patient_index[split_patients(large, KEY).train]}
    assert before == after & set(small.patients)
    other = {large.patients[i] for i in large.patient_index[split_patients(large, KEY + b"2").train]}
    assert other != after


def test_the_side_is_the_keyed_hash() -> None:
    # printf p1 | openssl dgst -sha256 -hmac 0123456789abcdef gives 8d5257bb54893131...: 0.55203 of the range
    key = b"0123456789abcdef"
    assert patient_side("p1", key, (0.5521, 0.4479, 0.0)) == "train"
    assert patient_side("p1", key, (0.5520, 0.4480, 0.0)) == "calibration"
    assert patient_side("p1", key, (0.5000, 0.0520, 0.4480)) == "test"


@pytest.mark.parametrize("fractions", [(0.5, 0.5, 0.5), (1.2, -0.1, -0.1), (0.0, 0.0, 0.0), (float("nan"), 0.5, 0.5)])
def test_fractions_must_be_shares(fractions: tuple[float, float, float]) -> None:
    with pytest.raises(DatasetError, match="adding up to 1"):
        split_patients(many(3), KEY, fractions)


def test_a_short_key_is_refused() -> None:
    with pytest.raises(DatasetError, match="at least 16 bytes"):
        split_patients(many(3), b"short")
