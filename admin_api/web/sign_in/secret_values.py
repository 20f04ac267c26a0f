"""Secrets that are handed out once: 256 random bits, of which only a digest is kept.

A random value of this length needs no salt and no slow hash; a look-up by digest tells nothing by its timing.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

from webauthn.helpers import bytes_to_base64url

SIZE = 32  # bytes
LENGTH = 43  # characters


def new_secret(random_bytes: Callable[[int], bytes]) -> str:
    """A fresh secret as 43 characters of base64url."""
    return bytes_to_base64url(random_bytes(SIZE))


def kept(secret: str) -> str:
    """What is stored of a secret: the hex SHA-256 of its text."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def same(one: str, other: str) -> bool:
    """Whether two texts are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(one.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass"))
