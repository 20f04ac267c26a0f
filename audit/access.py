"""Access to the consortium's pages: what the log says about sign-ins, refusals and ways in that were taken away.

Invariants:
- An account stands in the log by its id alone: a person id, or `contact-` and 16 hex digits for a hospital's contact.
  No name, address, device or anything typed by somebody enters the log; an unknown visitor is null.
- A sign-in is one entry. Refusals are gathered: one entry per account, method, reason and minute, with how many there
  were, so that a flood of them cannot fill the log.
- No decision rests on these entries. A verifier of releases reads past them.

All fields are public; that somebody signed in at a time is pseudonymous personal data once their name is known.
"""

from __future__ import annotations

import re

from audit.certificates import PERSON_ID

CONTACT_ID = re.compile(r"contact-[0-9a-f]{16}", re.ASCII)  # a hospital contact's account
ACCOUNT_ID = re.compile(rf"{PERSON_ID.pattern}|{CONTACT_ID.pattern}", re.ASCII)

# A way in was given, or used.
PASSKEY = "passkey"  # signed in
OIDC = "oidc"  # signed in through the organisation's own sign-in
INVITED = "invited"  # a one-time link was made for the account
ENROLMENT = "enrolment"  # the link was used, and the account has its first passkey
PASSKEY_ADDED = "passkey-added"
TOKEN_MADE = "token-made"  # noqa: S105  an API token
UNLOCKED = "unlocked"
GRANTED = (PASSKEY, OIDC, INVITED, ENROLMENT, PASSKEY_ADDED, TOKEN_MADE, UNLOCKED)

# A way in was taken away.
SIGN_OUT_EVERYWHERE = "sign-out-everywhere"
PASSKEY_REMOVED = "passkey-removed"
TOKEN_REVOKED = "token-revoked"  # noqa: S105
LOCKED = "locked"
ACCOUNT_ENDED = "account-ended"
ROLE_CHANGED = "role-changed"  # the organisation's own sign-in names another role; earlier sessions and tokens ended
ENDED = (SIGN_OUT_EVERYWHERE, PASSKEY_REMOVED, TOKEN_REVOKED, LOCKED, ACCOUNT_ENDED, ROLE_CHANGED)

# How somebody tried who was refused, and why.
SESSION = "session"  # by the cookie of a session
TOKEN = "token"  # noqa: S105  by an API token
TRIED = (PASSKEY, OIDC, ENROLMENT, SESSION, TOKEN)
UNKNOWN = "unknown"  # no such passkey, link or token, or no longer
NOT_PROVEN = "not-proven"  # the answer of the passkey, or the other sign-in's word, does not hold
STALE = "stale"  # the challenge was used, has expired, or belongs to another browser
COUNTER = "counter"  # the passkey's counter went back: there may be a copy of it
NOT_ACTIVE = "not-active"  # the account was not enrolled yet, is locked, or has ended
TOO_MANY = "too-many"  # too many attempts, from one place or on one account
CROSS_SITE = "cross-site"  # the request did not come from our own pages
OUTSIDE_ROLE = "role"  # the role, or the token's scope, does not allow it
UNMAPPED = "unmapped"  # the organisation's own sign-in names no role here
REASONS = (UNKNOWN, NOT_PROVEN, STALE, COUNTER, NOT_ACTIVE, TOO_MANY, CROSS_SITE, OUTSIDE_ROLE, UNMAPPED)
