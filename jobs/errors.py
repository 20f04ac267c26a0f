"""Everything that can go wrong while work runs across the federation.

JobError
├── PlanError            the plan's text is not a valid plan
├── ProvisioningError    NVFlare's certificate or packaging step refused
├── FederationError      a process or the connection of the federation failed
├── SiteError            one hospital answered a call with an error
│   └── SiteRefused      ... because its guard refuses, with a signed statement
├── RunStateError        a run's kept state cannot be read
├── RunAborted           a run ended before its last round, for good
└── RunInterrupted       a run stopped and can go on later
    └── SignerBarred     ... because the log bars a certificate whose statement was to be logged
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class JobError(Exception):
    """Root of this package's errors. The message says what to do next."""


class PlanError(JobError):
    """The plan is malformed or contradicts itself."""


class ProvisioningError(JobError):
    """A certificate request, approval or kit was refused; nothing was installed."""


class FederationError(JobError):
    """A process of the federation does not run or cannot be reached."""


UNREACHABLE = "unreachable"  # the code of a SiteError where no answer came at all


class SiteError(JobError):
    """One hospital could not carry out a call.

    `code` is a word from a fixed list; `detail` never holds text from records, since it leaves the hospital.
    """

    def __init__(self, site: str, code: str, detail: str) -> None:
        super().__init__(f"{site}: {detail} [{code}]")
        self.site = site
        self.code = code
        self.detail = detail


class SiteRefused(SiteError):
    """The hospital's guard refuses. `refusal` is its signed statement, as JSON."""

    def __init__(self, site: str, code: str, detail: str, refusal: Mapping[str, Any]) -> None:
        super().__init__(site, code, detail)
        self.refusal = dict(refusal)


class RunStateError(JobError):
    """The state a run left behind is malformed."""


class RunAborted(JobError):
    """The run cannot go on. What was spent stays recorded at every hospital."""


class RunInterrupted(JobError):
    """Too many hospitals are missing at the moment; another coordinator can go on where this one stopped."""


class SignerBarred(RunInterrupted):
    """A statement was not logged: its certificate was suspended or revoked before."""
