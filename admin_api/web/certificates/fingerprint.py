"""A fingerprint read over the telephone: what is shown, what is typed, and whether they are one.

The pages show the first groups only. The last ones are what the holder reads out and the admin types, so that nobody
can say that they compared without having heard them. Sixteen hexadecimal digits: a key made to agree in these too would
take 2^64 tries, and has to agree in the ones that both see as well.
"""

from __future__ import annotations

import re

GROUP = 4  # hex digits
TYPED_GROUPS = 4  # the last ones
_HEX = re.compile(r"[0-9a-f]+")


def groups(fingerprint: str) -> list[str]:
    """`sha256:<64 hex>` in groups of four digits."""
    digits = fingerprint.removeprefix("sha256:")
    return [digits[at : at + GROUP] for at in range(0, len(digits), GROUP)]


def shown_groups(fingerprint: str) -> list[str]:
    """The groups that are shown before the comparison."""
    return groups(fingerprint)[:-TYPED_GROUPS]


def same(fingerprint: str, typed: str) -> bool | None:
    """Whether `typed` is the last groups, or all of the fingerprint; None when it is too short to say, or no digits.

    Letter case, blanks, colons and hyphens do not matter.
    """
    digits = re.sub(r"[\s:.\-]", "", typed.strip().lower().removeprefix("sha256:"))
    expected = fingerprint.removeprefix("sha256:")
    if _HEX.fullmatch(digits) is None or len(digits) not in (GROUP * TYPED_GROUPS, len(expected)):
        return None
    return expected.endswith(digits)
