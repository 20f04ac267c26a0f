"""The one plain statement about data that leaves a hospital; everything that leaves is listed in `jobs.leaves`.

In the signed statement about a data set, counts below the hospital's minimum, which is never below the log's, are
left out; the period is given in years.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from audit.canonical import digest_of, format_time
from audit.schema import MIN_COUNT
from audit.statement import DATA_MANIFEST, sign_statement
from site_packages.dataset import MANIFEST_NAME, current_dataset
from site_packages.manifest import parse_manifest

if TYPE_CHECKING:
    from site_packages.home import SiteHome


def data_statement(home: SiteHome) -> dict[str, Any]:
    """The signed statement, as JSON. Raises DataError when no data set is imported."""
    from site_packages.home import utc_now

    identity = home.identity()
    raw = (current_dataset(home.path) / MANIFEST_NAME).read_bytes()
    manifest = parse_manifest(raw)
    smallest = max(home.limits().minimum_plain_count, MIN_COUNT)
    statement = {
        "type": DATA_MANIFEST,
        "consortium": identity.consortium,
        "time": format_time(utc_now()),
        "site": identity.name,
        "manifest": digest_of(raw),
        "admissions": manifest.admissions if manifest.admissions >= smallest else None,
        "patients": manifest.patients if manifest.patients >= smallest else None,
        "period_first": str(manifest.period_first)[:4],
        "period_last": str(manifest.period_last)[:4],
    }
    return sign_statement(statement, home.signing_key(), home.certificate()).to_json()
