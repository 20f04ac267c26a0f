"""NVFlare's certificate signing flow, called as it stands, with two things added.

The commands behind `nvflare cert` and `nvflare package` are run inside this process. Added are:

* the root key rests encrypted. For the moment of signing it is decrypted into an anonymous memory file that
  NVFlare reads through a symbolic link; the plain key never reaches a disk;
* NVFlare keeps notes of requests below the home folder of whoever runs it; here they go into the folder given.

A site's private key is made by `request_certificate` at the site and stays in its folder.
Source: nvflare 2.9, `nvflare.tool.cert.cert_commands`, `nvflare.tool.package.package_commands`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tempfile
import zipfile
import zlib
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from audit.canonical import digest_of
from jobs.errors import ProvisioningError

ROOT_VALID_DAYS = 3650
LEAF_VALID_DAYS = 365
MAX_MEMBER_BYTES = 1 << 16  # of a request's files
_FINGERPRINT = re.compile(r"(sha256:)?([0-9a-f]{2}:?){31}[0-9a-f]{2}", re.IGNORECASE)


def write_profile(folder: Path, *, project: str, host: str, fed_learn_port: int, admin_port: int) -> Path:
    """Write the project profile every NVFlare step reads; connections are mutual TLS over gRPC.

    Args:
        host: a name every hospital can resolve; it becomes the server certificate's subject alternative name.
        fed_learn_port, admin_port: TCP ports, 1-65535.
    """
    profile = {
        "name": project,
        "scheme": "grpc",
        "connection_security": "mtls",
        "server": {"host": host, "fed_learn_port": fed_learn_port, "admin_port": admin_port},
    }
    path = folder / "profile.yaml"
    path.write_text(yaml.safe_dump(profile, sort_keys=False), encoding="utf-8")
    return path


def create_root(folder: Path, *, profile: Path, passphrase: bytes) -> str:
    """Make the consortium's root certificate; the key is written encrypted with `passphrase`.

    Returns: NVFlare's spelling of the root's fingerprint, `SHA256:AA:BB:...`.
    Raises: ProvisioningError when the folder already holds a root.
    """
    from nvflare.tool.cert.cert_commands import handle_cert_init

    # NVFlare writes the key in the clear. It is made in a folder on a memory file system where there is one,
    # and only its encrypted form is moved to `folder`.
    if (folder / "rootCA.key").exists():
        raise ProvisioningError(f"{folder} already holds a root key; a consortium is founded once")
    with tempfile.TemporaryDirectory(dir=_memory_folder()) as scratch:
        result = _run(
            handle_cert_init,
            notes=folder,
            profile=str(profile),
            output_dir=scratch,
            org=None,  # a root with an O makes leaves that never verify (nvflare 2.9)
            force=False,
            valid_days=ROOT_VALID_DAYS,
            deploy_version=None,
            schema=False,
        )
        key = serialization.load_pem_private_key(Path(scratch, "rootCA.key").read_bytes(), password=None)
        encrypted = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(passphrase),
        )
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in ("rootCA.pem", "ca.json"):
            (folder / name).write_bytes(Path(scratch, name).read_bytes())
        write_private(folder / "rootCA.key", encrypted)
    return str(result["rootca_fingerprint_sha256"])


def request_certificate(
    folder: Path,
    *,
    project: str,
    name: str,
    organisation: str,
    kind: str,
    role: str | None = None,
    ports: tuple[int, int] | None = None,
) -> Path:
    """Make a private key and a certificate request; only the request may leave.

    Args:
        kind: `client`, `server` or `admin`; `role` names an admin's NVFlare role, `ports` a server's
            (fed_learn_port, admin_port).
    Returns: the path of `<name>.request.zip`.
    """
    from nvflare.tool.cert.cert_commands import handle_cert_request

    participant: dict[str, Any] = {"name": name, "type": kind, "org": organisation}
    if role is not None:
        participant["role"] = role
    if ports is not None:
        participant |= {"fed_learn_port": ports[0], "admin_port": ports[1]}
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory() as scratch:
        definition = Path(scratch, "participant.yaml")
        definition.write_text(yaml.safe_dump({"name": project, "participants": [participant]}), encoding="utf-8")
        result = _run(
            handle_cert_request,
            notes=folder,
            participant=str(definition),
            output_dir=str(folder),
            force=False,
            schema=False,
        )
    return Path(result["request_zip"])


def read_site_request(request: Path) -> tuple[dict[str, Any], str]:
    """What NVFlare's request says, and the fingerprint of the key it holds.

    Returns: the request's metadata (name, org, cert_type, ...) and `sha256:` of the key's SubjectPublicKeyInfo.
    Raises: ProvisioningError when it is not a request.
    """
    try:
        with zipfile.ZipFile(request) as archive:
            meta = json.loads(_member(archive, "request.json"))
            csr = x509.load_pem_x509_csr(_member(archive, f"{meta['name']}.csr"))
            fingerprint = key_fingerprint(csr)
        for field in ("name", "org", "cert_type"):
            # Shown on the admin's terminal, where control characters could forge a line.
            if not isinstance(meta[field], str) or not meta[field].isprintable():
                raise ValueError(f"{field} is not printable text")
    except _NOT_A_REQUEST as error:
        raise ProvisioningError(f"{request} is not a certificate request: {error}") from None
    return meta, fingerprint


# What opening an unknown zip file, its JSON and its key can raise; RuntimeError: an encrypted member.
_NOT_A_REQUEST = (
    *(OSError, EOFError, KeyError, ValueError, TypeError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, UnsupportedAlgorithm),
)


def key_fingerprint(holder: x509.CertificateSigningRequest | x509.Certificate) -> str:
    """What requester and consortium compare over another channel: `sha256:` of the SubjectPublicKeyInfo."""
    key = holder.public_key()
    return digest_of(key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as member:
        data = member.read(MAX_MEMBER_BYTES + 1)
    if len(data) > MAX_MEMBER_BYTES:
        raise ValueError(f"{name} is larger than {MAX_MEMBER_BYTES} bytes")
    return data


def approve_request(
    request: Path, *, ca: Path, profile: Path, passphrase: bytes, out: Path, valid_days: int = LEAF_VALID_DAYS
) -> None:
    """Sign a request with the root key and write the reply to `out`.

    Raises: ProvisioningError on a wrong passphrase, a tampered request, or an existing `out`.
    """
    from nvflare.tool.cert.cert_commands import handle_cert_approve

    with _opened_root(ca, passphrase) as opened:
        _run(
            handle_cert_approve,
            notes=opened,  # dropped with it: what was issued is in the consortium's own log
            request_zip=str(request),
            ca_dir=str(opened),
            profile=str(profile),
            signed_zip=str(out),
            valid_days=valid_days,
            force=False,
            schema=False,
        )


def build_kit(reply: Path, *, request_folder: Path, fingerprint: str, kit: Path) -> None:
    """Turn a signed reply into NVFlare's startup kit, after checking the root's fingerprint.

    Args:
        fingerprint: the root's SHA-256 as told to the hospital by another channel, with or without colons.
        kit: the folder to make; it must not exist.
    Raises: ProvisioningError, having made nothing: another root, a tampered reply, a reply to another request.
    """
    from nvflare.tool.package.package_commands import handle_package

    if _FINGERPRINT.fullmatch(fingerprint.strip()) is None:  # NVFlare would take an empty one for "do not check"
        raise ProvisioningError(
            f"root fingerprint {fingerprint!r}: expected sha256: and 64 hexadecimal digits, as the consortium told you "
            "by telephone or on paper; nothing was installed"
        )
    if kit.exists():
        raise ProvisioningError(f"{kit} exists already; move it away first")
    with tempfile.TemporaryDirectory(dir=kit.parent) as scratch:
        result = _run(
            handle_package,
            notes=request_folder,
            input=str(reply),
            expected_fingerprint=fingerprint.strip(),
            workspace=scratch,
            request_dir=str(request_folder),
            project_file=None,
            force=False,
            schema=False,
        )
        Path(result["output_dir"]).rename(kit)


def open_root_key(ca: Path, passphrase: bytes) -> Any:
    """The decrypted root key, for certificates that NVFlare has no form for (people, the log)."""
    try:
        return serialization.load_pem_private_key((ca / "rootCA.key").read_bytes(), password=passphrase)
    except FileNotFoundError:
        raise ProvisioningError(f"{ca} holds no root key; run `zegel consortium init` first") from None
    except (ValueError, TypeError):  # TypeError: an empty passphrase
        raise ProvisioningError("the passphrase does not open the root key; nothing was signed") from None


def write_private(path: Path, data: bytes) -> None:
    """Write a file only its owner can read, refusing to replace one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())


@contextlib.contextmanager
def _opened_root(ca: Path, passphrase: bytes) -> Iterator[Path]:
    """A folder that looks to NVFlare like `ca` with a plain key, while the plain key exists only in memory."""
    key = open_root_key(ca, passphrase)
    plain = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    with tempfile.TemporaryDirectory(dir=_memory_folder()) as scratch:
        opened = Path(scratch)
        for name in ("rootCA.pem", "ca.json"):
            (opened / name).write_bytes((ca / name).read_bytes())
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("zegel-root-key", os.MFD_CLOEXEC)
            try:
                os.write(descriptor, plain)
                # Opening /proc/self/fd/N starts a fresh read from the first byte each time.
                (opened / "rootCA.key").symlink_to(f"/proc/self/fd/{descriptor}")
                yield opened
            finally:
                os.close(descriptor)
        else:
            write_private(opened / "rootCA.key", plain)
            yield opened


def _memory_folder() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108  memory, not disk


def _run(command: Callable[[Namespace], Any], *, notes: Path, **arguments: Any) -> Mapping[str, Any]:
    """Run one NVFlare command function and return its result; its error becomes ours, with its advice."""
    from nvflare.tool import cli_output

    cli_output.set_output_format("json")
    out = io.StringIO()
    with (
        _home_folder(notes),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(io.StringIO()) as err,
        contextlib.suppress(SystemExit),
    ):  # NVFlare's commands report errors as JSON and then exit
        command(Namespace(**arguments))
    lines = [line for line in out.getvalue().splitlines() if line.startswith("{")]
    if not lines:
        raise ProvisioningError(f"NVFlare gave no answer: {err.getvalue().strip() or 'no message'}")
    answer = json.loads(lines[-1])
    if answer.get("status") != "ok":
        message = str(answer.get("message") or answer.get("error_code") or "refused")
        parts = [message, str(answer.get("detail") or ""), str(answer.get("hint") or "")]
        raise ProvisioningError(" ".join(part for part in parts if part))
    data = answer["data"]
    if not isinstance(data, dict):
        raise ProvisioningError(f"NVFlare answered with {type(data).__name__}, expected an object")
    return data


@contextlib.contextmanager
def _home_folder(folder: Path) -> Iterator[None]:
    before = os.environ.get("HOME")
    os.environ["HOME"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["HOME"]
        else:
            os.environ["HOME"] = before
