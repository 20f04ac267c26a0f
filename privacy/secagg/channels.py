"""A hospital's channels to its peers, through a server that can neither read nor move what is in them.

Invariants:
  - a channel exists only to a public key the caller has verified;
  - shares lie at the x coordinate of the recipient in the plan, so a share tells whose it is in every round;
  - a share opens only as this sender's share of this secret and round for this hospital (see `sealing`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from privacy.secagg import keys
from privacy.secagg.errors import SecAggProtocolError
from privacy.secagg.keys import KeyPair, Randomness
from privacy.secagg.parameters import SecAggParameters
from privacy.secagg.sealing import ShareOf, open_share, seal_share
from privacy.secagg.shamir import deal


@dataclass(frozen=True)
class Channel:
    """The channel to one peer.

    Attributes:
      peer_key: the peer's verified public channel key.
      send_key: 32 bytes, secret.
      receive_key: 32 bytes, secret.
    """

    peer_key: bytes
    send_key: bytes = field(repr=False)
    receive_key: bytes = field(repr=False)


class Channels:
    """One hospital's channel key pair of a run, and its channels to the peers of the current directory.

    Args:
      parameters: the run's terms.
      site: this hospital.
      randomness: cryptographically secure bytes.
    """

    def __init__(self, *, parameters: SecAggParameters, site: str, randomness: Randomness) -> None:
        self._parameters = parameters
        self._site = site
        self._randomness = randomness
        self._pair: KeyPair = keys.generate_key_pair(randomness)
        self._channels: dict[str, Channel] = {}

    @property
    def public_key(self) -> bytes:
        """This hospital's public channel key, 32 bytes."""
        return self._pair.public

    @property
    def public_keys(self) -> dict[str, bytes]:
        """The channel keys of the directory, this hospital's own included."""
        return {self._site: self._pair.public} | {site: c.peer_key for site, c in self._channels.items()}

    def connect(self, peer_keys: Mapping[str, bytes]) -> None:
        """Replaces the channels by ones to these peers, whose keys the caller has verified.

        Raises:
          SecAggProtocolError: a key has low order; the channels stay as they were.
        """
        channels = {}
        for peer, peer_key in peer_keys.items():
            known = self._channels.get(peer)
            if known is not None and known.peer_key == peer_key:
                channels[peer] = known
                continue
            shared = keys.agree(self._pair.secret, peer_key, peer=peer)
            ends = ((self._site, self._pair.public), (peer, peer_key))
            send, receive = (
                keys.channel_share_key(
                    self._parameters,
                    shared=shared,
                    sender=sender,
                    sender_key=sender_key,
                    recipient=recipient,
                    recipient_key=recipient_key,
                )
                for (sender, sender_key), (recipient, recipient_key) in (ends, ends[::-1])
            )
            channels[peer] = Channel(peer_key, send, receive)
        self._channels = channels

    def deal(
        self,
        secret: bytes,
        *,
        share_of: ShareOf,
        round_number: int,
        mask_key: bytes,
        recipients: Iterable[str],
    ) -> tuple[dict[str, bytes], bytes]:
        """Deals a 32-byte secret of this hospital.

        Args:
          secret: 32 bytes.
          share_of: what the secret is.
          round_number: the round it is for.
          mask_key: this hospital's public mask key of that round.
          recipients: connected peers.

        Returns:
          The sealed share of each recipient, and this hospital's own share in the clear (secret).
        """
        parameters = self._parameters
        by_index = {parameters.index(site): site for site in recipients}
        own = parameters.index(self._site)
        shares = deal(
            secret,
            threshold=parameters.threshold,
            holders=[*by_index, own],
            randomness=self._randomness,
        )
        sealed = {
            site: seal_share(
                shares[x],
                parameters=parameters,
                key=self._channels[site].send_key,
                share_of=share_of,
                round_number=round_number,
                sender=self._site,
                recipient=site,
                sender_mask_key=mask_key,
                randomness=self._randomness,
            )
            for x, site in by_index.items()
        }
        return sealed, shares[own]

    def open(
        self,
        sealed: Mapping[str, bytes],
        *,
        share_of: ShareOf,
        round_number: int,
        mask_keys: Mapping[str, bytes],
    ) -> tuple[dict[str, bytes], list[str]]:
        """Opens the shares that peers sealed for this hospital.

        Args:
          sealed: by sender, each a connected peer.
          share_of: what the secrets are.
          round_number: the round they are for.
          mask_keys: at least the senders' public mask keys of that round.

        Returns:
          The 33-byte shares by sender, and the senders whose share does not decrypt.
        """
        shares, unreadable = {}, []
        for sender, ciphertext in sealed.items():
            try:
                shares[sender] = open_share(
                    ciphertext,
                    parameters=self._parameters,
                    key=self._channels[sender].receive_key,
                    share_of=share_of,
                    round_number=round_number,
                    sender=sender,
                    recipient=self._site,
                    sender_mask_key=mask_keys[sender],
                )
            except SecAggProtocolError:
                unreadable.append(sender)  # reported: the caller names it to the server
        return shares, unreadable
