"""What the fields of statements and log entries must be, as small checks that raise `EntryError`.

A check takes a value and the name to call it by. `Fields` is a table of checks by field name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from audit.access import ACCOUNT_ID
from audit.canonical import check_digest, parse_time, shown
from audit.errors import CanonicalError, EntryError, StatementError
from audit.revocation import STATUSES
from audit.statement import (
    ACCEPTANCE,
    APPROVAL,
    CERTIFICATE_STATUS,
    DATA_MANIFEST,
    ERASURE,
    GATES,
    METRICS,
    PRIVACY_AUDITED,
    PROPOSAL,
    RECEIPT,
    REFUSAL,
    SUPERSESSION,
    WITHDRAWAL,
    WITNESS_ENROLMENT,
    SignedStatement,
)

Check = Callable[[object, str], None]
Fields = Mapping[str, Check]

MIN_COUNT = 10  # smaller counts of patients or admissions are written as null


def name(value: object, what: str) -> None:
    """Non-empty printable text: it is shown on terminals and pages, and compared letter by letter."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise EntryError(f"{what}: expected printable text, got {shown(value)}")


def text(value: object, what: str) -> None:
    """Any text, possibly empty."""
    if not isinstance(value, str):
        raise EntryError(f"{what}: expected text, got {shown(value)}")


def digest(value: object, what: str) -> None:
    """A digest in our spelling."""
    try:
        check_digest(value, what)
    except CanonicalError as error:
        raise EntryError(str(error)) from error


def account(value: object, what: str) -> None:
    """The id of an account of the pages; never a name."""
    if not isinstance(value, str) or ACCOUNT_ID.fullmatch(value) is None:
        raise EntryError(f"{what}: expected person- or contact- and 16 hex digits, got {shown(value)}")


def instant(value: object, what: str) -> None:
    """A time in our spelling."""
    try:
        parse_time(value, what)
    except CanonicalError as error:
        raise EntryError(str(error)) from error


def integer(minimum: int) -> Check:
    """An integer of at least `minimum`."""

    def check(value: object, what: str) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise EntryError(f"{what}: expected an integer of at least {minimum}, got {shown(value)}")

    return check


def number(minimum: float = -math.inf, maximum: float = math.inf) -> Check:
    """A finite number from `minimum` to `maximum`."""

    def check(value: object, what: str) -> None:
        if (
            not isinstance(value, int | float)
            or isinstance(value, bool)
            or not math.isfinite(value)
            or not minimum <= value <= maximum
        ):
            raise EntryError(f"{what}: expected a number from {minimum} to {maximum}, got {shown(value)}")

    return check


def mapping(value: object, what: str) -> None:
    """A JSON object, whatever it holds."""
    if not isinstance(value, Mapping):
        raise EntryError(f"{what}: expected a JSON object, got {shown(value)}")


def present(value: object, what: str) -> None:
    """Anything but null."""
    if value is None:
        raise EntryError(f"{what}: expected a value, got null")


def truth(value: object, what: str) -> None:
    """True or false."""
    if not isinstance(value, bool):
        raise EntryError(f"{what}: expected true or false, got {shown(value)}")


def one_of(*choices: str) -> Check:
    """One of the given texts."""

    def check(value: object, what: str) -> None:
        if value not in choices:
            raise EntryError(f"{what}: expected {' or '.join(choices)}, got {shown(value)}")

    return check


def nullable(inner: Check) -> Check:
    """Null, or what `inner` accepts."""

    def check(value: object, what: str) -> None:
        if value is not None:
            inner(value, what)

    return check


def list_of(inner: Check, *, length: int | None = None) -> Check:
    """A list, of exactly `length` items when given."""

    def check(value: object, what: str) -> None:
        if not isinstance(value, list):
            raise EntryError(f"{what}: expected a list, got {shown(value)}")
        if length is not None and len(value) != length:
            raise EntryError(f"{what}: expected {length} items, got {len(value)}")
        for position, item in enumerate(value):
            inner(item, f"{what}[{position}]")

    return check


def distinct(inner: Check) -> Check:
    """A list without repetitions."""
    each = list_of(inner)

    def check(value: object, what: str) -> None:
        each(value, what)
        if isinstance(value, list) and len(set(value)) != len(value):
            raise EntryError(f"{what}: expected distinct items, got {shown(value)}")

    return check


def fields_of(table: Fields, *, further: bool, optional: Fields | None = None) -> Check:
    """A JSON object with every field of `table` and any of `optional`; others are allowed when `further`."""
    may = {} if optional is None else optional

    def check(value: object, what: str) -> None:
        if not isinstance(value, Mapping):
            raise EntryError(f"{what}: expected a JSON object, got {shown(value)}")
        if not table.keys() <= value.keys():
            raise EntryError(f"{what}: missing {', '.join(sorted(set(table) - set(value)))}")
        if not further and len(value) != len(table) and set(value) - set(table) - set(may):
            unknown = sorted(map(str, set(value) - set(table) - set(may)))
            raise EntryError(f"{what}: unknown field {', '.join(unknown)}")
        for field, inner in table.items():
            inner(value[field], f"{what}.{field}")
        for field, inner in may.items():
            if field in value:
                inner(value[field], f"{what}.{field}")

    return check


def one_or_several(inner: Check) -> Check:
    """One value, or a sorted list of two and more: what one signature may be about."""
    each = distinct(inner)

    def check(value: object, what: str) -> None:
        if not isinstance(value, list):
            inner(value, what)
            return
        each(value, what)
        if len(value) < 2 or value != sorted(value):
            raise EntryError(f"{what}: expected one value, or several in order, got {shown(value)}")

    return check


def each_value(inner: Check) -> Check:
    """A JSON object whose keys are names and whose values `inner` accepts."""

    def check(value: object, what: str) -> None:
        if not isinstance(value, Mapping):
            raise EntryError(f"{what}: expected a JSON object, got {shown(value)}")
        for key, item in value.items():
            name(key, f"{what} key")
            inner(item, f"{what}.{key}")

    return check


def signed(statement_type: str) -> Check:
    """A signed statement of this type with the fields its type needs. The signature is not verified here."""
    fields = fields_of(STATEMENTS[statement_type], further=True)
    optional = OPTIONAL.get(statement_type, {})

    def check(value: object, what: str) -> None:
        try:
            statement = SignedStatement.from_json(value)
        except StatementError as error:
            raise EntryError(f"{what}: {error}") from error
        if statement.type != statement_type:
            raise EntryError(f"{what}: expected statement type {statement_type}, got {shown(statement.type)}")
        fields(statement.statement, what)
        for field, inner in optional.items():
            if field in statement.statement:
                inner(statement.statement[field], f"{what}.{field}")

    return check


_VALUE = fields_of(
    # A value is null where its cell was too small to report.
    {"value": nullable(number()), "lower": nullable(number()), "upper": nullable(number())},
    further=True,
)
_SUBJECT = fields_of({"kind": one_of("plan", "release", "withdrawal", "request"), "digest": digest}, further=False)
_PROPOSED = fields_of({"kind": one_of("plan", "release"), "digest": digest}, further=False)
_RULE = fields_of({"name": name, "comparison": one_of("at_least", "at_most"), "threshold": number()}, further=False)

# What a person writes freely is committed to, never said (audit.disclosure); null where nothing was written.
_REASON = nullable(digest)

# Fields each type of statement must have besides type, consortium and time; further fields are the signer's.
STATEMENTS: Mapping[str, Fields] = {
    DATA_MANIFEST: {
        "site": name,
        "manifest": digest,
        "admissions": nullable(integer(MIN_COUNT)),
        "patients": nullable(integer(MIN_COUNT)),
        "period_first": nullable(name),
        "period_last": nullable(name),
    },
    APPROVAL: {
        "subject": _SUBJECT,
        "decision": one_of("approve", "refuse"),
        "meaning": name,  # what the signature means, 21 CFR 11.50
        "reason": _REASON,
        "name": name,  # the person id
        "organisation": name,
        "role": name,
    },
    PROPOSAL: {
        "subject": _PROPOSED,
        "meaning": name,
        "name": name,
        "organisation": name,
        "role": name,
    },
    GATES: {
        "task": name,
        "gates": list_of(_RULE),
        "policy": mapping,  # audit.release.Policy reads it
        "reason": _REASON,
    },
    PRIVACY_AUDITED: {
        "report": digest,
        "software": name,
        "claim": number(minimum=0),
        "lower_bound": number(minimum=0),
        "delta": number(minimum=0, maximum=1),
        "passed": truth,
        "quick": truth,
        "audited_at": instant,
    },
    CERTIFICATE_STATUS: {
        "subject": one_or_several(digest),  # each certificate has an entry of its own, with this one statement in it
        "status": one_of(*STATUSES),
        "reason": _REASON,
        "name": name,  # whose certificate: a hospital, or a person id
    },
    WITHDRAWAL: {"release": name, "digest": digest, "reason": _REASON},  # digest of the release statement
    SUPERSESSION: {"release": name, "by": name, "reason": _REASON},
    ACCEPTANCE: {
        "run_id": name,
        "plan_hash": digest,
        "site": name,
        "manifest": digest,
        "ledger_head": digest,
        "epsilon_reserved": number(minimum=0),
    },
    REFUSAL: {"plan_hash": digest, "site": name, "code": name, "reason": text},  # the software's words
    RECEIPT: {
        "run_id": name,
        "round": integer(1),
        "plan_hash": digest,
        "version_in": digest,
        "masked_upload": digest,
        "privacy_event": mapping,
        "manifest": digest,
        "ledger_head": digest,
        "site": name,
    },
    METRICS: {
        "run_id": name,
        "version": digest,
        "site": name,
        "cohort": present,
        "values": each_value(_VALUE),
        "mechanism": mapping,
        "ledger_head": digest,
    },
    WITNESS_ENROLMENT: {"name": name, "organisation": name, "vkey": name, "possession": name},
    ERASURE: {"commitment": one_or_several(digest), "reason": _REASON},
}

# Where a hospital's ledger stands, as its admission counts; epsilon is the budget, all at this delta.
_BUDGET = fields_of(
    {
        "cohort": name,
        "epsilon": number(minimum=0),
        "delta": number(minimum=0, maximum=1),
        "spent": number(minimum=0),
        "reserved": number(minimum=0),
    },
    further=False,
)

# Further fields whose form is ours where a statement has them; statements of earlier versions lack them.
OPTIONAL: Mapping[str, Fields] = {
    ACCEPTANCE: {"budgets": list_of(_BUDGET)},
    METRICS: {"budgets": list_of(_BUDGET)},
}
