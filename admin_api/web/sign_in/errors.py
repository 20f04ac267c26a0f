"""Errors of sign-in.

WebError
└── SignInError            something about an account that cannot be done; the message is for the person
    ├── NoSuch             there is no such account, passkey, session or token, or not of this person
    └── AccessRefused      an attempt to come in that was refused; goes to the log by account, method and reason
        └── TooMany        too many attempts; says when to come back
"""

from __future__ import annotations

from admin_api.errors import WebError


class SignInError(WebError):
    """Something about an account, passkey, session or token cannot be done."""


class NoSuch(SignInError):
    """There is no such account, passkey, session or token, or it is somebody else's."""


class AccessRefused(SignInError):
    """An attempt to come in was refused. What is told does not say whether an account exists.

    account: whose passkey, link or token it was, when that is known; method and reason are words of `audit.access`.
    """

    def __init__(self, message: str, *, account: str | None, method: str, reason: str) -> None:
        super().__init__(message)
        self.account, self.method, self.reason = account, method, reason


class TooMany(AccessRefused):
    """Too many attempts. `seconds`: how long to wait."""

    def __init__(self, message: str, *, account: str | None, method: str, reason: str, seconds: int) -> None:
        super().__init__(message, account=account, method=method, reason=reason)
        self.seconds = seconds
