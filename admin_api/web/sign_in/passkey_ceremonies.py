"""Passkey ceremonies: how a passkey is registered, proves that it holds its key, and signs somebody in.

Invariants:
- A passkey is stored only after it has signed: a registration with attestation `none` signs nothing, so anybody could
  register a public key that is somebody else's. What it signs first is its own request for a certificate
  (`admin_api.passkeys.PasskeyRequest`), so that one gesture serves both.
- Every ceremony demands user verification and our exact origin; a page of a subdomain, or a frame, is refused.
- What is told about a refusal is the same whether or not the passkey is known. Only who has proven to hold an
  account's passkey learns that the account is locked or has ended.
- A counter that does not go up is refused, and so is a passkey that changes whether it may be backed up.

Source: WebAuthn Level 3 sections 7.1 (registration), 7.2 (assertion), 6.1.1 (counter), 6.1.3 (backup flags).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session
from webauthn import generate_registration_options, verify_registration_response
from webauthn.helpers import options_to_json_dict
from webauthn.helpers.cose import COSEAlgorithmIdentifier
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AttestationConveyancePreference,
    AuthenticatorSelectionCriteria,
    CredentialDeviceType,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)
from webauthn.registration.verify_registration_response import VerifiedRegistration

from admin_api.errors import OnboardingError
from admin_api.passkeys import PasskeyRequest, public_key_of_cose
from admin_api.web.context import Workplace
from admin_api.web.database import utc
from admin_api.web.language import N_, _
from admin_api.web.sign_in.accounts import ACTIVE, ENDED, INVITED, Account, seen
from admin_api.web.sign_in.ceremonies import CONFIRM, PROVE, REGISTER, SIGN_IN, Ceremony, begin_ceremony
from admin_api.web.sign_in.credentials import MadePasskey, UsedPasskey, from_base64url, to_base64url
from admin_api.web.sign_in.errors import AccessRefused, NoSuch, SignInError
from admin_api.web.sign_in.passkeys import rows_of, spki_of
from admin_api.web.sign_in.rates import check_unlocked, count_failure
from admin_api.web.sign_in.recording import note_granted
from admin_api.web.sign_in.secret_values import same
from admin_api.web.sign_in.site import origin_of
from admin_api.web.sign_in.tables import AccountRow, LinkRow, PasskeyRow
from audit import access
from audit.canonical import decode_base64, digest_of, encode_base64
from audit.certificates import PEOPLE, PublicKey
from audit.errors import StatementError
from audit.passkey import Assertion, AuthenticatorState, verify_assertion

ALGORITHMS = [COSEAlgorithmIdentifier.ECDSA_SHA_256, COSEAlgorithmIdentifier.EDDSA]
TIME_LIMIT_MS = 300_000  # for the browser's dialog
MOST = 10  # passkeys of one account
_NOT_ACCEPTED = N_("the passkey was not accepted")


def begin_registration(
    session: Session, here: Workplace, account: AccountRow, *, link: str | None
) -> tuple[Mapping[str, Any], Ceremony]:
    """The options for `navigator.credentials.create`, and the ceremony. `link`: id of the one-time link behind it."""
    rows = rows_of(session, account.id)
    if len(rows) >= MOST:
        raise SignInError(_("%(most)s passkeys are enough; remove one first", most=MOST))
    ceremony = begin_ceremony(session, here, REGISTER, account=account.id, keep={"link": link})
    options = generate_registration_options(
        rp_id=here.settings.relying_party,
        rp_name=f"Zegel {here.home.config().name}",
        user_name=account.name or account.id,
        user_id=account.handle,
        user_display_name=account.name or account.id,
        challenge=ceremony.challenge,
        timeout=TIME_LIMIT_MS,
        attestation=AttestationConveyancePreference.NONE,
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.REQUIRED, user_verification=UserVerificationRequirement.REQUIRED
        ),
        exclude_credentials=[PublicKeyCredentialDescriptor(id=from_base64url(row.id)) for row in rows],
        supported_pub_key_algs=ALGORITHMS,
    )
    return options_to_json_dict(options), ceremony


def register(here: Workplace, ceremony: Ceremony, made: MadePasskey, name: str) -> tuple[Mapping[str, Any], Ceremony]:
    """Look at a new passkey and ask it to sign. Nothing is stored yet.

    Returns: the options for `navigator.credentials.get`, and the ceremony for `prove`.
    Raises AccessRefused for what is no registration that answers `ceremony`.
    """
    try:
        verified = _verified_registration(here, ceremony, made)
        key = public_key_of_cose(verified.credential_public_key)
        _check_page(here, from_base64url(made.response.client_data))
    except (
        WebAuthnException, OnboardingError, InvalidSignature, UnsupportedAlgorithm,
        ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError,
    ) as error:  # fmt: skip
        raise AccessRefused(
            _("the new passkey was not accepted: %(why)s", why=error),
            account=ceremony.account,
            method=access.ENROLMENT,
            reason=access.NOT_PROVEN,
        ) from None
    with here.database.begin() as session:
        account = _account(session, ceremony.account)
        request = _request(here, account, key)
        keep = {
            "link": ceremony.kept["link"],
            "id": made.id,
            "name": name,
            "public_key": encode_base64(verified.credential_public_key),
            "backup_eligible": verified.credential_device_type is CredentialDeviceType.MULTI_DEVICE,
            "transports": " ".join(sorted(set(made.response.transports))),
            "request": None if request is None else request.to_json(),
        }
        proving = begin_ceremony(
            session,
            here,
            PROVE,
            challenge=None if request is None else request.challenge,
            account=account.id,
            keep=keep,
        )
    return _request_options(here, proving.challenge, [made.id]), proving


def prove(here: Workplace, ceremony: Ceremony, used: UsedPasskey) -> Account:
    """Store the passkey that answered `register`'s challenge; a one-time link is used up, its account becomes active.

    Raises AccessRefused when the answer does not hold or the link was used meanwhile; nothing is stored then.
    """
    kept = ceremony.kept
    cose = decode_base64(kept["public_key"], "public key")
    refused = AccessRefused(
        _(_NOT_ACCEPTED), account=ceremony.account, method=access.ENROLMENT, reason=access.NOT_PROVEN
    )
    key = public_key_of_cose(cose)
    try:
        assertion = _assertion(used)
        signature = from_base64url(used.response.signature)
        state = _verify(here, key, ceremony.challenge, signature, assertion)
    except (StatementError, ValueError):
        raise refused from None
    if used.id != kept["id"] or state.backup_eligible != kept["backup_eligible"]:
        raise refused
    request = kept["request"]
    proof = None if request is None else {
        **{name: request[name] for name in ("name", "organisation", "role", "relying_party")},
        "signature": encode_base64(signature),
        "passkey": assertion.to_json(),
    }  # fmt: skip
    now = here.now()
    try:
        with here.database.begin() as session:
            account = _account(session, ceremony.account)
            enrolling = kept["link"] is not None
            if enrolling:
                _use_link(session, here, kept["link"], account)
            elif account.state != ACTIVE:
                raise AccessRefused(_("this account is not active"), account=account.id, method=access.PASSKEY,
                                    reason=access.NOT_ACTIVE)  # fmt: skip
            session.add(
                PasskeyRow(
                    id=used.id,
                    account=account.id,
                    name=kept["name"],
                    public_key=cose,
                    key_digest=digest_of(spki_of(key)),
                    sign_count=state.sign_count,
                    backup_eligible=state.backup_eligible,
                    backed_up=state.backed_up,
                    transports=kept["transports"],
                    made=now,
                    proof=None if proof is None else json.dumps(proof),
                    last_used=now,
                )
            )
            account.state, account.failures, account.locked_until = ACTIVE, 0, None
            session.add(account)
            session.flush()
            method = access.ENROLMENT if enrolling else access.PASSKEY_ADDED
            note_granted(session, here, account.id, method, by=account.id)
            return seen(account)
    except IntegrityError:
        raise SignInError(_("this passkey is registered already; use another one")) from None


def sign_in_options(here: Workplace) -> tuple[Mapping[str, Any], Ceremony]:
    """The options for `navigator.credentials.get` for whoever comes: the browser offers what passkeys it has."""
    with here.database.begin() as session:
        ceremony = begin_ceremony(session, here, SIGN_IN)
    return _request_options(here, ceremony.challenge, []), ceremony


def confirm_options(here: Workplace, account_id: str) -> tuple[Mapping[str, Any], Ceremony]:
    """The same for somebody who is signed in and proves it again, with a passkey of the account."""
    with here.database.begin() as session:
        ceremony = begin_ceremony(session, here, CONFIRM, account=account_id)
        known = [row.id for row in rows_of(session, account_id)]
    return _request_options(here, ceremony.challenge, known), ceremony


def check_use(here: Workplace, ceremony: Ceremony, used: UsedPasskey) -> Account:
    """Whose passkey answered a challenge of `sign_in_options` or `confirm_options`.

    Returns: the active account. Raises AccessRefused; a failure on a known account is counted.
    """
    outcome: AccessRefused | None = None
    account: AccountRow | None = None
    with here.database.begin() as session:
        row = session.get(PasskeyRow, used.id, with_for_update=True)
        account = None if row is None else session.get(AccountRow, row.account, with_for_update=True)
        if row is None or account is None:
            raise AccessRefused(_(_NOT_ACCEPTED), account=None, method=access.PASSKEY, reason=access.UNKNOWN)
        try:
            state = _checked(here, ceremony, used, row, account)
        except AccessRefused as error:  # told after this transaction, which counts the failure
            outcome = error
            if error.reason in (access.NOT_PROVEN, access.COUNTER):
                count_failure(session, here, account)
        else:
            row.sign_count, row.backed_up, row.last_used = state.sign_count, state.backed_up, here.now()
            account.failures, account.locked_until = 0, None
            session.add(row)
            session.add(account)
    if outcome is not None:
        raise outcome
    return seen(account)


def _checked(
    here: Workplace, ceremony: Ceremony, used: UsedPasskey, row: PasskeyRow, account: AccountRow
) -> AuthenticatorState:
    refused = AccessRefused(_(_NOT_ACCEPTED), account=account.id, method=access.PASSKEY, reason=access.NOT_PROVEN)
    try:
        state = _verify(
            here,
            public_key_of_cose(row.public_key),
            ceremony.challenge,
            from_base64url(used.response.signature),
            _assertion(used),
        )
    except (StatementError, ValueError):
        raise refused from None
    handle = used.response.user_handle
    if ceremony.account is not None and ceremony.account != account.id:
        raise refused
    if (handle is None and ceremony.purpose == SIGN_IN) or (
        handle is not None and not same(handle, to_base64url(account.handle))
    ):
        raise refused
    if state.backup_eligible != row.backup_eligible:
        raise refused
    if (state.sign_count or row.sign_count) and state.sign_count <= row.sign_count:
        raise AccessRefused(
            _("this passkey was used elsewhere since, so there may be a copy; sign in with another one and remove it"),
            account=account.id,
            method=access.PASSKEY,
            reason=access.COUNTER,
        )
    if account.state != ACTIVE:
        raise AccessRefused(
            {
                INVITED: _("this account was not enrolled yet; open its one-time link"),
                ENDED: _("this account has ended"),
            }.get(account.state, _("this account is locked; an admin can unlock it")),
            account=account.id,
            method=access.PASSKEY,
            reason=access.NOT_ACTIVE,
        )
    check_unlocked(here, account, method=access.PASSKEY)
    return state


def _verified_registration(here: Workplace, ceremony: Ceremony, made: MadePasskey) -> VerifiedRegistration:
    return verify_registration_response(
        credential={
            "id": made.id,
            "rawId": made.raw_id,
            "type": made.type,
            "response": {
                "clientDataJSON": made.response.client_data,
                "attestationObject": made.response.attestation_object,
            },
        },
        expected_challenge=ceremony.challenge,
        expected_rp_id=here.settings.relying_party,
        expected_origin=origin_of(here.settings),
        require_user_verification=True,
        supported_pub_key_algs=ALGORITHMS,
    )


def _verify(
    here: Workplace, key: PublicKey, challenge: bytes, signature: bytes, assertion: Assertion
) -> AuthenticatorState:
    state = verify_assertion(
        key,
        relying_party=here.settings.relying_party,
        challenge=challenge,
        signature=signature,
        assertion=assertion,
    )
    _check_page(here, assertion.client_data)
    return state


def _check_page(here: Workplace, client_data: bytes) -> None:
    """Our own page, on its own: the rules for signatures allow subdomains, signing in does not."""
    said = json.loads(client_data)
    expected = origin_of(here.settings)
    if said.get("origin") != expected:
        raise ValueError(f"expected the page {expected}, got another one")
    if said.get("crossOrigin", False) is not False or "topOrigin" in said:
        raise ValueError("it was made in a frame of another site's page")


def _assertion(used: UsedPasskey) -> Assertion:
    return Assertion(from_base64url(used.response.authenticator_data), from_base64url(used.response.client_data))


def _request(here: Workplace, account: AccountRow, key: Any) -> PasskeyRequest | None:
    if account.role not in PEOPLE:
        return None
    name, relying_party = account.name or account.id, here.settings.relying_party
    return PasskeyRequest(name, account.organisation, account.role, relying_party, key)


def _request_options(here: Workplace, challenge: bytes, credentials: list[str]) -> Mapping[str, Any]:
    return {
        "challenge": to_base64url(challenge),
        "rpId": here.settings.relying_party,
        "timeout": TIME_LIMIT_MS,
        "userVerification": "required",
        "allowCredentials": [{"type": "public-key", "id": each} for each in credentials],
    }


def _use_link(session: Session, here: Workplace, link: str, account: AccountRow) -> None:
    row = session.get(LinkRow, link, with_for_update=True)
    if row is None or row.account != account.id or utc(row.ends) < here.now() or account.state not in (INVITED, ACTIVE):
        raise AccessRefused(
            _("the link was used already, was replaced, or its time is over; ask for another one"),
            account=account.id,
            method=access.ENROLMENT,
            reason=access.STALE,
        )
    session.delete(row)


def _account(session: Session, account_id: str | None) -> AccountRow:
    row = None if account_id is None else session.get(AccountRow, account_id, with_for_update=True)
    if row is None:
        raise NoSuch(_("there is no such account any more"))
    return row
