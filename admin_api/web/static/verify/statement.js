// Signed statements: one form for what is signed (RFC 8785), and the signatures of keys in files and of passkeys.
// Source: RFC 8785; WebAuthn Level 3 sections 5.8.1, 6.1 and 7.2.

import { verifyBytes } from "./certificate.js";
import { same, sha256 } from "./merkle.js";
import { fromBase64, toHex } from "./note.js";

const PREFIX = "zegel statement v1\n";
const PRESENT = 0x01, VERIFIED = 0x04;
const utf8 = new TextEncoder();

// RFC 8785: keys sorted by their UTF-16 units; numbers and texts as JavaScript writes them.
export function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value !== null && typeof value === "object") {
    return `{${Object.keys(value).sort().map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`).join(",")}}`;
  }
  return JSON.stringify(value);
}

// The value that these bytes spell; throws when another spelling would give the same value.
export function parseCanonical(bytes, what) {
  const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  const value = JSON.parse(text);
  if (canonical(value) !== text) throw new Error(`${what} is not spelled as it was signed`);
  return value;
}

export const digestOf = async (bytes) => `sha256:${toHex(await sha256(bytes))}`;

// Every signed statement inside a value.
export function* signedIn(value) {
  if (value === null || typeof value !== "object") return;
  if (!Array.isArray(value) && value.statement && typeof value.statement === "object" && value.certificate && value.signature) {
    yield value;
    return;
  }
  for (const inner of Object.values(value)) yield* signedIn(inner);
}

// Throws unless the certificate's key signed the statement.
export async function verifySigned(signed, certificate) {
  const what = `${certificate.name} (${signed.statement.type})`;
  const data = utf8.encode(PREFIX + canonical(signed.statement));
  const signature = fromBase64(signed.signature);
  if ((certificate.relyingParty === null) !== (signed.passkey === undefined)) {
    throw new Error(`${what}: a passkey's certificate signs by passkey, and no other does`);
  }
  if (signed.passkey === undefined) return verifyBytes(certificate.key, signature, data, what);
  const said = fromBase64(signed.passkey.client_data);
  const authenticator = fromBase64(signed.passkey.authenticator_data);
  await checkPasskey(said, authenticator, certificate.relyingParty, await sha256(data), what);
  const joined = new Uint8Array([...authenticator, ...await sha256(said)]);
  return verifyBytes(certificate.key, signature, joined, what);
}

async function checkPasskey(client, authenticator, relyingParty, challenge, what) {
  const said = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(client));
  const asked = btoa(String.fromCharCode(...challenge)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  if (said.type !== "webauthn.get" || said.challenge !== asked) throw new Error(`${what}: the passkey signed something else`);
  const { protocol, hostname } = new URL(said.origin);
  const ours = hostname === relyingParty || hostname.endsWith(`.${relyingParty}`);
  if (!ours || (protocol !== "https:" && hostname !== "localhost") || said.crossOrigin || said.topOrigin !== undefined) {
    throw new Error(`${what}: the passkey was used on ${said.origin}`);
  }
  if (authenticator.length < 37 || !same(authenticator.subarray(0, 32), await sha256(utf8.encode(relyingParty)))) {
    throw new Error(`${what}: the passkey is another site's`);
  }
  if ((authenticator[32] & PRESENT) === 0 || (authenticator[32] & VERIFIED) === 0) {
    throw new Error(`${what}: the passkey did not verify its holder`);
  }
}
