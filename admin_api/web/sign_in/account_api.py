"""One's own account: passkeys, sessions, tokens, language (/api/v1/account). People only; tokens are refused."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Depends, Path, Request, Response
from pydantic import AwareDatetime, BaseModel, Field, StringConstraints

from admin_api.web.context import Here, Viewer, Who, Workplace
from admin_api.web.language import _
from admin_api.web.problems import Problem, problems
from admin_api.web.routes import ApiRoute
from admin_api.web.sign_in import passkey_ceremonies, passkeys
from admin_api.web.sign_in.accounts import account_of, choose_language
from admin_api.web.sign_in.api import LetIn, NewPasskey, PasskeyAnswer, PasskeyOptions, ask, not_for_this, person
from admin_api.web.sign_in.attempts import attempting
from admin_api.web.sign_in.ceremonies import PROVE, REGISTER, take_ceremony
from admin_api.web.sign_in.credentials import CredentialId, PasskeyName
from admin_api.web.sign_in.recording import write_now
from admin_api.web.sign_in.sessions import (
    Recent,
    end_every_session,
    end_session,
    sessions_of,
)
from admin_api.web.sign_in.site import CEREMONY, SESSION, cookie_of, set_cookie
from admin_api.web.sign_in.tables import AccountRow
from admin_api.web.sign_in.tokens import Token, make_token, revoke_token, scopes_on_offer, tokens_of
from audit import access
from audit.certificates import PEOPLE


def only_people(who: Who) -> None:
    """Raises Problem for an API token."""
    person(who.via)


router = APIRouter(
    route_class=ApiRoute, prefix="/api/v1/account", tags=["Account"], dependencies=[Depends(only_people)]
)

SessionId = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]
TokenId = Annotated[str, Path(pattern=r"^token-[0-9a-f]{16}$")]
Credential = Annotated[CredentialId, Path()]
Label = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=60, pattern=r"^\P{C}+$")]


class AccountView(BaseModel):
    """An account. Whoever may see it sees its name; it is null once it was erased."""

    id: str = Field(examples=["person-0123456789abcdef"])
    name: str | None = Field(examples=["Ada Beheer"])
    language: str = Field(examples=["en"])
    organisation: str = Field(examples=["bureau"])
    role: str = Field(examples=["consortium_admin"])
    hospital: str | None = Field(examples=[None])
    state: str = Field(examples=["active"], description="invited, active, locked or ended")
    made: datetime
    locked_until: datetime | None = Field(description="by failed attempts")
    elsewhere: bool = Field(description="signs in at the organisation's own sign-in")


class AccountChange(BaseModel):
    """What may be changed about one's own account."""

    language: Annotated[str, StringConstraints(pattern=r"^[a-z]{2}$")] = Field(examples=["nl"])


class PasskeyView(BaseModel):
    """A passkey of yours."""

    id: str = Field(examples=["q83vEjRWeJCrze8SNFZ4kA"])
    name: str = Field(examples=["work laptop"])
    fingerprint: str = Field(description="of its public key; read it out to whoever approves its certificate")
    backed_up: bool = Field(description="kept by a password manager or cloud account, on several devices")
    made: datetime
    last_used: datetime | None
    signing: str = Field(description="signs, waits (for a certificate), or cannot (it signs its owner in)")
    certificate: str | None = Field(description="digest of its newest certificate")


class PasskeyRename(BaseModel):
    """A passkey's new name."""

    name: PasskeyName = Field(examples=["telephone"])


class SignedInView(BaseModel):
    """A session of yours."""

    id: str
    here: bool = Field(description="this very session")
    via: str = Field(examples=["passkey"])
    device: str = Field(examples=["Firefox, Linux"])
    began: datetime
    last_seen: datetime
    ends: datetime


class TokenWish(BaseModel):
    """A token to be made."""

    name: Label = Field(examples=["nightly export"])
    scope: list[Annotated[str, StringConstraints(pattern=r"^[a-z*][a-z0-9.-]{0,60}(:(read|write))?$")]] = Field(
        min_length=1, max_length=50, examples=[["runs:read", "releases:read"]]
    )
    ends: AwareDatetime = Field(examples=["2027-06-01T00:00:00Z"], description="within a year")


class TokenView(BaseModel):
    """A token of yours, without its secret."""

    id: str = Field(examples=["token-0123456789abcdef"])
    name: str = Field(examples=["nightly export"])
    scope: list[str] = Field(examples=[["runs:read"]])
    made: datetime
    ends: datetime
    last_used: datetime | None
    revoked: datetime | None
    counts: bool = Field(description="whether it lets anybody in now")


class TokenMade(TokenView):
    """A new token; its secret is shown this once."""

    secret: str = Field(examples=["zegel_…"])


class HowMany(BaseModel):
    """How many sessions ended."""

    ended: int = Field(examples=[2])


@router.get("", name="account.read", response_model=AccountView, responses=problems(503))
def read(here: Here, who: Who) -> AccountView:
    """Your own account."""
    return AccountView(**vars(account_of(here.database, who.account)))


@router.patch("", name="account.change", response_model=AccountView, responses=problems(409, 503))
def change(wanted: AccountChange, here: Here, who: Who) -> AccountView:
    """Choose the language that you read."""
    choose_language(here, who.account, wanted.language)
    return AccountView(**vars(account_of(here.database, who.account)))


@router.get("/passkeys", name="account.passkeys", response_model=list[PasskeyView], responses=problems(503))
def read_passkeys(here: Here, who: Who) -> list[PasskeyView]:
    """Your passkeys, and which of them may sign approvals."""
    return passkeys_seen(here, who)


@router.post("/passkeys/options", name="account.passkeys.options", response_model=PasskeyOptions,
             responses=problems(409, 503))  # fmt: skip
def ask_for_another(response: Response, here: Here, who: Who, recent: Recent) -> PasskeyOptions:
    """What to make another passkey with."""
    with here.database.begin() as session:
        account = session.get(AccountRow, who.account)
        if account is None:
            raise Problem(404, "not-found", "Not found", "your account is gone", "sign in again")
        options, ceremony = passkey_ceremonies.begin_registration(session, here, account, link=None)
    return ask(response, here, options, ceremony)


@router.post("/passkeys", name="account.passkeys.register", response_model=PasskeyOptions,
             responses=problems(409, 503))  # fmt: skip
def hand_over(
    made: NewPasskey, request: Request, response: Response, here: Here, who: Who, recent: Recent
) -> PasskeyOptions:
    """Hand over the new passkey. It is stored once it has signed: the answer asks for that."""
    with attempting(request, access.PASSKEY):
        ceremony = take_ceremony(here, cookie_of(request, here.settings, CEREMONY), REGISTER, method=access.PASSKEY)
        _own(ceremony.account, ceremony.kept["link"], who)
        options, proving = passkey_ceremonies.register(here, ceremony, made.credential, made.name)
    return ask(response, here, options, proving)


@router.post("/passkeys/proof", name="account.passkeys.prove", response_model=LetIn, responses=problems(409, 503))
def finish(
    answer: PasskeyAnswer, request: Request, response: Response, here: Here, who: Who, background: BackgroundTasks
) -> LetIn:
    """The new passkey's first signature: from now on it signs you in."""
    with attempting(request, access.PASSKEY):
        ceremony = take_ceremony(here, cookie_of(request, here.settings, CEREMONY), PROVE, method=access.PASSKEY)
        _own(ceremony.account, ceremony.kept["link"], who)
        passkey_ceremonies.prove(here, ceremony, answer.credential)
    set_cookie(response, here.settings, CEREMONY, "", seconds=0)
    background.add_task(write_now, here)
    return LetIn(account=who.account, next="/account")


@router.patch("/passkeys/{credential}", name="account.passkeys.rename", response_model=PasskeyView,
              responses=problems(409, 503))  # fmt: skip
def rename(credential: Credential, wanted: PasskeyRename, here: Here, who: Who) -> PasskeyView:
    """Call one of your passkeys something else."""
    passkeys.rename(here, who.account, credential, wanted.name)
    return next(each for each in passkeys_seen(here, who) if each.id == credential)


@router.delete("/passkeys/{credential}", name="account.passkeys.remove", status_code=204, responses=problems(409, 503))
def remove(credential: Credential, here: Here, who: Who, recent: Recent, background: BackgroundTasks) -> None:
    """Remove one of your passkeys, not the last. What it signed stays; its certificate stays until it is revoked."""
    passkeys.remove(here, who.account, credential)
    background.add_task(write_now, here)


@router.get("/sessions", name="account.sessions", response_model=list[SignedInView], responses=problems(503))
def read_sessions(here: Here, who: Who) -> list[SignedInView]:
    """Where you are signed in."""
    return [SignedInView(**vars(each), here=each.id == who.session) for each in sessions_of(here, who.account)]


@router.delete("/sessions", name="account.sessions.end", response_model=HowMany, responses=problems(409, 503))
def sign_out_everywhere(response: Response, here: Here, who: Who, background: BackgroundTasks) -> HowMany:
    """Sign out everywhere, here too."""
    ended = end_every_session(here, who.account)
    set_cookie(response, here.settings, SESSION, "", seconds=0)
    background.add_task(write_now, here)
    return HowMany(ended=ended)


@router.delete("/sessions/{session}", name="account.session.end", status_code=204, responses=problems(409, 503))
def sign_out_there(session: SessionId, here: Here, who: Who) -> None:
    """Sign out in one browser."""
    end_session(here, who.account, session)


@router.get("/tokens", name="account.tokens", response_model=list[TokenView], responses=problems(503))
def read_tokens(here: Here, who: Who) -> list[TokenView]:
    """Your API tokens."""
    return [token_seen(here, each) for each in tokens_of(here, who.account)]


@router.post("/tokens", name="account.tokens.make", status_code=201, response_model=TokenMade,
             responses=problems(409, 503))  # fmt: skip
def make(wanted: TokenWish, here: Here, who: Who, recent: Recent, background: BackgroundTasks) -> TokenMade:
    """Make an API token. Its secret is in this answer and nowhere else."""
    token, secret = make_token(here, who, name=wanted.name, scope=wanted.scope, ends=wanted.ends)
    background.add_task(write_now, here)
    return TokenMade(**token_seen(here, token).model_dump(), secret=secret)


@router.get("/tokens/scopes", name="account.tokens.scopes", response_model=list[str], responses=problems(503))
def read_scopes(who: Who) -> list[str]:
    """The areas that a token of yours may be made for."""
    return scopes_on_offer(who.role)


@router.delete("/tokens/{token}", name="account.tokens.revoke", status_code=204, responses=problems(409, 503))
def revoke(token: TokenId, here: Here, who: Who, background: BackgroundTasks) -> None:
    """Revoke one of your tokens now."""
    revoke_token(here, who.account, token)
    background.add_task(write_now, here)


def passkeys_seen(here: Workplace, who: Viewer) -> list[PasskeyView]:
    """The viewer's passkeys with what each may do."""
    found = passkeys.passkeys_of(here.database, who.account)
    certified = passkeys.certificates_of(here, found)
    without = "waits" if who.role in PEOPLE else "cannot"
    return [
        PasskeyView(
            id=each.credential_id,
            name=each.name,
            fingerprint=each.key_digest,
            backed_up=each.backed_up,
            made=each.made,
            last_used=each.last_used,
            signing="signs" if each.credential_id in certified else without,
            certificate=certified.get(each.credential_id),
        )
        for each in found
    ]


def token_seen(here: Workplace, token: Token) -> TokenView:
    """A token as its owner sees it."""
    return TokenView(**{**vars(token), "scope": list(token.scope)}, counts=token.counts(here.now()))


def default_end(now: datetime) -> datetime:
    """When a token ends that is made without further thought."""
    return now + timedelta(days=90)


def _own(account: str | None, link: str | None, who: Viewer) -> None:
    if account != who.account or link is not None:
        raise not_for_this(_("this passkey was begun for another account"))
