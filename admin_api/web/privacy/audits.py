"""The empirical privacy audit: what its last run found, as its signed report says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from admin_api.reading import releases
from admin_api.web.context import Workplace
from admin_api.web.problems import not_found
from audit.errors import ArtifactError

SCHEMA = "zegel/privacy-audit/v1"


class AuditLine(BaseModel):
    """An audit that somebody stands for with their signature."""

    model_config = ConfigDict(from_attributes=True)

    entry: int
    time: datetime
    audited_at: datetime
    report: str = Field(description="digest of the report, an artifact")
    software: str
    claim: float = Field(description="the epsilon that the configuration nearest to its claim states")
    lower_bound: float = Field(description="the epsilon that the attack proves at least")
    delta: float
    passed: bool
    quick: bool = Field(description="a short audit, with fewer canaries")
    by_name: str


class AuditCheck(BaseModel):
    """One direct test of what was released."""

    model_config = ConfigDict(extra="ignore")

    name: str
    passed: bool
    measured: float
    claimed: float = Field(description="what the claim says of it")
    lower: float | None = None
    upper: float | None = None
    detail: str = ""


class AuditConfiguration(BaseModel):
    """One configuration of the training, attacked."""

    model_config = ConfigDict(extra="ignore")

    name: str
    description: str = ""
    estimator: str = ""
    noise_mode: str = ""
    epsilon: float
    delta: float
    canaries: int
    guesses: int
    correct: int
    lower_bound: float
    checks: list[AuditCheck]

    @property
    def passed(self) -> bool:
        """Whether nothing refutes it."""
        return all(check.passed for check in self.checks)


class AuditReport(AuditLine):
    """An audit with what each configuration showed."""

    confidence: float | None
    false_alarm: float | None
    configurations: list[AuditConfiguration]


def report(here: Workplace, line: releases.PrivacyAudit) -> AuditReport:
    """The report behind a line. Raises Problem 404 when its text is not kept here or cannot be read."""
    try:
        value: Mapping[str, Any] = json.loads(here.home.artifacts().get(line.report))
        configurations = [AuditConfiguration.model_validate(each) for each in value["configurations"]]
    except (ArtifactError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise not_found(f"the report {line.report} cannot be read here ({type(error).__name__})") from None
    return AuditReport(
        **AuditLine.model_validate(line).model_dump(),
        confidence=value.get("confidence"),
        false_alarm=value.get("false_alarm"),
        configurations=configurations,
    )


def find(here: Workplace, digest: str) -> releases.PrivacyAudit:
    """The newest audit with this report. Raises Problem 404."""
    after: str | None = None
    while True:
        piece = releases.audits(here.reading, limit=200, after=after)
        for line in piece.items:
            if line.report == digest:
                return line
        if piece.after is None:
            raise not_found(f"no audit with the report {digest} is logged")
        after = piece.after
