"""What a request has at hand: the consortium, the databases, and who is asking."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, cast

from fastapi import Depends, Request

from admin_api.reading.room import ReadingRoom
from admin_api.web.database import Database
from admin_api.web.settings import Settings
from jobs.home import ConsortiumHome

HOSPITAL_CONTACT = "hospital_contact"


@dataclass(frozen=True)
class Workplace:
    """Everything a request may use besides its own input; made once per process."""

    settings: Settings
    home: ConsortiumHome
    database: Database
    reading: ReadingRoom
    random_bytes: Callable[[int], bytes] = os.urandom

    def now(self) -> datetime:
        """The clock's time, UTC."""
        return self.home.clock()


@dataclass(frozen=True)
class Viewer:
    """Who is asking, as sign-in established it."""

    account: str  # person-<16 hex>, contact-<16 hex>
    name: str  # as the account is shown; personal data, never logged
    organisation: str
    role: str  # a role of audit.certificates.PEOPLE, or hospital_contact
    hospital: str | None  # of a hospital contact
    via: str  # passkey, oidc, token
    session: str  # what a sign-out ends; a token's id when via is token
    language: str


def workplace(request: Request) -> Workplace:
    """The process's workplace."""
    return cast(Workplace, request.app.state.workplace)


def viewer_or_nobody(request: Request) -> Viewer | None:
    """Who is asking; None when nobody signed in."""
    return cast("Viewer | None", getattr(request.state, "viewer", None))


def viewer(request: Request) -> Viewer:
    """Who is asking. The route's access row has let them in already, so somebody is there."""
    found = viewer_or_nobody(request)
    if found is None:
        raise RuntimeError(f"{request.url.path} is open to anybody, but asks who is there")
    return found


Here = Annotated[Workplace, Depends(workplace)]
Who = Annotated[Viewer, Depends(viewer)]
MaybeWho = Annotated[Viewer | None, Depends(viewer_or_nobody)]
