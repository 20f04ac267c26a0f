"""What a server may say to a hospital instead of the truth, one lie per name."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from privacy.secagg import keys
from privacy.secagg.errors import (
    SecAggError,
    SecAggMessageError,
    SecAggProtocolError,
    SecAggReplayError,
    SecAggSignatureError,
)
from privacy.secagg.keys import SignedKey
from privacy.secagg.messages import (
    AnnounceRequest,
    KeyShares,
    RoundRequest,
    ShareRequest,
    SurvivorsRequest,
    SurvivorsSignature,
    UnmaskRequest,
)
from privacy.secagg.parameters import SecAggParameters
from privacy.secagg.simulate import seeded_randomness
from tests.privacy.secagg.lies import IDENTITIES, ME, OTHER, PEER, ROUND, SITES, Lie, Scene, Wire, terms

DROPPED = SITES[5]
SHARE = bytes(61)
SERVER = "server"
Directory = dict[str, SignedKey]


def own_key(site: str, *, signer: str, parameters: SecAggParameters | None = None) -> SignedKey:
    """A fresh mask key for the round of the lie, said to be of `site`, signed by `signer`."""
    key = keys.generate_key_pair(seeded_randomness(5)).public
    message = keys.mask_key_bytes(parameters or terms(), site=site, round_number=ROUND, key=key)
    return SignedKey(key, IDENTITIES.signer(signer)(message))


def _last(scene: Scene, directory: Directory) -> Directory:
    """With PEER's mask key of round 1, rightly signed for that round."""
    return directory | {PEER: RoundRequest.from_message(scene.earlier[ME, RoundRequest.KIND]).mask_keys[PEER]}


@cache
def elsewhere(**change: Any) -> Scene:
    """A scene in another run or consortium, with the same certificates, its first round done."""
    return Scene(parameters=terms(**change))


KeyLie = tuple[Callable[[Scene, Directory], Directory], str, type[SecAggError]]
MASK_KEYS: Mapping[str, KeyLie] = {
    "a swapped key": (lambda _, d: d | {PEER: own_key(PEER, signer=OTHER)}, PEER, SecAggSignatureError),
    "a peer's key under another's name": (lambda _, d: d | {PEER: d[OTHER]}, PEER, SecAggSignatureError),
    "a key of another run": (
        lambda _, d: d | {PEER: own_key(PEER, signer=PEER, parameters=terms(run_id="run-2"))},
        PEER,
        SecAggSignatureError,
    ),
    "a key of another consortium": (
        lambda _, d: d | {PEER: own_key(PEER, signer=PEER, parameters=terms(consortium="other"))},
        PEER,
        SecAggSignatureError,
    ),
    "a key under other terms": (
        lambda _, d: d | {PEER: own_key(PEER, signer=PEER, parameters=terms(allowed_dropouts=1))},
        PEER,
        SecAggSignatureError,
    ),
    "a key of the round before": (_last, PEER, SecAggSignatureError),
    "a forged signature": (lambda _, d: d | {PEER: SignedKey(d[PEER].key, bytes(64))}, PEER, SecAggSignatureError),
    "my own key altered": (lambda _, d: d | {ME: own_key(ME, signer=ME)}, SERVER, SecAggProtocolError),
    "a directory without me": (lambda _, d: {s: d[s] for s in d if s != ME}, SERVER, SecAggProtocolError),
    "too few participants": (lambda _, d: {s: d[s] for s in SITES[:4]}, SERVER, SecAggProtocolError),
    "a hospital outside the plan": (lambda _, d: d | {"stranger": d[PEER]}, SERVER, SecAggProtocolError),
}


def _to_share(alter: Callable[[Scene, Directory], Directory]) -> Callable[[Scene, Wire], Wire]:
    def lie(scene: Scene, wire: Wire) -> Wire:
        honest = ShareRequest.from_message(wire)
        mask_keys = alter(scene, dict(honest.mask_keys))
        # Both lists name the same sites, or the lie would be caught for that alone.
        channel_keys = {site: honest.channel_keys.get(site, honest.channel_keys[PEER]) for site in mask_keys}
        return ShareRequest(round=ROUND, channel_keys=channel_keys, mask_keys=mask_keys).to_message()

    return lie


def _to_round(alter: Callable[[Scene, Directory], Directory]) -> Callable[[Scene, Wire], Wire]:
    def lie(scene: Scene, wire: Wire) -> Wire:
        mask_keys = alter(scene, dict(RoundRequest.from_message(wire).mask_keys))
        return RoundRequest(round=ROUND, mask_keys=mask_keys).to_message()

    return lie


def _channel(alter: Callable[[Directory], Directory]) -> Callable[[Scene, Wire], Wire]:
    def lie(_scene: Scene, wire: Wire) -> Wire:
        honest = ShareRequest.from_message(wire)
        channel_keys = alter(dict(honest.channel_keys))
        return ShareRequest(round=ROUND, channel_keys=channel_keys, mask_keys=honest.mask_keys).to_message()

    return lie


def to_me(kind: str, alter: Callable[[Scene, Wire], Wire], error: type[SecAggError], named: str, says: str = "") -> Lie:
    """A lie told to ME."""
    return Lie(kind=kind, site=ME, alter=alter, error=error, named=named, says=says)


def survivors(alive: tuple[str, ...], dropped: tuple[str, ...], says: str) -> Lie:
    """Another survivors' set than the true one."""
    request = SurvivorsRequest(round=ROUND, survivors=alive, dropped=dropped).to_message()
    return to_me(SurvivorsRequest.KIND, lambda _, __: request, SecAggProtocolError, SERVER, says)


def unmasking(alter: Callable[[UnmaskRequest], dict[str, Any]], error: type[SecAggError], named: str, says: str) -> Lie:
    """Another unmask request than the true one, in a round where one hospital dropped."""

    def lie(_scene: Scene, wire: Wire) -> Wire:
        honest = UnmaskRequest.from_message(wire)
        values: dict[str, Any] = {
            "round": honest.round,
            "signatures": honest.signatures,
            "self_mask_shares": honest.self_mask_shares,
            "mask_key_shares": honest.mask_key_shares,
            "next_round": honest.next_round,
        }
        return UnmaskRequest(**(values | alter(honest))).to_message()

    return Lie(
        kind=UnmaskRequest.KIND, site=ME, alter=lie, error=error, named=named, says=says, missing=(DROPPED,)
    )  # fmt: skip


def of_another_set(site: str) -> bytes:
    """What a colluding hospital signs for the server: another set of the same round."""
    message = keys.survivors_bytes(terms(), round_number=ROUND, directory=bytes(32), survivors=SITES, dropped=())
    return IDENTITIES.signer(site)(message)


def of_another_run(site: str) -> bytes:
    """A hospital's signature over the whole set, in another run."""
    wire = elsewhere(run_id="run-3").earlier[site, SurvivorsSignature.KIND]
    return SurvivorsSignature.from_message(wire).signature


def replayed(kind: str, error: type[SecAggError], says: str) -> Lie:
    """The message of round 1 once more."""
    return replace(to_me(kind, lambda scene, _: scene.earlier[ME, kind], error, SERVER, says), replays=True)


UNMASK = UnmaskRequest.KIND
LIES: dict[str, Lie] = {
    **{
        f"{name}, in the set-up": replace(
            to_me(ShareRequest.KIND, _to_share(alter), error, named), replays=alter is _last
        )
        for name, (alter, named, error) in MASK_KEYS.items()
    },
    **{
        f"{name}, in the round": replace(
            to_me(RoundRequest.KIND, _to_round(alter), error, named), replays=alter is _last
        )
        for name, (alter, named, error) in MASK_KEYS.items()
    },
    "a swapped channel key": to_me(
        ShareRequest.KIND,
        _channel(lambda d: d | {PEER: SignedKey(d[OTHER].key, d[PEER].signature)}),
        SecAggSignatureError,
        PEER,
    ),
    "another's channel key": to_me(
        ShareRequest.KIND, _channel(lambda d: d | {PEER: d[OTHER]}), SecAggSignatureError, PEER
    ),
    "my own channel key altered": to_me(
        ShareRequest.KIND, _channel(lambda d: d | {ME: d[PEER]}), SecAggProtocolError, SERVER
    ),
    "channel keys of other sites than the mask keys": to_me(
        ShareRequest.KIND, _channel(lambda d: {s: d[s] for s in d if s != PEER}), SecAggProtocolError, SERVER
    ),
    "a replayed announcement request": replayed(AnnounceRequest.KIND, SecAggReplayError, "masked round 1 before"),
    "a replayed directory": replayed(ShareRequest.KIND, SecAggProtocolError, "for which no key was announced"),
    "a replayed round": replayed(RoundRequest.KIND, SecAggReplayError, "masked round 1 before"),
    "a replayed survivors' set": replayed(SurvivorsRequest.KIND, SecAggProtocolError, "round 1, in which"),
    "a replayed unmasking": replayed(UNMASK, SecAggProtocolError, "round 1, in which"),
    "a round nobody keyed": to_me(
        RoundRequest.KIND,
        lambda _, w: w | {"round": 9},
        SecAggProtocolError,
        SERVER,
        "no key of site-01 is shared; set up first",
    ),
    "a hospital both survived and dropped": survivors(SITES, (PEER,), "as survived and as dropped: site-02"),
    "a participant neither survived nor dropped": survivors(SITES[:-1], (), "they differ in: site-07"),
    "a stranger among the survivors": survivors((*SITES, "stranger"), (), "differ in: stranger"),
    "too few survivors": survivors(SITES[:4], SITES[4:], "at least 5 survivors, got 4"),
    "me among the dropped": survivors(SITES[1:], (ME,), "names site-01 as dropped"),
    "no survivors": survivors((), SITES, "names site-01 as dropped"),
    "too few signatures": unmasking(
        lambda r: {"signatures": {s: r.signatures[s] for s in SITES[:4]}},
        SecAggProtocolError,
        SERVER,
        "at least 5 signatures .*, got 4",
    ),
    "a forged survivors' signature": unmasking(
        lambda r: {"signatures": dict(r.signatures) | {PEER: bytes(64)}},
        SecAggSignatureError,
        PEER,
        "survivors' set does not verify",
    ),
    "one hospital's signature under another's name": unmasking(
        lambda r: {"signatures": dict(r.signatures) | {PEER: r.signatures[OTHER]}}, SecAggSignatureError, PEER, ""
    ),
    "my own signature altered": unmasking(
        lambda r: {"signatures": dict(r.signatures) | {ME: r.signatures[OTHER]}},
        SecAggSignatureError,
        SERVER,
        "another signature is given out for site-01",
    ),
    "a colluding hospital's signature over another set": unmasking(
        lambda r: {"signatures": dict(r.signatures) | {PEER: of_another_set(PEER)}}, SecAggSignatureError, PEER, ""
    ),
    "a signature of another run": unmasking(
        lambda r: {"signatures": dict(r.signatures) | {PEER: of_another_run(PEER)}}, SecAggSignatureError, PEER, ""
    ),
    "a signature of a dropped hospital": unmasking(
        lambda r: {"signatures": dict(r.signatures) | {DROPPED: of_another_set(DROPPED)}},
        SecAggProtocolError,
        SERVER,
        "did not survive: site-06",
    ),
    "both shares of a survivor": unmasking(
        lambda r: {"mask_key_shares": dict(r.mask_key_shares) | {PEER: SHARE}},
        SecAggProtocolError,
        SERVER,
        "never both of one hospital",
    ),
    "both shares of a dropped hospital": unmasking(
        lambda r: {"self_mask_shares": dict(r.self_mask_shares) | {DROPPED: SHARE}},
        SecAggProtocolError,
        SERVER,
        "never both of one hospital",
    ),
    "a survivor asked for as dropped": unmasking(
        lambda r: {
            "self_mask_shares": {s: v for s, v in r.self_mask_shares.items() if s != PEER},
            "mask_key_shares": dict(r.mask_key_shares) | {PEER: SHARE},
        },
        SecAggProtocolError,
        SERVER,
        "never both of one hospital",
    ),
    "fewer shares than survivors": unmasking(
        lambda r: {"self_mask_shares": {}}, SecAggProtocolError, SERVER, "self mask shares: expected those of"
    ),
    "a next round that is past": unmasking(
        lambda r: {"next_round": ROUND}, SecAggProtocolError, SERVER, "one after 2, got 2"
    ),
    "an unmasking of another round": unmasking(
        lambda r: {"round": 3}, SecAggProtocolError, SERVER, "round 3, in which site-01 has no masked vector"
    ),
    "garbage in place of a message": to_me(
        SurvivorsRequest.KIND, lambda _, __: {"type": "nonsense"}, SecAggMessageError, "secagg-survivors-request.type"
    ),
    "a message of another kind": to_me(
        SurvivorsRequest.KIND,
        lambda s, _: s.honest[ME, RoundRequest.KIND],
        SecAggMessageError,
        "secagg-survivors-request.type",
    ),
}


def _swapped(r: UnmaskRequest) -> dict[str, Any]:
    shares = dict(r.self_mask_shares)
    shares[PEER], shares[OTHER] = shares[OTHER], shares[PEER]
    return {"self_mask_shares": shares}


def _key_for_seed(scene: Scene) -> bytes:
    return KeyShares.from_message(scene.honest[PEER, KeyShares.KIND]).shares[ME]


def _replayed_share(scene: Scene) -> bytes:
    return UnmaskRequest.from_message(scene.earlier[ME, UnmaskRequest.KIND]).self_mask_shares[PEER]


def _share_of_another_run(_scene: Scene) -> bytes:
    wire = elsewhere(run_id="run-3").earlier[ME, UnmaskRequest.KIND]
    return UnmaskRequest.from_message(wire).self_mask_shares[PEER]


def _meant_for_another(scene: Scene) -> bytes:
    return UnmaskRequest.from_message(scene.honest[OTHER, UnmaskRequest.KIND]).self_mask_shares[PEER]


SEALED_LIES: dict[str, Callable[[Scene, UnmaskRequest], dict[str, Any]]] = {
    "two peers' shares swapped": lambda _, r: _swapped(r),
    "garbage for a share": lambda _, r: {"self_mask_shares": dict(r.self_mask_shares) | {PEER: SHARE}},
    "a mask key's share for a seed's": lambda s, r: {
        "self_mask_shares": dict(r.self_mask_shares) | {PEER: _key_for_seed(s)}
    },
    "a share of the round before": lambda s, r: {
        "self_mask_shares": dict(r.self_mask_shares) | {PEER: _replayed_share(s)}
    },
    "a share of another run": lambda s, r: {
        "self_mask_shares": dict(r.self_mask_shares) | {PEER: _share_of_another_run(s)}
    },
    "a share meant for another peer": lambda s, r: {
        "self_mask_shares": dict(r.self_mask_shares) | {PEER: _meant_for_another(s)}
    },
}
"""Sealed shares that are not those the hospital is asked for: it reveals nothing for them, and says whose they were."""
