"""The container: one spelling, readable by any zip program, nothing a zip file could be abused for."""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.archive import pack, unpack
from audit.errors import DossierError

MEMBERS = {"b.txt": b"second", "a/first.json": b"{}", "empty": b""}
NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,8}(/[a-z0-9][a-z0-9._-]{0,8}){0,2}", fullmatch=True)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.dictionaries(NAMES, st.binary(max_size=50), max_size=6))
def test_round_trip(members: dict[str, bytes]) -> None:
    data = pack(members)
    assert unpack(data) == members
    assert pack(dict(reversed(members.items()))) == data


def test_any_zip_program_can_read_it() -> None:
    with zipfile.ZipFile(io.BytesIO(pack(MEMBERS))) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == MEMBERS
        assert archive.namelist() == sorted(MEMBERS)


def test_every_changed_bit_is_noticed() -> None:
    data = pack(MEMBERS)
    for position in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            with pytest.raises(DossierError):
                unpack(bytes(changed))


def test_every_cut_is_noticed() -> None:
    data = pack(MEMBERS)
    for length in range(len(data)):
        with pytest.raises(DossierError):
            unpack(data[:length])
        with pytest.raises(DossierError):
            unpack(data[length + 1 :])


def zipped(write: Callable[[zipfile.ZipFile], object], *, mode: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", mode) as archive:
        write(archive)
    return buffer.getvalue()


def link(archive: zipfile.ZipFile) -> None:
    info = zipfile.ZipInfo("a")
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(info, "/etc/passwd")


def commented(archive: zipfile.ZipFile) -> None:
    archive.writestr("a", b"x")
    archive.comment = b"hello"


FOREIGN: list[tuple[str, bytes]] = [
    ("by another program", zipped(lambda z: z.writestr("a", b"x"))),
    ("compressed", zipped(lambda z: z.writestr("a", b"x" * 1000), mode=zipfile.ZIP_DEFLATED)),
    ("bomb", zipped(lambda z: z.writestr("a", bytes(10_000_000)), mode=zipfile.ZIP_DEFLATED)),
    ("upwards", zipped(lambda z: z.writestr("../a", b"x"))),
    ("absolute", zipped(lambda z: z.writestr("/etc/a", b"x"))),
    ("backslash", zipped(lambda z: z.writestr(zipfile.ZipInfo("a\\b"), b"x"))),
    ("folder", zipped(lambda z: z.writestr("a/", b""))),
    ("not ASCII", zipped(lambda z: z.writestr("é", b"x"))),
    ("link", zipped(link)),
    ("comment", zipped(commented)),
    ("data before", b"x" + pack(MEMBERS)),
    ("data after", pack(MEMBERS) + b"x"),
    ("another archive after", pack(MEMBERS) + pack({"a": b"x"})),
    ("empty file", b""),
    ("no archive", b"PK\x05\x06" * 10),
]


@pytest.mark.parametrize(("name", "data"), FOREIGN, ids=[name for name, _ in FOREIGN])
def test_other_archives_are_refused(name: str, data: bytes) -> None:
    with pytest.raises(DossierError):
        unpack(data)


def test_a_name_listed_twice_is_refused() -> None:
    data = pack({"a": b"x", "b": b"x"})
    with pytest.raises(DossierError, match="listed twice"):
        unpack(data.replace(b"b", b"a"))


def test_an_encrypted_member_is_refused() -> None:
    data = pack({"a": b"x"})
    changed = bytearray(data)
    changed[6] |= 1
    changed[data.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(DossierError, match="byte 6 is not what the deterministic form has"):
        unpack(bytes(changed))


@pytest.mark.parametrize("name", ["", "A", "../a", "/a", "a/", "a//b", "a/../b", ".a", "a b", "é", "a" * 129, "a\n"])
def test_names_that_cannot_be_packed(name: str) -> None:
    with pytest.raises(DossierError, match="member name"):
        pack({name: b""})


def test_too_many_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audit.archive.MAX_MEMBERS", 2)
    with pytest.raises(DossierError, match="at most 2 members, got 3"):
        pack(MEMBERS)
    monkeypatch.setattr("audit.archive.MAX_MEMBERS", 3)
    data = pack(MEMBERS)
    monkeypatch.setattr("audit.archive.MAX_MEMBERS", 2)
    with pytest.raises(DossierError, match="at most 2 members, got 3"):
        unpack(data)


def test_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pack(MEMBERS)
    monkeypatch.setattr("audit.archive.MAX_ARCHIVE_SIZE", len(data) - 1)
    with pytest.raises(DossierError, match=r"at most|expected"):
        pack(MEMBERS)
    with pytest.raises(DossierError, match="expected"):
        unpack(data)
    monkeypatch.setattr("audit.archive.MAX_ARCHIVE_SIZE", 5)
    with pytest.raises(DossierError, match=r"b\.txt goes beyond"):
        pack({"b.txt": b"longer"})
