"""Whatever a log and its network do, an honest witness never cosigns two histories, nor goes back."""

from __future__ import annotations

import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from audit.checkpoint import Checkpoint
from audit.cosignature import verify_cosignature
from audit.errors import InconsistentLogError, RollbackError, SplitViewError, StaleSizeError, WitnessRequestError
from audit.incident import judge
from audit.note import parse_note
from audit.witness import Witness, create_witness
from tests.audit.memory_log import ORIGIN, VKEY, MemoryLog, entries

WITNESS = Ed25519PrivateKey.from_private_bytes(bytes([9]) * 32)
LONGEST = 40
# The log's keeper holds three histories that begin alike, signs any prefix of any, and sends any proof.
HISTORIES = (
    MemoryLog(entries(LONGEST)),
    MemoryLog(entries(12) + entries(LONGEST, "b")[12:]),
    MemoryLog(entries(25) + entries(LONGEST, "c")[25:]),
)
histories = st.integers(0, len(HISTORIES) - 1)
sizes = st.integers(0, LONGEST)


def clock() -> datetime:
    return datetime(2026, 11, 22, 5, tzinfo=UTC)


class Watching(RuleBasedStateMachine):
    """A witness between a lying log and a network that repeats and reorders."""

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.witness = create_witness(self.folder / "w", "w.example", [VKEY], WITNESS, clock)
        self.cosigned: list[tuple[int, bytes]] = []

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def send(self, history: int, size: int, old: int, proof: list[bytes]) -> None:
        log = HISTORIES[history]
        before = self.witness.memory(ORIGIN).checkpoint
        try:
            line = self.witness.add_checkpoint(old, proof, log.checkpoint(size))
        except WitnessRequestError:
            assert old > size
        except RollbackError as error:
            assert size < before.size == error.size
        except StaleSizeError as error:
            assert old != before.size == error.size
        except SplitViewError:
            assert size == before.size
            assert log.root(size) != before.root
        except InconsistentLogError:
            assert old == before.size
        else:
            verify_cosignature(parse_note(log.checkpoint(size)).text, line, self.witness.key)
            self.cosigned.append((size, log.root(size)))

    @rule(history=histories, more=st.integers(0, 10))
    def an_honest_request(self, history: int, more: int) -> None:
        """With the best proof this history can give; it is cosigned exactly when the history contains the last tree."""
        log, latest = HISTORIES[history], self.witness.memory(ORIGIN).checkpoint
        size = min(LONGEST, latest.size + more)
        proof = log.consistency_proof(latest.size, size) if 0 < latest.size < size else []
        count = len(self.cosigned)
        self.send(history, size, latest.size, proof)
        assert (len(self.cosigned) > count) == (log.root(latest.size) == latest.root)

    @rule(history=histories, size=sizes, old=sizes, prover=histories, tree=sizes)
    def any_request(self, history: int, size: int, old: int, prover: int, tree: int) -> None:
        """Any checkpoint with any proof of any history."""
        first = min(old, tree)
        proof = HISTORIES[prover].consistency_proof(first, tree) if 0 < first <= tree else []
        self.send(history, size, old, proof)

    @rule()
    def the_witness_restarts(self) -> None:
        self.witness = Witness(self.folder / "w", clock)

    @invariant()
    def one_history(self) -> None:
        given = [size for size, _ in self.cosigned]
        assert given == sorted(given)
        assert any(all(log.root(size) == root for size, root in self.cosigned) for log in HISTORIES)

    @invariant()
    def incidents_accuse_nobody_falsely(self) -> None:
        for _, incident in self.witness.incidents():
            verdicts = [judge(incident, VKEY, log, LONGEST) for log in HISTORIES]
            contained = [
                all(
                    log.root(checkpoint.size) == checkpoint.root
                    for checkpoint in map(self.parsed, (incident.cosigned, incident.presented))
                )
                for log in HISTORIES
            ]
            assert [not verdict.proved for verdict in verdicts] == contained

    @staticmethod
    def parsed(note: bytes) -> Checkpoint:
        return Checkpoint.from_text(parse_note(note).text)


TestWatching = Watching.TestCase
TestWatching.settings = settings(
    max_examples=15, stateful_step_count=20, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)
