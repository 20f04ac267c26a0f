"""What passes a transport: vectors packed and unpacked, and answers that are none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import SiteError, SiteRefused
from jobs.transport import message_of, packed, unpacked


@pytest.mark.parametrize("dtype", ["<u4", "<u8"])
@pytest.mark.parametrize("length", [0, 1, 1000])
def test_a_ring_vector_travels_as_bytes_and_is_a_vector_again(dtype: str, length: int) -> None:
    vector = np.arange(length, dtype=dtype) * 3
    message: dict[str, Any] = {
        "secagg": {"vector": vector, "site": "amstel", "round": 1, "shares": b"\x00"},
        "receipt": {"a": [1, {}]},
    }
    sent = packed(message)
    assert sent["secagg"]["vector"]["packed"] == vector.tobytes()
    assert message["secagg"]["vector"] is vector  # what was packed is not changed
    came = unpacked(sent)
    arrived = came["secagg"].pop("vector")
    assert type(arrived) is np.ndarray
    assert arrived.dtype == vector.dtype
    assert np.array_equal(arrived, vector)
    assert came == {"secagg": {"site": "amstel", "round": 1, "shares": b"\x00"}, "receipt": {"a": [1, {}]}}


@pytest.mark.parametrize("other", [np.zeros(3), np.zeros((2, 2), dtype="<u8"), np.zeros(3, dtype=">u8")], ids=str)
def test_other_arrays_stay_arrays(other: Any) -> None:
    assert packed({"secagg": {"array": other}})["secagg"]["array"] is other


@pytest.mark.parametrize(
    "value",
    [
        {"packed": b"12345678", "dtype": "<u8", "length": 2},
        {"packed": b"1234567", "dtype": "<u8", "length": 1},
        {"packed": b"12345678", "dtype": "<f8", "length": 1},
        {"packed": b"12345678", "dtype": "O", "length": 1},
        {"packed": b"12345678", "dtype": ["<u8"], "length": 1},
        {"packed": b"12345678", "dtype": "<u8", "length": True},
        {"packed": b"12345678", "dtype": "<u8", "length": -1},
        {"packed": "12345678", "dtype": "<u8", "length": 1},
        {"packed": [1], "dtype": "<u8", "length": 1},
        {"packed": b"12345678", "dtype": "<u8"},
        {"packed": b"12345678", "dtype": "<u8", "length": 1, "more": 1},
    ],
    ids=str,
)
def test_what_is_no_packed_vector_stays_what_it_is(value: dict[str, Any]) -> None:
    assert unpacked({"secagg": {"vector": value}}) == {"secagg": {"vector": value}}


def test_a_message_nested_as_deep_as_one_likes_is_looked_through() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"secagg": deep}
    assert unpacked(deep)["secagg"]["secagg"] is deep["secagg"]["secagg"]
    while deep:  # taken apart from the outside, so that freeing it does not nest either
        deep = deep.pop("secagg")


VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.binary(max_size=16)
KEYS = st.sampled_from(["packed", "dtype", "length", "x"])
VECTORS = VALUES | st.dictionaries(KEYS, VALUES | st.sampled_from(["<u8", "<u4"]), max_size=4)
PARTS = VECTORS | st.dictionaries(KEYS, VECTORS | st.lists(VECTORS, max_size=2), max_size=3)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.dictionaries(st.text(max_size=5), PARTS, max_size=3))
def test_any_message_without_vectors_passes_unchanged(message: dict[str, Any]) -> None:
    assert packed(message) == message
    unpacked(message)  # whatever a hospital sends, it does not raise


def test_an_answer_is_a_message_or_an_error_with_the_hospitals_name() -> None:
    assert message_of("amstel", {"a": 1}) == {"a": 1}
    for error in (SiteError("amstel", "data", "no"), SiteRefused("amstel", "over-budget", "no", {})):
        with pytest.raises(SiteError) as raised:
            message_of("amstel", error)
        assert raised.value is error
    with pytest.raises(SiteError, match=r"amstel: answered with list, expected a message \[bad-answer\]"):
        message_of("amstel", [])
