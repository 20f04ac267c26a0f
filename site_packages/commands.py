"""`zegel site`: what a hospital does on its own machine.

    request -> (consortium approves) -> install -> import -> budget set -> start
    renew -> (consortium renews) -> install -> stop, start

Every command works on the hospital's folder, `--home`, or the environment's ZEGEL_SITE_HOME.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from site_packages.data_commands import import_data
from site_packages.encoder_commands import encoder_app
from site_packages.officer_commands import budget_app, label_counts, ledger, recover_ledger, releases
from site_packages.options import HERE, AsJson, Home, answer, told

if TYPE_CHECKING:
    from site_packages.home import SiteHome

site_app = typer.Typer(
    no_args_is_help=True,
    help="A hospital's machine: request a certificate, install the kit, import data, set limits, run.",
)
site_app.add_typer(encoder_app, name="encoder")
site_app.command("import")(import_data)

EXPIRY_WARNING_DAYS = 30
LET_IN_S = 30.0


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
    """Check the reply against the root's fingerprint and install the hardened kit. Nothing starts yet.

    The reply to `zegel site renew` is kept beside the kit in use; the next `zegel site start` changes over.
    """
    from site_packages.home import SiteHome, utc_now
    from site_packages.installing import install as install_kit
    from site_packages.renewing import stage

    with told():
        site = SiteHome(home)
        identity = site.identity()
        renewing = site.kit.exists() and site.renewal.exists()
        if renewing:
            ends = stage(site, reply, fingerprint=fingerprint, now=utc_now())
        else:
            install_kit(site, reply, fingerprint=fingerprint)
            identity = site.identity()
    if renewing:
        answer(
            {"site": identity.name, "renewed": True, "certificate_ends": ends.strftime("%Y-%m-%dT%H:%M:%SZ")},
            [
                f"The renewed certificate of {identity.name} is valid until {ends:%Y-%m-%d}; the one in use stays so.",
                "Change over when no run is in the way: `zegel site stop`, then `zegel site start`.",
            ],
            as_json,
        )
        return
    answer(
        {"site": identity.name, "root_fingerprint": identity.root_fingerprint, "kit": str(site.kit)},
        [
            f"{identity.name} is installed in {site.kit}.",
            "Next: `zegel site import`, `zegel site budget set` for training and validation, `zegel site start`.",
        ],
        as_json,
    )


@site_app.command()
def renew(home: Home = HERE, as_json: AsJson = False) -> None:
    """Ask for a renewed certificate: a new key, which never leaves, and a request. The one in use stays valid.

    The consortium answers with `zegel consortium renew`; install the reply with `zegel site install`.
    """
    from jobs.federation.provisioning import read_site_request
    from site_packages.home import SiteHome
    from site_packages.renewing import request_renewal

    with told():
        path = request_renewal(SiteHome(home))
        _, fingerprint = read_site_request(path)
    answer(
        {"request": str(path), "fingerprint": fingerprint},
        [
            f"Request written to {path}; send it to the consortium.",
            f"Fingerprint of your new key: {fingerprint}; read it to them when they call.",
            "Next, with their reply: `zegel site install`. Nothing changes until then.",
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
def start(
    wait: Annotated[
        float,
        typer.Option(
            help="Seconds to wait until the server lets it in. A renewed certificate that was not let in by then makes "
            "way for the old one.",
            min=0,
        ),
    ] = LET_IN_S,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Start this hospital's client. It keeps running after this command; refuses a loosened kit.

    Exit code 1 if the server turns it away, with the reason. A server that is down makes it wait and try again.
    If a renewed certificate waits, it is started with that one, and with the old one again if the server does not let
    it in.
    """
    from jobs.federation import process
    from site_packages import renewing
    from site_packages.home import SiteHome, utc_now
    from site_packages.starting import start_client, start_until_let_in, waiting_to_be_let_in

    renewed, let_in = None, False
    with told():
        site = SiteHome(home)
        name = site.identity().name
        renewing.settle(site)
        if renewing.is_pending(site) and process.find(site.kit) is None:
            renewed = renewing.start_renewed(
                site,
                start=lambda: start_client(site, now=utc_now()),
                stop=lambda: process.stop(site.kit),
                let_in=waiting_to_be_let_in(site, timeout_s=wait),
                now=utc_now(),
            )
        else:
            let_in = start_until_let_in(site, clock=utc_now, timeout_s=wait)
        running = process.find(site.kit)
    lines = {
        None: [],
        renewing.RENEWED: ["The renewed certificate is in use; the old one is removed."],
        renewing.GONE_BACK: [
            f"The server did not let the renewed certificate in within {wait:g} s, so the old one is in use again. "
            "The next start tries once more."
        ],
        renewing.WAITING: ["The renewed certificate was not let in yet; the old one has ended. Is the server up?"],
    }[renewed]
    if running is None:
        lines.append(f"{name} ended again at once; the end of {site.kit / 'console.log'} says why.")
    else:
        lines.append(f"{name} is running as process {running.pid}; its own log is {site.kit / 'console.log'}.")
        if renewed is None and not let_in:
            lines.append("The server has not let it in yet; it asks again by itself.")
    let_in = let_in or renewed == renewing.RENEWED
    said = {"site": name, "pid": None if running is None else running.pid, "let_in": let_in, "renewal": renewed}
    answer(said, lines, as_json)
    if running is None or renewed in (renewing.GONE_BACK, renewing.WAITING):
        raise typer.Exit(1)


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
    from site_packages.renewing import settle

    with told():
        site = SiteHome(home)
        identity = site.identity()
        settle(site)
        ends = check_certificate(site.kit, identity.name, at=None)
        running = process.find(site.kit)
        renewal_step = _renewal_step(site)
    try:
        dataset: str | None = current_dataset(site.path).name
    except DataError:
        dataset = None
    days = (ends - datetime.now(UTC)).days
    lines = [
        f"{identity.name} is {'running as process ' + str(running.pid) if running else 'not running'}.",
        f"Certificate ended on {ends:%Y-%m-%d}: {renewal_step}"
        if days < 0
        else f"Certificate valid until {ends:%Y-%m-%d}, {days} days."
        + (f" Renew it now: {renewal_step}" if days < EXPIRY_WARNING_DAYS else ""),
        f"Data set in use: {dataset or 'none; run `zegel site import`'}.",
    ]
    answer(
        {
            "site": identity.name,
            "running": running is not None,
            "pid": running.pid if running else None,
            "certificate_ends": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "certificate_days": days,
            "certificate_ends_soon": days < EXPIRY_WARNING_DAYS,
            "dataset": dataset,
        },
        lines,
        as_json,
    )
    if running is None:
        raise typer.Exit(1)


def _renewal_step(site: SiteHome) -> str:
    """What its operator does next to renew the certificate."""
    from site_packages.renewing import is_pending

    if is_pending(site):
        return "the renewed one is here, `zegel site stop` and `zegel site start` change over."
    if site.renewal.exists():
        return "`zegel site renew` shows the request; send it to the consortium, install its reply."
    return "`zegel site renew`."


# What the officer decides stands last in the help.
site_app.add_typer(budget_app, name="budget")
site_app.command()(ledger)
site_app.command()(releases)
site_app.command("label-counts")(label_counts)
site_app.command("recover-ledger")(recover_ledger)
