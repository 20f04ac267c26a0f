"""Everything that can go wrong in `privacy/`.

PrivacyError
├── EventError         an event that is malformed, out of range or of an unknown kind
├── AccountingError    an accounting question without an answer (bad delta, target out of reach)
├── NoiseError         noise or sampling asked for with parameters that would not protect
└── LedgerError        the hospital's record of privacy spent
    ├── BudgetMissing      no officer has set a budget for this cohort
    ├── BudgetExceeded     the budget does not admit what is asked
    ├── NotReserved        a commit that no open reservation covers
    ├── AlreadySpent       this round was committed before: nothing may be released for it again
    ├── LedgerBusy         another process holds the ledger's write lock
    ├── LedgerUnusable     its file cannot be read or written: no space, no permission, a broken disk
    └── LedgerCorrupt      the record is not the one this ledger wrote
        └── LedgerRolledBack   the record is an older copy of itself
"""

from __future__ import annotations


class PrivacyError(Exception):
    """The root of this package's errors."""


class EventError(PrivacyError):
    """A privacy event is malformed, out of range or of an unknown kind."""


class AccountingError(PrivacyError):
    """An accounting question has no answer."""


class NoiseError(PrivacyError):
    """Noise or sampling was asked for with parameters that would not protect."""


class LedgerError(PrivacyError):
    """The ledger refuses."""


class BudgetMissing(LedgerError):
    """No officer has set a budget for this cohort."""


class BudgetExceeded(LedgerError):
    """The cohort's budget does not admit what is asked.

    All numbers are epsilons by Renyi DP at the budget's delta.

    Attributes:
        cohort: The cohort asked for.
        budget: The officer's budget.
        spent: What was committed.
        reserved: What open reservations would add to `spent`.
        asked: What this request would cost on its own.
        total: Everything together as the admission filter sees it, which is more than `budget`.
        left: What remains before this request.
    """

    def __init__(
        self, *, cohort: str, budget: float, spent: float, reserved: float, asked: float, total: float
    ) -> None:
        self.cohort = cohort
        self.budget = budget
        self.spent = spent
        self.reserved = reserved
        self.asked = asked
        self.total = total
        self.left = max(0.0, budget - spent - reserved)
        super().__init__(
            f"cohort {cohort!r}: this needs epsilon {total:.4f} in all and the budget is {budget:.4f}; "
            f"spent {spent:.4f}, reserved {reserved:.4f}, left {self.left:.4f}, asked alone {asked:.4f}. "
            "Ask for fewer rounds or more noise, close runs that ended, or have the officer raise the budget."
        )


class NotReserved(LedgerError):
    """A commit that no open reservation covers."""


class AlreadySpent(LedgerError):
    """This key of this run was committed before; nothing may be released for it again."""


class LedgerBusy(LedgerError):
    """Another process holds the ledger's write lock."""


class LedgerUnusable(LedgerError):
    """The ledger's file cannot be read or written: no space, no permission, a broken disk."""


class LedgerCorrupt(LedgerError):
    """The record is not the one this ledger wrote."""


class LedgerRolledBack(LedgerCorrupt):
    """The record is an older copy of itself: rows that were durable are missing."""
