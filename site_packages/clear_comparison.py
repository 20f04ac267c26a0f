"""Pooled and single-hospital models on imported data sets, in the clear; for synthetic data only."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from jobs.icd_coding.encoder import HashedNgrams
from jobs.icd_coding.evaluation import hit_at_k
from jobs.icd_coding.model import LinearModel, scores
from jobs.icd_coding.recipe import Hyperparameters
from site_packages.baselines import encode, train_in_the_clear
from site_packages.dataset import current_dataset, open_dataset, split_patients
from site_packages.errors import DatasetError
from site_packages.home import SiteHome


def compare_homes(
    train: Sequence[Path],
    evaluate: Sequence[Path],
    *,
    label_space: tuple[str, ...],
    recipe: Hyperparameters,
    features: int,
) -> dict[str, Any]:
    """hit@1 of the pooled model and of each hospital's own, on every hospital's test admissions.

    Returns: {"admissions": {site: all imported}, "sites": {site: {"pooled": share, "alone": share or None}}}.
    Raises: DatasetError for a data set that is not labelled synthetic.
    """
    encoder = HashedNgrams(features=features)
    shape = LinearModel(features=features, labels=len(label_space))
    paths = sorted({*train, *evaluate})
    with ProcessPoolExecutor(max_workers=min(len(paths), os.cpu_count() or 1)) as pool:
        encoded = dict(zip(paths, pool.map(partial(_encode_home, encoder, label_space), paths), strict=True))
    training = {path: encoded[path].training for path in train}
    pooled = train_in_the_clear(
        sparse.vstack([rows for rows, _ in training.values()], format="csr"),
        np.concatenate([codes for _, codes in training.values()]),
        shape,
        recipe,
    )
    sites: dict[str, Any] = {}
    for path in evaluate:
        rows, truth = encoded[path].test
        alone = None
        if path in training:
            own = train_in_the_clear(*training[path], shape, recipe)
            alone = hit_at_k(scores(own, rows), truth, 1)
        sites[encoded[path].name] = {"pooled": hit_at_k(scores(pooled, rows), truth, 1), "alone": alone}
    return {"admissions": {home.name: home.admissions for home in encoded.values()}, "sites": sites}


@dataclass(frozen=True)
class _Home:
    name: str
    admissions: int
    training: tuple[sparse.csr_matrix, NDArray[np.int64]]
    test: tuple[sparse.csr_matrix, NDArray[np.int64]]


def _encode_home(encoder: HashedNgrams, label_space: tuple[str, ...], path: Path) -> _Home:
    home = SiteHome(path)
    dataset = open_dataset(current_dataset(home.path))
    if dataset.manifest is None or not dataset.manifest.synthetic:
        raise DatasetError(f"{path}: its data set is not labelled synthetic; nothing was read together")
    split = split_patients(dataset, home.split_key())
    return _Home(
        home.identity().name,
        len(dataset),
        encode(encoder, [dataset.take(split.train)], label_space),
        encode(encoder, [dataset.take(split.test)], label_space),
    )
