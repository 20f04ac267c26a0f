"""Starting a hospital's client: what is checked before, and how it is seen that the server let it in."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from jobs.federation import kit as kits
from jobs.federation import process
from site_packages.home import CONNECTED_FILE, SiteHome
from site_packages.installing import check_certificate
from site_packages.renewing import was_let_in

POLL_S = 0.2


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
