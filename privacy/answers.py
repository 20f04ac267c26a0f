"""Answers of the accountants that are kept on disk, because they take seconds.

Invariants:
- The cache only saves time. It is never read for admission: the ledger prices events by itself.
- A file names the question and the accountants it answers; anything else in its place is computed again.
- Public parameters only: neither questions nor answers come from data.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import rfc8785

from privacy import accounting

Progress: TypeAlias = Callable[[str], None]
"""Told in a few words what is being computed, for whoever waits."""


def in_silence(doing: str) -> None:
    """The progress nobody watches."""


def remembered(
    cache_dir: Path | None, question: dict[str, Any], compute: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """`compute()`, or what it gave for the same question to the same accountants earlier.

    Args:
        cache_dir: Folder in which answers are kept, made if missing; None keeps nothing.
        question: All that the answer depends on, as JSON.
        compute: Gives the answer, as JSON.
    """
    if cache_dir is None:
        return compute()
    asked = {**question, "accountants": [accounting.accountant(), accounting.admission_accountant()]}
    path = cache_dir / f"{hashlib.sha256(rfc8785.dumps(asked)).hexdigest()}.json"
    if path.exists():
        try:
            kept = json.loads(path.read_bytes())
        except ValueError:
            kept = None  # cut short by a crash or a full disk: compute again and replace it
        if isinstance(kept, dict) and kept.get("asked") == asked and isinstance(kept.get("answer"), dict):
            return dict(kept["answer"])
    answer = compute()
    cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=cache_dir, suffix=".part", delete=False) as part:
        part.write(rfc8785.dumps({"asked": asked, "answer": answer}))
    os.replace(part.name, path)  # noqa: PTH105 - several processes may write the same answer at once
    return answer
