"""One way of signing: an act of the consortium, signed with a key in a file or with a passkey in a browser.

Every act that people sign (propose, decide, set gates, revoke, erase, ...) is a function that takes a `Signer` and asks
it for one signature, before anything is written. A key in a file (`admin_api.people.Person`) answers at once. A passkey
answers in two steps, since a browser is between them:

    prepared = prepare(holder, act, now=...)     # runs the act up to the signature it asks for
    ...                                          # the browser shows prepared.statement and signs prepared.challenge
    complete(holder, act, prepared, ...)         # runs the act again, now with the signature

The second run must ask for exactly the statement that was shown and signed. So what an act takes from outside, the
time and the salts of what people write, comes from the signer, and `complete` gives the same ones again. If the log
has moved on so that the act would say something else, nothing is written and the person looks again.

Invariants:
- `prepare` writes nothing of the act.
- `complete` writes nothing but what the person signed; the signature is verified before the act runs.
- A `Prepared` counts for one person and one statement, and not for longer than `SIGNING_TIME`.

A `Prepared` is personal data: its seed opens the commitments to reasons. Delete it once it is completed or given up.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from admin_api.errors import ApprovalError, SignatureNeeded, StatementChanged
from admin_api.passkeys import PasskeyHolder
from admin_api.people import check_role
from audit import schema
from audit.canonical import canonical_json, decode_base64, encode_base64, format_time, parse_json_object, parse_time
from audit.certificates import Identity
from audit.errors import AuditError, CanonicalError, EntryError, StatementError
from audit.passkey import Assertion, challenge_for
from audit.statement import SignedStatement, checked_statement, statement_bytes

SCHEMA = "zegel/prepared-signature/v1"
SIGNING_TIME = timedelta(minutes=15)  # between what was shown and its signature
SEED_SIZE = 32  # bytes
_SALTS = b"zegel salts v1\n"

T = TypeVar("T")


class Signer(Protocol):
    """Somebody who can sign."""

    @property
    def identity(self) -> Identity:
        """Who, by their certificate."""

    @property
    def certificate_digest(self) -> str:
        """Of the certificate they sign with."""

    def require(self, *roles: str) -> None:
        """Raises ApprovalError unless they have one of these roles."""

    def now(self, clock: Callable[[], datetime]) -> datetime:
        """The time that their statement states; `clock` is the consortium's."""

    def random_bytes(self, size: int) -> bytes:
        """Bytes that nobody can foresee, for salts; others at every call."""

    def sign(self, statement: Mapping[str, Any]) -> SignedStatement:
        """Their signature over a statement. Raises StatementError for one that cannot be signed, AdminError where
        none is to be had now.
        """


@dataclass(frozen=True)
class Prepared:
    """What somebody is asked to sign, and what it takes to come to the same statement again."""

    statement: Mapping[str, Any]
    certificate: str  # digest of the signer's certificate
    moment: datetime  # when it was prepared; what the statement takes for now
    seed: bytes  # of salts

    @property
    def challenge(self) -> bytes:
        """What the passkey signs: 32 bytes."""
        return challenge_for(statement_bytes(self.statement))

    def to_bytes(self) -> bytes:
        """Canonical JSON, to be kept by the server until the signature comes."""
        return canonical_json(
            {
                "schema": SCHEMA,
                "statement": self.statement,
                "certificate": self.certificate,
                "moment": format_time(self.moment),
                "seed": encode_base64(self.seed),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Prepared:
        """Reads that form; raises ApprovalError for anything else."""
        try:
            value = parse_json_object(data, "prepared signature")
            _PREPARED(value, "prepared signature")
            seed = decode_base64(value["seed"], "prepared signature: seed")
            statement = checked_statement(value["statement"])
            moment = parse_time(value["moment"], "prepared signature: moment")
        except (CanonicalError, EntryError, StatementError) as error:
            raise ApprovalError(str(error)) from None
        if len(seed) != SEED_SIZE:
            raise ApprovalError(f"prepared signature: seed: expected {SEED_SIZE} bytes, got {len(seed)}")
        return cls(statement, value["certificate"], moment, seed)


def prepare(
    holder: PasskeyHolder,
    act: Callable[[Signer], object],
    *,
    now: datetime,
    random_bytes: Callable[[int], bytes] = os.urandom,
) -> Prepared | None:
    """Run an act up to the signature it asks for.

    Returns: what to show and to have signed; None when the act needed no signature, and is done.
    Raises: whatever the act refuses. Nothing was written then.
    """
    moment, seed = now.replace(microsecond=0), random_bytes(SEED_SIZE)
    signer = _Asking(holder, moment, seed)
    try:
        act(signer)
    except SignatureNeeded as needed:
        return Prepared(needed.statement, holder.certificate_digest, moment, seed)
    if signer.asked:
        raise RuntimeError("an act went on without the signature it asked for")
    return None


def complete(
    holder: PasskeyHolder,
    act: Callable[[Signer], T],
    prepared: Prepared,
    *,
    signature: bytes,
    assertion: Assertion,
    now: datetime,
) -> T:
    """Run the act that was prepared, with the signature the browser brought. Returns what the act returns.

    Raises: ApprovalError for another person's, a late or a wrong signature, StatementChanged when the act would say
        something else now than what was signed, and whatever the act refuses. Nothing was written then.
    """
    if holder.certificate_digest != prepared.certificate:
        raise ApprovalError(f"prepared for the certificate {prepared.certificate}, not for {holder.certificate_digest}")
    if not prepared.moment - timedelta(minutes=1) <= now <= prepared.moment + SIGNING_TIME:
        raise ApprovalError(
            f"prepared at {format_time(prepared.moment)}, signed at {format_time(now)}: expected within "
            f"{SIGNING_TIME // timedelta(minutes=1)} minutes; look again, then sign"
        )
    try:
        holder.check(prepared.challenge, signature, assertion)
    except AuditError as error:
        raise ApprovalError(f"nothing was signed: {error}") from None
    return act(_Answering(holder, prepared.moment, prepared.seed, prepared.statement, signature, assertion))


@dataclass
class _Ceremony:
    """A passkey's holder in the midst of signing: time and salts are those of the moment it was prepared."""

    holder: PasskeyHolder
    moment: datetime
    seed: bytes
    _salts: int = field(default=0, init=False)

    @property
    def identity(self) -> Identity:
        return self.holder.identity

    @property
    def certificate_digest(self) -> str:
        return self.holder.certificate_digest

    def require(self, *roles: str) -> None:
        check_role(self.identity, roles)

    def now(self, clock: Callable[[], datetime]) -> datetime:
        return self.moment

    def random_bytes(self, size: int) -> bytes:
        self._salts += 1
        return hashlib.shake_256(_SALTS + self.seed + self._salts.to_bytes(4)).digest(size)


@dataclass
class _Asking(_Ceremony):
    asked: bool = field(default=False, init=False)

    def sign(self, statement: Mapping[str, Any]) -> SignedStatement:
        self.asked = True
        raise SignatureNeeded(checked_statement(statement))


@dataclass
class _Answering(_Ceremony):
    statement: Mapping[str, Any]
    signature: bytes
    assertion: Assertion

    def sign(self, statement: Mapping[str, Any]) -> SignedStatement:
        asked = checked_statement(statement)
        if statement_bytes(asked) != statement_bytes(self.statement):
            changed = sorted(name for name in {*asked, *self.statement} if asked.get(name) != self.statement.get(name))
            raise StatementChanged(
                f"what you signed is no longer what would be logged ({', '.join(changed)}): the log has moved on; "
                "nothing was written. Look again, then sign"
            )
        return SignedStatement(asked, self.certificate_digest, self.signature, self.assertion)


_PREPARED = schema.fields_of(
    {
        "schema": schema.one_of(SCHEMA),
        "statement": schema.mapping,
        "certificate": schema.digest,
        "moment": schema.instant,
        "seed": schema.name,
    },
    further=False,
)
