"""A hospital's folder: identity, limits, data, ledger and NVFlare's kit, each file in one place.

    site.json       who this hospital is; `root_fingerprint` is null until the kit is installed
    limits.json     what the hospital allows at most (see guard.py)
    split.key       secret that deals patients to training, calibration and test for ever
    key/            the private key and the certificate request; the key never leaves
    kit/            NVFlare's startup kit, hardened
    data/           imported data sets; `data/current` names the one in use
    ledger.db       privacy spent, append-only
    given-head.json the newest head of the ledger that left this hospital; tells when the ledger was put back
    witness/        the hospital's witness key, and which checkpoint of the log it cosigned last
    revocations.note the log's list of revoked certificates as last seen, so that no older one is believed
    renewal/        a new key and request, and the consortium's reply, while a certificate is renewed
    outbox/         metrics as they were signed and released, so that they can be sent again
    rounds.db       which secure aggregations this hospital took part in, so that none is answered twice
    timings.jsonl   how long each call of the last run took here

Nothing here is shared between hospitals. Files are readable by their owner only.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509

from jobs.federation.provisioning import write_private
from site_packages.errors import SitePackagesError
from site_packages.limits import Limits

if TYPE_CHECKING:
    from audit.certificates import PrivateKey
    from privacy.ledger import Ledger
    from site_packages.participant import Participant


GIVEN_HEAD = "given-head.json"
TIMINGS = "timings.jsonl"
CONNECTED_FILE = "connected.json"  # in the kit: with which certificate the server let this hospital in


class HomeError(SitePackagesError):
    """The hospital's folder is missing something; the message says which command makes it."""


@dataclass(frozen=True)
class SiteIdentity:
    """Who the hospital is in its consortium."""

    name: str
    organisation: str
    consortium: str
    root_fingerprint: str | None


def utc_now() -> datetime:
    """The clock of a hospital's processes; tests pass their own."""
    return datetime.now(UTC)


class SiteHome:
    """Opens the parts of a hospital's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()

    @property
    def kit(self) -> Path:
        return self.path / "kit"

    @property
    def key_folder(self) -> Path:
        return self.path / "key"

    @property
    def renewal(self) -> Path:
        return self.path / "renewal"

    def create(self, name: str, organisation: str, consortium: str) -> None:
        """Lay out a new folder. Raises HomeError when it already is a hospital's."""
        if (self.path / "site.json").exists():
            raise HomeError(f"{self.path} already belongs to {self.identity().name}; choose another --home")
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path.chmod(0o700)
        write_private(self.path / "split.key", secrets.token_bytes(32))
        if not (self.path / "limits.json").exists():  # the hospital may have set its own before it asks to join
            Limits().write(self.path / "limits.json")
        self.write_identity(SiteIdentity(name, organisation, consortium, None))

    def identity(self) -> SiteIdentity:
        """Who this hospital is. Raises HomeError when the folder is not a hospital's."""
        try:
            value: dict[str, Any] = json.loads((self.path / "site.json").read_text(encoding="utf-8"))
            return SiteIdentity(**value)
        except FileNotFoundError:
            raise HomeError(f"{self.path} is not a hospital's folder; begin with `zegel site request`") from None
        except (ValueError, TypeError) as error:
            raise HomeError(f"{self.path / 'site.json'} cannot be read: {error}") from None

    def write_identity(self, identity: SiteIdentity) -> None:
        """Replace `site.json` in one step."""
        value = {
            "name": identity.name,
            "organisation": identity.organisation,
            "consortium": identity.consortium,
            "root_fingerprint": identity.root_fingerprint,
        }
        fresh = self.path / "site.json.new"
        fresh.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
        fresh.chmod(0o600)
        fresh.replace(self.path / "site.json")

    def limits(self) -> Limits:
        return Limits.read(self.path / "limits.json")

    def split_key(self) -> bytes:
        return (self.path / "split.key").read_bytes()

    def root(self) -> x509.Certificate:
        """The consortium's root, as installed; checked against the fingerprint noted at installation."""
        from audit.certificates import load_certificate, root_fingerprint

        root = load_certificate(self._installed("rootCA.pem"))
        expected = self.identity().root_fingerprint
        if root_fingerprint(root) != expected:
            raise HomeError(
                f"rootCA.pem is not the root that was installed: expected {expected}, got {root_fingerprint(root)}"
            )
        return root

    def certificate(self) -> x509.Certificate:
        from audit.certificates import load_certificate

        return load_certificate(self._installed("client.crt"))

    def signing_key(self) -> PrivateKey:
        from audit.signing_keys import load_private_key

        return load_private_key(self._installed("client.key"))

    def ledger(self) -> Ledger:
        from privacy.ledger import Ledger

        path = self.path / "ledger.db"
        if not path.exists():
            raise HomeError(f"{self.identity().name} has no ledger yet; `zegel site budget set` makes it")
        return Ledger.open(path, clock=utc_now, given_path=self.path / GIVEN_HEAD)

    def open_or_create_ledger(self) -> Ledger:
        """The ledger; made when there is none and never was one (its anchor or a head given away would be there)."""
        from privacy.ledger import Ledger

        path = self.path / "ledger.db"
        if not path.exists():
            return Ledger.create(path, site=self.identity().name, clock=utc_now, given_path=self.path / GIVEN_HEAD)
        return self.ledger()

    def recover_ledger(self, *, officer: str, reason: str) -> Ledger:
        """Declares the ledger's newest rows lost; see `Ledger.recover`."""
        from privacy.ledger import Ledger

        return Ledger.recover(
            self.path / "ledger.db",
            officer=officer,
            reason=reason,
            clock=utc_now,
            given_path=self.path / GIVEN_HEAD,
        )

    def known_codes(self) -> frozenset[str] | None:
        """The categories of the code table in use, from the first day in the data set on; None before an import.

        Raises: CodeTableError, ManifestError: the data set's code table or manifest cannot be believed.
        """
        from site_packages.codes import dataset_code_table
        from site_packages.dataset import current_dataset
        from site_packages.errors import DatasetError
        from site_packages.manifest import MANIFEST_NAME, parse_manifest

        try:
            folder = current_dataset(self.path)
        except DatasetError:
            return None
        table = dataset_code_table(folder)
        first = parse_manifest((folder / MANIFEST_NAME).read_bytes()).period_first
        return table.categories(first, utc_now().date())

    def participant(self) -> Participant:
        """The participant with this hospital's real keys, data, ledger, clock and randomness."""
        from audit.certificates import identity_of
        from jobs.plan import Plan
        from privacy.ledger import Ledger
        from privacy.secagg.memory import SqliteRoundMemory
        from site_packages.dataset import current_dataset, open_dataset, split_patients
        from site_packages.encoders import installed_digests
        from site_packages.local_work import LocalWork
        from site_packages.manifest import MANIFEST_NAME
        from site_packages.outbox import FileOutbox
        from site_packages.participant import Participant
        from site_packages.revocations import KnownRevocations
        from site_packages.timings_file import TimingsFile
        from site_packages.witnessing import HospitalWitness

        identity, key, certificate, root = self.identity(), self.signing_key(), self.certificate(), self.root()

        def load_work(plan: Plan) -> LocalWork:
            dataset = open_dataset(current_dataset(self.path))
            split = split_patients(dataset, self.split_key())
            models = self.path / "encoders"
            return LocalWork(plan, dataset.take(split.train), dataset.take(split.test), models=models)

        def manifest() -> bytes:
            return (current_dataset(self.path) / MANIFEST_NAME).read_bytes()

        return Participant(
            site=identity.name,
            consortium=identity.consortium,
            key=key,
            certificate=certificate,
            root=root,
            limits=self.limits(),
            # Unread: what is wrong with it is then refused with a reason, when a plan asks for it.
            ledger=Ledger.unread(self.path / "ledger.db", clock=utc_now, given_path=self.path / GIVEN_HEAD),
            memory=SqliteRoundMemory(self.path / "rounds.db"),
            outbox=FileOutbox(self.path / "outbox"),
            witness=HospitalWitness(
                self.path / "witness",
                site=identity.name,
                organisation=identity_of(certificate).organisation,
                consortium=identity.consortium,
                key=key,
                certificate=certificate,
                root=root,
                clock=utc_now,
            ),
            revocations=KnownRevocations(
                self.path / "revocations.note", consortium=identity.consortium, root=root, clock=utc_now
            ),
            manifest=manifest,
            load_work=load_work,
            known_codes=self.known_codes(),
            installed_encoders=installed_digests(self.path),
            random_bytes=os.urandom,
            clock=utc_now,
            timed=TimingsFile(self.path / TIMINGS),
        )

    def _installed(self, name: str) -> bytes:
        try:
            return (self.kit / "startup" / name).read_bytes()
        except FileNotFoundError:
            raise HomeError(f"{name} is not installed in {self.kit}; run `zegel site install`") from None
