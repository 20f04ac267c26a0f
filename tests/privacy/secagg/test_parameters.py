"""The terms: limits, threshold, digest."""

import dataclasses
from typing import Any

import pytest

from privacy.secagg.errors import SecAggParameterError
from privacy.secagg.parameters import SecAggParameters, default_threshold

GOOD = SecAggParameters(consortium="demo", run_id="run-1", sites=("a", "b", "c", "d"), dimension=10, allowed_dropouts=1)


@pytest.mark.parametrize("n", range(3, 51))
def test_the_default_threshold_is_just_above_two_thirds(n: int) -> None:
    t = default_threshold(n)
    assert 3 * t > 2 * n >= 3 * (t - 1)
    assert 2 * t > n + n // 3  # so n // 3 colluding hospitals do not help a lying server


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"consortium": ""}, "consortium"),
        ({"run_id": "a\nb"}, "run_id"),
        ({"run_id": "x" * 101}, "run_id"),
        ({"sites": ("a", "b")}, "3-50"),
        ({"sites": tuple(f"{i:02}" for i in range(51))}, "3-50"),
        ({"sites": ("b", "a", "c")}, "sorted"),
        ({"sites": ("a", "a", "b")}, "sorted"),
        ({"sites": ("a", "b", "\ud800")}, "printable"),
        ({"dimension": 0}, "dimension"),
        ({"dimension": 2**28 + 1}, "dimension"),
        ({"ring_bits": 16}, "ring_bits"),
        ({"shamir_threshold": 2}, "3-4"),
        ({"shamir_threshold": 5}, "3-4"),
        ({"allowed_dropouts": 2}, "allowed_dropouts"),
        ({"allowed_dropouts": -1}, "allowed_dropouts"),
        ({"shamir_threshold": 4}, "allowed_dropouts"),
    ],
)
def test_impossible_terms_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SecAggParameterError, match=message):
        dataclasses.replace(GOOD, **change)


def test_limits() -> None:
    assert (GOOD.threshold, GOOD.minimum_survivors) == (3, 3)
    strict = dataclasses.replace(GOOD, allowed_dropouts=0, shamir_threshold=4)
    assert (strict.threshold, strict.minimum_survivors) == (4, 4)
    assert [GOOD.index(site) for site in GOOD.sites] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "change",
    [
        {"consortium": "other"},
        {"run_id": "run-2"},
        {"sites": ("a", "b", "c", "e")},
        {"dimension": 11},
        {"ring_bits": 32},
        {"allowed_dropouts": 0},
        {"shamir_threshold": 4, "allowed_dropouts": 0},
    ],
)
def test_every_term_is_in_the_digest(change: dict[str, Any]) -> None:
    other = dataclasses.replace(GOOD, **change)
    assert other.digest != GOOD.digest
    assert other.context("use") != GOOD.context("use")


def test_the_default_threshold_and_its_number_are_the_same_terms() -> None:
    assert dataclasses.replace(GOOD, shamir_threshold=3).digest == GOOD.digest
    assert GOOD.digest.startswith("sha256:")
    assert len(GOOD.digest) == 71
