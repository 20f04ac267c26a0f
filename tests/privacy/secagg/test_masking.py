"""Masks: the keystream itself, cancellation, blocks, and that a masked vector looks uniform."""

from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from privacy.secagg import masking
from privacy.secagg.masking import apply_masks
from privacy.secagg.simulate import Federation, seeded_randomness

KEY = bytes(range(32))
DTYPES = ["<u8", "<u4"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_mask_is_the_ctr_keystream_from_counter_zero(dtype: str) -> None:
    # NIST SP 800-38A has no all-zero counter vector, so the block cipher itself is the reference.
    encryptor = Cipher(algorithms.AES(KEY), modes.ECB()).encryptor()  # noqa: S305 - the definition of CTR
    stream = encryptor.update(b"".join(i.to_bytes(16, "big") for i in range(4)))
    vector = np.zeros(64 // np.dtype(dtype).itemsize, dtype=dtype)
    apply_masks(vector, add=[KEY])
    assert vector.tobytes() == stream


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("blocks", [0, 1, 2.5])
@pytest.mark.parametrize("extra", [-1, 1])
def test_masks_do_not_depend_on_blocks_and_cancel(dtype: str, blocks: float, extra: int) -> None:
    size = max(1, int(blocks * masking.BLOCK_BYTES / np.dtype(dtype).itemsize) + extra)
    randomness = seeded_randomness(size)
    first, second = randomness(32), randomness(32)
    values = np.frombuffer(randomness(size * np.dtype(dtype).itemsize), dtype=dtype)
    vector = values.copy()
    apply_masks(vector, add=[first], subtract=[second])
    zeros = bytes(vector.nbytes)
    expected = values.copy()
    for key, sign in ((first, 1), (second, -1)):
        stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(zeros)
        mask = np.frombuffer(stream, dtype=dtype)
        expected = expected + mask if sign == 1 else expected - mask
    assert np.array_equal(vector, expected)
    apply_masks(vector, add=[second], subtract=[first])
    assert np.array_equal(vector, values)


@pytest.mark.parametrize(
    "vector",
    [
        np.zeros(4, np.int64),
        np.zeros(4, np.float64),
        np.zeros(4, ">u8"),
        np.zeros((2, 2), np.uint64),
        np.zeros(8, np.uint64)[::2],
    ],
    ids=["signed", "float", "big-endian", "two axes", "strided"],
)
def test_other_vectors_are_refused(vector: np.ndarray[Any, np.dtype[Any]]) -> None:
    with pytest.raises(ValueError, match="expected a"):
        apply_masks(vector, add=[KEY])


def test_a_read_only_vector_or_a_short_key_is_refused() -> None:
    frozen = np.zeros(4, np.uint64)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="writable"):
        apply_masks(frozen, add=[KEY])
    with pytest.raises(ValueError, match="32 bytes, got 31"):
        apply_masks(np.zeros(4, np.uint64), subtract=[KEY[1:]])


@pytest.mark.parametrize("ring_bits", [64, 32])
def test_a_masked_vector_looks_uniform_and_unlike_the_vector(ring_bits: Any) -> None:
    """Chi-square of the bytes, bias of every bit, and correlation with the vector, on a very structured
    vector.

    The statistics are of fixed seeds; limits are about 5 standard deviations, far below what an unmasked or
    half masked vector gives (its high bytes are all 0 or 255).
    """
    dimension = 20_000
    federation = Federation.of(3, dimension=dimension, randomness=seeded_randomness(7), ring_bits=ring_bits)
    federation.set_up(1)
    seen = {}

    def tap(site: str, message: dict[str, Any]) -> dict[str, Any]:
        if message["type"] == "secagg-masked-vector":
            seen[site] = message["vector"].copy()
        return message

    federation.tap = tap
    vector = np.arange(dimension, dtype=np.int64)
    federation.run_round(dict.fromkeys(federation.clients, vector))
    for masked in seen.values():
        counts = np.bincount(masked.view(np.uint8), minlength=256)
        expected = masked.nbytes / 256
        chi_square = float(((counts - expected) ** 2 / expected).sum())
        assert abs(chi_square - 255) < 5 * (2 * 255) ** 0.5
        bits = np.unpackbits(masked.view(np.uint8)).reshape(dimension, ring_bits).mean(axis=0)
        assert float(np.abs(bits - 0.5).max()) < 5 * 0.5 / dimension**0.5
        correlation = float(np.corrcoef(masked.astype(np.float64), vector)[0, 1])
        assert abs(correlation) < 5 / dimension**0.5
    first, second, third = seen.values()
    assert not np.array_equal(first, second)
    assert not np.array_equal(second, third)
