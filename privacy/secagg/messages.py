"""The messages of secure aggregation, in the order they are sent.

    set-up   AnnounceRequest -> Announcement, ShareRequest -> KeyShares
    call 1   RoundRequest -> MaskedVector
    call 2   SurvivorsRequest -> SurvivorsSignature
    call 3   UnmaskRequest -> UnmaskAnswer

Requests go from the server to a hospital, answers back. On the wire a message is a flat dict (`to_message`);
it carries its `type` and `version`, and `from_message` accepts nothing that `to_message` does not make.
Everything in a message may be seen by the server: secrets travel only as sealed shares, and shares in the
clear only in an `UnmaskAnswer`.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np

from privacy.secagg.errors import SecAggMessageError
from privacy.secagg.fields import (
    Blob,
    BySite,
    Codec,
    Name,
    Names,
    RingVectorCodec,
    SignedKeyCodec,
    Whole,
    WireValue,
)
from privacy.secagg.keys import COMMITMENT_BYTES, KEY_BYTES, MAX_SIGNATURE_BYTES, SignedKey
from privacy.secagg.parameters import MAX_ROUND
from privacy.secagg.sealing import SEALED_SHARE_BYTES
from privacy.secagg.shamir import SHARE_BYTES

VERSION = 1


_NAME = {"codec": Name()}
_NAMES = {"codec": Names()}
_ROUND = {"codec": Whole(1, MAX_ROUND)}
_NEXT_ROUND = {"codec": Whole(1, MAX_ROUND, optional=True)}
_SIGNED_KEY = {"codec": SignedKeyCodec()}
_NEXT_KEY = {"codec": SignedKeyCodec(optional=True)}
_SIGNED_KEYS = {"codec": BySite(SignedKeyCodec(), KEY_BYTES + MAX_SIGNATURE_BYTES)}
_SIGNATURE = {"codec": Blob(1, MAX_SIGNATURE_BYTES)}
_SIGNATURES = {"codec": BySite(Blob(1, MAX_SIGNATURE_BYTES), MAX_SIGNATURE_BYTES)}
_VECTOR = {"codec": RingVectorCodec()}
_COMMITMENT = {"codec": Blob(COMMITMENT_BYTES, COMMITMENT_BYTES)}
_SEALED_SHARES = {"codec": BySite(Blob(SEALED_SHARE_BYTES, SEALED_SHARE_BYTES), SEALED_SHARE_BYTES)}
_SHARES = {"codec": BySite(Blob(SHARE_BYTES, SHARE_BYTES), SHARE_BYTES)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Message:
    """What all messages have in common.

    Raises:
      SecAggMessageError: on construction, a field is outside its limits.
    """

    KIND: ClassVar[str]

    def __post_init__(self) -> None:
        for name, codec in self._codecs():
            codec.read(f"{self.KIND}.{name}", codec.write(getattr(self, name)))

    def to_message(self) -> dict[str, WireValue]:
        """The wire form: `type`, `version` and one flat value per field. Arrays are not copied."""
        message: dict[str, WireValue] = {"type": self.KIND, "version": VERSION}
        for name, codec in self._codecs():
            message[name] = codec.write(getattr(self, name))
        return message

    @classmethod
    def from_message(cls, message: object) -> Self:
        """Parses the wire form.

        Raises:
          SecAggMessageError: anything but a well-formed message of this kind and version; names the field.
        """
        if type(message) is not dict:
            raise SecAggMessageError(cls.KIND, f"expected a dict, got {type(message).__name__}")
        kind, version = message.get("type"), message.get("version")
        if type(kind) is not str or kind != cls.KIND:
            raise SecAggMessageError(f"{cls.KIND}.type", f"expected {cls.KIND}, got another type")
        if type(version) is not int or version != VERSION:
            raise SecAggMessageError(
                f"{cls.KIND}.version", f"expected {VERSION}, got another; both sides need the same release"
            )
        codecs = cls._codecs()
        unknown = set(message) - {"type", "version"} - {name for name, _ in codecs}
        if unknown:
            first = min(ascii(key)[:100] for key in unknown)
            raise SecAggMessageError(f"{cls.KIND}.{first}", "unknown field")
        values = {}
        for name, codec in codecs:
            if name not in message:
                raise SecAggMessageError(f"{cls.KIND}.{name}", "missing")
            values[name] = codec.read(f"{cls.KIND}.{name}", message[name])
        parsed = object.__new__(cls)  # the fields are checked; the constructor would check them again
        for name, value in values.items():
            object.__setattr__(parsed, name, value)
        return parsed

    @classmethod
    def _codecs(cls) -> list[tuple[str, Codec]]:
        return [(f.name, f.metadata["codec"]) for f in dataclasses.fields(cls)]


@dataclass(frozen=True, kw_only=True, eq=False)
class AnnounceRequest(Message):
    """Set-up 1, asks for keys: the run starts, or who takes part has changed.

    Attributes:
      round: the round the new mask key is for.
    """

    KIND: ClassVar[str] = "secagg-announce-request"
    round: int = field(metadata=_ROUND)


@dataclass(frozen=True, kw_only=True, eq=False)
class Announcement(Message):
    """Set-up 1, a hospital's signed public keys.

    Attributes:
      channel_key: for sealing shares, lasts for the run.
      mask_key: for pairwise masks, for this round only.
    """

    KIND: ClassVar[str] = "secagg-announcement"
    site: str = field(metadata=_NAME)
    round: int = field(metadata=_ROUND)
    channel_key: SignedKey = field(metadata=_SIGNED_KEY)
    mask_key: SignedKey = field(metadata=_SIGNED_KEY)


@dataclass(frozen=True, kw_only=True, eq=False)
class ShareRequest(Message):
    """Set-up 2, the directory: the signed keys of everyone who announced them."""

    KIND: ClassVar[str] = "secagg-share-request"
    round: int = field(metadata=_ROUND)
    channel_keys: Mapping[str, SignedKey] = field(metadata=_SIGNED_KEYS)
    mask_keys: Mapping[str, SignedKey] = field(metadata=_SIGNED_KEYS)


@dataclass(frozen=True, kw_only=True, eq=False)
class KeyShares(Message):
    """Set-up 2, sealed shares of a hospital's mask key secret, by recipient."""

    KIND: ClassVar[str] = "secagg-key-shares"
    site: str = field(metadata=_NAME)
    round: int = field(metadata=_ROUND)
    shares: Mapping[str, bytes] = field(metadata=_SEALED_SHARES)


@dataclass(frozen=True, kw_only=True, eq=False)
class RoundRequest(Message):
    """Call 1, opens a round: the participants and their signed mask keys."""

    KIND: ClassVar[str] = "secagg-round-request"
    round: int = field(metadata=_ROUND)
    mask_keys: Mapping[str, SignedKey] = field(metadata=_SIGNED_KEYS)


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskedVector(Message):
    """Call 1, a hospital's masked vector.

    Attributes:
      vector: ring vector of the terms' dimension.
      commitment: 32 bytes, `keys.self_mask_commitment`.
      shares: sealed shares of the self-mask seed, by recipient.
    """

    KIND: ClassVar[str] = "secagg-masked-vector"
    site: str = field(metadata=_NAME)
    round: int = field(metadata=_ROUND)
    vector: np.ndarray[Any, np.dtype[Any]] = field(metadata=_VECTOR)
    commitment: bytes = field(metadata=_COMMITMENT)
    shares: Mapping[str, bytes] = field(metadata=_SEALED_SHARES)


@dataclass(frozen=True, kw_only=True, eq=False)
class SurvivorsRequest(Message):
    """Call 2, the set to sign: whose vectors arrived and whose did not."""

    KIND: ClassVar[str] = "secagg-survivors-request"
    round: int = field(metadata=_ROUND)
    survivors: tuple[str, ...] = field(metadata=_NAMES)
    dropped: tuple[str, ...] = field(metadata=_NAMES)


@dataclass(frozen=True, kw_only=True, eq=False)
class SurvivorsSignature(Message):
    """Call 2, a hospital's signature over `keys.survivors_bytes`."""

    KIND: ClassVar[str] = "secagg-survivors-signature"
    site: str = field(metadata=_NAME)
    round: int = field(metadata=_ROUND)
    signature: bytes = field(metadata=_SIGNATURE)


@dataclass(frozen=True, kw_only=True, eq=False)
class UnmaskRequest(Message):
    """Call 3, proves that enough survivors signed the set, and brings the sealed shares for this hospital.

    Attributes:
      signatures: the survivors' signatures that arrived.
      self_mask_shares: from every other survivor, its self-mask seed's share for this hospital.
      mask_key_shares: from every dropped hospital, its mask key's share for this hospital.
      next_round: the round to give a mask key for; null if the run ends here.
    """

    KIND: ClassVar[str] = "secagg-unmask-request"
    round: int = field(metadata=_ROUND)
    signatures: Mapping[str, bytes] = field(metadata=_SIGNATURES)
    self_mask_shares: Mapping[str, bytes] = field(metadata=_SEALED_SHARES)
    mask_key_shares: Mapping[str, bytes] = field(metadata=_SEALED_SHARES)
    next_round: int | None = field(metadata=_NEXT_ROUND)


@dataclass(frozen=True, kw_only=True, eq=False)
class UnmaskAnswer(Message):
    """Call 3, the shares in the clear, and the key for the next round.

    Attributes:
      self_mask_shares: of every survivor, the answering hospital included.
      mask_key_shares: of every dropped hospital.
      unreadable: hospitals whose sealed share did not decrypt, left out above.
      next_round: as asked; null if no key was asked for.
      next_mask_key: signed mask key of the next round; null if no key was asked for.
      next_shares: sealed shares of its secret for every other survivor; empty if no key was asked for.
    """

    KIND: ClassVar[str] = "secagg-unmask-answer"
    site: str = field(metadata=_NAME)
    round: int = field(metadata=_ROUND)
    self_mask_shares: Mapping[str, bytes] = field(metadata=_SHARES)
    mask_key_shares: Mapping[str, bytes] = field(metadata=_SHARES)
    unreadable: tuple[str, ...] = field(metadata=_NAMES)
    next_round: int | None = field(metadata=_NEXT_ROUND)
    next_mask_key: SignedKey | None = field(metadata=_NEXT_KEY)
    next_shares: Mapping[str, bytes] = field(metadata=_SEALED_SHARES)
