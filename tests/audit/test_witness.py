"""A witness: what it cosigns, what it refuses and keeps, and that it never forgets."""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.checkpoint import Checkpoint, sign_checkpoint
from audit.cosignature import add_signatures, verify_cosignature
from audit.errors import (
    InconsistentLogError,
    NoteError,
    RollbackError,
    SplitViewError,
    StaleSizeError,
    UnknownLogError,
    UnsignedCheckpointError,
    WitnessError,
    WitnessRequestError,
    WitnessStateError,
)
from audit.export import exported_hashes, write_export
from audit.incident import INCONSISTENT, ROLLBACK, SPLIT_VIEW, Incident, judge
from audit.note import NoteSignature, VerifierKey, parse_note
from audit.witness import Witness, create_witness
from tests.audit.memory_log import KEY, ORIGIN, VKEY, MemoryLog, entries

AT = datetime(2026, 11, 22, 5, 0, 0, tzinfo=UTC)
WITNESS_KEY = Ed25519PrivateKey.from_private_bytes(bytes([9]) * 32)
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes([8]) * 32)


def clock() -> datetime:
    return AT


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    return create_witness(tmp_path / "w", "statistics.example/w", [VKEY], WITNESS_KEY, clock)


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog(entries(80))


def ask(witness: Witness, log: MemoryLog, old: int, size: int | None = None) -> NoteSignature:
    """As an honest log asks: with its own proof from the size it is told."""
    size = len(log.entries) if size is None else size
    proof = log.consistency_proof(old, size) if 0 < old < size else []
    return witness.add_checkpoint(old, proof, log.checkpoint(size))


def seen(witness: Witness) -> int:
    return witness.memory(ORIGIN).checkpoint.size


def test_a_growing_log_is_cosigned(witness: Witness, log: MemoryLog) -> None:
    old = 0
    for size in (0, 1, 2, 50, 50, 64, 80):
        line = ask(witness, log, old, size)
        text = parse_note(log.checkpoint(size)).text
        assert verify_cosignature(text, line, witness.key).time == AT
        assert seen(witness) == size
        memory = Witness(witness.folder, clock).memory(ORIGIN)
        assert memory.note == add_signatures(log.checkpoint(size), [line])
        old = size
    assert witness.incidents() == []


def test_other_signatures_in_the_request_are_ignored_and_not_remembered(witness: Witness, log: MemoryLog) -> None:
    stranger = NoteSignature("stranger.example", b"\1\2\3\4", b"of any length")
    witness.add_checkpoint(0, [], add_signatures(log.checkpoint(), [stranger]))
    note = witness.memory(ORIGIN).note
    assert note is not None
    assert {line.name for line in parse_note(note).signatures} == {ORIGIN, "statistics.example/w"}


# -- refusals


def test_a_stale_size_is_told_the_right_one(witness: Witness, log: MemoryLog) -> None:
    ask(witness, log, 0, 50)
    for old in (0, 1, 49, 51, 80):
        with pytest.raises(StaleSizeError, match=f"expected old size 50, got {old}") as caught:
            ask(witness, log, old, 80)
        assert caught.value.size == 50
    assert witness.incidents() == []
    ask(witness, log, 50, 80)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda note: note.replace(b"80", b"81"), UnsignedCheckpointError, "does not fit the text"),
        (lambda note: b"", WitnessRequestError, "expected an empty line"),
        (lambda note: note[:-1], WitnessRequestError, "newline"),
        (lambda note: note.replace(b"\n80\n", b"\n080\n"), WitnessRequestError, "expected a decimal number"),
        (lambda note: note.replace(ORIGIN.encode(), b"zegel-log/other"), UnknownLogError, "'zegel-log/other'"),
    ],
)
def test_checkpoints_nobody_can_vouch_for(
    witness: Witness, log: MemoryLog, change: Callable[[bytes], bytes], error: type[WitnessError], message: str
) -> None:
    with pytest.raises(error, match=message):
        witness.add_checkpoint(0, [], change(log.checkpoint()))
    assert seen(witness) == 0


def test_another_key_under_the_log_s_name(witness: Witness) -> None:
    imposter = MemoryLog(entries(5), key=OTHER_KEY)
    with pytest.raises(UnsignedCheckpointError, match="expected a signature by"):
        ask(witness, imposter, 0)


def test_old_sizes_beyond_the_checkpoint(witness: Witness, log: MemoryLog) -> None:
    with pytest.raises(WitnessRequestError, match="expected an old size up to the checkpoint's 80, got 81"):
        witness.add_checkpoint(81, [], log.checkpoint())


def test_the_empty_tree_has_one_root(witness: Witness) -> None:
    forged = sign_checkpoint(Checkpoint(ORIGIN, 0, bytes(32)), KEY)
    with pytest.raises(InconsistentLogError, match="a tree without entries cannot have the root 00"):
        witness.add_checkpoint(0, [], forged)
    with pytest.raises(InconsistentLogError, match="expected no proof"):
        witness.add_checkpoint(0, [bytes(32)], MemoryLog().checkpoint())


def test_proofs_where_none_is_due(witness: Witness, log: MemoryLog) -> None:
    with pytest.raises(InconsistentLogError, match="expected no proof from size 0"):
        witness.add_checkpoint(0, [bytes(32)], log.checkpoint(5))
    ask(witness, log, 0, 5)
    with pytest.raises(InconsistentLogError, match="expected no proof for equal sizes"):
        witness.add_checkpoint(5, [bytes(32)], log.checkpoint(5))
    with pytest.raises(InconsistentLogError, match="too few hashes"):
        witness.add_checkpoint(5, [], log.checkpoint(6))
    assert seen(witness) == 5


# -- two histories


def test_a_split_view_is_named_and_proved(witness: Witness, log: MemoryLog) -> None:
    """The log shows hospitals one history and the authority another of the same size."""
    ask(witness, log, 0)
    fork = MemoryLog(entries(40) + entries(40, "b"))
    with pytest.raises(SplitViewError, match=r"split view: zegel-log/test signed two trees of 80 entries.*\(kept as"):
        ask(witness, fork, 80)
    ((path, incident),) = witness.incidents()
    assert path.name.startswith("split-view-")
    assert (incident.kind, incident.time, incident.witness) == (SPLIT_VIEW, AT, "statistics.example/w")
    assert incident.presented == fork.checkpoint()
    # Anybody with the log's key sees it, without believing the witness.
    verdict = judge(Incident.from_bytes(path.read_bytes()), VKEY)
    assert verdict.proved
    assert "it showed two histories" in verdict.words
    # Said again it is kept once; the true history goes on.
    with pytest.raises(SplitViewError, match="kept before"):
        ask(witness, fork, 80)
    assert len(witness.incidents()) == 1
    log.extend([b"more"])
    ask(witness, log, 80)


def test_a_fork_that_grew_is_named(witness: Witness, log: MemoryLog, tmp_path: Path) -> None:
    """The rewritten log cannot prove that it contains what was cosigned, whatever proof it sends."""
    ask(witness, log, 0, 60)
    fork = MemoryLog(entries(40) + entries(60, "b"))
    fork_checkpoint = fork.checkpoint()
    for proof in (fork.consistency_proof(60, 100), log.consistency_proof(60, 80), [], [bytes(32)] * 7):
        with pytest.raises(InconsistentLogError, match=r"not shown to continue the 60 cosigned here.*split view"):
            witness.add_checkpoint(60, proof, fork_checkpoint)
    ((_, incident),) = witness.incidents()
    assert incident.kind == INCONSISTENT
    assert incident.proof == tuple(fork.consistency_proof(60, 100))
    # The incident alone does not decide: the request may have been broken. The log as exported does.
    assert not judge(incident, VKEY).proved
    write_export(fork, fork_checkpoint, VKEY, tmp_path / "export")
    verdict = judge(incident, VKEY, exported_hashes(tmp_path / "export", 100), 100)
    assert verdict.proved
    assert "signed a tree of 60 entries" in verdict.words
    assert seen(witness) == 60


def test_a_rollback_is_named(witness: Witness, log: MemoryLog, tmp_path: Path) -> None:
    """The log's database was put back and went on from there."""
    ask(witness, log, 0)
    restored = MemoryLog(entries(50))
    for old in (0, 50):
        with pytest.raises(RollbackError, match="rollback: zegel-log/test signed a tree of 50 entries") as caught:
            ask(witness, restored, old)
        assert caught.value.size == 80
    ((_, incident),) = witness.incidents()
    assert incident.kind == ROLLBACK
    assert "not decided" in judge(incident, VKEY).words
    # An old message that arrived late: the log still contains both.
    write_export(log, log.checkpoint(), VKEY, tmp_path / "same")
    verdict = judge(incident, VKEY, exported_hashes(tmp_path / "same", 80), 80)
    assert not verdict.proved
    assert "an old checkpoint was sent again" in verdict.words
    # The log really lost its end, and grew differently.
    restored.extend(entries(50, "b"))
    write_export(restored, restored.checkpoint(), VKEY, tmp_path / "other")
    verdict = judge(incident, VKEY, exported_hashes(tmp_path / "other", 100), 100)
    assert verdict.proved


def test_a_broken_request_does_not_convict_the_log(witness: Witness, log: MemoryLog) -> None:
    ask(witness, log, 0, 60)
    with pytest.raises(InconsistentLogError):
        witness.add_checkpoint(60, [bytes(32)] * 3, log.checkpoint())
    ((_, incident),) = witness.incidents()
    verdict = judge(incident, VKEY, log, 80)
    assert not verdict.proved
    assert "broken proof" in verdict.words


def test_one_tree_shown_twice_convicts_nobody(witness: Witness, log: MemoryLog) -> None:
    ask(witness, log, 0, 60)
    with pytest.raises(InconsistentLogError):
        witness.add_checkpoint(60, [bytes(32)], log.checkpoint(60))
    ((_, incident),) = witness.incidents()
    assert not judge(incident, VKEY).proved
    assert not judge(incident, VKEY, log, 80).proved


def test_a_log_given_only_in_part_does_not_decide(witness: Witness, log: MemoryLog) -> None:
    ask(witness, log, 0, 60)
    with pytest.raises(InconsistentLogError):
        witness.add_checkpoint(60, [], MemoryLog(entries(80, "b")).checkpoint())
    ((_, incident),) = witness.incidents()
    assert "not decided" in judge(incident, VKEY, MemoryLog(entries(50)), 50).words
    assert "not decided" in judge(incident, VKEY, MemoryLog(entries(70)), 70).words
    assert judge(incident, VKEY, log, 80).proved


def test_an_incident_of_others_says_nothing(witness: Witness, log: MemoryLog) -> None:
    ask(witness, log, 0)
    with pytest.raises(SplitViewError):
        ask(witness, MemoryLog(entries(80, "b")), 80)
    ((path, incident),) = witness.incidents()
    with pytest.raises(WitnessError, match="not two checkpoints of"):
        judge(incident, VerifierKey.of(ORIGIN, OTHER_KEY))
    good = json.loads(path.read_bytes())
    for change in ({"kind": "x"}, {"schema": "x"}, {"time": "now"}, {"proof": ["%"]}, {"old_size": "x"}, {"more": 1}):
        with pytest.raises(WitnessError, match="incident"):
            Incident.from_bytes(json.dumps(good | change, separators=(",", ":"), sort_keys=True).encode())
    forged = good | {"presented": good["presented"].replace("80", "81")}
    with pytest.raises(WitnessError, match="not two checkpoints"):
        judge(
            Incident.from_bytes(json.dumps(forged, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()),
            VKEY,
        )


def test_incidents_do_not_fill_the_disk(witness: Witness, log: MemoryLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audit.witness.MAX_INCIDENTS", 3)
    ask(witness, log, 0)
    for size in range(1, 6):
        with pytest.raises(RollbackError) as caught:
            ask(witness, log, 0, size)
        assert ("not kept: there are 3" in str(caught.value)) == (size > 3)
    assert len(witness.incidents()) == 3


# -- memory


def test_what_the_memory_must_be(witness: Witness, log: MemoryLog) -> None:
    ask(witness, log, 0, 50)
    (path,) = (witness.folder / "logs").iterdir()
    good = path.read_bytes()
    fork = MemoryLog(entries(70, "b"))
    value = json.loads(good)

    def written(**changes: object) -> bytes:
        return json.dumps(value | changes, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()

    own = parse_note(value["cosigned"].encode()).signatures[-1]
    spoiled = {
        "gone": None,
        "empty": b"",
        "cut": good[:-5],
        "another log's": written(log=str(VerifierKey.of(ORIGIN, OTHER_KEY))),
        "further fields": written(more=1),
        "a fork put there, signed by the log only": written(cosigned=fork.checkpoint().decode()),
        "a fork with our cosignature of the true one": written(
            cosigned=add_signatures(fork.checkpoint(), [own]).decode()
        ),
        "a checkpoint the log did not sign": written(cosigned=value["cosigned"].replace("50", "51")),
    }
    for data in spoiled.values():
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)
        with pytest.raises(WitnessStateError, match=str(path)):
            ask(witness, log, 50)
        with pytest.raises(WitnessStateError, match=str(path)):
            Witness(witness.folder, clock)
    path.write_bytes(good)
    ask(witness, log, 50)


def test_a_lost_memory_says_what_to_do(witness: Witness) -> None:
    (path,) = (witness.folder / "logs").iterdir()
    path.unlink()
    with pytest.raises(WitnessStateError, match="restore the newest copy, or make a new witness with a new key"):
        Witness(witness.folder, clock)


@pytest.mark.parametrize(("call", "succeed"), [("fsync", 0), ("replace", 0), ("fsync", 1)])
def test_nothing_is_signed_that_cannot_be_remembered(
    witness: Witness, log: MemoryLog, monkeypatch: pytest.MonkeyPatch, call: str, succeed: int
) -> None:
    """A disk that fails before, at or after the rename: no answer, and the old memory or the new one."""
    ask(witness, log, 0, 50)
    real, left = getattr(os, call), succeed

    def failing(*arguments: object) -> object:
        nonlocal left
        if left == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        left -= 1
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(os, call, failing)
        with pytest.raises(WitnessStateError, match=r"so nothing is signed: .*No space left"):
            ask(witness, log, 50, 60)
    assert seen(witness) == (60 if succeed else 50)
    ask(witness, log, seen(witness), 60)
    assert not list(witness.folder.rglob("*.tmp"))


def test_making_a_witness(tmp_path: Path, log: MemoryLog) -> None:
    folder = tmp_path / "w"
    witness = create_witness(folder, "a.example/w", [], WITNESS_KEY, clock)
    assert stat.S_IMODE((folder / "witness.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert Witness(folder, clock).key == witness.key
    assert str(witness.key).startswith("a.example/w+")
    with pytest.raises(UnknownLogError, match="does not watch the log 'zegel-log/test'"):
        ask(witness, log, 0)
    witness.trust(VKEY)
    ask(witness, log, 0)
    witness.trust(VKEY)
    assert seen(witness) == 80
    with pytest.raises(WitnessStateError, match="is watched already, with the key"):
        witness.trust(VerifierKey.of(ORIGIN, OTHER_KEY))
    with pytest.raises(WitnessStateError, match="is not empty"):
        create_witness(folder, "a.example/w", [], WITNESS_KEY, clock)
    with pytest.raises(NoteError, match="key name"):
        create_witness(tmp_path / "x", "with space", [], WITNESS_KEY, clock)
    assert not (tmp_path / "x").exists()


def test_a_log_taken_up_again_is_not_forgotten(witness: Witness, log: MemoryLog) -> None:
    """Striking a log from the list and adding it again must not give the witness a second first sight of it."""
    ask(witness, log, 0, 50)
    config = witness.folder / "witness.json"
    value = json.loads(config.read_bytes())
    config.write_bytes(json.dumps(value | {"logs": []}, separators=(",", ":"), sort_keys=True).encode())
    assert witness.logs() == ()
    witness.trust(VKEY)
    assert seen(witness) == 50
    with pytest.raises(SplitViewError):
        ask(witness, MemoryLog(entries(50, "b")), 50)


def test_folders_that_are_no_witness(tmp_path: Path, witness: Witness) -> None:
    with pytest.raises(WitnessStateError, match="make one with `zegel witness init`"):
        Witness(tmp_path, clock)
    config, key = witness.folder / "witness.json", witness.folder / "witness.key"
    good = config.read_bytes()
    for data in (
        b"",
        b"{}",
        b'{"logs":[],"name":"x","schema":"other"}',
        b'{"logs":1}',
        good.replace(b"zegel-log", b"x"),
    ):
        config.write_bytes(data)
        with pytest.raises(WitnessStateError, match=r"witness\.json"):
            Witness(witness.folder, clock)
    config.write_bytes(good)
    key.write_bytes(b"no key")
    with pytest.raises(WitnessStateError, match=r"witness\.key"):
        Witness(witness.folder, clock)
    key.unlink()
    with pytest.raises(WitnessStateError, match=r"witness\.key"):
        Witness(witness.folder, clock)


def test_a_slow_clock_does_not_matter_to_growth(tmp_path: Path, log: MemoryLog) -> None:
    now = AT
    witness = create_witness(tmp_path / "w", "a.example/w", [VKEY], WITNESS_KEY, lambda: now)
    ask(witness, log, 0, 10)
    now = AT - timedelta(days=1)
    line = ask(witness, log, 10, 20)
    assert verify_cosignature(parse_note(log.checkpoint(20)).text, line, witness.key).time == now


# -- at once


def test_many_threads_never_set_it_back(witness: Witness, log: MemoryLog) -> None:
    """Each thread asks for its own sizes; whatever is answered is answered in order."""
    answered: list[tuple[int, int]] = []
    lock = threading.Lock()

    def asking(seed: int) -> None:
        dice = random.Random(seed)  # noqa: S311 - a test draws its cases
        old = 0
        for _ in range(12):
            size = dice.randrange(max(1, old), 81)
            try:
                ask(witness, log, min(old, size), size)
                with lock:
                    answered.append((old, size))
                old = size
            except StaleSizeError as error:
                old = error.size

    threads = [threading.Thread(target=asking, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answered
    # Every answer started where another ended: sorted, they form one chain to what is remembered.
    chain = sorted(answered)
    assert chain[0][0] == 0
    assert all(later[0] == earlier[1] for earlier, later in itertools.pairwise(chain))
    assert chain[-1][1] == seen(witness)


_CHILD = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from audit.errors import StaleSizeError
from audit.witness import Witness
from tests.audit.memory_log import MemoryLog, entries
log = MemoryLog(entries(200))
witness = Witness(Path(sys.argv[1]), lambda: datetime(2026, 11, 22, 5, tzinfo=UTC))
old = witness.memory(log.origin).checkpoint.size
for size in range(int(sys.argv[2]), 200, 2):
    if size < old:
        continue
    try:
        proof = log.consistency_proof(old, size) if 0 < old < size else []
        witness.add_checkpoint(old, proof, log.checkpoint(size))
        print(old, size, flush=True)
        old = size
    except StaleSizeError as error:
        old = error.size
"""


def test_two_processes_and_a_kill_never_set_it_back(witness: Witness) -> None:
    """What was answered before the kill is remembered after it."""
    root = str(Path(__file__).parents[2])
    children = [
        subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(witness.folder), start],
            stdout=subprocess.PIPE, text=True, cwd=root, env=os.environ | {"PYTHONPATH": root},
        )
        for start in ("1", "2")
    ]  # fmt: skip
    first = children[0].stdout
    assert first is not None
    lines = [first.readline() for _ in range(5)]
    children[0].kill()
    lines += first.readlines()
    output, _ = children[1].communicate(timeout=60)
    children[0].wait(timeout=60)
    first.close()
    answered = sorted((int(line.split()[0]), int(line.split()[1])) for line in [*lines, *output.splitlines()])
    assert len(answered) > 5
    sizes = [size for _, size in answered]
    assert len(set(sizes)) == len(sizes)
    # A killed process may have remembered one checkpoint without having said so.
    gaps = [(a, b) for (_, a), (b, _) in itertools.pairwise(answered) if a != b]
    assert len(gaps) <= 1
    assert all(a < b for a, b in gaps)
    assert seen(witness) == max(sizes)
    # Two that ask side by side are late with old messages now and then; the log as it is shows that this is all.
    log = MemoryLog(entries(200))
    for _, incident in witness.incidents():
        assert incident.kind == ROLLBACK
        assert "an old checkpoint was sent again" in judge(incident, VKEY, log, 200).words
