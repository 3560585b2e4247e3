/** A server that speaks SSH and SFTP and does what a test says: over a file in memory, with each answer to be bent. */
import { generateKeyPairSync } from "node:crypto";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import ssh2, { type ServerChannel, type SFTPWrapper } from "ssh2";
import { fingerprintOf } from "../../core/net.js";

const { OPEN_MODE, STATUS_CODE } = ssh2.utils.sftp;
export { STATUS_CODE };

/** What a test bends: each may answer by itself (true), or leave it to the server. */
export interface Bent {
  /** The size that is told of a file; `true` size given. */
  size?(path: string, size: number): number;
  write?(sftp: SFTPWrapper, id: number, path: string, at: number, bytes: Buffer): boolean;
  read?(sftp: SFTPWrapper, id: number, at: number, length: number): boolean;
  list?(sftp: SFTPWrapper, id: number): boolean;
  look?(sftp: SFTPWrapper, id: number, path: string): boolean;
  close?(sftp: SFTPWrapper, id: number, path: string): boolean;
  /** Of each command; absent: there are none. */
  shell?(channel: ServerChannel): void;
}

export interface Scripted {
  readonly port: number;
  readonly hostKey: string;
  readonly files: Map<string, Buffer>;
  close(): Promise<void>;
}

/** Of a server; `hostKey`: its fingerprint, as it is configured. */
export function hostKeys(): { readonly privateKey: string; readonly hostKey: string } {
  // ssh2's own generator makes a key that ssh2 cannot parse three times in a thousand.
  const { privateKey } = generateKeyPairSync("ec", {
    namedCurve: "P-256",
    privateKeyEncoding: { type: "sec1", format: "pem" },
    publicKeyEncoding: { type: "spki", format: "pem" },
  });
  const parsed = ssh2.utils.parseKey(privateKey);
  if (parsed instanceof Error) throw parsed;
  return { privateKey, hostKey: fingerprintOf(parsed.getPublicSSH()) };
}

/** Any user and password is let in; there are no extensions. */
export async function scripted(bent: Bent): Promise<Scripted> {
  const files = new Map<string, Buffer>();
  const { privateKey, hostKey } = hostKeys();
  const clients = new Set<ssh2.Connection>();
  const server = new ssh2.Server({ hostKeys: [privateKey] }, (client) => {
    clients.add(client);
    client.on("error", () => undefined);
    client.on("authentication", (it) => (it.method === "password" ? it.accept() : it.reject(["password"])));
    client.on("session", (accept) => {
      const session = accept();
      session.on("exec", (accept, reject) => {
        if (bent.shell === undefined) reject();
        else bent.shell(accept());
      });
      session.on("sftp", (start) => serve(start(), files, bent));
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    hostKey,
    files,
    close: async () => {
      for (const client of clients) client.end();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

function serve(sftp: SFTPWrapper, files: Map<string, Buffer>, bent: Bent): void {
  const told = (path: string, size: number) => bent.size?.(path, size) ?? size;
  const attributes = (path: string) => {
    const file = files.get(path);
    if (file === undefined) return undefined;
    return { mode: 0o100644, uid: 0, gid: 0, size: told(path, file.length), atime: 1_700_000_000, mtime: 1_700_000_000 };
  };
  const look = (id: number, path: string): void => {
    if (bent.look?.(sftp, id, path) === true) return;
    const found = path === "/" ? { mode: 0o040755, uid: 0, gid: 0, size: 0, atime: 0, mtime: 0 } : attributes(path);
    if (found === undefined) sftp.status(id, STATUS_CODE.NO_SUCH_FILE);
    else sftp.attrs(id, found);
  };
  const listed = new Set<string>();
  sftp.on("REALPATH", (id) => sftp.name(id, [{ filename: "/", longname: "/", attrs: {} as never }]));
  sftp.on("STAT", look);
  sftp.on("LSTAT", look);
  sftp.on("FSTAT", (id, handle) => look(id, handle.toString()));
  sftp.on("SETSTAT", (id) => sftp.status(id, STATUS_CODE.OK));
  sftp.on("FSETSTAT", (id) => sftp.status(id, STATUS_CODE.OK));
  sftp.on("OPEN", (id, path, flags) => {
    if ((flags & OPEN_MODE.TRUNC) !== 0) files.set(path, Buffer.alloc(0));
    if (!files.has(path)) sftp.status(id, STATUS_CODE.NO_SUCH_FILE);
    else sftp.handle(id, Buffer.from(path));
  });
  sftp.on("CLOSE", (id, handle) => {
    if (bent.close?.(sftp, id, handle.toString()) !== true) sftp.status(id, STATUS_CODE.OK);
  });
  sftp.on("WRITE", (id, handle, at, bytes) => {
    const path = handle.toString();
    if (bent.write?.(sftp, id, path, at, bytes) === true) return;
    const before = files.get(path) ?? Buffer.alloc(0);
    const after = Buffer.alloc(Math.max(before.length, at + bytes.length));
    before.copy(after);
    bytes.copy(after, at);
    files.set(path, after);
    sftp.status(id, STATUS_CODE.OK);
  });
  sftp.on("READ", (id, handle, at, length) => {
    if (bent.read?.(sftp, id, at, length) === true) return;
    const part = (files.get(handle.toString()) ?? Buffer.alloc(0)).subarray(at, at + length);
    if (part.length === 0) sftp.status(id, STATUS_CODE.EOF);
    else sftp.data(id, part);
  });
  sftp.on("OPENDIR", (id) => sftp.handle(id, Buffer.from(`d${id}`)));
  sftp.on("READDIR", (id, handle) => {
    if (bent.list?.(sftp, id) === true) return;
    if (listed.has(handle.toString())) {
      sftp.status(id, STATUS_CODE.EOF);
      return;
    }
    listed.add(handle.toString());
    sftp.name(
      id,
      [...files.keys()].map((path) => ({ filename: path.slice(1), longname: path, attrs: attributes(path) as never })),
    );
  });
  sftp.on("REMOVE", (id, path) => sftp.status(id, files.delete(path) ? STATUS_CODE.OK : STATUS_CODE.NO_SUCH_FILE));
  sftp.on("MKDIR", (id) => sftp.status(id, STATUS_CODE.OK));
  sftp.on("RENAME", (id, from, to) => {
    const file = files.get(from);
    if (file === undefined) {
      sftp.status(id, STATUS_CODE.NO_SUCH_FILE);
      return;
    }
    files.delete(from);
    files.set(to, file);
    sftp.status(id, STATUS_CODE.OK);
  });
}
