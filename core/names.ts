/**
 * Names of files as printable text that can be turned back into bytes.
 *
 * A name on a disk is bytes: it may be no UTF-8, and may hold newlines. In a path of core each such byte is written as U+201B (‛) and two
 * upper-case hexadecimal digits, and ‛ itself twice (the way of rclone's encoder). So a path is always valid UTF-8 without control
 * characters: it can be stored, printed, and sent in a line of a protocol.
 */
const QUOTE = "\u201b";
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The text for a name given as bytes. */
export function nameFromBytes(bytes: Uint8Array): string {
  let text: string;
  try {
    text = utf8.decode(bytes);
  } catch {
    return fromBrokenBytes(bytes);
  }
  return quoteText(text);
}

/** The bytes for a name (or a path) given as text: the inverse of `nameFromBytes`. */
export function bytesFromName(name: string): Buffer {
  if (!name.includes(QUOTE)) return Buffer.from(name);
  const parts: Buffer[] = [];
  let plain = "";
  for (let i = 0; i < name.length; i++) {
    const rest = name.slice(i + 1, i + 3);
    if (name[i] !== QUOTE) plain += name.charAt(i);
    else if (name[i + 1] === QUOTE) {
      plain += QUOTE;
      i += 1;
    } else if (/^[0-9A-F]{2}$/.test(rest)) {
      parts.push(Buffer.from(plain), Buffer.from(rest, "hex"));
      plain = "";
      i += 2;
    } else plain += QUOTE;
  }
  parts.push(Buffer.from(plain));
  return Buffer.concat(parts);
}

/** Control characters as names have them: of a path that a person types, who may have the newline that a shell completes, or ‛0A as it is printed; of a text that is told. */
export function printable(text: string): string {
  return text.replace(/\p{Cc}/gu, quoteControl);
}

function quoteText(text: string): string {
  return text.replace(/[\p{Cc}\u201b]/gu, (c) => (c === QUOTE ? QUOTE + QUOTE : quoteControl(c)));
}

/** Those of Unicode (C1), too: a terminal takes U+009B for the beginning of an order. */
function quoteControl(c: string): string {
  return Array.from(Buffer.from(c), (byte) => QUOTE + hex(byte)).join("");
}

function fromBrokenBytes(bytes: Uint8Array): string {
  let text = "";
  for (let i = 0; i < bytes.length;) {
    const length = sequenceLength(bytes, i);
    if (length === 0) {
      text += QUOTE + hex(bytes[i] ?? 0);
      i += 1;
    } else {
      text += quoteText(utf8.decode(bytes.subarray(i, i + length)));
      i += length;
    }
  }
  return text;
}

/** Length of the valid UTF-8 sequence at `at`; 0 when there is none. */
function sequenceLength(bytes: Uint8Array, at: number): number {
  const first = bytes[at] ?? 0;
  const length = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
  if (length === 0 || at + length > bytes.length) return 0;
  try {
    utf8.decode(bytes.subarray(at, at + length));
    return length;
  } catch {
    return 0;
  }
}

function hex(byte: number): string {
  return byte.toString(16).toUpperCase().padStart(2, "0");
}

/** Whether a path is written as `nameFromBytes` writes it. A server whose names are text may list one that is not: on a disk that would be a file of another path. */
export function isAsWritten(path: string): boolean {
  return !path.includes(QUOTE) || nameFromBytes(bytesFromName(path)) === path;
}

/** True for a path that stays below its root: relative, no empty, "." or ".." part, no NUL. */
export function isSafePath(path: string): boolean {
  return path !== "" && !path.includes("\0") && path.split("/").every((part) => part !== "" && part !== "." && part !== "..");
}

/** `name` cut so that it takes at most `maxBytes` of UTF-8, never inside a character. */
export function cutName(name: string, maxBytes: number): string {
  if (Buffer.byteLength(name) <= maxBytes) return name;
  let cut = "";
  let bytes = 0;
  for (const c of name) {
    bytes += Buffer.byteLength(c);
    if (bytes > maxBytes) break;
    cut += c;
  }
  return cut;
}

/** Another name for content that may not take the first: `name~<8 hex of its digest>.ext`; with 16, where what grew has that. */
export function otherName(path: string, digest: string, digits: 8 | 16 = 8): string {
  const hex = digest.slice(digest.indexOf(":") + 1);
  return beforeExt(path, `~${hex.slice(0, digits)}`);
}

/** Whether the second is one that `otherName` gives to what may not take the first. */
export function isOtherNameOf(path: string, other: string): boolean {
  return [...other.matchAll(/~([0-9a-f]{16}|[0-9a-f]{8})(?=\.|$)/g)].some(
    ([, hex = ""]) => otherName(path, hex, hex.length === 16 ? 16 : 8) === other,
  );
}

/** "a/b-more.txt" of "a/b.txt" and "-more"; its last part at most 255 bytes. */
export function beforeExt(path: string, more: string): string {
  const [dir, name] = splitPath(path);
  const dot = name.lastIndexOf(".");
  const after = dot > 0 ? name.slice(dot) : "";
  // What leaves no room for a character before it is no extension.
  const ext = Buffer.byteLength(more + after) <= 251 ? after : "";
  const end = `${more}${ext}`;
  return `${dir}${cutName(name.slice(0, name.length - ext.length), 255 - Buffer.byteLength(end))}${end}`;
}

/** "a/" and "b.txt" of "a/b.txt". */
export function splitPath(path: string): [dir: string, name: string] {
  const at = path.lastIndexOf("/") + 1;
  return [path.slice(0, at), path.slice(at)];
}
