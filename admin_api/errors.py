"""Errors of the consortium's side. The message says what to do next.

AdminError
├── OnboardingError   a request or certificate cannot be accepted
├── ApprovalError     an approval is missing, void or not this person's to give
│   └── StatementChanged   the log has moved on between what was shown and its signature
├── SignatureNeeded   no failure: an act waits for the signature of a passkey
├── ErasureRefused    a personal value is not to be erased, or not yet
├── ReleaseRefused    a version cannot become a release
├── ReadingError      the read model cannot answer
│   ├── NotKnown         the log says nothing of such a thing
│   ├── BadCursor        a list cannot be continued from there
│   └── ReadingBehind    it has yet to read much of the log
└── WebError          the pages' own database or settings are not as they must be
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class AdminError(Exception):
    """Root of this package's errors."""


class OnboardingError(AdminError):
    """A certificate request cannot be accepted, or the consortium's folder is not ready for it."""


class ApprovalError(AdminError):
    """An approval cannot be given or counted."""


class StatementChanged(ApprovalError):
    """An act would log another statement than the one that was shown and signed."""


class SignatureNeeded(AdminError):
    """An act has come to the statement it needs signed; nothing was written. Only `admin_api.signing` catches it."""

    def __init__(self, statement: Mapping[str, Any]) -> None:
        super().__init__(f"a signature is needed over {statement['type']}")
        self.statement = statement


class ErasureRefused(AdminError):
    """A personal value cannot be erased, or not yet."""


class ReleaseRefused(AdminError):
    """A version cannot be proposed or certified."""


class ReadingError(AdminError):
    """The read model cannot be brought up to date, or cannot answer."""


class NotKnown(ReadingError):
    """The log, as far as it is read, says nothing of such a thing."""


class BadCursor(ReadingError):
    """The place in a list from which to go on is none that the list gave."""


class ReadingBehind(ReadingError):
    """The read model has yet to read more of the log than a request can wait for. Ask again in a few seconds."""


class WebError(AdminError):
    """The pages' own database, settings or templates are not as they must be."""
