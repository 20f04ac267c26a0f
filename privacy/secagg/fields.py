"""How the fields of a message are written on the wire and, strictly, read back.

Wire values are JSON scalars, lists of names, bytes and numpy arrays; every field is flat. A codec's `read`
accepts exactly what `write` makes and raises `SecAggMessageError` naming the field for anything else: there
is one encoding of every message, and nothing is used before its type and size were checked.

Bytes by hospital are one bytes value, for each hospital in sorted order: name length (1 byte), name in UTF-8,
value length (2 bytes, big-endian), value.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from privacy.secagg.errors import SecAggMessageError
from privacy.secagg.keys import KEY_BYTES, MAX_SIGNATURE_BYTES, SignedKey
from privacy.secagg.parameters import MAX_DIMENSION, MAX_NAME_LENGTH, MAX_SITES, is_name

WireValue = None | bool | int | str | bytes | list[str] | np.ndarray[Any, np.dtype[Any]]


class Codec(Protocol):
    """Turns one field's value into its wire value and back."""

    def write(self, value: Any) -> WireValue:
        """The wire value of a field's value."""
        ...

    def read(self, field: str, wire: object) -> Any:
        """The field's value of a wire value.

        Raises:
          SecAggMessageError: the wire value is not one that `write` makes.
        """
        ...


def _expected(field: str, expected: str, got: object) -> SecAggMessageError:
    return SecAggMessageError(field, f"expected {expected}, got {got}")


@dataclass(frozen=True)
class Whole:
    """An integer in [low, high], or null where `optional`."""

    low: int
    high: int
    optional: bool = False

    def write(self, value: int | None) -> WireValue:
        """See `Codec.write`."""
        return value

    def read(self, field: str, wire: object) -> int | None:
        """See `Codec.read`. A bool is not an integer here."""
        if wire is None and self.optional:
            return None
        if type(wire) is not int:
            raise _expected(field, "an integer", type(wire).__name__)
        if not self.low <= wire <= self.high:
            raise _expected(field, f"{self.low}-{self.high}", "a number outside")
        return wire


@dataclass(frozen=True)
class Name:
    """A hospital's name."""

    def write(self, value: str) -> WireValue:
        """See `Codec.write`."""
        return value

    def read(self, field: str, wire: object) -> str:
        """See `Codec.read`."""
        if not isinstance(wire, str) or not is_name(wire):
            raise _expected(field, f"a name of 1-{MAX_NAME_LENGTH} printable characters", _kind(wire))
        return wire


@dataclass(frozen=True)
class Names:
    """Hospitals' names, sorted, each once."""

    def write(self, value: tuple[str, ...]) -> WireValue:
        """See `Codec.write`."""
        return list(value)

    def read(self, field: str, wire: object) -> tuple[str, ...]:
        """See `Codec.read`."""
        if not isinstance(wire, list):
            raise _expected(field, "a list of names", _kind(wire))
        if len(wire) > MAX_SITES:
            raise _expected(field, f"at most {MAX_SITES} names", len(wire))
        names = tuple(Name().read(field, name) for name in wire)
        if list(names) != sorted(set(names)):
            raise _expected(field, "sorted names, each once", "another order or a name twice")
        return names


@dataclass(frozen=True)
class Blob:
    """Bytes with a length in [low, high]."""

    low: int
    high: int

    def write(self, value: bytes) -> WireValue:
        """See `Codec.write`."""
        return value

    def read(self, field: str, wire: object) -> bytes:
        """See `Codec.read`."""
        if not isinstance(wire, bytes):
            raise _expected(field, "bytes", _kind(wire))
        if not self.low <= len(wire) <= self.high:
            raise _expected(field, f"{self.low}-{self.high} bytes", f"{len(wire)} bytes")
        return wire


@dataclass(frozen=True)
class SignedKeyCodec:
    """A public key followed by its signature; null where `optional`."""

    optional: bool = False

    def write(self, value: SignedKey | None) -> WireValue:
        """See `Codec.write`."""
        return None if value is None else value.key + value.signature

    def read(self, field: str, wire: object) -> SignedKey | None:
        """See `Codec.read`."""
        if wire is None and self.optional:
            return None
        blob = Blob(KEY_BYTES + 1, KEY_BYTES + MAX_SIGNATURE_BYTES).read(field, wire)
        return SignedKey(blob[:KEY_BYTES], blob[KEY_BYTES:])


@dataclass(frozen=True)
class BySite:
    """One value for each of up to 50 hospitals; `value` codes a single one as bytes."""

    value: Codec
    max_bytes: int

    def write(self, value: Mapping[str, Any]) -> WireValue:
        """See `Codec.write`."""
        parts = []
        for site in sorted(value):
            name = site.encode()
            item = self.value.write(value[site])
            if not isinstance(item, bytes):
                raise TypeError(f"expected a codec of bytes, got {type(item).__name__}")
            parts += [len(name).to_bytes(1, "big"), name, len(item).to_bytes(2, "big"), item]
        return b"".join(parts)

    def read(self, field: str, wire: object) -> dict[str, Any]:
        """See `Codec.read`."""
        blob = Blob(0, MAX_SITES * (1 + 255 + 2 + self.max_bytes)).read(field, wire)
        values: dict[str, Any] = {}
        last = ""
        position = 0

        def take(length: int) -> bytes:
            nonlocal position
            part = blob[position : position + length]
            if len(part) != length:
                raise _expected(field, "whole entries", "a truncated one")
            position += length
            return part

        while position < len(blob):
            try:
                site = Name().read(field, take(take(1)[0]).decode())
            except UnicodeDecodeError as error:
                raise _expected(field, "names in UTF-8", "other bytes") from error
            if site <= last:
                raise _expected(field, "hospitals sorted, each once", f"{site} after {last}")
            if len(values) == MAX_SITES:
                raise _expected(field, f"at most {MAX_SITES} hospitals", "more")
            last = site
            values[site] = self.value.read(field, take(int.from_bytes(take(2), "big")))
        return values


@dataclass(frozen=True)
class RingVectorCodec:
    """A one-dimensional little-endian uint64 or uint32 array."""

    def write(self, value: np.ndarray[Any, np.dtype[Any]]) -> WireValue:
        """See `Codec.write`."""
        return value

    def read(self, field: str, wire: object) -> np.ndarray[Any, np.dtype[Any]]:
        """See `Codec.read`. The array is not copied."""
        if type(wire) is not np.ndarray:
            raise _expected(field, "a numpy array", _kind(wire))
        if wire.dtype not in (np.dtype("<u8"), np.dtype("<u4")):
            raise _expected(field, "dtype uint64 or uint32", wire.dtype)
        if wire.ndim != 1 or not wire.flags.c_contiguous:
            raise _expected(field, "one contiguous axis", f"shape {wire.shape}")
        if not 1 <= wire.size <= MAX_DIMENSION:
            raise _expected(field, f"1-{MAX_DIMENSION} coordinates", wire.size)
        return wire


def _kind(wire: object) -> str:
    return f"text of {len(wire)} characters" if isinstance(wire, str) else type(wire).__name__
