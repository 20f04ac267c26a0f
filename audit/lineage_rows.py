"""From an entry to its lineage rows: what it says about versions, runs, rounds, hospitals, metrics and releases.

Invariants:
- Rows follow from the entry's index and bytes alone: whoever holds the entries can derive them all again, and
  `zegel audit check` does.
- Every valid entry has its rows; a kind that says nothing about lineage has none. Nothing is judged here: an
  entry that contradicts another still has its rows, and `audit.trace` refuses it.
- Rows hold names, digests and numbers only, so any database stores them exactly.

A change of these rules is a new number in `RULES`: opening the log then derives all rows anew.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from audit.entry import Entry
from audit.errors import CorruptLogError, EntryError
from audit.lineage_tables import lineage_tables
from audit.statement import SignedStatement
from audit.tables import ENTRIES

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from audit.database import Database, Row

RULES = "1"
ASKED, ACCEPTED, REFUSED = "asked", "accepted", "refused"
STARTED, FINISHED = "started", "finished"
COMPLETED, ABORTED = "completed", "aborted"
TOOK_PART, DROPPED, RECEIPT_ONLY = "took part", "dropped", "receipt only"
CANDIDATE, CERTIFIED, SUPERSEDED, WITHDRAWN = ("candidate", "certified", "superseded", "withdrawn")

TABLES = {table.name: table for table in lineage_tables()}
LineageRows = Mapping[str, list["Row"]]  # by the table's name, each in the order of the table's columns
_BATCH = 1000  # entries derived at a time when all rows are made anew


def rows_of(index: int, entry: Entry) -> LineageRows:
    """The rows that entry `index` adds, by table; empty for a kind without any."""
    derive = _DERIVATIONS.get(entry.kind)
    return {} if derive is None else derive(index, entry.body)


def rebuild(database: Database, connection: Connection) -> None:
    """Empties the lineage tables and fills them from the entries, within a writing transaction."""
    for table in TABLES.values():
        connection.execute(table.delete())
    following = 0
    while True:
        query = select(ENTRIES.c.index, ENTRIES.c.data).where(ENTRIES.c.index >= following)
        batch = connection.execute(query.order_by(ENTRIES.c.index).limit(_BATCH)).all()
        rows: defaultdict[str, list[Row]] = defaultdict(list)
        for index, data in batch:
            try:
                entry = Entry.from_bytes(data)
            except EntryError as error:
                raise CorruptLogError(f"entry {index}: {error}") from error
            for name, added in rows_of(index, entry).items():
                rows[name] += added
        if rows:
            database.insert(connection, {TABLES[name]: added for name, added in rows.items()})
        if len(batch) < _BATCH:
            return
        following = batch[-1][0] + 1


def _run_started(index: int, body: Mapping[str, Any]) -> LineageRows:
    run = (index, body["run_id"], STARTED, body["plan_hash"], body["initial_version"], None, None, None, None)
    return {"lineage_run": [run], "lineage_run_site": [(index, site, body["run_id"], ASKED) for site in body["sites"]]}


def _run_finished(index: int, body: Mapping[str, Any]) -> LineageRows:
    spent = (float(body["epsilon"]), float(body["delta"]), body["accountant"])
    run = (index, body["run_id"], FINISHED, body["plan_hash"], body["version"], body["rounds"], *spent)
    return {"lineage_run": [run]}


def _site_accepted(index: int, body: Mapping[str, Any]) -> LineageRows:
    site = body["acceptance"]["statement"]["site"]
    return {"lineage_run_site": [(index, site, body["run_id"], ACCEPTED)]}


def _site_refused(index: int, body: Mapping[str, Any]) -> LineageRows:
    site = body["refusal"]["statement"]["site"]
    return {"lineage_run_site": [(index, site, body["run_id"], REFUSED)]}


def _round_completed(index: int, body: Mapping[str, Any]) -> LineageRows:
    number = (body["run_id"], body["round"])
    receipts: defaultdict[str, list[str]] = defaultdict(list)
    for receipt in map(SignedStatement.from_json, body["receipts"]):
        receipts[receipt.statement["site"]].append(receipt.digest)
    parts: list[tuple[str, str, str | None]] = []
    for site in body["participants"]:
        found = receipts.get(site)
        parts.append((site, TOOK_PART, found.pop(0) if found else None))
    parts += [(site, DROPPED, None) for site in body["dropped"]]
    # The log's schema lets a receipt stand there that no participant accounts for: it gets a row all the same.
    parts += [(site, RECEIPT_ONLY, digest) for site, left in receipts.items() for digest in left]
    return {
        "lineage_round": [(index, *number, COMPLETED, body["version_in"], body["version_out"])],
        "lineage_participant": [
            (index, position, *number, site, part, digest) for position, (site, part, digest) in enumerate(parts)
        ],
    }


def _round_aborted(index: int, body: Mapping[str, Any]) -> LineageRows:
    number = (body["run_id"], body["round"])
    parts = [(site, TOOK_PART) for site in body["participants"]] + [(site, DROPPED) for site in body["dropped"]]
    return {
        "lineage_round": [(index, *number, ABORTED, None, None)],
        "lineage_participant": [
            (index, position, *number, site, part, None) for position, (site, part) in enumerate(parts)
        ],
    }


def _version_created(index: int, body: Mapping[str, Any]) -> LineageRows:
    version = body["version"]
    first, last = body["rounds"]
    return {
        "lineage_version": [(index, version, body["run_id"], first, last, body["plan_hash"], body["model"])],
        "lineage_parent": [(index, parent, version) for parent in body["parents"]],
    }


def _metrics_reported(index: int, body: Mapping[str, Any]) -> LineageRows:
    about = (body["version"], body["site"])
    return {
        "lineage_metric": [
            (index, name, *about, *map(_real, (cell["value"], cell["lower"], cell["upper"])), cell["value"] is None)
            for name, cell in body["metrics"]["statement"]["values"].items()
        ]
    }


def _release(state: str) -> Callable[[int, Mapping[str, Any]], LineageRows]:
    def derive(index: int, body: Mapping[str, Any]) -> LineageRows:
        return {"lineage_release": [(index, body["release"], state, body.get("version"), body.get("statement"))]}

    return derive


def _real(value: float | None) -> float | None:
    return None if value is None else float(value)


_DERIVATIONS: Mapping[str, Callable[[int, Mapping[str, Any]], LineageRows]] = {
    "run.started": _run_started,
    "run.finished": _run_finished,
    "site.accepted": _site_accepted,
    "site.refused": _site_refused,
    "round.completed": _round_completed,
    "round.aborted": _round_aborted,
    "version.created": _version_created,
    "metrics.reported": _metrics_reported,
    "release.proposed": _release(CANDIDATE),
    "release.certified": _release(CERTIFIED),
    "release.superseded": _release(SUPERSEDED),
    "release.withdrawn": _release(WITHDRAWN),
}
