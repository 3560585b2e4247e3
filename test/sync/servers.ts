/** Servers that a mirror or two-way route is tried on. */
import { chmodSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { apache, apacheOfDebian, type DavServerKind, password as davPassword, user as davUser } from "../conformance/dav-servers.js";
import { type FtpServerKind, ownPlain, proftpd, vsftpd } from "../conformance/ftp-servers.js";
import { chrooted } from "../conformance/sftp-servers.js";

export interface Served {
  /** Of the device at the server, beside "settle" and "interval". */
  readonly device: Readonly<Record<string, unknown>>;
  /** The served directory, as this machine names it. */
  readonly dir: string;
  readonly server: { unplug?(): Promise<void>; replug?(): Promise<void> };
  readonly stop: () => Promise<void>;
}

/** What a route brings into: everybody may write there, whoever the server is. */
export function sharedIn(dir: string): string {
  const made = join(dir, "shared");
  mkdirSync(made);
  chmodSync(made, 0o777);
  return made;
}

export interface Kind {
  readonly name: string;
  readonly skip?: string;
  /** Who gives a name that something has is refused, whoever that is. */
  readonly exclusive?: true;
  start(): Promise<Served>;
}

const ftpKind = (kind: FtpServerKind): Kind => ({
  ...kind,
  start: async () => {
    const server = await kind.start();
    const { dir, port, user, password, options } = server;
    const device = { type: "ftp", host: "127.0.0.1", port, user, password, ...options };
    return { device, dir, server, stop: () => server.stop() };
  },
});

const davKind = (kind: DavServerKind): Kind => ({
  ...kind,
  start: async () => {
    const server = await kind.start();
    const device = { type: "webdav", url: server.url, user: davUser, password: davPassword, ...server.options };
    return { device, dir: server.dir, server, stop: () => server.stop() };
  },
});

/** It takes no names that begin with ".ht", and does not show them. */
export const refusing = davKind(apacheOfDebian);

/** It lists no times. */
export const untimed = ftpKind(vsftpd);

/** It allows nothing but SFTP. */
export const openssh: Kind = {
  ...chrooted,
  exclusive: true,
  start: async () => {
    const server = await chrooted.start();
    const device = { type: "sftp", host: "127.0.0.1", port: server.port, root: server.seen, ...server.options };
    return { device, dir: server.dir, server, stop: () => server.stop() };
  },
};

export const kinds: readonly Kind[] = [openssh, untimed, ...[proftpd, ownPlain].map(ftpKind), davKind(apache)];
