"""Columns of rows as PostgreSQL's binary arrays, written in one go.

psycopg dumps lists of anything, one value after the other and finding out what they hold; the log knows what its
columns hold, and writes them by the thousand.

Source: PostgreSQL source, `array_send` and `array_recv` in src/backend/utils/adt/arrayfuncs.c (the layout).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

from psycopg import Connection
from psycopg.adapt import Dumper
from psycopg.pq import Format
from sqlalchemy import BigInteger, Boolean, Double, Integer, LargeBinary, String
from sqlalchemy.types import TypeEngine

_HEADER = struct.Struct(">iiIii")  # dimensions, whether any is null, type of an element, length, first index
_LENGTH = struct.Struct(">i")
_NULL = _LENGTH.pack(-1)


class Array:
    """Values of one column. A class for each type, because psycopg finds the dumper by class."""

    element: int  # PostgreSQL's number of the element's type
    array: int  # and of the array's
    encode: Callable[[Any], bytes]

    def __init__(self, values: Sequence[Any]) -> None:
        self.values = values


class Texts(Array):
    element, array = 25, 1009
    encode = str.encode


class Blobs(Array):
    element, array = 17, 1001
    encode = bytes


class Integers(Array):
    element, array = 23, 1007
    encode = struct.Struct(">i").pack


class BigIntegers(Array):
    element, array = 20, 1016
    encode = struct.Struct(">q").pack


class Doubles(Array):
    element, array = 701, 1022
    encode = struct.Struct(">d").pack


class Booleans(Array):
    element, array = 16, 1000
    encode = struct.Struct(">?").pack


_BY_TYPE: tuple[tuple[type[TypeEngine[Any]], type[Array]], ...] = (
    (BigInteger, BigIntegers),  # before Integer, of which it is a subclass
    (Integer, Integers),
    (String, Texts),
    (LargeBinary, Blobs),
    (Double, Doubles),
    (Boolean, Booleans),
)


def array_class(column: TypeEngine[Any]) -> type[Array]:
    """What a column's values must be wrapped in to be sent; raises KeyError for a type the log has no column of."""
    for kind, wrapper in _BY_TYPE:
        if isinstance(column, kind):
            return wrapper
    raise KeyError(f"no array for a column of type {column!r}")


def register(connection: Connection[Any]) -> None:
    """Teaches a connection to send the arrays."""
    for _, kind in _BY_TYPE:
        connection.adapters.register_dumper(kind, _dumper(kind))


def _dumper(kind: type[Array]) -> type[Dumper]:
    class ArrayDumper(Dumper):
        format = Format.BINARY
        oid = kind.array

        def dump(self, obj: Array) -> bytes:
            return array_bytes(obj)

    return ArrayDumper


def array_bytes(array: Array) -> bytes:
    """The array in PostgreSQL's binary form: one dimension, counted from 1."""
    encode, pack = type(array).encode, _LENGTH.pack
    parts = [_HEADER.pack(1, None in array.values, array.element, len(array.values), 1)]
    for value in array.values:
        if value is None:
            parts.append(_NULL)
        else:
            data = encode(value)
            parts.append(pack(len(data)))
            parts.append(data)
    return b"".join(parts)
