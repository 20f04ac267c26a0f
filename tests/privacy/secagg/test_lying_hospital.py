"""A hospital that lies, one lie per case: refused and named, or the sum stays exact; never a wrong sum."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from privacy.secagg.errors import (
    SecAggError,
    SecAggMessageError,
    SecAggProtocolError,
    SecAggShareError,
    SecAggSignatureError,
)
from privacy.secagg.messages import UnmaskAnswer
from privacy.secagg.simulate import Federation, seeded_randomness

N = 7  # threshold 5
DIMENSION = 6
LIAR, PEER, LAST = "site-04", "site-05", "site-07"
VECTOR, SIGNATURE, ANSWER = "secagg-masked-vector", "secagg-survivors-signature", "secagg-unmask-answer"
Wire = dict[str, Any]


def make(n: int = N) -> tuple[Federation, dict[str, np.ndarray[Any, np.dtype[np.int64]]]]:
    federation = Federation.of(n, dimension=DIMENSION, allowed_dropouts=2, randomness=seeded_randomness(8))
    rng = np.random.default_rng(8)
    return federation, {site: rng.integers(-(2**50), 2**50, DIMENSION) for site in federation.clients}


def lie_as(federation: Federation, kind: str, alter: Callable[[Wire], Wire], *liars: str) -> None:
    federation.tap = lambda site, wire: alter(wire) if site in (liars or (LIAR,)) and wire["type"] == kind else wire


def garble(blob: bytes, at: int) -> bytes:
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
    return b"".join(
        bytes([len(s.encode())]) + s.encode() + len(v).to_bytes(2, "big") + v for s, v in sorted(values.items())
    )


def edit(field: str, change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> Callable[[Wire], Wire]:
    return lambda wire: wire | {field: packed(change(entries(wire[field])))}


def without_peer(values: dict[str, bytes]) -> dict[str, bytes]:
    return {site: value for site, value in values.items() if site != PEER}


SET_UP_LIES: dict[str, tuple[str, Callable[[Wire], Wire], type[SecAggError]]] = {
    "another's name": ("secagg-announcement", lambda w: w | {"site": PEER}, SecAggProtocolError),
    "another round": ("secagg-announcement", lambda w: w | {"round": 2}, SecAggProtocolError),
    "a bad channel signature": (
        "secagg-announcement",
        lambda w: w | {"channel_key": garble(w["channel_key"], 40)},
        SecAggSignatureError,
    ),
    "a bad mask signature": (
        "secagg-announcement",
        lambda w: w | {"mask_key": garble(w["mask_key"], 40)},
        SecAggSignatureError,
    ),
    "an altered mask key": (
        "secagg-announcement",
        lambda w: w | {"mask_key": garble(w["mask_key"], 0)},
        SecAggSignatureError,
    ),
    "shares not for all": ("secagg-key-shares", edit("shares", without_peer), SecAggProtocolError),
    "shares for a stranger": (
        "secagg-key-shares",
        edit("shares", lambda s: s | {"stranger": bytes(61)}),
        SecAggProtocolError,
    ),
    "a share for itself": (
        "secagg-key-shares",
        edit("shares", lambda s: s | {LIAR: bytes(61)}),
        SecAggProtocolError,
    ),
    "short shares": (
        "secagg-key-shares",
        edit("shares", lambda s: s | {PEER: bytes(60)}),
        SecAggMessageError,
    ),
    "garbage": ("secagg-key-shares", lambda w: {"type": "x"}, SecAggMessageError),
}


@pytest.mark.parametrize("lie", SET_UP_LIES)
def test_lies_in_the_set_up_are_refused_and_the_others_go_on(lie: str) -> None:
    kind, alter, error = SET_UP_LIES[lie]
    federation, vectors = make()
    lie_as(federation, kind, alter)
    federation.set_up(1)
    assert type(federation.refused[LIAR]) is error
    assert set(federation.server.ready) == set(federation.clients) - {LIAR}
    aggregate = federation.run_round(vectors)
    assert np.array_equal(aggregate.total, np.sum([vectors[s] for s in aggregate.survivors], axis=0))


VECTOR_LIES: dict[str, tuple[Callable[[Wire], Wire], type[SecAggError], str]] = {
    "a short vector": (lambda w: w | {"vector": w["vector"][:-1]}, SecAggMessageError, "vector"),
    "an oversized vector": (
        lambda w: w | {"vector": np.append(w["vector"], w["vector"][:1])},
        SecAggMessageError,
        "vector",
    ),
    "an empty vector": (lambda w: w | {"vector": w["vector"][:0]}, SecAggMessageError, "vector"),
    "the dtype of the other ring": (
        lambda w: w | {"vector": w["vector"].astype(np.uint32)},
        SecAggMessageError,
        "vector",
    ),
    "a float vector": (
        lambda w: w | {"vector": w["vector"].astype(np.float64)},
        SecAggMessageError,
        "vector",
    ),
    "a list": (lambda w: w | {"vector": w["vector"].tolist()}, SecAggMessageError, "vector"),
    "two axes": (lambda w: w | {"vector": w["vector"].reshape(2, 3)}, SecAggMessageError, "vector"),
    "the wrong round": (lambda w: w | {"round": 2}, SecAggProtocolError, "expected round 1, got 2"),
    "another's name": (lambda w: w | {"site": PEER}, SecAggProtocolError, "names site-05"),
    "no shares": (lambda w: w | {"shares": b""}, SecAggProtocolError, "shares missing"),
    "a missing share": (edit("shares", without_peer), SecAggProtocolError, "site-05"),
    "a short commitment": (lambda w: w | {"commitment": bytes(31)}, SecAggMessageError, "commitment"),
    "garbage": (lambda w: {}, SecAggMessageError, "type"),
}


@pytest.mark.parametrize("lie", VECTOR_LIES)
def test_a_bad_masked_vector_is_refused_and_its_sender_counts_as_dropped(lie: str) -> None:
    alter, error, message = VECTOR_LIES[lie]
    federation, vectors = make()
    federation.set_up(1)
    lie_as(federation, VECTOR, alter)
    aggregate = federation.run_round(vectors)
    assert type(federation.refused[LIAR]) is error
    assert message in str(federation.refused[LIAR])
    assert aggregate.dropped == (LIAR,)
    assert np.array_equal(aggregate.total, np.sum([vectors[s] for s in aggregate.survivors], axis=0))


def test_a_second_vector_or_share_of_one_hospital_is_refused() -> None:
    federation, vectors = make()
    federation.set_up(1)
    server = federation.server
    requests = server.start_round()
    client = federation.clients[LIAR]
    client.open_round(requests[LIAR])
    message = client.mask(vectors[LIAR])
    server.receive_masked_vector(LIAR, message)
    with pytest.raises(SecAggProtocolError, match="second vector"):
        server.receive_masked_vector(LIAR, message)
    with pytest.raises(SecAggProtocolError, match="names site-04 as its sender"):
        server.receive_masked_vector(PEER, message)


def test_a_second_answer_of_one_hospital_is_refused() -> None:
    federation, vectors = make()
    federation.set_up(1)
    seen: list[Wire] = []

    def tap(site: str, wire: Wire) -> Wire:
        if wire["type"] == ANSWER:
            seen.append(wire)
            if len(seen) == 2:
                with pytest.raises(SecAggProtocolError, match="a second time"):
                    federation.server.receive_answer(str(seen[0]["site"]), UnmaskAnswer.from_message(seen[0]))
        return wire

    federation.tap = tap
    federation.run_round(vectors)
    assert len(seen) == N


@pytest.mark.parametrize("forged", [bytes(64), b"x"])
def test_a_forged_survivors_signature_is_refused(forged: bytes) -> None:
    federation, vectors = make()
    federation.set_up(1)
    lie_as(federation, SIGNATURE, lambda wire: wire | {"signature": forged})
    aggregate = federation.run_round(vectors)
    assert type(federation.refused[LIAR]) is SecAggSignatureError
    assert LIAR not in aggregate.signatures
    assert np.array_equal(aggregate.total, np.sum(list(vectors.values()), axis=0))


def garble_shares(shares: dict[str, bytes]) -> dict[str, bytes]:
    return {site: garble(share, 20) for site, share in shares.items()}


@pytest.mark.parametrize("liars", [(LIAR,), ("site-01", LAST), ("site-01", "site-02")])
@pytest.mark.parametrize("field", ["self_mask_shares", "mask_key_shares"])
def test_garbage_shares_are_found_and_named_and_the_sum_is_exact(field: str, liars: tuple[str, ...]) -> None:
    federation, vectors = make(10)  # threshold 7, 9 answers
    federation.set_up(1)
    alter = edit(field, garble_shares)

    def tap(site: str, wire: Wire) -> Wire | None:
        if site == PEER and wire["type"] == VECTOR:
            return None
        return alter(wire) if site in liars and wire["type"] == ANSWER else wire

    federation.tap = tap
    aggregate = federation.run_round(vectors)
    assert aggregate.suspects == tuple(sorted(liars))
    assert aggregate.dropped == (PEER,)
    assert np.array_equal(aggregate.total, np.sum([vectors[s] for s in aggregate.survivors], axis=0))


def test_too_many_garbage_shares_fail_the_round_never_the_sum() -> None:
    federation, vectors = make()
    federation.set_up(1)
    lie_as(federation, ANSWER, edit("self_mask_shares", garble_shares), *sorted(vectors)[:4])
    with pytest.raises(SecAggShareError, match=r"self mask seed of site-0\d in round 1"):
        federation.run_round(vectors)
    assert federation.server.ready == ()


@pytest.mark.parametrize(
    ("field", "owner"), [("shares", "self mask seed of site-04"), ("commitment", "self mask seed of site-04")]
)
def test_a_dealer_of_garbage_is_named_and_fails_the_round(field: str, owner: str) -> None:
    """The price of not proving shares: a hospital can spoil a round it takes part in, but not falsify it."""
    federation, vectors = make()
    federation.set_up(1)
    alter = edit("shares", garble_shares) if field == "shares" else lambda w: w | {field: bytes(32)}
    lie_as(federation, VECTOR, alter)
    with pytest.raises(SecAggShareError, match=owner):
        federation.run_round(vectors)


def test_one_garbage_share_of_a_dealer_is_reported_and_does_no_harm() -> None:
    federation, vectors = make()
    federation.set_up(1)
    lie_as(federation, VECTOR, edit("shares", lambda s: s | {PEER: garble(s[PEER], 30)}))
    aggregate = federation.run_round(vectors)
    assert aggregate.suspects == (LIAR, PEER)  # one of the two; nobody else can tell which
    assert np.array_equal(aggregate.total, np.sum(list(vectors.values()), axis=0))


ANSWER_LIES: dict[str, tuple[Callable[[Wire], Wire], type[SecAggError]]] = {
    "a share too few": (edit("self_mask_shares", without_peer), SecAggProtocolError),
    "a share of a stranger": (
        edit("self_mask_shares", lambda s: s | {"stranger": bytes(33)}),
        SecAggProtocolError,
    ),
    "a mask key nobody asked for": (
        edit("mask_key_shares", lambda s: {PEER: bytes(33)}),
        SecAggProtocolError,
    ),
    "its own share unreadable": (
        lambda w: (
            edit("self_mask_shares", lambda s: {k: v for k, v in s.items() if k != LIAR})(w) | {"unreadable": [LIAR]}
        ),
        SecAggProtocolError,
    ),
    "a short share": (edit("self_mask_shares", lambda s: s | {PEER: bytes(32)}), SecAggMessageError),
    "the wrong round": (lambda w: w | {"round": 2}, SecAggProtocolError),
    "a key for another round": (lambda w: w | {"next_round": 3}, SecAggProtocolError),
    "no next key": (lambda w: w | {"next_mask_key": None}, SecAggProtocolError),
    "an unsigned next key": (
        lambda w: w | {"next_mask_key": garble(w["next_mask_key"], 50)},
        SecAggSignatureError,
    ),
    "its own key of this round again": (lambda w: w | {"next_shares": b""}, SecAggProtocolError),
    "another's name": (lambda w: w | {"site": PEER}, SecAggProtocolError),
}


@pytest.mark.parametrize("lie", ANSWER_LIES)
def test_a_bad_answer_is_refused_and_the_sum_is_exact_without_it(lie: str) -> None:
    alter, error = ANSWER_LIES[lie]
    federation, vectors = make()
    federation.set_up(1)
    lie_as(federation, ANSWER, alter)
    aggregate = federation.run_round(vectors)
    assert type(federation.refused[LIAR]) is error
    assert np.array_equal(aggregate.total, np.sum(list(vectors.values()), axis=0))
    assert LIAR not in federation.server.ready
    federation.tap = lambda _site, wire: wire
    assert federation.run_round(vectors).survivors == tuple(s for s in sorted(vectors) if s != LIAR)


def test_a_poisoned_vector_is_summed_exactly_as_the_docs_say() -> None:
    """Masking hides what a hospital sends, poison included: only the aggregate can be looked at."""
    federation, vectors = make()
    federation.set_up(1)
    vectors[LIAR] = np.full(DIMENSION, 2**60)
    aggregate = federation.run_round(vectors)
    assert np.array_equal(aggregate.total, np.sum(list(vectors.values()), axis=0))
    assert float(np.linalg.norm(aggregate.total.astype(np.float64))) > 2**60
