import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";

test("what does not end in time is killed, unless it is given its time after all", () => {
  const run = (then: string) => {
    const text = `import { endWithin } from ${JSON.stringify(new URL("ending.js", import.meta.url).href)};
      const goOn = endWithin(200); ${then} setTimeout(() => undefined, 1000);`;
    return spawnSync(process.execPath, ["--input-type=module", "-e", text]);
  };
  assert.equal(run("").signal, "SIGKILL");
  assert.equal(run("goOn();").status, 0);
});
