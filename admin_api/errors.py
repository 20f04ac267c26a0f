"""Errors of the consortium's side. The message says what to do next.

AdminError
├── OnboardingError   a request or certificate cannot be accepted
├── ApprovalError     an approval is missing, void or not this person's to give
├── ErasureRefused    a personal value is not to be erased, or not yet
└── ReleaseRefused    a version cannot become a release
"""

from __future__ import annotations


class AdminError(Exception):
    """Root of this package's errors."""


class OnboardingError(AdminError):
    """A certificate request cannot be accepted, or the consortium's folder is not ready for it."""


class ApprovalError(AdminError):
    """An approval cannot be given or counted."""


class ErasureRefused(AdminError):
    """A personal value cannot be erased, or not yet."""


class ReleaseRefused(AdminError):
    """A version cannot be proposed or certified."""
