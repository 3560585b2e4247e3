/** A mirror on real servers, kills and outages: `FILESYNC_TEST_SYNC_EDITS=10000` for the long form. */
import { test } from "node:test";
import { mirrored } from "./mirrored.js";
import { kinds } from "./servers.js";

const edits = Number(process.env["FILESYNC_TEST_SYNC_EDITS"] ?? 100);
const seed = Number(process.env["FILESYNC_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));

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
