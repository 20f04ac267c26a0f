"""Erasure: the log's word that a value beside it is gone for good.

A `value.erased` entry names the commitment and holds an admin's signed statement; it says nothing about the value.
The entry comes first, the file goes after: when the machine stops in between, the log already forbids showing the
value, and erasing again carries it out.

Invariants:
- A consortium admin signed it, for a commitment that an earlier entry holds.
- A value is erased once; there is no way back.

Source: GDPR article 17.
"""

from __future__ import annotations

from audit.certificates import CONSORTIUM_ADMIN
from audit.disclosure import commitments_in
from audit.entry import VALUE_ERASED
from audit.errors import TraceError
from audit.evidence import Evidence, Logged
from audit.statement import ERASURE, listed

ERASERS = frozenset({CONSORTIUM_ADMIN})


def erasures(evidence: Evidence) -> dict[str, Logged]:
    """Every erasure by commitment. Raises TraceError when one is not an admin's word, or comes twice."""
    found: dict[str, Logged] = {}
    for logged in evidence.of_kind(VALUE_ERASED):
        signed = logged.entry.signed("erasure")
        evidence.verify(logged, signed, ERASURE, ERASERS)
        commitment = logged.body["commitment"]
        if commitment not in listed(signed.statement["commitment"]):
            logged.expect("commitment", signed.statement["commitment"], commitment)
        if commitment in found:
            raise TraceError(f"{logged}: {commitment} was erased already, in {found[commitment]}")
        found[commitment] = logged
    return found


def check_erasure(evidence: Evidence, logged: Logged) -> None:
    """Raises TraceError unless an earlier entry holds what `logged` erases; `evidence` must hold the whole log."""
    erasures(evidence)
    commitment = logged.body["commitment"]
    for earlier in evidence.entries:
        if earlier.index < logged.index and commitment in commitments_in(earlier.entry):
            return
    raise TraceError(f"{logged}: no entry before it holds the commitment {commitment}")
