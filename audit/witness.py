"""A witness: remembers one checkpoint of each log it watches, and cosigns only what continues it.

A witness that says it saw a checkpoint vouches that the log has one history, as far as honest witnesses look. So it
must never forget, and never sign two checkpoints that contradict each other.

Invariants:
- The new checkpoint is on disk before its cosignature is handed out; reading, checking and writing happen under one
  lock, also against other processes, so that the remembered size never goes down.
- What it remembers carries the log's signature and its own: a file somebody put there is noticed.
- A missing memory is an error, never an empty one: `trust` writes "nothing seen yet" down, and a witness that lost it
  refuses. Give such a witness a new key; one restored from an old copy has forgotten what it signed since.
- Whatever it refuses that a log signed is kept as an incident (`audit.incident`), at most once per checkpoint.

Files in a witness's folder: `witness.json` (name, logs), `witness.key` (private), `logs/<digest of origin>.json`
(memory), `incidents/`. All but the key are public data.

Source: C2SP tlog-witness (https://c2sp.org/tlog-witness).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.canonical import canonical_json, parse_json_object, shown
from audit.checkpoint import Checkpoint, open_checkpoint
from audit.cosignature import cosign, verify_cosignature, witness_key
from audit.durable_file import sync_directory, write_durably
from audit.errors import (
    AuditError,
    CheckpointError,
    InconsistentLogError,
    NoteError,
    ProofError,
    RollbackError,
    SplitViewError,
    StaleSizeError,
    UnknownLogError,
    UnsignedCheckpointError,
    WitnessRequestError,
    WitnessStateError,
)
from audit.incident import INCONSISTENT, ROLLBACK, SPLIT_VIEW, Incident
from audit.merkle import EMPTY_ROOT, verify_consistency
from audit.note import Note, NoteSignature, VerifierKey, check_key_name, parse_note
from audit.signing_keys import load_private_key, private_key_pem

MAX_INCIDENTS = 1000  # kept; only somebody with the log's key can make one
_CONFIG_SCHEMA = "zegel/witness/v1"
_MEMORY_SCHEMA = "zegel/witness-memory/v1"
_INCIDENTS = {RollbackError: ROLLBACK, SplitViewError: SPLIT_VIEW, InconsistentLogError: INCONSISTENT}


def check_growth(latest: Checkpoint, old_size: int, proof: Sequence[bytes], new: Checkpoint) -> None:
    """Raises unless `new` continues `latest`, the last checkpoint cosigned (size 0 when there is none).

    The checks and their order are the protocol's: WitnessRequestError for an old size above the new one, StaleSizeError
    (or RollbackError) for an old size that is not the latest, SplitViewError for two roots of one size,
    InconsistentLogError for a proof that does not hold.
    """
    name = new.origin
    if old_size > new.size:
        raise WitnessRequestError(f"{name}: expected an old size up to the checkpoint's {new.size}, got {old_size}")
    if old_size != latest.size:
        if new.size < latest.size:
            raise RollbackError(
                f"rollback: {name} signed a tree of {new.size} entries, after this witness cosigned one of "
                f"{latest.size}; unless an old message arrived late, the log was set back",
                latest.size,
            )
        raise StaleSizeError(f"{name}: expected old size {latest.size}, got {old_size}", latest.size)
    if new.size == latest.size:
        if new.root != latest.root:
            if new.size == 0:
                raise InconsistentLogError(f"{name}: a tree without entries cannot have the root {new.root.hex()}")
            raise SplitViewError(
                f"split view: {name} signed two trees of {new.size} entries, with the roots {latest.root.hex()} and "
                f"{new.root.hex()}"
            )
        if proof:
            raise InconsistentLogError(f"{name}: expected no proof for equal sizes, got {len(proof)} hashes")
        return
    if latest.size == 0:
        if proof:
            raise InconsistentLogError(f"{name}: expected no proof from size 0, got {len(proof)} hashes")
        return
    try:
        verify_consistency(latest.size, new.size, proof, latest.root, new.root)
    except ProofError as error:
        raise InconsistentLogError(
            f"no proof: {name} signed a tree of {new.size} entries that is not shown to continue the {latest.size} "
            f"cosigned here; a broken request, or a split view: {error}"
        ) from error


@dataclass(frozen=True)
class Memory:
    """What a witness last cosigned of one log; `note` is None when it has seen nothing yet."""

    log: VerifierKey
    note: bytes | None
    checkpoint: Checkpoint


def create_witness(
    folder: Path, name: str, logs: Sequence[VerifierKey], key: Ed25519PrivateKey, clock: Callable[[], datetime]
) -> Witness:
    """A new witness in a folder that is empty or does not exist, watching `logs` from nothing.

    `name` becomes part of its key: a URL without scheme, such as `statistics.example/witness`.
    """
    check_key_name(name)
    if folder.exists() and any(folder.iterdir()):
        raise WitnessStateError(f"{folder} is not empty; a witness's memory must not be mixed with another's")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    for part in ("logs", "incidents"):
        (folder / part).mkdir()
    write_durably(folder / "witness.key", private_key_pem(key))  # mkstemp makes it readable by its owner only
    _write_config(folder, name, ())
    witness = Witness(folder, clock)
    for log in logs:
        witness.trust(log)
    return witness


class Witness:
    """The witness kept in a folder. Use from several threads and processes at once is safe."""

    def __init__(self, folder: Path, clock: Callable[[], datetime]) -> None:
        """`clock` gives the time, with its zone, that cosignatures bear. Raises WitnessStateError when the folder is
        not a witness's, or its key or a log's memory is missing or damaged.
        """
        self.folder = folder
        self._clock = clock
        self._thread = threading.Lock()
        config = self._config()
        self.name = str(config["name"])
        try:
            key = load_private_key((folder / "witness.key").read_bytes())
        except (OSError, AuditError) as error:
            raise WitnessStateError(f"{folder / 'witness.key'} cannot be used: {error}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise WitnessStateError(f"{folder / 'witness.key'}: expected an Ed25519 key")
        self.private_key = key
        self.key = witness_key(self.name, key)
        for log in self.logs():
            self._memory(log)

    def logs(self) -> tuple[VerifierKey, ...]:
        """The keys of the logs this witness watches; their names are the logs' origins."""
        try:
            return tuple(VerifierKey.parse(text) for text in self._config()["logs"])
        except (NoteError, TypeError) as error:
            raise WitnessStateError(f"{self.folder / 'witness.json'}: {error}") from error

    def trust(self, log: VerifierKey) -> None:
        """Watches another log from now on, starting from nothing seen. One it watches already is left as it is.

        Raises WitnessStateError for another key under a known origin: a log that changes its key is a new log.
        """
        with self._locked():
            known = self.logs()
            for other in known:
                if other.name == log.name and other != log:
                    raise WitnessStateError(f"{log.name} is watched already, with the key {other}, not {log}")
            if log in known:
                return
            # Memory first: a crash between the two leaves a memory nobody uses, never a log without one.
            path = self._memory_path(log.name)
            if not path.exists():
                self._remember(log, None)
            _write_config(self.folder, self.name, (*known, log))

    def memory(self, origin: str) -> Memory:
        """What was last cosigned of the log; raises UnknownLogError, or WitnessStateError when it is damaged."""
        for log in self.logs():
            if log.name == origin:
                return self._memory(log)
        raise UnknownLogError(f"witness {self.name} does not watch the log {shown(origin)}")

    def add_checkpoint(self, old_size: int, proof: Sequence[bytes], checkpoint: bytes) -> NoteSignature:
        """The cosignature of a checkpoint that continues the last one cosigned, once that is remembered.

        `old_size` is the size the caller thinks was cosigned last, `proof` the consistency proof from there.
        Raises WitnessRequestError, UnknownLogError, UnsignedCheckpointError, StaleSizeError, RollbackError,
        SplitViewError or InconsistentLogError (see `check_growth`), WitnessStateError.
        """
        try:
            text = parse_note(checkpoint).text
            new = Checkpoint.from_text(text)
        except (NoteError, CheckpointError) as error:
            raise WitnessRequestError(f"checkpoint cannot be read: {error}") from error
        with self._locked():
            memory = self.memory(new.origin)
            try:
                open_checkpoint(checkpoint, memory.log)
            except (NoteError, CheckpointError) as error:
                raise UnsignedCheckpointError(f"checkpoint of {new.origin}: {error}") from error
            try:
                check_growth(memory.checkpoint, old_size, proof, new)
            except (RollbackError, SplitViewError, InconsistentLogError) as error:
                error.kept = self._keep(_INCIDENTS[type(error)], memory, old_size, proof, checkpoint)
                raise
            signature = cosign(text, self.name, self.private_key, self._clock())
            by_log = tuple(line for line in parse_note(checkpoint).signatures if line.by(memory.log))
            self._remember(memory.log, Note(text, (*by_log[:1], signature)).to_bytes())
        return signature

    def incidents(self) -> list[tuple[Path, Incident]]:
        """What was kept, by file name."""
        return [
            (path, Incident.from_bytes(path.read_bytes()))
            for path in sorted((self.folder / "incidents").glob("*.json"))
        ]

    # Files

    def _config(self) -> dict[str, Any]:
        path = self.folder / "witness.json"
        try:
            value = parse_json_object(path.read_bytes(), "witness.json")
        except FileNotFoundError:
            raise WitnessStateError(
                f"{self.folder} is not a witness's folder; make one with `zegel witness init`"
            ) from None
        except (OSError, AuditError) as error:
            raise WitnessStateError(f"{path} cannot be read: {error}") from error
        if value.get("schema") != _CONFIG_SCHEMA or not isinstance(value.get("logs"), list) or "name" not in value:
            raise WitnessStateError(f"{path}: expected {_CONFIG_SCHEMA} with name and logs")
        return value

    def _memory_path(self, origin: str) -> Path:
        return self.folder / "logs" / f"{hashlib.sha256(origin.encode()).hexdigest()}.json"

    def _memory(self, log: VerifierKey) -> Memory:
        path = self._memory_path(log.name)
        try:
            value = parse_json_object(path.read_bytes(), "witness memory")
            if set(value) != {"schema", "log", "cosigned"} or value["schema"] != _MEMORY_SCHEMA:
                raise WitnessStateError(f"{path}: expected the fields of {_MEMORY_SCHEMA}")
            if value["log"] != str(log):
                raise WitnessStateError(f"{path}: expected the memory of {log}, got that of {shown(value['log'])}")
            if value["cosigned"] is None:
                return Memory(log, None, Checkpoint(log.name, 0, EMPTY_ROOT))
            note = str(value["cosigned"]).encode()
            checkpoint = open_checkpoint(note, log)
            parsed = parse_note(note)
            for line in parsed.signatures:
                if line.by(self.key):
                    verify_cosignature(parsed.text, line, self.key)
                    return Memory(log, note, checkpoint)
            raise WitnessStateError(f"{path}: holds a checkpoint that this witness did not cosign")
        except FileNotFoundError:
            raise WitnessStateError(
                f"{path} is missing: this witness no longer knows what it cosigned of {log.name} and must not sign; "
                "restore the newest copy, or make a new witness with a new key and enrol it"
            ) from None
        except WitnessStateError:
            raise
        except (OSError, AuditError) as error:
            raise WitnessStateError(f"{path} cannot be used: {error}") from error

    def _remember(self, log: VerifierKey, note: bytes | None) -> None:
        value = {"schema": _MEMORY_SCHEMA, "log": str(log), "cosigned": None if note is None else note.decode()}
        try:
            write_durably(self._memory_path(log.name), canonical_json(value))
        except OSError as error:
            raise WitnessStateError(f"memory of {log.name} cannot be written, so nothing is signed: {error}") from error

    def _keep(self, kind: str, memory: Memory, old_size: int, proof: Sequence[bytes], presented: bytes) -> str:
        """Keeps the two checkpoints; returns words on where, for the refusal's message."""
        if memory.note is None:
            return ""
        folder = self.folder / "incidents"
        text = parse_note(presented).text
        path = folder / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
        if path.exists():
            return f" (kept before as {path.name})"
        if sum(1 for _ in folder.glob("*.json")) >= MAX_INCIDENTS:
            return f" (not kept: there are {MAX_INCIDENTS} incidents already)"
        incident = Incident(kind, self._clock(), self.name, memory.note, presented, old_size, tuple(proof))
        try:
            write_durably(path, incident.to_bytes())
        except OSError as failure:  # the refusal matters more than its record
            return f" (not kept: {failure})"
        return f" (kept as {path.name})"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._thread:
            descriptor = os.open(self.folder, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield
            finally:
                os.close(descriptor)


def _write_config(folder: Path, name: str, logs: Sequence[VerifierKey]) -> None:
    value = {"schema": _CONFIG_SCHEMA, "name": name, "logs": [str(log) for log in logs]}
    write_durably(folder / "witness.json", canonical_json(value))
    sync_directory(folder)
