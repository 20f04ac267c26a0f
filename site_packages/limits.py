"""What a hospital allows at most, whatever a plan asks: `limits.json`, set by the hospital alone."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from site_packages.errors import SitePackagesError

TRAINING, VALIDATION = "training", "validation"  # the cohorts a hospital's officer gives budgets to


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What this hospital allows at most. Kept in `limits.json`, set by the hospital alone."""

    minimum_sites: int = 3  # training hospitals in a plan
    maximum_rounds: int = 500
    maximum_l2_clip_norm: float = 10.0
    minimum_noise_multiplier: float = 0.3  # of the opened sums; of its own noise where a plan's noise is local
    maximum_delta: float = 1e-4
    # Of a plan, if the server and all other hospitals work together; null: the budget alone decides.
    maximum_epsilon_against_everyone: float | None = None
    tasks: tuple[str, ...] = ("icd_coding",)
    encoders: tuple[str, ...] = ("hashed-ngrams",)
    minimum_plain_count: int = 10  # smaller counts are left out of what is published
    data_is_public: bool = False  # true for synthetic or published data only: lets plans without noise pass

    @classmethod
    def read(cls, path: Path) -> Limits:
        """Read `limits.json`. Raises SitePackagesError naming what is wrong: wrong limits must not mean no limits."""
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SitePackagesError(f"{path} cannot be read ({error}); without limits nothing runs") from None
        names = {field.name for field in fields(cls)}
        if not isinstance(value, dict):
            raise SitePackagesError(
                f"{path}: expected exactly the fields {', '.join(sorted(names))} in one JSON object"
            )
        if set(value) != names:
            usual = {field.name: field.default for field in fields(cls)}
            missing = [f"{name} (usually {json.dumps(usual[name])})" for name in sorted(names - set(value))]
            raise SitePackagesError(
                f"{path}: expected exactly the fields {', '.join(sorted(names))}"
                + (f"; missing: {', '.join(missing)}" if missing else "")
                + (f"; unknown: {', '.join(sorted(set(value) - names))}" if set(value) - names else "")
            )
        for field in fields(cls):
            given, default = value[field.name], field.default
            if default is None and given is None:
                continue
            if isinstance(default, tuple):
                if not isinstance(given, list) or not all(isinstance(item, str) for item in given):
                    raise SitePackagesError(f"{path}: {field.name} must be a list of names")
                value[field.name] = tuple(given)
            elif isinstance(default, bool):
                if not isinstance(given, bool):
                    raise SitePackagesError(f"{path}: {field.name} must be true or false, got {given!r}")
            elif isinstance(default, int):
                if isinstance(given, bool) or not isinstance(given, int) or given < 0:
                    raise SitePackagesError(f"{path}: {field.name} must be a whole number, not negative, got {given!r}")
            elif (
                isinstance(given, bool) or not isinstance(given, (int, float)) or not math.isfinite(given) or given < 0
            ):
                raise SitePackagesError(f"{path}: {field.name} must be a number, not negative, got {given!r}")
        return cls(**value)

    def write(self, path: Path) -> None:
        """Write `limits.json`, readable by the hospital only."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        path.chmod(0o600)
