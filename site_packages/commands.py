"""`zegel site`: what a hospital does on its own machine.

    request -> (consortium approves) -> install -> import -> budget set -> start

Every command works on the hospital's folder, `--home`, or the environment's ZEGEL_SITE_HOME.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from site_packages.data_commands import import_data
from site_packages.encoder_commands import encoder_app
from site_packages.officer_commands import budget_app, label_counts, ledger, recover_ledger, releases
from site_packages.options import HERE, AsJson, Home, answer, told

site_app = typer.Typer(
    no_args_is_help=True,
    help="A hospital's machine: request a certificate, install the kit, import data, set limits, run.",
)
site_app.add_typer(encoder_app, name="encoder")
site_app.command("import")(import_data)

EXPIRY_WARNING_DAYS = 30


@site_app.command()
def request(
    name: Annotated[str, typer.Option(help="The hospital's name in the consortium, such as sint-anna.")],
    organisation: Annotated[str, typer.Option(help="Letters, digits and _ only.")],
    consortium: Annotated[str, typer.Option(help="The consortium's name, as it told you.")],
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Make this hospital's private key, which never leaves, and a certificate request for the consortium."""
    from jobs.federation.provisioning import read_site_request
    from site_packages.home import SiteHome
    from site_packages.installing import request_site

    with told():
        path = request_site(SiteHome(home), name=name, organisation=organisation, consortium=consortium)
        _, fingerprint = read_site_request(path)
    answer(
        {"request": str(path), "fingerprint": fingerprint},
        [
            f"Request written to {path}; send it to the consortium.",
            f"Fingerprint of your key: {fingerprint}; read it to them when they call.",
            f"Your private key stays in {home / 'key'}. Next, with their reply: `zegel site install`.",
        ],
        as_json,
    )


@site_app.command()
def install(
    reply: Annotated[Path, typer.Argument(help="The consortium's reply, NAME.signed.zip.")],
    fingerprint: Annotated[
        str,
        typer.Option(help="SHA-256 of the consortium's root certificate, as told to you by another channel."),
    ],
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Check the reply against the root's fingerprint and install the hardened kit. Nothing starts yet."""
    from site_packages.home import SiteHome
    from site_packages.installing import install as install_kit

    with told():
        site = SiteHome(home)
        install_kit(site, reply, fingerprint=fingerprint)
        identity = site.identity()
    answer(
        {"site": identity.name, "root_fingerprint": identity.root_fingerprint, "kit": str(site.kit)},
        [
            f"{identity.name} is installed in {site.kit}.",
            "Next: `zegel site import`, `zegel site budget set` for training and validation, `zegel site start`.",
        ],
        as_json,
    )


@site_app.command()
def manifest(
    out: Annotated[Path, typer.Argument(help="Where to write the signed statement.")],
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Write the signed statement about the imported data set that the consortium logs: digest, counts, period."""
    from site_packages.home import SiteHome
    from site_packages.plain_releases import data_statement

    with told():
        statement = data_statement(SiteHome(home))
        out.write_text(json.dumps(statement), encoding="utf-8")
    answer(statement["statement"], [f"Written to {out}; it holds counts of at least 10 only."], as_json)


@site_app.command()
def start(home: Home = HERE, as_json: AsJson = False) -> None:
    """Start this hospital's client. It keeps running after this command; refuses a loosened kit."""
    from jobs.federation import kit as kits
    from jobs.federation import process
    from site_packages.home import SiteHome, utc_now
    from site_packages.installing import check_certificate

    with told():
        site = SiteHome(home)
        identity = site.identity()
        check_certificate(site.kit, identity.name, at=utc_now())
        site.root()
        site.limits()
        kits.check_hardened(site.kit, classes=kits.SITE_CLASSES)
        site.open_or_create_ledger()
        running = process.start(
            process.site_command(site.kit, name=identity.name, organisation=identity.organisation),
            workspace=site.kit,
        )
    answer(
        {"site": identity.name, "pid": running.pid},
        [f"{identity.name} is running as process {running.pid}; its own log is {site.kit / 'console.log'}."],
        as_json,
    )


@site_app.command()
def stop(home: Home = HERE, as_json: AsJson = False) -> None:
    """Stop this hospital's client and any job it runs. What was spent stays in the ledger."""
    from jobs.federation import process
    from site_packages.home import SiteHome

    with told():
        site = SiteHome(home)
        name = site.identity().name
        was_running = process.stop(site.kit)
    answer(
        {"site": name, "was_running": was_running},
        [f"{name} is stopped." if was_running else f"{name} was not running."],
        as_json,
    )


@site_app.command()
def status(home: Home = HERE, as_json: AsJson = False) -> None:
    """Is it running, how long is the certificate valid, which data set is in use. Exit code 1 if not running."""
    from jobs.federation import process
    from site_packages.dataset import current_dataset
    from site_packages.errors import DataError
    from site_packages.home import SiteHome
    from site_packages.installing import check_certificate

    with told():
        site = SiteHome(home)
        identity = site.identity()
        ends = check_certificate(site.kit, identity.name, at=None)
        running = process.find(site.kit)
    try:
        dataset: str | None = current_dataset(site.path).name
    except DataError:
        dataset = None
    days = (ends - datetime.now(UTC)).days
    lines = [
        f"{identity.name} is {'running as process ' + str(running.pid) if running else 'not running'}.",
        f"Certificate ended on {ends:%Y-%m-%d}; ask the consortium for a new one."
        if days < 0
        else f"Certificate valid until {ends:%Y-%m-%d}, {days} days."
        + (" Renew it now: ask the consortium." if days < EXPIRY_WARNING_DAYS else ""),
        f"Data set in use: {dataset or 'none; run `zegel site import`'}.",
    ]
    answer(
        {
            "site": identity.name,
            "running": running is not None,
            "pid": running.pid if running else None,
            "certificate_ends": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "certificate_days": days,
            "dataset": dataset,
        },
        lines,
        as_json,
    )
    if running is None:
        raise typer.Exit(1)


# What the officer decides stands last in the help.
site_app.add_typer(budget_app, name="budget")
site_app.command()(ledger)
site_app.command()(releases)
site_app.command("label-counts")(label_counts)
site_app.command("recover-ledger")(recover_ledger)
