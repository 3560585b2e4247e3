/**
 * Paths as they go over the line. Control and listing text is handled as bytes (one character per byte), so names of any encoding come
 * back as they were listed.
 *
 * A name that stands for bytes which are no UTF-8 is sent as those bytes; any other is sent as the text that it has in core, so that control
 * characters are never sent ("a‛0Ab" stays that), and what is listed as such a text comes back as it. Our own server turns it back.
 */
import { isUtf8 } from "node:buffer";
import { Fault } from "../../core/errors.js";
import { bytesFromName, isSafePath, nameFromBytes } from "../../core/names.js";

/** Text as one character per byte of its UTF-8. */
export function bytesAsText(text: string): string {
  return Buffer.from(text).toString("latin1");
}

/** What the server said, for a person. */
export function readable(wire: string): string {
  const text = nameFromBytes(
    Buffer.from(
      wire
        .slice(0, 2000)
        .trim()
        .replace(/\s*\n\s*/g, " "),
      "latin1",
    ),
  );
  // A megabyte of words helps nobody.
  return text.length > 300 ? `${text.slice(0, 300)}…` : text;
}

/** A path of core below `root` (as text of bytes, without "/" at its end). Throws "rejected" for a path that leaves the root. */
export function wirePath(root: string, path: string): string {
  if (path === "") return root === "" ? "/" : root;
  if (!isSafePath(path)) throw new Fault("rejected", `the path ${JSON.stringify(path)} cannot be used on a server`);
  return `${root}/${path.split("/").map(wireName).join("/")}`;
}

function wireName(name: string): string {
  const bytes = bytesFromName(name);
  if (!isUtf8(bytes) && !bytes.some(isControl) && !bytes.includes(0x2f)) return bytes.toString("latin1");
  if (/\p{Cc}/u.test(name)) throw new Fault("rejected", `the name ${JSON.stringify(name)} holds control characters`);
  return bytesAsText(name);
}

/** A name from a listing, as core writes it. */
export function nameFromWire(wire: string): string {
  const bytes = Buffer.from(wire, "latin1");
  return isUtf8(bytes) && !holdsControls(wire) ? bytes.toString() : nameFromBytes(bytes);
}

/** Whether a listed name holds what is never sent: it can be asked for by another name alone. */
export function holdsControls(wire: string): boolean {
  const bytes = Buffer.from(wire, "latin1");
  return isUtf8(bytes) ? /\p{Cc}/u.test(bytes.toString()) : bytes.some(isControl);
}

function isControl(byte: number): boolean {
  return byte < 0x20 || byte === 0x7f;
}
