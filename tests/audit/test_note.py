"""Signed notes, checkpoints and proof files."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.checkpoint import (
    Checkpoint,
    format_proof,
    log_origin,
    open_checkpoint,
    parse_proof,
    sign_checkpoint,
)
from audit.errors import CheckpointError, NoteError
from audit.merkle import leaf_hash
from audit.note import MAX_SIGNATURES, VerifierKey, parse_note, sign_note, verify_note

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
VERIFIER = VerifierKey.of("log.example/a", KEY)
TEXT = "zegel dossier v1\nname\n"

# The key and note of the documentation of Go's golang.org/x/mod/sumdb/note, made by another implementation.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2p"
    "ZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


def test_a_note_made_by_go_verifies() -> None:
    key = VerifierKey.parse(GO_KEY)
    assert key.name == "PeterNeumann"
    assert str(key) == GO_KEY
    assert verify_note(GO_NOTE.encode(), key).startswith("If you think")
    with pytest.raises(NoteError, match="does not fit the text"):
        verify_note(GO_NOTE.replace("answer", "amswer").encode(), key)


def test_round_trip() -> None:
    data = sign_note(TEXT, VERIFIER.name, KEY)
    assert verify_note(data, VERIFIER) == TEXT
    assert VerifierKey.parse(str(VERIFIER)) == VERIFIER
    assert data == sign_note(TEXT, VERIFIER.name, KEY)


def test_text_may_hold_empty_lines() -> None:
    text = "a\n\nb\n\n"
    assert verify_note(sign_note(text, VERIFIER.name, KEY), VERIFIER) == text


def test_other_signatures_do_not_matter_but_ours_must_be_there() -> None:
    data = sign_note(TEXT, VERIFIER.name, KEY)
    foreign = sign_note(TEXT, "witness.example", OTHER).decode().rpartition("\n\n")[2].encode()
    assert verify_note(data + foreign, VERIFIER) == TEXT
    assert len(parse_note(data + foreign).signatures) == 2
    with pytest.raises(NoteError, match=r"expected a signature by log\.example/a"):
        verify_note(sign_note(TEXT, "witness.example", OTHER), VERIFIER)
    with pytest.raises(NoteError, match="expected a signature by"):
        verify_note(sign_note(TEXT, VERIFIER.name, OTHER), VERIFIER)


def test_every_changed_byte_is_noticed() -> None:
    data = sign_note(TEXT, VERIFIER.name, KEY)
    for position in range(len(data)):
        for bit in (1, 0x80):
            changed = data[:position] + bytes([data[position] ^ bit]) + data[position + 1 :]
            with pytest.raises(NoteError):
                verify_note(changed, VERIFIER)


SPOILED: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("no signature", lambda d: TEXT.encode()),
    ("empty", lambda d: b""),
    ("data after the signature", lambda d: d + b"x"),
    ("newline after the signature", lambda d: d + b"\n"),
    ("no newline at the end", lambda d: d[:-1]),
    ("CRLF", lambda d: d.replace(b"\n", b"\r\n")),
    ("hyphen for the dash", lambda d: d.replace("—".encode(), b"-")),
    ("two spaces", lambda d: d.replace("— ".encode(), "—  ".encode())),
    ("base64 without padding", lambda d: d.replace(b"=\n", b"\n")),
    ("not UTF-8", lambda d: b"\xff" + d),
    ("control character", lambda d: b"\x07" + d),
    ("too many signatures", lambda d: d + MAX_SIGNATURES * (d.rpartition(b"\n\n")[2])),
    ("too large", lambda d: b"x" * 1_000_001 + d),
]


@pytest.mark.parametrize(("name", "spoil"), SPOILED, ids=[name for name, _ in SPOILED])
def test_malformed_notes_are_refused(name: str, spoil: Callable[[bytes], bytes]) -> None:
    with pytest.raises(NoteError):
        verify_note(spoil(sign_note(TEXT, VERIFIER.name, KEY)), VERIFIER)


@pytest.mark.parametrize("text", ["", "\n", "no newline", "tab\t\n"])
def test_texts_that_cannot_be_signed(text: str) -> None:
    with pytest.raises(NoteError):
        sign_note(text, VERIFIER.name, KEY)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u2003b", "a\nb", "a\x7fb"])
def test_names_that_cannot_name_a_key(name: str) -> None:
    with pytest.raises(NoteError, match="key name"):
        VerifierKey.of(name, KEY)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "name+00000000",
        GO_KEY + "\n",
        GO_KEY.replace("c74f20a3", "C74F20A3"),
        GO_KEY.replace("c74f20a3", "c74f20a4"),
        GO_KEY.replace("Peter", "peter"),
        GO_KEY.replace("ARpc", "AhpC"),
        GO_KEY[:-1],
        GO_KEY[:-4],
    ],
)
def test_malformed_verifier_keys_are_refused(text: str) -> None:
    with pytest.raises(NoteError):
        VerifierKey.parse(text)


ROOT = leaf_hash(b"")
CHECKPOINT = Checkpoint(VERIFIER.name, 7, ROOT)


def test_checkpoint_round_trip() -> None:
    data = sign_checkpoint(CHECKPOINT, KEY)
    assert data.decode().split("\n")[:2] == ["log.example/a", "7"]
    assert open_checkpoint(data, VERIFIER) == CHECKPOINT


@pytest.mark.parametrize(
    "text",
    [
        "",
        "o\n7\n",
        "o\n7\nbjQLnP+zepicpUTmu3gKLHiQHT+zNzh2hRGjBhevoB0=",
        "\n7\nbjQLnP+zepicpUTmu3gKLHiQHT+zNzh2hRGjBhevoB0=\n",
        "o\n07\nbjQLnP+zepicpUTmu3gKLHiQHT+zNzh2hRGjBhevoB0=\n",
        "o\n-7\nbjQLnP+zepicpUTmu3gKLHiQHT+zNzh2hRGjBhevoB0=\n",
        "o\n٧\nbjQLnP+zepicpUTmu3gKLHiQHT+zNzh2hRGjBhevoB0=\n",
        "o\n9223372036854775808\nbjQLnP+zepicpUTmu3gKLHiQHT+zNzh2hRGjBhevoB0=\n",
        "o\n7\nbjQLnP+zepicpUTmu3gKLHiQHT+zNzh2hRGjBhevoB0\n",
        "o\n7\nQQ==\n",
        "o\n7\nbjQLnP+zepicpUTmu3gKLHiQHT+zNzh2hRGjBhevoB0=\nextra\n",
    ],
)
def test_malformed_checkpoints_are_refused(text: str) -> None:
    with pytest.raises(CheckpointError):
        Checkpoint.from_text(text)


def test_a_checkpoint_of_another_log_is_refused() -> None:
    data = sign_note(Checkpoint("log.example/b", 7, ROOT).to_text(), VERIFIER.name, KEY)
    with pytest.raises(CheckpointError, match=r"expected origin log\.example/a, got 'log\.example/b'"):
        open_checkpoint(data, VERIFIER)


def test_origins() -> None:
    assert log_origin("Zegel Demo") == "zegel-log/Zegel%20Demo"
    assert log_origin("a+b") == "zegel-log/a%2Bb"
    VerifierKey.of(log_origin("Ziekenhuis é / 1"), KEY)
    with pytest.raises(CheckpointError):
        log_origin("")


def test_proof_files() -> None:
    checkpoint = sign_checkpoint(CHECKPOINT, KEY)
    data = format_proof(3, [ROOT, leaf_hash(b"x")], checkpoint)
    assert data.startswith(b"c2sp.org/tlog-proof@v1\nindex 3\n")
    assert parse_proof(data) == (3, [ROOT, leaf_hash(b"x")], checkpoint)
    assert parse_proof(format_proof(0, [], checkpoint)) == (0, [], checkpoint)
    for bad in (
        b"",
        checkpoint,
        data.replace(b"@v1", b"@v2"),
        data.replace(b"index 3", b"index 03"),
        data.replace(b"index 3", b"index"),
        data.replace(b"index 3\n", b"index 3\nQQ==\n"),
        data.replace(b"index 3\n", b"index 3\nx\n"),
        data.replace(b"index 3\n", "index 3\né\n".encode()),
        format_proof(3, [ROOT] * 64, checkpoint),
    ):
        with pytest.raises(CheckpointError):
            parse_proof(bad)
