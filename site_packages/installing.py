"""Joining: the hospital's key and request, and the kit that comes back.

The private key is made here and stays here. A reply is installed only when the root's fingerprint is the one the
hospital was told by another channel, and the kit is hardened before it can start.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from audit.certificates import CLIENT, load_certificate, root_fingerprint, verify_certificate
from audit.errors import AuditError
from jobs.federation import kit as kits
from jobs.federation.provisioning import build_kit, request_certificate
from site_packages.home import HomeError, SiteHome


def request_site(home: SiteHome, *, name: str, organisation: str, consortium: str) -> Path:
    """Lay out the hospital's folder and make its key and certificate request.

    Returns: the request's path, to be sent to the consortium. Raises: HomeError, ProvisioningError.
    """
    existed = home.path.exists()
    if existed and not home.path.is_dir():
        raise HomeError(f"{home.path} is a file; choose a folder for --home")
    before = set(home.path.iterdir()) if existed else set()
    if home.key_folder in before and not (home.path / "site.json").exists():
        raise HomeError(f"{home.key_folder} already holds a key; choose another --home")
    try:
        home.create(name, organisation, consortium)
        request = request_certificate(
            home.key_folder, project=consortium, name=name, organisation=organisation, kind="client"
        )
        kits.close_modes(home.key_folder)
    except BaseException:  # also Ctrl-C: the folder must not claim a name that was never requested
        made = set(home.path.iterdir()) - before if existed else {home.path}
        for path in made:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        raise
    return request


def install(home: SiteHome, reply: Path, *, fingerprint: str) -> None:
    """Check the consortium's reply and put the hardened kit in place.

    Args:
        fingerprint: SHA-256 of the consortium's root, as told by another channel.
    Raises: ProvisioningError (another root, tampered reply), HomeError (already installed, another hospital's reply).
        Nothing is installed then.
    """
    identity = home.identity()
    if home.kit.exists():
        raise HomeError(
            f"{home.kit} is installed already; `zegel site renew` asks for a renewed certificate; to install another "
            "kit, stop it and move the folder away"
        )
    with tempfile.TemporaryDirectory(dir=home.path) as scratch:
        kit = Path(scratch, "kit")
        build_kit(reply, request_folder=home.key_folder, fingerprint=fingerprint, kit=kit)
        root = load_certificate((kit / "startup" / "rootCA.pem").read_bytes())
        check_certificate(kit, identity.name, at=None)
        kits.harden(kit, classes=kits.SITE_CLASSES, settings={"site_home": str(home.path)})
        # The kit is what makes an installation: a crash before it leaves a fingerprint that the next try replaces.
        home.write_identity(replace(identity, root_fingerprint=root_fingerprint(root)))
        kit.rename(home.kit)
    kits.close_modes(home.key_folder)  # NVFlare unpacked the reply there


def check_certificate(kit: Path, name: str, *, at: datetime | None) -> datetime:
    """Check that the kit's certificate is this hospital's and, if `at` is given, valid then.

    Returns: when the certificate ends. Raises: HomeError.
    """
    try:
        certificate = load_certificate((kit / "startup" / "client.crt").read_bytes())
        root = load_certificate((kit / "startup" / "rootCA.pem").read_bytes())
        moment = certificate.not_valid_before_utc if at is None else at
        identity = verify_certificate(certificate, root, at=moment, roles=frozenset({CLIENT}))
    except FileNotFoundError as error:
        raise HomeError(f"{error.filename} is missing; run `zegel site install`") from None
    except AuditError as error:
        raise HomeError(f"{error}. Ask the consortium for a new certificate.") from None
    if identity.name != name:
        raise HomeError(f"the certificate is for {identity.name}, this is {name}")
    return certificate.not_valid_after_utc
