"""Founding a consortium: root, log, server kit, submitting account, first entries.

Order, so that a failure leaves nothing behind: everything is made in a new folder, which is removed again when a step
fails. The log's first entry names the root and the log's key; whoever has the root certificate can check both.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import datetime, timedelta

from cryptography import x509

from admin_api.errors import OnboardingError
from audit.canonical import format_time
from audit.certificates import (
    LOG,
    certificate_digest,
    certificate_pem,
    identity_of,
    issue_certificate,
    load_certificate,
    root_fingerprint,
)
from audit.checkpoint import log_origin, log_verifier_key
from audit.entry import CERTIFICATE_ISSUED, CONSORTIUM_FOUNDED, Entry
from audit.errors import AuditError
from audit.signing_keys import generate_log_key, private_key_pem
from jobs.errors import ProvisioningError
from jobs.federation import kit as kits
from jobs.federation.provisioning import (
    LEAF_VALID_DAYS,
    approve_request,
    build_kit,
    create_root,
    open_root_key,
    request_certificate,
    write_private,
    write_profile,
)
from jobs.home import ConsortiumConfig, ConsortiumHome

LOG_VALID_DAYS = 3650  # a dossier is checked years later
MIN_PASSPHRASE_BYTES = 8
MAX_PASSPHRASE_BYTES = 1023  # what a PKCS 8 file can be encrypted with


def found(
    home: ConsortiumHome,
    *,
    name: str,
    organisation: str,
    server_host: str,
    fed_learn_port: int,
    admin_port: int,
    passphrase: bytes,
) -> ConsortiumConfig:
    """Found a consortium in a folder that does not exist yet.

    Args:
        name: of the consortium; NVFlare's project name, so letters, digits, `-`, `_` and `.` only.
        server_host: name all hospitals resolve to the server.
        passphrase: opens the root key; 8 to 1023 bytes.
    Raises: OnboardingError; the folder is as it was before.
    """
    existed = home.path.exists()
    if existed and not home.path.is_dir():
        raise OnboardingError(f"{home.path} is a file; a consortium is founded in a new folder")
    if existed and any(home.path.iterdir()):
        raise OnboardingError(f"{home.path} is not empty; a consortium is founded in a new folder")
    check_new_passphrase(passphrase, "root key")
    try:
        return _found(home, name, organisation, server_host, fed_learn_port, admin_port, passphrase)
    except BaseException as error:  # also Ctrl-C: half a consortium is worse than none
        shutil.rmtree(home.path, ignore_errors=True)
        if existed:
            home.path.mkdir(mode=0o700)
        if isinstance(error, (AuditError, ProvisioningError)):
            raise OnboardingError(f"consortium {name!r} of {organisation!r} was not founded: {error}") from None
        raise


def harden_server(home: ConsortiumHome) -> None:
    """Write the server kit's policies, which name the consortium's folder; again when the folder has moved."""
    kits.harden(
        home.server_kit,
        classes=kits.SERVER_CLASSES,
        settings={"consortium_home": str(home.path)},
        server_store=home.path / "server" / "store",
    )


def check_new_passphrase(passphrase: bytes, whose: str) -> None:
    """Raises OnboardingError unless a new key may be encrypted with it."""
    if not MIN_PASSPHRASE_BYTES <= len(passphrase) <= MAX_PASSPHRASE_BYTES:
        raise OnboardingError(
            f"the {whose}'s passphrase has {len(passphrase)} characters; "
            f"choose one of {MIN_PASSPHRASE_BYTES} to {MAX_PASSPHRASE_BYTES}"
        )


def _found(
    home: ConsortiumHome,
    name: str,
    organisation: str,
    server_host: str,
    fed_learn_port: int,
    admin_port: int,
    passphrase: bytes,
) -> ConsortiumConfig:
    home.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    home.path.chmod(0o700)
    for folder in ("ca", "artifacts", "disclosures", "runs", "server", "admin"):
        (home.path / folder).mkdir(mode=0o700)
    profile = write_profile(
        home.path, project=name, host=server_host, fed_learn_port=fed_learn_port, admin_port=admin_port
    )
    fingerprint = create_root(home.ca, profile=profile, passphrase=passphrase)
    root = home.root()
    admin_account = f"admin@{name}.zegel"

    _own_kit(
        home, name=name, participant=server_host, organisation=organisation, kind="server",
        passphrase=passphrase, fingerprint=fingerprint, ports=(fed_learn_port, admin_port),
    )  # fmt: skip
    harden_server(home)
    _own_kit(
        home, name=name, participant=admin_account, organisation=organisation, kind="admin",
        passphrase=passphrase, fingerprint=fingerprint, role="lead",
    )  # fmt: skip

    log_key = generate_log_key()
    now = home.clock().replace(microsecond=0)
    origin = log_origin(name)
    log_certificate = issue_certificate(
        log_key.public_key(),
        name=origin,
        organisation=organisation,
        role=LOG,
        root_cert=root,
        root_key=open_root_key(home.ca, passphrase),
        not_before=now,
        not_after=min(now + timedelta(days=LOG_VALID_DAYS), root.not_valid_after_utc),
    )
    write_private(home.path / "log.key", private_key_pem(log_key))
    (home.path / "log.crt").write_text(certificate_pem(log_certificate), encoding="ascii")
    config = ConsortiumConfig(
        name=name,
        organisation=organisation,
        server_host=server_host,
        fed_learn_port=fed_learn_port,
        admin_port=admin_port,
        admin_account=admin_account,
        root_fingerprint=root_fingerprint(root),
        nvflare_fingerprint=fingerprint,
        log_origin=origin,
        log_vkey=str(log_verifier_key(log_certificate)),
    )
    home.write_config(config)
    machines = [home.server_kit / "startup" / "server.crt", home.admin_kit / "startup" / "client.crt"]
    home.record(
        Entry(
            CONSORTIUM_FOUNDED,
            now,
            {
                "name": name,
                "root_certificate": certificate_digest(root),
                "log_vkey": config.log_vkey,
                "log_certificate": certificate_pem(log_certificate),
                "server": server_host,
            },
        ),
        *(issued_entry(load_certificate(path.read_bytes()), home) for path in machines),
    )
    kits.close_modes(home.path)
    return config


def issued_entry(certificate: x509.Certificate, home: ConsortiumHome) -> Entry:
    """The log entry for a certificate of one of the consortium's own machines."""
    return certificate_entry(certificate, holder=None, at=home.clock())


def certificate_entry(
    certificate: x509.Certificate, *, holder: str | None, at: datetime, approvals: Sequence[str] | None = None
) -> Entry:
    """The log entry for a certificate this consortium issued.

    `holder` is the commitment to a person's name, `approvals` those the certificate of a hospital or person rests on.
    """
    identity = identity_of(certificate)
    body = {
        "certificate": certificate_pem(certificate),
        "digest": identity.certificate_digest,
        "name": identity.name,
        "organisation": identity.organisation,
        "role": identity.role,
        "holder": holder,
        "not_before": format_time(certificate.not_valid_before_utc),
        "not_after": format_time(certificate.not_valid_after_utc),
    }
    return Entry(CERTIFICATE_ISSUED, at, body if approvals is None else {**body, "approvals": list(approvals)})


def _own_kit(
    home: ConsortiumHome,
    *,
    name: str,
    participant: str,
    organisation: str,
    kind: str,
    passphrase: bytes,
    fingerprint: str,
    role: str | None = None,
    ports: tuple[int, int] | None = None,
) -> None:
    """The consortium's own server and account go through the same request and approval as a hospital."""
    folder = home.path / kind
    request = request_certificate(
        folder / "request",
        project=name,
        name=participant,
        organisation=organisation,
        kind=kind,
        role=role,
        ports=ports,
    )
    reply = folder / f"{participant}.signed.zip"
    approve_request(
        request,
        ca=home.ca,
        profile=home.profile,
        passphrase=passphrase,
        out=reply,
        valid_days=LEAF_VALID_DAYS,
    )
    build_kit(reply, request_folder=folder / "request", fingerprint=fingerprint, kit=folder / "kit")
