"""What hospitals sign, checked before anybody relies on it: statements, and the protocol's keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from cryptography import x509

from audit.canonical import canonical_json
from audit.certificates import CLIENT, identity_of, public_key_of, verify_certificate
from audit.errors import AuditError, StatementError
from audit.schema import signed as signed_schema
from audit.signatures import verify_bytes
from audit.statement import SignedStatement, verify_statement
from jobs.standing import Standing

MAX_STATEMENT_BYTES = 8192  # of what a hospital signs; the log takes no entry above 65,535
MAX_METRICS_BYTES = 49_152  # of its metrics, which have an entry of their own


class SignedAnswers:
    """Checks hospitals' signatures against the consortium's certificates, those of them that count now.

    A hospital may hold several, while it renews one: each counts.

    Attributes: standing: whose certificates count; whoever learns of a newer one sets it.
    """

    def __init__(
        self,
        *,
        consortium: str,
        standing: Standing,
        root: x509.Certificate,
        clock: Callable[[], datetime],
    ) -> None:
        self._consortium = consortium
        self.standing = standing
        self._root = root
        self._clock = clock

    def statement(
        self,
        site: str,
        value: object,
        kind: str,
        expected: Mapping[str, Any],
        *,
        longest: int = MAX_STATEMENT_BYTES,
    ) -> SignedStatement:
        """A statement of this kind that `site` signed, with the fields expected of it.

        Raises: AuditError (an EntryError, StatementError or CertificateError) for anything else.
        """
        signed_schema(kind)(value, kind)
        signed = SignedStatement.from_json(value)
        if (size := len(canonical_json(signed.to_json()))) > longest:
            raise StatementError(f"signed statement of {size} bytes, at most {longest} allowed")
        identity = verify_statement(
            signed,
            self.standing.certificates,
            self._root,
            at=self._clock(),
            expected_type=kind,
            consortium=self._consortium,
            roles=frozenset({CLIENT}),
            revocations=self.standing.revocations,
        )
        if identity.name != site:
            raise StatementError(f"signed by {identity.name}, expected {site}")
        for field, wanted in expected.items():
            if signed.statement.get(field) != wanted:
                raise StatementError(f"{field}: expected {wanted!r}, got {signed.statement.get(field)!r}")
        return signed

    def key(self, site: str, data: bytes, signature: bytes) -> None:
        """Raises StatementError unless a certificate of `site` that counts now made the signature."""
        problems = []
        for digest, certificate in self.standing.certificates.items():
            if identity_of(certificate).name != site:
                continue
            try:
                self.standing.revocations.check(digest)
                verify_certificate(certificate, self._root, at=self._clock(), roles=frozenset({CLIENT}))
                verify_bytes(public_key_of(certificate), signature, data)
                return
            except AuditError as error:
                problems.append(str(error))
        raise StatementError(f"{site}: " + ("; ".join(problems) or "no certificate was issued to it"))
