"""static/verify in a real Chromium: proofs and signatures made in Python hold, and no changed byte does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.canonical import canonical_json
from audit.checkpoint import Checkpoint, sign_checkpoint
from audit.cosignature import add_signatures, cosign, witness_key
from audit.merkle import consistency_proof, inclusion_proof, leaf_hash, root_of
from audit.note import VerifierKey, parse_note
from tests.admin_api.web.browser import Visit, chromium, serving, visiting
from tests.admin_api.web.gallery import gallery_app

MOST = 33
LEAVES = [leaf_hash(bytes([number])) for number in range(MOST)]
LOG = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
WITNESS = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))

# Runs every case as it is, then with a byte of each hash changed, a hash missing and one too many.
INCLUSIONS = """async (cases) => {
  const { leafHash, verifyInclusion } = await import("/static/verify/merkle.js");
  const bytes = (text) => Uint8Array.from(text.match(/../g), (pair) => parseInt(pair, 16));
  const refused = async (...given) => { try { await verifyInclusion(...given); return false; } catch { return true; } };
  const wrong = [];
  for (const { number, index, size, proof, root } of cases) {
    const leaf = await leafHash(Uint8Array.of(number));
    try {
      await verifyInclusion(leaf, index, size, proof.map(bytes), bytes(root));
    } catch (error) {
      wrong.push([index, size, error.message]);
    }
    for (let place = 0; place < proof.length; place++) {
      const changed = proof.map(bytes);
      changed[place][31] ^= 1;
      if (!await refused(leaf, index, size, changed, bytes(root))) wrong.push([index, size, "changed", place]);
    }
    const other = bytes(root);
    other[0] ^= 128;
    if (!await refused(leaf, index, size, proof.map(bytes), other)) wrong.push([index, size, "root"]);
    if (!await refused(leaf, index, size, [...proof.map(bytes), bytes(root)], bytes(root)))
      wrong.push([index, size, "longer"]);
    if (proof.length && !await refused(leaf, index, size, proof.slice(1).map(bytes), bytes(root)))
      wrong.push([index, size, "shorter"]);
    if (!await refused(leaf, size, size, proof.map(bytes), bytes(root))) wrong.push([index, size, "outside"]);
    if (size > 1 && !await refused(leaf, (index + 1) % size, size, proof.map(bytes), bytes(root)))
      wrong.push([index, size, "elsewhere"]);
  }
  return wrong;
}"""
CONSISTENCIES = """async (cases) => {
  const { verifyConsistency } = await import("/static/verify/merkle.js");
  const bytes = (text) => Uint8Array.from(text.match(/../g), (pair) => parseInt(pair, 16));
  const refused = async (...given) => {
    try { await verifyConsistency(...given); return false; } catch {
      return true;
    }
  };
  const wrong = [];
  for (const { before, after, old, root, proof } of cases) {
    try {
      await verifyConsistency(before, bytes(old), after, bytes(root), proof.map(bytes));
    } catch (error) {
      wrong.push([before, after, error.message]);
    }
    for (let place = 0; place < proof.length; place++) {
      const changed = proof.map(bytes);
      changed[place][0] ^= 1;
      if (!await refused(before, bytes(old), after, bytes(root), changed))
        wrong.push([before, after, "changed", place]);
    }
    for (const [first, second] of [[1, 0], [0, 1]]) {
      const [left, right] = [bytes(old), bytes(root)];
      left[5] ^= first;
      right[5] ^= second;
      if (!await refused(before, left, after, right, proof.map(bytes))) wrong.push([before, after, "root"]);
    }
    if (before < after && !await refused(after, bytes(root), before, bytes(old), proof.map(bytes)))
      wrong.push([before, after, "shrank"]);
    if (!await refused(before, bytes(old), after, bytes(root), [...proof.map(bytes), bytes(root)]))
      wrong.push([before, after, "longer"]);
  }
  return wrong;
}"""


class _Hashes:
    """The tree's stored hashes, computed when asked for."""

    def read_hashes(self, nodes: Sequence[tuple[int, int]]) -> list[bytes]:
        return [root_of(LEAVES[index << level : (index + 1) << level]) for level, index in nodes]


@pytest.fixture(scope="module")
def visit() -> Iterator[Visit]:
    with serving(gallery_app()) as address, chromium() as browser, visiting(browser, address) as opened:
        opened.go("/gallery")
        yield opened


def test_inclusion_in_every_tree_of_up_to_33_entries(visit: Visit) -> None:
    cases = [
        {
            "number": index,
            "index": index,
            "size": size,
            "proof": [each.hex() for each in inclusion_proof(index, size, _Hashes())],
            "root": root_of(LEAVES[:size]).hex(),
        }
        for size in range(1, MOST + 1)
        for index in range(size)
    ]
    assert visit.page.evaluate(INCLUSIONS, cases) == []


def test_continuation_between_all_sizes_up_to_33(visit: Visit) -> None:
    cases = [
        {
            "before": before,
            "after": after,
            "old": root_of(LEAVES[:before]).hex(),
            "root": root_of(LEAVES[:after]).hex(),
            "proof": [each.hex() for each in consistency_proof(before, after, _Hashes())],
        }
        for after in range(1, MOST + 1)
        for before in range(1, after + 1)
    ]
    assert visit.page.evaluate(CONSISTENCIES, cases) == []


def test_checkpoints_and_cosignatures(visit: Visit) -> None:
    checkpoint = Checkpoint("zegel.example/log", MOST, root_of(LEAVES))
    note = sign_checkpoint(checkpoint, LOG)
    when = datetime(2026, 11, 22, 5, tzinfo=UTC)
    note = add_signatures(note, [cosign(parse_note(note).text, "witness.example", WITNESS, when)])
    given = {
        "note": note.decode(),
        "vkey": str(VerifierKey.of(checkpoint.origin, LOG)),
        "witness": str(witness_key("witness.example", WITNESS)),
        "stranger": str(witness_key("stranger.example", LOG)),
        "other": str(VerifierKey.of("other.example/log", LOG)),
    }
    found = visit.page.evaluate(
        """async ({ note, vkey, witness, stranger, other }) => {
          const verify = await import("/static/verify/note.js");
          const refused = async (work) => { try { await work(); return ""; } catch (error) { return error.message; } };
          const key = await verify.parseVerifierKey(vkey);
          const at = note.indexOf("\\n33\\n");
          const grown = note.slice(0, at) + "\\n34\\n" + note.slice(at + 4);
          return {
            size: (await verify.verifyCheckpoint(note, key)).size,
            when: (await verify.verifyCosignature(note, await verify.parseVerifierKey(witness))).toISOString(),
            stranger: await verify.verifyCosignature(note, await verify.parseVerifierKey(stranger)),
            grown: await refused(() => verify.verifyCheckpoint(grown, key)),
            cosigned: await refused(async () =>
              verify.verifyCosignature(grown, await verify.parseVerifierKey(witness))),
            other: await refused(async () => verify.verifyCheckpoint(note, await verify.parseVerifierKey(other))),
            cut: await refused(() => verify.verifyCheckpoint(note.slice(0, -1), key)),
            id: await refused(() => verify.parseVerifierKey(vkey.replace(/\\+[0-9a-f]{8}\\+/, "+00000000+"))),
          };
        }""",
        given,
    )
    assert found["size"] == MOST
    assert found["when"] == "2026-11-22T05:00:00.000Z"
    assert found["stranger"] is None
    assert "does not fit" in found["grown"]
    assert "does not fit" in found["cosigned"]
    assert "not signed by other.example/log" in found["other"]
    assert found["cut"] == "not a signed note"
    assert "does not fit its key" in found["id"]


@pytest.mark.parametrize(
    "value",
    [
        {"b": 1, "a": [True, None, "é \u2028 \U0001f600"], "10": 1, "9": 2, "": {}},
        [0.1, 1e21, 1e-7, 123456789012, -0.5, 5e-324],
        {"\U0001f600": 1, "\ufb33": 2, "\r": 3, "1": 4},
    ],
)
def test_values_are_spelled_as_they_are_signed(visit: Visit, value: Any) -> None:
    spelled = visit.page.evaluate(
        'async (value) => (await import("/static/verify/statement.js")).canonical(JSON.parse(value))',
        canonical_json(value).decode(),
    )
    assert spelled.encode() == canonical_json(value)
