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
        "             to report   for admission",
        f"  spent      {cohort.spent:9.4f}   {cohort.spent_rdp:13.4f}",
        f"  reserved   {cohort.reserved:+9.4f}   {cohort.reserved_rdp:+13.4f}",
        f"  left                   {cohort.left:13.4f}   of the budget",
    ]
    if "PLD" not in cohort.accountant:
        lines.append(f"  reported by {cohort.accountant}")
    if cohort.history_lost:
        lines.append("  The ledger's history was lost once: more may have been spent than is known.")
    if cohort.suspended:
        lines.append("  The budget is suspended until the officer sets it again.")
    return lines + [line for run in cohort.runs for line in _run_lines(run)]


def _run_lines(run: RunSummary) -> list[str]:
    state = "open" if run.is_open else "closed"
    held = f", holds {run.held_rdp:.4f} more" if run.is_open else ""
    return [
        f"  {run.run_id}  {state}  plan {run.plan_hash[:19]}",
        f"    alone      {run.epsilon:9.4f}   {run.epsilon_rdp:13.4f}{held}",
        *(f"    {line}" for line in run.events),
    ]
