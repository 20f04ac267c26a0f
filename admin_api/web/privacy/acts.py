"""What is signed about privacy: that somebody stands for an empirical audit's report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from admin_api.gate_setting import MAX_REPORT_BYTES, log_audit_report, read_report
from admin_api.signing import Signer
from admin_api.web.acts import Act, Words
from admin_api.web.context import Viewer, Workplace
from admin_api.web.language import _, current


class LogAudit(BaseModel):
    """Log the report of an empirical privacy audit, and stand for it."""

    model_config = ConfigDict(extra="forbid")

    report: str = Field(
        min_length=2, max_length=MAX_REPORT_BYTES, description="what `zegel privacy audit --json` wrote, unchanged"
    )


def _words(here: Workplace, viewer: Viewer, given: LogAudit) -> Words:
    fields = read_report(given.report.encode(), _("the report"), here.now())
    said = current()
    found = (
        _("Every test passed: nothing refutes the claims.")
        if fields["passed"]
        else _("A test failed: a claim about privacy is refuted.")
    )
    return Words(
        title=_("Log a privacy audit"),
        sentences=[
            _(
                "%(software)s was audited on %(when)s.",
                software=fields["software"], when=said.moment(fields["audited_at"]),
            ),
            found,
            _(
                "Nearest to its claim: epsilon %(claim)s was claimed, the attack proved at least %(bound)s.",
                claim=said.epsilon(fields["claim"]), bound=said.epsilon(fields["lower_bound"]),
            ),
        ],
        if_signed=_("The log says for ever that you stand for this report; gates on audits count it from now on."),
        if_not=_("Nothing is logged."),
        back="/privacy",
    )  # fmt: skip


def _perform(here: Workplace, signer: Signer, given: LogAudit) -> Mapping[str, Any]:
    return log_audit_report(here.home, given.report.encode(), "the report", signer)


LOG_AUDIT = Act("privacy-audit", LogAudit, _words, _perform)
