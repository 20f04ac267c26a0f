"""The pages of sign-in: sign in, enrol, confirm, one's own account, and everybody's accounts for admins.

Making and using a passkey needs the browser's script (static/passkey.js), which speaks to the API; all else are forms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, BackgroundTasks, Depends, Form, Path, Query, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import StringConstraints

from admin_api.web.context import Here, MaybeWho, Viewer, Who, Workplace
from admin_api.web.language import LANGUAGES, N_, _
from admin_api.web.problems import not_found
from admin_api.web.rendering import render
from admin_api.web.routes import PageRoute
from admin_api.web.sign_in import accounts, passkeys
from admin_api.web.sign_in.account_api import (
    Credential,
    Label,
    SessionId,
    TokenId,
    default_end,
    only_people,
    passkeys_seen,
    token_seen,
)
from admin_api.web.sign_in.accounts import ROLES
from admin_api.web.sign_in.accounts_api import AccountId, Name
from admin_api.web.sign_in.api import let_in
from admin_api.web.sign_in.attempts import attempting
from admin_api.web.sign_in.ceremonies import ELSEWHERE, HOLDS, take_ceremony
from admin_api.web.sign_in.credentials import PasskeyName
from admin_api.web.sign_in.oidc import begin_elsewhere, finish_elsewhere, provider_of
from admin_api.web.sign_in.recording import write_now
from admin_api.web.sign_in.sessions import (
    OIDC,
    Recent,
    end_every_session,
    end_session,
    sessions_of,
)
from admin_api.web.sign_in.site import CEREMONY, SESSION, cookie_of, origin_of, safe_next, set_cookie
from admin_api.web.sign_in.tokens import make_token, revoke_token, scopes_on_offer, tokens_of
from admin_api.web.states import ROLES as WORDS_OF_ROLES
from audit import access

router = APIRouter(route_class=PageRoute, include_in_schema=False)
own = APIRouter(route_class=PageRoute, include_in_schema=False, dependencies=[Depends(only_people)])

Next = Annotated[str | None, Query(max_length=2000)]
After = Annotated[str | None, Query(max_length=100)]
Change = Annotated[Literal["link", "lock", "unlock", "end", "erase"], Path()]
PER_PAGE = 50


@dataclass(frozen=True)
class Way:
    """Something that an admin may do to an account: the last part of its address, its button, what is asked first."""

    name: str
    word: str
    kind: str = "plain"
    ask: str = ""


_LINK = Way("link", N_("Make a new link"), ask=N_("Make a new one-time link? An earlier link ends."))
_END = Way("end", N_("End"), "danger", N_("End this account for good? Its sessions and tokens end now."))
WAYS: Mapping[str, Sequence[Way]] = {
    accounts.INVITED: (_LINK, _END),
    accounts.ACTIVE: (
        _LINK,
        Way("lock", N_("Lock"), "danger", N_("Lock this account? Its sessions and tokens end now.")),
        _END,
    ),
    accounts.LOCKED: (Way("unlock", N_("Unlock")), _END),
    accounts.ENDED: (
        Way("erase", N_("Erase the name"), "danger", N_("Erase name, passkeys and devices of this account for good?")),
    ),
}


@router.get("/sign-in", name="sign-in.page")
def sign_in_page(request: Request, here: Here, who: MaybeWho, next: Next = None) -> Response:
    """Sign in with a passkey, or at the organisation's own sign-in."""
    target = safe_next(next)
    if who is not None:
        return RedirectResponse(target, status_code=303)
    return render(
        request,
        "sign_in/sign_in.html",
        next=target,
        origin=origin_of(here.settings),
        elsewhere=provider_of(here.settings) is not None,
    )


@router.get("/sign-in/oidc", name="sign-in.elsewhere")
def go_elsewhere(request: Request, here: Here, next: Next = None, again: bool = False) -> Response:
    """To the organisation's own sign-in; `again` when it is to ask who is there, whatever it remembers."""
    provider = provider_of(here.settings)
    if provider is None:
        raise not_found(_("no other sign-in is set up here"), _("sign in with a passkey"))
    with attempting(request, access.OIDC):
        address, ceremony = begin_elsewhere(here, provider, back=safe_next(next), again=again)
    response = RedirectResponse(address, status_code=303)
    set_cookie(response, here.settings, CEREMONY, ceremony.secret, seconds=int(HOLDS.total_seconds()))
    return response


@router.get("/sign-in/oidc/callback", name="sign-in.elsewhere.back")
def come_back(request: Request, here: Here, background: BackgroundTasks) -> Response:
    """Back from the organisation's own sign-in."""
    provider = provider_of(here.settings)
    if provider is None:
        raise not_found(_("no other sign-in is set up here"), _("sign in with a passkey"))
    with attempting(request, access.OIDC):
        ceremony = take_ceremony(here, cookie_of(request, here.settings, CEREMONY), ELSEWHERE, method=access.OIDC)
        account, proven = finish_elsewhere(here, provider, ceremony, dict(request.query_params))
        response = RedirectResponse(safe_next(ceremony.kept["back"]), status_code=303, background=background)
        let_in(request, response, here, account.id, via=OIDC, proven=proven)
    background.add_task(write_now, here)
    return response


@router.get("/sign-in/confirm", name="sign-in.confirm.page")
def confirm_page(request: Request, here: Here, who: Who, next: Next = None) -> Response:
    """Prove again who you are."""
    return render(
        request,
        "sign_in/confirm.html",
        next=safe_next(next),
        origin=origin_of(here.settings),
        elsewhere=who.via == OIDC and provider_of(here.settings) is not None,
        has_passkey=bool(passkeys.passkeys_of(here.database, who.account)),
    )


@router.post("/sign-out", name="sign-out.post")
def sign_out(here: Here, who: MaybeWho) -> Response:
    """Sign out in this browser."""
    if who is not None and who.session:
        only_people(who)
        end_session(here, who.account, who.session)
    response = RedirectResponse("/sign-in", status_code=303)
    set_cookie(response, here.settings, SESSION, "", seconds=0)
    return response


@router.get("/enrol", name="enrolment.page")
def enrol_page(request: Request, here: Here) -> Response:
    """Where a one-time link leads; what stands behind its # never comes here."""
    return render(request, "sign_in/enrol.html", origin=origin_of(here.settings))


@own.get("/account", name="account.page")
def account_page(request: Request, here: Here, who: Who) -> Response:
    """One's own account."""
    return render(request, "sign_in/account.html", **account_values(here, who))


@own.post("/account/language", name="account.language.post")
def set_language(here: Here, who: Who, language: Annotated[str, Form(max_length=2)]) -> Response:
    """Choose the language that you read."""
    accounts.choose_language(here, who.account, language)
    return _back()


@own.post("/account/passkeys/{credential}/rename", name="account.passkeys.rename.post")
def rename(here: Here, who: Who, credential: Credential, name: Annotated[PasskeyName, Form()]) -> Response:
    """Call a passkey something else."""
    passkeys.rename(here, who.account, credential, name)
    return _back()


@own.post("/account/passkeys/{credential}/remove", name="account.passkeys.remove.post")
def remove(here: Here, who: Who, recent: Recent, credential: Credential) -> Response:
    """Remove a passkey."""
    passkeys.remove(here, who.account, credential)
    return _back(here)


@own.post("/account/sessions/end", name="account.sessions.end.post")
def sign_out_everywhere(here: Here, who: Who) -> Response:
    """Sign out everywhere."""
    end_every_session(here, who.account)
    response = RedirectResponse("/sign-in", status_code=303, background=_writing(here))
    set_cookie(response, here.settings, SESSION, "", seconds=0)
    return response


@own.post("/account/sessions/{session}/end", name="account.session.end.post")
def sign_out_there(here: Here, who: Who, session: SessionId) -> Response:
    """Sign out in one browser."""
    end_session(here, who.account, session)
    return _back()


@own.post("/account/tokens", name="account.tokens.make.post")
def make(
    request: Request,
    here: Here,
    who: Who,
    recent: Recent,
    name: Annotated[Label, Form()],
    scope: Annotated[list[str], Form(max_length=50)],
    ends: Annotated[date, Form()],
) -> Response:
    """Make an API token and show it, once."""
    last_moment = datetime.combine(ends, time(23, 59, 59), UTC)
    token, secret = make_token(here, who, name=name, scope=scope, ends=last_moment)
    response = render(
        request, "sign_in/token.html", token=token_seen(here, token), secret=secret, address=here.settings.public_url
    )
    response.background = _writing(here)
    return response


@own.post("/account/tokens/{token}/revoke", name="account.tokens.revoke.post")
def revoke(here: Here, who: Who, token: TokenId) -> Response:
    """Revoke a token."""
    revoke_token(here, who.account, token)
    return _back(here)


@own.get("/accounts", name="accounts.page")
def accounts_page(request: Request, here: Here, after: After = None) -> Response:
    """Everybody's accounts."""
    return render(request, "sign_in/accounts.html", **accounts_values(here, after))


@own.post("/accounts", name="accounts.invite.post")
def invite(
    request: Request,
    here: Here,
    who: Who,
    recent: Recent,
    name: Annotated[Name, Form()],
    role: Annotated[str, Form(max_length=40)],
    organisation: Annotated[Name, Form()],
    hospital: Annotated[str, StringConstraints(strip_whitespace=True), Form(max_length=100)] = "",
    language: Annotated[str, Form(max_length=2)] = "en",
) -> Response:
    """Invite somebody and show the link, once."""
    invitation = accounts.invite(
        here,
        name=name,
        role=role,
        organisation=organisation,
        hospital=hospital or None,
        language=language,
        by=who.account,
    )
    response = render(request, "sign_in/invited.html", invitation=invitation)
    response.background = _writing(here)
    return response


@own.post("/accounts/{account}/{change}", name="accounts.change.post")
def change(request: Request, here: Here, who: Who, recent: Recent, account: AccountId, change: Change) -> Response:
    """Make a new link for an account (shown once), lock, unlock, end or erase it."""
    if change == "link":
        response: Response = render(
            request, "sign_in/invited.html", invitation=accounts.new_link(here, account, by=who.account)
        )
        response.background = _writing(here)
        return response
    if change == "erase":
        accounts.erase(here, account)
    else:
        {"lock": accounts.lock, "unlock": accounts.unlock, "end": accounts.end_account}[change](
            here, account, by=who.account
        )
    return RedirectResponse("/accounts", status_code=303, background=_writing(here))


def account_values(here: Workplace, who: Viewer) -> dict[str, Any]:
    """What the page of one's own account shows."""
    mine = passkeys_seen(here, who)
    tokens = [token_seen(here, each) for each in tokens_of(here, who.account)]
    return {
        "account": accounts.account_of(here.database, who.account),
        "passkeys": mine,
        "waiting": sum(each.signing == "waits" for each in mine),
        "sessions": sessions_of(here, who.account),
        "tokens": tokens,
        "scope_choices": [(each, each) for each in scopes_on_offer(who.role)],
        "default_end": default_end(here.now()).date().isoformat(),
        "languages": list(LANGUAGES.items()),
        "origin": origin_of(here.settings),
    }


def accounts_values(here: Workplace, after: str | None) -> dict[str, Any]:
    """What the page of everybody's accounts shows."""
    found, total = accounts.accounts(here, limit=PER_PAGE + 1, after=after)
    items = found[:PER_PAGE]
    return {
        "accounts": items,
        "next": items[-1].id if len(found) > PER_PAGE else None,
        "total": total,
        "waiting": [
            {
                "name": each.account.called,
                "passkey": each.passkey.name,
                "since": each.passkey.made,
                "fingerprint": each.passkey.key_digest,
            }
            for each in passkeys.passkeys_without_certificate(here)
        ],
        "ways": WAYS,
        "role_choices": [(each, _(WORDS_OF_ROLES[each])) for each in ROLES],
        "languages": list(LANGUAGES.items()),
    }


def _back(here: Workplace | None = None) -> Response:
    return RedirectResponse("/account", status_code=303, background=None if here is None else _writing(here))


def _writing(here: Workplace) -> BackgroundTasks:
    tasks = BackgroundTasks()
    tasks.add_task(write_now, here)
    return tasks
