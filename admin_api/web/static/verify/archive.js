// The container of a dossier: a zip file with exactly one possible spelling, so that no two programs can read two
// different things in it. Members are stored as they are, sorted by name, with a fixed date and nothing else.
// `unpack` says what each byte has to be and refuses a file in which one of them is something else.
// Source: PKWARE APPNOTE 6.3, sections 4.3.7, 4.3.12 and 4.3.16; the fixed form is the dossier's own.

const LOCAL = 0x04034b50, CENTRAL = 0x02014b50, END = 0x06054b50;
const LOCAL_SIZE = 30, CENTRAL_SIZE = 46, END_SIZE = 22;
const VERSION = 10, DATE = 0x21;
const MOST_MEMBERS = 30000, LONGEST_NAME = 128;
const NAME = /^[a-z0-9][a-z0-9._-]*(\/[a-z0-9][a-z0-9._-]*)*$/;

const TABLE = Uint32Array.from({ length: 256 }, (_, value) => {
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

function crc32(data) {
  let crc = 0xffffffff;
  for (let at = 0; at < data.length; at++) crc = TABLE[(crc ^ data[at]) & 0xff] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

// Throws unless the bytes at `at` are these numbers, little endian; returns where they end.
function expect(view, at, ...fields) {
  for (const [size, value] of fields) {
    if (at + size > view.byteLength) throw new Error(`the file ends at byte ${view.byteLength}, inside a header`);
    const got = size === 2 ? view.getUint16(at, true) : view.getUint32(at, true);
    if (got !== value) throw new Error(`byte ${at} is not what a dossier has there: changed, or packed by another program`);
    at += size;
  }
  return at;
}

const half = (value) => [2, value];
const whole = (value) => [4, value];

// The members by name, in the file's order. Nothing is copied.
export function unpack(data) {
  if (data.length < END_SIZE) throw new Error("the file is too short for a dossier");
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const tail = data.length - END_SIZE;
  if (view.getUint32(tail, true) !== END) throw new Error("the file does not end as a dossier does: cut off, extended, or another file");
  const count = view.getUint16(tail + 8, true), size = view.getUint32(tail + 12, true), start = view.getUint32(tail + 16, true);
  expect(view, tail, whole(END), half(0), half(0), half(count), half(count), whole(size), whole(start), half(0));
  if (start + size !== tail) throw new Error("the list of members is not where the file says");
  if (count > MOST_MEMBERS) throw new Error(`the file says that it has ${count} members`);
  const members = new Map();
  let listed = start, stored = 0, before = "";
  for (let number = 0; number < count; number++) {
    if (listed + CENTRAL_SIZE > tail) throw new Error("the list of members is cut off");
    const length = view.getUint32(listed + 24, true), nameSize = view.getUint16(listed + 28, true);
    const name = String.fromCharCode(...data.subarray(listed + CENTRAL_SIZE, Math.min(listed + CENTRAL_SIZE + nameSize, tail)));
    if (name.length !== nameSize || nameSize > LONGEST_NAME || !NAME.test(name)) throw new Error(`not the name of a member: ${JSON.stringify(name.slice(0, 60))}`);
    if (name <= before) throw new Error(`${name} is listed twice or out of order`);
    const first = stored + LOCAL_SIZE + nameSize;
    if (first + length > start) throw new Error(`${name} reaches beyond the file`);
    const content = data.subarray(first, first + length);
    const common = [half(VERSION), half(0), half(0), half(0), half(DATE), whole(crc32(content)), whole(length), whole(length), half(nameSize), half(0)];
    const headed = expect(view, stored, whole(LOCAL), ...common);
    for (let at = 0; at < nameSize; at++) {
      if (data[headed + at] !== name.charCodeAt(at)) throw new Error(`${name} has another name before its content`);
    }
    expect(view, listed, whole(CENTRAL), half(VERSION), ...common, half(0), half(0), half(0), whole(0), whole(stored));
    members.set(name, content);
    before = name;
    stored = first + length;
    listed += CENTRAL_SIZE + nameSize;
  }
  if (stored !== start || listed !== tail) throw new Error("there are bytes between the members");
  return members;
}
