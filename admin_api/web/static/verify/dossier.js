// A dossier, checked in the browser step by step, each step relying only on those before it; the first that fails ends
// it. What is checked is the integrity of the evidence: bytes, proofs, signatures, who stands behind which. What it means
// (the order of events, budgets, gates recomputed, revocations, certificates' validity in time) is left to the offline
// verifier, which needs nothing from this server.

import { unpack } from "./archive.js";
import { derOf, parseCertificate, verifyIssued } from "./certificate.js";
import { leafHash, verifyInclusion } from "./merkle.js";
import { fromBase64, parseNote, parseVerifierKey, verifyCheckpoint, verifyCosignature, verifyNote } from "./note.js";
import { digestOf, parseCanonical, signedIn, verifySigned } from "./statement.js";

export const STEPS = ["container", "manifest", "identity", "checkpoint", "inclusion", "register", "statements", "release", "approvals", "standing", "witnesses"];
const PROOF = "c2sp.org/tlog-proof@v1";
const ascii = new TextDecoder("utf-8", { fatal: true });

function plainly(message, values = {}) {
  return message.replace(/%\((\w+)\)s/g, (whole, name) => values[name] ?? whole);
}

// Checks the bytes of a file. `known`: {vkey, root}: the log's key and the root's digest, as the reader trusts them.
// `tell(step, state, words)` hears how it goes; states are running, passed, attention, failed, unknown (not reached).
// Returns what the dossier is about, or null when a step failed.
export async function verifyDossier(data, known, tell, _ = plainly) {
  const found = { members: new Map(), entries: new Map(), certificates: new Map() };
  const work = {
    container: () => container(found, data, _),
    manifest: () => manifest(found, _),
    identity: () => identity(found, known, _),
    checkpoint: () => checkpoint(found, _),
    inclusion: () => inclusion(found, _),
    register: () => register(found, _),
    statements: () => statements(found, _),
    release: () => release(found, _),
    approvals: () => approvals(found, _),
    standing: () => standing(found, _),
    witnesses: () => witnesses(found, _),
  };
  let failed = false;
  for (const step of STEPS) {
    if (failed) {
      tell(step, "unknown", _("not reached"));
      continue;
    }
    tell(step, "running", "");
    try {
      const [state, words] = await work[step]();
      tell(step, state, words);
    } catch (error) {
      failed = true;
      tell(step, "failed", error.message);
    }
  }
  return failed ? null : { release: found.release, certified: found.certified, size: found.tree.size, by: found.by };
}

function member(found, name) {
  const content = found.members.get(name);
  if (content === undefined) throw new Error(`${name} is missing`);
  return content;
}

async function container(found, data, _) {
  found.members = unpack(data);
  return ["passed", _("%(count)s members, no byte to spare", { count: found.members.size })];
}

async function manifest(found, _) {
  const stated = parseCanonical(member(found, "manifest.json"), "manifest.json");
  const listed = new Map(stated.members.map((each) => [each.name, each]));
  for (const [name, content] of found.members) {
    if (name === "manifest.json" || name === "manifest.sig") continue;
    const said = listed.get(name);
    if (!said) throw new Error(`${name} is not in the manifest`);
    if (said.size !== content.length || `sha256:${said.sha256}` !== await digestOf(content)) throw new Error(`${name} is not what the manifest says`);
    listed.delete(name);
  }
  if (listed.size) throw new Error(`${[...listed.keys()][0]} is in the manifest and not in the file`);
  return ["passed", _("sizes and digests of %(count)s members", { count: found.members.size - 2 })];
}

async function identity(found, known, _) {
  const said = ascii.decode(member(found, "log/log.vkey")).trimEnd();
  if (said !== known.vkey) throw new Error(`the file is of the log ${said}`);
  found.key = await parseVerifierKey(said);
  const der = derOf(ascii.decode(member(found, "root.pem")));
  const digest = await digestOf(der);
  if (digest !== known.root) throw new Error(`the file was made under the root ${digest}`);
  found.root = parseCertificate(der);
  await verifyIssued(found.root, found.root, "root.pem");
  return ["passed", found.key.name];
}

async function checkpoint(found, _) {
  found.note = ascii.decode(member(found, "log/checkpoint"));
  found.tree = await verifyCheckpoint(found.note, found.key);
  const signed = await verifyNote(ascii.decode(member(found, "manifest.sig")), found.key);
  const [head, name, digest] = signed.split("\n");
  if (head !== "zegel dossier v1" || digest !== await digestOf(member(found, "manifest.json"))) throw new Error("the log signed another manifest");
  found.name = name;
  return ["passed", _("a log of %(size)s entries", { size: found.tree.size })];
}

async function inclusion(found, _) {
  for (const [name, content] of found.members) {
    const match = /^log\/entries\/(0|[1-9][0-9]{0,15})\.json$/.exec(name);
    if (!match) continue;
    const index = Number(match[1]);
    const proof = ascii.decode(member(found, `log/proofs/${match[1]}.txt`));
    const cut = proof.indexOf("\n\n");
    const [head, place, ...hashes] = proof.slice(0, cut).split("\n");
    if (cut < 0 || head !== PROOF || place !== `index ${index}`) throw new Error(`log/proofs/${index}.txt is not the proof of entry ${index}`);
    if (proof.slice(cut + 2) !== found.note) throw new Error(`log/proofs/${index}.txt is about another tree`);
    try {
      await verifyInclusion(await leafHash(content), index, found.tree.size, hashes.map(fromBase64), found.tree.root);
    } catch (error) {
      throw new Error(`log/entries/${index}.json: ${error.message}`);
    }
    found.entries.set(index, parseCanonical(content, name));
  }
  return ["passed", _("%(count)s entries are in the signed tree", { count: found.entries.size })];
}

async function register(found, _) {
  const text = await verifyNote(ascii.decode(member(found, "log/register.txt")), found.key);
  const lines = text.split("\n").slice(0, -1);
  if (lines[0] !== "zegel register v1" || `${lines.slice(1, 4).join("\n")}\n` !== parseNote(found.note).text) throw new Error("the register is about another tree");
  for (const line of lines.slice(4)) {
    const [index, kind] = line.split(" ");
    if (found.entries.get(Number(index))?.kind !== kind) throw new Error(`entry ${index} (${kind}) must not be missing, and is`);
  }
  return ["passed", _("%(count)s entries that must not be missing are here", { count: lines.length - 4 })];
}

async function statements(found, _) {
  for (const [name, content] of found.members) {
    if (!name.startsWith("certificates/")) continue;
    const der = derOf(ascii.decode(content));
    const digest = await digestOf(der);
    if (name !== `certificates/${digest.slice(7)}.pem`) throw new Error(`${name} holds another certificate`);
    const certificate = parseCertificate(der);
    await verifyIssued(certificate, found.root, name);
    found.certificates.set(digest, certificate);
  }
  let count = 0;
  for (const [index, entry] of found.entries) {
    for (const signed of signedIn(entry.body)) {
      const certificate = found.certificates.get(signed.certificate);
      if (!certificate) throw new Error(`entry ${index}: the certificate ${signed.certificate} is not here`);
      try {
        await verifySigned(signed, certificate);
      } catch (error) {
        throw new Error(`entry ${index}: ${error.message}`);
      }
      count += 1;
    }
  }
  return ["passed", _("%(count)s statements under %(certificates)s certificates of this root", { count, certificates: found.certificates.size })];
}

async function release(found, _) {
  const bytes = member(found, "release.json");
  found.release = parseCanonical(bytes, "release.json");
  found.statement = await digestOf(bytes);
  if (found.release.release !== found.name) throw new Error(`the log signed a dossier of ${found.name}`);
  const bound = [["model.safetensors", found.release.version], ["plan.json", found.release.plan_hash],
    ...Object.entries(found.release.documents).map(([name, digest]) => [`documents/${name}`, digest])];
  for (const [name, digest] of bound) {
    if (await digestOf(member(found, name)) !== digest) throw new Error(`${name} is not the one that ${found.name} names`);
  }
  return ["passed", _("model, plan and %(count)s documents are those that %(release)s names", { count: bound.length - 2, release: found.name })];
}

function only(found, kind) {
  return [...found.entries].filter(([, entry]) => entry.kind === kind);
}

async function approvals(found, _) {
  const certified = only(found, "release.certified").find(([, entry]) => entry.body.release === found.name);
  if (!certified) throw new Error(`no entry certifies ${found.name}`);
  const [index, { body }] = certified;
  if (body.statement !== found.statement || body.version !== found.release.version) throw new Error(`entry ${index} certifies something else`);
  const last = new Map();
  for (const [at, entry] of only(found, "approval")) {
    const { statement, certificate } = entry.body.approval;
    if (at < index && statement.subject.kind === "release" && statement.subject.digest === found.statement) last.set(certificate, statement.decision);
  }
  for (const certificate of body.approvals) {
    if (last.get(certificate) !== "approve") throw new Error(`entry ${index} counts an approval that ${certificate} did not sign`);
  }
  if (!body.approvals.length) throw new Error(`entry ${index} counts no approval`);
  found.certified = index;
  found.by = body.approvals.map((digest) => {
    const { name, role, organisation } = found.certificates.get(digest);
    return { name, role, organisation };
  });
  const roles = {
    consortium_admin: _("consortium admin"), privacy_officer: _("privacy officer"),
    release_manager: _("release manager"), authority: _("authority"),
  };
  return ["passed", found.by.map(({ role, organisation }) => `${roles[role] ?? role}, ${organisation}`).join("; ")];
}

async function standing(found, _) {
  const withdrawn = only(found, "release.withdrawn").find(([, entry]) => entry.body.release === found.name);
  if (withdrawn) throw new Error(`${found.name} was withdrawn in entry ${withdrawn[0]}; it must not be used`);
  const superseded = only(found, "release.superseded").find(([, entry]) => entry.body.release === found.name);
  if (superseded) return ["attention", _("superseded by %(by)s in entry %(entry)s", { by: superseded[1].body.by, entry: superseded[0] })];
  return ["passed", _("certified in entry %(entry)s, not withdrawn up to entry %(last)s", { entry: found.certified, last: found.tree.size - 1 })];
}

async function witnesses(found, _) {
  const enrolled = new Map(only(found, "witness.enrolled").map(([, entry]) => [entry.body.enrolment.statement.organisation, entry.body.enrolment.statement.vkey]));
  const names = [];
  for (const vkey of enrolled.values()) {
    const key = await parseVerifierKey(vkey);
    if (await verifyCosignature(found.note, key) !== null) names.push(key.name);
  }
  const words = _("%(count)s of %(all)s enrolled witnesses cosigned this tree", { count: names.length, all: enrolled.size });
  return [names.length ? "passed" : "attention", words];
}
