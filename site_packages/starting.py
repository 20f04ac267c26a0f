"""Starting a hospital's client: what is checked before, and how it is seen that the server let it in."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from jobs.errors import FederationError
from jobs.federation import kit as kits
from jobs.federation import process
from site_packages.home import CONNECTED_FILE, SiteHome
from site_packages.installing import check_certificate
from site_packages.renewing import was_let_in

POLL_S = 0.2
AGAIN_S = 1.0  # between the end of a client and its next start
TURNED_AWAY = "registration rejected: "  # NVFlare's client before the server's reason, in its log


def start_client(site: SiteHome, *, now: datetime) -> process.Process:
    """Start the client of an installed hospital.

    Raises: HomeError for a certificate that is another's or not valid now, ProvisioningError for a loosened kit,
        FederationError when it runs already, SitePackagesError and PrivacyError for limits or a ledger not in order.
    """
    identity = site.identity()
    check_certificate(site.kit, identity.name, at=now)
    site.root()
    site.limits()
    kits.check_hardened(site.kit, classes=kits.SITE_CLASSES)
    site.open_or_create_ledger()
    if process.find(site.kit) is None:
        (site.kit / CONNECTED_FILE).unlink(missing_ok=True)
    return process.start(
        process.site_command(site.kit, name=identity.name, organisation=identity.organisation),
        workspace=site.kit,
    )


def start_until_let_in(site: SiteHome, *, clock: Callable[[], datetime], timeout_s: float) -> bool:
    """Start the client and wait until the server let it in.

    A server that is only just coming up drops whoever reaches it, and NVFlare's client ends then: it is started again
    until the time is over. One that the server turned away is not.

    Returns: whether it was let in; if not it is running, and asks the server again by itself.
    Raises: what `start_client` raises; FederationError with the server's reason when it turns this hospital away, and
        when the client keeps ending for another one.
    """
    name, log = site.identity().name, site.kit / "console.log"
    deadline = time.monotonic() + timeout_s
    while True:
        said = log.stat().st_size if log.exists() else 0
        start_client(site, now=clock())
        if waiting_to_be_let_in(site, timeout_s=max(0.0, deadline - time.monotonic()))():
            return True
        if process.find(site.kit) is not None:
            return False
        if (reason := _turned_away(log, said)) is not None:
            raise FederationError(f"the server does not let {name} in: {reason}")
        if time.monotonic() > deadline:
            raise FederationError(f"{name} was started and ended again; the end of {log} says why")
        time.sleep(AGAIN_S)


def _turned_away(log: Path, since: int) -> str | None:
    """The server's reason, if it turned away the client that wrote the log from this byte on."""
    with log.open("rb") as handle:
        handle.seek(since)
        lines = handle.read().decode("utf-8", errors="replace").splitlines()
    return next((line.split(TURNED_AWAY, 1)[1] for line in reversed(lines) if TURNED_AWAY in line), None)


def waiting_to_be_let_in(site: SiteHome, *, timeout_s: float) -> Callable[[], bool]:
    """A function that waits until the server let the client in; false when it did not, or the client ended."""

    def wait() -> bool:
        deadline = time.monotonic() + timeout_s
        while not was_let_in(site):
            if time.monotonic() > deadline or process.find(site.kit) is None:
                return False
            time.sleep(POLL_S)
        return True

    return wait
