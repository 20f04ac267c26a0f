"""`zegel release`: propose, decide about and certify releases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from admin_api.commands.options import (
    HERE,
    AsJson,
    Home,
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


@release_app.command("propose")
def release_propose(
    release: Annotated[str, typer.Argument(help="A name, such as 2026.1.")],
    run_id: Annotated[str, typer.Option("--run", help="The finished run.")],
    signer: PersonFolder,
    gate: Annotated[
        list[str] | None,
        typer.Option(help="METRIC@SITE>=N, METRIC@every-site>=N or epsilon<=N; once per gate."),
    ] = None,
    passphrase_file: PersonPassphrase = None,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Put a run's version up for certification. Refused when a gate fails."""
    from admin_api.releasing import propose_release

    with told():
        consortium = open_home(home)
        person = open_signer(consortium, signer, passphrase_file)
        statement = propose_release(consortium, run_id=run_id, release=release, gates=gate or [], proposer=person)
    answer(
        {"release": release, "statement": statement.digest, "version": statement.version,
         "gates": [item.to_json() for item in statement.gates]},
        [f"Candidate {release}: version {statement.version}", f"Statement {statement.digest}",
         *(f"Gate {g.name} {g.comparison.replace('_', ' ')} {g.threshold:g}: {g.value:.4g}, passed"
           for g in statement.gates),
         f"Next: a release manager and a privacy officer decide with `zegel release approve {release}`."],
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
    """Sign a decision about a candidate. A release manager and a privacy officer must approve, the proposer apart."""
    from admin_api.releasing import load_statement

    with told():
        consortium = open_home(home)
        digest = load_statement(consortium, release).digest
        decide(
            consortium, "release", release, digest,
            signer=signer, reason=reason, refuse=refuse, file=passphrase_file, as_json=as_json,
        )  # fmt: skip


@release_app.command("list")
def release_list(home: Home = HERE, as_json: AsJson = False) -> None:
    """All candidates and certified releases."""
    from admin_api.planning import decisions
    from audit.entry import RELEASE_CERTIFIED, RELEASE_PROPOSED

    with told():
        consortium = open_home(home)
        with consortium.log() as log:
            certified = {entry.body["release"] for _, entry in log.entries(kind=RELEASE_CERTIFIED)}
            proposed = [entry.body for _, entry in log.entries(kind=RELEASE_PROPOSED)]
        rows = [
            {
                "release": body["release"],
                "version": body["version"],
                "state": "certified" if body["release"] in certified else "candidate",
                "decisions": decisions(consortium, "release", body["statement"]),
            }
            for body in proposed
        ]
    lines = [
        f"{row['release']:20} {row['state']:10} {row['version']}  "
        + ("; ".join(f"{d['name']} ({d['role']}): {d['decision']}" for d in row["decisions"]) or "undecided")
        for row in rows
    ]
    answer({"releases": rows}, lines or ["No release was proposed yet."], as_json)


@release_app.command("certify")
def release_certify(
    release: Annotated[str, typer.Argument(help="A candidate whose approvals suffice.")],
    out: Annotated[Path, typer.Option(help="Where to write the dossier, NAME.dossier.")],
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Certify a candidate and write its dossier, which anyone can check offline with `zegel verify`.

    Certifying again writes the dossier of a certified release once more.
    """
    from admin_api.errors import ReleaseRefused
    from admin_api.releasing import certify

    with told():
        if out.exists():
            raise ReleaseRefused(f"{out} exists already; choose another --out")
        if not out.parent.is_dir():
            raise ReleaseRefused(f"{out.parent} is not a folder; make it first, or choose another --out")
        data = certify(open_home(home), release)
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
