"""What a hospital may answer instead of the truth, one lie per name."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from privacy.secagg.errors import SecAggError, SecAggMessageError, SecAggProtocolError, SecAggSignatureError
from privacy.secagg.messages import Announcement, KeyShares, MaskedVector, SurvivorsSignature, UnmaskAnswer
from tests.privacy.secagg.lies import LIAR, PEER, Lie, Wire

ANNOUNCEMENT, KEY_SHARES, VECTOR = Announcement.KIND, KeyShares.KIND, MaskedVector.KIND
SIGNATURE, ANSWER = SurvivorsSignature.KIND, UnmaskAnswer.KIND


def garble(blob: bytes, at: int) -> bytes:
    """One bit flipped."""
    return blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :]


def entries(blob: bytes) -> dict[str, bytes]:
    """The packed form of bytes by hospital, read by a second implementation."""
    found, rest = {}, blob
    while rest:
        name, rest = rest[1 : 1 + rest[0]], rest[1 + rest[0] :]
        length = int.from_bytes(rest[:2], "big")
        found[name.decode()], rest = rest[2 : 2 + length], rest[2 + length :]
    return found


def packed(values: dict[str, bytes]) -> bytes:
    """What `entries` reads."""
    return b"".join(
        bytes([len(s.encode())]) + s.encode() + len(v).to_bytes(2, "big") + v for s, v in sorted(values.items())
    )


def edit(name: str, change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> Callable[[Wire], Wire]:
    """Alters a field of bytes by hospital."""
    return lambda wire: wire | {name: packed(change(entries(wire[name])))}


def without_peer(values: dict[str, bytes]) -> dict[str, bytes]:
    """All but PEER's."""
    return {site: value for site, value in values.items() if site != PEER}


def garbled(shares: dict[str, bytes]) -> dict[str, bytes]:
    """Each share with one bit flipped."""
    return {site: garble(share, 20) for site, share in shares.items()}


def said(
    kind: str, alter: Callable[[Wire], Any], error: type[SecAggError], says: str = "", *, field: str | None = None
) -> Lie:
    """A lie of LIAR. A malformed message is named by its field; who sent it, the transport knows."""
    named = LIAR if field is None else f"{kind}.{field}"
    return Lie(kind=kind, site=LIAR, alter=lambda _, w: alter(w), error=error, named=named, says=says)


def changed(kind: str, error: type[SecAggError] = SecAggProtocolError, says: str = "", **fields: Any) -> Lie:
    """A lie that puts other values into fields."""
    return said(kind, lambda wire: wire | fields, error, says)


def malformed(kind: str, name: str, value: Callable[[Any], Any], says: str = "") -> Lie:
    """A field that no honest message has."""
    return said(kind, lambda wire: wire | {name: value(wire[name])}, SecAggMessageError, says, field=name)


def replayed(kind: str, says: str) -> Lie:
    """The message of round 1 once more."""
    lie = said(kind, lambda wire: wire, SecAggProtocolError, says)
    return replace(lie, alter=lambda scene, _: scene.earlier[LIAR, kind], replays=True)


def of_another(kind: str) -> Lie:
    """PEER's own message, sent once more by LIAR."""
    lie = changed(kind, says=f"names {PEER}")
    return replace(lie, alter=lambda scene, _: scene.honest[PEER, kind])


KINDS = {
    "announcement": ANNOUNCEMENT,
    "key shares": KEY_SHARES,
    "vector": VECTOR,
    "signature": SIGNATURE,
    "answer": ANSWER,
}
LIES: dict[str, Lie] = {
    **{f"another's name on its {what}": changed(kind, says=f"names {PEER}", site=PEER) for what, kind in KINDS.items()},
    **{f"another hospital's {what}": of_another(kind) for what, kind in KINDS.items()},
    **{f"its {what} of the round before": replayed(kind, "expected round 2, got 1") for what, kind in KINDS.items()},
    **{
        f"garbage for its {what}": said(kind, lambda _: {}, SecAggMessageError, field="type")
        for what, kind in KINDS.items()
    },
    "a bad channel signature": said(
        ANNOUNCEMENT, lambda w: w | {"channel_key": garble(w["channel_key"], 40)}, SecAggSignatureError
    ),
    "a bad mask key signature": said(
        ANNOUNCEMENT, lambda w: w | {"mask_key": garble(w["mask_key"], 40)}, SecAggSignatureError
    ),
    "an altered mask key": said(
        ANNOUNCEMENT, lambda w: w | {"mask_key": garble(w["mask_key"], 0)}, SecAggSignatureError
    ),
    "key shares not for all": said(KEY_SHARES, edit("shares", without_peer), SecAggProtocolError, PEER),
    "a key share for a stranger": said(
        KEY_SHARES, edit("shares", lambda s: s | {"stranger": bytes(61)}), SecAggProtocolError, "stranger"
    ),
    "a key share for itself": said(
        KEY_SHARES, edit("shares", lambda s: s | {LIAR: bytes(61)}), SecAggProtocolError, LIAR
    ),
    "a short key share": said(
        KEY_SHARES, edit("shares", lambda s: s | {PEER: bytes(60)}), SecAggMessageError, field="shares"
    ),
    "a short vector": malformed(VECTOR, "vector", lambda v: v[:-1], "5 coordinates of site-04, got 4"),
    "an oversized vector": malformed(VECTOR, "vector", lambda v: np.append(v, v[:1]), "got 6"),
    "an empty vector": malformed(VECTOR, "vector", lambda v: v[:0]),
    "the dtype of the other ring": malformed(VECTOR, "vector", lambda v: v.astype(np.uint32), "uint64 of site-04"),
    "a signed vector": malformed(VECTOR, "vector", lambda v: v.astype(np.int64)),
    "a vector of floats": malformed(VECTOR, "vector", lambda v: v.astype(np.float64)),
    "a list for a vector": malformed(VECTOR, "vector", lambda v: v.tolist()),
    "a vector of two axes": malformed(VECTOR, "vector", lambda v: v.reshape(1, -1)),
    "no seed shares": said(VECTOR, lambda w: w | {"shares": b""}, SecAggProtocolError, "shares missing"),
    "a missing seed share": said(VECTOR, edit("shares", without_peer), SecAggProtocolError, PEER),
    "a short commitment": malformed(VECTOR, "commitment", lambda _: bytes(31)),
    "a forged survivors' signature": changed(SIGNATURE, SecAggSignatureError, signature=bytes(64)),
    "a survivors' signature of one byte": changed(SIGNATURE, SecAggSignatureError, signature=b"x"),
    "a share too few": said(ANSWER, edit("self_mask_shares", without_peer), SecAggProtocolError),
    "a share of a stranger": said(
        ANSWER, edit("self_mask_shares", lambda s: s | {"stranger": bytes(33)}), SecAggProtocolError
    ),
    "a mask key share nobody asked for": said(
        ANSWER, edit("mask_key_shares", lambda _: {PEER: bytes(33)}), SecAggProtocolError
    ),
    "its own share unreadable": said(
        ANSWER,
        lambda w: (
            edit("self_mask_shares", lambda s: {k: v for k, v in s.items() if k != LIAR})(w) | {"unreadable": [LIAR]}
        ),
        SecAggProtocolError,
    ),
    "a short share": said(
        ANSWER, edit("self_mask_shares", lambda s: s | {PEER: bytes(32)}), SecAggMessageError, field="self_mask_shares"
    ),
    "a key for another round": changed(ANSWER, next_round=9),
    "no next key": changed(ANSWER, next_mask_key=None),
    "an unsigned next key": said(
        ANSWER, lambda w: w | {"next_mask_key": garble(w["next_mask_key"], 50)}, SecAggSignatureError
    ),
    "a next key shared with nobody": changed(ANSWER, next_shares=b""),
}
