"""Signing in at the organisation's own sign-in (OpenID Connect), where the consortium has set one up.

Authorization code flow with PKCE, state and nonce, each random, kept here and taken once. An identity token counts
only from exactly the issuer configured, for exactly our client, signed by one of the issuer's keys with an asymmetric
algorithm. Which role somebody has is decided by the table in the settings; who is in no row of it, or in several that
differ, is refused.

Such a session may read and do what needs no signature. To sign, its account needs a passkey, as everybody does.

A single sign-on lets people in without asking them anything. So such a session is one that just proved who is there
only when the token says that the person was asked (`auth_time`); confirming demands that they are asked anew.

Nothing is remembered between two sign-ins but the account: the issuer's addresses and keys are asked each time.

Source: OpenID Connect Core 1.0 sections 3.1.2 and 3.1.3.7, RFC 7636 (PKCE), RFC 9207 (issuer in the answer).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import httpx2
from authlib.integrations.base_client.errors import OAuthError  # type: ignore[import-untyped]
from authlib.integrations.httpx_client import OAuth2Client  # type: ignore[import-untyped]
from authlib.oidc.core import CodeIDToken  # type: ignore[import-untyped]
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, KeySetSerialization
from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from admin_api.errors import WebError
from admin_api.web.context import HOSPITAL_CONTACT, Workplace
from admin_api.web.language import _
from admin_api.web.problems import Problem
from admin_api.web.settings import Settings
from admin_api.web.sign_in.accounts import (
    ACTIVE,
    HANDLE_SIZE,
    MAX_NAME,
    ROLES,
    SITE,
    Account,
    close,
    new_account_id,
    seen,
)
from admin_api.web.sign_in.ceremonies import ELSEWHERE, Ceremony, begin_ceremony
from admin_api.web.sign_in.errors import AccessRefused
from admin_api.web.sign_in.recording import note_ended
from admin_api.web.sign_in.secret_values import new_secret, same
from admin_api.web.sign_in.sessions import OIDC, RECENT
from admin_api.web.sign_in.tables import AccountRow, SessionRow
from audit import access

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "Ed25519", "EdDSA")
LEEWAY_S = 60  # between the issuer's clock and ours
TIMEOUT_S = 5.0  # per request to the issuer
CALLBACK = "/sign-in/oidc/callback"
SCOPE = "openid profile email"


@dataclass(frozen=True)
class Grant:
    """What a row of the table gives: a role at an organisation, of a contact also the hospital."""

    role: str
    organisation: str
    hospital: str | None


@dataclass(frozen=True)
class Provider:
    """The organisation's own sign-in, as the settings name it."""

    issuer: str
    client_id: str
    secret_file: Path | None
    claim: str
    grants: Mapping[str, Grant]  # by value of the claim
    domains: tuple[str, ...]  # of e-mail addresses; none: any


def provider_of(settings: Settings) -> Provider | None:
    """The sign-in that is set up; None when there is none. Raises WebError for settings that cannot be."""
    if settings.oidc_issuer is None:
        return None
    if not settings.oidc_client_id or not settings.oidc_roles:
        raise WebError("OpenID Connect: oidc_issuer needs oidc_client_id and oidc_roles too")
    _check_address(settings.oidc_issuer, "oidc_issuer")
    grants = {value: _grant(value, text) for value, text in settings.oidc_roles.items()}
    return Provider(
        settings.oidc_issuer,
        settings.oidc_client_id,
        settings.oidc_client_secret_file,
        settings.oidc_role_claim,
        grants,
        tuple(domain.casefold() for domain in settings.oidc_domains),
    )


def begin_elsewhere(here: Workplace, provider: Provider, *, back: str, again: bool = False) -> tuple[str, Ceremony]:
    """Where to send the browser, and the ceremony that its return is held against. `back`: where to go afterwards.

    `again`: the person is to be asked anew, whatever they are signed in to there.

    Raises Problem when the issuer does not answer, or not as it must.
    """
    state, nonce, verifier = (new_secret(here.random_bytes) for _each in range(3))
    with _client(here, provider) as client:
        metadata = _metadata(client, provider)
        address, _state = client.create_authorization_url(
            metadata["authorization_endpoint"],
            state=state,
            nonce=nonce,
            code_verifier=verifier,
            **({"prompt": "login", "max_age": "0"} if again else {}),
        )
    with here.database.begin() as session:
        keep = {"state": state, "nonce": nonce, "verifier": verifier, "back": back, "again": again}
        return str(address), begin_ceremony(session, here, ELSEWHERE, keep=keep)


def finish_elsewhere(
    here: Workplace, provider: Provider, ceremony: Ceremony, answer: Mapping[str, str]
) -> tuple[Account, datetime | None]:
    """Whose account the issuer vouches for; it is made at the first sign-in. `answer`: the callback's query.

    Returns: the account, and when the person was asked who they are, where the issuer says so.

    Raises AccessRefused for an answer that does not hold or somebody without a role here, Problem when the issuer does
    not answer.
    """
    if not same(answer.get("state", ""), ceremony.kept["state"]):
        raise _refused(_("the answer belongs to another sign-in"), access.STALE)
    if answer.get("iss") not in (None, provider.issuer):
        raise _refused(_("the answer came from another issuer"), access.NOT_PROVEN)
    if "error" in answer or not answer.get("code"):
        raise _refused(_("your organisation's sign-in did not let you in"), access.NOT_PROVEN)
    with _client(here, provider) as client:
        metadata = _metadata(client, provider)
        if metadata.get("authorization_response_iss_parameter_supported") is True and "iss" not in answer:
            raise _refused(_("the answer does not name its issuer"), access.NOT_PROVEN)
        claims = _claims(here, provider, client, metadata, answer["code"], ceremony)
    subject = claims["sub"]
    if not isinstance(subject, str) or not 0 < len(subject) <= 255:
        raise _refused(_("the identity token names nobody"), access.NOT_PROVEN)
    asked = _asked_at(here, claims)
    if ceremony.kept["again"] and (asked is None or here.now() - asked > RECENT):
        raise _refused(_("your organisation's sign-in did not ask you again"), access.NOT_PROVEN)
    grant = _granted(provider, claims)
    if grant is None:
        _end_sessions(here, provider.issuer, subject)
        raise _refused(
            _("your organisation's sign-in names no role of this consortium for you; ask a consortium admin"),
            access.UNMAPPED,
        )
    try:
        return _account_for(here, provider.issuer, subject, _name_in(claims), grant), asked
    except IntegrityError:  # the same person's first sign-in, in another window at this moment
        raise Problem(409, "twice-at-once", _("Two sign-ins at once"), _("your account was made by another window"),
                      _("sign in again")) from None  # fmt: skip


def _claims(
    here: Workplace,
    provider: Provider,
    client: OAuth2Client,
    metadata: Mapping[str, Any],
    code: str,
    ceremony: Ceremony,
) -> Mapping[str, Any]:
    """The identity token's claims, verified."""
    try:
        token = client.fetch_token(
            metadata["token_endpoint"],
            grant_type="authorization_code",
            code=code,
            redirect_uri=here.settings.public_url + CALLBACK,
            code_verifier=ceremony.kept["verifier"],
        )
        offered = metadata.get("id_token_signing_alg_values_supported") or ["RS256"]
        keys = KeySet.import_key_set(cast(KeySetSerialization, _json(client, metadata["jwks_uri"])))
        decoded = jwt.decode(token["id_token"], keys, algorithms=[each for each in ALGORITHMS if each in offered])
        claims = CodeIDToken(
            decoded.claims,
            decoded.header,
            {"iss": {"essential": True, "value": provider.issuer}},
            {
                "nonce": ceremony.kept["nonce"],
                "client_id": provider.client_id,
                "access_token": token.get("access_token"),
            },
        )
        claims.validate(now=int(here.now().timestamp()), leeway=LEEWAY_S)
    except httpx2.HTTPError as error:
        raise _unavailable(_("it does not answer (%(why)s)", why=type(error).__name__)) from None
    except (JoseError, OAuthError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _refused(
            _("the identity token does not hold (%(why)s)", why=type(error).__name__), access.NOT_PROVEN
        ) from None
    if claims["aud"] not in (provider.client_id, [provider.client_id]):
        raise _refused(_("the identity token was made for somebody else"), access.NOT_PROVEN)
    return dict(claims)


def _account_for(here: Workplace, issuer: str, subject: str, name: str | None, grant: Grant) -> Account:
    with here.database.begin() as session:
        account = session.exec(_by_subject(issuer, subject).with_for_update()).first()
        if account is None:
            account = AccountRow(
                id=new_account_id(here, grant.role),
                name=name,
                language="en",
                organisation=grant.organisation,
                role=grant.role,
                hospital=grant.hospital,
                state=ACTIVE,
                handle=here.random_bytes(HANDLE_SIZE),
                issuer=issuer,
                subject=subject,
                made=here.now(),
            )
            session.add(account)
            session.flush()
            return seen(account)
        if account.state != ACTIVE:
            raise AccessRefused(
                _("this account is not active; a consortium admin can say why"),
                account=account.id,
                method=access.OIDC,
                reason=access.NOT_ACTIVE,
            )
        if (account.role == HOSPITAL_CONTACT) != (grant.role == HOSPITAL_CONTACT):
            raise AccessRefused(
                _(
                    "your account is of another kind than your organisation's sign-in says now; ask a consortium "
                    "admin to end and erase it, then sign in again"
                ),
                account=account.id,
                method=access.OIDC,
                reason=access.UNMAPPED,
            )
        if (account.role, account.organisation, account.hospital) != (grant.role, grant.organisation, grant.hospital):
            account.role, account.organisation, account.hospital = grant.role, grant.organisation, grant.hospital
            close(session, here, account.id)
            note_ended(session, here, account.id, access.ROLE_CHANGED, by=None)
        account.name = name or account.name
        session.add(account)
        return seen(account)


def _end_sessions(here: Workplace, issuer: str, subject: str) -> None:
    """Somebody lost their role: what they signed in to before ends too."""
    with here.database.begin() as session:
        account = session.exec(_by_subject(issuer, subject)).first()
        if account is not None and _delete_sessions(session, account.id):
            note_ended(session, here, account.id, access.ROLE_CHANGED, by=None)


def _delete_sessions(session: Session, account_id: str) -> int:
    gone = delete(SessionRow).where(col(SessionRow.account) == account_id, col(SessionRow.via) == OIDC)
    return int(getattr(session.execute(gone), "rowcount", 0))


def _by_subject(issuer: str, subject: str) -> Any:
    return select(AccountRow).where(AccountRow.issuer == issuer, AccountRow.subject == subject)


def _granted(provider: Provider, claims: Mapping[str, Any]) -> Grant | None:
    """The one role that the table gives; None when there is none, or not one."""
    if provider.domains:
        email = claims.get("email")
        domain = email.rpartition("@")[2].casefold() if isinstance(email, str) and "@" in email else None
        if domain not in provider.domains or claims.get("email_verified") is not True:
            return None
    said = claims.get(provider.claim)
    values = [said] if isinstance(said, str) else said if isinstance(said, list) else []
    grants = {provider.grants[value] for value in values if isinstance(value, str) and value in provider.grants}
    return grants.pop() if len(grants) == 1 else None


def _asked_at(here: Workplace, claims: Mapping[str, Any]) -> datetime | None:
    said = claims.get("auth_time")
    now = here.now()
    if not isinstance(said, int) or isinstance(said, bool) or not 0 <= said <= now.timestamp() + LEEWAY_S:
        return None
    return min(now, datetime.fromtimestamp(said, UTC))


def _name_in(claims: Mapping[str, Any]) -> str | None:
    for claim in ("name", "preferred_username"):
        value = claims.get(claim)
        if isinstance(value, str) and value.strip() and value.isprintable():
            return value.strip()[:MAX_NAME]
    return None


def _grant(value: str, text: str) -> Grant:
    role, _, rest = text.partition("@")
    organisation, _, hospital = rest.partition("@")
    contact = role == HOSPITAL_CONTACT
    if (
        role not in ROLES
        or not organisation.strip()
        or not organisation.isprintable()
        or contact != bool(hospital)
        or (hospital and SITE.fullmatch(hospital) is None)
    ):
        raise WebError(
            f"oidc_roles, {value!r}: expected role@organisation, or hospital_contact@organisation@hospital, "
            f"with a role of {', '.join(ROLES)}; got {text!r}"
        )
    return Grant(role, organisation, hospital or None)


def _client(here: Workplace, provider: Provider) -> OAuth2Client:
    secret: str | None = None
    if provider.secret_file is not None:
        try:
            secret = provider.secret_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise WebError(f"oidc_client_secret_file {provider.secret_file}: {error.strerror}") from None
    return OAuth2Client(
        client_id=provider.client_id,
        client_secret=secret,
        scope=SCOPE,
        redirect_uri=here.settings.public_url + CALLBACK,
        code_challenge_method="S256",
        timeout=TIMEOUT_S,
        follow_redirects=False,
    )


def _metadata(client: OAuth2Client, provider: Provider) -> Mapping[str, Any]:
    """The issuer's addresses (OpenID Connect Discovery); the issuer in it must be exactly the one configured."""
    try:
        metadata = _json(client, f"{provider.issuer.rstrip('/')}/.well-known/openid-configuration")
        if metadata.get("issuer") != provider.issuer:
            raise _unavailable("its description names another issuer than the settings")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            _check_address(str(metadata.get(name)), name)
        methods = metadata.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        if client.client_secret and "client_secret_basic" not in methods and "client_secret_post" in methods:
            client.token_endpoint_auth_method = "client_secret_post"  # noqa: S105  the method's name
    except httpx2.HTTPError as error:
        raise _unavailable(_("it does not answer (%(why)s)", why=type(error).__name__)) from None
    except (ValueError, WebError) as error:
        raise _unavailable(f"its description is not as it must be: {error}") from None
    return metadata


def _json(client: OAuth2Client, address: str) -> dict[str, Any]:
    response = client.request("GET", address, withhold_token=True)
    response.raise_for_status()
    value = response.json()
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {type(value).__name__}")
    return value


def _check_address(address: str, what: str) -> None:
    parts = urlsplit(address)
    local = parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1")
    if not parts.hostname or not (parts.scheme == "https" or local):
        raise WebError(f"{what}: expected an https address, got {address!r}")


def _refused(message: str, reason: str) -> AccessRefused:
    return AccessRefused(message, account=None, method=access.OIDC, reason=reason)


def _unavailable(reason: str) -> Problem:
    return Problem(503, "elsewhere-unavailable", _("Your organisation's sign-in cannot be used now"), reason,
                   _("try again in a minute, or sign in with a passkey"))  # fmt: skip
