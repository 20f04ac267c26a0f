"""Pooled and single-hospital models on imported data sets, in the clear; for synthetic data only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from jobs.icd_coding.encoder import HashedNgrams
from jobs.icd_coding.evaluation import hit_at_k
from jobs.icd_coding.model import LinearModel, scores
from jobs.icd_coding.recipe import Hyperparameters
from site_packages.baselines import encode, train_in_the_clear
from site_packages.dataset import Dataset, current_dataset, open_dataset, split_patients
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
    sides: dict[Path, tuple[str, int, Dataset, Dataset]] = {}
    for path in {*train, *evaluate}:
        home = SiteHome(path)
        dataset = open_dataset(current_dataset(home.path))
        if dataset.manifest is None or not dataset.manifest.synthetic:
            raise DatasetError(f"{path}: its data set is not labelled synthetic; nothing was read together")
        split = split_patients(dataset, home.split_key())
        sides[path] = (
            home.identity().name,
            len(dataset),
            dataset.take(split.train),
            dataset.take(split.test),
        )
    matrices = {path: encode(encoder, [sides[path][2]], label_space) for path in train}
    pooled = train_in_the_clear(
        sparse.vstack([rows for rows, _ in matrices.values()], format="csr"),
        np.concatenate([codes for _, codes in matrices.values()]),
        shape,
        recipe,
    )
    sites: dict[str, Any] = {}
    for path in evaluate:
        name, _, _, test = sides[path]
        rows, truth = encode(encoder, [test], label_space)
        alone = None
        if path in matrices:
            own = train_in_the_clear(*matrices[path], shape, recipe)
            alone = hit_at_k(scores(own, rows), truth, 1)
        sites[name] = {"pooled": hit_at_k(scores(pooled, rows), truth, 1), "alone": alone}
    return {"admissions": {name: count for name, count, _, _ in sides.values()}, "sites": sites}
