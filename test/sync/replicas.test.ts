/** Three daemons and a real server, kills and outages: `FILESYNC_TEST_SYNC_EDITS=10000` for the long form. */
import { test } from "node:test";
import { replicas } from "./replicas.js";
import { kinds } from "./servers.js";

const edits = Number(process.env["FILESYNC_TEST_SYNC_EDITS"] ?? 160);
const seed = Number(process.env["FILESYNC_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));

for (const kind of kinds)
  test(
    `three directories by ${kind.name} become the same, and nothing is lost; seed ${seed}`,
    kind.skip === undefined ? {} : { skip: kind.skip },
    async (t) => {
      const { stop, ...given } = await kind.start();
      t.after(stop);
      t.diagnostic(JSON.stringify(await replicas(t, { seed, edits, peopleWrite: kind.exclusive === true, ...given })));
    },
  );
