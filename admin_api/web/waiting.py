"""What waits for somebody: areas say it, the Today page collects it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from admin_api.web.context import Viewer, Workplace


@dataclass(frozen=True)
class Waiting:
    """One thing that needs this person, in words of their language, and where it is done."""

    words: str
    href: str
    since: datetime | None = None
    urgent: bool = False  # somebody or something stands still because of it


Waits = Callable[[Workplace, Viewer], Iterable[Waiting]]
