"""What leaves a hospital: every field of every message, and how it is protected.

`LEAVES` is the list that the privacy officer reads with `zegel site releases`, and that the consortium shows beside the
budgets. A test runs whole federations and compares it with what the participant really answers, field by field, so a
new field cannot leave unlisted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

PLAIN, NOISY, MASKED, PROTOCOL = "plain", "noisy", "masked", "protocol"
MEANING = {
    PLAIN: "as it is; nothing of it is computed from one patient's record",
    NOISY: "with noise, charged to the ledger before it exists",
    MASKED: "with noise, and hidden until enough hospitals' vectors are added up; charged to the ledger",
    PROTOCOL: "keys, shares and signatures made from random numbers",
}


@dataclass(frozen=True)
class Leaving:
    """Something that leaves.

    Attributes:
        what: In the officer's words.
        how: A key of `MEANING`.
        fields: Where it stands, as `call.part.field`, where * is any one name and ** any number of them. Without
            fields it is no field, such as the time of an answer.
    """

    what: str
    how: str
    fields: tuple[str, ...] = ()

    def holds(self, field: str) -> bool:
        """Whether this field is part of it."""
        return any(_pattern(each).fullmatch(field) for each in self.fields)


def _pattern(fields: str) -> re.Pattern[str]:
    written = re.escape(fields).replace(r"\*\*", ".+").replace(r"\*", "[^.]+")
    return re.compile(written)


_SIGNED = ("join.acceptance", "round.receipt", "evaluate.metrics")
_STAMP = ("type", "consortium", "time", "site", "run_id", "round", "plan_hash", "version_in", "version")
_UNMASK = ("self_mask_shares", "mask_key_shares", "unreadable.*", "next_round", "next_mask_key", "next_shares")

LEAVES: tuple[Leaving, ...] = (
    Leaving(
        "that this hospital takes part, in which run, round and version, and the time on what it signs",
        PLAIN,
        (
            *(f"{each}.statement.{name}" for each in _SIGNED for name in _STAMP),
            *(f"*.secagg.{name}" for name in ("type", "version", "site", "round")),
            *("alive.run_id", "join.last_round", "evaluate.metrics.statement.predecessor"),
        ),
    ),
    Leaving(
        "that it does not take part, or could not answer, with a code and a reason that quotes no record",
        PLAIN,
        ("error.code", "error.detail", "error.refusal.**"),
    ),
    Leaving(
        "the digest of the data set's manifest",
        PLAIN,
        ("join.acceptance.statement.manifest", "round.receipt.statement.manifest"),
    ),
    Leaving(
        "about the data set (`zegel site manifest`): admissions and patients where at least 10, first and last year",
        PLAIN,
        ("manifest.**",),
    ),
    Leaving(
        "the ledger's head (a hash) and the epsilon reserved, which is the plan's",
        PLAIN,
        (
            *(f"{each}.statement.ledger_head" for each in _SIGNED),
            "finish.ledger_head",
            "join.acceptance.statement.epsilon_reserved",
        ),
    ),
    Leaving(
        "the privacy budgets its officer set, and how much of each is spent and reserved",
        PLAIN,
        ("join.acceptance.statement.budgets.**", "evaluate.metrics.statement.budgets.**"),
    ),
    Leaving(
        "the plan's own words on what was done: event, noise, epsilon, delta, which side of the split",
        PLAIN,
        (
            "round.receipt.statement.privacy_event.*",
            "evaluate.metrics.statement.mechanism.**",
            "evaluate.metrics.statement.cohort.*",
        ),
    ),
    Leaving(
        "the digest of the hospital's certificate, and its signatures",
        PLAIN,
        tuple(f"{each}.{name}" for each in _SIGNED for name in ("certificate", "signature")),
    ),
    Leaving(
        "as a witness of the log: the witness's key, and cosignatures or refusals with the size it saw last",
        PLAIN,
        ("join.enrolment.**", "cosign.answer.*"),
    ),
    Leaving("when answers arrive: how long a step took depends on how many patients were drawn", PLAIN),
    Leaving(
        "sums over drawn patients of a round, and a digest of what was sent",
        MASKED,
        ("round.secagg.vector", "round.receipt.statement.masked_upload"),
    ),
    Leaving("how good a version is: counts on the test patients", NOISY, ("evaluate.metrics.statement.values.*.*",)),
    Leaving(
        "counts per code, if the officer releases them (`zegel site label-counts`)", NOISY, ("label-counts.counts.*",)
    ),
    Leaving(
        "secure aggregation: public keys, sealed shares, revealed shares of masks, who survived a round",
        PROTOCOL,
        (
            *("announce.secagg.channel_key", "announce.secagg.mask_key", "share_keys.secagg.shares"),
            *("round.secagg.commitment", "round.secagg.shares", "survivors.secagg.signature"),
            *(f"unmask.secagg.{name}" for name in _UNMASK),
        ),
    ),
)
"""Everything that leaves. Each field of each message is held by exactly one entry."""
