"""The ledger's summary as lines of text, for the officer at a terminal or in a file."""

from __future__ import annotations

from privacy.ledger_summary import CohortSummary, LedgerSummary, RunSummary


def report_lines(summary: LedgerSummary) -> list[str]:
    """The summary as lines without line ends; every number with its delta and its accountant."""
    lines = [
        f"Privacy ledger of {summary.site}",
        f"  unit: {summary.unit}; neighbours: {summary.neighboring_relation}",
        f"  {summary.rows} rows, head {summary.head}",
        f"  reported by {summary.accountant}",
        f"  admitted by {summary.admission}",
    ]
    if not summary.cohorts:
        lines += ["", "No budget is set: nothing can be spent. The officer sets one for each cohort."]
    for cohort in summary.cohorts:
        lines += ["", *_cohort_lines(cohort)]
    return lines


def _cohort_lines(cohort: CohortSummary) -> list[str]:
    budget = cohort.budget
    lines = [
        f"Cohort {cohort.cohort}: budget epsilon {budget.epsilon:g} at delta {budget.delta:g}",
        f"  set by {budget.officer} on {budget.time}: {budget.reason}",
        f"  spent     epsilon {cohort.spent:.4f}   ({cohort.spent_rdp:.4f} as admission counts it)",
        f"  reserved  epsilon {cohort.reserved_rdp:.4f} more",
        f"  left      epsilon {cohort.left:.4f}",
    ]
    if cohort.history_lost:
        lines.append("  The ledger's history was lost once: more may have been spent than is known.")
    if cohort.suspended:
        lines.append("  The budget is suspended until the officer sets it again.")
    return lines + [_run_line(run) for run in cohort.runs]


def _run_line(run: RunSummary) -> str:
    state = "open" if run.is_open else "closed"
    return (
        f"  {run.run_id}  {state}  {run.committed} of {run.reserved} committed  "
        f"epsilon {run.epsilon_rdp:.4f} alone  plan {run.plan_hash[:19]}"
    )
