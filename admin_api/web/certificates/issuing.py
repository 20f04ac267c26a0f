"""Issuing: the root's passphrase, typed once, opens the key for one certificate.

One certificate is issued at a time in a consortium, whatever the number of processes: a lock in the folder of requests
is held meanwhile, and ends with its process. Whether the holder may have the certificate is judged by
`admin_api.onboarding` and `admin_api.renewing`, approvals included; the log has it before the reply exists.

A crash leaves at most a logged certificate whose reply is still a draft; the next attempt puts the draft in place.

The passphrase is not kept, logged or made a digest of. After five wrong ones within a quarter of an hour nobody may try
until the first of them is that old; people who found a way in should not guess it here.
"""

from __future__ import annotations

import fcntl
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from sqlalchemy import delete
from sqlmodel import col, select

from admin_api.onboarding import Request, approve
from admin_api.renewing import renew
from admin_api.web.certificates import requests
from admin_api.web.certificates.tables import RequestRow, WrongPassphraseRow
from admin_api.web.context import Viewer, Workplace
from admin_api.web.database import utc
from admin_api.web.language import N_
from admin_api.web.preconditions import check_match
from admin_api.web.problems import Problem, not_found
from admin_api.web.sign_in.accounts import ACTIVE
from admin_api.web.sign_in.tables import AccountRow
from audit.certificates import CONSORTIUM_ADMIN, PEOPLE, certificate_digest, identity_of, load_certificate
from audit.errors import AuditError
from jobs.errors import ProvisioningError
from jobs.federation.provisioning import key_fingerprint, open_root_key

WRONG_AT_MOST = 5
WRONG_WITHIN = timedelta(minutes=15)


def issue(
    here: Workplace, request_id: str, *, passphrase: str, valid_days: int, by: Viewer, if_match: str | None
) -> RequestRow:
    """Issue the certificate that was asked for, log it and write the reply.

    Raises: Problem for a request that is not open or not compared, 403 for a wrong passphrase, 429 after several;
        OnboardingError for what may not be issued. Nothing was signed or logged then.
    """
    with one_at_a_time(here):
        row = requests.find(here, request_id)
        check_match(if_match, requests.etag(row))
        requests.check_open(row)
        _check_account(here, row)
        asked = requests.asked_for(here, row)
        before = issued_for(here, row)
        if before is None:
            if row.compared is None and not is_first_admin(here, row):
                raise Problem(409, "not-compared", N_("The fingerprint was not compared"),
                              "nobody has compared the key's fingerprint with the holder yet",
                              N_("telephone the holder and type the last groups they read to you"))  # fmt: skip
            secret = passphrase.encode("utf-8")
            check_passphrase(here, secret, by)
            before = _issue(here, row, asked, secret, valid_days)
        else:
            _finish(here, row, before)
        return requests.note_issued(here, row.id, certificate_digest(before), by=by)


def _issue(here: Workplace, row: RequestRow, asked: Request, secret: bytes, valid_days: int) -> x509.Certificate:
    out = reply_path(here, row)
    if is_further(here, row, asked):
        return renew(here.home, asked, passphrase=secret, out=out, valid_days=valid_days)
    person = row.holder if row.kind == requests.PASSKEY else None
    return approve(here.home, asked, passphrase=secret, out=out, valid_days=valid_days, person=person)


def _check_account(here: Workplace, row: RequestRow) -> None:
    """Raises Problem 409 for a passkey whose account is not active any more, or has another role now."""
    if row.kind != requests.PASSKEY:
        return
    with here.database.reading() as session:
        account = session.get(AccountRow, row.holder)
    if account is None or account.state != ACTIVE or account.role != row.role:
        raise Problem(409, "account", N_("The account is not active"), f"{row.holder} cannot sign in as {row.role} now",
                      N_("give the request up, or unlock the account first"))  # fmt: skip


def is_first_admin(here: Workplace, row: RequestRow) -> bool:
    """Whether this is the request of the one consortium admin there is: nobody else could compare or approve."""
    if row.kind != requests.PASSKEY or row.role != CONSORTIUM_ADMIN:
        return False
    admins = select(AccountRow.id).where(AccountRow.role == CONSORTIUM_ADMIN, AccountRow.state == ACTIVE)
    with here.database.reading() as session:
        return session.exec(admins.limit(2)).all() == [row.holder]


def is_further(here: Workplace, row: RequestRow, asked: Request) -> bool:
    """Whether the holder has a certificate of that role already, so that this is a renewal or a further key."""
    names = {row.holder, asked.name} - {""}
    if row.role in PEOPLE:
        names |= {known for known, called in here.reading.names().items() if called.casefold() == asked.name.casefold()}
    held = map(identity_of, here.home.certificates().values())
    return any(each.role == row.role and each.name in names for each in held)


def reply_path(here: Workplace, row: RequestRow) -> Path:
    """Where the reply to a request lies, once there is one."""
    name = f"{row.holder}.signed.zip" if row.kind == requests.SITE else "person.crt"
    return requests.folder_of(here.home, row.id) / name


def reply(here: Workplace, row: RequestRow) -> tuple[str, bytes]:
    """The reply's file name and bytes. Raises Problem 404 when there is none (yet)."""
    path = reply_path(here, row)
    try:
        return path.name, path.read_bytes()
    except FileNotFoundError:
        if row.state == requests.ISSUED:
            raise Problem(409, "reply-lost", N_("The reply was lost"),
                          f"certificate {row.certificate} is in the log, but the reply was never written",
                          N_("revoke that certificate, and have the holder make a new key and ask again")
                          ) from None  # fmt: skip
        raise not_found(f"request {row.id} has no reply yet", "wait until the certificate is issued") from None


def issued_for(here: Workplace, row: RequestRow) -> x509.Certificate | None:
    """The certificate that the log has for this request's key; after a crash there may be one before it was noted."""
    for certificate in here.home.certificates().values():
        if key_fingerprint(certificate) == row.fingerprint:
            return certificate
    return None


def _finish(here: Workplace, row: RequestRow, certificate: x509.Certificate) -> None:
    """Put the draft of a reply in place that a crash left behind; a draft of another certificate is left alone."""
    out = reply_path(here, row)
    draft = out.with_name(f".{out.name}.draft")
    if out.exists() or not draft.exists():
        return
    try:
        if row.kind == requests.SITE:
            with zipfile.ZipFile(draft) as archive:
                drafted = load_certificate(archive.read(f"{row.holder}.crt"))
        else:
            drafted = load_certificate(draft.read_bytes())
    except (AuditError, zipfile.BadZipFile, KeyError, OSError):
        return  # `reply` then says that it was lost
    if certificate_digest(drafted) == certificate_digest(certificate):
        draft.rename(out)


def check_passphrase(here: Workplace, secret: bytes, by: Viewer) -> None:
    """Raises Problem 403 unless it opens the root key, 429 when too many did not."""
    now = here.now()
    with here.database.begin() as session:
        session.execute(delete(WrongPassphraseRow).where(col(WrongPassphraseRow.at) <= now - WRONG_WITHIN))
        wrong = [utc(row.at) for row in session.exec(select(WrongPassphraseRow).order_by(col(WrongPassphraseRow.at)))]
    if len(wrong) >= WRONG_AT_MOST:
        wait = max(1, int((wrong[-WRONG_AT_MOST] + WRONG_WITHIN - now).total_seconds()))
        raise Problem(429, "too-many-passphrases", N_("Too many wrong passphrases"),
                      f"{len(wrong)} wrong passphrases of the root key were typed within "
                      f"{WRONG_WITHIN // timedelta(minutes=1)} minutes", f"try again in {wait // 60 + 1} minutes",
                      {"Retry-After": str(wait)})  # fmt: skip
    try:
        open_root_key(here.home.ca, secret)
    except ProvisioningError as error:
        with here.database.begin() as session:
            session.add(WrongPassphraseRow(id=here.random_bytes(8).hex(), at=now, account=by.account))
        raise Problem(403, "wrong-passphrase", N_("The passphrase is not the root key's"), str(error),
                      f"try again; after {WRONG_AT_MOST} wrong ones everybody waits") from None  # fmt: skip


@contextmanager
def one_at_a_time(here: Workplace) -> Iterator[None]:
    """Nobody else issues a certificate meanwhile, in this process or another one."""
    folder = here.home.path / requests.FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
