"""The dossier: everything that proves a release, in one file.

A dossier is a zip file (`audit.archive`) with these members:

    manifest.json               name, size and sha256 of every other member but manifest.sig
    manifest.sig                signed note of the log's key over the manifest's digest
    release.json                the release statement
    plan.json                   the plan of the run that made the version
    plans/<hex>.json            plans of earlier runs the version grew out of, if any
    model.safetensors           the model; its digest is the version
    certificates/<hex>.pem      every certificate used, by digest
    log/log.vkey                the log's verifier key
    log/checkpoint              the signed checkpoint all proofs refer to, with its witnesses' cosignatures
    disclosures.json            names and reasons that the log only commits to, where not erased (audit.disclosure)
    log/register.txt            the log's signed list of the entries that must not be missing (audit.register)
    log/entries/<index>.json    every entry that bears on the release
    log/proofs/<index>.txt      its inclusion proof (C2SP tlog-proof)
    documents/<name>            documents for people and other programs (audit.documents.collection)
    root.pem                    the root certificate, for information: a verifier brings its own

Invariants:
- The same release, checkpoint and disclosures give the same bytes, and any other bytes are refused.
- Reading trusts no name, size or path in the file: members are looked up in memory, nothing is extracted.

Writing needs the log and the artifacts; reading needs neither.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.archive import MAX_NAME_SIZE, pack, unpack
from audit.canonical import canonical_json, digest_of, hex_of, parse_json_object, shown
from audit.certificates import certificate_pem, load_certificate
from audit.checkpoint import format_proof, open_checkpoint
from audit.disclosure import pack_disclosures
from audit.documents.collection import FOLDER, documents_after_certification
from audit.documents.collection import MEMBER as DOCUMENT
from audit.documents.report import LogHead
from audit.entry import RELEASE_CERTIFIED, Entry
from audit.errors import AuditError, CanonicalError, DossierError, LogError
from audit.evidence import Evidence
from audit.note import VerifierKey, sign_note, verify_note
from audit.register import register_of, sign_register
from audit.release import ReleaseStatement
from audit.selection import certificates_used, entries_bearing_on
from audit.trace import trace_release

if TYPE_CHECKING:
    from audit.artifacts import Artifacts
    from audit.disclosure_store import Disclosures
    from audit.store import Log

FurtherDocuments = Callable[[bytes], Mapping[str, bytes]]  # from a signed checkpoint to documents by name
SUFFIX = ".dossier"
MANIFEST_SCHEMA = "zegel/dossier/v1"
MAX_SMALL_MEMBER_SIZE = 1 << 20  # bytes; plans are the largest of these
MAX_DOCUMENT_SIZE = 1 << 24  # bytes; the report of 50 hospitals over thousands of rounds

MANIFEST = "manifest.json"
MANIFEST_SIGNATURE = "manifest.sig"
RELEASE = "release.json"
PLAN = "plan.json"
MODEL = "model.safetensors"
LOG_KEY = "log/log.vkey"
CHECKPOINT = "log/checkpoint"
REGISTER = "log/register.txt"
DISCLOSURES = "disclosures.json"
ROOT = "root.pem"
_FIXED = frozenset(
    {MANIFEST, MANIFEST_SIGNATURE, RELEASE, PLAN, MODEL, LOG_KEY, CHECKPOINT, REGISTER, DISCLOSURES, ROOT}
)
_ENTRY = re.compile(r"log/entries/(0|[1-9][0-9]{0,18})\.json", re.ASCII)
_PROOF = re.compile(r"log/proofs/(0|[1-9][0-9]{0,18})\.txt", re.ASCII)
_CERTIFICATE = re.compile(r"certificates/([0-9a-f]{64})\.pem", re.ASCII)
_EARLIER_PLAN = re.compile(r"plans/([0-9a-f]{64})\.json", re.ASCII)


@dataclass(frozen=True)
class Dossier:
    """A dossier's members by what they are. The container is sound; nothing inside is verified yet."""

    manifest: bytes
    manifest_signature: bytes
    release: bytes
    plan: bytes
    model: bytes
    log_key: bytes
    checkpoint: bytes
    register: bytes
    disclosures: bytes
    root_pem: bytes
    entries: Mapping[int, bytes]
    proofs: Mapping[int, bytes]
    certificates: Mapping[str, bytes]  # by the digest their name states
    earlier_plans: Mapping[str, bytes]  # by the digest their name states
    documents: Mapping[str, bytes]  # by their name in the folder
    members: Mapping[str, bytes]


def open_dossier(data: bytes) -> Dossier:
    """The members of a dossier's bytes.

    Raises DossierError for another kind of file, for missing or unknown members, for members larger than
    they may be, and for any byte the deterministic writer would not have written.
    """
    members = unpack(data)
    missing = sorted(_FIXED - set(members))
    if missing:
        raise DossierError(f"dossier: missing {', '.join(missing)}")
    entries: dict[int, bytes] = {}
    proofs: dict[int, bytes] = {}
    certificates: dict[str, bytes] = {}
    earlier_plans: dict[str, bytes] = {}
    documents: dict[str, bytes] = {}
    for name, content in members.items():
        most = MAX_DOCUMENT_SIZE if name.startswith(FOLDER) else MAX_SMALL_MEMBER_SIZE
        if name != MODEL and len(content) > most:
            raise DossierError(f"dossier: {name}: expected at most {most} bytes, got {len(content)}")
        if name in _FIXED:
            continue
        if match := _ENTRY.fullmatch(name):
            entries[int(match[1])] = content
        elif match := _PROOF.fullmatch(name):
            proofs[int(match[1])] = content
        elif match := _CERTIFICATE.fullmatch(name):
            certificates["sha256:" + match[1]] = content
        elif match := _EARLIER_PLAN.fullmatch(name):
            earlier_plans["sha256:" + match[1]] = content
        elif match := DOCUMENT.fullmatch(name):
            documents[match[1]] = content
        else:
            raise DossierError(f"dossier: unknown member {name!r}")
    if set(entries) != set(proofs):
        odd = sorted(set(entries) ^ set(proofs))
        raise DossierError(f"dossier: expected an entry and a proof for each index; one is missing for {odd[0]}")
    return Dossier(
        manifest=members[MANIFEST],
        manifest_signature=members[MANIFEST_SIGNATURE],
        release=members[RELEASE],
        plan=members[PLAN],
        model=members[MODEL],
        log_key=members[LOG_KEY],
        checkpoint=members[CHECKPOINT],
        register=members[REGISTER],
        disclosures=members[DISCLOSURES],
        root_pem=members[ROOT],
        entries=dict(sorted(entries.items())),
        proofs=proofs,
        certificates=certificates,
        earlier_plans=earlier_plans,
        documents=documents,
        members=members,
    )


def manifest_of(members: Mapping[str, bytes]) -> bytes:
    """The manifest's bytes for these members (manifest and its signature left out)."""
    listed: list[dict[str, Any]] = [
        {"name": name, "size": len(content), "sha256": hex_of(digest_of(content))}
        for name, content in sorted(members.items())
        if name not in (MANIFEST, MANIFEST_SIGNATURE)
    ]
    return canonical_json({"schema": MANIFEST_SCHEMA, "members": listed})


def check_manifest(dossier: Dossier) -> None:
    """Raises DossierError naming the first member that is not what the manifest says."""
    try:
        stated = parse_json_object(dossier.manifest, MANIFEST)
    except CanonicalError as error:
        raise DossierError(str(error)) from error
    expected = manifest_of(dossier.members)
    if dossier.manifest == expected:
        return
    listed = stated.get("members")
    items = [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
    by_name = {item["name"]: item for item in items if isinstance(item.get("name"), str)}
    for item in parse_json_object(expected)["members"]:
        if by_name.get(item["name"]) != item:
            raise DossierError(
                f"{item['name']}: has {item['size']} bytes, sha256 {item['sha256']}; the manifest says "
                f"{shown(by_name.get(item['name']))}"
            )
    gone = sorted(set(by_name) - set(dossier.members))
    if gone:
        name = ascii(gone[0])[: MAX_NAME_SIZE + 2]
        raise DossierError(f"{name}: the manifest lists it, the dossier does not hold it")
    raise DossierError(f"{MANIFEST}: is not the manifest of these members")


@contextmanager
def in_member(name: str) -> Iterator[None]:
    """Puts a member's name before the message of whatever is wrong with it."""
    try:
        yield
    except AuditError as error:
        raise DossierError(f"{name}: {error}") from error


def manifest_note(release: str, manifest: bytes) -> str:
    """The text the log's key signs for a dossier."""
    return f"zegel dossier v1\n{release}\n{digest_of(manifest)}\n"


def check_manifest_signature(dossier: Dossier, release: str, key: VerifierKey) -> None:
    """Raises NoteError or DossierError unless the log's key signed this manifest for this release."""
    with in_member(MANIFEST_SIGNATURE):
        text = verify_note(dossier.manifest_signature, key)
    if text != manifest_note(release, dossier.manifest):
        raise DossierError(f"{MANIFEST_SIGNATURE}: expected a signature for release {release} over {MANIFEST}")


def no_further_documents(checkpoint: bytes) -> Mapping[str, bytes]:
    """Nobody signed documents, and no authority stamped the checkpoint."""
    return {}


def write_dossier(
    log: Log,
    artifacts: Artifacts,
    disclosures: Disclosures,
    release: str,
    *,
    key: Ed25519PrivateKey,
    root_pem: bytes,
    clock: Callable[[], datetime],
    checkpoint: bytes | None = None,
    further_documents: FurtherDocuments = no_further_documents,
) -> bytes:
    """The dossier of a certified release.

    `checkpoint` is one of this log that covers the certification, with its cosignatures; None signs one over the
    log as it is. What bears on the release is collected, and the release traced, before anything is written.
    `further_documents` is asked once, with the checkpoint, for the signatures and the time stamp to be put in.

    Raises LogError when the release has not been certified, DisclosureError when a value beside the log is damaged,
    ArtifactError when a plan, statement, document or
    model is missing or changed, TraceError or ReleaseError when the log does not tell one unbroken story.
    """
    root = load_certificate(root_pem)
    certified = [entry for _, entry in log.entries(kind=RELEASE_CERTIFIED) if entry.body["release"] == release]
    if len(certified) != 1:
        raise LogError(f"release {release}: expected one {RELEASE_CERTIFIED} entry in the log, got {len(certified)}")
    statement_bytes = artifacts.get(certified[0].body["statement"])
    statement = ReleaseStatement.from_bytes(statement_bytes)
    checkpoint = log.sign_checkpoint(key, clock) if checkpoint is None else checkpoint
    tree = open_checkpoint(checkpoint, VerifierKey.of(log.origin, key))
    size = tree.size
    everything = [(index, entry) for index, entry in log.entries() if index < size]
    selected, plan_hashes = entries_bearing_on(everything, statement, digest_of(statement_bytes))
    plans = {plan_hash: artifacts.get(plan_hash) for plan_hash in plan_hashes}
    evidence = Evidence(selected, root)
    trace = trace_release(evidence, statement_bytes, plans)
    plan = plans.pop(statement.plan_hash)
    bound = {name: artifacts.get(value) for name, value in statement.documents.items()}
    head = LogHead(str(evidence.founding.log_key), checkpoint, len(selected))
    further = further_documents(checkpoint)
    documents = bound | documents_after_certification(statement, trace, plan, bound, further, head)
    members: dict[str, bytes] = {
        RELEASE: statement_bytes,
        PLAN: plan,
        MODEL: artifacts.get(statement.version),
        LOG_KEY: f"{evidence.founding.log_key}\n".encode(),
        CHECKPOINT: checkpoint,
        DISCLOSURES: pack_disclosures(disclosures.bearing_on(selected)),
        REGISTER: sign_register(register_of(everything), tree, key),
        ROOT: certificate_pem(root).encode(),
        **{FOLDER + name: content for name, content in documents.items()},
    }
    for plan_hash, data in plans.items():
        members[f"plans/{hex_of(plan_hash)}.json"] = data
    for digest in certificates_used(selected, statement):
        members[f"certificates/{hex_of(digest)}.pem"] = certificate_pem(evidence.certificates[digest]).encode()
    members.update(_proved_entries(log, selected, size, checkpoint))
    members[MANIFEST] = manifest_of(members)
    members[MANIFEST_SIGNATURE] = sign_note(manifest_note(release, members[MANIFEST]), log.origin, key)
    return pack(members)


def _proved_entries(log: Log, selected: Iterable[tuple[int, Entry]], size: int, checkpoint: bytes) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    for index, entry in selected:
        members[f"log/entries/{index}.json"] = entry.to_bytes()
        members[f"log/proofs/{index}.txt"] = format_proof(index, log.inclusion_proof(index, size), checkpoint)
    return members
