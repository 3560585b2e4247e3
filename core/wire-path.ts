/** Paths of core as bytes on the wire of servers that take names as bytes. A name goes as the bytes that it stands for, line ends too. */
import { posix } from "node:path";
import { Fault } from "./errors.js";
import { bytesFromName, isSafePath } from "./names.js";

/** What file systems take; a server says only "failure" to more. */
const mostNameBytes = 255;
const slash = Buffer.from("/");

/** A path of core below `root` (absolute). Throws "rejected" for a path that leaves the root, and for a name that cannot be given. */
export function wirePath(root: Buffer, path: string): Buffer {
  if (path === "") return root;
  if (!isSafePath(path)) throw new Fault("rejected", `the path ${JSON.stringify(path)} cannot be used on a server`);
  const parts: Buffer[] = root.equals(slash) ? [] : [root];
  for (const name of path.split("/")) {
    const bytes = bytesFromName(name);
    const text = bytes.toString("latin1");
    if (text === "" || text === "." || text === ".." || /[/\0]/.test(text))
      throw new Fault("rejected", `the name ${JSON.stringify(name)} cannot be used on a server`);
    if (bytes.length > mostNameBytes) throw new Fault("rejected", `the name ${JSON.stringify(name)} is longer than ${mostNameBytes} bytes`);
    parts.push(slash, bytes);
  }
  return Buffer.concat(parts);
}

/** The directory of an absolute path; "/" is its own. */
export function parentOf(path: Buffer): Buffer {
  return path.subarray(0, Math.max(1, path.lastIndexOf(0x2f)));
}

/** As `Plugin.addressOf`: "ssh://box@nas.local:22/srv". A root without a leading "/" is below the login directory ("~"). */
export function serverAddress(
  scheme: string,
  { host, port, user, root }: { host: string; port: number; user: string; root: string },
): string {
  const path = posix.normalize(root.startsWith("/") ? root : `/~/${root}`);
  return `${scheme}://${user}@${host.toLowerCase()}:${port}${path}`;
}
