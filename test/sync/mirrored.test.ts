/** A mirror on real servers, kills and outages: `FILESYNC_TEST_SYNC_EDITS=10000` for the long form. */
import { test } from "node:test";
import { apache, password as davPassword, user as davUser } from "../conformance/dav-servers.js";
import { ownPlain, proftpd, vsftpd } from "../conformance/ftp-servers.js";
import { chrooted } from "../conformance/sftp-servers.js";
import { mirrored, type MirroredGiven } from "./mirrored.js";

const edits = Number(process.env["FILESYNC_TEST_SYNC_EDITS"] ?? 150);
const seed = Number(process.env["FILESYNC_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));

type Served = Pick<MirroredGiven, "device" | "dir" | "server"> & { readonly stop: () => Promise<void> };
interface Kind {
  readonly name: string;
  readonly skip?: string;
  start(): Promise<Served>;
}

const ftpKinds = [vsftpd, proftpd, ownPlain].map((kind) => ({
  ...kind,
  start: async () => {
    const server = await kind.start();
    const { dir, port, user, password, options } = server;
    const device = { type: "ftp", host: "127.0.0.1", port, user, password, ...options };
    return { device, dir, server, stop: () => server.stop() };
  },
}));
const kinds: readonly Kind[] = [
  {
    ...chrooted,
    start: async () => {
      const server = await chrooted.start();
      const device = { type: "sftp", host: "127.0.0.1", port: server.port, root: server.seen, ...server.options };
      return { device, dir: server.dir, server, stop: () => server.stop() };
    },
  },
  ...ftpKinds,
  {
    ...apache,
    start: async () => {
      const server = await apache.start();
      const device = { type: "webdav", url: server.url, user: davUser, password: davPassword, ...server.options };
      return { device, dir: server.dir, server, stop: () => server.stop() };
    },
  },
];

for (const kind of kinds)
  test(
    `what a mirror holds at ${kind.name} is what is here, whatever was done; seed ${seed}`,
    kind.skip === undefined ? {} : { skip: kind.skip },
    async (t) => {
      const { stop, ...given } = await kind.start();
      t.after(stop);
      t.diagnostic(JSON.stringify(await mirrored(t, { seed, edits, ...given })));
    },
  );
