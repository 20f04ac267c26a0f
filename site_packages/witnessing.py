"""The hospital as a witness of the consortium's log.

A hospital that takes part in a run is shown the log's checkpoint and cosigns it if it continues the last one this
hospital saw. A log that was set back, or that shows this hospital another history, is refused and the evidence kept.

The log's key comes from the certificate the root vouches for, so a coordinator cannot name a key of its own. The
witness's folder is made with the first run; its key belongs to this hospital by a signed enrolment.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.certificates import LOG, PrivateKey, load_certificate, verify_certificate
from audit.checkpoint import log_verifier_key
from audit.enrolment import enrolment_statement
from audit.statement import sign_statement
from audit.witness import Witness, create_witness
from audit.witness_protocol import answer


class HospitalWitness:
    """Cosigns the consortium's log for one hospital.

    Args:
        folder: the witness's; made when there is none.
        organisation: as in the hospital's certificate.
        key, certificate: the hospital's, which bind the witness's key to it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        site: str,
        organisation: str,
        consortium: str,
        key: PrivateKey,
        certificate: x509.Certificate,
        root: x509.Certificate,
        clock: Callable[[], datetime],
    ) -> None:
        self._folder = folder
        self._name = f"zegel-witness/{quote(consortium, safe='')}/{quote(site, safe='')}"
        self._organisation = organisation
        self._consortium = consortium
        self._key = key
        self._certificate = certificate
        self._root = root
        self._clock = clock
        self._witness: Witness | None = None

    def enrol(self, log_certificate: str) -> dict[str, Any]:
        """Watch the log of this certificate (PEM); returns the signed enrolment of the witness's key, as JSON.

        Raises: CertificateError when the root does not vouch for the log, WitnessStateError when the witness's memory
            is lost or the log has another key than before.
        """
        certificate = load_certificate(log_certificate.encode("ascii"))
        verify_certificate(certificate, self._root, at=self._clock(), roles=frozenset({LOG}))
        log = log_verifier_key(certificate)
        if (self._folder / "witness.json").exists():
            self._witness = Witness(self._folder, self._clock)
            self._witness.trust(log)
        else:
            self._witness = create_witness(self._folder, self._name, [log], Ed25519PrivateKey.generate(), self._clock)
        statement = enrolment_statement(
            self._consortium, self._name, self._organisation, self._witness.private_key, self._clock()
        )
        return sign_statement(statement, self._key, self._certificate).to_json()

    def cosign(self, request: bytes) -> dict[str, Any]:
        """Answer a request to cosign; what is wrong with it is in the answer. Raises RuntimeError before `enrol`."""
        if self._witness is None:
            raise RuntimeError("expected the log's certificate before a request to cosign")
        return dict(answer(self._witness, request).to_json())
