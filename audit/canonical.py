"""One form for everything that is hashed or signed: JSON, base64, digests and times.

Invariants:
- `parse_json(canonical_json(v))` gives back `v` (tuples become lists, a float without fraction becomes an
  int).
- `parse_json` accepts exactly the bytes `canonical_json` can produce: two byte strings never mean the same
  value.
- A digest is written `sha256:` and 64 lowercase hex digits; a time is RFC 3339 in UTC with whole seconds.

>>> canonical_json({"b": 1.0, "a": [True, None]})
b'{"a":[true,null],"b":1}'

Source: RFC 8785 (canonical JSON), RFC 4648 section 4 (base64), RFC 3339 (time).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn, cast

import rfc8785

from audit.errors import CanonicalError

DIGEST_PREFIX = "sha256:"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", re.ASCII)
_SAFE_INTEGER = 2**53 - 1  # the largest integer RFC 8785 writes as an integer
_SCALARS = frozenset({str, int, float, bool})
_SHOWN = 60  # characters of a bad value quoted in a message


def shown(value: object) -> str:
    """A short, printable quotation of `value` for an error message."""
    text = ascii(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def canonical_json(value: object) -> bytes:
    """The RFC 8785 bytes of a JSON value.

    Raises CanonicalError for anything JSON cannot hold exactly: NaN, infinities, integers beyond 2**53 - 1,
    bytes, other types, keys that are not text, text that is not valid Unicode, nesting too deep to walk.
    """
    try:
        # The standard library writes in C, several times faster, and nearly every value in the same letters.
        if _spelled_alike(value):
            return _ENCODER.encode(value).encode("utf-8")
        return rfc8785.dumps(cast(Any, value))
    except (ValueError, RecursionError) as error:
        raise CanonicalError(f"value has no canonical JSON form: {error}") from error


def _spelled_alike(value: object) -> bool:
    """Whether `_ENCODER` writes `value` exactly as RFC 8785 does; False when that is not certain.

    They differ in numbers (1.0, 1e16 and -0.0 are written 1, 10000000000000000 and 0; NaN and integers beyond
    2**53 - 1 are refused) and in the order of keys outside ASCII (UTF-16 units, not code points). Subclasses
    may write themselves otherwise.
    """
    kind = type(value)
    if isinstance(value, dict) and kind is dict:
        for key, item in value.items():
            if type(key) is not str or not key.isascii():
                return False
            if type(item) is not str and not _spelled_alike(item):
                return False
        return True
    if isinstance(value, list) and kind is list:
        return all(type(item) is str or _spelled_alike(item) for item in value)
    if isinstance(value, int) and kind is int:
        return -_SAFE_INTEGER <= value <= _SAFE_INTEGER
    if kind is float:
        # Shortest digits in both; the other notations of repr hold an "e", "nan", "inf", or end in ".0".
        text = repr(value)
        return "e" not in text and "n" not in text and not text.endswith(".0")
    return kind is str or kind is bool or value is None


# No search for cycles: `_spelled_alike` has walked the whole value before.
_ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), check_circular=False)


def parse_json(data: bytes, what: str = "JSON") -> Any:
    """The value of canonical JSON bytes; `what` names the input in messages.

    Raises CanonicalError for duplicate keys, for bytes that are not UTF-8 JSON, and for JSON in any other
    form than the canonical one (spaces, key order, number and string spelling).
    """
    try:
        value = _JSON.decode(data.decode("utf-8"))
    except CanonicalError as error:
        raise CanonicalError(f"{what}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise CanonicalError(f"{what}: not JSON in UTF-8: {error}") from error
    if canonical_json(value) != data:
        raise CanonicalError(f"{what}: JSON is not in canonical form (RFC 8785), so its digest would not be unique")
    return value


def parse_json_object(data: bytes, what: str = "JSON") -> dict[str, Any]:
    """Like `parse_json`; raises CanonicalError also when the value is not an object."""
    value = parse_json(data, what)
    if not isinstance(value, dict):
        raise CanonicalError(f"{what}: expected a JSON object, got {type(value).__name__}")
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise CanonicalError("an object holds the same key twice")
    return result


def _exact_integer(text: str) -> int | float:
    # RFC 8785 numbers are doubles: beyond 2**53 - 1 a run of digits is a float's spelling, or not canonical.
    value = int(text)
    return value if abs(value) <= _SAFE_INTEGER else float(text)


def _no_constant(text: str) -> NoReturn:
    raise CanonicalError(f"{text} is not a JSON number")


_JSON = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_int=_exact_integer, parse_constant=_no_constant)


def digest_of(data: bytes) -> str:
    """`sha256:<hex>` of the bytes."""
    return DIGEST_PREFIX + hashlib.sha256(data).hexdigest()


def check_digest(value: object, what: str = "digest") -> str:
    """`value` when it is a digest in our spelling; raises CanonicalError otherwise."""
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise CanonicalError(f"{what}: expected sha256:<64 lowercase hex digits>, got {shown(value)}")
    return value


def hex_of(digest: str) -> str:
    """The 64 hex digits of a digest; raises CanonicalError for anything else."""
    return check_digest(digest).removeprefix(DIGEST_PREFIX)


def encode_base64(data: bytes) -> str:
    """Standard base64 with padding."""
    return base64.b64encode(data).decode("ascii")


def decode_base64(text: object, what: str = "base64") -> bytes:
    """The bytes of standard, padded base64.

    Raises CanonicalError for any spelling other than `encode_base64`'s: line breaks, the URL alphabet,
    missing padding, and non-zero bits after the last byte (which would let one signature be written in
    several ways).
    """
    if not isinstance(text, str):
        raise CanonicalError(f"{what}: expected base64 text, got {type(text).__name__}")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise CanonicalError(f"{what}: not standard base64: {error}") from error
    if encode_base64(data) != text:
        raise CanonicalError(f"{what}: base64 is not in its canonical spelling: {shown(text)}")
    return data


def format_time(moment: datetime) -> str:
    """RFC 3339 UTC with whole seconds (fractions are cut off).

    Raises CanonicalError when `moment` carries no time zone.
    """
    if moment.tzinfo is None:
        raise CanonicalError(f"time {moment} has no time zone; use an aware datetime in UTC")
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: object, what: str = "time") -> datetime:
    """The aware UTC datetime of `2026-11-22T05:00:00Z`; raises CanonicalError for any other spelling."""
    if not isinstance(text, str) or not _TIME.fullmatch(text):
        raise CanonicalError(f"{what}: expected a UTC time such as 2026-11-22T05:00:00Z, got {shown(text)}")
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise CanonicalError(f"{what}: {text} is not a date and time that exists") from error


def plain(value: object) -> Any:
    """A deep copy made of plain dicts, lists and scalars, so that later changes by the caller do not reach
    it.

    Raises CanonicalError when a mapping's key is not text.
    """
    # Most values are scalars of exactly these types, and asking after abstract types is slow.
    if value is None or type(value) in _SCALARS:
        return value
    if isinstance(value, Mapping):
        copy: dict[str, Any] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise CanonicalError(f"object keys must be text, got {shown(key)}")
            copy[key] = plain(item)
        return copy
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
