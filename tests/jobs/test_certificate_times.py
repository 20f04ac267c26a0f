"""Every place that relies on a certificate refuses one that has ended, and one that is not valid yet.

Certificates are valid from an hour before NOW for 30 days. What is judged later from the log is judged at the time of
its entries; that is told in `tests/audit`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from admin_api.errors import ApprovalError
from admin_api.people import open_person
from audit.canonical import digest_of, format_time
from audit.certificates import (
    CLIENT,
    LOG,
    RELEASE_MANAGER,
    certificate_digest,
    certificate_pem,
    issue_certificate,
    verify_certificate,
)
from audit.checkpoint import Checkpoint, log_origin, log_verifier_key
from audit.enrolment import check_new_enrolment, enrolment_entry, enrolment_statement
from audit.entry import CERTIFICATE_ISSUED, CONSORTIUM_FOUNDED, Entry
from audit.errors import AuditError, CertificateError, TraceError
from audit.evidence import Evidence
from audit.revocation import NO_REVOCATIONS, Revocations, StatusChange, sign_revocations
from audit.signatures import sign_bytes
from audit.signing_keys import private_key_pem
from audit.statement import RECEIPT, SignedStatement, sign_statement
from jobs.errors import SiteError
from jobs.federation.door import Doorkeeper
from jobs.signed_answers import SignedAnswers
from jobs.standing import Standing
from site_packages.guard import GuardRefusal, check_plan
from site_packages.limits import Limits
from site_packages.revocations import KnownRevocations
from site_packages.simulation import approve_plan, make_keyring
from site_packages.witnessing import HospitalWitness
from tests.jobs.small_federation import NOW, SITES, Alter, Answer, simulation, small_plan

DAY = timedelta(days=1)
KEYRING = make_keyring("Delta", SITES, now=NOW)
PLAN = small_plan()
LOG_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
BEGIN, END = NOW - timedelta(hours=1), NOW + 30 * DAY
OUT_OF_TIME = {"not yet valid": BEGIN - timedelta(minutes=1), "ended": END + timedelta(minutes=1)}
KEY, CERTIFICATE = KEYRING.sites["geul"]


def issued(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey, name: str, role: str) -> x509.Certificate:
    return issue_certificate(
        key.public_key(), name=name, organisation="Delta", role=role, root_cert=KEYRING.root,
        root_key=KEYRING.root_key, not_before=BEGIN, not_after=KEYRING.root.not_valid_after_utc,
    )  # fmt: skip


LOG_CERTIFICATE = issued(LOG_KEY, log_origin("Delta"), LOG)
PERSON_KEY = ec.generate_private_key(ec.SECP256R1())
PERSON = issued(PERSON_KEY, "person-0123456789abcdef", RELEASE_MANAGER)


def statement() -> SignedStatement:
    fields = {
        "type": RECEIPT, "consortium": "Delta", "time": format_time(NOW), "site": "geul", "run_id": "run-1", "round": 1,
        "plan_hash": PLAN.hash, "version_in": PLAN.initial_version, "masked_upload": digest_of(b"vector"),
        "privacy_event": PLAN.event(1).to_json(), "manifest": digest_of(b"manifest"), "ledger_head": digest_of(b"head"),
    }  # fmt: skip
    return sign_statement(fields, KEY, CERTIFICATE)


def answers(at: datetime) -> SignedAnswers:
    return SignedAnswers(
        consortium="Delta", standing=Standing(KEYRING.certificates), root=KEYRING.root, clock=lambda: at
    )


def a_receipt(at: datetime, folder: Path) -> None:
    answers(at).statement("geul", statement().to_json(), RECEIPT, {"site": "geul"})


def a_protocol_key_at_the_coordinator(at: datetime, folder: Path) -> None:
    answers(at).key("geul", b"key", sign_bytes(KEY, b"key"))


def an_approval_at_the_guard(at: datetime, folder: Path) -> None:
    check_plan(
        PLAN.to_bytes(), [approve_plan(KEYRING, PLAN, now=NOW)], KEYRING.certificates, expected_hash=PLAN.hash,
        site="geul", consortium="Delta", root=KEYRING.root, limits=Limits(), known_codes=None, now=at,
    )  # fmt: skip


def a_peers_key_at_a_hospital(at: datetime, folder: Path) -> None:
    """The hospital's clock is put forward after it joined; the others' keys come then."""
    moments = [NOW]
    seen: list[SiteError] = []

    def alter(method: str, site: str, request: object, real: Callable[[], Answer]) -> Answer:
        if (method, site) != ("share_keys", "geul"):
            return real()
        moments[0] = at
        answer = real()
        moments[0] = NOW
        if isinstance(answer, SiteError):
            seen.append(answer)
        return answer

    wrong: Alter = alter
    whole = simulation(folder, small_plan(dropouts=1, rounds=1, feature_mean_noise_multiplier=None), alter=wrong)
    whole.participants["geul"]._clock = lambda: moments[0]
    whole.run()
    if seen:
        raise CertificateError(seen[0].detail)


def the_logs_certificate_for_the_list(at: datetime, folder: Path) -> None:
    known = KnownRevocations(folder / "note", consortium="Delta", root=KEYRING.root, clock=lambda: at)
    known.trust(certificate_pem(LOG_CERTIFICATE))


def the_logs_certificate_for_a_witness(at: datetime, folder: Path) -> None:
    HospitalWitness(
        folder / "witness", site="geul", organisation="geul", consortium="Delta", key=KEY, certificate=CERTIFICATE,
        root=KEYRING.root, clock=lambda: at,
    ).enrol(certificate_pem(LOG_CERTIFICATE))  # fmt: skip


def an_enrolment_in_the_log(at: datetime, folder: Path) -> None:
    signed = sign_statement(enrolment_statement("Delta", "zegel-witness/geul", "geul", LOG_KEY, NOW), KEY, CERTIFICATE)
    check_new_enrolment(a_log(), enrolment_entry(signed, at), KEYRING.root)


def a_person_who_signs(at: datetime, folder: Path) -> None:
    (folder / "person.key").write_bytes(private_key_pem(PERSON_KEY, b"correct horse"))
    (folder / "person.crt").write_text(certificate_pem(PERSON), encoding="ascii")
    open_person(folder, passphrase=b"correct horse", root=KEYRING.root, now=at)


def a_hospital_at_the_door(at: datetime, folder: Path) -> None:
    standing = Standing(KEYRING.certificates)
    chain = CERTIFICATE.public_bytes(serialization.Encoding.PEM)
    reason = Doorkeeper(lambda: standing, lambda: at).refusal("geul", chain)
    if reason is not None:
        raise CertificateError(reason)


def a_hospital_that_takes_part(at: datetime, folder: Path) -> None:
    barred = Standing(KEYRING.certificates).barred(at=at)
    if "geul" in barred:
        raise CertificateError(barred["geul"])


def a_statement_in_the_log(at: datetime, folder: Path) -> None:
    """Judged by anybody later: also at the time of its entry."""
    evidence = Evidence(a_log(), KEYRING.root)
    logged = Evidence([*a_log(), (len(a_log()), Entry(CERTIFICATE_ISSUED, at, a_log()[1][1].body))], KEYRING.root)
    evidence.verify(logged.entries[-1], statement(), RECEIPT, frozenset({CLIENT}))


def the_bare_check(at: datetime, folder: Path) -> None:
    verify_certificate(CERTIFICATE, KEYRING.root, at=at)


def a_log() -> list[tuple[int, Entry]]:
    founding = {
        "name": "Delta", "root_certificate": certificate_digest(KEYRING.root),
        "log_vkey": str(log_verifier_key(LOG_CERTIFICATE)), "log_certificate": certificate_pem(LOG_CERTIFICATE),
        "server": "localhost",
    }  # fmt: skip
    body = {
        "holder": None,
        "certificate": certificate_pem(CERTIFICATE), "digest": certificate_digest(CERTIFICATE), "name": "geul",
        "organisation": "geul", "role": CLIENT, "not_before": format_time(CERTIFICATE.not_valid_before_utc),
        "not_after": format_time(CERTIFICATE.not_valid_after_utc),
    }  # fmt: skip
    return [(0, Entry(CONSORTIUM_FOUNDED, NOW, founding)), (1, Entry(CERTIFICATE_ISSUED, NOW, body))]


PLACES: tuple[Callable[[datetime, Path], None], ...] = (
    a_receipt,
    a_protocol_key_at_the_coordinator,
    an_approval_at_the_guard,
    a_peers_key_at_a_hospital,
    the_logs_certificate_for_the_list,
    the_logs_certificate_for_a_witness,
    an_enrolment_in_the_log,
    a_person_who_signs,
    a_hospital_at_the_door,
    a_hospital_that_takes_part,
    a_statement_in_the_log,
    the_bare_check,
)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_a_certificate_in_its_time_counts(place: Callable[[datetime, Path], None], tmp_path: Path) -> None:
    place(NOW, tmp_path)


@pytest.mark.parametrize("when", OUT_OF_TIME)
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_a_certificate_out_of_its_time_does_not(
    place: Callable[[datetime, Path], None], when: str, tmp_path: Path
) -> None:
    at = OUT_OF_TIME[when]
    if when == "not yet valid" and place in (an_enrolment_in_the_log, a_statement_in_the_log):
        at -= timedelta(minutes=5)  # the clocks of signer and log may differ by so much
    with pytest.raises((AuditError, GuardRefusal, ApprovalError), match=r"expected (a time from|its certificate)"):
        place(at, tmp_path)


# -- the list that hospitals keep


def tree(size: int, root: bytes = bytes(32)) -> Checkpoint:
    return Checkpoint(log_origin("Delta"), size, root)


def known(folder: Path) -> KnownRevocations:
    """What a hospital knows, as a process of its own would read it."""
    made = KnownRevocations(folder / "note", consortium="Delta", root=KEYRING.root, clock=lambda: NOW)
    made.trust(certificate_pem(LOG_CERTIFICATE))
    return made


def listed(size: int, *changes: tuple[int, str, str], root: bytes = bytes(32)) -> bytes:
    return sign_revocations(Revocations(tuple(StatusChange(*each) for each in changes)), tree(size, root), LOG_KEY)


ONE, TWO = digest_of(b"one"), digest_of(b"two")
FIRST = (7, ONE, "suspended")


def test_a_list_only_grows_also_after_a_restart(tmp_path: Path) -> None:
    here = known(tmp_path)
    assert here.take(listed(5)) == NO_REVOCATIONS
    assert here.take(listed(10, FIRST)).changes[0].certificate == ONE
    assert here.take(listed(10, FIRST)).changes[0].certificate == ONE
    refused = {
        "older": (listed(9, FIRST), "somebody shows an old list"),
        "a change is gone": (listed(12), "held 1 changes as seen before, now 0"),
        "another change": (listed(12, (7, TWO, "suspended")), "held 1 changes"),
        "a change put in before": (listed(12, (6, TWO, "revoked"), FIRST), "now 2 or others"),
        "another log of that size": (listed(10, FIRST, root=bytes([1]) * 32), "two different logs of 10 entries"),
    }
    for note, message in refused.values():
        for each in (here, known(tmp_path)):
            with pytest.raises(CertificateError, match=message):
                each.take(note)
            assert [change.certificate for change in each.current.changes] == [ONE]
    assert len(known(tmp_path).take(listed(20, FIRST, (15, TWO, "revoked"))).changes) == 2


def test_a_list_of_another_log_or_key_is_refused(tmp_path: Path) -> None:
    here = known(tmp_path)
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    with pytest.raises(AuditError, match="signature"):
        here.take(sign_revocations(NO_REVOCATIONS, tree(5), other))
    strange = issued(LOG_KEY, log_origin("Other"), LOG)
    with pytest.raises(CertificateError, match="expected the certificate of the log"):
        here.trust(certificate_pem(strange))
    with pytest.raises(CertificateError, match="expected role log"):
        here.trust(certificate_pem(PERSON))
    with pytest.raises(CertificateError, match="not PEM"):
        here.trust("één")
    with pytest.raises(RuntimeError, match="expected the log's certificate"):
        KnownRevocations(tmp_path / "x", consortium="Delta", root=KEYRING.root, clock=lambda: NOW).take(listed(5))


def test_a_kept_list_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path) -> None:
    known(tmp_path).take(listed(10, FIRST))
    (tmp_path / "note").write_bytes(b"spoiled")
    with pytest.raises(CertificateError, match="is not a list of this log"):
        known(tmp_path)


def test_a_status_in_the_log_is_told_by_the_order(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="announced only in entry"):
        evidence = Evidence(a_log(), KEYRING.root)
        evidence.verify(evidence.entries[1], statement(), RECEIPT, frozenset({CLIENT}))
