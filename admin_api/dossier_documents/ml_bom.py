"""The bill of materials held against CycloneDX's own schema, before anybody approves it."""

from __future__ import annotations

import json

from admin_api.errors import ReleaseRefused

_SHOWN = 500  # characters of a schema error


def check_ml_bom(document: bytes) -> None:
    """Raises ReleaseRefused unless `document` is strict CycloneDX 1.6."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.spdx import is_expression
    from cyclonedx.validation.json import JsonStrictValidator

    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(document.decode("utf-8"))
    if error is not None:
        raise ReleaseRefused(f"the bill of materials does not follow CycloneDX 1.6: {str(error.data)[:_SHOWN]}")
    for licence in json.loads(document)["metadata"]["component"].get("licenses", ()):
        if "expression" in licence and not is_expression(licence["expression"]):
            raise ReleaseRefused(
                f"release notes: licence: expected an SPDX identifier or expression such as Apache-2.0, or LicenseRef- "
                f"and a name of your own, got {licence['expression']!r}"
            )
