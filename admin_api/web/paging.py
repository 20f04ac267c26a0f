"""Lists in pieces: `?limit=&after=`, answered with the items, where to go on, and how many there are."""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar

from fastapi import Path, Query
from pydantic import BaseModel

T = TypeVar("T")

MOST = 200
Limit = Annotated[int, Query(ge=1, le=MOST, description="how many items at most")]
After = Annotated[str | None, Query(max_length=300, description="`next` of the piece before; leave out for the first")]
Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,99}$")]
Digest = Annotated[str, Path(pattern=r"^sha256:[0-9a-f]{64}$")]


class Page(BaseModel, Generic[T]):
    """A piece of a list."""

    items: list[T]
    next: str | None = None
    total: int | None = None
