"""The log's side of the exchange with hospitals that witness it: enrol them, ask for cosignatures, keep what they say.

Hospitals are asked through the federation, one after another. One that cannot be reached, or lags behind, is asked
again with the next checkpoint: how many cosignatures a release needs is decided when it is certified. One that saw
another history is evidence that the log was set back or shown twice; the run ends there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from audit.cosigned import Cosigned
from audit.enrolment import check_new_enrolment, enrolled_key, enrolment_entry
from audit.entry import WITNESS_ENROLLED
from audit.errors import AuditError, InconsistentLogError, RollbackError, SplitViewError, WitnessError
from audit.note import VerifierKey
from audit.statement import SignedStatement
from audit.witness_client import Asked, collect
from audit.witness_protocol import Answer
from jobs.errors import RunAborted, SiteError
from jobs.home import ConsortiumHome
from jobs.transport import Transport, message_of

Send = Callable[[bytes], Answer]

_LOG = logging.getLogger(__name__)
_FORKED = (SplitViewError, RollbackError, InconsistentLogError)


class Witnesses(Protocol):
    """Hospitals that cosign the log's checkpoints."""

    def enrol(self, site: str, value: object) -> None:
        """Take a hospital's signed enrolment; must not raise for what is wrong with it."""
        ...

    def ask(self, sends: Mapping[str, Send]) -> int:
        """Ask hospitals to cosign; raises RunAborted when one saw another history."""
        ...


def cosigning(site: str, transport: Transport, *, timeout_s: float) -> Send:
    """How one hospital of a run is asked to cosign; it raises WitnessError when no answer comes."""

    def send(body: bytes) -> Answer:
        answers = transport.call("cosign", {site: {"request": body}}, timeout_s=timeout_s)
        try:
            return Answer.from_json(message_of(site, answers[site]).get("answer"))
        except SiteError as error:
            raise WitnessError(str(error)) from error

    return send


class HospitalWitnesses:
    """The witnesses among a run's hospitals."""

    def __init__(self, home: ConsortiumHome) -> None:
        self._home = home
        self._cosigned = Cosigned(home.path / "cosigned")
        self._keys: dict[str, VerifierKey] = {}  # by hospital

    def enrol(self, site: str, value: object) -> None:
        """Take a hospital's enrolment; a new one is logged. One that does not hold is left out, with a warning."""
        try:
            signed = SignedStatement.from_json(value)
            key = enrolled_key(signed.statement)
            with self._home.log() as log:
                entries = list(log.entries())
                known = {
                    str(entry.signed("enrolment").statement["vkey"])
                    for _, entry in entries
                    if entry.kind == WITNESS_ENROLLED
                }
                if str(key) not in known:
                    entry = enrolment_entry(signed, self._home.clock())
                    check_new_enrolment(entries, entry, self._home.root())
                    log.append([entry], expected_size=len(entries))
            self._home.sign_checkpoint()
            self._keys[site] = key
        except AuditError as error:
            _LOG.warning("the witness of %s is not enrolled: %s", site, error)

    def ask(self, sends: Mapping[str, Send]) -> int:
        """Ask these hospitals to cosign the newest checkpoint; returns how many did.

        Raises: RunAborted when one of them saw another history of the log.
        """
        with self._home.log() as log:
            checkpoint = log.last_checkpoint()
            if checkpoint is None:
                return 0
            count = 0
            for site, send in sends.items():
                key = self._keys.get(site)
                if key is None:
                    continue
                asked = Asked(key, send, self._cosigned.seen_by(key))
                collected = collect([asked], log, checkpoint, self._home.clock())
                self._cosigned.add(checkpoint, collected.cosignatures)
                count += len(collected.cosignatures)
                for _, refusal in collected.refusals:
                    if isinstance(refusal, _FORKED):
                        raise RunAborted(f"{site} does not cosign the log: {refusal}")
                    _LOG.warning("%s did not cosign the log: %s", site, refusal)
            return count
