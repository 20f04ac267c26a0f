"""Lists in pieces: where one piece ends, the next begins, however much is added meanwhile.

A list is ordered by some columns, the last of which tells all rows apart. A cursor holds the values of these columns in
the last row given, so going on is a search, not a count from the start.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, Select, func, select, tuple_

from admin_api.errors import BadCursor
from audit.canonical import parse_time

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
D = TypeVar("D", bound="DataclassInstance")
MOST = 200


@dataclass(frozen=True)
class Slice(Generic[T]):
    """A piece of a list. `after` asks for the next one; None: this was the last. `total`: of the whole list."""

    items: tuple[T, ...]
    after: str | None
    total: int | None


def piece(
    connection: Connection,
    query: Select[Any],
    make: Callable[[Sequence[Row[Any]]], Sequence[T]],
    *,
    by: Sequence[ColumnElement[Any]],
    descending: bool,
    limit: int,
    after: str | None,
    counted: bool = True,
) -> Slice[T]:
    """Rows of `query` in the order of `by` (all columns the same way; none is null), made into items.

    Raises BadCursor for an `after` that no such list gave.
    """
    if not 1 <= limit <= MOST:
        raise BadCursor(f"limit: expected 1 to {MOST}, got {limit}")
    total = None
    if counted:
        total = connection.execute(select(func.count()).select_from(query.order_by(None).subquery())).scalar_one()
    marked = query.add_columns(*(column.label(f"_by_{position}") for position, column in enumerate(by)))
    if after is not None:
        values = _values(after, by)
        here = tuple_(*by)
        marked = marked.where(here < values if descending else here > values)
    ordered = marked.order_by(*(column.desc() if descending else column.asc() for column in by))
    rows = connection.execute(ordered.limit(limit + 1)).all()
    following = None
    if len(rows) > limit:
        rows = rows[:limit]
        following = _cursor([rows[-1]._mapping[f"_by_{position}"] for position in range(len(by))])
    return Slice(tuple(make(rows)), following, total)


def taken(row: Row[Any], kind: type[D], **given: Any) -> D:
    """A value of a dataclass from a row: each field that is not `given` is the column of its name, times read."""
    found = row._mapping
    values = {name: found[name] for name in _names(kind) if name not in given}
    for name in _times(kind):
        if values.get(name) is not None:
            values[name] = parse_time(values[name], name)
    return kind(**values, **given)


@cache
def _names(kind: type[DataclassInstance]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


@cache
def _times(kind: type[DataclassInstance]) -> tuple[str, ...]:
    return tuple(name for name in _names(kind) if name == "time" or name.endswith("_time"))


def _cursor(values: Sequence[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(values, separators=(",", ":")).encode()).decode().rstrip("=")


def _values(cursor: str, by: Sequence[ColumnElement[Any]]) -> tuple[Any, ...]:
    try:
        values = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError) as error:
        raise BadCursor(f"after: not where a list ended ({error}); start again from its beginning") from None
    if not isinstance(values, list) or len(values) != len(by):
        raise BadCursor("after: of a list in another order; start again from its beginning")
    for value, column in zip(values, by, strict=True):
        wanted = column.type.python_type
        if isinstance(value, bool) or not isinstance(value, (int, float) if wanted is float else wanted):
            raise BadCursor("after: of a list in another order; start again from its beginning")
        if isinstance(value, int) and abs(value) >= 1 << 63:
            raise BadCursor("after: beyond any list; start again from its beginning")
    return tuple(values)
