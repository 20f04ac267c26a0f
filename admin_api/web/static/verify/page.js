// The verification panel of an entry: fetches bytes, proofs and signatures, computes everything here, and says step by
// step what holds. The newest checkpoint that held is remembered in this browser; a later one must continue it.

import { fromBase64, parseVerifierKey, toHex, verifyCheckpoint, verifyCosignature } from "./note.js";
import { canonical } from "./statement.js";
import { leafHash, same, verifyConsistency, verifyInclusion } from "./merkle.js";

const SEEN = "zegel-checkpoint:"; // + verifier key

const fromHex = (text) => {
  if (!/^([0-9a-f]{2})*$/.test(text)) throw new Error("not hexadecimal");
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
};

async function get(path) {
  const answer = await fetch(path, { headers: { Accept: "application/json" }, credentials: "same-origin" });
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.detail ?? answer.statusText);
  return value;
}

const _ = window.zegel.t;

async function verifyEntry(index, vkey, witnesses, { fetchJson = get, shown = null, storage = localStorage, tell }) {
  const step = async (name, work) => {
    tell(name, "running", "");
    try {
      const [state, word] = await work();
      tell(name, state, word);
      return state !== "failed";
    } catch (error) {
      tell(name, "failed", error.message);
      return false;
    }
  };
  let leaf, proof, checkpoint;
  const held = await step("leaf", async () => {
    const entry = await fetchJson(`/api/v1/log/entries/${index}`);
    const bytes = fromBase64(entry.data);
    leaf = await leafHash(bytes);
    const body = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)).body;
    if (shown !== null && canonical(JSON.parse(shown)) !== canonical(body)) {
      throw new Error("the page shows something else than what was hashed");
    }
    return ["passed", toHex(leaf).slice(0, 16)];
  }) && await step("inclusion", async () => {
    proof = await fetchJson(`/api/v1/log/entries/${index}/proof`);
    const key = await parseVerifierKey(vkey);
    checkpoint = await verifyCheckpoint(proof.checkpoint, key);
    if (proof.size !== checkpoint.size) throw new Error("the proof is for another tree than the signed one");
    await verifyInclusion(leaf, index, checkpoint.size, proof.hashes.map(fromHex), checkpoint.root);
    return ["passed", _("entry %(index)s of %(size)s, counted from 0", { index, size: checkpoint.size })];
  }) && await step("signature", async () => ["passed", checkpoint.origin])
    && await step("continued", async () => {
      const before = JSON.parse(storage.getItem(SEEN + vkey) ?? "null");
      const now = { size: checkpoint.size, root: toHex(checkpoint.root), at: new Date().toISOString() };
      if (before === null) {
        storage.setItem(SEEN + vkey, JSON.stringify(now));
        return ["info", _("this is the first tree it saw; it remembers it now")];
      }
      if (before.size > checkpoint.size) throw new Error(`the log shrank: ${before.size} > ${checkpoint.size}`);
      if (before.size === checkpoint.size) {
        if (!same(fromHex(before.root), checkpoint.root)) throw new Error("two roots were signed for one size");
      } else {
        const path = `/api/v1/log/consistency?from=${before.size}&to=${checkpoint.size}`;
        const { hashes } = await fetchJson(path);
        const root = fromHex(before.root);
        await verifyConsistency(before.size, root, checkpoint.size, checkpoint.root, hashes.map(fromHex));
      }
      storage.setItem(SEEN + vkey, JSON.stringify(now));
      return ["passed", _("since %(day)s", { day: before.at.slice(0, 10) })];
    });
  await step("witnesses", async () => {
    if (!held) throw new Error("not asked: a step before failed");
    const names = [];
    for (const each of witnesses) {
      const key = await parseVerifierKey(each);
      if ((await verifyCosignature(proof.checkpoint, key)) !== null) names.push(key.name);
    }
    const words = _("%(count)s of %(all)s enrolled witnesses", { count: names.length, all: witnesses.length });
    return [names.length ? "passed" : "attention", names.length ? `${words}: ${names.join(", ")}` : words];
  });
}

const panel = document.getElementById("verify");
if (panel) {
  const body = document.querySelector("[data-verify-body]");
  const { verifyEntry: index, verifyVkey: vkey, verifyWitnesses: witnesses } = panel.dataset;
  verifyEntry(Number(index), vkey, witnesses.split(" ").filter(Boolean), {
    shown: body ? body.textContent : null,
    tell: (name, state, word) => {
      const item = panel.querySelector(`[data-verify-step="${name}"]`);
      item.dataset.state = state;
      item.querySelector("[data-verify-word]").textContent = word;
    },
  });
}
