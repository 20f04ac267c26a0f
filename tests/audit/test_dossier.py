"""Dossiers: written from a real log, verified from bytes alone, refused after any change."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from copy import copy
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.archive import pack, unpack
from audit.artifacts import Artifacts
from audit.canonical import digest_of
from audit.certificates import certificate_pem
from audit.checkpoint import log_origin
from audit.cosignature import add_signatures, cosign
from audit.dossier import MANIFEST, MANIFEST_SIGNATURE, manifest_note, manifest_of, write_dossier
from audit.errors import ArtifactError, AuditError, DossierError, LogError, ReleaseError
from audit.gates import AT_LEAST, Gate
from audit.note import parse_note, sign_note
from audit.store import open_log
from audit.verify import Report, verify_dossier
from tests.audit.conftest import pseudonym

if TYPE_CHECKING:
    from tests.audit.conftest import Keys, Story
else:
    Keys = Story = object

CHECKS = [
    "container",
    "root certificate",
    "manifest",
    "entries",
    "founding and certificates",
    "checkpoint",
    "inclusion",
    "register",
    "disclosures",
    "release statement",
    "model",
    "plan",
    "trace",
    "witnesses",
    "state",
    "documents",
    "completeness",
]
Members = dict[str, bytes]


def verified(told: Story, data: bytes) -> Report:
    return verify_dossier(data, told.keys.root_pem, now=told.now)


def repacked(members: Members) -> bytes:
    """What somebody without the log's key can make: a sound container with a fitting manifest."""
    members = dict(members)
    members[MANIFEST] = manifest_of(members)
    return pack(members)


def resigned(told: Story, members: Members) -> bytes:
    """What the log's keeper can make: the manifest's signature fits too."""
    members = dict(members)
    members[MANIFEST] = manifest_of(members)
    key = told.keys.holders["log"].key
    members[MANIFEST_SIGNATURE] = sign_note(manifest_note("2027.1", members[MANIFEST]), log_origin("Zegel Demo"), key)
    return pack(members)


def flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def test_a_dossier_verifies(told: Story, dossier: bytes) -> None:
    report = verified(told, dossier)
    assert [check.name for check in report.checks] == CHECKS
    assert report.trace == told.trace()
    assert report.tree_size == len(told.entries)
    value = report.to_json()
    assert value["verified"] is True
    assert json.loads(json.dumps(value))["trace"]["certified_at"].endswith("Z")


def test_it_still_verifies_when_all_certificates_have_expired(told: Story, dossier: bytes) -> None:
    later = told.now + timedelta(days=20_000)
    assert verify_dossier(dossier, told.keys.root_pem, now=later).trace.release == "2027.1"


def test_the_same_log_gives_the_same_bytes(told: Story, dossier: bytes, tmp_path: Path) -> None:
    assert told.dossier(tmp_path) == dossier


def test_only_what_bears_on_the_release_is_in_it(keys: Keys, story: Story, tmp_path: Path) -> None:
    story.found()
    story.issue(keys.person("Stranger", "Elsewhere", "authority"))
    story.run()
    story.release()
    stranger = next(i for i, e in enumerate(story.entries) if e.body.get("name") == pseudonym("Stranger"))
    members = unpack(story.dossier(tmp_path))
    unused = next(i for i, e in enumerate(story.entries) if e.body.get("site") == "hospital-d")
    assert f"log/entries/{stranger}.json" not in members
    assert f"log/entries/{unused}.json" not in members
    assert len([name for name in members if name.startswith("log/entries/")]) == len(story.entries) - 2


def test_a_lineage_of_two_runs(story: Story, tmp_path: Path) -> None:
    story.found()
    story.run()
    second = copy(story)
    second.initial_version, second.model, second.run_id = (
        story.version,
        b"second",
        "run-20261123T050000Z-abcdef",
    )
    second.run()
    second.release()
    data = second.dossier(tmp_path)
    report = verified(second, data)
    assert [run.run_id for run in report.trace.runs] == [story.run_id, second.run_id]
    members = unpack(data)
    earlier = next(name for name in members if name.startswith("plans/"))
    del members[earlier]
    with pytest.raises(DossierError, match=r"trace: plan sha256:.*: its bytes are not there"):
        verified(second, resigned(second, members))


def test_every_structural_byte_and_many_others(story: Story, tmp_path: Path) -> None:
    story.rounds = 1
    small = story.tell().dossier(tmp_path)
    assert verified(story, small).trace.release == "2027.1"
    inside: set[int] = set()
    for content in unpack(small).values():
        start = small.index(content)
        inside.update(range(start, start + len(content)))
    positions = sorted(set(range(len(small))) - inside | set(range(0, len(small), 97)))
    assert len(positions) > 5000
    for position in positions:
        with pytest.raises(DossierError):
            verified(story, flipped(small, position))


def test_cut_and_extended(told: Story, dossier: bytes) -> None:
    for data in (
        dossier[:-1],
        dossier[1:],
        dossier + b"\0",
        b"\0" + dossier,
        b"",
        dossier[: len(dossier) // 2],
    ):
        with pytest.raises(DossierError) as caught:
            verified(told, data)
        assert caught.value.check == "container"


def test_every_member_is_protected_by_the_log_key(told: Story, dossier: bytes) -> None:
    members = unpack(dossier)
    for name, content in members.items():
        changed = {**members, name: flipped(content, len(content) // 2)}
        with pytest.raises(DossierError) as caught:
            verified(told, pack(changed))
        assert caught.value.check in ("root certificate", "manifest", "release statement"), name
        if name == MANIFEST:
            continue
        with pytest.raises(DossierError) as caught:
            verified(told, repacked(changed))
        assert caught.value.check != "container", name


def spoil(name: str, change: Callable[[bytes], bytes]) -> Callable[[Members, Story], None]:
    def apply(members: Members, told: Story) -> None:
        members[name] = change(members[name])

    return apply


def remove(name: str) -> Callable[[Members, Story], None]:
    def apply(members: Members, told: Story) -> None:
        del members[name]

    return apply


def remove_entry(kind: str) -> Callable[[Members, Story], None]:
    def apply(members: Members, told: Story) -> None:
        index = next(i for i, entry in enumerate(told.entries) if entry.kind == kind)
        del members[f"log/entries/{index}.json"], members[f"log/proofs/{index}.txt"]

    return apply


def swap_proofs(members: Members, told: Story) -> None:
    members["log/proofs/3.txt"], members["log/proofs/4.txt"] = (
        members["log/proofs/4.txt"],
        members["log/proofs/3.txt"],
    )


def swap_entries(members: Members, told: Story) -> None:
    members["log/entries/3.json"], members["log/entries/4.json"] = (
        members["log/entries/4.json"],
        members["log/entries/3.json"],
    )


def another_checkpoint(members: Members, told: Story) -> None:
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    text = members["log/checkpoint"].decode().rpartition("\n\n")[0] + "\n"
    members["log/checkpoint"] = sign_note(text, log_origin("Zegel Demo"), other)


def stray_certificate(members: Members, told: Story) -> None:
    root = certificate_pem(told.keys.root).encode()
    members["certificates/" + "0" * 64 + ".pem"] = root


def remove_certificate(members: Members, told: Story) -> None:
    del members[min(name for name in members if name.startswith("certificates/"))]


def swap_certificate(members: Members, told: Story) -> None:
    first, second = sorted(name for name in members if name.startswith("certificates/"))[:2]
    members[first] = members[second]


# What even the log's keeper, who can sign any manifest, cannot get past the verifier.
TAMPERED: list[tuple[str, Callable[[Members, Story], None], str, str]] = [
    ("model replaced", spoil("model.safetensors", lambda d: b"other"), "model", "expected digest"),
    ("model empty", spoil("model.safetensors", lambda d: b""), "model", "expected digest"),
    ("plan changed", spoil("plan.json", lambda d: d.replace(b"0.05", b"0.06")), "plan", "expected digest"),
    (
        "statement changed",
        spoil("release.json", lambda d: d.replace(b"1.5", b"1.4")),
        "trace",
        "exactly one release.proposed entry, got 0",
    ),
    ("statement not canonical", spoil("release.json", lambda d: d + b"\n"), "release statement", "canonical"),
    (
        "statement with a failed gate",
        spoil("release.json", lambda d: d.replace(b'"threshold":0.6', b'"threshold":0.8')),
        "release statement",
        "says passed",
    ),
    (
        "entry changed",
        spoil("log/entries/9.json", lambda d: d.replace(b"1200", b"1201")),
        "inclusion",
        "expected root",
    ),
    ("entry not canonical", spoil("log/entries/9.json", lambda d: d + b" "), "entries", "canonical"),
    (
        "entry of the future",
        spoil("log/entries/9.json", lambda d: d.replace(b"2026-11-22T05:01", b"2036-11-22T05:01")),
        "entries",
        "dated 2036",
    ),
    ("entries swapped", swap_entries, "inclusion", "expected root"),
    ("proofs swapped", swap_proofs, "inclusion", "expected index 3, got 4"),
    (
        "proof cut",
        spoil("log/proofs/9.txt", lambda d: b"\n".join(d.split(b"\n")[:2] + d.split(b"\n")[3:])),
        "inclusion",
        "too few hashes",
    ),
    (
        "proof without checkpoint",
        spoil("log/proofs/9.txt", lambda d: d.partition(b"\n\n")[0]),
        "inclusion",
        "empty line",
    ),
    (
        "proof over another checkpoint",
        spoil("log/proofs/9.txt", lambda d: d + b"x"),
        "inclusion",
        "got another one",
    ),
    ("checkpoint by another key", another_checkpoint, "checkpoint", "expected a signature by"),
    (
        "checkpoint changed",
        spoil("log/checkpoint", lambda d: d.replace(b"\n31\n", b"\n30\n").replace(b"\n32\n", b"\n30\n")),
        "checkpoint",
        "does not fit",
    ),
    (
        "log key changed",
        spoil("log/log.vkey", lambda d: d.replace(b"Demo", b"Done")),
        "founding",
        "as in the founding",
    ),
    (
        "another root inside",
        spoil("root.pem", lambda d: d[:-5]),
        "root certificate",
        "made under another one",
    ),
    ("entry without proof", remove("log/proofs/9.txt"), "container", "one is missing for 9"),
    ("proof without entry", remove("log/entries/9.json"), "container", "one is missing for 9"),
    ("model missing", remove("model.safetensors"), "container", "missing model.safetensors"),
    ("certificate missing", remove_certificate, "completeness", "missing or not used"),
    ("certificate added", stray_certificate, "completeness", "missing or not used"),
    ("certificate swapped", swap_certificate, "completeness", "announced in the log"),
    (
        "unknown member",
        lambda m, t: m.update({"readme.txt": b"hello"}),
        "container",
        "unknown member 'readme.txt'",
    ),
    (
        "entry with a leading zero",
        lambda m, t: m.update({"log/entries/09.json": b"{}"}),
        "container",
        "unknown member",
    ),
    (
        "large member",
        spoil("plan.json", lambda d: d + b" " * (1 << 20)),
        "container",
        "at most 1048576 bytes",
    ),
    ("founding left out", remove_entry("consortium.founded"), "founding", "exactly one consortium.founded"),
    ("round left out", remove_entry("round.completed"), "trace", "expected round 1, got round 2"),
    ("manifest entry left out", remove_entry("site.manifest"), "trace", "did not announce"),
    ("approval left out", remove_entry("approval"), "trace", "expected approval by privacy_officer"),
    ("metrics left out", remove_entry("metrics.reported"), "trace", "expected the first report of every hospital"),
    (
        "proposal left out",
        remove_entry("release.proposed"),
        "register",
        "it says release.proposed, the dossier holds nothing",
    ),
]


@pytest.mark.parametrize(("name", "change", "check", "message"), TAMPERED, ids=[case[0] for case in TAMPERED])
def test_the_log_keeper_cannot(
    told: Story,
    dossier: bytes,
    name: str,
    change: Callable[[Members, Story], None],
    check: str,
    message: str,
) -> None:
    members = unpack(dossier)
    change(members, told)
    with pytest.raises(DossierError, match=message) as caught:
        verified(told, resigned(told, members))
    assert caught.value.check.startswith(check)
    names = [passed.name for passed in caught.value.passed]
    assert names == CHECKS[: len(names)]
    assert caught.value.check == CHECKS[len(names)]
    assert str(caught.value).startswith(f"{caught.value.check}: ")


def test_resigning_alone_changes_nothing(told: Story, dossier: bytes) -> None:
    assert resigned(told, unpack(dossier)) == dossier


def test_the_manifest_names_the_member(told: Story, dossier: bytes) -> None:
    members = unpack(dossier)
    with pytest.raises(DossierError, match=r"manifest: plan\.json: has 2 bytes, sha256 44136fa3"):
        verified(told, pack({**members, "plan.json": b"{}"}))
    with pytest.raises(DossierError, match=r"manifest: manifest\.json: not JSON"):
        verified(told, pack({**members, MANIFEST: b"x"}))
    extra = members[MANIFEST].replace(b'"members":[', b'"members":[{"name":"z","sha256":"","size":0},')
    with pytest.raises(DossierError, match="'z': the manifest lists it, the dossier does not hold it"):
        verified(told, pack({**members, MANIFEST: extra}))


def test_a_signature_for_another_release_is_refused(told: Story, dossier: bytes) -> None:
    members = unpack(dossier)
    note = sign_note(manifest_note("2026.1", members[MANIFEST]), log_origin("Zegel Demo"), told.log_key())
    with pytest.raises(DossierError, match=r"expected a signature for release 2027\.1"):
        verified(told, pack({**members, MANIFEST_SIGNATURE: note}))


def test_another_root(told: Story, dossier: bytes) -> None:
    leaf = told.keys.holders["hospital-a"].certificate
    for root_pem, message in (
        (certificate_pem(leaf).encode(), "not issued by"),
        (b"", "not a certificate"),
    ):
        with pytest.raises(DossierError, match=message) as caught:
            verify_dossier(dossier, root_pem, now=told.now)
        assert caught.value.check == "root certificate"


def test_a_clock_before_the_entries(told: Story, dossier: bytes) -> None:
    with pytest.raises(DossierError, match=r"entries: entry .* dated 2026"):
        verify_dossier(dossier, told.keys.root_pem, now=told.now - timedelta(hours=1))


def test_writing_refuses(told: Story, tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path / "artifacts")
    for data in told.artifacts.values():
        artifacts.put(data)
    assert told.statement is not None

    def write(release: str) -> bytes:
        with open_log(f"sqlite:///{tmp_path / 'log.db'}", origin=log_origin("Zegel Demo")) as log:
            return write_dossier(
                log,
                artifacts,
                told.disclosures(tmp_path),
                release,
                key=told.log_key(),
                root_pem=told.keys.root_pem,
                clock=told.clock,
            )

    with told.log(tmp_path):
        pass
    with pytest.raises(LogError, match=r"release 1999\.1: expected one release\.certified"):
        write("1999.1")
    model = artifacts.path(digest_of(told.model))
    model.write_bytes(b"changed")
    with pytest.raises(ArtifactError, match="has changed on disk"):
        write("2027.1")
    artifacts.put(told.model)
    artifacts.path(digest_of(told.plan)).unlink()
    with pytest.raises(ArtifactError, match="is not in"):
        write("2027.1")
    artifacts.put(told.plan)
    assert verified(told, write("2027.1")).trace.release == "2027.1"


def test_a_story_with_a_gap_is_not_written(story: Story, tmp_path: Path) -> None:
    story.hooks["release approvers"] = lambda fields: fields["approvers"].remove("Bob")
    with pytest.raises(ReleaseError, match="expected approval by privacy_officer"):
        story.tell().dossier(tmp_path)


def test_refusals_stay_in(keys: Keys, story: Story, tmp_path: Path) -> None:
    def hesitate(fields: dict[str, object]) -> None:
        assert story.statement is not None
        story.approve("release", story.statement.digest, "Bob", "refuse")

    story.hooks["release approvers"] = hesitate
    report = verified(story, story.tell().dossier(tmp_path))
    assert [(a.approver.name, a.decision) for a in report.trace.approvals] == [
        (pseudonym("Bob"), "refuse"),
        (pseudonym("Bob"), "approve"),
        (pseudonym("Carol"), "approve"),
    ]


def test_the_verifier_needs_neither_database_nor_training(told: Story, dossier: bytes, tmp_path: Path) -> None:
    (tmp_path / "r.dossier").write_bytes(dossier)
    (tmp_path / "root.pem").write_bytes(told.keys.root_pem)
    script = (
        "import sys; from datetime import datetime; from pathlib import Path\n"
        "from audit.verify import verify_dossier\n"
        "d, r, now = sys.argv[1:]\n"
        "verify_dossier(Path(d).read_bytes(), Path(r).read_bytes(), now=datetime.fromisoformat(now))\n"
        "heavy = {'torch', 'nvflare', 'sqlalchemy', 'sqlmodel', 'numpy', 'rich', 'typer', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    arguments = [tmp_path / "r.dossier", tmp_path / "root.pem", told.now.isoformat()]
    output = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert output.stdout == "[]\n"


def test_all_errors_share_one_root() -> None:
    assert issubclass(DossierError, AuditError)


# -- states, witnesses and the register


def withdrawn_later(story: Story) -> None:
    story.tell()
    story.withdraw()


def test_a_dossier_of_a_withdrawn_release_does_not_verify(story: Story, tmp_path: Path) -> None:
    withdrawn_later(story)
    data = story.dossier(tmp_path)
    with pytest.raises(
        DossierError, match=r"state: release 2027\.1 was withdrawn in entry \d+: codes the dead"
    ) as error:
        verified(story, data)
    assert error.value.check == "state"
    assert [check.name for check in error.value.passed] == CHECKS[: CHECKS.index("state")]


def test_a_dossier_from_before_the_withdrawal_says_as_of_when(story: Story, tmp_path: Path) -> None:
    """Nobody can tell from a file what happened after it was written; its checkpoint says how far it reaches."""
    before = story.tell().dossier(tmp_path)
    story.withdraw()
    report = verified(story, before)
    assert next(check.detail for check in report.checks if check.name == "state").endswith("as of the checkpoint")


def second_release(story: Story) -> Story:
    story.tell()
    second = copy(story)
    second.initial_version, second.model, second.run_id = story.version, b"second", "run-20261123T050000Z-abcdef"
    second.run()
    second.release("2028.1")
    return second


def test_a_superseded_release_verifies_and_says_so(story: Story, tmp_path: Path) -> None:
    second = second_release(story)
    report = verified(second, second.dossier(tmp_path))
    assert report.trace.predecessor is not None
    assert (report.trace.release, report.trace.predecessor.release) == ("2028.1", "2027.1")
    (tmp_path / "first").mkdir()
    second.statement = story.statement
    report = verified(second, second.dossier(tmp_path / "first"))
    assert next(c.detail for c in report.checks if c.name == "state").endswith("superseded by 2028.1")


HIDDEN: list[tuple[str, Callable[[Story], object], str]] = [
    ("a withdrawal", lambda story: story.withdraw(), "release.withdrawn"),
    ("a suspension", lambda story: story.change_status("Bob", "suspended"), "certificate.status"),
    ("gates", lambda story: story.set_gates(), "gates.set"),
    ("an audit", lambda story: story.audited(passed=False), "privacy.audited"),
]


@pytest.mark.parametrize(("name", "happens", "kind"), HIDDEN, ids=[case[0] for case in HIDDEN])
def test_what_the_register_lists_cannot_be_left_out(
    story: Story, tmp_path: Path, name: str, happens: Callable[[Story], object], kind: str
) -> None:
    """Not even by the log's keeper, unless he signs a register that is a lie."""
    story.tell()
    happens(story)
    members = unpack(story.dossier(tmp_path))
    index = max(i for i, entry in enumerate(story.entries) if entry.kind == kind)
    del members[f"log/entries/{index}.json"], members[f"log/proofs/{index}.txt"]
    with pytest.raises(DossierError, match=f"entry {index}: it says {kind}, the dossier holds nothing") as caught:
        verified(story, resigned(story, members))
    assert caught.value.check == "register"


def test_a_register_of_another_tree_is_refused(story: Story, tmp_path: Path) -> None:
    old = unpack(story.tell().dossier(tmp_path))["log/register.txt"]
    story.withdraw()
    (tmp_path / "later").mkdir()
    members = {**unpack(story.dossier(tmp_path / "later")), "log/register.txt": old}
    with pytest.raises(
        DossierError, match=r"register: log/register\.txt: .*expected the register of the checkpoint's tree"
    ):
        verified(story, resigned(story, members))


def witnessed(story: Story, threshold: int) -> list[Ed25519PrivateKey]:
    """Two hospitals enrol witnesses, and the gates ask for some of them."""
    keys = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2)]
    story.gates = (Gate("witnesses", AT_LEAST, threshold, 2.0),)
    story.found()
    for site, key in zip(("hospital-a", "hospital-b"), keys, strict=True):
        story.enrol_witness(site, key)
    story.run()
    story.release()
    return keys


def cosigned_by(story: Story, keys: list[Ed25519PrivateKey], tmp_path: Path, **options: datetime) -> bytes:
    checkpoint = unpack(story.dossier(tmp_path))["log/checkpoint"]
    at, text = options.get("at", story.now), parse_note(checkpoint).text
    lines = [cosign(text, f"witness.hospital-{letter}", key, at) for letter, key in zip("ab", keys, strict=False)]
    return story.dossier(tmp_path, add_signatures(checkpoint, lines))


def test_the_witnesses_the_gates_ask_for(story: Story, tmp_path: Path) -> None:
    keys = witnessed(story, 2)
    report = verified(story, cosigned_by(story, keys, tmp_path))
    detail = next(check.detail for check in report.checks if check.name == "witnesses")
    assert detail == "2 of 2 cosigned the checkpoint, 2 needed"


def test_too_few_witnesses(story: Story, tmp_path: Path) -> None:
    keys = witnessed(story, 2)
    for count in (0, 1):
        with pytest.raises(DossierError, match=f"log/checkpoint: .*at least 2 of 2 witnesses, got {count}") as caught:
            verified(story, cosigned_by(story, keys[:count], tmp_path))
        assert caught.value.check == "witnesses"
    with pytest.raises(DossierError, match=r"at least 2 of 2 witnesses, got 0"):
        verified(story, cosigned_by(story, keys, tmp_path, at=story.now + timedelta(hours=1)))


def test_a_stranger_is_no_witness(story: Story, tmp_path: Path) -> None:
    keys = witnessed(story, 2)
    stranger = Ed25519PrivateKey.from_private_bytes(bytes([9]) * 32)
    with pytest.raises(DossierError, match="at least 2 of 2 witnesses, got 1"):
        verified(story, cosigned_by(story, [keys[0], stranger], tmp_path))


def test_more_witnesses_asked_for_than_there_are(story: Story) -> None:
    with pytest.raises(ReleaseError, match="gate witnesses failed: expected at_least 3"):
        witnessed(story, 3)
