"""The consortium's folder, as the server's job and the admin's commands see it.

consortium.json   name, server, ports, root fingerprint, log origin; log_url when the log is kept in PostgreSQL
profile.yaml      NVFlare's project profile
ca/               root certificate and its encrypted key
log.db            the audit log; log.key signs it, log.crt says whose key that is, log.checkpoint is the last signed
disclosures/      names and reasons that the log only commits to, one file each; `zegel audit erase` removes one
artifacts/        plans, models and statements by digest
server/ admin/    NVFlare's kits of the server and of the account that submits jobs; server/presence.json: who connected
requests/         certificate requests that came in through the pages, and the replies to them
runs/             per run: the submitted job and the coordinator's progress
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from jobs.errors import FederationError

if TYPE_CHECKING:
    from audit.artifacts import Artifacts
    from audit.disclosure_store import Disclosures
    from audit.entry import Entry
    from audit.store import Log


@dataclass(frozen=True)
class ConsortiumConfig:
    """What `consortium.json` holds."""

    name: str
    organisation: str
    server_host: str
    fed_learn_port: int
    admin_port: int
    admin_account: str
    root_fingerprint: str  # sha256:<hex of the DER>, as read out to hospitals
    nvflare_fingerprint: str  # the same digest in NVFlare's spelling
    log_origin: str
    log_vkey: str
    log_url: str | None = None  # the log's database when it is PostgreSQL, without a password; null: log.db


def utc_now() -> datetime:
    """The clock of the consortium's processes; tests pass their own."""
    return datetime.now(UTC)


class ConsortiumHome:
    """Opens the parts of a consortium's folder."""

    def __init__(self, path: Path, clock: Callable[[], datetime] = utc_now) -> None:
        self.path = path.resolve()
        self.clock = clock

    @property
    def ca(self) -> Path:
        return self.path / "ca"

    @property
    def profile(self) -> Path:
        return self.path / "profile.yaml"

    @property
    def server_kit(self) -> Path:
        return self.path / "server" / "kit"

    @property
    def admin_kit(self) -> Path:
        return self.path / "admin" / "kit"

    def run_folder(self, run_id: str) -> Path:
        """Where a run's job and progress lie. Raises FederationError for what cannot be a run's name."""
        if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", run_id) is None:
            raise FederationError(f"{run_id!r} is not the name of a run; `zegel run start` prints it, run-...")
        return self.path / "runs" / run_id

    def config(self) -> ConsortiumConfig:
        """Raises FederationError when the folder is not a consortium's."""
        path = self.path / "consortium.json"
        try:
            value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return ConsortiumConfig(**value)
        except FileNotFoundError:
            raise FederationError(
                f"{self.path} is not a consortium's folder; found one with `zegel consortium init`"
            ) from None
        except (ValueError, TypeError) as error:
            raise FederationError(f"{path} cannot be read: {error}") from None

    def write_config(self, config: ConsortiumConfig) -> None:
        path = self.path / "consortium.json"
        path.write_text(json.dumps(asdict(config), indent=2) + "\n", encoding="utf-8")
        path.chmod(0o600)

    def root(self) -> x509.Certificate:
        from audit.certificates import load_certificate

        return load_certificate((self.ca / "rootCA.pem").read_bytes())

    def artifacts(self) -> Artifacts:
        from audit.artifacts import Artifacts

        return Artifacts(self.path / "artifacts")

    def disclosures(self) -> Disclosures:
        """The personal values beside the log."""
        from audit.disclosure_store import FOLDER, Disclosures

        return Disclosures(self.path / FOLDER)

    def log(self) -> Log:
        """The audit log: log.db in this folder, or where `log_url` in consortium.json says. Raises LogError."""
        from audit.database import log_url
        from audit.store import open_log

        config = self.config()
        url = log_url(self.path, config.log_url)
        return open_log(url, origin=config.log_origin, checkpoint_path=self.path / "log.checkpoint")

    def log_key(self) -> Ed25519PrivateKey:
        """The key that signs the log's checkpoints."""
        from audit.signing_keys import load_private_key

        key = load_private_key((self.path / "log.key").read_bytes())
        if not isinstance(key, Ed25519PrivateKey):
            raise FederationError(f"{self.path / 'log.key'} is not an Ed25519 key; the log cannot be signed")
        return key

    def sign_checkpoint(self) -> bytes:
        """Sign the log as it stands now; the last signed checkpoint is kept apart from the database."""
        with self.log() as log:
            return log.sign_checkpoint(self.log_key(), self.clock)

    def record(self, *entries: Entry) -> None:
        """Append entries to the log and sign it. Raises LogError; a log that refuses got none of them."""
        with self.log() as log:
            log.append(entries)
        self.sign_checkpoint()

    def certificates(self) -> dict[str, x509.Certificate]:
        """All certificates this consortium issued, by digest, as the log has them."""
        from audit.certificates import load_certificate
        from audit.entry import CERTIFICATE_ISSUED

        with self.log() as log:
            return {
                entry.body["digest"]: load_certificate(entry.body["certificate"].encode("ascii"))
                for _, entry in log.entries(kind=CERTIFICATE_ISSUED)
            }
