"""A time stamping authority of the tests' own: `openssl ts` with keys and certificates made a moment ago."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

CONFIGURATION = """
[ca]
default_ca = authority
[tsa]
default_tsa = stamps
[stamps]
serial = {folder}/serial
signer_cert = {folder}/stamps.pem
{chain}
signer_key = {folder}/stamps.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha384, sha512
accuracy = secs:1
ess_cert_id_chain = no
ess_cert_id_alg = sha256
[req]
distinguished_name = nobody
[nobody]
[root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[stamping]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
"""


@dataclass(frozen=True)
class Authority:
    """An authority in a folder; `root` is its root certificate's file."""

    folder: Path
    started: datetime

    @property
    def root(self) -> Path:
        return self.folder / "root.pem"

    @classmethod
    def found(cls, folder: Path, key: tuple[str, ...] = ("-newkey", "rsa:2048"), *, chain: bool = True) -> Authority:
        """A new authority whose answers hold its root, too, when `chain`."""
        folder.mkdir(exist_ok=True)
        authority = cls(folder, cls.now())
        (folder / "openssl.cnf").write_text(
            CONFIGURATION.format(folder=folder, chain=f"certs = {folder}/root.pem" if chain else ""), encoding="utf-8"
        )
        (folder / "serial").write_text("01\n", encoding="utf-8")
        made = ("-config", "openssl.cnf", "-nodes")
        authority._run(
            *("req", "-x509", *key, *made, "-extensions", "root", "-subj", "/CN=Root", "-days", "30"),
            *("-keyout", "root.key", "-out", "root.pem"),
        )
        authority._run(
            *("req", *key, *made, "-subj", "/O=Notary/CN=Stamps", "-keyout", "stamps.key", "-out", "stamps.csr")
        )
        authority._run(
            *("x509", "-req", "-in", "stamps.csr", "-CA", "root.pem", "-CAkey", "root.key", "-set_serial", "2"),
            *("-days", "20", "-extfile", "openssl.cnf", "-extensions", "stamping", "-out", "stamps.pem"),
        )
        return authority

    @staticmethod
    def now() -> datetime:
        return datetime.now(UTC).replace(microsecond=0)

    def stamp(self, data: bytes, algorithm: str = "sha256") -> bytes:
        """A request for `data`, answered."""
        (self.folder / "data").write_bytes(data)
        self._run("ts", "-query", "-data", "data", f"-{algorithm}", "-cert", "-out", "request.tsq")
        return self.answer((self.folder / "request.tsq").read_bytes())

    def answer(self, request: bytes) -> bytes:
        """The answer to a request, as the authority would send it."""
        (self.folder / "request.tsq").write_bytes(request)
        self._run("ts", "-reply", "-config", "openssl.cnf", "-queryfile", "request.tsq", "-out", "answer.tsr")
        return (self.folder / "answer.tsr").read_bytes()

    def refusal(self) -> bytes:
        """The answer to a request for a digest the authority does not accept."""
        (self.folder / "data").write_bytes(b"data")
        self._run("ts", "-query", "-data", "data", "-sha224", "-cert", "-out", "request.tsq")
        return self.answer((self.folder / "request.tsq").read_bytes())

    def _run(self, *arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0 or (self.folder / arguments[-1]).is_file(), done.stderr
