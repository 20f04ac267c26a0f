"""Acts: everything in the consortium that somebody signs, in one form.

An act is prepared (its exact statement is made, nothing is recorded), shown in plain words with what follows from it,
signed with the passkey of the one who asked, and carried out. What is signed is what the log records and what the
dossier's verifier checks again; the server cannot put other words under a signature (`audit.passkey`).

Areas declare theirs (`Act`), `create_app` collects them. A prepared act holds for ten minutes and for one signature.
Between preparing and signing the log may grow: then what would be signed may no longer be what would be recorded, and
the one who asked is sent back to look again.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlmodel import select
from starlette.concurrency import run_in_threadpool

from admin_api.errors import ApprovalError, StatementChanged
from admin_api.passkeys import PasskeyHolder, open_passkey, passkey_certificates
from admin_api.signing import Prepared, Signer, complete, prepare
from admin_api.web.access import ACCESS
from admin_api.web.context import Here, Viewer, Who, Workplace
from admin_api.web.database import utc
from admin_api.web.language import N_
from admin_api.web.problems import Problem, answer, field_problems, in_short, not_found, problems
from admin_api.web.rendering import render
from admin_api.web.routes import ApiRoute, PageRoute, check_access
from admin_api.web.sign_in.passkeys import passkeys_of, public_key_spki
from admin_api.web.tables import ActRow
from audit.certificates import public_key_of
from audit.passkey import Assertion
from audit.statement import statement_bytes

HOLDS = timedelta(minutes=10)
P = TypeVar("P", bound=BaseModel)


class Words(BaseModel):
    """An act in plain words: what is signed, and what follows."""

    title: str = Field(examples=["Approve plan autumn-2026"])
    sentences: list[str] = Field(examples=[["Four hospitals train for 16 rounds."]])
    if_signed: str = Field(examples=["The plan may be carried out once one more person approves."])
    if_not: str = Field(examples=["Nothing happens; the plan waits."])
    back: str = Field(default="/", examples=["/plans/sha256:..."], description="the page to return to")


@dataclass(frozen=True)
class Act(Generic[P]):
    """Something that is signed.

    parameters: what the one who asks may choose.
    words: the act in plain words, in the viewer's language; raises what `perform` would for what cannot be done.
    perform: carries it out with a signer; called twice (`admin_api.signing`), so it writes nothing before it signs.
    """

    name: str  # of letters and hyphens, such as plan-decision
    parameters: type[P]
    words: Callable[[Workplace, Viewer, P], Words]
    perform: Callable[[Workplace, Signer, P], Mapping[str, Any]]

    @property
    def route(self) -> str:
        """The name of its row in the access table."""
        return f"acts.prepare.{self.name}"


class PreparedAct(BaseModel):
    """What is about to be signed. Nothing is recorded yet."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    name: str
    words: Words
    statement: dict[str, Any] = Field(description="the statement, as the log will hold it")
    signed_bytes: str = Field(description="base64 of the exact bytes whose SHA-256 the passkey signs")
    challenge: str = Field(description="base64url, for navigator.credentials.get")
    relying_party: str
    credentials: list[str] = Field(description="base64url ids of the passkeys that may sign this")
    expires: datetime


class AssertionResponse(BaseModel):
    """The response part of a WebAuthn assertion; all values base64url."""

    model_config = ConfigDict(populate_by_name=True)

    client_data: str = Field(alias="clientDataJSON", max_length=8000)
    authenticator_data: str = Field(alias="authenticatorData", max_length=4000)
    signature: str = Field(max_length=4000)


class GivenAssertion(BaseModel):
    """A WebAuthn assertion as browsers give it (PublicKeyCredential.toJSON())."""

    id: str = Field(max_length=2000, description="the credential's id, base64url")
    response: AssertionResponse


class PasskeySignature(BaseModel):
    """An assertion over the act's challenge."""

    assertion: GivenAssertion


class Done(BaseModel):
    """An act that was carried out; `result` names what it made."""

    id: str
    name: str
    result: dict[str, Any]
    back: str


def prepare_act(here: Workplace, viewer: Viewer, act: Act[P], parameters: P) -> ActRow | Mapping[str, Any]:
    """Make the statement and keep it for its signature; the result itself when the act needs no signature.

    Raises Problem when the viewer has no passkey that may sign, and whatever the act refuses.
    """
    holder, _ = _holder(here, viewer)
    act.words(here, viewer, parameters)
    prepared = prepare(
        holder, lambda signer: act.perform(here, signer, parameters), now=here.now(), random_bytes=here.random_bytes
    )
    if prepared is None:
        return {}
    row = ActRow(
        id=here.random_bytes(16).hex(),
        name=act.name,
        account=viewer.account,
        certificate=holder.identity.certificate_digest,
        parameters=parameters.model_dump_json(),
        prepared=prepared.to_bytes().decode("utf-8"),
        expires=here.now() + HOLDS,
    )
    with here.database.begin() as session:
        for old in session.exec(select(ActRow).where(ActRow.expires < here.now())):
            session.delete(old)
        session.add(row)
    return row


def find_act(here: Workplace, viewer: Viewer, act_id: str) -> ActRow:
    """The viewer's prepared act; raises Problem when there is none, or its time is over."""
    with here.database.reading() as session:
        row = session.get(ActRow, act_id)
    if row is None or row.account != viewer.account or utc(row.expires) < here.now():
        raise not_found(
            "nothing of yours waits for a signature here; it waits ten minutes at most",
            N_("go back to the page where you began"),
        )
    return row


def sign_act(here: Workplace, viewer: Viewer, acts: Mapping[str, Act[Any]], act_id: str, given: GivenAssertion) -> Done:
    """Carry out a prepared act with its signature. Raises Problem, or whatever the act refuses."""
    row = find_act(here, viewer, act_id)
    act = acts[row.name]
    parameters = act.parameters.model_validate_json(row.parameters)
    words = act.words(here, viewer, parameters)
    holder, credential = _holder(here, viewer)
    if given.id != credential:
        raise Problem(
            422,
            "other-passkey",
            N_("Another passkey"),
            "this was not signed with the passkey it was made for",
            N_("go back and sign with the passkey that the page asks for"),
        )
    with here.database.begin() as session:  # first: one signature carries it out at most once
        kept = session.get(ActRow, act_id, with_for_update=True)
        if kept is None:
            raise not_found("this act was signed already, or given up", "look at the page it belongs to")
        session.delete(kept)
    try:
        result = complete(
            holder,
            lambda signer: act.perform(here, signer, parameters),
            Prepared.from_bytes(row.prepared.encode("utf-8")),
            signature=_bytes(given.response.signature, "signature"),
            assertion=Assertion(
                _bytes(given.response.authenticator_data, "authenticatorData"),
                _bytes(given.response.client_data, "clientDataJSON"),
            ),
            now=here.now(),
        )
    except StatementChanged as error:
        raise Problem(
            409,
            "log-moved-on",
            N_("Something changed meanwhile"),
            str(error),
            N_("go back, look at it again, and sign what it says now"),
        ) from None
    return Done(id=act_id, name=row.name, result=dict(result), back=words.back)


def shown(here: Workplace, viewer: Viewer, acts: Mapping[str, Act[Any]], row: ActRow) -> PreparedAct:
    """A prepared act, in words and in bytes."""
    act = acts[row.name]
    prepared = Prepared.from_bytes(row.prepared.encode("utf-8"))
    _, credential = _holder(here, viewer)
    return PreparedAct(
        id=row.id,
        name=row.name,
        words=act.words(here, viewer, act.parameters.model_validate_json(row.parameters)),
        statement=dict(prepared.statement),
        signed_bytes=base64.b64encode(statement_bytes(prepared.statement)).decode(),
        challenge=base64.urlsafe_b64encode(prepared.challenge).decode().rstrip("="),
        relying_party=here.settings.relying_party,
        credentials=[credential],
        expires=utc(row.expires),
    )


def _holder(here: Workplace, viewer: Viewer) -> tuple[PasskeyHolder, str]:
    """The viewer's passkey that may sign, and its credential id; the one with the newest good certificate."""
    keys = {public_key_spki(each): each.credential_id for each in passkeys_of(here.database, viewer.account)}
    reason = "none of your passkeys has a certificate yet"
    for digest, certificate in reversed(passkey_certificates(here.home).items()):
        credential = keys.get(public_key_of(certificate).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
        if credential is None:
            continue
        try:
            holder = open_passkey(here.home, digest)
        except ApprovalError as error:
            reason = str(error)
            continue
        if holder.identity.name == viewer.account and holder.identity.role == viewer.role:
            return holder, credential
    raise Problem(
        409,
        "no-signing-passkey",
        N_("You cannot sign yet"),
        reason,
        N_("your account page says what your passkey waits for"),
    )


def _bytes(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise Problem(
            422, "invalid", N_("Some fields are not as they should be"), f"{where} is not base64url", N_("sign again")
        ) from None


def routers(acts: Mapping[str, Act[Any]]) -> Sequence[APIRouter]:
    """The routes through which the acts are prepared, shown and signed."""
    api = APIRouter(route_class=ApiRoute, prefix="/api/v1/acts", tags=["Acts"])
    pages = APIRouter(route_class=PageRoute, prefix="/acts", include_in_schema=False)
    for act in acts.values():
        _add_preparing(api, act, acts)

    @api.get("/{act_id}", name="acts.read", responses=problems(), response_model=PreparedAct)
    def read(act_id: str, here: Here, who: Who) -> PreparedAct:
        """An act that you prepared and have not signed yet."""
        return shown(here, who, acts, find_act(here, who, act_id))

    @api.post("/{act_id}/signature", name="acts.sign", responses=problems(409, 503), response_model=Done)
    def sign(act_id: str, given: PasskeySignature, here: Here, who: Who) -> Done:
        """Sign a prepared act with your passkey; it is carried out and recorded."""
        return sign_act(here, who, acts, act_id, given.assertion)

    @pages.post("/new/{name}", name="acts.new.post")
    async def new(name: str, request: Request, here: Here, who: Who) -> Response:
        """A form of an area: prepare the act and show what would be signed."""
        act = acts.get(name)
        if act is None:
            raise not_found(f"there is no act {name}")
        await run_in_threadpool(check_access, request, act.route)
        try:
            parameters = act.parameters.model_validate(await _form_values(request, act.parameters))
        except ValidationError as error:
            fields = field_problems(error.errors())
            detail = in_short(fields)
            return answer(
                request,
                Problem(
                    422,
                    "invalid",
                    N_("Some fields are not as they should be"),
                    detail,
                    "go back and correct the fields named",
                ),
                fields,
            )
        row = await run_in_threadpool(prepare_act, here, who, act, parameters)
        if not isinstance(row, ActRow):
            return RedirectResponse("/", status_code=303)
        return RedirectResponse(f"/acts/{row.id}", status_code=303)

    @pages.post("/{act_id}/signature", name="acts.sign.post")
    async def sign_form(act_id: str, request: Request, here: Here, who: Who) -> Response:
        """The form of `acts.page`, with the passkey's answer in a hidden field."""
        try:
            given = GivenAssertion.model_validate_json(str((await request.form()).get("assertion", "")))
        except ValidationError:
            raise Problem(
                422,
                "invalid",
                N_("Not signed"),
                "the browser sent no passkey's answer",
                N_("sign again, in a browser with JavaScript and a passkey"),
            ) from None
        done = await run_in_threadpool(sign_act, here, who, acts, act_id, given)
        return RedirectResponse(done.back, status_code=303)

    @pages.get("/{act_id}", name="acts.page")
    def page(act_id: str, request: Request, here: Here, who: Who) -> Response:
        """What is about to be signed, in words and in bytes, and the button."""
        prepared = shown(here, who, acts, find_act(here, who, act_id))
        pretty = json.dumps(prepared.statement, indent=2, ensure_ascii=False, sort_keys=True)
        return render(request, "acts/sign.html", act=prepared, pretty=pretty)

    return api, pages


def _add_preparing(api: APIRouter, act: Act[Any], acts: Mapping[str, Act[Any]]) -> None:
    def prepare_it(parameters: Any, here: Here, who: Who) -> PreparedAct:
        made = prepare_act(here, who, act, parameters)
        if not isinstance(made, ActRow):
            raise Problem(
                409, "done-before", N_("Done before"), "this needed no signature any more and is done", "go on"
            )
        return shown(here, who, acts, made)

    prepare_it.__annotations__["parameters"] = act.parameters
    prepare_it.__doc__ = act.parameters.__doc__
    api.add_api_route(
        f"/{act.name}",
        prepare_it,
        methods=["POST"],
        name=act.route,
        status_code=201,
        response_model=PreparedAct,
        responses=problems(409, 503),
        summary=f"Prepare: {act.name.replace('-', ' ')}",
    )


async def _form_values(request: Request, model: type[BaseModel]) -> dict[str, Any]:
    """A form's fields as the model's values: fields that hold lists take every value of their name."""
    form = await request.form()
    values: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        given = [value for value in form.getlist(name) if isinstance(value, str)]
        if "list" in str(field.annotation) or "tuple" in str(field.annotation):
            values[name] = [line.strip() for value in given for line in value.splitlines() if line.strip()]
        elif given and (given[0] != "" or field.is_required()):
            values[name] = given[0]
    return values


def check_rows(acts: Mapping[str, Act[Any]]) -> None:
    """Raises RuntimeError for an act without a row in the access table."""
    for act in acts.values():
        if act.route not in ACCESS:
            raise RuntimeError(f"act {act.name} has no row {act.route} in admin_api/web/access.py")
