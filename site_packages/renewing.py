"""Renewing a hospital's certificate: a new key and request, and from the old certificate to the new one.

Both certificates count until the old one ends, so nobody else has to do anything, and this hospital starts once.

    renewal/request/    the new key and its request; the key never leaves
    renewal/startup/    the renewed kit's `startup`, checked and waiting for the next start
    renewal/previous/   the old `startup`, kept until the server let the new certificate in

What a crash leaves, and what `settle` makes of it before anything else is done:

| killed | on disk | afterwards |
|---|---|---|
| while a request or kit is made | an unnamed folder | it is made again |
| between the two renames of a swap | no `kit/startup`, both others | the swap is completed |
| between the two renames of the keys | no `key/`, `renewal/request` | the new key takes its place |
| while the old files are removed | `renewed/` | the rest is removed |
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from cryptography import x509

from audit.certificates import certificate_digest, identity_of, load_certificate, root_fingerprint
from jobs.federation import kit as kits
from jobs.federation.provisioning import build_kit, key_fingerprint, request_certificate
from site_packages.home import CONNECTED_FILE, HomeError, SiteHome
from site_packages.installing import check_certificate

RENEWED, GONE_BACK, WAITING = "renewed", "gone back", "waiting"


def request_renewal(home: SiteHome) -> Path:
    """Make a new key and a request for the same name; the certificate in use stays as it is.

    Returns: the request's path; the same one again while it is not answered. Raises: HomeError when nothing is
        installed, or a renewed certificate waits for its first start; ProvisioningError.
    """
    settle(home)
    identity = home.identity()
    home.root()
    if (home.renewal / "startup").exists() or (home.renewal / "previous").exists():
        raise HomeError("a renewed certificate waits for its first start: `zegel site stop`, then `zegel site start`")
    request = home.renewal / "request" / f"{identity.name}.request.zip"
    if request.exists():
        return request
    with tempfile.TemporaryDirectory(dir=home.path) as scratch:
        made = request_certificate(
            Path(scratch, "renewal", "request"),
            project=identity.consortium,
            name=identity.name,
            organisation=identity.organisation,
            kind="client",
        )
        kits.close_modes(Path(scratch, "renewal"))
        Path(scratch, "renewal").rename(home.renewal)
    return home.renewal / "request" / made.name


def stage(home: SiteHome, reply: Path, *, fingerprint: str, now: datetime) -> datetime:
    """Check the consortium's reply to the renewal and keep the renewed kit for the next start.

    Returns: when the new certificate ends. Raises: ProvisioningError (another root, a reply to another request),
        HomeError (another holder, no longer valid than the one in use); the certificate in use stays as it is.
    """
    settle(home)
    identity, old = home.identity(), home.certificate()
    if not (home.renewal / "request").exists():
        raise HomeError(f"{home.kit} is installed already; `zegel site renew` asks for a renewed certificate")
    if (home.renewal / "previous").exists():
        raise HomeError("a renewed certificate was started and not let in yet: `zegel site start` tries it again")
    with tempfile.TemporaryDirectory(dir=home.path) as scratch:
        kit, request = Path(scratch, "kit"), Path(scratch, "request")
        shutil.copytree(home.renewal / "request", request)  # NVFlare unpacks the reply there, also one we refuse
        build_kit(reply, request_folder=request, fingerprint=fingerprint, kit=kit)
        root = load_certificate((kit / "startup" / "rootCA.pem").read_bytes())
        if root_fingerprint(root) != home.identity().root_fingerprint:
            raise HomeError("the reply comes from another root than the one installed here; nothing was changed")
        ends = check_certificate(kit, identity.name, at=now)
        _check_renewed(load_certificate((kit / "startup" / "client.crt").read_bytes()), old)
        kits.close_modes(kit)
        shutil.rmtree(home.renewal / "startup", ignore_errors=True)  # of an earlier reply
        (kit / "startup").rename(home.renewal / "startup")
    return ends


def _check_renewed(new: x509.Certificate, old: x509.Certificate) -> None:
    before, after = identity_of(old), identity_of(new)
    if (after.organisation, after.role) != (before.organisation, before.role):
        raise HomeError(f"the reply is for {after}, this hospital is {before}; nothing was changed")
    if key_fingerprint(new) == key_fingerprint(old):
        raise HomeError("the reply holds the key in use, not the renewed one; nothing was changed")
    if new.not_valid_after_utc <= old.not_valid_after_utc:
        raise HomeError(
            f"the reply's certificate ends on {new.not_valid_after_utc:%Y-%m-%d}, no later than the one in use; "
            "nothing was changed"
        )


def is_staged(home: SiteHome) -> bool:
    """Whether a renewed certificate waits for the next start."""
    return (home.renewal / "startup").exists()


def start_renewed(
    home: SiteHome,
    *,
    start: Callable[[], object],
    stop: Callable[[], object],
    let_in: Callable[[], bool],
    now: datetime,
) -> str:
    """Start with the renewed certificate; with the old one again if the server does not let it in.

    Args:
        start, stop: this hospital's client.
        let_in: waits until the server let it in; false when it did not in time.
    Returns: RENEWED; GONE_BACK: the old certificate is in use again, and the next start tries the new one again; or
        WAITING: not let in yet, but the old one has ended, so there is nothing to go back to.
    """
    settle(home)
    if is_staged(home):
        (home.kit / "startup").rename(home.renewal / "previous")
        (home.renewal / "startup").rename(home.kit / "startup")
    start()
    if let_in():
        _forget_previous(home)
        return RENEWED
    old = load_certificate((home.renewal / "previous" / "client.crt").read_bytes())
    if old.not_valid_after_utc < now:
        return WAITING
    stop()
    (home.kit / "startup").rename(home.renewal / "startup")
    (home.renewal / "previous").rename(home.kit / "startup")
    start()
    return GONE_BACK


def is_pending(home: SiteHome) -> bool:
    """Whether a renewed certificate waits for a start, or for being let in."""
    return is_staged(home) or (home.renewal / "previous").exists()


def was_let_in(home: SiteHome) -> bool:
    """Whether the server let the certificate in use in, since the client was started."""
    try:
        noted = json.loads((home.kit / CONNECTED_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    return bool(noted == {"certificate": certificate_digest(home.certificate())})


def settle(home: SiteHome) -> None:
    """Finish what a crash interrupted; see the module's table."""
    renewal = home.renewal
    if not (home.kit / "startup").exists() and (renewal / "previous").exists() and is_staged(home):
        (renewal / "startup").rename(home.kit / "startup")
    if not home.key_folder.exists() and (renewal / "request").exists():
        _forget_previous(home)
    shutil.rmtree(home.path / "renewed", ignore_errors=True)


def _forget_previous(home: SiteHome) -> None:
    """The new key takes the old one's place, and the old files are removed."""
    if (home.renewal / "request").exists():
        if home.key_folder.exists():
            home.key_folder.rename(home.renewal / "key")
        (home.renewal / "request").rename(home.key_folder)
    if home.renewal.exists():
        home.renewal.rename(home.path / "renewed")
    shutil.rmtree(home.path / "renewed")
