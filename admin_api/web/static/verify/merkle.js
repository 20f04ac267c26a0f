// RFC 6962 trees, checked with WebCrypto: that an entry is in a tree, and that a tree continues another.
// Hashes are Uint8Array of 32 bytes; sizes and indices are safe integers. Every function throws an Error that says
// what does not hold. Source: RFC 6962 section 2.1, RFC 9162 sections 2.1.3.2 and 2.1.4.2.

const half = (n) => Math.floor(n / 2);
const odd = (n) => n % 2 === 1;

export async function sha256(...parts) {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const all = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return new Uint8Array(await crypto.subtle.digest("SHA-256", all));
}

export const leafHash = (entry) => sha256(Uint8Array.of(0), entry);
const nodeHash = (left, right) => sha256(Uint8Array.of(1), left, right);

export function same(a, b) {
  return a.length === b.length && a.every((value, index) => value === b[index]);
}

function checkSizes(...values) {
  for (const value of values) {
    if (!Number.isSafeInteger(value) || value < 0) throw new Error(`not a size or index: ${value}`);
  }
}

// Throws unless `leaf` is leaf number `index` of the tree of `size` leaves with root `root`.
export async function verifyInclusion(leaf, index, size, proof, root) {
  checkSizes(index, size);
  if (index >= size) throw new Error(`entry ${index} is not in a tree of ${size} entries`);
  let position = index;
  let last = size - 1;
  let hash = leaf;
  for (const sibling of proof) {
    if (last === 0) throw new Error("the proof is longer than the tree is high");
    if (odd(position) || position === last) {
      hash = await nodeHash(sibling, hash);
      while (!odd(position) && position !== 0) {
        position = half(position);
        last = half(last);
      }
    } else {
      hash = await nodeHash(hash, sibling);
    }
    position = half(position);
    last = half(last);
  }
  if (last !== 0) throw new Error("the proof is shorter than the tree is high");
  if (!same(hash, root)) throw new Error("the entry and its proof do not give the signed root");
}

// Throws unless the tree of `size2` leaves with root `root2` continues the one of `size1` with root `root1`.
export async function verifyConsistency(size1, root1, size2, root2, proof) {
  checkSizes(size1, size2);
  if (size1 > size2) throw new Error(`the log shrank from ${size1} to ${size2} entries`);
  if (size1 === size2) {
    if (proof.length || !same(root1, root2)) throw new Error("two roots were signed for one size");
    return;
  }
  if (size1 === 0) {
    if (proof.length) throw new Error("a tree without entries is continued by every tree, without proof");
    return;
  }
  let power = size1;
  while (!odd(power)) power = half(power);
  const path = power === 1 ? [root1, ...proof] : [...proof];
  if (path.length === 0) throw new Error("the proof of continuation is empty");
  let position = size1 - 1;
  let last = size2 - 1;
  while (odd(position)) {
    position = half(position);
    last = half(last);
  }
  let first = path[0];
  let second = path[0];
  for (const hash of path.slice(1)) {
    if (last === 0) throw new Error("the proof of continuation is too long");
    if (odd(position) || position === last) {
      first = await nodeHash(hash, first);
      second = await nodeHash(hash, second);
      while (!odd(position) && position !== 0) {
        position = half(position);
        last = half(last);
      }
    } else {
      second = await nodeHash(second, hash);
    }
    position = half(position);
    last = half(last);
  }
  if (last !== 0) throw new Error("the proof of continuation is too short");
  if (!same(first, root1)) throw new Error("the proof does not start from the tree that was seen before");
  if (!same(second, root2)) throw new Error("the log does not continue the tree that was seen before");
}
