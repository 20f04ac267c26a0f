"""After the last round: every evaluating hospital tells how good the version is on patients it did not train on.

Metrics come with a hospital's signature and noise, and are logged as they arrive. Those the log already has are not
asked for again: an answer costs the hospital's patients once.
"""

from __future__ import annotations

from audit.entry import METRICS_REPORTED
from audit.errors import AuditError
from audit.statement import METRICS, SignedStatement
from jobs.attendance import Attendance
from jobs.errors import RunInterrupted, SiteError
from jobs.journal import Journal
from jobs.plan import Plan
from jobs.signed_answers import MAX_METRICS_BYTES, SignedAnswers
from jobs.transport import Message, Timeouts, Transport, message_of


def evaluate_everywhere(
    version: str,
    model: bytes,
    *,
    plan: Plan,
    run_id: str,
    predecessor: tuple[bytes, bytes] | None,
    transport: Transport,
    timeouts: Timeouts,
    signed: SignedAnswers,
    attendance: Attendance,
    journal: Journal,
) -> dict[str, SignedStatement]:
    """Metrics of every evaluating hospital that joined.

    Args:
        model: the version's bytes.
        predecessor: plan and model of the version the plan compares with, if it names one.
    Raises: RunInterrupted when one of them is missing or its metrics do not hold; those that arrived are logged.
    """
    metrics = {
        body["site"]: SignedStatement.from_json(body["metrics"])
        for body in journal.recorded(METRICS_REPORTED)
        if body["version"] == version
    }
    attendance.welcome_back(at_once=True)
    here = attendance.joined
    joined = [site for site in plan.evaluation_sites if site in here and site not in metrics]
    asked = [site for site in joined if not attendance.is_missing(site)]
    request: Message = {"version": version, "model": model}
    if predecessor is not None:
        request["predecessor_plan"], request["predecessor"] = predecessor
    answers = transport.call("evaluate", dict.fromkeys(asked, request), timeout_s=timeouts.evaluate)
    problems = [f"{site} is missing" for site in joined if site not in asked]
    for site in asked:
        try:
            statement = signed.statement(
                site,
                message_of(site, answers[site]).get("metrics"),
                METRICS,
                {"run_id": run_id, "version": version, "site": site},
                longest=MAX_METRICS_BYTES,
            )
        except SiteError as error:
            problems.append(str(error))
        except AuditError as error:
            problems.append(f"{site}: its metrics do not hold: {error}")
        else:
            journal.record(METRICS_REPORTED, {"version": version, "site": site, "metrics": statement.to_json()})
            metrics[site] = statement
    if problems:
        raise RunInterrupted("the model is trained, but not evaluated everywhere: " + "; ".join(problems))
    return metrics
