"""Which of the log's entries and certificates bear on a release."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from audit.entry import (
    APPROVAL_GIVEN,
    CERTIFICATE_ISSUED,
    CONSORTIUM_FOUNDED,
    METRICS_REPORTED,
    PLAN_PROPOSED,
    RUN_STARTED,
    SITE_MANIFEST,
    VERSION_CREATED,
    Entry,
)
from audit.register import REGISTER_KINDS
from audit.release import ReleaseStatement

Indexed = tuple[int, Entry]


def entries_bearing_on(
    entries: Sequence[Indexed], statement: ReleaseStatement, digest: str
) -> tuple[list[Indexed], set[str]]:
    """The entries a verifier needs, in log order, and the hashes of the plans they rest on.

    `digest` is the statement's. Besides what happened in the run and those it grew out of, decisions
    against the plans and the release, and later metrics of the version are included, and all of the register
    (`audit.register`): a dossier shows what speaks against it too.
    """
    run_ids, plan_hashes = lineage(entries, statement.version)
    manifests = {
        value
        for _, entry in entries
        if entry.body.get("run_id") in run_ids
        for value in _values_of(entry.body, "manifest")
        if isinstance(value, str)
    }
    subjects = plan_hashes | {digest}
    selected = [
        (index, entry)
        for index, entry in entries
        if entry.kind == CONSORTIUM_FOUNDED
        or entry.body.get("run_id") in run_ids
        or (entry.kind == PLAN_PROPOSED and entry.body["plan_hash"] in plan_hashes)
        or (entry.kind == APPROVAL_GIVEN and _bears(entry.signed("approval").statement["subject"], subjects))
        or (entry.kind == SITE_MANIFEST and entry.signed("manifest").statement["manifest"] in manifests)
        or (entry.kind == METRICS_REPORTED and entry.body["version"] == statement.version)
        or entry.kind in REGISTER_KINDS
    ]
    used = certificates_used(selected, statement)
    selected += [
        (index, entry) for index, entry in entries if entry.kind == CERTIFICATE_ISSUED and entry.body["digest"] in used
    ]
    return sorted(selected, key=lambda item: item[0]), plan_hashes


def certificates_used(entries: Iterable[Indexed], statement: ReleaseStatement) -> set[str]:
    """Digests of the certificates that signed or proposed something in these entries, or proposed the
    release.
    """
    used = {statement.proposer}
    for _, entry in entries:
        if entry.kind not in (CERTIFICATE_ISSUED, CONSORTIUM_FOUNDED):
            used.update(value for value in _values_of(entry.body, "certificate") if isinstance(value, str))
    return used


def _bears(subject: Mapping[str, str], subjects: set[str]) -> bool:
    return subject["kind"] == "withdrawal" or subject["digest"] in subjects


def lineage(entries: Sequence[Indexed], version: str) -> tuple[set[str], set[str]]:
    """The ids of the runs that led to a version and the hashes of their plans, as far as the entries reach."""
    run_ids: set[str] = set()
    plan_hashes: set[str] = set()
    created = {entry.body["version"]: entry for _, entry in entries if entry.kind == VERSION_CREATED}
    started = {entry.body["run_id"]: entry for _, entry in entries if entry.kind == RUN_STARTED}
    wanted: str | None = version
    while wanted in created:
        run_id = created[wanted].body["run_id"]
        start = started.get(run_id)
        if run_id in run_ids or start is None:
            break
        run_ids.add(run_id)
        plan_hashes.add(start.body["plan_hash"])
        wanted = start.body["initial_version"]
    return run_ids, plan_hashes


def _values_of(value: Any, key: str) -> Iterator[Any]:
    """Every value stored under `key`, at whatever depth."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name == key:
                yield item
            yield from _values_of(item, key)
    elif isinstance(value, list):
        for item in value:
            yield from _values_of(item, key)
