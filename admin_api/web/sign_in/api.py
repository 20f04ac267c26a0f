"""Signing in and out, and enrolling, for programs and for the pages' own script (/api/v1).

A ceremony has two steps: options out with a cookie that holds the ceremony's secret, the passkey's answer back.
Answers that set a session's cookie are not stored for repeated requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Request, Response
from pydantic import BaseModel, Field, StringConstraints

from admin_api.web.context import Here, Who, Workplace
from admin_api.web.language import _
from admin_api.web.problems import Problem, problems
from admin_api.web.routes import ApiRoute
from admin_api.web.sign_in.attempts import attempting
from admin_api.web.sign_in.ceremonies import CONFIRM, HOLDS, PROVE, REGISTER, SIGN_IN, Ceremony, take_ceremony
from admin_api.web.sign_in.credentials import MadePasskey, PasskeyName, UsedPasskey
from admin_api.web.sign_in.enrolment import open_link
from admin_api.web.sign_in.passkey_ceremonies import check_use, confirm_options, prove, register, sign_in_options
from admin_api.web.sign_in.recording import write_now
from admin_api.web.sign_in.sessions import (
    LONGEST,
    PASSKEY,
    TOKEN,
    begin_session,
    confirm_session,
    device_of,
    end_session,
    is_recent,
)
from admin_api.web.sign_in.site import CEREMONY, SESSION, cookie_of, safe_next, set_cookie
from audit import access

router = APIRouter(route_class=ApiRoute, prefix="/api/v1", tags=["Sign-in"])

_OPTIONS = {"challenge": "mYk3…", "rpId": "zegel.example", "userVerification": "required", "allowCredentials": []}


class PasskeyOptions(BaseModel):
    """What to hand to the browser: `PublicKeyCredentialCreationOptions` or `…RequestOptions` in their JSON form."""

    public_key: dict[str, Any] = Field(serialization_alias="publicKey", examples=[_OPTIONS])


class EnrolmentOptions(PasskeyOptions):
    """The same, and for whom the link is."""

    name: str = Field(examples=["Ada Beheer"])
    role: str = Field(examples=["consortium_admin"])
    organisation: str = Field(examples=["bureau"])


class PasskeyAnswer(BaseModel):
    """A passkey's answer to a challenge."""

    credential: UsedPasskey
    next: str | None = Field(default=None, max_length=2000, examples=["/plans"])


class NewPasskey(BaseModel):
    """A new passkey, and what its owner calls it."""

    credential: MadePasskey
    name: PasskeyName = Field(examples=["work laptop"])


class LinkOpened(BaseModel):
    """What stands behind the `#` of a one-time link."""

    link: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,100}$")] = Field(
        examples=["Zm9yIHRoaXMgcGVyc29uIG9ubHksIHdpdGhpbiAzIGRheXM"]
    )


class LetIn(BaseModel):
    """Somebody was let in; the session is in the cookie."""

    account: str = Field(examples=["person-0123456789abcdef"])
    next: str = Field(examples=["/"], description="where the pages go on")


class SessionView(BaseModel):
    """Who you are here."""

    account: str = Field(examples=["person-0123456789abcdef"])
    name: str = Field(examples=["Ada Beheer"])
    organisation: str = Field(examples=["bureau"])
    role: str = Field(examples=["consortium_admin"])
    hospital: str | None = Field(examples=[None])
    via: str = Field(examples=["passkey"], description="passkey, oidc or token")
    language: str = Field(examples=["en"])
    csrf: str = Field(description="for the header X-CSRF-Token of a session's requests; empty for tokens")
    confirmed: datetime | None = Field(description="when you last proved who you are; null for tokens")
    recent: bool = Field(description="whether that is recent enough for what asks for the passkey again")


@router.post("/sign-in/options", name="sign-in.options", response_model=PasskeyOptions, responses=problems(409, 503))
def ask_to_sign_in(request: Request, response: Response, here: Here) -> PasskeyOptions:
    """A challenge for signing in with a passkey. Answer it from the same browser within five minutes."""
    with attempting(request, access.PASSKEY):
        options, ceremony = sign_in_options(here)
    return ask(response, here, options, ceremony)


@router.post("/sign-in", name="sign-in.passkey", response_model=LetIn, responses=problems(409, 503))
def sign_in(
    answer: PasskeyAnswer, request: Request, response: Response, here: Here, background: BackgroundTasks
) -> LetIn:
    """Sign in with a passkey's answer to that challenge. A session that the browser had before ends."""
    with attempting(request, access.PASSKEY):
        ceremony = take_ceremony(here, cookie_of(request, here.settings, CEREMONY), SIGN_IN, method=access.PASSKEY)
        account = check_use(here, ceremony, answer.credential)
        let_in(request, response, here, account.id, via=PASSKEY)
    background.add_task(write_now, here)
    return LetIn(account=account.id, next=safe_next(answer.next))


@router.post(
    "/sign-in/confirm/options",
    name="sign-in.confirm.options",
    response_model=PasskeyOptions,
    responses=problems(409, 503),
)
def ask_to_confirm(request: Request, response: Response, here: Here, who: Who) -> PasskeyOptions:
    """A challenge for proving again who you are, with a passkey of your account."""
    person(who.via)
    with attempting(request, access.PASSKEY):
        options, ceremony = confirm_options(here, who.account)
    return ask(response, here, options, ceremony)


@router.post("/sign-in/confirm", name="sign-in.confirm", response_model=LetIn, responses=problems(409, 503))
def confirm(answer: PasskeyAnswer, request: Request, response: Response, here: Here, who: Who) -> LetIn:
    """Prove again who you are; for five minutes you may do what does lasting harm in wrong hands."""
    person(who.via)
    with attempting(request, access.PASSKEY):
        ceremony = take_ceremony(here, cookie_of(request, here.settings, CEREMONY), CONFIRM, method=access.PASSKEY)
        if ceremony.account != who.account:
            raise not_for_this(_("somebody else signed in meanwhile"))
        check_use(here, ceremony, answer.credential)
    secret = confirm_session(here, who)
    set_cookie(response, here.settings, SESSION, secret, seconds=int(LONGEST.total_seconds()))
    set_cookie(response, here.settings, CEREMONY, "", seconds=0)
    return LetIn(account=who.account, next=safe_next(answer.next))


@router.post(
    "/enrolment/options", name="enrolment.options", response_model=EnrolmentOptions, responses=problems(409, 503)
)
def ask_to_enrol(opened: LinkOpened, request: Request, response: Response, here: Here) -> EnrolmentOptions:
    """Open a one-time link: for whom it is, and what to make a passkey with. The link stays good until one is made."""
    with attempting(request, access.ENROLMENT):
        account, options, ceremony = open_link(here, opened.link)
    asked = ask(response, here, options, ceremony)
    return EnrolmentOptions(
        public_key=asked.public_key, name=account.called, role=account.role, organisation=account.organisation
    )


@router.post("/enrolment", name="enrolment.register", response_model=PasskeyOptions, responses=problems(409, 503))
def enrol(made: NewPasskey, request: Request, response: Response, here: Here) -> PasskeyOptions:
    """Hand over the new passkey. It is stored once it has signed: the answer asks for that."""
    with attempting(request, access.ENROLMENT):
        ceremony = take_ceremony(here, cookie_of(request, here.settings, CEREMONY), REGISTER, method=access.ENROLMENT)
        if ceremony.kept["link"] is None:
            raise Problem(
                409, "refused", _("Refused"), _("this passkey is for an account that is signed in"), _("begin again")
            )
        options, proving = register(here, ceremony, made.credential, made.name)
    return ask(response, here, options, proving)


@router.post("/enrolment/proof", name="enrolment.prove", response_model=LetIn, responses=problems(409, 503))
def finish_enrolment(
    answer: PasskeyAnswer, request: Request, response: Response, here: Here, background: BackgroundTasks
) -> LetIn:
    """The new passkey's first signature: it is stored, the link is used up, and you are signed in."""
    with attempting(request, access.ENROLMENT):
        ceremony = take_ceremony(here, cookie_of(request, here.settings, CEREMONY), PROVE, method=access.ENROLMENT)
        if ceremony.kept["link"] is None:
            raise Problem(
                409, "refused", _("Refused"), _("this passkey is for an account that is signed in"), _("begin again")
            )
        account = prove(here, ceremony, answer.credential)
        let_in(request, response, here, account.id, via=PASSKEY)
    background.add_task(write_now, here)
    return LetIn(account=account.id, next=safe_next(answer.next))


@router.get("/session", name="session.read", response_model=SessionView, responses=problems(503))
def read_session(request: Request, who: Who) -> SessionView:
    """Who you are here, by your session or your token."""
    return SessionView(
        account=who.account,
        name=who.name,
        organisation=who.organisation,
        role=who.role,
        hospital=who.hospital,
        via=who.via,
        language=who.language,
        csrf=request.state.csrf,
        confirmed=request.state.confirmed,
        recent=is_recent(request),
    )


@router.delete("/session", name="session.end", status_code=204, responses=problems(409, 503))
def sign_out(response: Response, here: Here, who: Who) -> None:
    """Sign out in this browser."""
    person(who.via)
    end_session(here, who.account, who.session)
    set_cookie(response, here.settings, SESSION, "", seconds=0)


def let_in(
    request: Request,
    response: Response,
    here: Workplace,
    account_id: str,
    *,
    via: str,
    proven: datetime | None = None,
) -> None:
    """Begin a session in this browser; the one it had ends. Raises AccessRefused."""
    secret = begin_session(
        here,
        account_id,
        via=via,
        device=device_of(request.headers.get("user-agent")),
        earlier=cookie_of(request, here.settings, SESSION),
        proven=proven,
    )
    set_cookie(response, here.settings, SESSION, secret, seconds=int(LONGEST.total_seconds()))
    set_cookie(response, here.settings, CEREMONY, "", seconds=0)


def not_for_this(reason: str) -> Problem:
    """The problem for a ceremony that was begun for something else."""
    return Problem(409, "refused", _("Refused"), reason, _("begin again"))


def person(via: str) -> None:
    """Raises Problem for an API token: accounts are looked after by people."""
    if via == TOKEN:
        raise Problem(
            403, "person-needed", _("A person is needed"), _("this cannot be done with an API token"),
            _("sign in and do it in the pages"),
        )  # fmt: skip


def ask(response: Response, here: Workplace, options: Mapping[str, Any], ceremony: Ceremony) -> PasskeyOptions:
    """The options of a ceremony as an answer, its secret in the browser's cookie."""
    set_cookie(response, here.settings, CEREMONY, ceremony.secret, seconds=int(HOLDS.total_seconds()))
    return PasskeyOptions(public_key=dict(options))
