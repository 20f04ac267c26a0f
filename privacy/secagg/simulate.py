"""A federation in one process: a server and its hospitals, for tests and benchmarks.

Every message takes the way it takes in life: `to_message` at one end, `from_message` at the other. A tap sees
each one and may replace it, or return None to lose it, so that dropouts and lies are written in one line.

    >>> import numpy as np, os
    >>> federation = Federation.of(3, dimension=2, randomness=os.urandom)
    >>> federation.set_up(1)
    >>> vectors = {site: np.array([1, -2]) for site in federation.clients}
    >>> federation.run_round(vectors).total.tolist()
    [3, -6]

Not for real data: the hospitals' keys and memory live in this process.
"""

import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from privacy.secagg.client import SecAggClient
from privacy.secagg.errors import SecAggError
from privacy.secagg.keys import Randomness, Signer, Verifier
from privacy.secagg.memory import InMemoryRoundMemory, RoundMemory
from privacy.secagg.messages import (
    Announcement,
    AnnounceRequest,
    KeyShares,
    MaskedVector,
    Message,
    RoundRequest,
    ShareRequest,
    SurvivorsRequest,
    SurvivorsSignature,
    UnmaskAnswer,
    UnmaskRequest,
)
from privacy.secagg.parameters import RingBits, SecAggParameters
from privacy.secagg.server import Aggregate, SecAggServer

Wire = dict[str, Any]
Tap = Callable[[str, Wire], Wire | None]
"""Takes the hospital a message goes to or comes from, and the message; returns what arrives or None."""


def seeded_randomness(seed: int) -> Randomness:
    """Repeatable bytes for tests; not secure."""
    return random.Random(seed).randbytes  # noqa: S311 - only tests and benchmarks use it


class Identities:
    """One signing key per hospital, and the verifier that knows them all.

    Args:
      sites: the hospitals.
      randomness: for the Ed25519 keys.
    """

    def __init__(self, sites: Iterable[str], randomness: Randomness) -> None:
        self._keys = {site: Ed25519PrivateKey.from_private_bytes(randomness(32)) for site in sites}
        self._public: dict[str, Ed25519PublicKey] = {s: key.public_key() for s, key in self._keys.items()}

    def signer(self, site: str) -> Signer:
        """A hospital's signer."""
        return self._keys[site].sign

    def verify(self, peer: str, message: bytes, signature: bytes) -> None:
        """The verifier; raises `InvalidSignature` or `KeyError`."""
        self._public[peer].verify(signature, message)


class Federation:
    """A server and its clients, with a tap on every message.

    Args:
      parameters: the run's terms.
      signers: signer of each hospital.
      verifier: for all parties.
      randomness: for all parties.
      memories: of each hospital; in memory where missing.

    Attributes:
      server: the server.
      clients: the hospitals; replace one to simulate a restart.
      verifier: checks the hospitals' signatures.
      tap: sees every message; by default passes all.
      refused: what parties raised since the last `run_round` or `set_up` began, by hospital concerned.
    """

    def __init__(
        self,
        *,
        parameters: SecAggParameters,
        signers: Mapping[str, Signer],
        verifier: Verifier,
        randomness: Randomness,
        memories: Mapping[str, RoundMemory] | None = None,
    ) -> None:
        self.parameters = parameters
        self.memories: dict[str, RoundMemory] = {site: InMemoryRoundMemory() for site in parameters.sites}
        self.memories.update(memories or {})
        self._signers = signers
        self.verifier = verifier
        self._randomness = randomness
        self.server = SecAggServer(parameters=parameters, verifier=verifier)
        self.clients = {site: self.make_client(site) for site in parameters.sites}
        self.tap: Tap = lambda _site, message: message
        self.refused: dict[str, Exception] = {}

    @classmethod
    def of(
        cls,
        sites: int,
        *,
        dimension: int,
        randomness: Randomness,
        allowed_dropouts: int = 0,
        ring_bits: RingBits = 64,
    ) -> "Federation":
        """A federation of `sites` hospitals named `site-01` and on, with Ed25519 keys."""
        parameters = SecAggParameters(
            consortium="simulation",
            run_id="run-1",
            sites=tuple(f"site-{i:02}" for i in range(1, sites + 1)),
            dimension=dimension,
            allowed_dropouts=allowed_dropouts,
            ring_bits=ring_bits,
        )
        identities = Identities(parameters.sites, randomness)
        return cls(
            parameters=parameters,
            signers={site: identities.signer(site) for site in parameters.sites},
            verifier=identities.verify,
            randomness=randomness,
        )

    def make_client(self, site: str) -> SecAggClient:
        """A fresh client on the hospital's memory, as after a restart."""
        return SecAggClient(
            parameters=self.parameters,
            site=site,
            signer=self._signers[site],
            verifier=self.verifier,
            randomness=self._randomness,
            memory=self.memories[site],
        )

    def set_up(self, round_number: int, sites: Iterable[str] | None = None) -> None:
        """Runs a set-up with the given hospitals, all by default."""
        self.refused = {}
        asked = self.clients if sites is None else sites
        self._exchange(
            self.server.start_set_up(round_number, asked),
            lambda client, wire: client.announce(AnnounceRequest.from_message(wire)),
            lambda site, wire: self.server.receive_announcement(site, Announcement.from_message(wire)),
        )
        self._exchange(
            self.server.share_requests(),
            lambda client, wire: client.share_keys(ShareRequest.from_message(wire)),
            lambda site, wire: self.server.receive_key_shares(site, KeyShares.from_message(wire)),
        )

    def run_round(
        self, vectors: Mapping[str, np.ndarray[Any, np.dtype[np.int64]]], *, next_key: bool = True
    ) -> Aggregate:
        """Runs the three calls of the next round with every hospital that is ready.

        Args:
          vectors: of each participant.
          next_key: whether to ask for the keys of the round after.
        """
        self.refused = {}
        number = self.server.next_round

        def mask(client: SecAggClient, wire: Wire) -> Message:
            client.open_round(RoundRequest.from_message(wire))
            return client.mask(vectors[client.site])

        self._exchange(
            self.server.start_round(),
            mask,
            lambda site, wire: self.server.receive_masked_vector(site, MaskedVector.from_message(wire)),
        )
        self._exchange(
            self.server.survivors_requests(),
            lambda client, wire: client.sign_survivors(SurvivorsRequest.from_message(wire)),
            lambda site, wire: self.server.receive_signature(site, SurvivorsSignature.from_message(wire)),
        )
        self._exchange(
            self.server.unmask_requests(number + 1 if next_key else None),
            lambda client, wire: client.unmask(UnmaskRequest.from_message(wire)),
            lambda site, wire: self.server.receive_answer(site, UnmaskAnswer.from_message(wire)),
        )
        return self.server.finish()

    def _exchange(
        self,
        requests: Mapping[str, Message],
        answer: Callable[[SecAggClient, Wire], Message],
        receive: Callable[[str, Wire], None],
    ) -> None:
        for site, request in requests.items():
            arrived = self.tap(site, request.to_message())
            if arrived is None:
                continue
            try:
                reply = self.tap(site, answer(self.clients[site], arrived).to_message())
                if reply is not None:
                    receive(site, reply)
            except SecAggError as error:
                self.refused[site] = error
