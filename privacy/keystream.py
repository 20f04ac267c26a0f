"""Random bytes for noise and sampling: a short seed from the operating system, stretched by AES-256-CTR.

Invariants:
- Every `Keystream` has its own 32-byte key, so the counter may start at zero; a key is never used twice.
- The output is as random as AES-256 is a pseudorandom permutation and the seed is unknown.
- No floating point, no seed shorter than 256 bits, no `random` or `numpy.random`.

Source: NIST SP 800-38A section 6.5 (CTR mode).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from privacy.errors import NoiseError

RandomBytes: TypeAlias = Callable[[int], bytes]
"""Gives that many random bytes; `os.urandom` in production."""

SEED_BYTES = 32


class Keystream:
    """A stream of pseudorandom bytes and 64-bit words from one seed.

    Args:
        seed: 32 secret bytes, used for this stream only.

    Raises:
        NoiseError: If the seed has another length.
    """

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise NoiseError(f"a keystream needs a seed of {SEED_BYTES} bytes, got {len(seed)}")
        self._encryptor = Cipher(algorithms.AES256(seed), modes.CTR(bytes(16))).encryptor()

    def __call__(self, count: int) -> bytes:
        """The next `count` bytes."""
        return self._encryptor.update(bytes(count))

    def words(self, count: int) -> NDArray[np.uint64]:
        """The next `count` words, uniform on 0..2^64-1."""
        return np.frombuffer(self(8 * count), dtype="<u8")


def keystream_from(random_bytes: RandomBytes) -> Keystream:
    """A fresh stream seeded by 32 bytes of `random_bytes`."""
    return Keystream(random_bytes(SEED_BYTES))
