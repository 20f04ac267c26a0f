"""`zegel consortium`: found it, approve and revoke certificates, log manifests, run its server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from admin_api.commands.backup import consortium_backup, consortium_restore
from admin_api.commands.certificates import (
    consortium_approve,
    consortium_certificates,
    consortium_decide,
    consortium_reinstate,
    consortium_renew,
    consortium_renew_own,
    consortium_revocations,
    consortium_revoke,
    consortium_suspend,
)
from admin_api.commands.enrol import consortium_enrol
from admin_api.commands.options import (
    HERE,
    ROOT_VARIABLE,
    AsJson,
    Home,
    PassphraseFile,
    answer,
    open_home,
    passphrase,
    told,
)
from admin_api.commands.serve import consortium_serve

consortium_app = typer.Typer(no_args_is_help=True, help="Found the consortium, approve certificates, run its server.")


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
            "Tell hospitals the fingerprint by telephone or on paper, not by the way you send replies.",
            "Next: people run `zegel person request`, hospitals `zegel site request`, you `zegel consortium start`.",
        ],
        as_json,
    )


consortium_app.command("decide")(consortium_decide)
consortium_app.command("approve")(consortium_approve)
consortium_app.command("enrol")(consortium_enrol)
consortium_app.command("renew")(consortium_renew)
consortium_app.command("renew-own")(consortium_renew_own)
consortium_app.command("certificates")(consortium_certificates)
consortium_app.command("suspend")(consortium_suspend)
consortium_app.command("reinstate")(consortium_reinstate)
consortium_app.command("revoke")(consortium_revoke)
consortium_app.command("revocations")(consortium_revocations)
consortium_app.command("serve")(consortium_serve)
consortium_app.command("backup")(consortium_backup)
consortium_app.command("restore")(consortium_restore)


@consortium_app.command("manifest")
def consortium_manifest(
    statement: Annotated[Path, typer.Argument(help="The signed statement a hospital made with `zegel site manifest`.")],
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Check a hospital's signed data manifest and write it to the audit log."""
    from admin_api.onboarding import log_manifest

    with told(home):
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
    """Start the federation's server. It keeps running after this command; refuses a loosened kit."""
    from admin_api.running import start_server

    with told(home):
        consortium = open_home(home)
        config = consortium.config()
        running = start_server(consortium)
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

    with told(home):
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
    """Is the server up, which hospitals are connected, which certificates end soon? Exit code 1 if it is not up."""
    from admin_api.holders import warning_line, warnings
    from jobs.federation import process
    from jobs.federation.session import open_session

    with told(home):
        consortium = open_home(home)
        ending = warnings(consortium)
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
            "certificates_ending": [each.to_json() for each in ending],
        },
        [
            f"The server runs as process {running.pid}." if running else "The server does not run.",
            f"Connected: {', '.join(connected) or 'nobody'}.",
            *(warning_line(each) for each in ending),
        ],
        as_json,
    )
    if running is None:
        raise typer.Exit(1)
