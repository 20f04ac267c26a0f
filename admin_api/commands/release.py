"""`zegel release`: set gates, propose, decide about, certify and withdraw releases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from admin_api.commands import release_documents
from admin_api.commands.options import (
    HERE,
    AsJson,
    Home,
    OptionalPersonFolder,
    PersonFolder,
    PersonPassphrase,
    Reason,
    Refuse,
    answer,
    decide,
    open_home,
    open_signer,
    told,
)

release_app = typer.Typer(no_args_is_help=True, help="Propose, approve and certify releases.")


@release_app.command("gates")
def release_gates(
    gate: Annotated[
        list[str] | None,
        typer.Option(help="A gate, such as hit@1@every-site>=0.4; once per gate. Without any, show those in force."),
    ] = None,
    signer: OptionalPersonFolder = None,
    reason: Reason = "",
    approver: Annotated[
        list[str] | None,
        typer.Option(help="A role that must approve a release; once per person. Never fewer than the default."),
    ] = None,
    plan_approver: Annotated[
        list[str] | None, typer.Option(help="A role that must approve a plan; once per person.")
    ] = None,
    organisations: Annotated[int, typer.Option(help="From how many organisations approvers must come.", min=2)] = 2,
    task: Annotated[str, typer.Option(help="The plans' task.")] = "icd_coding",
    passphrase_file: PersonPassphrase = None,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Set the gates that versions must pass, before the run that makes them. A release manager signs.

    \b
    METRIC@HOSPITAL>=N   what one hospital reports, such as hit@1/IX
    METRIC@every-site>=N   the worst of all hospitals that evaluate
    METRIC@every-non-training-site>=N   the worst that trained nothing
    gap:METRIC<=N   training hospitals minus the others
    predecessor:METRIC/chapters>=-N   against the release it replaces
    epsilon<=N   of the run
    empirical-audit<=DAYS   age of the last `zegel privacy audit`
    witnesses>=K   organisations that cosign the log

    METRIC.lower and METRIC.upper are the ends of the hospitals' 95% intervals.

    Gates hold for runs that start after they are set; setting them again replaces them.
    """
    from admin_api.errors import ReleaseRefused
    from admin_api.gate_setting import gates_now, set_gates
    from audit.release import DEFAULT_POLICY, Policy

    with told(home):
        consortium = open_home(home)
        if not gate:
            chosen = gates_now(consortium, task)
        else:
            if signer is None:
                raise ReleaseRefused("setting gates needs --as, the folder of a release manager's key")
            person = open_signer(consortium, signer, passphrase_file)
            policy = Policy(
                plan=tuple(plan_approver or DEFAULT_POLICY.plan),
                release=tuple(approver or DEFAULT_POLICY.release),
                organisations=organisations,
            )
            chosen = set_gates(consortium, task=task, gates=gate, policy=policy, reason=reason, person=person)
    answer(
        chosen.to_json(),
        [f"Gates of {task} for runs that start from now on:", *(f"  {rule}" for rule in chosen.rules),
         f"A plan is approved by {', '.join(chosen.policy.plan)}; a release by {', '.join(chosen.policy.release)} "
         f"from {chosen.policy.organisations} organisations."],
        as_json,
    )  # fmt: skip


@release_app.command("audited")
def release_audited(
    report: Annotated[Path, typer.Argument(help="The file that `zegel privacy audit --json` wrote.")],
    signer: PersonFolder,
    passphrase_file: PersonPassphrase = None,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Log what an empirical privacy audit found, passed or not. A privacy officer or the authority signs.

    The gate empirical-audit asks for the last one logged.
    """
    from admin_api.gate_setting import log_audit

    with told(home):
        consortium = open_home(home)
        fields = log_audit(consortium, report, open_signer(consortium, signer, passphrase_file))
    verdict = "passed" if fields["passed"] else "FAILED"
    answer(
        fields,
        [f"Logged: the audit of {fields['audited_at']} {verdict}, epsilon at least {fields['lower_bound']:g} "
         f"beside a claim of {fields['claim']:g}."],
        as_json,
    )  # fmt: skip


@release_app.command("propose")
def release_propose(
    release: Annotated[str, typer.Argument(help="A name, such as 2026.1.")],
    run_id: Annotated[str, typer.Option("--run", help="The finished run.")],
    signer: PersonFolder,
    notes: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Release notes; `zegel release notes-template` prints some to fill in."
        ),
    ] = None,
    passphrase_file: PersonPassphrase = None,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Put a run's version up for certification. Refused when a gate set before the run fails.

    Makes the documents that people read before they decide, among them a report, a model card, a bill of materials and
    a bridge study; every approval binds them.
    """
    from admin_api.releasing import propose_release

    with told(home):
        consortium = open_home(home)
        text = None if notes is None else notes.read_bytes()
        person = open_signer(consortium, signer, passphrase_file)
        statement = propose_release(consortium, run_id=run_id, release=release, proposer=person, notes=text)
    answer(
        {"release": release, "statement": statement.digest, "version": statement.version,
         "predecessor": None if statement.predecessor is None else statement.predecessor.release,
         "gates": [item.to_json() for item in statement.gates], "documents": dict(statement.documents)},
        [f"Candidate {release}: version {statement.version}", f"Statement {statement.digest}",
         *(f"Gate {g.name} {g.comparison.replace('_', ' ')} {g.threshold:g}: {g.value:.4g}, passed"
           for g in statement.gates),
         f"Documents to read first: `zegel release documents {release} --out FOLDER`"
         + ("." if notes else "; they state no intended use, since no --notes were given."),
         f"Next: {' and '.join(statement.policy.release)}, from {statement.policy.organisations} organisations, decide "
         f"with `zegel release approve {release}`."],
        as_json,
    )  # fmt: skip


@release_app.command("approve")
def release_approve(
    release: Annotated[str, typer.Argument(help="The candidate's name.")],
    signer: PersonFolder,
    reason: Reason = "",
    refuse: Refuse = False,
    passphrase_file: PersonPassphrase = None,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Sign a decision about a candidate. A release manager and a privacy officer must approve, the proposer apart.

    An approval also signs the provenance for other tools (DSSE), and a release manager's the model (OpenSSF).
    """
    from admin_api.dossier_documents.signing import sign_documents
    from admin_api.releasing import load_statement

    with told(home):
        consortium = open_home(home)
        statement = load_statement(consortium, release)
        decide(
            consortium, "release", release, statement.digest,
            signer=signer, reason=reason, refuse=refuse, file=passphrase_file, as_json=as_json,
            first=lambda person: sign_documents(consortium, statement, person),
        )  # fmt: skip


@release_app.command("list")
def release_list(home: Home = HERE, as_json: AsJson = False) -> None:
    """All releases and where they stand: candidate, certified, superseded or withdrawn."""
    from admin_api.people import disclosed_now
    from admin_api.planning import decisions
    from admin_api.releasing import list_releases

    with told(home):
        consortium = open_home(home)
        said = disclosed_now(consortium)
        rows = [
            {
                "release": each.release,
                "task": each.task,
                "version": each.version,
                "state": each.state,
                "since": each.since,
                "predecessor": each.predecessor,
                "superseded_by": each.superseded_by,
                "withdrawal": None if each.withdrawal is None else said.value(each.withdrawal.reason),
                "decisions": decisions(consortium, "release", each.statement),
            }
            for each in list_releases(consortium)
        ]
    answer({"releases": rows}, [_row(row) for row in rows] or ["No release was proposed yet."], as_json)


def _row(row: dict[str, Any]) -> str:
    decided = "; ".join(f"{d['name']} ({d['role']}): {d['decision']}" for d in row["decisions"]) or "undecided"
    if row["superseded_by"]:
        decided += f"; superseded by {row['superseded_by']}"
    if row["withdrawal"]:
        what = "withdrawn" if row["state"] == "withdrawn" else "withdrawal proposed"
        decided += f"; {what}: {row['withdrawal']}"
    return f"{row['release']:20} {row['state']:10} {row['version']}  {decided}"


@release_app.command("withdraw")
def release_withdraw(
    release: Annotated[str, typer.Argument(help="A certified or superseded release.")],
    signer: PersonFolder,
    reason: Reason = "",
    confirm: Annotated[
        bool, typer.Option("--confirm", help="Agree to a withdrawal that somebody else proposed.")
    ] = False,
    passphrase_file: PersonPassphrase = None,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Take a release out of use, for ever. Two people sign, one of them a release manager.

    The first proposes with a --reason; the second, of another name, agrees with --confirm. A dossier written after that
    does not verify any more.
    """
    from admin_api.releasing import approve_withdrawal, propose_withdrawal

    with told(home):
        consortium = open_home(home)
        person = open_signer(consortium, signer, passphrase_file)
        if confirm:
            approve_withdrawal(consortium, release, reason=reason, person=person)
            state, line = "withdrawn", f"Release {release} is withdrawn; tell everybody who uses it."
        else:
            propose_withdrawal(consortium, release, reason=reason, person=person)
            state = "withdrawal proposed"
            line = f"Proposed. Another person agrees with `zegel release withdraw {release} --confirm`."
    answer({"release": release, "state": state}, [line], as_json)


@release_app.command("supersede")
def release_supersede(
    release: Annotated[str, typer.Argument(help="A certified release.")],
    by: Annotated[str, typer.Option(help="The certified release of another task that takes its place.")],
    signer: PersonFolder,
    reason: Reason = "",
    passphrase_file: PersonPassphrase = None,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Retire a release in favour of one of another task. A release manager signs.

    Within a task nobody has to: certifying a release retires the one it replaces in the same step.
    """
    from admin_api.releasing import supersede

    with told(home):
        consortium = open_home(home)
        person = open_signer(consortium, signer, passphrase_file)
        supersede(consortium, release, by=by, reason=reason, person=person)
    answer({"release": release, "state": "superseded", "by": by}, [f"{release} is superseded by {by}."], as_json)


@release_app.command("certify")
def release_certify(
    release: Annotated[str, typer.Argument(help="A candidate whose approvals suffice.")],
    out: Annotated[Path, typer.Option(help="Where to write the dossier, NAME.dossier.")],
    time_stamp: Annotated[
        str | None,
        typer.Option(metavar="URL", help="An RFC 3161 time stamping authority; it learns a digest and nothing else."),
    ] = None,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Certify a candidate and write its dossier, which anyone can check offline with `zegel verify`.

    The certified release it replaces is superseded in the same step. Certifying again writes the dossier of a certified
    release once more, as the log stands then.
    """
    from admin_api.errors import ReleaseRefused
    from admin_api.releasing import certify

    with told(home):
        if out.exists():
            raise ReleaseRefused(f"{out} exists already; choose another --out")
        if not out.parent.is_dir():
            raise ReleaseRefused(f"{out.parent} is not a folder; make it first, or choose another --out")
        data = certify(open_home(home), release, time_stamp_url=time_stamp)
        draft = out.with_name(f".{out.name}.draft")
        try:
            draft.write_bytes(data)
            draft.rename(out)
        finally:
            draft.unlink(missing_ok=True)
    answer(
        {"release": release, "dossier": str(out), "bytes": len(data)},
        [f"Certified {release}. Dossier: {out}, {len(data) / 1e6:.1f} MB.",
         f"Anyone checks it with: zegel verify {out} --root rootCA.pem"],
        as_json,
    )  # fmt: skip


release_documents.register(release_app)
