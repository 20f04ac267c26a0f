"""Lies that take more than one altered message: calls out of order, a server with hospitals, hospitals together.

Each story tells the lie and checks what came of it.
"""

import itertools
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from privacy.secagg import keys
from privacy.secagg.client import SecAggClient
from privacy.secagg.errors import (
    SecAggAbortError,
    SecAggProtocolError,
    SecAggReplayError,
    SecAggShareError,
    SecAggSignatureError,
)
from privacy.secagg.keys import SignedKey
from privacy.secagg.masking import apply_masks
from privacy.secagg.memory import InMemoryRoundMemory
from privacy.secagg.messages import (
    Announcement,
    AnnounceRequest,
    KeyShares,
    MaskedVector,
    RoundRequest,
    ShareRequest,
    SurvivorsRequest,
    UnmaskAnswer,
    UnmaskRequest,
)
from privacy.secagg.parameters import SecAggParameters
from privacy.secagg.shamir import recover
from privacy.secagg.simulate import Federation, seeded_randomness
from tests.privacy.secagg.lies import (
    DIMENSION,
    IDENTITIES,
    LIAR,
    ME,
    PEER,
    ROUND,
    SITES,
    VECTORS,
    Scene,
    Wire,
    deliver,
    terms,
    total,
)
from tests.privacy.secagg.lies_of_a_hospital import ANSWER, VECTOR, edit, garble, garbled
from tests.privacy.secagg.lies_of_a_server import own_key

SHARE = bytes(61)


def scene() -> Scene:
    """Ready for round 2."""
    made = Scene()
    made.federation.set_up(ROUND)
    return made


def altered(kind: str, alter: Callable[[Wire], Wire], *liars: str) -> Scene:
    """Ready for a round in which these hospitals alter one of their messages."""
    made = scene()
    made.lie = lambda site, wire: alter(wire) if site in liars and wire["type"] == kind else wire
    return made


def unmask_request(
    signatures: Mapping[str, bytes], request: SurvivorsRequest | None = None, me: str = ""
) -> UnmaskRequest:
    """Asks for shares that are none: whoever answers has let itself be asked."""
    alive, gone = ((), ()) if request is None else (request.survivors, request.dropped)
    return UnmaskRequest(
        round=ROUND,
        signatures=signatures,
        self_mask_shares={peer: SHARE for peer in alive if peer != me},
        mask_key_shares=dict.fromkeys(gone, SHARE),
        next_round=None,
    )


def twin(client: SecAggClient, federation: Federation) -> SecAggClient:
    """A copy of a hospital in the middle of a round, to try another course of events with."""
    copy = federation.make_client(client.site)
    vars(copy).update(vars(client))
    assert client._round is not None
    copy._round = type(client._round)(**vars(client._round))
    memory = InMemoryRoundMemory()
    assert isinstance(client._memory, InMemoryRoundMemory)
    memory.acts = dict(client._memory.acts)
    copy._memory = memory
    return copy


def two_survivors_sets() -> None:
    """In every split of the honest hospitals, at most one of two sets gets their shares: 2t > n + c."""
    federation = scene().federation
    requests = federation.server.start_round()
    for site in SITES:
        federation.clients[site].open_round(requests[site])
        federation.clients[site].mask(VECTORS[site])
    colluding, honest = SITES[:2], SITES[2:]
    assert len(colluding) == federation.parameters.colluders
    current = federation.clients[ME]._round
    assert current is not None
    sets = [
        SurvivorsRequest(round=ROUND, survivors=SITES[:6], dropped=SITES[6:]),
        SurvivorsRequest(round=ROUND, survivors=(*SITES[:5], SITES[6]), dropped=(SITES[5],)),
    ]
    opened = []
    for split in range(2 ** len(honest)):
        clients = {site: twin(federation.clients[site], federation) for site in honest}
        revealed = [0, 0]
        for side, request in enumerate(sets):
            statement = keys.survivors_bytes(
                terms(),
                round_number=ROUND,
                directory=current.directory,
                survivors=request.survivors,
                dropped=request.dropped,
            )
            signatures = {site: IDENTITIES.signer(site)(statement) for site in colluding}
            group = [s for i, s in enumerate(honest) if (split >> i & 1) == side and s in request.survivors]
            for site in group:
                signatures[site] = clients[site].sign_survivors(request).signature
            for site in group:
                try:
                    clients[site].unmask(unmask_request(signatures, request, site))
                except SecAggProtocolError:
                    continue
                revealed[side] += 1
        assert min(revealed) == 0
        opened.append(max(revealed) > 0)
    assert any(opened)  # the honest split, all on one side, does open: this can fail
    assert not all(opened)


def _two_directories(first: Mapping[str, SignedKey], second: Mapping[str, SignedKey], federation: Federation) -> None:
    """Three hospitals see one directory, three another; all sign, and nobody reveals anything."""
    signatures: dict[str, bytes] = {}
    shown = {site: dict(first if site in SITES[:3] else second) for site in SITES[:6]}
    for site, directory in shown.items():
        client = federation.clients[site]
        client.open_round(RoundRequest(round=ROUND, mask_keys=directory))
        client.mask(VECTORS[site])
        gone = tuple(s for s in sorted(directory) if s not in shown)
        signatures[site] = client.sign_survivors(
            SurvivorsRequest(round=ROUND, survivors=SITES[:6], dropped=gone)
        ).signature  # fmt: skip
    for site in shown:
        with pytest.raises(SecAggSignatureError):
            federation.clients[site].unmask(unmask_request(signatures))


def two_lists_of_participants() -> None:
    """Both lists are of rightly signed keys; one leaves a hospital out."""
    federation = scene().federation
    mask_keys = federation.server.start_round()[ME].mask_keys
    _two_directories({s: mask_keys[s] for s in SITES[:6]}, mask_keys, federation)


def two_keys_of_one_hospital() -> None:
    """A colluding hospital signs a second mask key for the round, and each half is shown another of the two."""
    federation = scene().federation
    mask_keys = federation.server.start_round()[ME].mask_keys
    second = keys.generate_key_pair(seeded_randomness(6)).public
    message = keys.mask_key_bytes(terms(), site=SITES[6], round_number=ROUND, key=second)
    other = SignedKey(second, IDENTITIES.signer(SITES[6])(message))
    _two_directories(mask_keys, dict(mask_keys) | {SITES[6]: other}, federation)


def a_vector_said_to_have_dropped() -> None:
    """The server holds PEER's vector, says it dropped and learns its mask key: the self mask covers it."""
    made = scene()
    held: Wire = {}

    def withhold(site: str, wire: Wire) -> Wire | None:
        if site == PEER and wire["type"] == MaskedVector.KIND:
            held.update(wire)
            return None
        return wire

    made.lie = withhold
    aggregate = made.federation.run_round(VECTORS)
    assert aggregate.dropped == (PEER,)
    assert aggregate.total.tolist() == total(VECTORS, aggregate.survivors)
    made.check()
    assert made.revealed[ROUND, PEER] == {"key"}
    mask_keys = _mask_keys(made)
    secret = recover(
        {
            terms().index(site): UnmaskAnswer.from_message(made.honest[site, ANSWER]).mask_key_shares[PEER]
            for site in aggregate.survivors
        },
        threshold=terms().threshold,
        accept=lambda s: keys.public_key(s) == mask_keys[PEER],
    ).secret
    left = held["vector"].copy()
    _take_off(left, terms(), PEER, {site: secret for site in SITES if site != PEER}, mask_keys)
    self_mask = left - VECTORS[PEER].astype(np.uint64)
    assert len(set(self_mask.tolist())) == DIMENSION  # a fresh keystream in every coordinate, nowhere zero
    assert np.count_nonzero(self_mask) == DIMENSION


def _mask_keys(made: Scene) -> dict[str, bytes]:
    request = RoundRequest.from_message(made.honest[made.federation.parameters.sites[0], RoundRequest.KIND])
    return {site: signed.key for site, signed in request.mask_keys.items()}


def _take_off(
    vector: np.ndarray[tuple[int], np.dtype[np.uint64]],
    parameters: SecAggParameters,
    site: str,
    secrets: Mapping[str, bytes],
    mask_keys: Mapping[str, bytes],
) -> None:
    """Takes the masks off a hospital's vector that it shares with some peers; either end's secret gives a mask."""
    masks = {
        peer: keys.pairwise_mask_key(
            parameters,
            round_number=ROUND,
            secret=secret,
            site=site if keys.public_key(secret) == mask_keys[site] else peer,
            site_key=mask_keys[site if keys.public_key(secret) == mask_keys[site] else peer],
            peer=peer if keys.public_key(secret) == mask_keys[site] else site,
            peer_key=mask_keys[peer if keys.public_key(secret) == mask_keys[site] else site],
        )
        for peer, secret in secrets.items()
        if parameters.share_a_mask(site, peer)
    }
    apply_masks(
        vector,
        add=[key for peer, key in masks.items() if peer < site],
        subtract=[key for peer, key in masks.items() if peer > site],
    )


def everything_pooled() -> None:
    """The server and as many hospitals as the terms allow for put all they hold together, one more being dropped.

    They take off every self mask and every mask they share. What is left of the honest hospitals' vectors adds up to
    the honest sum in the sum of all of them and in no smaller one: their masks hang together.
    """
    sites = tuple(f"site-{i:02}" for i in range(1, 11))
    federation = Federation.of(10, dimension=DIMENSION, allowed_dropouts=1, randomness=seeded_randomness(4))
    parameters = federation.parameters
    assert (parameters.colluders, parameters.mask_degree) == (3, 5)  # not everybody shares a mask with everybody
    vectors = {site: np.full(DIMENSION, 7**i, dtype=np.int64) for i, site in enumerate(sites)}
    # The neighbours of site-05 on both sides, so that it hangs on as few masks as can be.
    colluding, gone = ("site-03", "site-04", "site-06"), "site-07"
    secrets: dict[str, bytes] = {}
    seen: dict[tuple[str, str], Wire] = {}

    def watch(site: str, wire: Wire) -> Wire | None:
        seen[site, wire["type"]] = wire
        if wire["type"] == VECTOR and site == gone:
            return None
        if wire["type"] == VECTOR and site in colluding:
            current = federation.clients[site]._round
            assert current is not None
            secrets[site] = current.mask_pair.secret
        return wire

    federation.tap = watch
    federation.set_up(ROUND)
    aggregate = federation.run_round(vectors)
    assert aggregate.dropped == (gone,)
    request = RoundRequest.from_message(seen[sites[0], RoundRequest.KIND])
    mask_keys = {site: signed.key for site, signed in request.mask_keys.items()}
    answers = {site: UnmaskAnswer.from_message(seen[site, ANSWER]) for site in aggregate.survivors}
    secrets[gone] = recover(
        {parameters.index(site): answer.mask_key_shares[gone] for site, answer in answers.items()},
        threshold=parameters.threshold,
        accept=lambda s: keys.public_key(s) == mask_keys[gone],
    ).secret
    honest = tuple(site for site in aggregate.survivors if site not in colluding)
    peeled = {}
    for site in honest:
        message = MaskedVector.from_message(seen[site, VECTOR])
        seed = recover(
            {parameters.index(holder): answer.self_mask_shares[site] for holder, answer in answers.items()},
            threshold=parameters.threshold,
            accept=lambda s, site=site, sent=message: (  # type: ignore[misc]
                keys.self_mask_commitment(parameters, round_number=ROUND, site=site, seed=s) == sent.commitment
            ),
        ).secret
        left = message.vector.astype("<u8")
        apply_masks(left, subtract=[keys.self_mask_key(parameters, round_number=ROUND, site=site, seed=seed)])
        _take_off(left, parameters, site, secrets, mask_keys)
        peeled[site] = left.view("<i8")
    for size in range(1, len(honest) + 1):
        for group in itertools.combinations(honest, size):
            is_open = total(peeled, group) == total(vectors, group)
            assert is_open == (group == honest), group


def two_attempts_of_one_round() -> None:
    """The server gives a round up half way, as after a crash, and asks the others for the same round again.

    Three hospitals masked in the first attempt, two in the second, where they are shown the others' keys of the first:
    rightly signed for this round. Two hospitals collude and sign in both. Only the first attempt can be opened.
    """
    federation = scene().federation
    colluding, first, second = SITES[:2], SITES[2:5], SITES[5:]
    requests = federation.server.start_round()
    directory = dict(requests[ME].mask_keys)
    channel_keys = dict(federation.server._channel_keys)
    for site in (*colluding, *first):
        federation.clients[site].open_round(requests[site])
        federation.clients[site].mask(VECTORS[site])
    for site in first:
        with pytest.raises(SecAggReplayError):
            federation.clients[site].announce(AnnounceRequest(round=ROUND))
    for site in second:
        announced = federation.clients[site].announce(AnnounceRequest(round=ROUND))
        directory[site], channel_keys[site] = announced.mask_key, announced.channel_key
    for site in second:
        client = federation.clients[site]
        client.share_keys(ShareRequest(round=ROUND, channel_keys=channel_keys, mask_keys=directory))
        client.open_round(RoundRequest(round=ROUND, mask_keys=directory))
        client.mask(VECTORS[site])
    attempts = {
        first: SurvivorsRequest(round=ROUND, survivors=SITES[:5], dropped=second),
        second: SurvivorsRequest(round=ROUND, survivors=(*SITES[:2], *SITES[4:]), dropped=SITES[2:4]),
    }
    revealing = {}
    for honest, request in attempts.items():
        signatures = {site: federation.clients[site].sign_survivors(request).signature for site in honest}
        current = federation.clients[honest[0]]._round
        assert current is not None
        statement = current.statement
        assert statement is not None
        signatures |= {site: IDENTITIES.signer(site)(statement) for site in colluding}
        revealing[honest] = 0
        for site in honest:
            try:
                federation.clients[site].unmask(unmask_request(signatures, request, site))
            except SecAggProtocolError as error:
                assert "at least 5 signatures over the survivors' set, got 4" in str(error)
                continue
            revealing[honest] += 1
    assert revealing == {first: len(first), second: 0}


def masked() -> SecAggClient:
    """ME in round 2, its vector masked, nothing signed."""
    federation = scene().federation
    client = federation.clients[ME]
    client.open_round(federation.server.start_round()[ME])
    client.mask(VECTORS[ME])
    return client


def a_second_survivors_set() -> None:
    """Nor the same one again."""
    client = masked()
    client.sign_survivors(SurvivorsRequest(round=ROUND, survivors=SITES, dropped=()))
    for alive, gone in ((SITES, ()), (SITES[:6], SITES[6:])):
        with pytest.raises(SecAggReplayError, match="second signature in round 2"):
            client.sign_survivors(SurvivorsRequest(round=ROUND, survivors=alive, dropped=gone))


def an_unmasking_before_the_set() -> None:
    """Nothing is revealed for a set the hospital has not seen."""
    with pytest.raises(SecAggProtocolError, match="before its survivors' set was signed"):
        masked().unmask(unmask_request({}))


def a_key_asked_for_anew() -> None:
    """The hospital has forgotten the old key, and takes part in no round with it."""
    federation = scene().federation
    requests = federation.server.start_round()
    federation.clients[ME].announce(AnnounceRequest(round=ROUND))
    with pytest.raises(SecAggProtocolError, match=f"no key of {ME} is shared"):
        federation.clients[ME].open_round(requests[ME])


def a_late_participant() -> None:
    """It is of the plan and its key is rightly signed, but nobody holds shares of it."""
    federation = Scene().federation
    federation.set_up(ROUND, SITES[:6])
    mask_keys = dict(federation.server.start_round()[ME].mask_keys)
    late = own_key(SITES[6], signer=SITES[6])
    with pytest.raises(SecAggProtocolError, match="without a channel key in the directory: site-07"):
        federation.clients[ME].open_round(RoundRequest(round=ROUND, mask_keys=mask_keys | {SITES[6]: late}))


def _dealt_twice(made: Scene, wrong: tuple[str, ...]) -> None:
    """LIAR deals shares of another seed, well sealed, to some of its peers."""
    client = made.federation.clients[LIAR]

    def tell(site: str, wire: Wire) -> Wire:
        if site != LIAR or wire["type"] != VECTOR:
            return wire
        current, channels = client._round, client._channels
        assert current is not None
        assert channels is not None
        others, _ = channels.deal(
            bytes(32),
            share_of="self mask seed",
            round_number=ROUND,
            mask_key=current.mask_pair.public,
            recipients=[s for s in SITES if s != LIAR],
        )
        return edit("shares", lambda shares: shares | {s: others[s] for s in wrong})(wire)

    made.lie = tell


def a_dealer_of_two_secrets_to_few() -> None:
    """The sum is exact, and the dealer is among those named: it, or all who hold what does not fit."""
    for wrong in (("site-06",), ("site-02", "site-06")):
        made = scene()
        _dealt_twice(made, wrong)
        aggregate = made.federation.run_round(VECTORS)
        assert aggregate.total.tolist() == total(VECTORS, SITES)
        assert aggregate.suspects == tuple(sorted((LIAR, *wrong)))


def a_dealer_of_two_secrets_to_many() -> None:
    """No secret can be recovered, so there is no sum; the dealer is named."""
    made = scene()
    _dealt_twice(made, ("site-01", "site-02", "site-06"))
    with pytest.raises(SecAggShareError, match=f"self mask seed of {LIAR} in round 2"):
        made.federation.run_round(VECTORS)


def a_dealer_of_garbage() -> None:
    """Nobody can read its shares: there is no sum, and it is named."""
    made = altered(VECTOR, edit("shares", garbled), LIAR)
    with pytest.raises(SecAggShareError, match=f"self mask seed of {LIAR} in round 2"):
        made.federation.run_round(VECTORS)


def a_wrong_commitment() -> None:
    """No seed fits it: there is no sum, and its sender is named."""
    made = altered(VECTOR, lambda wire: wire | {"commitment": bytes(32)}, LIAR)
    with pytest.raises(SecAggShareError, match=f"self mask seed of {LIAR} in round 2"):
        made.federation.run_round(VECTORS)


def one_garbage_share() -> None:
    """Its dealer or its holder: both are named, and the sum is exact."""
    made = altered(VECTOR, edit("shares", lambda s: s | {PEER: garble(s[PEER], 30)}), LIAR)
    aggregate = made.federation.run_round(VECTORS)
    assert aggregate.suspects == (PEER, LIAR)
    assert aggregate.total.tolist() == total(VECTORS, SITES)


def holders_of_garbage() -> None:
    """Up to two of nine answers are garbage: left out, and named."""
    sites = tuple(f"site-{i:02}" for i in range(1, 11))  # threshold 7
    rng = np.random.default_rng(8)
    vectors = {site: rng.integers(-(2**50), 2**50, DIMENSION) for site in sites}
    liars: tuple[str, ...]
    for liars in (("site-04",), ("site-01", "site-07"), ("site-01", "site-02")):
        for field in ("self_mask_shares", "mask_key_shares"):
            federation = Federation.of(10, dimension=DIMENSION, allowed_dropouts=2, randomness=seeded_randomness(8))
            federation.set_up(1)
            alter = edit(field, garbled)

            def tell(
                site: str, wire: Wire, liars: tuple[str, ...] = liars, alter: Callable[[Wire], Wire] = alter
            ) -> Wire | None:
                if site == "site-05" and wire["type"] == VECTOR:
                    return None
                return alter(wire) if site in liars and wire["type"] == ANSWER else wire

            federation.tap = tell
            aggregate = federation.run_round(vectors)
            # Of the dropped hospital's key alone nobody can tell whether it was dealt so.
            dealer = ("site-05",) if field == "mask_key_shares" else ()
            assert aggregate.suspects == tuple(sorted((*liars, *dealer)))
            assert aggregate.dropped == ("site-05",)
            assert aggregate.total.tolist() == total(vectors, aggregate.survivors)


def too_many_holders_of_garbage() -> None:
    """There is no sum, never a wrong one."""
    made = altered(ANSWER, edit("self_mask_shares", garbled), *SITES[:4])
    with pytest.raises(SecAggShareError, match=r"self mask seed of site-0\d in round 2"):
        made.federation.run_round(VECTORS)
    assert made.federation.server.ready == ()


def answers_sent_twice() -> None:
    """The second announcement, key shares, vector or answer of a hospital is refused and changes nothing."""
    made = Scene()
    kinds = {
        Announcement.KIND: "announces a second time",
        KeyShares.KIND: "deals its mask key a second time",
        MaskedVector.KIND: "sends a second vector",
        UnmaskAnswer.KIND: "reveals shares of round 2 a second time",
    }
    first: dict[str, Wire] = {}

    def tell(site: str, wire: Wire) -> Wire:
        if wire["type"] in kinds:
            kept = first.setdefault(wire["type"], wire)
            if kept is not wire:
                with pytest.raises(SecAggProtocolError, match=kinds[wire["type"]]):
                    deliver(made, kept["site"], wire["type"], kept)
        return wire

    made.lie = tell
    made.federation.set_up(ROUND)
    assert made.federation.run_round(VECTORS).total.tolist() == total(VECTORS, SITES)
    assert set(first) == set(kinds)


def a_revoked_certificate() -> None:
    """What is signed with it counts for nothing from the next message on."""
    federation = scene().federation
    client = federation.clients[ME]

    def verifier(peer: str, message: bytes, signature: bytes) -> None:
        if peer == PEER:
            raise PermissionError(f"certificate of {peer} is revoked")
        IDENTITIES.verify(peer, message, signature)

    client._verifier = verifier
    client._verified.clear()  # as for the keys of a round it has not seen
    with pytest.raises(SecAggSignatureError, match="revoked"):
        client.open_round(federation.server.start_round()[ME])


def other_terms_for_one_hospital() -> None:
    """A hospital that was given another plan under the same run's name does not even exchange keys."""
    federation = Scene().federation
    federation.clients[PEER] = SecAggClient(
        parameters=terms(allowed_dropouts=1),
        site=PEER,
        signer=IDENTITIES.signer(PEER),
        verifier=IDENTITIES.verify,
        randomness=seeded_randomness(3),
        memory=InMemoryRoundMemory(),
    )
    federation.set_up(ROUND)
    assert isinstance(federation.refused[PEER], SecAggSignatureError)
    assert PEER not in federation.server.ready


def too_small_a_plan_within_the_threshold() -> None:
    """A plan that allows one dropout refuses two, though the threshold would bear them."""
    made = Scene(parameters=terms(allowed_dropouts=1))
    made.federation.set_up(ROUND)
    made.lie = lambda site, wire: None if site in SITES[5:] and wire["type"] == VECTOR else wire
    with pytest.raises(SecAggAbortError, match="masked vectors: 5 hospitals left"):
        made.federation.run_round(VECTORS)
    client = made.federation.clients[ME]
    with pytest.raises(SecAggProtocolError, match="too little noise"):
        client.sign_survivors(SurvivorsRequest(round=ROUND, survivors=SITES[:5], dropped=SITES[5:]))


def a_poisoned_vector() -> None:
    """It is summed: masking hides what a hospital sends. Only the aggregate can be looked at."""
    vectors = VECTORS | {LIAR: np.full(DIMENSION, 2**60)}
    aggregate = scene().federation.run_round(vectors)
    assert aggregate.total.tolist() == total(vectors, SITES)
    assert aggregate.suspects == ()


STORIES: dict[str, Callable[[], None]] = {
    "two survivors' sets for two halves, signed by two colluding hospitals": two_survivors_sets,
    "two lists of participants for two halves": two_lists_of_participants,
    "two mask keys of a colluding hospital for two halves": two_keys_of_one_hospital,
    "a vector held back and said to have dropped": a_vector_said_to_have_dropped,
    "everything pooled by the server and c hospitals": everything_pooled,
    "two attempts of one round, as after a crash": two_attempts_of_one_round,
    "a second survivors' set": a_second_survivors_set,
    "an unmasking before the set is signed": an_unmasking_before_the_set,
    "a key asked for anew and then the old directory": a_key_asked_for_anew,
    "a participant that was not in the set-up": a_late_participant,
    "other terms for one hospital": other_terms_for_one_hospital,
    "a revoked certificate": a_revoked_certificate,
    "more dropouts than the plan allows, within the threshold": too_small_a_plan_within_the_threshold,
    "shares of two secrets, few of the second": a_dealer_of_two_secrets_to_few,
    "shares of two secrets, many of the second": a_dealer_of_two_secrets_to_many,
    "shares that nobody can read": a_dealer_of_garbage,
    "one share that its holder cannot read": one_garbage_share,
    "a wrong commitment": a_wrong_commitment,
    "garbage for revealed shares, up to two holders": holders_of_garbage,
    "garbage for revealed shares, too many holders": too_many_holders_of_garbage,
    "one message sent twice": answers_sent_twice,
    "a poisoned vector": a_poisoned_vector,
}
