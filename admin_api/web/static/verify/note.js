// Signed notes, checkpoints and cosignatures, checked with WebCrypto (Ed25519).
// Source: C2SP signed-note, tlog-checkpoint, tlog-cosignature.

const DASH = "— ";
const utf8 = new TextEncoder();

export function fromBase64(text) {
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(text)) throw new Error("not base64");
  const binary = atob(text);
  if (btoa(binary) !== text) throw new Error("not the one spelling of its base64");
  return Uint8Array.from(binary, (character) => character.charCodeAt(0));
}

export const toHex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

// A verifier key `name+id+base64(type || key)`: {name, id, type, key}. The id must be the key's own.
export async function parseVerifierKey(text) {
  const [name, id, ...rest] = text.split("+");
  const encoded = fromBase64(rest.join("+"));
  if (!name || encoded.length !== 33) throw new Error(`not a verifier key: ${text}`);
  const digest = await crypto.subtle.digest("SHA-256", concatenated(utf8.encode(`${name}\n`), encoded));
  if (toHex(new Uint8Array(digest).slice(0, 4)) !== id) throw new Error(`the key id of ${name} does not fit its key`);
  return { name, id, type: encoded[0], key: encoded.slice(1) };
}

// {text, signatures: [{name, id, payload}]}; nothing is verified yet.
export function parseNote(note) {
  const split = note.lastIndexOf("\n\n");
  if (split < 0 || !note.endsWith("\n")) throw new Error("not a signed note");
  const text = note.slice(0, split + 1);
  const signatures = note.slice(split + 2, -1).split("\n").map((line) => {
    const at = line.lastIndexOf(" ");
    if (!line.startsWith(DASH) || at <= DASH.length) throw new Error("not a signature line");
    const payload = fromBase64(line.slice(at + 1));
    if (payload.length <= 4) throw new Error("a signature line is too short");
    return { name: line.slice(DASH.length, at), id: toHex(payload.slice(0, 4)), payload: payload.slice(4) };
  });
  return { text, signatures };
}

// {origin, size, root} of a checkpoint's text.
export function parseCheckpoint(text) {
  const lines = text.split("\n");
  if (lines.length !== 4 || !/^(0|[1-9][0-9]{0,15})$/.test(lines[1])) throw new Error("not a checkpoint");
  const root = fromBase64(lines[2]);
  if (root.length !== 32) throw new Error("the checkpoint's root is not a SHA-256");
  return { origin: lines[0], size: Number(lines[1]), root };
}

// The note's text; throws unless the log's key signed it.
export async function verifyNote(note, key) {
  const parsed = parseNote(note);
  const line = parsed.signatures.find((each) => each.name === key.name && each.id === key.id);
  if (!line) throw new Error(`not signed by ${key.name}`);
  await verifyEd25519(key.key, line.payload, utf8.encode(parsed.text), key.name);
  return parsed.text;
}

// Throws unless the log's key signed the note's text and the checkpoint is of the key's own log.
export async function verifyCheckpoint(note, key) {
  const checkpoint = parseCheckpoint(await verifyNote(note, key));
  if (checkpoint.origin !== key.name) throw new Error(`the checkpoint is of ${checkpoint.origin}, not of ${key.name}`);
  return checkpoint;
}

// When the witness cosigned (a Date), or null when it did not; throws for a wrong signature in its name.
export async function verifyCosignature(note, key) {
  const parsed = parseNote(note);
  const line = parsed.signatures.find((each) => each.name === key.name && each.id === key.id);
  if (!line) return null;
  if (line.payload.length !== 72) throw new Error(`the cosignature of ${key.name} has another length`);
  const seconds = new DataView(line.payload.buffer, line.payload.byteOffset).getBigUint64(0);
  const said = utf8.encode(`cosignature/v1\ntime ${seconds}\n${parsed.text}`);
  await verifyEd25519(key.key, line.payload.slice(8), said, key.name);
  return new Date(Number(seconds) * 1000);
}

async function verifyEd25519(raw, signature, data, name) {
  const key = await crypto.subtle.importKey("raw", raw, { name: "Ed25519" }, false, ["verify"]);
  if (!(await crypto.subtle.verify({ name: "Ed25519" }, key, signature, data))) {
    throw new Error(`the signature of ${name} does not fit`);
  }
}

function concatenated(a, b) {
  const all = new Uint8Array(a.length + b.length);
  all.set(a);
  all.set(b, a.length);
  return all;
}
