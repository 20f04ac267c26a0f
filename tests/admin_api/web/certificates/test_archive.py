"""Archives from outside: what is no hospital's request is refused by name, and nothing is unpacked to a disk."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from admin_api.errors import OnboardingError
from admin_api.onboarding import MAX_REQUEST_BYTES
from admin_api.web.certificates.archive import check_archive
from jobs.federation.provisioning import MAX_MEMBER_BYTES

GOOD = {"request.json": b"{}", "site.yaml": b"a: 1", "amstel.csr": b"-----BEGIN"}


def packed(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return target.getvalue()


def with_attributes(name: str, mode: int) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for each, data in GOOD.items():
            info = zipfile.ZipInfo(each)
            info.external_attr = (mode if each == name else 0o100644) << 16
            archive.writestr(info, data)
    return target.getvalue()


def twice() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("request.json", b"{}")
        archive.writestr("site.yaml", b"{}")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("request.json", b"{}")
    return target.getvalue()


def understated() -> bytes:
    """The directory says that a member is small; it is not."""
    data = packed(GOOD | {"request.json": b" " * (MAX_MEMBER_BYTES * 40)})
    real = struct.pack("<I", MAX_MEMBER_BYTES * 40)
    return data.replace(real, struct.pack("<I", 2))


def flagged(bit: int) -> bytes:
    data = bytearray(packed(GOOD, zipfile.ZIP_STORED))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(signature)
        data[at + offset] |= bit
    return bytes(data)


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "no archive": (lambda: b"PK\x03\x04 and no more", "not an archive"),
    "nothing in it": (lambda: packed({}), "0 members"),
    "one more member": (lambda: packed(GOOD | {"more.txt": b""}), "4 members"),
    "many members": (lambda: packed({f"{n}.csr": b"" for n in range(5000)}), "5000 members"),
    "a bomb": (lambda: packed(GOOD | {"request.json": b" " * (1 << 26)}), "unpacks to"),
    "a bomb that says it is small": (understated, "unpacks to more|not an archive"),
    "a path upwards": (lambda: packed({"request.json": b"", "site.yaml": b"", "../evil.csr": b""}), "no plain file"),
    "an absolute path": (lambda: packed({"request.json": b"", "site.yaml": b"", "/etc/evil.csr": b""}), "no plain"),
    "a folder": (lambda: packed({"request.json": b"", "site.yaml": b"", "a/evil.csr": b""}), "into a folder"),
    "a Windows path": (lambda: packed({"request.json": b"", "site.yaml": b"", "C:evil.csr": b""}), "into a folder"),
    "a name with an escape": (lambda: packed({"request.json": b"", "site.yaml": b"", "\x1b[2J.csr": b""}), "no plain"),
    "a link": (lambda: with_attributes("amstel.csr", 0o120777), "not a plain file"),
    "a device": (lambda: with_attributes("amstel.csr", 0o020666), "not a plain file"),
    "a member twice": (twice, "each once"),
    "another member": (lambda: packed({"request.json": b"", "site.yaml": b"", "amstel.key": b""}), "each once"),
    "no request.json": (lambda: packed({"site.yaml": b"", "a.csr": b"", "b.csr": b""}), "each once"),
    "packed by bzip2": (lambda: packed(GOOD, zipfile.ZIP_BZIP2), "packed by method 12"),
    "encrypted": (lambda: flagged(0x1), "encrypted"),
    "too large": (lambda: b"PK\x03\x04" + bytes(MAX_REQUEST_BYTES), "bytes"),
}


def test_a_hospitals_request_has_this_shape() -> None:
    check_archive(packed(GOOD))
    check_archive(packed(GOOD, zipfile.ZIP_STORED))


@pytest.mark.parametrize("name", HOSTILE)
def test_anything_else_is_refused(name: str) -> None:
    make, message = HOSTILE[name]
    with pytest.raises(OnboardingError, match=message):
        check_archive(make())


@given(st.data())
@settings(derandomize=True, max_examples=200, deadline=None)
def test_whatever_happens_to_its_bytes_it_is_taken_or_refused(data: st.DataObject) -> None:
    archive = bytearray(packed(GOOD))
    for _ in range(data.draw(st.integers(1, 6))):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    try:
        check_archive(bytes(archive))
    except OnboardingError as error:
        assert "\x1b" not in str(error)
