"""Keys: X25519 agreements, what is derived from them, and how a hospital vouches for its public keys.

Invariants:
  - a public key is used only after the verifier accepted the signature of the hospital it names over
    `signed_bytes`, which contains consortium, run, terms, hospital and (mask key) round: a key of another run
    or round, or of another hospital, never verifies;
  - every derived key has its own HKDF info, so no key serves two purposes, pairs, directions or rounds;
  - the pairwise key is bound to both public keys, so a mask exists only between the two keys that were
    signed.

Public: public keys, signatures, commitments. Secret: everything else in this module.
Sources: RFC 7748 (X25519), RFC 5869 (HKDF), FIPS 180-4 (SHA-256).
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from privacy.secagg.errors import SecAggProtocolError, SecAggSignatureError
from privacy.secagg.parameters import SecAggParameters

KEY_BYTES = 32
COMMITMENT_BYTES = 32
MAX_SIGNATURE_BYTES = 1024  # RSA-4096 needs 512

Randomness = Callable[[int], bytes]
"""Returns that many cryptographically secure bytes (`os.urandom`)."""

Signer = Callable[[bytes], bytes]
"""Signs a message with the hospital's certificate key."""

Verifier = Callable[[str, bytes, bytes], None]
"""Takes peer, message, signature; raises unless the peer's certificate, valid and unrevoked, signed it."""


class SignedKey(NamedTuple):
    """A public key and its hospital's signature over `signed_bytes` of it.

    Attributes:
      key: 32 bytes, X25519 public key.
      signature: 1-1024 bytes.
    """

    key: bytes
    signature: bytes


@dataclass(frozen=True, repr=False)
class KeyPair:
    """An X25519 key pair.

    Attributes:
      secret: 32 bytes, secret.
      public: 32 bytes.
    """

    secret: bytes
    public: bytes

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public.hex()})"  # never the secret, not even in a traceback


def generate_key_pair(randomness: Randomness) -> KeyPair:
    """Makes an X25519 key pair from 32 random bytes."""
    secret = randomness(KEY_BYTES)
    return KeyPair(secret, public_key(secret))


def public_key(secret: bytes) -> bytes:
    """The X25519 public key of a 32-byte secret."""
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def signed_bytes(parameters: SecAggParameters, kind: str, **fields: str | int | Mapping[str, str]) -> bytes:
    """What a hospital signs: a prefix no other statement of Zegel has, then the canonical context.

    Args:
      kind: `channel-key` (fields site, key), `mask-key` (site, round, key) or `survivors` (round, directory,
        survivors, dropped).
    """
    return b"zegel secagg v1\n" + parameters.context(f"zegel/secagg-{kind}/v1", **fields)


def channel_key_bytes(parameters: SecAggParameters, *, site: str, key: bytes) -> bytes:
    """The signed bytes of a run-level channel key."""
    return signed_bytes(parameters, "channel-key", site=site, key=key.hex())


def mask_key_bytes(parameters: SecAggParameters, *, site: str, round_number: int, key: bytes) -> bytes:
    """The signed bytes of a round's mask key."""
    return signed_bytes(parameters, "mask-key", site=site, round=round_number, key=key.hex())


def verify(verifier: Verifier, peer: str, message: bytes, signature: bytes, *, what: str) -> None:
    """Checks a peer's signature.

    Args:
      what: what was signed, for the error's text.

    Raises:
      SecAggSignatureError: the verifier raised, whatever it raised.
    """
    try:
        verifier(peer, message, signature)
    except Exception as error:
        raise SecAggSignatureError(
            peer,
            f"its {what} does not verify under its certificate for this consortium, run and round "
            f"({type(error).__name__}: {error})",
        ) from error


def directory_digest(
    parameters: SecAggParameters,
    *,
    round_number: int,
    channel_keys: Mapping[str, bytes],
    mask_keys: Mapping[str, bytes],
) -> bytes:
    """SHA-256 of a round's participants and the public keys used for them.

    Survivors sign it, so hospitals that were shown different participants or keys never agree on a set.

    Args:
      channel_keys: at least the participants' channel keys; others are ignored.
      mask_keys: the participants' mask keys of the round.
    """
    participants = {site: f"{channel_keys[site].hex()} {key.hex()}" for site, key in mask_keys.items()}
    return hashlib.sha256(
        parameters.context("zegel/secagg-directory/v1", round=round_number, participants=participants)
    ).digest()


def survivors_bytes(
    parameters: SecAggParameters,
    *,
    round_number: int,
    directory: bytes,
    survivors: tuple[str, ...],
    dropped: tuple[str, ...],
) -> bytes:
    """The signed bytes of a round's survivors' set."""
    members = dict.fromkeys(survivors, "survived") | dict.fromkeys(dropped, "dropped")
    return signed_bytes(parameters, "survivors", round=round_number, directory=directory.hex(), participants=members)


def agree(secret: bytes, peer_key: bytes, *, peer: str) -> bytes:
    """The X25519 shared secret.

    Raises:
      SecAggProtocolError: the peer's key has low order, so the shared secret would be known to everyone.
    """
    try:
        return X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(peer_key))
    except ValueError as error:
        raise SecAggProtocolError(peer, "its X25519 key has low order; expected a random key") from error


def pairwise_mask_key(
    parameters: SecAggParameters,
    *,
    round_number: int,
    secret: bytes,
    site: str,
    site_key: bytes,
    peer: str,
    peer_key: bytes,
) -> bytes:
    """The 32-byte key of the mask shared by two hospitals in one round; the same from both ends."""
    (first, first_key), (second, second_key) = sorted([(site, site_key), (peer, peer_key)])
    info = parameters.context(
        "pairwise mask",
        round=round_number,
        first=first,
        first_key=first_key.hex(),
        second=second,
        second_key=second_key.hex(),
    )
    return _derive(agree(secret, peer_key, peer=peer), info)


def self_mask_key(parameters: SecAggParameters, *, round_number: int, site: str, seed: bytes) -> bytes:
    """The 32-byte key of a hospital's own mask, from its fresh 32-byte seed."""
    return _derive(seed, parameters.context("self mask", round=round_number, site=site))


def self_mask_commitment(parameters: SecAggParameters, *, round_number: int, site: str, seed: bytes) -> bytes:
    """32 public bytes by which the server recognises a rightly recovered self-mask seed.

    Derived apart from the mask key, so it tells nothing about the mask.
    """
    return _derive(seed, parameters.context("self mask commitment", round=round_number, site=site))


def channel_share_key(
    parameters: SecAggParameters,
    *,
    shared: bytes,
    sender: str,
    sender_key: bytes,
    recipient: str,
    recipient_key: bytes,
) -> bytes:
    """The 32-byte AES-GCM key for shares from one hospital to another, in this direction only."""
    info = parameters.context(
        "share sealing",
        sender=sender,
        sender_key=sender_key.hex(),
        recipient=recipient,
        recipient_key=recipient_key.hex(),
    )
    return _derive(shared, info)


def _derive(secret: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=info).derive(secret)
