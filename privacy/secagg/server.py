"""The server's side of secure aggregation.

Invariants (of an honest server; a hospital does not rely on them, see `client`):
  1. A vector is added only after its whole message was validated; one that is refused counts as dropped.
  2. Nothing is unmasked unless at least `minimum_survivors` vectors arrived, at least `threshold` hospitals
     signed one set, and at least `threshold` revealed shares. Otherwise `SecAggAbortError`, and the round is
     over.
  3. A recovered secret is used only if it matches what its owner published before (the mask key's public key,
     the seed's commitment). So a wrong share is found and named, or the round fails: never a wrong sum.
     - A hospital that sends garbage shares to falsify the model.
  4. Vectors are added as they arrive and not kept: memory is the running sum and the vector being added.

A hospital that answers too late, wrongly or not at all is simply not handed in; it comes back by a set-up.
Every hospital is named by the transport, which authenticated it; a message that names another is refused.
"""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from privacy.secagg import keys
from privacy.secagg.errors import (
    SecAggAbortError,
    SecAggMessageError,
    SecAggProtocolError,
)
from privacy.secagg.keys import SignedKey, Verifier
from privacy.secagg.masking import apply_masks
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
from privacy.secagg.parameters import RingVector, SecAggParameters, SignedVector
from privacy.secagg.quantisation import from_ring
from privacy.secagg.unmasking import recover_masks


class Phase(enum.Enum):
    """What the server waits for."""

    IDLE = "idle"
    ANNOUNCEMENTS = "announcements"
    KEY_SHARES = "key shares"
    VECTORS = "masked vectors"
    SIGNATURES = "signatures"
    ANSWERS = "unmask answers"


@dataclass(frozen=True, eq=False)
class Aggregate:
    """The exact sum of a round's survivors, with the evidence that they agreed to it.

    Attributes:
      round: the round.
      total: int64 or int32, the sum modulo the ring, read as signed.
      survivors: hospitals whose vectors are in the sum, sorted.
      dropped: participants whose vectors are not, sorted.
      directory: 32 bytes, digest of the participants and their keys.
      statement: the bytes the survivors signed (`keys.survivors_bytes`).
      signatures: at least `threshold` of the survivors' signatures over `statement`.
      suspects: hospitals that dealt or revealed a wrong share, as far as the shares tell; the sum is right
        anyway.
    """

    round: int
    total: SignedVector
    survivors: tuple[str, ...]
    dropped: tuple[str, ...]
    directory: bytes
    statement: bytes
    signatures: Mapping[str, bytes]
    suspects: tuple[str, ...]


@dataclass
class _Round:
    number: int
    mask_keys: dict[str, SignedKey]
    mask_key_shares: dict[str, Mapping[str, bytes]]  # owner -> recipient -> sealed share
    directory: bytes
    total: RingVector
    commitments: dict[str, bytes] = field(default_factory=dict)
    seed_shares: dict[str, Mapping[str, bytes]] = field(default_factory=dict)
    survivors: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    statement: bytes = b""
    signatures: dict[str, bytes] = field(default_factory=dict)
    next_round: int | None = None
    answers: dict[str, UnmaskAnswer] = field(default_factory=dict)


class SecAggServer:
    """State machine of the server in one run.

    Set-up: `start_set_up`, `receive_announcement` of each, `share_requests`, `receive_key_shares` of each.
    Round: `start_round`, `receive_masked_vector` of each, `survivors_requests`, `receive_signature` of each,
    `unmask_requests`, `receive_answer` of each, `finish`. The next round starts at once with `ready`, unless
    hospitals are to come back: then another set-up.

    A `receive_` method that raises leaves the state as it was: treat that hospital as dropped. Methods called
    out of order raise `RuntimeError`. Not for use by several threads at once.

    Args:
      parameters: the run's terms.
      verifier: as for the client.
    """

    def __init__(self, *, parameters: SecAggParameters, verifier: Verifier) -> None:
        self.parameters = parameters
        self._verifier = verifier
        self._phase = Phase.IDLE
        self._last_round = 0
        self._channel_keys: dict[str, SignedKey] = {}
        self._key_round = 0  # the round the mask keys below are for
        self._asked: tuple[str, ...] = ()
        self._mask_keys: dict[str, SignedKey] = {}
        self._mask_key_shares: dict[str, Mapping[str, bytes]] = {}
        self._round: _Round | None = None

    @property
    def phase(self) -> Phase:
        """What the server waits for."""
        return self._phase

    @property
    def ready(self) -> tuple[str, ...]:
        """Hospitals whose key for `next_round` is here and shared; they can take part without a set-up."""
        return tuple(sorted(self._mask_key_shares)) if self._key_round > self._last_round else ()

    @property
    def next_round(self) -> int:
        """The round that `ready` is for, or the first number not yet used."""
        return max(self._key_round, self._last_round + 1)

    def start_set_up(self, round_number: int, sites: Iterable[str]) -> dict[str, AnnounceRequest]:
        """Begins a set-up for a round, in any phase; a round in progress is given up.

        Args:
          round_number: after every round started before.
          sites: hospitals that can be reached, of the plan.

        Raises:
          SecAggAbortError: fewer than `minimum_survivors`.
        """
        if round_number <= self._last_round:
            raise RuntimeError(f"expected a round after {self._last_round}, got {round_number}")
        asked = tuple(sorted(set(sites)))
        if not set(asked) <= set(self.parameters.sites):
            raise RuntimeError(f"sites: expected hospitals of the plan, got {', '.join(asked)}")
        self._give_up()
        self._require("set-up", asked, self.parameters.minimum_survivors)
        self._channel_keys = {}
        self._key_round = round_number
        self._asked = asked
        self._phase = Phase.ANNOUNCEMENTS
        return {site: AnnounceRequest(round=round_number) for site in asked}

    def receive_announcement(self, site: str, message: Announcement) -> None:
        """Takes a hospital's keys.

        Raises:
          SecAggProtocolError, SecAggSignatureError: it is for another round or hospital, or not signed by it.
        """
        self._expect(Phase.ANNOUNCEMENTS)
        self._check_sender(site, message.site, message, message.round, self._key_round, self._asked)
        if site in self._mask_keys:
            raise SecAggProtocolError(site, "announces a second time")
        channel, mask = message.channel_key, message.mask_key
        statement = keys.channel_key_bytes(self.parameters, site=site, key=channel.key)
        keys.verify(self._verifier, site, statement, channel.signature, what="channel key")
        self._verify_mask_key(site, self._key_round, mask)
        self._channel_keys[site] = channel
        self._mask_keys[site] = mask

    def share_requests(self) -> dict[str, ShareRequest]:
        """Ends the announcements: the directory, for everyone who announced.

        Raises:
          SecAggAbortError: fewer than `minimum_survivors` announced.
        """
        self._expect(Phase.ANNOUNCEMENTS)
        self._require("announcements", tuple(sorted(self._mask_keys)), self.parameters.minimum_survivors)
        request = ShareRequest(
            round=self._key_round,
            channel_keys=dict(sorted(self._channel_keys.items())),
            mask_keys=dict(sorted(self._mask_keys.items())),
        )
        self._phase = Phase.KEY_SHARES
        return dict.fromkeys(request.mask_keys, request)

    def receive_key_shares(self, site: str, message: KeyShares) -> None:
        """Takes a hospital's sealed shares; from now on it is `ready`.

        Raises:
          SecAggProtocolError: another round or hospital, or shares not for exactly the others of the
            directory.
        """
        self._expect(Phase.KEY_SHARES)
        self._check_sender(site, message.site, message, message.round, self._key_round, self._mask_keys)
        self._check_recipients(site, message.shares, set(self._mask_keys) - {site}, "mask key")
        if site in self._mask_key_shares:
            raise SecAggProtocolError(site, "deals its mask key a second time")
        self._mask_key_shares[site] = message.shares

    def start_round(self, sites: Iterable[str] | None = None) -> dict[str, RoundRequest]:
        """Begins round `next_round`.

        Args:
          sites: who takes part, of `ready`; all of them if not given.

        Raises:
          SecAggAbortError: fewer than `minimum_survivors` are ready.
        """
        if self._phase not in (Phase.IDLE, Phase.KEY_SHARES):
            raise RuntimeError(f"expected no round in progress, but it waits for {self._phase.value}")
        participants = self.ready if sites is None else tuple(sorted(set(sites)))
        if not set(participants) <= set(self.ready):
            raise RuntimeError(f"sites: expected some of {', '.join(self.ready)}, got {', '.join(participants)}")
        number, mask_keys, shares = self._key_round, self._mask_keys, self._mask_key_shares
        self._give_up()
        self._require("round", participants, self.parameters.minimum_survivors)
        self._last_round = number
        self._round = _Round(
            number=number,
            mask_keys={site: mask_keys[site] for site in participants},
            mask_key_shares={site: shares[site] for site in participants},
            directory=keys.directory_digest(
                self.parameters,
                round_number=number,
                channel_keys={site: signed.key for site, signed in self._channel_keys.items()},
                mask_keys={site: mask_keys[site].key for site in participants},
            ),
            total=np.zeros(self.parameters.dimension, dtype=self.parameters.ring_dtype),
        )
        self._phase = Phase.VECTORS
        request = RoundRequest(round=number, mask_keys=self._round.mask_keys)
        return dict.fromkeys(participants, request)

    def receive_masked_vector(self, site: str, message: MaskedVector) -> None:
        """Adds a hospital's masked vector to the running sum. The vector is not kept.

        Raises:
          SecAggProtocolError: another round or hospital, a second vector, or shares not for exactly the other
            participants.
          SecAggMessageError: the vector has another dtype or length than the terms.
        """
        current = self._in(Phase.VECTORS)
        self._check_sender(site, message.site, message, message.round, current.number, current.mask_keys)
        if site in current.commitments:
            raise SecAggProtocolError(site, f"sends a second vector in round {current.number}")
        name = f"{message.KIND}.vector"
        if message.vector.dtype != self.parameters.ring_dtype:
            raise SecAggMessageError(
                name, f"expected {self.parameters.ring_dtype} of {site}, got {message.vector.dtype}"
            )
        if message.vector.shape != (self.parameters.dimension,):
            raise SecAggMessageError(
                name, f"expected {self.parameters.dimension} coordinates of {site}, got {message.vector.size}"
            )
        self._check_recipients(site, message.shares, set(current.mask_keys) - {site}, "self mask seed")
        np.add(current.total, message.vector, out=current.total)
        current.commitments[site] = message.commitment
        current.seed_shares[site] = message.shares

    def survivors_requests(self) -> dict[str, SurvivorsRequest]:
        """Ends the vectors: the survivors' set, for each survivor to sign.

        Raises:
          SecAggAbortError: fewer than `minimum_survivors` vectors arrived; nothing is unmasked.
        """
        current = self._in(Phase.VECTORS)
        survivors = tuple(sorted(current.commitments))
        self._require("masked vectors", survivors, self.parameters.minimum_survivors)
        current.survivors = survivors
        current.dropped = tuple(sorted(set(current.mask_keys) - set(survivors)))
        current.statement = keys.survivors_bytes(
            self.parameters,
            round_number=current.number,
            directory=current.directory,
            survivors=current.survivors,
            dropped=current.dropped,
        )
        self._phase = Phase.SIGNATURES
        request = SurvivorsRequest(round=current.number, survivors=current.survivors, dropped=current.dropped)
        return dict.fromkeys(survivors, request)

    def receive_signature(self, site: str, message: SurvivorsSignature) -> None:
        """Takes a survivor's signature over the set.

        Raises:
          SecAggProtocolError, SecAggSignatureError: another round or hospital, or not over this set.
        """
        current = self._in(Phase.SIGNATURES)
        self._check_sender(site, message.site, message, message.round, current.number, current.survivors)
        keys.verify(self._verifier, site, current.statement, message.signature, what="survivors' set")
        current.signatures[site] = message.signature

    def unmask_requests(self, next_round: int | None = None) -> dict[str, UnmaskRequest]:
        """Ends the signatures: for each hospital that signed, the signatures and the shares sealed for it.

        Args:
          next_round: the round the hospitals should give a key for; None after the last round.

        Raises:
          SecAggAbortError: fewer than `threshold` signed; nothing is unmasked.
        """
        current = self._in(Phase.SIGNATURES)
        if next_round is not None and next_round <= current.number:
            raise RuntimeError(f"expected a round after {current.number}, got {next_round}")
        signers = tuple(sorted(current.signatures))
        self._require("signatures", signers, self.parameters.threshold)
        current.next_round = next_round
        self._phase = Phase.ANSWERS
        return {
            site: UnmaskRequest(
                round=current.number,
                signatures=current.signatures,
                self_mask_shares={peer: current.seed_shares[peer][site] for peer in current.survivors if peer != site},
                mask_key_shares={peer: current.mask_key_shares[peer][site] for peer in current.dropped},
                next_round=next_round,
            )
            for site in signers
        }

    def receive_answer(self, site: str, message: UnmaskAnswer) -> None:
        """Takes a hospital's shares and its key for the next round.

        Raises:
          SecAggProtocolError, SecAggSignatureError: another round or hospital, shares of others than were
            asked, or a next key that is missing, unsigned or not shared with exactly the other survivors.
        """
        current = self._in(Phase.ANSWERS)
        self._check_sender(site, message.site, message, message.round, current.number, current.signatures)
        if site in current.answers:
            raise SecAggProtocolError(site, f"reveals shares of round {current.number} a second time")
        unreadable = set(message.unreadable)
        for what, shares, asked in (
            ("self mask seed", message.self_mask_shares, set(current.survivors)),
            ("mask key", message.mask_key_shares, set(current.dropped)),
        ):
            if set(shares) != asked - unreadable or site in unreadable:
                raise SecAggProtocolError(site, f"reveals shares of the {what} of others than were asked for")
        if message.next_round != current.next_round:
            raise SecAggProtocolError(site, f"gives a key for another round than {current.next_round}")
        if current.next_round is not None:
            if message.next_mask_key is None:
                raise SecAggProtocolError(site, f"gives no mask key for round {current.next_round}")
            self._verify_mask_key(site, current.next_round, message.next_mask_key)
            others = set(current.survivors) - {site}
            self._check_recipients(site, message.next_shares, others, "next mask key")
        current.answers[site] = message

    def finish(self) -> Aggregate:
        """Ends the answers: recovers the masks, removes them, and keeps the keys for the next round.

        Raises:
          SecAggAbortError: fewer than `threshold` answered; nothing is unmasked.
          SecAggShareError: a secret could not be recovered; names its owner. The round is lost, and the owner
            or more holders than can be found gave wrong shares.
        """
        current = self._in(Phase.ANSWERS)
        answered = tuple(sorted(current.answers))
        self._give_up()
        self._require("unmask answers", answered, self.parameters.threshold)
        masks = recover_masks(
            self.parameters,
            round_number=current.number,
            mask_keys={site: signed.key for site, signed in current.mask_keys.items()},
            commitments=current.commitments,
            dropped=current.dropped,
            self_mask_shares={site: answer.self_mask_shares for site, answer in current.answers.items()},
            mask_key_shares={site: answer.mask_key_shares for site, answer in current.answers.items()},
        )
        apply_masks(current.total, add=masks.add, subtract=masks.subtract)
        if current.next_round is not None:
            self._key_round = current.next_round
            for site, answer in current.answers.items():
                if answer.next_mask_key is not None:
                    self._mask_keys[site] = answer.next_mask_key
                    self._mask_key_shares[site] = answer.next_shares
        return Aggregate(
            round=current.number,
            total=from_ring(current.total),
            survivors=current.survivors,
            dropped=current.dropped,
            directory=current.directory,
            statement=current.statement,
            signatures=dict(current.signatures),
            suspects=tuple(sorted(masks.suspects)),
        )

    def _give_up(self) -> None:
        self._round = None
        self._mask_keys = {}
        self._mask_key_shares = {}
        self._phase = Phase.IDLE

    def _expect(self, phase: Phase) -> None:
        if self._phase is not phase:
            raise RuntimeError(f"expected to wait for {phase.value}, but it waits for {self._phase.value}")

    def _in(self, phase: Phase) -> _Round:
        self._expect(phase)
        if self._round is None:
            raise RuntimeError("no round is in progress")
        return self._round

    def _require(self, step: str, present: tuple[str, ...], needed: int) -> None:
        if len(present) < needed:
            self._give_up()
            raise SecAggAbortError(step, present, needed)

    def _check_sender(
        self,
        site: str,
        named: str,
        message: Message,
        round_number: int,
        expected_round: int,
        allowed: Iterable[str],
    ) -> None:
        if named != site:
            raise SecAggProtocolError(site, f"{message.KIND} names {named} as its sender")
        if round_number != expected_round:
            raise SecAggProtocolError(site, f"{message.KIND}: expected round {expected_round}, got {round_number}")
        if site not in allowed:
            raise SecAggProtocolError(site, f"{message.KIND} was not asked of it")

    def _check_recipients(self, site: str, shares: Mapping[str, bytes], expected: set[str], what: str) -> None:
        if set(shares) != expected:
            wrong = ", ".join(sorted(set(shares) ^ expected))
            raise SecAggProtocolError(site, f"{what}: shares missing or too many for {wrong}")

    def _verify_mask_key(self, site: str, round_number: int, signed: SignedKey) -> None:
        statement = keys.mask_key_bytes(self.parameters, site=site, round_number=round_number, key=signed.key)
        keys.verify(self._verifier, site, statement, signed.signature, what="mask key")
