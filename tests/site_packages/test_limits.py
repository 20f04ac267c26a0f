"""A hospital's limits: wrong limits must not mean no limits."""

from __future__ import annotations

import json
import stat
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from site_packages.errors import SitePackagesError
from site_packages.limits import Limits


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "limits.json"


def test_round_trip_for_the_owner_only(path: Path) -> None:
    limits = Limits(minimum_sites=5, maximum_l2_clip_norm=2.5, tasks=(), data_is_public=True)
    limits.write(path)
    assert Limits.read(path) == limits
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    Limits().write(path)
    assert Limits.read(path) == Limits()


def test_whole_numbers_are_numbers(path: Path) -> None:
    path.write_text(json.dumps({**asdict(Limits()), "maximum_l2_clip_norm": 2}), encoding="utf-8")
    assert Limits.read(path).maximum_l2_clip_norm == 2


def test_by_default_data_is_not_public() -> None:
    assert Limits().data_is_public is False
    assert Limits().minimum_sites >= 3
    assert Limits().minimum_noise_multiplier > 0


@pytest.mark.parametrize("name", [field.name for field in fields(Limits)])
def test_a_missing_limit_is_an_error(name: str, path: Path) -> None:
    value = asdict(Limits())
    usual = value.pop(name)
    path.write_text(json.dumps(value), encoding="utf-8")
    with pytest.raises(SitePackagesError, match="expected exactly the fields") as refused:
        Limits.read(path)
    # Whoever updates Zegel reads which limit is new, and what it usually is; it is never filled in silently.
    assert f"missing: {name} (usually {json.dumps(usual)})" in str(refused.value)


WRONG: list[tuple[str, object, str]] = [
    *(
        (name, wrong, "must be a whole number")
        for name in ("minimum_sites", "maximum_rounds", "minimum_plain_count")
        for wrong in (-1, "3", None, True, 2.5, [3])
    ),
    *(
        (name, wrong, "must be a number")
        for name in ("maximum_l2_clip_norm", "minimum_noise_multiplier", "maximum_delta")
        for wrong in (-0.1, "3", None, True, float("nan"), float("inf"))
    ),
    *(
        ("maximum_epsilon_against_everyone", wrong, "must be a number")
        for wrong in (-0.1, "3", True, float("nan"), float("inf"))
    ),
    *(
        (name, wrong, "must be a list of names")
        for name in ("tasks", "encoders")
        for wrong in ("icd_coding", None, [1], {"icd_coding": True})
    ),
    *(("data_is_public", wrong, "must be true or false") for wrong in (1, 0, "false", None)),
]


@pytest.mark.parametrize(("name", "wrong", "message"), WRONG)
def test_a_wrong_limit_is_named(name: str, wrong: object, message: str, path: Path) -> None:
    path.write_text(json.dumps({**asdict(Limits()), name: wrong}), encoding="utf-8")
    with pytest.raises(SitePackagesError, match=rf"limits\.json: {name} {message}"):
        Limits.read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "without limits nothing runs"),
        (b"{", "without limits nothing runs"),
        (b"\xff\xfe", "without limits nothing runs"),
        (b"[]", "expected exactly the fields"),
        (b"{}", "expected exactly the fields"),
        (json.dumps({**asdict(Limits()), "no_limits": True}).encode(), "expected exactly the fields"),
    ],
)
def test_a_file_that_holds_no_limits(content: bytes, message: str, path: Path) -> None:
    path.write_bytes(content)
    with pytest.raises(SitePackagesError, match=message):
        Limits.read(path)


@pytest.mark.parametrize("most", [None, 0.0, 8.0])
def test_a_limit_may_be_left_open(most: float | None, path: Path) -> None:
    limits = Limits(maximum_epsilon_against_everyone=most)
    limits.write(path)
    assert Limits.read(path) == limits


def test_no_file_is_an_error(path: Path) -> None:
    with pytest.raises(SitePackagesError, match="without limits nothing runs"):
        Limits.read(path)
