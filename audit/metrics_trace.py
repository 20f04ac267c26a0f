"""What hospitals reported about a version, rebuilt from the log.

The first report of a hospital about a run's version counts, whatever it says. Figures carry fresh noise each time
they are asked for; whoever could choose among reports would choose the luckiest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from audit.entry import METRICS_REPORTED
from audit.errors import TraceError
from audit.evidence import Evidence
from audit.run_trace import RunTrace
from audit.statement import METRICS


@dataclass(frozen=True)
class MetricsTrace:
    """What one hospital reported about the version."""

    index: int
    site: str
    organisation: str
    digest: str  # of the signed statement
    cohort: Any
    values: Mapping[str, Mapping[str, Any]]  # by metric: value, lower, upper
    mechanism: Mapping[str, Any]


def trace_metrics(evidence: Evidence, run: RunTrace, *, before: int) -> tuple[MetricsTrace, ...]:
    """The first report of each evaluating hospital about the run's version among the entries before `before`.

    In the order of the hospitals' names. Raises TraceError for a report that its hospital did not sign, of another
    version or run, or by a hospital the plan does not let evaluate.
    """
    traces: dict[str, MetricsTrace] = {}
    for found in evidence.of_kind(METRICS_REPORTED, version=run.version):
        signed = found.entry.signed("metrics")
        site = found.body["site"]
        if found.index >= before or site in traces or signed.statement["run_id"] != run.run_id:
            continue  # another run may have led to the same version, and says nothing about this one
        identity = evidence.verify_site(found, signed, METRICS, site)
        found.expect("version", run.version, signed.statement["version"])
        if site not in run.plan.evaluation_sites:
            raise TraceError(f"{found}: metrics of {site}, which the plan does not name as evaluating")
        traces[site] = MetricsTrace(
            index=found.index,
            site=site,
            organisation=identity.organisation,
            digest=signed.digest,
            cohort=signed.statement["cohort"],
            values=signed.statement["values"],
            mechanism=signed.statement["mechanism"],
        )
    return tuple(traces[site] for site in sorted(traces))
