"""The form of the documents: which edition of the wording and layout a verifier must make again.

Invariant: a change that alters one byte of any document made here for the same evidence raises `FORM`. Verifiers
compare documents of their own form only, and say so of others; older dossiers then stay verifiable, since everything
but the comparison holds as before.
"""

from __future__ import annotations

import re

FORM = 2
MARK = f"zegel documents v{FORM}"  # stands in every document
_MARK = re.compile(rb"zegel documents v([0-9]{1,6})\b")


def form_of(document: bytes) -> int | None:
    """The form that a document says it has, or None when it says nothing."""
    found = _MARK.search(document)
    return int(found[1]) if found else None
