"""Canonical JSON, base64, digests and times: one spelling each."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.canonical import (
    canonical_json,
    check_digest,
    decode_base64,
    digest_of,
    encode_base64,
    format_time,
    hex_of,
    parse_json,
    parse_json_object,
    parse_time,
    plain,
)
from audit.errors import CanonicalError

JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(JSON_VALUES)
def test_what_is_written_is_read_back(value: Any) -> None:
    data = canonical_json(value)
    assert parse_json(data) == value
    assert canonical_json(parse_json(data)) == data


class Named(str):
    """Text that is not quite a str."""


@settings(derandomize=True, max_examples=200, deadline=None)
@given(JSON_VALUES)
def test_the_fast_way_writes_what_the_library_writes(value: Any) -> None:
    assert canonical_json(value) == rfc8785.dumps(value)


@pytest.mark.parametrize(
    "value",
    [
        *(0.0, -0.0, 1.0, -2.0, 1e16, 1e15, 123456789012345.6, 1e21, 1e22, 1e-5, 1e-6, 1e-7, 5e-324, 0.1, 1 / 3),
        *(2**53 - 1, 1 - 2**53, True, None, "", "\x00\x1f\x7f\x80\u2028\ud7ff\ue000\U0001f600", '"\\/\b\f\n\r\t'),
        {"\ue000": 1, "\U0001f600": 2, "z": 3},  # in this order only by UTF-16 units
        {"b": {"\ufb33": [1.0, {"y": [], "x": {}}]}, "a": (1, 2)},
        {Named("k"): Named("v")},
    ],
    ids=repr,
)
def test_values_that_writers_spell_differently(value: Any) -> None:
    assert canonical_json(value) == rfc8785.dumps(value)


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 2**53, [-(2**53)], "\ud800", {"a": "\udfff"}, {1: 2}, b"x", {"a": {1}}]
)
def test_values_without_a_canonical_form(value: Any) -> None:
    with pytest.raises(CanonicalError):
        canonical_json(value)


def test_a_value_within_itself_has_no_canonical_form() -> None:
    value: list[Any] = []
    value.append({"a": value})
    with pytest.raises(CanonicalError):
        canonical_json(value)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b'{"a":1,"a":1}', id="the same key twice"),
        pytest.param(b'{"b":{"a":1,"a":2}}', id="the same key twice, deeper"),
        pytest.param(b'{"a": 1}', id="space"),
        pytest.param(b'{"a":1}\n', id="newline at the end"),
        pytest.param(b'{"b":1,"a":2}', id="keys out of order"),
        pytest.param(b"1.0", id="fraction of zero"),
        pytest.param(b"1e0", id="exponent"),
        pytest.param(b"-0", id="minus zero"),
        pytest.param(b"01", id="leading zero"),
        pytest.param(b"9007199254740993", id="integer no double holds"),
        pytest.param(b"NaN", id="not a number"),
        pytest.param(b"Infinity", id="infinity"),
        pytest.param(b"1e999", id="overflow"),
        pytest.param(b'"\\u0041"', id="needless escape"),
        pytest.param(b'"\\ud800"', id="lone surrogate"),
        pytest.param(b'"\xff"', id="not UTF-8"),
        pytest.param(b"\xef\xbb\xbf1", id="byte order mark"),
        pytest.param(b"[1,]", id="trailing comma"),
        pytest.param(b"", id="empty"),
        pytest.param(b"[" * 100_000, id="deep nesting, cut off"),
        pytest.param(b"[" * 100_000 + b"]" * 100_000, id="deep nesting"),
        pytest.param(b"1" * 5000, id="very long integer"),
    ],
)
def test_other_spellings_are_refused(data: bytes) -> None:
    with pytest.raises(CanonicalError):
        parse_json(data)


def test_large_floats_survive() -> None:
    assert parse_json(canonical_json(1e16)) == 1e16


def test_object_is_demanded() -> None:
    assert parse_json_object(b'{"a":1}') == {"a": 1}
    with pytest.raises(CanonicalError, match="plan: expected a JSON object, got list"):
        parse_json_object(b"[]", "plan")


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(float("nan"), id="NaN"),
        pytest.param(float("inf"), id="infinity"),
        pytest.param(2**53, id="large integer"),
        pytest.param(b"", id="bytes"),
        pytest.param({1: 2}, id="key not text"),
        pytest.param({"a": object()}, id="object"),
        pytest.param("\ud800", id="lone surrogate"),
        pytest.param({"\ud800": 1}, id="lone surrogate in a key"),
    ],
)
def test_values_without_json_form_are_refused(value: Any) -> None:
    with pytest.raises(CanonicalError, match="no canonical JSON form"):
        canonical_json(value)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.binary(max_size=100))
def test_base64_round_trip(data: bytes) -> None:
    assert decode_base64(encode_base64(data)) == data


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("QQ", id="no padding"),
        pytest.param("QR==", id="bits after the last byte"),
        pytest.param("QQ==\n", id="newline"),
        pytest.param("Q Q==", id="space"),
        pytest.param("-_==", id="URL alphabet"),
        pytest.param("QQ===", id="too much padding"),
        pytest.param("QQ==QQ==", id="padding inside"),
        pytest.param("é===", id="not ASCII"),
        pytest.param(None, id="not text"),
    ],
)
def test_other_base64_is_refused(text: object) -> None:
    with pytest.raises(CanonicalError):
        decode_base64(text)


def test_digests() -> None:
    digest = digest_of(b"abc")
    assert digest == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert check_digest(digest) == digest
    assert hex_of(digest) == digest[7:]


@pytest.mark.parametrize(
    "value",
    [
        "",
        "sha256:",
        "sha256:" + "A" * 64,
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 64 + "\n",
        "a" * 64,
        7,
        None,
    ],
)
def test_other_digests_are_refused(value: object) -> None:
    with pytest.raises(CanonicalError, match="sha256"):
        check_digest(value)


def test_times() -> None:
    moment = datetime(2026, 11, 22, 6, 0, 0, 999, tzinfo=timezone(timedelta(hours=1)))
    assert format_time(moment) == "2026-11-22T05:00:00Z"
    assert parse_time("2026-11-22T05:00:00Z") == datetime(2026, 11, 22, 5, tzinfo=UTC)
    with pytest.raises(CanonicalError, match="time zone"):
        format_time(datetime(2026, 11, 22))


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-22T05:00:00",
        "2026-11-22T05:00:00+00:00",
        "2026-11-22 05:00:00Z",
        "2026-11-22T05:00:00.0Z",
        "2026-02-30T05:00:00Z",
        "2026-11-22T24:00:00Z",
        "2026-11-22T05:00:60Z",
        "2026-11-22T05:00:00Z\n",
        "٢٠٢٦-11-22T05:00:00Z",
        7,
    ],
)
def test_other_times_are_refused(text: object) -> None:
    with pytest.raises(CanonicalError):
        parse_time(text)


def test_plain_copies_deeply() -> None:
    inner: dict[str, Any] = {"a": (1, 2)}
    copy = plain({"x": inner})
    inner["a"] = (3,)
    assert copy == {"x": {"a": [1, 2]}}
    with pytest.raises(CanonicalError, match="keys must be text"):
        plain({1: 2})
