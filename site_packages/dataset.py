"""The hospital's local data set: admissions with their letters, read for training, evaluation and coding.

On disk a data set is a folder `data/<dataset id>/` with `admissions.parquet` and `manifest.json`;
`data/current` names the one in use. `open_dataset` checks the Parquet file against the manifest before it
believes a row.

Invariants:
- rows are admissions, sorted by patient id, admission date and admission id;
- patients are numbered 0, 1, .. in the order of their sorted ids;
- a patient is on one side of every split, and stays there in later imports under the same key.

Example:
    data = open_dataset(home / "data" / "data-0123456789abcdef")
    split = split_patients(data, seed_key, (0.7, 0.1, 0.2))
    train = data.take(split.train)
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from audit.canonical import digest_of
from site_packages.admission import SEXES, joined_text
from site_packages.errors import DatasetError
from site_packages.manifest import MANIFEST_NAME as MANIFEST_NAME
from site_packages.manifest import Manifest, parse_manifest

PARQUET_NAME = "admissions.parquet"
CURRENT_NAME = "current"
SIDES = ("train", "calibration", "test")

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Admissions in memory, one entry per admission in every field but `patients`; all private data."""

    patients: tuple[str, ...]  # sorted, distinct
    patient_index: Indices  # (admissions,): position in `patients`
    admission_ids: tuple[str, ...]
    texts: tuple[str, ...]  # all letters of the admission, joined with kind markers
    categories: tuple[str, ...]  # three characters
    codes: tuple[str, ...]  # full code with dot; the category where only that is known
    year: Indices  # (admissions,): calendar year of admission
    age: Indices  # (admissions,): whole years; -1 = not known
    sex: tuple[str, ...]  # of SEXES
    manifest: Manifest | None = None  # None for a data set that was never stored, and for parts

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def labels(self) -> tuple[str, ...]:
        """What a model learns to predict: the three-character category of every admission."""
        return self.categories

    def category_counts(self) -> dict[str, int]:
        """Admissions per category, by category."""
        return dict(sorted(Counter(self.categories).items()))

    def label_indices(self, label_space: Sequence[str]) -> Indices:
        """Position of every admission's label in the label space, -1 for a label outside it.

        Returns:
            (admissions,) int64.
        """
        position = {label: index for index, label in enumerate(label_space)}
        return np.fromiter((position.get(label, -1) for label in self.labels), dtype=np.int64, count=len(self))

    def rows_by_patient(self) -> list[Indices]:
        """For every patient, in the order of `patients`, the rows of that patient's admissions."""
        order = np.argsort(self.patient_index, kind="stable").astype(np.int64)
        starts = np.searchsorted(self.patient_index[order], np.arange(1, len(self.patients)))
        return np.split(order, starts) if self.patients else []

    def take(self, rows: Indices) -> Dataset:
        """The admissions at these rows, in this order, with their patients numbered anew.

        Raises:
            DatasetError: a row outside the data set.
        """
        rows = np.asarray(rows, dtype=np.int64)
        if rows.ndim != 1 or (rows.size and (rows.min() < 0 or rows.max() >= len(self))):
            raise DatasetError(f"rows must be a list of numbers from 0 to {len(self) - 1}")
        kept, patient_index = np.unique(self.patient_index[rows], return_inverse=True)
        return Dataset(
            patients=tuple(self.patients[i] for i in kept),
            patient_index=patient_index.astype(np.int64),
            admission_ids=tuple(self.admission_ids[i] for i in rows),
            texts=tuple(self.texts[i] for i in rows),
            categories=tuple(self.categories[i] for i in rows),
            codes=tuple(self.codes[i] for i in rows),
            year=self.year[rows],
            age=self.age[rows],
            sex=tuple(self.sex[i] for i in rows),
        )


def dataset_from_records(
    patient_ids: Sequence[str],
    texts: Sequence[str],
    categories: Sequence[str],
    *,
    codes: Sequence[str] | None = None,
    admission_ids: Sequence[str] | None = None,
    years: Sequence[int] | None = None,
    ages: Sequence[int] | None = None,
    sexes: Sequence[str] | None = None,
    manifest: Manifest | None = None,
) -> Dataset:
    """A data set in memory from one record per admission; the order of the records is kept.

    Args:
        patient_ids, texts, categories: one per admission.
        codes: full codes; the categories when not given.
        admission_ids: the row numbers when not given.
        years: calendar years; 0 when not given.
        ages: whole years; -1 (not known) when not given.
        sexes: of SEXES; "unknown" when not given.

    Raises:
        DatasetError: lengths differ, or a sex outside SEXES.
    """
    n = len(patient_ids)
    given: dict[str, Sequence[object] | None] = {
        "texts": texts,
        "categories": categories,
        "codes": codes,
        "admission_ids": admission_ids,
        "years": years,
        "ages": ages,
        "sexes": sexes,
    }
    for name, values in given.items():
        if values is not None and len(values) != n:
            raise DatasetError(f"{name} has {len(values)} entries, expected {n}, one per admission")
    if sexes is not None and (strange := sorted(set(sexes) - set(SEXES))):
        raise DatasetError(f"sexes must be of {', '.join(SEXES)}, got {strange[0]!r}")
    patients = tuple(sorted(set(patient_ids)))
    number = {patient: index for index, patient in enumerate(patients)}
    return Dataset(
        patients=patients,
        patient_index=np.fromiter((number[p] for p in patient_ids), dtype=np.int64, count=n),
        admission_ids=tuple(admission_ids) if admission_ids is not None else tuple(str(i) for i in range(n)),
        texts=tuple(texts),
        categories=tuple(categories),
        codes=tuple(codes) if codes is not None else tuple(categories),
        year=np.asarray(years, dtype=np.int64) if years is not None else np.zeros(n, dtype=np.int64),
        age=np.asarray(ages, dtype=np.int64) if ages is not None else np.full(n, -1, dtype=np.int64),
        sex=tuple(sexes) if sexes is not None else ("unknown",) * n,
        manifest=manifest,
    )


def open_dataset(path: Path) -> Dataset:
    """Read a stored data set after checking it against its manifest.

    Args:
        path: the data set's folder.

    Raises:
        DatasetError: no such data set, its Parquet file's digest differs, or its counts do.
        ManifestError: the manifest cannot be believed.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        manifest = parse_manifest((path / MANIFEST_NAME).read_bytes())
        content = (path / PARQUET_NAME).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DatasetError(
            f"there is no data set in {path}: {Path(error.filename).name} is missing; "
            "import one with `zegel site import`"
        ) from error
    if digest_of(content) != manifest.data:
        raise DatasetError(
            f"{path / PARQUET_NAME} was changed after import: expected {manifest.data}, "
            f"got {digest_of(content)}; import the tables again"
        )
    table = pq.read_table(pa.BufferReader(content))  # the bytes just checked, not the file again
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    letters = columns["letters"]
    dataset = dataset_from_records(
        columns["patient_id"],
        [joined_text((letter["kind"], letter["text"]) for letter in of_one) for of_one in letters],
        columns["category"],
        codes=columns["code"],
        admission_ids=columns["admission_id"],
        years=columns["year"],
        ages=columns["age"],
        sexes=columns["sex"],
        manifest=manifest,
    )
    found = (len(dataset), len(dataset.patients), sum(len(of_one) for of_one in letters))
    if found != (manifest.admissions, manifest.patients, manifest.letters):
        raise DatasetError(
            f"{path} holds {found[0]} admissions of {found[1]} patients with {found[2]} letters, "
            f"its manifest says {manifest.admissions}, {manifest.patients} and {manifest.letters}; "
            "import the tables again"
        )
    return dataset


def current_dataset(home: Path) -> Path:
    """The folder of the data set a hospital uses: the one imported last.

    Raises:
        DatasetError: nothing was imported yet.
    """
    pointer = home / "data" / CURRENT_NAME
    try:
        name = pointer.read_text(encoding="ascii").strip()
    except FileNotFoundError as error:
        raise DatasetError(f"no data set was imported in {home} yet; run `zegel site import`") from error
    if not name.startswith("data-") or not name.removeprefix("data-").isalnum():
        raise DatasetError(f"{pointer} does not name a data set: {name[:40]!r}; run `zegel site import` again")
    return home / "data" / name


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of a data set on each side of a split by patient."""

    train: Indices
    calibration: Indices
    test: Indices


def patient_side(patient_id: str, seed_key: bytes, fractions: tuple[float, float, float]) -> str:
    """The side a patient is on: HMAC-SHA-256 of the id under the key, as a fraction of its range.

    The key keeps anyone who knows an id from learning the side, and from choosing ids that fall on one.
    """
    mac = hmac.digest(seed_key, patient_id.encode(), "sha256")
    position = int.from_bytes(mac[:8], "big") / 2**64
    if position < fractions[0]:
        return "train"
    return "calibration" if position < fractions[0] + fractions[1] else "test"


def split_patients(dataset: Dataset, seed_key: bytes, fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)) -> Split:
    """Part the admissions by patient into train, calibration and test.

    Args:
        seed_key: secret of the hospital, at least 16 bytes; the same key always gives the same side.
        fractions: shares of train, calibration and test, in 0..1, adding up to 1.

    Raises:
        DatasetError: fractions that are not shares, or a short key.
    """
    if len(fractions) != 3 or any(not 0 <= share <= 1 for share in fractions) or abs(sum(fractions) - 1) > 1e-9:
        raise DatasetError(f"fractions must be three shares adding up to 1, got {fractions}")
    if len(seed_key) < 16:
        raise DatasetError(f"the split key must have at least 16 bytes, got {len(seed_key)}")
    sides: Mapping[str, int] = {side: number for number, side in enumerate(SIDES)}
    of_patient = np.fromiter(
        (sides[patient_side(patient, seed_key, fractions)] for patient in dataset.patients),
        dtype=np.int64,
        count=len(dataset.patients),
    )
    of_row = of_patient[dataset.patient_index]
    train, calibration, test = (np.flatnonzero(of_row == number).astype(np.int64) for number in range(3))
    return Split(train=train, calibration=calibration, test=test)
