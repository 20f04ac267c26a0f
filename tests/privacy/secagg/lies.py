"""What a lie in secure aggregation is, for the tables of lies beside this file, and a federation to tell it in.

Every lie is told in round 2, where it replays something after an honest round 1.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from privacy.secagg.errors import SecAggError
from privacy.secagg.messages import (
    Announcement,
    AnnounceRequest,
    KeyShares,
    MaskedVector,
    RoundRequest,
    ShareRequest,
    SurvivorsRequest,
    SurvivorsSignature,
    UnmaskAnswer,
    UnmaskRequest,
)
from privacy.secagg.parameters import SecAggParameters
from privacy.secagg.simulate import Federation, Identities, seeded_randomness

N = 7  # threshold 5, so 2 dropouts and 2 colluding hospitals
SITES = tuple(f"site-{i:02}" for i in range(1, N + 1))
ME, PEER, OTHER = SITES[0], SITES[1], SITES[2]
LIAR = SITES[3]
ROUND = 2  # the round of the lie
DIMENSION = 5
IDENTITIES = Identities(SITES, seeded_randomness(99))  # the same certificates in every run
VECTORS = {site: np.full(DIMENSION, 10**i, dtype=np.int64) for i, site in enumerate(SITES)}

Wire = dict[str, Any]
Vectors = Mapping[str, np.ndarray[Any, np.dtype[np.int64]]]


def terms(**change: Any) -> SecAggParameters:
    """The terms of round 2's run, or of another."""
    values: dict[str, Any] = {
        "consortium": "demo",
        "run_id": "run-1",
        "sites": SITES,
        "dimension": DIMENSION,
        "allowed_dropouts": 2,
    }
    return SecAggParameters(**(values | change))


def make(parameters: SecAggParameters | None = None, *, seed: int = 1) -> Federation:
    """A federation of the hospitals with their certificates."""
    return Federation(
        parameters=parameters or terms(),
        signers={site: IDENTITIES.signer(site) for site in SITES},
        verifier=IDENTITIES.verify,
        randomness=seeded_randomness(seed),
    )


def total(vectors: Vectors, sites: tuple[str, ...]) -> list[int]:
    """The sum of some hospitals' vectors."""
    result: list[int] = np.sum([vectors[site] for site in sites], axis=0).tolist()
    return result


class Scene:
    """A federation, after an honest round 1 unless told otherwise, its messages, and what hospitals revealed.

    Attributes:
      earlier: the honest messages of round 1's set-up and round, by hospital and kind.
      honest: those of round 2 so far.
      revealed: for which owners honest hospitals revealed which kind of share, by round.
    """

    def __init__(self, *, parameters: SecAggParameters | None = None, first_round: bool = True) -> None:
        self.federation = make(parameters)
        self.earlier: dict[tuple[str, str], Wire] = {}
        self.honest: dict[tuple[str, str], Wire] = {}
        self.revealed: dict[tuple[int, str], set[str]] = {}
        self.lie: Callable[[str, Wire], Wire | None] = lambda _site, wire: wire
        self.federation.tap = self._tap
        if first_round:
            self.federation.set_up(1)
            self.federation.run_round(VECTORS)
        self.earlier, self.honest = self.honest, {}

    def _tap(self, site: str, wire: Wire) -> Wire | None:
        self.honest[site, wire["type"]] = wire
        if wire["type"] == UnmaskAnswer.KIND and site != LIAR:
            answer = UnmaskAnswer.from_message(wire)
            for kind, shares in (("seed", answer.self_mask_shares), ("key", answer.mask_key_shares)):
                for owner in shares:
                    self.revealed.setdefault((answer.round, owner), set()).add(kind)
        return self.lie(site, wire)

    def check(self) -> None:
        """For one hospital and round, shares of its seed or of its mask key were revealed, never both."""
        assert all(len(kinds) == 1 for kinds in self.revealed.values())


Alter = Callable[[Scene, Wire], Wire]


@dataclass(frozen=True, kw_only=True)
class Lie:
    """One message that is not what the honest party would send.

    Attributes:
      kind: which message is altered.
      site: the hospital it goes to, or comes from.
      alter: what becomes of it.
      error: what the one who gets it raises.
      named: whom the error names, or the field of a malformed message.
      says: what it says, a regular expression.
      missing: hospitals whose vectors are lost before, so that there is somebody dropped.
      replays: whether it needs an honest round before.
    """

    kind: str
    site: str
    alter: Alter
    error: type[SecAggError]
    named: str
    says: str = ""
    missing: tuple[str, ...] = ()
    replays: bool = False


def deliver(scene: Scene, site: str, kind: str, wire: Wire) -> None:
    """Hands a message to the party that gets messages of this kind, as the federation does."""
    client, server = scene.federation.clients[site], scene.federation.server
    to: dict[str, Callable[[Wire], object]] = {
        AnnounceRequest.KIND: lambda w: client.announce(AnnounceRequest.from_message(w)),
        ShareRequest.KIND: lambda w: client.share_keys(ShareRequest.from_message(w)),
        RoundRequest.KIND: lambda w: client.open_round(RoundRequest.from_message(w)),
        SurvivorsRequest.KIND: lambda w: client.sign_survivors(SurvivorsRequest.from_message(w)),
        UnmaskRequest.KIND: lambda w: client.unmask(UnmaskRequest.from_message(w)),
        Announcement.KIND: lambda w: server.receive_announcement(site, Announcement.from_message(w)),
        KeyShares.KIND: lambda w: server.receive_key_shares(site, KeyShares.from_message(w)),
        MaskedVector.KIND: lambda w: server.receive_masked_vector(site, MaskedVector.from_message(w)),
        SurvivorsSignature.KIND: lambda w: server.receive_signature(site, SurvivorsSignature.from_message(w)),
        UnmaskAnswer.KIND: lambda w: server.receive_answer(site, UnmaskAnswer.from_message(w)),
    }
    to[kind](wire)
