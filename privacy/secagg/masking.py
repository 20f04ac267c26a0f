"""Masks: AES-256-CTR keystreams added to a vector in the ring, block by block.

Invariants:
  - a mask key makes one keystream, from counter 0, and is used for one vector only (the caller derives it for
    one pair, round and run), so no keystream is ever used twice;
  - the keystream is read as little-endian words, so a mask is the same on every machine;
  - memory beyond the vector itself is two blocks of 128 KiB, whatever the number of masks.

Every block of the vector takes all its masks before the next block, so that it stays in the processor's
cache.
"""

from collections.abc import Iterable

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from privacy.secagg.parameters import RingVector

MASK_KEY_BYTES = 32
BLOCK_BYTES = 1 << 17  # measured: 64-256 KiB are fastest, smaller ones pay the call, larger ones the cache


def apply_masks(vector: RingVector, *, add: Iterable[bytes] = (), subtract: Iterable[bytes] = ()) -> None:
    """Adds and subtracts the masks of the given keys, in place, modulo 2^64 or 2^32.

    Args:
      vector: little-endian uint64 or uint32, one-dimensional, contiguous, writable.
      add: 32-byte keys whose masks are added.
      subtract: 32-byte keys whose masks are subtracted.
    """
    if vector.dtype not in (np.dtype("<u8"), np.dtype("<u4")) or vector.ndim != 1:
        raise ValueError(f"expected a vector of <u8 or <u4, got {vector.ndim} axes of {vector.dtype}")
    if not (vector.flags.c_contiguous and vector.flags.writeable):
        raise ValueError("expected a contiguous, writable vector")
    streams: list[tuple[np.ufunc, CipherContext]] = [(np.add, _keystream(key)) for key in add]
    streams += [(np.subtract, _keystream(key)) for key in subtract]
    block_length = BLOCK_BYTES // vector.itemsize
    zeros = bytes(BLOCK_BYTES)
    buffer = bytearray(BLOCK_BYTES)
    words = np.frombuffer(buffer, dtype=vector.dtype)
    for start in range(0, vector.size, block_length):
        block = vector[start : start + block_length]
        plain = zeros if block.size == block_length else zeros[: block.nbytes]
        mask = words[: block.size]
        for operation, stream in streams:
            stream.update_into(plain, buffer)
            operation(block, mask, out=block)


def _keystream(key: bytes) -> CipherContext:
    if len(key) != MASK_KEY_BYTES:
        raise ValueError(f"mask key: expected {MASK_KEY_BYTES} bytes, got {len(key)}")
    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
