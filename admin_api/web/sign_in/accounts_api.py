"""Everybody's accounts, for consortium admins (/api/v1/accounts): invite, make a new link, lock, unlock, end, erase."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, BackgroundTasks, Depends, Path, Query
from pydantic import BaseModel, Field, StringConstraints

from admin_api.web.context import Here, Who
from admin_api.web.paging import After, Limit, Page
from admin_api.web.problems import problems
from admin_api.web.routes import ApiRoute
from admin_api.web.sign_in import accounts
from admin_api.web.sign_in.account_api import AccountView, only_people
from admin_api.web.sign_in.accounts import Account, Invitation
from admin_api.web.sign_in.recording import write_now
from admin_api.web.sign_in.sessions import Recent

router = APIRouter(
    route_class=ApiRoute, prefix="/api/v1/accounts", tags=["Accounts"], dependencies=[Depends(only_people)]
)

AccountId = Annotated[str, Path(pattern=r"^(person|contact)-[0-9a-f]{16}$")]
State = Literal["invited", "active", "locked", "ended"]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100, pattern=r"^\P{C}+$")]


class InvitationWish(BaseModel):
    """Somebody to invite."""

    name: Name = Field(examples=["Pieter Privacy"])
    role: Literal["consortium_admin", "privacy_officer", "release_manager", "authority", "hospital_contact"]
    organisation: Name = Field(examples=["privacy board"])
    hospital: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,99}$")] | None = Field(
        default=None, examples=[None], description="of a hospital contact: the hospital's site"
    )
    language: Annotated[str, StringConstraints(pattern=r"^[a-z]{2}$")] = Field(default="en", examples=["nl"])


class InvitationView(BaseModel):
    """A one-time link, shown this once. Hand it over so that nobody else reads it."""

    account: AccountView
    link: str = Field(examples=["https://zegel.example/enrol#…"])
    ends: datetime


@router.get("", name="accounts.list", response_model=Page[AccountView], responses=problems(503))
def read_all(
    here: Here, limit: Limit = 50, after: After = None, state: Annotated[State | None, Query()] = None
) -> Page[AccountView]:
    """Everybody's accounts, by id."""
    found, total = accounts.accounts(here, limit=limit + 1, after=after, state=state)
    more = len(found) > limit
    items = [seen(each) for each in found[:limit]]
    return Page[AccountView](items=items, next=items[-1].id if more else None, total=total)


@router.post("", name="accounts.invite", status_code=201, response_model=InvitationView, responses=problems(409, 503))
def invite(wanted: InvitationWish, here: Here, who: Who, recent: Recent, background: BackgroundTasks) -> InvitationView:
    """Invite somebody: an account and its one-time link, good for 72 hours."""
    invitation = accounts.invite(
        here,
        name=wanted.name,
        role=wanted.role,
        organisation=wanted.organisation,
        hospital=wanted.hospital,
        language=wanted.language,
        by=who.account,
    )
    background.add_task(write_now, here)
    return invited(invitation)


@router.get("/{account}", name="accounts.read", response_model=AccountView, responses=problems(503))
def read(account: AccountId, here: Here) -> AccountView:
    """One account."""
    return seen(accounts.account_of(here.database, account))


@router.post("/{account}/link", name="accounts.link", status_code=201, response_model=InvitationView,
             responses=problems(409, 503))  # fmt: skip
def link(account: AccountId, here: Here, who: Who, recent: Recent, background: BackgroundTasks) -> InvitationView:
    """Another one-time link, for instance when all passkeys are lost. An earlier link ends."""
    invitation = accounts.new_link(here, account, by=who.account)
    background.add_task(write_now, here)
    return invited(invitation)


@router.post("/{account}/lock", name="accounts.lock", response_model=AccountView, responses=problems(409, 503))
def lock(account: AccountId, here: Here, who: Who, recent: Recent, background: BackgroundTasks) -> AccountView:
    """Let nobody in with this account until it is unlocked; its sessions and tokens end now."""
    accounts.lock(here, account, by=who.account)
    background.add_task(write_now, here)
    return seen(accounts.account_of(here.database, account))


@router.post("/{account}/unlock", name="accounts.unlock", response_model=AccountView, responses=problems(409, 503))
def unlock(account: AccountId, here: Here, who: Who, recent: Recent, background: BackgroundTasks) -> AccountView:
    """Let a locked account in again."""
    accounts.unlock(here, account, by=who.account)
    background.add_task(write_now, here)
    return seen(accounts.account_of(here.database, account))


@router.post("/{account}/end", name="accounts.end", response_model=AccountView, responses=problems(409, 503))
def end(account: AccountId, here: Here, who: Who, recent: Recent, background: BackgroundTasks) -> AccountView:
    """End an account for good; its sessions and tokens end now. Certificates are revoked elsewhere."""
    accounts.end_account(here, account, by=who.account)
    background.add_task(write_now, here)
    return seen(accounts.account_of(here.database, account))


@router.post("/{account}/erase", name="accounts.erase", response_model=AccountView, responses=problems(409, 503))
def erase(account: AccountId, here: Here, recent: Recent) -> AccountView:
    """Forget the name, passkeys and devices of an ended account."""
    accounts.erase(here, account)
    return seen(accounts.account_of(here.database, account))


def seen(account: Account) -> AccountView:
    """An account as admins see it."""
    return AccountView(**vars(account))


def invited(invitation: Invitation) -> InvitationView:
    """An invitation as its maker sees it, once."""
    return InvitationView(account=seen(invitation.account), link=invitation.link, ends=invitation.ends)
