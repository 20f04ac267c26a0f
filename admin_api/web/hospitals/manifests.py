"""A hospital's signed data manifest, sent in: checked and logged as `zegel consortium manifest` does."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from admin_api.errors import OnboardingError
from admin_api.onboarding import MAX_REQUEST_BYTES, log_manifest
from admin_api.web.context import Workplace
from admin_api.web.language import N_
from admin_api.web.problems import Problem


def log_sent_manifest(here: Workplace, site: str, data: bytes) -> Mapping[str, Any]:
    """Check the statement and log it. Returns: what it says.

    Raises: Problem 422 for what is no signed statement of this hospital about its data.
    """
    if len(data) > MAX_REQUEST_BYTES:
        raise _problem(f"{len(data)} bytes are more than any statement has ({MAX_REQUEST_BYTES})")
    try:
        about = json.loads(data)["statement"]["site"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _problem("the file holds no signed statement about a hospital's data") from None
    if about != site:
        raise _problem(f"the statement is about {str(about)[:100]!r}, this is the page of {site}")
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "manifest.json")
        path.write_bytes(data)
        try:
            signed = log_manifest(here.home, path)
        except OnboardingError as error:
            raise _problem(str(error).replace(str(path), "the statement")) from None
    here.reading.follow()
    return signed.statement


def _problem(detail: str) -> Problem:
    return Problem(422, "not-a-manifest", N_("Not a data manifest"), detail,
                   N_("send the file that `zegel site manifest` made at the hospital, unchanged"))  # fmt: skip
