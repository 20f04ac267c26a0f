"""What is typed after a telephone call, and whether it is the same."""

from __future__ import annotations

import pytest

from admin_api.web.certificates.fingerprint import groups, same, shown_groups

PRINT = "sha256:" + "".join(f"{n:04x}" for n in range(16))
LAST = "000c 000d 000e 000f"


def test_the_last_groups_are_not_shown() -> None:
    assert shown_groups(PRINT) == groups(PRINT)[:12]
    assert not set(shown_groups(PRINT)) & set(LAST.split())


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (LAST, True),
        (LAST.upper(), True),
        ("000c:000d-000e.000f", True),
        ("  000C000D000E000F\n", True),
        (PRINT, True),
        (PRINT.removeprefix("sha256:"), True),
        ("000c 000d 000e 0010", False),
        ("0000 0001 0002 0003", False),
        ("sha256:" + "0" * 64, False),
        ("000d 000e 000f", None),
        ("", None),
        ("000c 000d 000e 000g", None),
        ("f", None),
        (LAST + " 0", None),
    ],
)
def test_what_is_typed_is_the_same_or_not_or_no_fingerprint(typed: str, expected: bool | None) -> None:
    assert same(PRINT, typed) is expected
