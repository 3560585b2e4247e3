/**
 * Paths of core as they stand in URLs, and back. Each name is percent-encoded by itself, so that no character of it means anything to a server.
 *
 * A name that stands for bytes which are no UTF-8 goes out as those bytes; any other as the text that it has in core: control characters are
 * never sent ("a‛0Ab" stays that).
 */
import { isUtf8 } from "node:buffer";
import { Fault } from "../../core/errors.js";
import { bytesFromName, isSafePath, nameFromBytes } from "../../core/names.js";

/** "a b/c" → "/a%20b/c"; "" → "". Throws "rejected" for a path that leaves its root. */
export function hrefOf(path: string): string {
  if (path === "") return "";
  if (!isSafePath(path)) throw new Fault("rejected", `the path ${JSON.stringify(path)} cannot be used on a server`);
  return path
    .split("/")
    .map((name) => `/${encoded(wireBytes(name))}`)
    .join("");
}

function wireBytes(name: string): Buffer {
  const bytes = bytesFromName(name);
  if (!isUtf8(bytes) && !bytes.some(isControl) && !bytes.includes(0x2f)) return bytes;
  if (/\p{Cc}/u.test(name)) throw new Fault("rejected", `the name ${JSON.stringify(name)} holds control characters`);
  return Buffer.from(name);
}

function isControl(byte: number): boolean {
  return byte < 0x20 || byte === 0x7f;
}

function encoded(bytes: Buffer): string {
  let text = "";
  for (const byte of bytes) {
    const c = String.fromCharCode(byte);
    text += /[A-Za-z0-9\-._~]/.test(c) ? c : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return text;
}

/** The names of an href, each as one character per byte; without host, query of its own or empty names. */
export function partsOf(href: string): string[] {
  const path = href.replace(/^https?:\/\/[^/]*/i, "");
  return path.split("/").flatMap((part) => (part === "" ? [] : [decoded(part)]));
}

function decoded(part: string): string {
  // What a server left unencoded is UTF-8, as the rest of its answer.
  const bytes = Buffer.from(part).toString("latin1");
  return bytes.replace(/%([0-9A-Fa-f]{2})/g, (_all, hex: string) => String.fromCharCode(parseInt(hex, 16)));
}

/** A name of `partsOf` as core writes it; undefined where it is none. */
export function nameOf(part: string): string | undefined {
  if (part === "." || part === ".." || part.includes("/")) return undefined;
  const bytes = Buffer.from(part, "latin1");
  const text = bytes.toString();
  return isUtf8(bytes) && !/\p{Cc}/u.test(text) ? text : nameFromBytes(bytes);
}

/** Whether what is listed as `part` can be asked for by the name that core has for it. */
export function canBeAskedFor(part: string, name: string): boolean {
  return wireBytes(name).equals(Buffer.from(part, "latin1"));
}
