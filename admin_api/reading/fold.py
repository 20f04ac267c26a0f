"""One entry on its way into the read model: what it says, and the rows it may change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from admin_api.reading.rows import Rows
from admin_api.reading.tables import CertificateRow, HospitalRow
from audit.canonical import DIGEST_PREFIX, canonical_json
from audit.certificates import CLIENT, PEOPLE
from audit.entry import (
    ACCESS_ENDED,
    ACCESS_GRANTED,
    ACCESS_REFUSED,
    METRICS_REPORTED,
    ROUND_ABORTED,
    ROUND_COMPLETED,
    SITE_ACCEPTED,
)

SITE, RUN, RELEASE, VERSION, PLAN = "site", "run", "release", "version", "plan"
PERSON, CERTIFICATE, MANIFEST, STATEMENT, REQUEST = "person", "certificate", "manifest", "statement", "request"
NEWS = "news"  # one subject without a name: every entry that is not of a frequent kind
FREQUENT = frozenset(
    {
        ACCESS_ENDED,
        ACCESS_GRANTED,
        ACCESS_REFUSED,
        METRICS_REPORTED,
        ROUND_ABORTED,
        ROUND_COMPLETED,
        SITE_ACCEPTED,
    }
)


@dataclass
class Fold:
    """An entry that the log admitted; nothing of it is verified again.

    `plan_text` gives a plan's bytes by hash, None when they are not kept here. `mentioned` gathers what the entry is
    about: pairs of what it is and its name, each once, in the order of mention.
    """

    rows: Rows
    index: int
    time: str
    kind: str
    body: Mapping[str, Any]
    plan_text: Callable[[str], bytes | None]
    mentioned: dict[tuple[str, str], None] = field(default_factory=dict)

    def mention(self, what: str, *names: str) -> None:
        """The entry is about these."""
        for name in names:
            self.mentioned[what, name] = None

    def signer(self, certificate: str) -> None:
        """The entry holds a statement signed with this certificate; its holder is mentioned."""
        row = self.rows.look(CertificateRow, certificate)
        if row is not None:
            self.holder(row["role"], row["holder"])

    def holder(self, role: str, name: str) -> None:
        """The entry is about the holder of a certificate; the consortium's own machines are not looked for."""
        if role in PEOPLE:
            self.mention(PERSON, name)
        elif role == CLIENT:
            self.mention(SITE, name)

    def hospital(self, site: str) -> dict[str, Any]:
        """The hospital's row, to be changed. This entry is then the last about it."""
        row = self.rows.change(HospitalRow, site)
        if row is None:
            counts = dict.fromkeys(("manifests", "asked", "accepted", "refused", "rounds", "dropped", "reports"), 0)
            row = self.rows.put(
                HospitalRow,
                site=site,
                folded=site.casefold(),
                organisation="",
                entry=self.index,
                time=self.time,
                last_entry=self.index,
                last_time=self.time,
                spent=0.0,
                reserved=0.0,
                **counts,
            )
        row["last_entry"], row["last_time"] = self.index, self.time
        self.mention(SITE, site)
        return row


def folded_name(name: str) -> str:
    """How a name is looked for: a digest by its hexadecimal digits, anything else without regard to case."""
    return name.removeprefix(DIGEST_PREFIX) if name.startswith(DIGEST_PREFIX) else name.casefold()


def listed(values: Iterable[Any]) -> str:
    """A list as the tables keep it."""
    return json.dumps(list(values), separators=(",", ":"), ensure_ascii=False)


def signed_digest(signed: Mapping[str, Any]) -> str:
    """The digest by which others refer to a signed statement in an entry's body (`SignedStatement.digest`)."""
    return DIGEST_PREFIX + hashlib.sha256(canonical_json(dict(signed))).hexdigest()
