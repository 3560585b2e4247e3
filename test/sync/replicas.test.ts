/** Three daemons and a real server, kills and outages: `FILESYNC_TEST_SYNC_EDITS=10000` for the long form. */
import { test } from "node:test";
import { chrooted } from "../conformance/sftp-servers.js";
import { replicas } from "./replicas.js";

const edits = Number(process.env["FILESYNC_TEST_SYNC_EDITS"] ?? 250);
const seed = Number(process.env["FILESYNC_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));

test(
  `three directories by OpenSSH become the same, and nothing is lost; seed ${seed}`,
  chrooted.skip === undefined ? {} : { skip: chrooted.skip },
  async (t) => {
    const server = await chrooted.start();
    t.after(() => server.stop());
    const device = { type: "sftp", host: "127.0.0.1", port: server.port, root: server.seen, ...server.options };
    t.diagnostic(JSON.stringify(await replicas(t, { seed, edits, device, dir: server.dir, server })));
  },
);
