"""The software record: which code and which installed packages stood behind a release's proposal.

Made on the consortium's machine when the release is proposed (`admin_api.dossier_documents.software`). It is a claim
of whoever proposes, bound by the approvals; anybody with the same package can compute `source` again.

All fields are public.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from audit import schema
from audit.canonical import canonical_json, parse_json_object
from audit.errors import CanonicalError, DocumentError, EntryError

SCHEMA = "zegel/software/v1"


@dataclass(frozen=True, kw_only=True)
class Software:
    """Code and packages, by version and digest."""

    version: str  # of the package zegel
    source: str  # digest over the names and digests of all its Python files
    commit: str | None  # of the source repository, when run from one
    record: str | None  # digest of the installed wheel's RECORD
    constraints: str | None  # digest of constraints.txt, when run from a source tree
    python: str
    packages: tuple[tuple[str, str], ...]  # (name, version) of everything installed beside it, sorted

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        packages: list[dict[str, Any]] = [{"name": name, "version": version} for name, version in self.packages]
        return canonical_json(
            {
                "schema": SCHEMA,
                "version": self.version,
                "source": self.source,
                "commit": self.commit,
                "record": self.record,
                "constraints": self.constraints,
                "python": self.python,
                "packages": packages,
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Software:
        """Reads canonical bytes; raises DocumentError for any other form."""
        try:
            value = parse_json_object(data, "software record")
            _SOFTWARE(value, "software record")
        except (CanonicalError, EntryError) as error:
            raise DocumentError(str(error)) from error
        packages = tuple((item["name"], item["version"]) for item in value["packages"])
        if list(packages) != sorted(set(packages)):
            raise DocumentError("software record: expected packages sorted by name, each once")
        return cls(
            version=value["version"],
            source=value["source"],
            commit=value["commit"],
            record=value["record"],
            constraints=value["constraints"],
            python=value["python"],
            packages=packages,
        )


_SOFTWARE = schema.fields_of(
    {
        "schema": schema.one_of(SCHEMA),
        "version": schema.name,
        "source": schema.digest,
        "commit": schema.nullable(schema.name),
        "record": schema.nullable(schema.digest),
        "constraints": schema.nullable(schema.digest),
        "python": schema.name,
        "packages": schema.list_of(schema.fields_of({"name": schema.name, "version": schema.name}, further=False)),
    },
    further=False,
)
