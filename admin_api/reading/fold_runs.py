"""Plans, runs, rounds, versions and reports: from the entry to its rows."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from admin_api.reading.fold import PERSON, PLAN, RUN, SITE, VERSION, Fold, listed
from admin_api.reading.fold_privacy import (
    ENDED,
    REPORTED,
    RESERVED,
    SPENT,
    TRAINING,
    VALIDATION,
    figure,
    spend,
    stated,
)
from admin_api.reading.tables import (
    CodeRow,
    HospitalRow,
    LabelSpaceRow,
    ParentRow,
    PartRow,
    PlanRow,
    ReportRow,
    RunRow,
    VersionRow,
)
from audit.canonical import DIGEST_PREFIX
from audit.entry import (
    METRICS_REPORTED,
    PLAN_PROPOSED,
    ROUND_ABORTED,
    ROUND_COMPLETED,
    RUN_FINISHED,
    RUN_STARTED,
    SITE_ACCEPTED,
    SITE_REFUSED,
    VERSION_CREATED,
)

ASKED, ACCEPTED, REFUSED = "asked", "accepted", "refused"
STARTED, FINISHED = "started", "finished"
PROPOSED, CARRIED_OUT = "proposed", "carried out"
HEADLINE = (
    "admissions",
    "hit@1",
    "hit@3",
    "threshold",
    "coverage",
    "precision",
    "agreement",
    "predecessor-hit@1",
)


def plan_proposed(fold: Fold) -> None:
    plan_hash = fold.body["plan_hash"]
    proposer = fold.body["proposal"]["statement"]["name"]
    fold.mention(PLAN, plan_hash)
    fold.mention(PERSON, proposer)
    if fold.rows.look(PlanRow, plan_hash) is not None:
        return  # proposed again: the first proposal counts
    text = fold.plan_text(plan_hash)
    said = {"sites": "[]", "evaluation_sites": "[]"} if text is None else _plan_says(fold, json.loads(text))
    fold.rows.put(
        PlanRow,
        plan_hash=plan_hash,
        entry=fold.index,
        time=fold.time,
        proposer=proposer,
        readable=text is not None,
        state=PROPOSED,
        approvals=0,
        refusals=0,
        runs=0,
        **said,
    )


def _plan_says(fold: Fold, plan: dict[str, Any]) -> dict[str, Any]:
    predecessor = plan.get("evaluation", {}).get("predecessor")
    sites, evaluating = plan["sites"], plan["evaluation_sites"]
    fold.mention(SITE, *sites, *evaluating)
    return {
        "title": plan["name"],
        "task": plan["task"],
        "rounds": plan["rounds"],
        "aggregations": plan["rounds"] + (plan.get("feature_mean_noise_multiplier") is not None),
        "epsilon": plan["epsilon"],
        "delta": plan["delta"],
        "noise_mode": plan["noise_mode"],
        "estimator": plan.get("estimator"),
        "sites": listed(sites),
        "evaluation_sites": listed(evaluating),
        "label_space": _label_space(fold, plan["label_space"]),
        "labels": len(plan["label_space"]),
        "initial_version": plan["initial_version"],
        "compared_with": None if predecessor is None else predecessor["version"],
    }


def _label_space(fold: Fold, codes: list[str]) -> str:
    text = listed(codes)
    digest = DIGEST_PREFIX + hashlib.sha256(text.encode()).hexdigest()
    if fold.rows.look(LabelSpaceRow, digest) is None:
        fold.rows.put(LabelSpaceRow, label_space=digest, codes=text, labels=len(codes))
        for code in codes:
            fold.rows.add(CodeRow, code, digest)
    return digest


def run_started(fold: Fold) -> None:
    body = fold.body
    plan = fold.rows.change(PlanRow, body["plan_hash"])
    if plan is not None:
        plan["runs"] += 1
        plan["state"] = CARRIED_OUT
    fold.rows.put(
        RunRow,
        run=body["run_id"],
        entry=fold.index,
        time=fold.time,
        plan_hash=body["plan_hash"],
        title=plan and plan["title"],
        task=plan and plan["task"],
        planned=plan and plan["aggregations"],
        state=STARTED,
        completed=0,
        aborted=0,
        last_round=0,
        dropouts=0,
        participants=0,
        asked=0,
        accepted=0,
        refused=0,
        initial_version=body["initial_version"],
        version=body["initial_version"],
        delta=plan and plan["delta"],
        last_entry=fold.index,
        last_time=fold.time,
    )
    fold.mention(RUN, body["run_id"])
    fold.mention(PLAN, body["plan_hash"])
    for site in body["sites"]:
        _part(fold, body["run_id"], site)


def site_accepted(fold: Fold) -> None:
    statement = fold.body["acceptance"]["statement"]
    run_id, site = fold.body["run_id"], statement["site"]
    part = _part(fold, run_id, site)
    hospital = fold.hospital(site)
    hospital["last_run"] = run_id
    stated(fold, site, run_id, statement)
    if part["state"] == ACCEPTED:
        return  # a coordinator that goes on logs it again
    _answered(fold, run_id, part, ACCEPTED)
    hospital["accepted"] += 1
    part["manifest"] = statement["manifest"]
    part["reserved"] = float(statement["epsilon_reserved"])
    if part["reserved"]:
        run = fold.rows.look(RunRow, run_id)
        delta = None if run is None else run["delta"]
        spend(fold, site, TRAINING, RESERVED, run_id, part["reserved"], delta, reserved=part["reserved"])


def site_refused(fold: Fold) -> None:
    statement = fold.body["refusal"]["statement"]
    run_id, site = fold.body["run_id"], statement["site"]
    hospital = fold.hospital(site)
    hospital["refused"] += 1
    fold.mention(PLAN, statement["plan_hash"])
    if run_id is not None:
        part = _part(fold, run_id, site)
        _answered(fold, run_id, part, REFUSED)
        part["code"], part["reason"] = statement["code"], statement["reason"]


def _part(fold: Fold, run_id: str, site: str) -> dict[str, Any]:
    """The hospital's part in a run, to be changed; made when this entry is the first to name it there."""
    fold.mention(RUN, run_id)
    fold.mention(SITE, site)
    part = fold.rows.change(PartRow, run_id, site)
    if part is None:
        part = fold.rows.put(
            PartRow, run=run_id, site=site, entry=fold.index, time=fold.time, state=ASKED, reserved=0.0, rounds=0,
            dropped=0, last_round=0,
        )  # fmt: skip
        fold.hospital(site)["asked"] += 1
        run = _run(fold, run_id)
        if run is not None:
            run["asked"] += 1
    return part


def _answered(fold: Fold, run_id: str, part: dict[str, Any], state: str) -> None:
    run = _run(fold, run_id)
    if run is not None and part["state"] != state:
        run[state] += 1
        if part["state"] != ASKED:
            run[part["state"]] -= 1
    part["state"] = state


def _run(fold: Fold, run_id: str) -> dict[str, Any] | None:
    """The run's row, to be changed. This entry is then the last about it."""
    fold.mention(RUN, run_id)
    run = fold.rows.change(RunRow, run_id)
    if run is not None:
        run["last_entry"], run["last_time"] = fold.index, fold.time
    return run


def round_completed(fold: Fold) -> None:
    body = fold.body
    run_id, number = body["run_id"], body["round"]
    run = _run(fold, run_id)
    if run is not None:
        run["completed"] += 1
        run["version"] = body["version_out"]
        _counted(run, body)
    for site in body["participants"]:
        part = _part(fold, run_id, site)
        part["rounds"] += 1
        part["last_round"] = number
        hospital = fold.hospital(site)
        hospital["rounds"] += 1
        hospital["last_run"] = run_id
        if hospital["trained_entry"] is None:
            hospital["trained_entry"], hospital["trained_time"] = fold.index, fold.time
    _dropped(fold, run_id, body["dropped"])


def round_aborted(fold: Fold) -> None:
    run = _run(fold, fold.body["run_id"])
    if run is not None:
        run["aborted"] += 1
        _counted(run, fold.body)
    fold.mention(SITE, *fold.body["participants"])
    _dropped(fold, fold.body["run_id"], fold.body["dropped"])


def _counted(run: dict[str, Any], body: Any) -> None:
    run["last_round"] = max(run["last_round"], body["round"])
    run["participants"] = len(body["participants"])
    run["dropouts"] += len(body["dropped"])


def _dropped(fold: Fold, run_id: str, sites: list[str]) -> None:
    for site in sites:
        _part(fold, run_id, site)["dropped"] += 1
        fold.mention(SITE, site)
        row = fold.rows.change(HospitalRow, site)
        if row is not None:  # it said nothing: this is not its last word
            row["dropped"] += 1


def run_finished(fold: Fold) -> None:
    body = fold.body
    run = _run(fold, body["run_id"])
    if run is not None:
        run["state"] = FINISHED
        run["finished_entry"], run["finished_time"] = fold.index, fold.time
        for field in ("version", "epsilon", "delta", "accountant"):
            run[field] = body[field]
    fold.mention(PLAN, body["plan_hash"])
    fold.mention(VERSION, body["version"])
    epsilon = float(body["epsilon"])
    made = fold.rows.change(VersionRow, body["version"])
    if made is not None and made["run"] == body["run_id"]:  # the version is logged before what it cost
        made["epsilon"], made["delta"] = epsilon, body["delta"]
    for part in fold.rows.all(PartRow, run=body["run_id"]):
        if part["state"] == ACCEPTED and (part["reserved"] or part["rounds"]):
            spent = epsilon if part["rounds"] else 0.0
            spend(fold, part["site"], TRAINING, SPENT if spent else ENDED, body["run_id"], spent, body["delta"],
                   reserved=-part["reserved"], spent=spent)  # fmt: skip


def version_created(fold: Fold) -> None:
    body = fold.body
    version, (first, last) = body["version"], body["rounds"]
    fold.mention(VERSION, version)
    fold.mention(RUN, body["run_id"])
    fold.mention(PLAN, body["plan_hash"])
    if fold.rows.look(VersionRow, version) is not None:
        return  # another run came to the same version: where it was made first counts
    run = fold.rows.look(RunRow, body["run_id"])
    fold.rows.put(
        VersionRow,
        version=version,
        entry=fold.index,
        time=fold.time,
        task=run and run["task"],
        run=body["run_id"],
        plan_hash=body["plan_hash"],
        first_round=first,
        last_round=last,
        model=body["model"],
        parents=listed(body["parents"]),
        epsilon=run and run["epsilon"],
        delta=run and run["delta"],
        reports=0,
    )
    for parent in body["parents"]:
        fold.rows.add(ParentRow, parent, version)


def metrics_reported(fold: Fold) -> None:
    statement = fold.body["metrics"]["statement"]
    version, site, run_id = fold.body["version"], fold.body["site"], statement["run_id"]
    fold.mention(VERSION, version)
    fold.mention(RUN, run_id)
    hospital = fold.hospital(site)
    mechanism = statement["mechanism"]
    epsilon, delta = figure(mechanism.get("epsilon")), figure(mechanism.get("delta"))
    stated(fold, site, run_id, statement)
    if epsilon:
        spend(fold, site, _cohort(statement["cohort"]), REPORTED, run_id, epsilon, delta, spent=epsilon)
    if fold.rows.look(ReportRow, version, site) is not None:
        return  # the first report counts (audit.metrics_trace)
    cells = {
        name: [cell["value"], cell["lower"], cell["upper"]]
        for name in HEADLINE
        if (cell := statement["values"].get(name)) is not None
    }
    fold.rows.put(
        ReportRow,
        version=version,
        site=site,
        entry=fold.index,
        time=fold.time,
        run=run_id,
        cohort=_cohort(statement["cohort"]),
        epsilon=epsilon,
        delta=delta,
        cells=json.dumps(cells, separators=(",", ":")),
    )
    hospital["reports"] += 1
    hospital["last_version"], hospital["last_run"] = version, run_id
    if hospital["evaluated_entry"] is None:
        hospital["evaluated_entry"], hospital["evaluated_time"] = fold.index, fold.time
    made = fold.rows.change(VersionRow, version)
    if made is not None:
        made["reports"] += 1


def _cohort(cohort: Any) -> str:
    """A cohort's name; the log lets hospitals describe it as they like."""
    named = cohort.get("name") if isinstance(cohort, dict) else cohort
    return named if isinstance(named, str) and named else VALIDATION


FOLDS = {
    PLAN_PROPOSED: plan_proposed,
    RUN_STARTED: run_started,
    SITE_ACCEPTED: site_accepted,
    SITE_REFUSED: site_refused,
    ROUND_COMPLETED: round_completed,
    ROUND_ABORTED: round_aborted,
    RUN_FINISHED: run_finished,
    VERSION_CREATED: version_created,
    METRICS_REPORTED: metrics_reported,
}
