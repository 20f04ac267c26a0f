"""A hospital's side of secure aggregation.

The server is not trusted: it relays every message and may lie in each. These invariants hold whatever it
sends; each is followed by the attack it stops.

  1. A peer's key is used only with a valid signature of the peer's certificate over consortium, run, terms,
     peer and (mask key) round. - Swapped keys: the server in the middle of every pair reads the vector.
  2. At most one vector is masked per round, remembered durably, and rounds only go forward. - Replay: two
     vectors under the same masks give their difference.
  3. The self-mask seed is fresh randomness, drawn after the round was recorded. - A restart that repeats a
     seed repeats a mask.
  4. At most one survivors' set is signed per round, remembered durably; it contains this hospital, is
     disjoint from the dropped, makes up the participants with them, and has at least `minimum_survivors`.
     - Two sets of one round: the difference of two sums is one hospital's vector; small sets: too little
     noise.
  5. Shares are revealed once per round, and only when at least `threshold` survivors signed exactly the set
     this hospital signed, over the same directory. - Different sets shown to different hospitals.
  6. For a survivor the share of its self-mask seed is revealed, for a dropped hospital the share of its mask
     key, never both. - With both the server unmasks that hospital's vector, which it may have held all along.
  7. A share is revealed only if it decrypts as this peer's share of this secret for this hospital and round.
     - Shares moved between rounds or hospitals.

A hospital that restarts has lost its secrets, and with them the round in progress; it comes back with
`announce`.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from privacy.secagg import keys
from privacy.secagg.channels import Channels
from privacy.secagg.errors import SecAggProtocolError, SecAggReplayError, SecAggSignatureError
from privacy.secagg.keys import KeyPair, Randomness, SignedKey, Signer, Verifier
from privacy.secagg.masking import apply_masks
from privacy.secagg.memory import Act, RoundMemory
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
from privacy.secagg.quantisation import to_ring
from privacy.secagg.shamir import SECRET_BYTES

SERVER = "server"


@dataclass
class _Round:
    """The round in progress. `own_share`, of this hospital's own self-mask seed, is secret."""

    number: int
    mask_keys: dict[str, bytes]
    directory: bytes
    mask_pair: KeyPair
    own_share: bytes | None = field(default=None, repr=False)
    survivors: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    statement: bytes | None = None
    signature: bytes = b""


class SecAggClient:
    """State machine of one hospital in one run.

    Calls per round: `open_round` and `mask`, then `sign_survivors`, then `unmask`. Before the first round,
    and whenever the server asks because who takes part has changed: `announce`, then `share_keys`.
    A call that raises leaves the state as it was, unless the act was already recorded as done; then the round
    is lost to this hospital. Not for use by several threads at once.

    Args:
      parameters: the run's terms, from the plan this hospital approved.
      site: this hospital's name, one of `parameters.sites`.
      signer: signs with this hospital's certificate key.
      verifier: checks a peer's signature; raises if it, or the peer's certificate, is not valid now.
      randomness: cryptographically secure bytes, `os.urandom`.
      memory: durable; the same for every client this hospital ever makes.
    """

    def __init__(
        self,
        *,
        parameters: SecAggParameters,
        site: str,
        signer: Signer,
        verifier: Verifier,
        randomness: Randomness,
        memory: RoundMemory,
    ) -> None:
        if site not in parameters.sites:
            raise ValueError(f"site: expected one of {', '.join(parameters.sites)}, got {site}")
        self.parameters = parameters
        self.site = site
        self._signer = signer
        self._verifier = verifier
        self._randomness = randomness
        self._memory = memory
        self._channels: Channels | None = None
        self._announced: tuple[int, KeyPair, SignedKey] | None = None  # mask key, not yet shared
        self._shared: tuple[int, KeyPair, SignedKey] | None = None  # mask key, shared with the peers
        self._verified: set[tuple[str, int, SignedKey]] = set()  # mask keys, so each is verified once
        self._round: _Round | None = None

    def announce(self, request: AnnounceRequest) -> Announcement:
        """Set-up 1: gives out the signed channel key and a fresh signed mask key, and forgets any open round.

        Raises:
          SecAggReplayError: this round, or a later one, was masked before.
        """
        self._refuse_past_round(request.round)
        if self._channels is None:
            self._channels = Channels(parameters=self.parameters, site=self.site, randomness=self._randomness)
        own = self._channels.public_key
        message = keys.channel_key_bytes(self.parameters, site=self.site, key=own)
        channel_key = SignedKey(own, self._signer(message))
        pair, mask_key = self._new_mask_key(request.round)
        self._round = None
        self._shared = None
        self._announced = (request.round, pair, mask_key)
        return Announcement(site=self.site, round=request.round, channel_key=channel_key, mask_key=mask_key)

    def share_keys(self, request: ShareRequest) -> KeyShares:
        """Set-up 2: verifies the directory and deals the mask key's secret to everyone in it.

        Raises:
          SecAggProtocolError: no announcement for this round, the directory is too small, is not of the
            plan's hospitals, or lacks or alters this hospital's keys.
          SecAggSignatureError: a key is not signed by the hospital it is said to be of.
        """
        if self._announced is None or self._announced[0] != request.round or self._channels is None:
            raise SecAggProtocolError(
                SERVER, f"asks for key shares of round {request.round}, for which no key was announced"
            )
        _, pair, own_key = self._announced
        members = tuple(request.channel_keys)
        if members != tuple(request.mask_keys):
            raise SecAggProtocolError(SERVER, "the directory has channel keys and mask keys of different sites")
        self._check_members("directory", members)
        if request.channel_keys[self.site].key != self._channels.public_key:
            raise SecAggProtocolError(SERVER, f"the directory has another channel key for {self.site}")
        self._check_own_mask_key(request.mask_keys, own_key)
        self._verified.clear()
        peers = {site: signed for site, signed in request.channel_keys.items() if site != self.site}
        for site, signed in peers.items():
            message = keys.channel_key_bytes(self.parameters, site=site, key=signed.key)
            keys.verify(self._verifier, site, message, signed.signature, what="channel key")
        self._verify_mask_keys(request.round, request.mask_keys)
        self._channels.connect({site: signed.key for site, signed in peers.items()})
        self._shared = self._announced
        self._announced = None
        shares, _ = self._channels.deal(
            pair.secret,
            share_of="mask key",
            round_number=request.round,
            mask_key=own_key.key,
            recipients=peers,
        )
        return KeyShares(site=self.site, round=request.round, shares=shares)

    def open_round(self, request: RoundRequest) -> None:
        """Call 1, first half: verifies the round's participants and keys before anything private is computed.

        Raises:
          SecAggReplayError: this round, or a later one, was masked before.
          SecAggProtocolError: no key was shared for this round, too few participants, one outside the
            directory, or this hospital's key missing or altered.
          SecAggSignatureError: a mask key is not signed by its hospital for this round.
        """
        self._refuse_past_round(request.round)
        if self._shared is None or self._shared[0] != request.round or self._channels is None:
            raise SecAggProtocolError(
                SERVER,
                f"opens round {request.round}, for which no key of {self.site} is shared; set up first",
            )
        _, pair, own_key = self._shared
        participants = tuple(request.mask_keys)
        self._check_members("participants", participants)
        channel_keys = self._channels.public_keys
        unknown = set(participants) - set(channel_keys)
        if unknown:
            raise SecAggProtocolError(
                SERVER, f"participants without a channel key in the directory: {', '.join(sorted(unknown))}"
            )
        self._check_own_mask_key(request.mask_keys, own_key)
        self._verify_mask_keys(request.round, request.mask_keys)
        mask_keys = {site: signed.key for site, signed in request.mask_keys.items()}
        directory = keys.directory_digest(
            self.parameters, round_number=request.round, channel_keys=channel_keys, mask_keys=mask_keys
        )
        self._round = _Round(request.round, mask_keys, directory, pair)

    def mask(self, vector: np.ndarray[Any, np.dtype[np.int64]]) -> MaskedVector:
        """Call 1, second half: masks this hospital's noisy integer vector.

        The round is recorded before the self-mask seed is drawn. Memory: the vector, its masked copy, two
        blocks.

        Args:
          vector: int64, one axis of `parameters.dimension`; private until masked. Not changed.

        Raises:
          RuntimeError: no round is open, or it is masked already.
          SecAggRangeError: the vector does not fit the ring, its shape or dtype is another.
          SecAggReplayError: the memory knows this round as masked.
          SecAggMemoryError: the round could not be recorded; nothing was masked.
        """
        current = self._round
        if current is None or self._shared is None or self._channels is None:
            raise RuntimeError("expected an open, unmasked round; call open_round first")
        parameters = self.parameters
        masked = to_ring(vector, dimension=parameters.dimension, ring_bits=parameters.ring_bits)
        add: list[bytes] = []
        subtract: list[bytes] = []
        for peer, peer_key in current.mask_keys.items():
            if parameters.share_a_mask(self.site, peer):
                key = keys.pairwise_mask_key(
                    parameters,
                    round_number=current.number,
                    secret=current.mask_pair.secret,
                    site=self.site,
                    site_key=current.mask_pair.public,
                    peer=peer,
                    peer_key=peer_key,
                )
                (add if self.site < peer else subtract).append(key)
        self._shared = None  # used up: whatever happens from here on, not for another vector
        self._memory.record(parameters.run_label, current.number, Act.MASKED, current.directory)
        seed = self._randomness(SECRET_BYTES)
        recipients = [site for site in current.mask_keys if site != self.site]
        shares, current.own_share = self._channels.deal(
            seed,
            share_of="self mask seed",
            round_number=current.number,
            mask_key=current.mask_pair.public,
            recipients=recipients,
        )
        add.append(keys.self_mask_key(parameters, round_number=current.number, site=self.site, seed=seed))
        apply_masks(masked, add=add, subtract=subtract)
        return MaskedVector(
            site=self.site,
            round=current.number,
            vector=masked,
            commitment=keys.self_mask_commitment(parameters, round_number=current.number, site=self.site, seed=seed),
            shares=shares,
        )

    def sign_survivors(self, request: SurvivorsRequest) -> SurvivorsSignature:
        """Call 2: checks the survivors' set and signs it, once per round.

        Raises:
          SecAggReplayError: a set of this round was signed before.
          SecAggProtocolError: another round, overlapping sets, sets that do not make up the participants,
            fewer than `minimum_survivors`, or this hospital named as dropped.
          SecAggMemoryError: the signing could not be recorded; nothing was signed.
        """
        current = self._masked_round(request.round)
        if current.statement is not None:
            raise SecAggReplayError(SERVER, f"asks for a second signature in round {current.number}")
        survivors, dropped = set(request.survivors), set(request.dropped)
        if survivors & dropped:
            both = ", ".join(sorted(survivors & dropped))
            raise SecAggProtocolError(SERVER, f"names as survived and as dropped: {both}")
        if survivors | dropped != set(current.mask_keys):
            wrong = ", ".join(sorted((survivors | dropped) ^ set(current.mask_keys)))
            raise SecAggProtocolError(
                SERVER, f"survivors and dropped are not the participants; they differ in: {wrong}"
            )
        if self.site not in survivors:
            raise SecAggProtocolError(SERVER, f"names {self.site} as dropped and asks for its signature")
        if len(survivors) < self.parameters.minimum_survivors:
            raise SecAggProtocolError(
                SERVER,
                f"expected at least {self.parameters.minimum_survivors} survivors, got {len(survivors)}; "
                f"the sum would carry too little noise",
            )
        statement = keys.survivors_bytes(
            self.parameters,
            round_number=current.number,
            directory=current.directory,
            survivors=request.survivors,
            dropped=request.dropped,
        )
        self._memory.record(self.parameters.run_label, current.number, Act.SIGNED, hashlib.sha256(statement).digest())
        current.signature = self._signer(statement)
        current.survivors, current.dropped, current.statement = request.survivors, request.dropped, statement
        return SurvivorsSignature(site=self.site, round=current.number, signature=current.signature)

    def unmask(self, request: UnmaskRequest) -> UnmaskAnswer:
        """Call 3: checks that enough survivors signed the same set, reveals shares once, keys the next round.

        A sealed share that does not decrypt is left out and its sender named in `unreadable`: one bad dealer
        must not cost the others their sum, and nothing is revealed in its place.

        Raises:
          SecAggProtocolError: nothing was signed in this round, signatures of non-survivors, fewer than
            `threshold`, or shares asked for other than the survivors' seeds and the dropped ones' keys.
          SecAggSignatureError: a signature is not of its survivor over the set this hospital signed.
          SecAggReplayError: shares of this round were revealed before.
          SecAggMemoryError: the revealing could not be recorded; nothing was revealed.
        """
        current = self._masked_round(request.round)
        if current.statement is None or current.own_share is None or self._channels is None:
            raise SecAggProtocolError(
                SERVER, f"asks to unmask round {current.number} before its survivors' set was signed"
            )
        self._check_quorum(current, current.statement, request.signatures)
        asked = {
            "self mask": (set(request.self_mask_shares), set(current.survivors) - {self.site}),
            "mask key": (set(request.mask_key_shares), set(current.dropped)),
        }
        for what, (got, expected) in asked.items():
            if got != expected:
                raise SecAggProtocolError(
                    SERVER,
                    f"{what} shares: expected those of {_names(expected)}, got those of {_names(got)}; "
                    f"never both of one hospital",
                )
        if request.next_round is not None and request.next_round <= current.number:
            raise SecAggProtocolError(
                SERVER, f"next round: expected one after {current.number}, got {request.next_round}"
            )
        self._memory.record(
            self.parameters.run_label,
            current.number,
            Act.REVEALED,
            hashlib.sha256(current.statement).digest(),
        )
        self._round = None
        self_mask_shares, bad_seeds = self._channels.open(
            request.self_mask_shares,
            share_of="self mask seed",
            round_number=current.number,
            mask_keys=current.mask_keys,
        )
        mask_key_shares, bad_keys = self._channels.open(
            request.mask_key_shares,
            share_of="mask key",
            round_number=current.number,
            mask_keys=current.mask_keys,
        )
        self_mask_shares[self.site] = current.own_share
        next_mask_key: SignedKey | None = None
        next_shares: dict[str, bytes] = {}
        if request.next_round is not None:
            pair, next_mask_key = self._new_mask_key(request.next_round)
            recipients = [site for site in current.survivors if site != self.site]
            next_shares, _ = self._channels.deal(
                pair.secret,
                share_of="mask key",
                round_number=request.next_round,
                mask_key=next_mask_key.key,
                recipients=recipients,
            )
            self._shared = (request.next_round, pair, next_mask_key)
        return UnmaskAnswer(
            site=self.site,
            round=current.number,
            self_mask_shares=self_mask_shares,
            mask_key_shares=mask_key_shares,
            unreadable=tuple(sorted(bad_seeds + bad_keys)),
            next_round=request.next_round,
            next_mask_key=next_mask_key,
            next_shares=next_shares,
        )

    def _masked_round(self, round_number: int) -> _Round:
        current = self._round
        if current is None or current.own_share is None or current.number != round_number:
            raise SecAggProtocolError(
                SERVER, f"asks about round {round_number}, in which {self.site} has no masked vector"
            )
        return current

    def _refuse_past_round(self, round_number: int) -> None:
        last = self._memory.last_masked(self.parameters.run_label)
        if round_number <= last:
            raise SecAggReplayError(
                SERVER, f"asks for round {round_number}, but {self.site} masked round {last} before"
            )

    def _check_members(self, what: str, members: tuple[str, ...]) -> None:
        outsiders = set(members) - set(self.parameters.sites)
        if outsiders:
            raise SecAggProtocolError(SERVER, f"{what}: not hospitals of the plan: {_names(outsiders)}")
        if self.site not in members:
            raise SecAggProtocolError(SERVER, f"{what}: {self.site} itself is missing")
        if len(members) < self.parameters.minimum_survivors:
            raise SecAggProtocolError(
                SERVER,
                f"{what}: expected at least {self.parameters.minimum_survivors} hospitals, got {len(members)}",
            )

    def _check_own_mask_key(self, mask_keys: Mapping[str, SignedKey], own_key: SignedKey) -> None:
        if mask_keys[self.site].key != own_key.key:
            raise SecAggProtocolError(SERVER, f"another mask key is given out for {self.site}")

    def _check_quorum(self, current: _Round, statement: bytes, signatures: Mapping[str, bytes]) -> None:
        strangers = set(signatures) - set(current.survivors)
        if strangers:
            raise SecAggProtocolError(SERVER, f"signatures of hospitals that did not survive: {_names(strangers)}")
        if len(signatures) < self.parameters.threshold:
            raise SecAggProtocolError(
                SERVER,
                f"expected at least {self.parameters.threshold} signatures over the survivors' set, "
                f"got {len(signatures)}",
            )
        for site, signature in signatures.items():
            if site != self.site:
                keys.verify(self._verifier, site, statement, signature, what="survivors' set")
            elif signature != current.signature:
                raise SecAggSignatureError(SERVER, f"another signature is given out for {self.site}")

    def _verify_mask_keys(self, round_number: int, mask_keys: Mapping[str, SignedKey]) -> None:
        for site, signed in mask_keys.items():
            if site != self.site and (site, round_number, signed) not in self._verified:
                message = keys.mask_key_bytes(self.parameters, site=site, round_number=round_number, key=signed.key)
                keys.verify(self._verifier, site, message, signed.signature, what="mask key")
                self._verified.add((site, round_number, signed))

    def _new_mask_key(self, round_number: int) -> tuple[KeyPair, SignedKey]:
        pair = keys.generate_key_pair(self._randomness)
        message = keys.mask_key_bytes(self.parameters, site=self.site, round_number=round_number, key=pair.public)
        return pair, SignedKey(pair.public, self._signer(message))


def _names(sites: Iterable[str]) -> str:
    return ", ".join(sorted(sites)) or "none"
