"""Certificate requests: received as a file, kept in the consortium's folder, open until answered or given up.

    requests/<id>/request.zip            as a hospital sent it; request.json of a person or a passkey
    requests/<id>/<site>.signed.zip      the reply, once issued (a person's: person.crt); the one place it lies in
    requests/lock                        held while a certificate is issued

A request that was replaced or given up loses its folder. A person's request holds their name, so its file goes as soon
as it is answered, too, and when the account has ended: the name stays in no place that erasing does not know. What the
certificate says is in the log, and the name beside it.

Order of receiving, and what a crash leaves: the file in its folder (crash: a folder that no row names, which hurts
nobody), then the row. A holder has one open request; a newer one takes the place of an older one.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from sqlalchemy import func
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from admin_api.errors import OnboardingError
from admin_api.onboarding import MAX_REQUEST_BYTES, Request, read_request
from admin_api.passkeys import write_passkey_request
from admin_api.web.certificates import fingerprint as fingerprints
from admin_api.web.certificates.archive import check_archive
from admin_api.web.certificates.quorum import digest_of_request
from admin_api.web.certificates.tables import RequestRow
from admin_api.web.context import Viewer, Workplace
from admin_api.web.language import N_
from admin_api.web.preconditions import check_match, etag_of
from admin_api.web.problems import Problem, not_found
from admin_api.web.sign_in.accounts import ENDED
from admin_api.web.sign_in.passkeys import signing_request
from admin_api.web.sign_in.tables import AccountRow
from jobs.errors import ProvisioningError
from jobs.federation.provisioning import write_private
from jobs.home import ConsortiumHome

SITE, PERSON, PASSKEY = "site", "person", "passkey"
OPEN, ISSUED, WITHDRAWN, REPLACED = "open", "issued", "withdrawn", "replaced"
STATES = (OPEN, ISSUED, WITHDRAWN, REPLACED)
FOLDER = "requests"
FLOOD_AT, FLOOD_WITHIN = 50, timedelta(days=1)  # requests that one account may send in
_ZIP = b"PK\x03\x04"


def folder_of(home: ConsortiumHome, request_id: str) -> Path:
    """Where a request and its reply lie."""
    return home.path / FOLDER / request_id


def receive(
    here: Workplace, data: bytes, *, by: Viewer, holder: str | None = None, kind: str | None = None
) -> RequestRow:
    """Keep a request that was sent in. Nothing is issued.

    Args:
        holder: the hospital that must be asking, or the account whose passkey it is; None: whoever the file names.
        kind: what it must be a request of; None: whatever the file is.
    Raises: Problem 422 for what is no request, or another's; 409 for a key that an open request has already.
    """
    request_id = here.random_bytes(8).hex()
    replaced: RequestRow | None = None
    folder = folder_of(here.home, request_id)
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(mode=0o700)
    try:
        archive = data.startswith(_ZIP)
        path = folder / ("request.zip" if archive else "request.json")
        asked = _read(path, data, archive)
        _check_asker(asked, holder, kind)
        row = RequestRow(
            id=request_id,
            kind=asked.kind,
            holder=asked.name if asked.kind == SITE else (holder or ""),
            organisation=asked.organisation,
            role=asked.role,
            fingerprint=asked.fingerprint,
            digest=digest_of_request(here.home, asked),
            state=OPEN,
            received=here.now(),
            received_by=by.account,
        )
        row.slot = f"{row.kind}/{row.holder or row.fingerprint}"
        with here.database.begin() as session:
            _refuse_flood(session, row)
            _refuse_second_key(session, row)
            for older in session.exec(select(RequestRow).where(RequestRow.slot == row.slot).with_for_update()):
                _close(older, REPLACED, here, by)
                session.add(older)
                replaced = older
            session.flush()
            session.add(row)
    except IntegrityError:  # another one of the same holder came in this moment
        shutil.rmtree(folder, ignore_errors=True)
        raise Problem(409, "sent-before", N_("Sent before"), "another request of the same holder came in this moment",
                      N_("look at that one")) from None  # fmt: skip
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if replaced is not None:
        _clear(here, replaced)
    return row


def receive_passkey(here: Workplace, account_id: str, credential_id: str, *, by: Viewer) -> RequestRow:
    """The request that a passkey signed when it was made. Raises SignInError for one that asks for none, Problem."""
    request, signature, assertion = signing_request(here, account_id, credential_id)
    with tempfile.TemporaryDirectory() as scratch:
        path = write_passkey_request(Path(scratch, "request.json"), request, signature, assertion)
        return receive(here, path.read_bytes(), by=by, holder=account_id, kind=PASSKEY)


def _read(path: Path, data: bytes, archive: bool) -> Request:
    """What a file from outside asks for; the file is written only once its shape was checked."""
    try:
        if len(data) > MAX_REQUEST_BYTES:
            raise OnboardingError(f"{len(data)} bytes are more than any request has ({MAX_REQUEST_BYTES})")
        if archive:
            check_archive(data)
        elif not data.lstrip().startswith(b"{"):
            raise OnboardingError("expected the file NAME.request.zip of a hospital, or person.request.json")
        write_private(path, data)
        return read_request(path)
    except (OnboardingError, ProvisioningError) as error:
        raise Problem(422, "not-a-request", N_("Not a certificate request"), str(error).replace(str(path), "the file"),
                      N_("send the file that `zegel site request` or `zegel person request` made, unchanged")
                      ) from None  # fmt: skip


def _check_asker(asked: Request, holder: str | None, kind: str | None) -> None:
    if kind is not None and asked.kind != kind:
        wanted = {SITE: "a hospital", PERSON: "a person", PASSKEY: "a passkey"}
        raise Problem(422, "not-a-request", N_("Another kind of request"),
                      f"the file asks for a certificate of {wanted[asked.kind]}, expected one of {wanted[kind]}",
                      N_("send the right file"))  # fmt: skip
    if asked.kind == SITE and holder is not None and asked.name != holder:
        raise Problem(422, "another-hospital", N_("The request of another hospital"),
                      f"the file asks for a certificate of {asked.name}, this is the page of {holder}",
                      f"send the request that was made with `zegel site request --name {holder}`")  # fmt: skip


def _refuse_flood(session: Session, row: RequestRow) -> None:
    newer = (col(RequestRow.received_by) == row.received_by, col(RequestRow.received) > row.received - FLOOD_WITHIN)
    sent = session.exec(select(func.count()).select_from(RequestRow).where(*newer)).one()
    if sent >= FLOOD_AT:
        raise Problem(429, "too-many", N_("Too many requests"),
                      f"{sent} certificate requests came from you within a day",
                      N_("wait a day, or ask a consortium admin what is wrong"),
                      {"Retry-After": str(int(FLOOD_WITHIN.total_seconds()))})  # fmt: skip


def _refuse_second_key(session: Session, row: RequestRow) -> None:
    same = session.exec(
        select(RequestRow).where(RequestRow.fingerprint == row.fingerprint, RequestRow.state == OPEN)
    ).first()
    if same is not None and same.slot != row.slot:
        raise Problem(409, "key-known", N_("The key of another request"),
                      f"the open request {same.id} has the same key; a key belongs to one holder",
                      N_("make a key of its own and ask again"))  # fmt: skip
    if same is not None:
        raise Problem(409, "sent-before", N_("Sent before"), f"this request is here already, as {same.id}",
                      N_("wait for the answer; nothing has to be sent again"))  # fmt: skip


def find(here: Workplace, request_id: str, *, site: str | None = None) -> RequestRow:
    """A request; with `site` only one of that hospital. Raises Problem 404."""
    with here.database.reading() as session:
        row = session.get(RequestRow, request_id)
    if row is None or (site is not None and (row.kind, row.holder) != (SITE, site)):
        raise not_found(f"there is no request {request_id}")
    return row


def of_holder(here: Workplace, kind: str, holder: str) -> Sequence[RequestRow]:
    """A holder's requests, the newest first."""
    with here.database.reading() as session:
        return session.exec(
            select(RequestRow)
            .where(RequestRow.kind == kind, RequestRow.holder == holder)
            .order_by(col(RequestRow.received).desc(), RequestRow.id)
            .limit(50)
        ).all()


def listed(
    here: Workplace, *, state: str | None = OPEN, limit: int = 50, after: str | None = None
) -> tuple[Sequence[RequestRow], str | None]:
    """Requests of a state, in the order of their ids, and where to go on."""
    give_up_of_ended(here)
    query = select(RequestRow)
    if state is not None:
        query = query.where(RequestRow.state == state)
    if after is not None:
        query = query.where(RequestRow.id > after)
    with here.database.reading() as session:
        rows = session.exec(query.order_by(RequestRow.id).limit(limit + 1)).all()
    return rows[:limit], rows[limit - 1].id if len(rows) > limit else None


def asked_for(here: Workplace, row: RequestRow) -> Request:
    """The request's file, read again. Raises Problem when it is no longer what was received."""
    folder = folder_of(here.home, row.id)
    path = folder / ("request.zip" if row.kind == SITE else "request.json")
    try:
        asked = read_request(path)
    except (OnboardingError, ProvisioningError) as error:
        raise Problem(409, "request-lost", N_("The request's file cannot be read"), str(error).replace(str(path), "it"),
                      N_("have it sent again")) from None  # fmt: skip
    if (asked.kind, asked.fingerprint, asked.organisation, asked.role) != (
        row.kind, row.fingerprint, row.organisation, row.role
    ):  # fmt: skip
        raise Problem(409, "request-changed", N_("The request's file was changed"), "it is no longer what was received",
                      N_("have it sent again, and find out who changed it"))  # fmt: skip
    return asked


def etag(row: RequestRow) -> str:
    """The request's entity tag."""
    return etag_of(row.id, row.version)


def compare(here: Workplace, request_id: str, typed: str, *, by: Viewer, if_match: str | None) -> RequestRow:
    """Note that the holder read the same fingerprint out. Raises Problem when it differs."""
    with here.database.begin() as session:
        row = _changeable(session, request_id, if_match)
        if row.holder == by.account:
            raise Problem(409, "own-request", N_("Somebody else compares"), "this is a request of your own",
                          N_("another consortium admin asks you for the fingerprint"))  # fmt: skip
        match fingerprints.same(row.fingerprint, typed):
            case None:
                raise Problem(422, "groups", N_("Not the groups of a fingerprint"),
                              f"expected the last {fingerprints.TYPED_GROUPS} groups of {fingerprints.GROUP} digits, "
                              "0 to 9 and a to f", N_("type what the holder reads to you"))  # fmt: skip
            case False:
                raise Problem(409, "fingerprint-differs", N_("The fingerprints differ"),
                              "what was read to you is not the fingerprint of the key in this request",
                              N_("ask whether they read the right one; if they did, do not go on: give this request up "
                              "and have it sent by another way"))  # fmt: skip
            case True:
                row.compared, row.compared_by = here.now(), by.account
                row.version += 1
                session.add(row)
    return row


def withdraw(here: Workplace, request_id: str, *, by: Viewer, if_match: str | None) -> RequestRow:
    """Give a request up; it cannot be answered any more. Raises Problem when it is not open."""
    with here.database.begin() as session:
        row = _changeable(session, request_id, if_match)
        _close(row, WITHDRAWN, here, by)
        session.add(row)
    _clear(here, row)
    return row


def note_issued(here: Workplace, request_id: str, certificate: str, *, by: Viewer) -> RequestRow:
    """The request was answered with a certificate."""
    with here.database.begin() as session:
        row = session.get(RequestRow, request_id, with_for_update=True)
        if row is None:
            raise not_found(f"there is no request {request_id}")
        _close(row, ISSUED, here, by)
        row.certificate = certificate
        session.add(row)
    _clear(here, row)
    return row


def _changeable(session: Session, request_id: str, if_match: str | None) -> RequestRow:
    row = session.get(RequestRow, request_id, with_for_update=True)
    if row is None:
        raise not_found(f"there is no request {request_id}")
    check_match(if_match, etag(row))
    check_open(row)
    return row


def check_open(row: RequestRow) -> None:
    """Raises Problem 409 for a request that was answered, replaced or given up."""
    if row.state != OPEN:
        raise Problem(409, "not-open", N_("The request is not open any more"), f"request {row.id} is {row.state}",
                      N_("look at the newest request"))  # fmt: skip


def _close(row: RequestRow, state: str, here: Workplace, by: Viewer) -> None:
    row.state, row.slot = state, None
    row.closed, row.closed_by = here.now(), by.account
    row.version += 1


def _clear(here: Workplace, row: RequestRow) -> None:
    """Take away what a closed request leaves: all of it, or of an issued one a person's name."""
    folder = folder_of(here.home, row.id)
    if row.state != ISSUED:
        shutil.rmtree(folder, ignore_errors=True)
    elif row.kind != SITE:
        (folder / "request.json").unlink(missing_ok=True)


def give_up_of_ended(here: Workplace) -> None:
    """Close the open requests of accounts that have ended; called where open requests are listed."""
    ended = (
        select(RequestRow.id)
        .where(RequestRow.state == OPEN, RequestRow.kind == PASSKEY, RequestRow.holder == AccountRow.id)
        .where(AccountRow.state == ENDED)
    )
    with here.database.reading() as session:
        found = session.exec(ended).all()
    for request_id in found:
        with here.database.begin() as session:
            row = session.get(RequestRow, request_id, with_for_update=True)
            if row is None or row.state != OPEN:
                continue
            row.state, row.slot, row.closed, row.closed_by = WITHDRAWN, None, here.now(), row.holder
            row.version += 1
            session.add(row)
        _clear(here, row)
