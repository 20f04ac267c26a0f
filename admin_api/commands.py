"""`zegel consortium|person|plan|run|release`: the consortium's side, on its own folder.

Every command works on the consortium's folder, `--home`, or the environment's ZEGEL_CONSORTIUM_HOME. Passphrases come
from a file, from the environment, or from a prompt; never from the command line, where other users could read them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from admin_api.people import Person
    from jobs.home import ConsortiumHome

consortium_app = typer.Typer(no_args_is_help=True, help="Found the consortium, approve certificates, run its server.")
person_app = typer.Typer(no_args_is_help=True, help="Keys and certificates of people who sign.")
plan_app = typer.Typer(no_args_is_help=True, help="Propose, read and approve training plans.")
run_app = typer.Typer(no_args_is_help=True, help="Carry out an approved plan and watch it.")
release_app = typer.Typer(no_args_is_help=True, help="Propose, approve and certify releases.")

Home = Annotated[
    Path,
    typer.Option("--home", envvar="ZEGEL_CONSORTIUM_HOME", help="The consortium's folder.", show_default="."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(help="File whose first line is the root key's passphrase; else ZEGEL_ROOT_PASSPHRASE, else a prompt."),
]
PersonFolder = Annotated[Path, typer.Option("--as", help="Folder with the signing person's key and certificate.")]
PersonPassphrase = Annotated[
    Path | None,
    typer.Option(help="File with the person's passphrase; else ZEGEL_PERSON_PASSPHRASE, else a prompt."),
]

HERE = Path()
ROOT_VARIABLE = "ZEGEL_ROOT_PASSPHRASE"
PERSON_VARIABLE = "ZEGEL_PERSON_PASSPHRASE"


@contextmanager
def told() -> Iterator[None]:
    """Our own errors end a command with their message and exit code 1; others are defects and show a trace."""
    from admin_api.errors import AdminError
    from audit.errors import AuditError
    from jobs.errors import JobError
    from jobs.icd_coding.errors import CodingError
    from privacy.errors import PrivacyError

    try:
        yield
    except (AdminError, JobError, AuditError, PrivacyError, CodingError) as error:
        typer.echo(f"zegel: {error}", err=True)
        raise typer.Exit(1) from None


def answer(value: dict[str, Any], lines: list[str], as_json: bool) -> None:
    """Print one result, for people or for machines."""
    typer.echo(json.dumps(value) if as_json else "\n".join(lines))


def passphrase(file: Path | None, variable: str, prompt: str, *, confirm: bool = False) -> bytes:
    """A passphrase from a file's first line, the environment, or a prompt."""
    from admin_api.errors import AdminError

    if file is not None:
        try:
            lines = file.read_bytes().splitlines()
        except OSError as error:
            raise AdminError(f"passphrase file: {error}") from None
        return lines[0] if lines else b""
    if variable in os.environ:
        return os.environ[variable].encode()
    if not sys.stdin.isatty():
        raise AdminError(f"no passphrase: set {variable}, give --passphrase-file, or run in a terminal")
    return str(typer.prompt(prompt, hide_input=True, confirmation_prompt=confirm)).encode()


def open_home(path: Path) -> ConsortiumHome:
    from jobs.home import ConsortiumHome

    home = ConsortiumHome(path)
    home.config()
    return home


def open_signer(home: ConsortiumHome, folder: Path, file: Path | None) -> Person:
    from admin_api.people import open_person

    secret = passphrase(file, PERSON_VARIABLE, f"Passphrase of the key in {folder}")
    return open_person(folder, passphrase=secret, root=home.root(), now=home.clock())


# -- consortium ----------------------------------------------------------------------------------------------------


@consortium_app.command("init")
def consortium_init(
    name: Annotated[str, typer.Argument(help="The consortium's name: letters, digits, - and _.")],
    organisation: Annotated[str, typer.Option(help="Who runs it: letters, digits and _.")],
    server_host: Annotated[str, typer.Option(help="Name under which hospitals reach the server.")] = "localhost",
    fed_learn_port: Annotated[int, typer.Option(help="Port for hospitals.", min=1, max=65535)] = 8002,
    admin_port: Annotated[int, typer.Option(help="Port for the consortium's own account.", min=1, max=65535)] = 8003,
    passphrase_file: PassphraseFile = None,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Found a consortium: root certificate with an encrypted key, audit log, server kit.

    Tell hospitals the root's fingerprint by another channel than the one you send kits by.
    """
    from admin_api.founding import found
    from jobs.home import ConsortiumHome

    with told():
        secret = passphrase(passphrase_file, ROOT_VARIABLE, "Passphrase for the root key", confirm=True)
        config = found(
            ConsortiumHome(home),
            name=name,
            organisation=organisation,
            server_host=server_host,
            fed_learn_port=fed_learn_port,
            admin_port=admin_port,
            passphrase=secret,
        )
    answer(
        {
            "name": name,
            "root_fingerprint": config.root_fingerprint,
            "log_vkey": config.log_vkey,
            "home": str(home),
        },
        [
            f"Founded {name} in {home}.",
            f"Root fingerprint  {config.root_fingerprint}",
            f"Log's key         {config.log_vkey}",
            "Next: `zegel consortium start`, and hospitals run `zegel site request`.",
        ],
        as_json,
    )


@consortium_app.command("approve")
def consortium_approve(
    request: Annotated[Path, typer.Argument(help="NAME.request.zip of a hospital or person.request.json.")],
    out: Annotated[Path, typer.Option(help="Where to write the reply (NAME.signed.zip, or a person's person.crt).")],
    fingerprint: Annotated[
        str | None,
        typer.Option(help="The key's fingerprint as the requester read it to you; refused if it differs."),
    ] = None,
    valid_days: Annotated[int, typer.Option(help="How long the certificate is valid.", min=1, max=3650)] = 365,
    yes: Yes = False,
    passphrase_file: PassphraseFile = None,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Look at a certificate request, compare its fingerprint with the requester, and sign it.

    The certificate is written to the audit log before the reply can be handed out.
    """
    from admin_api.errors import OnboardingError
    from admin_api.onboarding import approve, read_request

    with told():
        consortium = open_home(home)
        asked = read_request(request)
        if not as_json:
            typer.echo(f"{asked.name} of {asked.organisation} asks for a certificate as {asked.role}.")
            typer.echo(f"Fingerprint of its key: {asked.fingerprint}")
        if fingerprint is not None and fingerprint.lower() != asked.fingerprint:
            raise OnboardingError(f"the fingerprint read to you is another: {fingerprint}; nothing was signed")
        if fingerprint is None and not yes:
            if not sys.stdin.isatty():
                raise OnboardingError("give --fingerprint as the requester read it to you, or --yes")
            typer.confirm("Did the requester read the same fingerprint to you?", abort=True)
        secret = passphrase(passphrase_file, ROOT_VARIABLE, "Passphrase of the root key")
        certificate = approve(consortium, asked, passphrase=secret, out=out, valid_days=valid_days)
    answer(
        {
            "name": asked.name,
            "organisation": asked.organisation,
            "role": asked.role,
            "fingerprint": asked.fingerprint,
            "valid_until": f"{certificate.not_valid_after_utc:%Y-%m-%d}",
            "reply": str(out),
        },
        [f"Signed, valid until {certificate.not_valid_after_utc:%Y-%m-%d}. Send {out} back to {asked.name}."],
        as_json,
    )


@consortium_app.command("manifest")
def consortium_manifest(
    statement: Annotated[Path, typer.Argument(help="The signed statement a hospital made with `zegel site manifest`.")],
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Check a hospital's signed data manifest and write it to the audit log."""
    from admin_api.onboarding import log_manifest

    with told():
        signed = log_manifest(open_home(home), statement)
    said = signed.statement
    answer(
        dict(said),
        [f"{said['site']}: {said['patients']} patients, {said['admissions']} admissions, {said['period_first']} to "
         f"{said['period_last']}; logged."],
        as_json,
    )  # fmt: skip


@consortium_app.command("start")
def consortium_start(home: Home = HERE, as_json: AsJson = False) -> None:
    """Start the federation's server. It keeps running after this command."""
    from jobs.federation import kit as kits
    from jobs.federation import process

    with told():
        consortium = open_home(home)
        config = consortium.config()
        kits.check_hardened(consortium.server_kit, classes=kits.SERVER_CLASSES)
        running = process.start(
            process.server_command(consortium.server_kit, organisation=config.organisation),
            workspace=consortium.server_kit,
        )
    answer(
        {"pid": running.pid, "fed_learn_port": config.fed_learn_port},
        [
            f"The server runs as process {running.pid}; hospitals connect to "
            f"{config.server_host}:{config.fed_learn_port}.",
            f"Its own log is {consortium.server_kit / 'console.log'}.",
        ],
        as_json,
    )


@consortium_app.command("stop")
def consortium_stop(home: Home = HERE, as_json: AsJson = False) -> None:
    """Stop the federation's server and any job it runs."""
    from jobs.federation import process

    with told():
        was_running = process.stop(open_home(home).server_kit)
    answer(
        {"was_running": was_running},
        ["The server is stopped." if was_running else "The server was not running."],
        as_json,
    )


@consortium_app.command("status")
def consortium_status(
    wait: Annotated[int, typer.Option(help="Wait up to this many seconds for the server to answer.", min=0)] = 5,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Is the server up, and which hospitals are connected? Exit code 1 if it is not."""
    from jobs.federation import process
    from jobs.federation.session import open_session

    with told():
        consortium = open_home(home)
        running = process.find(consortium.server_kit)
        connected: tuple[str, ...] = ()
        if running is not None:
            with open_session(consortium, timeout_s=wait) as session:
                connected = session.connected()
    answer(
        {
            "running": running is not None,
            "pid": running.pid if running else None,
            "connected": list(connected),
        },
        [
            f"The server runs as process {running.pid}." if running else "The server does not run.",
            f"Connected: {', '.join(connected) or 'nobody'}.",
        ],
        as_json,
    )
    if running is None:
        raise typer.Exit(1)


# -- person --------------------------------------------------------------------------------------------------------


@person_app.callback()
def _person() -> None:
    """Keys and certificates of people who sign."""  # with one command only, Typer would drop the group


@person_app.command("request")
def person_request(
    folder: Annotated[Path, typer.Argument(help="A new folder for the person's key.")],
    name: Annotated[str, typer.Option(help="The person's name.")],
    organisation: Annotated[str, typer.Option(help="Where the person works.")],
    role: Annotated[str, typer.Option(help="consortium_admin, privacy_officer, release_manager or authority.")],
    passphrase_file: PersonPassphrase = None,
    as_json: AsJson = False,
) -> None:
    """Make a person's signing key, which stays here, and a certificate request for the consortium.

    Put the consortium's reply into the same folder as person.crt.
    """
    from admin_api.onboarding import read_request, request_person

    with told():
        secret = passphrase(passphrase_file, PERSON_VARIABLE, "Passphrase for the new key", confirm=True)
        path = request_person(folder, name=name, organisation=organisation, role=role, passphrase=secret)
        asked = read_request(path)
    answer(
        {"request": str(path), "fingerprint": asked.fingerprint},
        [
            f"Request written to {path}.",
            f"Fingerprint of the key: {asked.fingerprint}; read it to the consortium.",
        ],
        as_json,
    )


# -- plan ----------------------------------------------------------------------------------------------------------


@plan_app.command("propose")
def plan_propose(
    name: Annotated[str, typer.Argument(help="A name for the plan.")],
    site: Annotated[list[str], typer.Option("--site", help="A hospital that trains; give it once per hospital.")],
    labels: Annotated[Path, typer.Option(help="File with the codes of the label space, one per line.")],
    epsilon: Annotated[float, typer.Option(help="Privacy loss per patient of the whole run.")],
    delta: Annotated[float, typer.Option(help="At most 1 in 10 times the number of patients.")],
    signer: PersonFolder,
    evaluate: Annotated[
        list[str] | None, typer.Option("--evaluate", help="A further hospital that evaluates only.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="Optimiser steps; the recipe's if not given.", min=1)] = None,
    features: Annotated[int, typer.Option(help="Columns of the hashed text encoder, a power of two.")] = 4096,
    colluders: Annotated[int, typer.Option(help="Hospitals that may work with the server.", min=1)] = 1,
    dropouts: Annotated[int, typer.Option(help="Hospitals that may drop out of a round.", min=0)] = 0,
    nominal_patients: Annotated[
        int | None,
        typer.Option(help="Public constant; from the hospitals' published manifests if not given.", min=1),
    ] = None,
    sampling_prob: Annotated[
        float, typer.Option(help="Chance of each patient to take part in a step.", min=1e-4, max=1.0)
    ] = 1.0,
    metrics_epsilon: Annotated[float, typer.Option(help="Privacy loss per validation patient of one report.")] = 4.0,
    passphrase_file: PersonPassphrase = None,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Build a plan, calibrate its noise, and put it up for approval."""
    from admin_api.planning import propose, published_patients
    from jobs.proposal import Wish, make_plan, read_labels

    with told():
        consortium = open_home(home)
        sites = tuple(sorted(set(site)))
        plan = make_plan(
            Wish(
                name=name,
                consortium=consortium.config().name,
                sites=sites,
                evaluation_sites=tuple(sorted({*sites, *(evaluate or [])})),
                label_space=read_labels(labels),
                nominal_patients=nominal_patients or published_patients(consortium, sites),
                epsilon=epsilon,
                delta=delta,
                rounds=rounds,
                sampling_prob=sampling_prob,
                features=features,
                colluders=colluders,
                dropouts=dropouts,
                metrics_epsilon=metrics_epsilon,
            ),
            cache_dir=consortium.path / "cache",
        )
        plan_hash = propose(consortium, plan, open_signer(consortium, signer, passphrase_file))
    answer({"plan_hash": plan_hash, "noise_multiplier": plan.noise_multiplier}, _plan_lines(plan_hash), as_json)


def _plan_lines(plan_hash: str) -> list[str]:
    return [f"Proposed as {plan_hash}.", f"A privacy officer reads it with `zegel plan show {plan_hash}`."]


@plan_app.command("show")
def plan_show(
    plan_hash: Annotated[str, typer.Argument(help="sha256:..., as it was proposed.")],
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Read a plan in plain words, with its forecast, as whoever approves it should."""
    from admin_api.planning import describe
    from jobs.records import load_plan

    with told():
        consortium = open_home(home)
        value, lines = describe(load_plan(consortium, plan_hash), cache_dir=consortium.path / "cache")
    answer(value, lines, as_json)


@plan_app.command("list")
def plan_list(home: Home = HERE, as_json: AsJson = False) -> None:
    """All proposed plans with their decisions."""
    from admin_api.planning import decisions
    from audit.entry import PLAN_PROPOSED

    with told():
        consortium = open_home(home)
        with consortium.log() as log:
            hashes = [entry.body["plan_hash"] for _, entry in log.entries(kind=PLAN_PROPOSED)]
        rows = [{"plan_hash": item, "decisions": decisions(consortium, "plan", item)} for item in hashes]
    lines = [
        f"{row['plan_hash']}  "
        + ("; ".join(f"{d['name']} ({d['role']}): {d['decision']}" for d in row["decisions"]) or "undecided")
        for row in rows
    ]
    answer({"plans": rows}, lines or ["No plan was proposed yet."], as_json)


@plan_app.command("approve")
def plan_approve(
    plan_hash: Annotated[str, typer.Argument(help="sha256:..., as it was proposed.")],
    signer: PersonFolder,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    refuse: Annotated[bool, typer.Option("--refuse", help="Refuse instead.")] = False,
    passphrase_file: PersonPassphrase = None,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Sign a decision about a plan; it goes into the audit log for ever."""
    _decide("plan", plan_hash, signer, reason, refuse, passphrase_file, home, as_json)


def _decide(
    kind: str,
    digest: str,
    signer: Path,
    reason: str,
    refuse: bool,
    file: Path | None,
    path: Path,
    as_json: bool,
) -> None:
    from admin_api.planning import decide

    with told():
        consortium = open_home(path)
        person = open_signer(consortium, signer, file)
        decide(consortium, kind, digest, person, approve=not refuse, reason=reason)
    verb = "refused" if refuse else "approved"
    answer(
        {"digest": digest, "decision": verb, "by": person.identity.name, "role": person.identity.role},
        [f"{person.identity} {verb} the {kind} {digest}."],
        as_json,
    )


# -- run -----------------------------------------------------------------------------------------------------------


@run_app.command("start")
def run_start(
    plan_hash: Annotated[str, typer.Argument(help="An approved plan.")],
    wait: Annotated[int, typer.Option(help="Seconds to wait for server and hospitals to be connected.", min=1)] = 60,
    timeout: Annotated[int, typer.Option(help="Seconds after which to stop watching; the run goes on.", min=1)] = 86400,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Carry out an approved plan and watch it to its end. With --json one JSON object per step.

    Ctrl-C stops watching, not the run; `zegel run status` shows it again.
    """
    from admin_api.running import start_run, watch
    from jobs.records import load_plan

    with told():
        consortium = open_home(home)
        plan = load_plan(consortium, plan_hash)
        started = start_run(consortium, plan_hash, timeout_s=wait)

        def tell(step: dict[str, Any]) -> None:
            typer.echo(json.dumps({"run_id": started.run_id, **step}) if as_json else _step_line(step))

        if not as_json:
            typer.echo(f"Run {started.run_id} of plan {plan.name}.")
        result = watch(consortium, started, tell=tell, timeout_s=timeout)
    answer(
        {"run_id": started.run_id, **result},
        [f"Finished after {result['rounds']} rounds: version {result['version']}."],
        as_json,
    )


def _step_line(step: dict[str, Any]) -> str:
    if step["stage"] == "training" and step["round"]:
        return (
            f"round {step['round']:>3} of {step['rounds']}   {len(step['participants'])} hospitals   "
            f"epsilon {step['epsilon']:.2f}   {step['round_seconds']:.2f} s"
        )
    return f"{step['stage']}   {len(step['participants'])} hospitals   after {step['seconds']:.1f} s"


@run_app.command("status")
def run_status(
    run_id: Annotated[str, typer.Argument(help="run-...")],
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Where a run is, or how it ended."""
    from jobs.records import read_progress, read_result

    with told():
        consortium = open_home(home)
        steps = read_progress(consortium, run_id)
        result = read_result(consortium, run_id)
    if not steps and result is None:
        typer.echo(f"zegel: no run {run_id} in {home}", err=True)
        raise typer.Exit(1)
    lines = [_step_line(steps[-1])] if steps else []
    lines.append(f"{result['status']}: {result.get('reason', result.get('version'))}" if result else "still running")
    answer({"run_id": run_id, "last_step": steps[-1] if steps else None, "result": result}, lines, as_json)


# -- release -------------------------------------------------------------------------------------------------------


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
         *(f"gate {g.name} {g.comparison} {g.threshold:g}: {g.value:.4g}, passed" for g in statement.gates)],
        as_json,
    )  # fmt: skip


@release_app.command("approve")
def release_approve(
    release: Annotated[str, typer.Argument(help="The candidate's name.")],
    signer: PersonFolder,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    refuse: Annotated[bool, typer.Option("--refuse", help="Refuse instead.")] = False,
    passphrase_file: PersonPassphrase = None,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Sign a decision about a candidate. A release manager and a privacy officer must approve, the proposer apart."""
    from admin_api.releasing import load_statement

    with told():
        digest = load_statement(open_home(home), release).digest
    _decide("release", digest, signer, reason, refuse, passphrase_file, home, as_json)


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
    lines = [f"{row['release']:20} {row['state']:10} {row['version']}" for row in rows]
    answer({"releases": rows}, lines or ["No release was proposed yet."], as_json)


@release_app.command("certify")
def release_certify(
    release: Annotated[str, typer.Argument(help="A candidate whose approvals suffice.")],
    out: Annotated[Path, typer.Option(help="Where to write the dossier, NAME.dossier.")],
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Certify a candidate and write its dossier, which anyone can check offline with `zegel verify`."""
    from admin_api.errors import ReleaseRefused
    from admin_api.releasing import certify

    with told():
        if out.exists():
            raise ReleaseRefused(f"{out} exists already; choose another name")
        data = certify(open_home(home), release)
        draft = out.with_name(f".{out.name}.draft")
        draft.write_bytes(data)
        draft.rename(out)
    answer(
        {"release": release, "dossier": str(out), "bytes": len(data)},
        [f"Certified {release}. Dossier: {out}, {len(data) / 1e6:.1f} MB.",
         f"Anyone checks it with: zegel verify {out} --root rootCA.pem"],
        as_json,
    )  # fmt: skip
