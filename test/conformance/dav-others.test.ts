/** The plugin "webdav" held to the contract on servers that take only whole files. What one of them is known to do otherwise is named here. */
import { after } from "node:test";
import { davHarness } from "./dav-harness.js";
import { nginx, rclone } from "./dav-servers.js";
import { sourceClauses } from "./source.js";
import { targetClauses } from "./target.js";

const onNginx = davHarness({
  promises: { exclusive: "nothing", rmdirIsSafe: false },
  kind: nginx,
  known: {
    "a symbolic link is unreadable, and costs only itself": "nginx lists links as files, whatever it thinks of reading them",
    "tree: a link is neither entered, moved nor removed as what it leads to": "nginx lists a link to a directory as one",
  },
});

const onRclone = davHarness({
  // It looks before it makes a directory, and then makes it in any case.
  promises: { exclusive: "nothing", rmdirIsSafe: false },
  kind: rclone,
  refuses: { "line\u201b0Abreak.bin": "rclone has a use of its own for ‛ in names, and does not find such a file again (Fault conflict)" },
});

for (const harness of [onNginx, onRclone]) {
  targetClauses(harness.target);
  sourceClauses(harness.source);
  after(() => harness.stop());
}
