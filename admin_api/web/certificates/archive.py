"""A hospital's request as an archive from outside: looked at before anything in it is opened.

What a hospital sends is three small files (`nvflare cert request`). Everything else is refused by name: other and
further members, members twice, paths, links, passwords, sizes that unpack to more than they should. Nothing is ever
unpacked to a disk here; members are read into memory, up to their limit, whatever the archive says about itself.

Source: APPNOTE 6.3.10 (ZIP).
"""

from __future__ import annotations

import io
import stat
import zipfile
import zlib

from admin_api.errors import OnboardingError
from admin_api.onboarding import MAX_REQUEST_BYTES
from jobs.federation.provisioning import MAX_MEMBER_BYTES

MEMBERS = 3  # request.json, site.yaml and the certificate request
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def check_archive(data: bytes) -> None:
    """Raises OnboardingError unless the archive has the shape of a hospital's request and unpacks to a few files."""
    if len(data) > MAX_REQUEST_BYTES:
        raise OnboardingError(f"the archive has {len(data)} bytes, a request at most {MAX_REQUEST_BYTES}")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            if len(infos) != MEMBERS:
                raise OnboardingError(f"the archive has {len(infos)} members, a hospital's request has {MEMBERS}")
            for info in infos:
                _check_member(info)
            names = [info.filename for info in infos]
            if not {"request.json", "site.yaml"} < set(names) or len(set(names)) != MEMBERS:
                raise OnboardingError("expected the members request.json, site.yaml and one .csr, each once")
            if not next(name for name in names if name not in ("request.json", "site.yaml")).endswith(".csr"):
                raise OnboardingError("expected the members request.json, site.yaml and one .csr, each once")
            for info in infos:
                with archive.open(info) as member:
                    if len(member.read(MAX_MEMBER_BYTES + 1)) > MAX_MEMBER_BYTES:
                        raise OnboardingError(f"{info.filename!r} unpacks to more than {MAX_MEMBER_BYTES} bytes")
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError, OSError) as error:
        raise OnboardingError(f"not an archive that can be read: {error}") from None


def _check_member(info: zipfile.ZipInfo) -> None:
    name = info.filename
    if not name.isprintable() or not name or any(part in ("", ".", "..") for part in name.split("/")):
        raise OnboardingError(f"the archive names a member {name!r}, which is no plain file name")
    if "/" in name or "\\" in name or ":" in name:
        raise OnboardingError(f"the archive names a member {name!r}, which leads into a folder")
    if info.flag_bits & 0x1:
        raise OnboardingError(f"{name!r} is encrypted")
    if info.compress_type not in _METHODS:
        raise OnboardingError(f"{name!r} is packed by method {info.compress_type}, expected stored or deflated")
    mode = info.external_attr >> 16
    if mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode):
        raise OnboardingError(f"{name!r} is not a plain file")
    if info.file_size > MAX_MEMBER_BYTES:
        raise OnboardingError(f"{name!r} unpacks to {info.file_size} bytes, expected at most {MAX_MEMBER_BYTES}")
