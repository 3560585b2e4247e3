import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { promises as fs } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { Children } from "./children.js";
import { Shell } from "./shell.js";

/** A shell here, asked for what somebody writes into a pipe. `fills` is told how often it was asked. */
async function asked(t: TestContext, fills: (times: number, write: () => void) => boolean): Promise<{ answer: string; times: number }> {
  const dir = await fs.mkdtemp(join(tmpdir(), "filesync-shell-"));
  const children = new Children();
  t.after(() => children.close().finally(() => fs.rm(dir, { recursive: true })));
  const pipe = join(dir, "pipe");
  execFileSync("mkfifo", [pipe]);
  let times = 0;
  const shell = new Shell(children, ["sh", "-c"], () => fills(++times, () => void fs.writeFile(pipe, "came\n")));
  return { answer: await shell.ask(`cat ${pipe}`, 20).catch(String), times };
}

test("a shell that says nothing is waited for while something else fills the connection, and once more", async (t) => {
  // What was asked may have gone just now.
  const never = await asked(t, (times) => times <= 3);
  assert.match(never.answer, /the server's shell gave no answer/);
  assert.equal(never.times, 5);
  const late = await asked(t, (times, write) => {
    if (times === 4) write();
    return true;
  });
  assert.equal(late.answer, "came\n");
});
