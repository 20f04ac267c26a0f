// X.509 certificates, as far as a signature needs them: who issued one, whose key it holds, for which site a passkey is.
// Not looked at here: validity in time, purposes, revocation. Source: RFC 5280 section 4.1, X.690 (DER).

const RSA = "2a864886f70d010101", EC = "2a8648ce3d0201", ED25519 = "2b6570", P256 = "2a8648ce3d030107";
const RSA_SHA256 = "2a864886f70d01010b", ECDSA_SHA256 = "2a8648ce3d040302";
const COMMON_NAME = "550403", ORGANISATION = "55040a", UNSTRUCTURED_NAME = "2a864886f70d010902", ALTERNATIVE_NAME = "551d11";
const SEQUENCE = 0x30, BIT_STRING = 0x03, EXTENSIONS = 0xa3, URI = 0x86;
const PASSKEY = "zegel:passkey?rp=";

const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
const text = (bytes) => new TextDecoder("utf-8", { fatal: true }).decode(bytes);

// The element at the beginning of `der`: {tag, content, whole, rest}.
function element(der) {
  if (der.length < 2) throw new Error("a certificate is cut off");
  let at = 2, length = der[1];
  if (length > 127) {
    const size = length & 127;
    if (size < 1 || size > 3 || der.length < 2 + size) throw new Error("a certificate has a length that DER does not allow");
    length = 0;
    for (let octet = 0; octet < size; octet++) length = length * 256 + der[at++];
  }
  if (at + length > der.length) throw new Error("a certificate is cut off");
  return { tag: der[0], content: der.subarray(at, at + length), whole: der.subarray(0, at + length), rest: der.subarray(at + length) };
}

function children(der) {
  const found = [];
  for (let rest = der; rest.length;) {
    const next = element(rest);
    found.push(next);
    rest = next.rest;
  }
  return found;
}

function bits(part) {
  if (part.tag !== BIT_STRING || part.content[0] !== 0) throw new Error("a certificate has no whole bit string where one belongs");
  return part.content.subarray(1);
}

// The DER of the one certificate in a PEM.
export function derOf(pem) {
  const match = /^-----BEGIN CERTIFICATE-----\n([A-Za-z0-9+/=\n]+)-----END CERTIFICATE-----\n$/.exec(pem);
  if (!match) throw new Error("not one certificate in PEM");
  return Uint8Array.from(atob(match[1].replaceAll("\n", "")), (character) => character.charCodeAt(0));
}

// {signed, algorithm, signature, issuer, subject, key: SPKI, name, organisation, role, relyingParty or null}.
export function parseCertificate(der) {
  const outer = element(der);
  if (outer.tag !== SEQUENCE || outer.rest.length) throw new Error("not one certificate");
  const [body, algorithm, signature] = children(outer.content);
  const fields = children(body.content);
  if (fields[0].tag !== 0xa0) throw new Error("not a certificate of version 3");
  const [, , , issuer, , subject, key] = fields;
  const named = new Map(children(subject.content).flatMap((set) => children(set.content)).map((pair) => {
    const [type, value] = children(pair.content);
    return [hex(type.content), text(value.content)];
  }));
  return {
    signed: body.whole,
    algorithm: hex(element(algorithm.content).content),
    signature: bits(signature),
    issuer: issuer.whole,
    subject: subject.whole,
    key: key.whole,
    name: named.get(COMMON_NAME) ?? "",
    organisation: named.get(ORGANISATION) ?? "",
    role: named.get(UNSTRUCTURED_NAME) ?? "",
    relyingParty: relyingPartyOf(fields.find((field) => field.tag === EXTENSIONS)),
  };
}

function relyingPartyOf(extensions) {
  if (!extensions) return null;
  for (const extension of children(element(extensions.content).content)) {
    const parts = children(extension.content);
    if (hex(parts[0].content) !== ALTERNATIVE_NAME) continue;
    for (const name of children(element(parts.at(-1).content).content)) {
      if (name.tag === URI && text(name.content).startsWith(PASSKEY)) return text(name.content).slice(PASSKEY.length);
    }
  }
  return null;
}

// Throws unless the root's key signed the certificate.
export async function verifyIssued(certificate, root, what) {
  if (hex(certificate.issuer) !== hex(root.subject)) throw new Error(`${what} was issued by somebody else than the root`);
  const [algorithm] = children(element(root.key).content);
  const expected = hex(element(algorithm.content).content) === EC ? ECDSA_SHA256 : RSA_SHA256;
  if (certificate.algorithm !== expected) throw new Error(`${what} is signed by a method that this page does not know`);
  const way = expected === RSA_SHA256 ? { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" } : { name: "ECDSA", hash: "SHA-256", namedCurve: "P-256" };
  const signature = expected === RSA_SHA256 ? certificate.signature : rawOf(certificate.signature);
  const key = await crypto.subtle.importKey("spki", root.key, way, false, ["verify"]);
  if (!(await crypto.subtle.verify(way, key, signature, certificate.signed))) throw new Error(`the root did not sign ${what}`);
}

// Throws unless the key (SPKI) signed the data, in the way that the kind of key signs here.
export async function verifyBytes(spki, signature, data, what) {
  const [algorithm] = children(element(spki).content);
  const [type, curve] = children(algorithm.content);
  let way;
  switch (hex(type.content)) {
    case RSA:
      way = { name: "RSA-PSS", hash: "SHA-256", saltLength: 32 };
      break;
    case EC:
      if (hex(curve.content) !== P256) throw new Error(`the key of ${what} is on another curve than P-256`);
      way = { name: "ECDSA", hash: "SHA-256", namedCurve: "P-256" };
      signature = rawOf(signature);
      break;
    case ED25519:
      way = { name: "Ed25519" };
      break;
    default:
      throw new Error(`the key of ${what} is of a kind that this page does not know`);
  }
  const key = await crypto.subtle.importKey("spki", spki, way, false, ["verify"]);
  if (!(await crypto.subtle.verify(way, key, signature, data))) throw new Error(`the signature of ${what} does not fit`);
}

// An ECDSA signature over P-256 as WebCrypto wants it: r and s, 32 bytes each.
function rawOf(der) {
  const numbers = children(element(der).content);
  const raw = new Uint8Array(64);
  if (numbers.length !== 2) throw new Error("not a signature of P-256");
  numbers.forEach(({ content }, index) => {
    let digits = content;
    while (digits.length > 1 && digits[0] === 0) digits = digits.subarray(1);
    if (digits.length > 32) throw new Error("not a signature of P-256");
    raw.set(digits, 32 * (index + 1) - digits.length);
  });
  return raw;
}
