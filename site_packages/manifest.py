"""The manifest of a local data set: what it holds, without a word of what is in it.

The manifest is canonical JSON (RFC 8785), so its digest names the data set: two imports of the same tables
under the same code table give the same bytes. It therefore holds no time, no path and no machine name. Its
counts are exact and stay at the hospital; whoever publishes a part of it suppresses small cells first.

Invariants:
- `data` is the digest of the Parquet file beside the manifest;
- `admissions` is the sum of `categories`;
- `synthetic` is true as soon as one letter says it is synthetic.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import rfc8785

from audit.canonical import digest_of
from site_packages.errors import ManifestError

MANIFEST_NAME = "manifest.json"
SCHEMA = "zegel/data-manifest/v1"
IMPORTER = "zegel-dhd-import/1"  # raise the number when the same tables would give another data set

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class Manifest:
    """What one local data set holds."""

    synthetic: bool
    site: str
    data: str  # digest of admissions.parquet
    admissions: int
    patients: int
    letters: int
    rejected: Mapping[str, Mapping[str, int]]  # table -> reason -> rows
    period_first: date  # first admission date
    period_last: date  # last admission date
    code_table: str
    code_table_digest: str
    categories: Mapping[str, int]  # three-character category -> admissions
    importer: str = IMPORTER

    def to_json(self) -> dict[str, Any]:
        """The manifest as the JSON object that is stored and hashed."""
        return {
            "schema": SCHEMA,
            "synthetic": self.synthetic,
            "site": self.site,
            "data": self.data,
            "admissions": self.admissions,
            "patients": self.patients,
            "letters": self.letters,
            "rejected": {table: dict(reasons) for table, reasons in self.rejected.items()},
            "period_first": self.period_first.isoformat(),
            "period_last": self.period_last.isoformat(),
            "code_table": {"name": self.code_table, "digest": self.code_table_digest},
            "categories": dict(self.categories),
            "importer": self.importer,
        }

    def canonical(self) -> bytes:
        """The manifest's canonical bytes."""
        return rfc8785.dumps(self.to_json())

    @property
    def digest(self) -> str:
        """Digest of the canonical bytes: what receipts and `site.manifest` entries name."""
        return digest_of(self.canonical())

    @property
    def dataset_id(self) -> str:
        """Name of the data set's folder: `data-` and the first 16 hex digits of the manifest's digest."""
        return "data-" + self.digest.removeprefix("sha256:")[:16]


def parse_manifest(content: bytes) -> Manifest:
    """Read a manifest from its bytes.

    Raises:
        ManifestError: not canonical JSON, another schema, or a field missing or of the wrong form.
    """
    try:
        raw = json.loads(content)
    except (UnicodeDecodeError, ValueError) as error:
        raise ManifestError(f"the data manifest is not JSON: {error}; import the tables again") from error
    if not isinstance(raw, dict):
        raise ManifestError("the data manifest is not a JSON object; import the tables again")
    if raw.get("schema") != SCHEMA:
        raise ManifestError(
            f"the data manifest's schema is {raw.get('schema')!r}, expected {SCHEMA!r}; "
            "import the tables again with this version of Zegel"
        )
    try:
        manifest = Manifest(
            synthetic=_flag(raw, "synthetic"),
            site=_text(raw, "site"),
            data=_digest(raw, "data"),
            admissions=_count(raw, "admissions"),
            patients=_count(raw, "patients"),
            letters=_count(raw, "letters"),
            rejected={table: _counts(reasons, table) for table, reasons in raw["rejected"].items()},
            period_first=date.fromisoformat(_text(raw, "period_first")),
            period_last=date.fromisoformat(_text(raw, "period_last")),
            code_table=_text(raw["code_table"], "name"),
            code_table_digest=_digest(raw["code_table"], "digest"),
            categories=_counts(raw["categories"], "categories"),
            importer=_text(raw, "importer"),
        )
    except KeyError as error:
        raise ManifestError(f"the data manifest lacks the field {error}; import the tables again") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise ManifestError(f"the data manifest has a field of the wrong form: {error}") from error
    if sum(manifest.categories.values()) != manifest.admissions:
        raise ManifestError(
            f"the data manifest counts {manifest.admissions} admissions, but its categories add up to "
            f"{sum(manifest.categories.values())}"
        )
    if manifest.canonical() != content:
        raise ManifestError("the data manifest is not in canonical form (RFC 8785); it was edited after import")
    return manifest


def _text(raw: Mapping[str, Any], field: str) -> str:
    value = raw[field]
    if not isinstance(value, str):
        raise TypeError(f"{field} must be text, got {value!r}")
    return value


def _digest(raw: Mapping[str, Any], field: str) -> str:
    value = _text(raw, field)
    if not _DIGEST.match(value):
        raise ValueError(f"{field} must be sha256:<64 hex digits>, got {value!r}")
    return value


def _flag(raw: Mapping[str, Any], field: str) -> bool:
    value = raw[field]
    if not isinstance(value, bool):
        raise TypeError(f"{field} must be true or false, got {value!r}")
    return value


def _count(raw: Mapping[str, Any], field: str) -> int:
    value = raw[field]
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"{field} must be a count, got {value!r}")
    return value


def _counts(raw: Mapping[str, Any], field: str) -> dict[str, int]:
    if not isinstance(raw, dict):
        raise TypeError(f"{field} must be an object of counts, got {raw!r}")
    return {key: _count(raw, key) for key in raw}
