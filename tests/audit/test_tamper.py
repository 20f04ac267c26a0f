"""The tamper matrix: every member of a dossier, every way to spoil it, by a stranger and by the log's keeper.

A stranger can pack any zip file, with a manifest that fits. The log's keeper can also sign a fitting manifest. Both are
refused, and the message names the member, or what it holds.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from audit.archive import pack, unpack
from audit.checkpoint import log_origin
from audit.dossier import MANIFEST, MANIFEST_SIGNATURE, manifest_note, manifest_of
from audit.errors import DossierError
from audit.note import sign_note
from audit.verify import verify_dossier

if TYPE_CHECKING:
    from tests.audit.conftest import Story
else:
    Story = object

Members = dict[str, bytes]
Spoil = Callable[[Members, str], Members]


def kind_of(name: str) -> str:
    """Members of one kind are spoiled alike: `log/entries/7.json` and `log/entries/8.json`."""
    folder, separator, file = name.rpartition("/")
    return folder + separator + "*" + file[file.rindex(".") :] if file[0].isdigit() or len(file) > 60 else name


def other_of_kind(members: Members, name: str) -> str:
    """Another member with other bytes, of the same kind if there is one."""
    alike = [each for each in members if kind_of(each) == kind_of(name) and members[each] != members[name]]
    return (alike or [each for each in members if each != name and members[each] != members[name]])[0]


def changed(members: Members, name: str) -> Members:
    content = members[name]
    middle = len(content) // 2
    return {**members, name: content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]}


def removed(members: Members, name: str) -> Members:
    return {each: content for each, content in members.items() if each != name}


def emptied(members: Members, name: str) -> Members:
    return {**members, name: b""}


def cut(members: Members, name: str) -> Members:
    return {**members, name: members[name][:-1]}


def extended(members: Members, name: str) -> Members:
    return {**members, name: members[name] + b"\n"}


def swapped(members: Members, name: str) -> Members:
    other = other_of_kind(members, name)
    return {**members, name: members[other], other: members[name]}


def overwritten(members: Members, name: str) -> Members:
    return {**members, name: members[other_of_kind(members, name)]}


def renamed(members: Members, name: str) -> Members:
    stem, dot, suffix = name.rpartition(".")
    return {(f"{stem}9{dot}{suffix}" if each == name else each): content for each, content in members.items()}


def copied(members: Members, name: str) -> Members:
    stem, dot, suffix = name.rpartition(".")
    return {**members, f"{stem}9{dot}{suffix}": members[name]}


WAYS: dict[str, Spoil] = {
    way.__name__: way for way in (changed, removed, emptied, cut, extended, swapped, overwritten, renamed, copied)
}


def keeper_signs(told: Story, members: Members) -> Members:
    """The manifest and its signature made anew, unless they are what was spoiled."""
    manifest = manifest_of(members)
    note = sign_note(manifest_note("2027.1", manifest), log_origin("Zegel Demo"), told.log_key())
    return {**members, MANIFEST: manifest, MANIFEST_SIGNATURE: note}


def words_for(member: str) -> set[str]:
    """By which a message may name a member: its path, its entry, its digest."""
    stem = member.rpartition("/")[2].rpartition(".")[0]
    if member.startswith(("log/entries/", "log/proofs/")):
        founding = {"consortium.founded entry"} if stem == "0" else set()
        return {member, *founding, f"entry {stem} ", f"entry {stem}:", f"index {stem},", f"missing for {stem}"}
    further = {MANIFEST: {"the manifest says"}, "release.json": {"release 2027.1"}}
    return {member, *further.get(member, ())}


def mentions(error: DossierError, before: Members, after: Members, name: str) -> bool:
    """Whether the message names a member that is no longer what it was."""
    touched = {each for each in before.keys() | after.keys() if before.get(each) != after.get(each)} | {name}
    return any(word in f"{error} " for each in touched for word in words_for(each))


def representatives(members: Members) -> list[str]:
    """The first and the last member of each kind."""
    kinds: dict[str, list[str]] = {}
    for name in members:
        kinds.setdefault(kind_of(name), []).append(name)
    return sorted({name for each in kinds.values() for name in (each[0], each[-1])})


@pytest.mark.parametrize("way", WAYS, ids=list(WAYS))
def test_every_member_every_way(told: Story, dossier: bytes, way: str) -> None:
    members = unpack(dossier)
    for name in representatives(members):
        spoiled = WAYS[way](members, name)
        versions = {"as it is": spoiled, "by a stranger": {**spoiled, MANIFEST: manifest_of(spoiled)}}
        if name not in (MANIFEST, MANIFEST_SIGNATURE):
            versions["by the keeper"] = keeper_signs(told, spoiled)
        for who, version in versions.items():
            if version == members:
                continue  # the stranger's new manifest is the old one: the manifest itself was spoiled
            with pytest.raises(DossierError) as caught:
                verify_dossier(pack(version), told.keys.root_pem, now=told.now)
            assert mentions(caught.value, members, version, name), f"{name} {way} {who}: {caught.value}"


# -- the container: what zip files are abused for

LOCAL, CENTRAL, END = 0x04034B50, 0x02014B50, 0x06054B50


def zipped(listed: list[tuple[bytes, bytes]], *, flags: int = 0, method: int = 0, extra: bytes = b"") -> bytes:
    """A zip file with these members as they are given: any name, any order, any number of times."""
    parts, directory, offset = [], [], 0
    for name, content in listed:
        common = (10, flags, method, 0, 0x21, zlib.crc32(content), len(content), len(content), len(name), len(extra))
        header = struct.pack("<IHHHHHIIIHH", LOCAL, *common) + name + extra
        directory.append(struct.pack("<IHHHHHHIIIHHHHHII", CENTRAL, 10, *common, 0, 0, 0, 0, offset) + name + extra)
        parts += [header, content]
        offset += len(header) + len(content)
    size = sum(map(len, directory))
    end = struct.pack("<IHHHHIIH", END, 0, 0, len(listed), len(listed), size, offset, 0)
    return b"".join([*parts, *directory, end])


def listed(dossier: bytes) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), content) for name, content in unpack(dossier).items()]


def with_member(name: bytes) -> Callable[[bytes], bytes]:
    return lambda dossier: zipped(sorted([*listed(dossier), (name, b"x")]))


CONTAINERS: list[tuple[str, Callable[[bytes], bytes], str]] = [
    ("a member twice", lambda d: zipped(sorted([*listed(d), listed(d)[0]])), "listed twice"),
    (
        "a member twice, other bytes",
        lambda d: zipped(sorted([*listed(d), (b"plan.json", b"{}")])),
        "plan.json is listed",
    ),
    ("out of the folder", with_member(b"../plan.json"), "member name"),
    ("an absolute path", with_member(b"/etc/passwd"), "member name"),
    ("a Windows path", with_member(b"c:\\plan.json"), "member name"),
    ("a folder", with_member(b"log/"), "member name"),
    ("a folder and back", with_member(b"log/../plan.json"), "member name"),
    ("upper case", with_member(b"PLAN.json"), "member name"),
    ("a NUL", with_member(b"plan.json\0.txt"), "member name"),
    ("not ASCII", with_member("pl\u00e4n.json".encode()), "not ASCII"),
    ("no name", with_member(b""), "member name"),
    ("a long name", with_member(b"a" * 129), "member name"),
    ("another order", lambda d: zipped(list(reversed(listed(d)))), "not what the deterministic form"),
    ("a flag", lambda d: zipped(listed(d), flags=0x800), "not what the deterministic form"),
    ("a method", lambda d: zipped(listed(d), method=8), "not what the deterministic form"),
    ("an extra field", lambda d: zipped(listed(d), extra=b"xx\0\0"), ""),
    ("data before", lambda d: b"MZ" + d, "does not end as a dossier does"),
    ("data after", lambda d: d + b"PK", "does not end as a dossier does"),
    ("a comment", lambda d: d[:-2] + b"\x02\0hi", "does not end as a dossier does"),
    ("two archives", lambda d: d + d, "does not end as a dossier does"),
    ("cut", lambda d: d[:-30], "does not end as a dossier does"),
    ("one member more claimed", lambda d: d[:-14] + struct.pack("<H", 999) + d[-12:], ""),
    ("a bomb", lambda d: d[:-14] + struct.pack("<HH", 0xFFFF, 0xFFFF) + d[-10:], "at most 30000 members"),
]


@pytest.mark.parametrize(("name", "change", "message"), CONTAINERS, ids=[case[0] for case in CONTAINERS])
def test_tricks_with_the_container(
    told: Story, dossier: bytes, name: str, change: Callable[[bytes], bytes], message: str
) -> None:
    data = change(dossier)
    assert data != dossier
    with pytest.raises(DossierError) as caught:
        verify_dossier(data, told.keys.root_pem, now=told.now)
    assert caught.value.check == "container"
    assert message in str(caught.value)


def test_the_matrix_packs_as_the_writer_does(dossier: bytes) -> None:
    """So that each case above fails for its own change and no other."""
    assert zipped(listed(dossier)) == dossier
