/** The plugin "webdav" held to the contract on Apache's mod_dav. */
import { after } from "node:test";
import { davHarness } from "./dav-harness.js";
import { apache } from "./dav-servers.js";
import { sourceClauses } from "./source.js";
import { targetClauses } from "./target.js";

const promises = { exclusive: "directories", rmdirIsSafe: false } as const;
for (const harness of [
  davHarness({ kind: apache, promises }),
  davHarness({ kind: apache, promises, given: { verify: "readback" }, name: `${apache.name}, read back` }),
]) {
  targetClauses(harness.target);
  sourceClauses(harness.source);
  after(() => harness.stop());
}
