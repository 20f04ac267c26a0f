"""The register: complete as of one tree, in one spelling, signed by the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.checkpoint import Checkpoint
from audit.entry import Entry
from audit.errors import DossierError, NoteError
from audit.note import VerifierKey, sign_note
from audit.register import HEADER, REGISTER_KINDS, check_register, register_of, sign_register

if TYPE_CHECKING:
    from tests.audit.conftest import Story
else:
    Story = object

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
TREE = Checkpoint("zegel-log/Demo", 100, bytes(32))
LOG = VerifierKey.of(TREE.origin, KEY)


@pytest.fixture(scope="module")
def entries(whole: Story) -> list[tuple[int, Entry]]:
    return list(enumerate(whole.entries))


def test_it_lists_every_entry_of_its_kinds(entries: list[tuple[int, Entry]]) -> None:
    listed = register_of(entries)
    assert set(listed.values()) == REGISTER_KINDS
    assert list(listed) == [index for index, entry in entries if entry.kind in REGISTER_KINDS]
    data = sign_register(listed, TREE, KEY)
    assert check_register(data, LOG, TREE, entries) == len(listed)
    assert sign_register(dict(reversed(listed.items())), TREE, KEY) == data
    assert check_register(sign_register({}, TREE, KEY), LOG, TREE, entries[:1]) == 0


def test_each_entry_is_missed_and_each_further_one_noticed(entries: list[tuple[int, Entry]]) -> None:
    listed = register_of(entries)
    data = sign_register(listed, TREE, KEY)
    for index, kind in listed.items():
        there = [item for item in entries if item[0] != index]
        with pytest.raises(DossierError, match=f"entry {index}: it says {kind}, the dossier holds nothing"):
            check_register(data, LOG, TREE, there)
        fewer = sign_register({each: what for each, what in listed.items() if each != index}, TREE, KEY)
        with pytest.raises(DossierError, match=f"entry {index}: it says nothing, the dossier holds {kind}"):
            check_register(fewer, LOG, TREE, entries)


HEAD = f"{HEADER}\n{TREE.to_text()}"
SPOILED: list[tuple[str, str, str]] = [
    ("another kind of note", TREE.to_text(), "expected the register of the checkpoint's tree"),
    ("another size", HEAD.replace("\n100\n", "\n101\n"), "expected the register of the checkpoint's tree"),
    ("another root", HEAD.replace("AAAA", "AAAB"), "expected the register of the checkpoint's tree"),
    ("a kind that does not belong", f"{HEAD}1 approval\n", "ascending lines of index and kind"),
    ("no kind", f"{HEAD}1\n", "ascending lines of index and kind"),
    ("a leading zero", f"{HEAD}01 gates.set\n", "ascending lines of index and kind"),
    ("twice", f"{HEAD}1 gates.set\n1 gates.set\n", "ascending lines of index and kind"),
    ("descending", f"{HEAD}2 gates.set\n1 gates.set\n", "ascending lines of index and kind"),
    ("words after", f"{HEAD}1 gates.set x\n", "ascending lines of index and kind"),
]


@pytest.mark.parametrize(("name", "text", "message"), SPOILED, ids=[case[0] for case in SPOILED])
def test_registers_that_are_refused(entries: list[tuple[int, Entry]], name: str, text: str, message: str) -> None:
    with pytest.raises(DossierError, match=message):
        check_register(sign_note(text, TREE.origin, KEY), LOG, TREE, entries)


def test_only_the_logs_key_signs_it(entries: list[tuple[int, Entry]]) -> None:
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    with pytest.raises(NoteError):
        check_register(sign_register(register_of(entries), TREE, other), LOG, TREE, entries)
