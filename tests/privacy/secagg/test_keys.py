"""Keys, derivations, signed bytes and sealed shares: everything is bound to what it is for."""

from typing import Any

import pytest

from privacy.secagg import keys
from privacy.secagg.errors import SecAggProtocolError, SecAggSignatureError
from privacy.secagg.parameters import SecAggParameters
from privacy.secagg.sealing import SEALED_SHARE_BYTES, open_share, seal_share
from privacy.secagg.simulate import seeded_randomness


def terms(run_id: str = "run-1", consortium: str = "demo") -> SecAggParameters:
    return SecAggParameters(
        consortium=consortium, run_id=run_id, sites=("a", "b", "c"), dimension=4, allowed_dropouts=0
    )


def test_the_public_key_is_x25519_of_the_base_point() -> None:
    # RFC 7748 section 5.2: the iterated vector after one iteration, k = u = 9.
    secret = b"\x09" + bytes(31)
    expected = "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
    assert keys.public_key(secret).hex() == expected


def pairwise(parameters: SecAggParameters, round_number: int, secret: bytes, site: str, peer: str) -> bytes:
    pairs = {name: keys.generate_key_pair(seeded_randomness(seed)) for name, seed in (("a", 1), ("b", 2))}
    return keys.pairwise_mask_key(
        parameters,
        round_number=round_number,
        secret=secret,
        site=site,
        site_key=pairs[site].public,
        peer=peer,
        peer_key=pairs[peer].public,
    )


def test_both_ends_derive_one_pairwise_key_for_one_round_and_run() -> None:
    a, b = (keys.generate_key_pair(seeded_randomness(seed)).secret for seed in (1, 2))
    key = pairwise(terms(), 1, a, "a", "b")
    assert pairwise(terms(), 1, b, "b", "a") == key
    others = [
        pairwise(terms(), 2, a, "a", "b"),
        pairwise(terms("run-2"), 1, a, "a", "b"),
        pairwise(terms(consortium="other"), 1, a, "a", "b"),
    ]
    assert len({key, *others}) == 4


def test_the_self_mask_key_and_its_commitment_are_apart_and_bound() -> None:
    seed = bytes(32)
    derived = [
        derive(parameters, round_number=round_number, site=site, seed=seed)
        for derive in (keys.self_mask_key, keys.self_mask_commitment)
        for parameters in (terms(), terms("run-2"))
        for round_number in (1, 2)
        for site in ("a", "b")
    ]
    assert len(set(derived)) == 16


@pytest.mark.parametrize("key", [bytes(32), b"\x01" + bytes(31)], ids=["zero", "one"])
def test_a_key_of_low_order_is_refused_and_its_sender_named(key: bytes) -> None:
    with pytest.raises(SecAggProtocolError, match="low order") as caught:
        keys.agree(seeded_randomness(1)(32), key, peer="b")
    assert caught.value.peer == "b"


def test_signed_bytes_differ_in_every_field() -> None:
    key = bytes(32)
    messages = [
        keys.channel_key_bytes(terms(), site="a", key=key),
        keys.channel_key_bytes(terms("run-2"), site="a", key=key),
        keys.channel_key_bytes(terms(consortium="other"), site="a", key=key),
        keys.channel_key_bytes(terms(), site="b", key=key),
        keys.mask_key_bytes(terms(), site="a", round_number=1, key=key),
        keys.mask_key_bytes(terms(), site="a", round_number=2, key=key),
        keys.mask_key_bytes(terms(), site="b", round_number=1, key=key),
        *(
            keys.survivors_bytes(
                terms(), round_number=number, directory=directory, survivors=survivors, dropped=dropped
            )
            for number in (1, 2)
            for directory in (bytes(32), b"\x01" * 32)
            for survivors, dropped in ((("a", "b", "c"), ()), (("a", "b"), ("c",)), (("a", "b"), ()))
        ),
    ]
    assert len(set(messages)) == len(messages)
    assert all(message.startswith(b"zegel secagg v1\n") for message in messages)


def test_the_directory_covers_participants_and_both_their_keys() -> None:
    channel = {site: bytes([i]) * 32 for i, site in enumerate("abc")}
    mask = {site: bytes([i + 9]) * 32 for i, site in enumerate("abc")}

    def digest(**change: Any) -> bytes:
        arguments: dict[str, Any] = {"round_number": 1, "channel_keys": channel, "mask_keys": mask} | change
        return keys.directory_digest(terms(), **arguments)

    others = [
        digest(round_number=2),
        digest(channel_keys=channel | {"a": bytes([7]) * 32}),
        digest(mask_keys=mask | {"a": bytes([7]) * 32}),
        digest(mask_keys={site: mask[site] for site in "ab"}),
    ]
    assert len({digest(), *others}) == 5
    assert digest(channel_keys=channel | {"d": bytes(32)}) == digest()  # not a participant


def test_a_refused_signature_names_the_peer_whatever_the_verifier_raises() -> None:
    def verifier(peer: str, message: bytes, signature: bytes) -> None:
        raise LookupError("certificate revoked")

    with pytest.raises(SecAggSignatureError, match="revoked") as caught:
        keys.verify(verifier, "b", b"m", b"s", what="mask key")
    assert caught.value.peer == "b"


def test_a_key_pair_does_not_print_its_secret() -> None:
    pair = keys.generate_key_pair(seeded_randomness(1))
    assert pair.secret.hex() not in repr(pair)
    assert repr(pair.secret) not in repr(pair)


SEALED: dict[str, Any] = {
    "parameters": terms(),
    "key": bytes(32),
    "share_of": "mask key",
    "round_number": 1,
    "sender": "a",
    "recipient": "b",
    "sender_mask_key": bytes(32),
}


@pytest.mark.parametrize(
    "change",
    [
        {"parameters": terms("run-2")},
        {"parameters": terms(consortium="other")},
        {"key": b"\x01" * 32},
        {"share_of": "self mask seed"},
        {"round_number": 2},
        {"sender": "c"},
        {"recipient": "c"},
        {"sender_mask_key": b"\x01" * 32},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_share_opens_only_for_what_it_was_sealed_for(change: dict[str, Any]) -> None:
    share = bytes(range(33))
    sealed = seal_share(share, **SEALED, randomness=seeded_randomness(1))
    assert len(sealed) == SEALED_SHARE_BYTES
    assert open_share(sealed, **SEALED) == share
    with pytest.raises(SecAggProtocolError, match="does not decrypt"):
        open_share(sealed, **(SEALED | change))


@pytest.mark.parametrize("position", [0, 12, 44, 60], ids=["nonce", "first", "last", "tag"])
def test_an_altered_share_does_not_open(position: int) -> None:
    sealed = bytearray(seal_share(bytes(33), **SEALED, randomness=seeded_randomness(1)))
    sealed[position] ^= 1
    with pytest.raises(SecAggProtocolError):
        open_share(bytes(sealed), **SEALED)
