/** The command `sim`: what it takes, and the words for what it does not. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mainJs, runProgram } from "../faults/process.js";

const listen = ["sim", "--listen", "tcpin://127.0.0.1:0"];

test("numbers are numbers: a ring and a seed are taken, and it listens", async () => {
  const child = spawn(process.execPath, [mainJs, ...listen, "--ring", "2000", "--seed", "7", "--fault", "loss=1%"], { stdio: "pipe" });
  const closed = once(child, "close");
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (more: string) => (said += more));
  const [line] = (await once(child.stdout.setEncoding("utf8"), "data")) as [string];
  assert.match(line, /^listening on tcpin:\/\/127\.0\.0\.1:\d+\n$/);
  child.kill("SIGTERM");
  assert.deepEqual(await closed, [0, null]);
  assert.equal(said, "faults are drawn from seed 7\n");
});

for (const [given, words] of [
  [["--ring", "10"], '--ring: expected bytes, 280 at least, got "10"'],
  [["--seed", "abc"], '--seed: expected a whole number, got "abc"'],
  [["--dir", "/no/such"], "--dir: there is no directory /no/such"],
  [["--replay", "/no/such"], "cannot read /no/such: there is no such file or directory"],
] as const)
  test(`${given.join(" ")} is a mistake with its words`, async () => {
    const { code, err } = await runProgram([...listen, ...given]);
    assert.equal(err.trim(), `filesync: ${words}`);
    assert.equal(code, 2);
  });
