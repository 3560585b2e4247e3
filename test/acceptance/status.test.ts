/** status, as a person sees it: with and without a daemon, drawn in place on a terminal. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { spawn } from "@lydell/node-pty";
import { mainJs, Program, runProgram } from "../faults/process.js";
import { World } from "../faults/world.js";
import { masked } from "./said.js";

const local = (dir: string, more = {}) => ({ type: "local", dir, ...more });

async function delivered(world: World): Promise<string> {
  world.mkdir("out");
  world.file("in/a.ulg", "content of a");
  const config = world.config({ devices: { in: local("in"), out: local("out") }, routes: [{ from: "in", to: ["out"] }] });
  assert.equal((await runProgram(["run", "--once", "--config", config])).code, 0);
  return config;
}

test("without a daemon the devices of the configuration are there, and nobody claims to know of them", async (t) => {
  const world = new World(t);
  const config = await delivered(world);
  const { code, out } = await runProgram(["status", "--config", config]);
  assert.equal(code, 0);
  assert.deepEqual(
    masked(out, world.dir)
      .replace(/T[\d:]+Z/g, "T…Z")
      .replace(/\d{4}-\d\d-\d\dT…Z/g, "TIME")
      .split("\n"),
    [
      "everything that was found is delivered (12 B) (no daemon runs)",
      "",
      "in   unknown: no daemon runs  (local)",
      "out  unknown: no daemon runs  (local)",
      "",
      "deliveries: 0 waiting, 0 active, 0 set aside, 1 done; spool 0 B of 17 GB",
      "",
      "delivered last:",
      "  TIME  in:a.ulg → out:v/in/a.ulg  12 B, proved by digest",
    ],
  );
  const json = JSON.parse((await runProgram(["status", "--json", "--config", config])).out) as { devices: object[] };
  assert.deepEqual(json.devices[0], {
    name: "in",
    type: "local",
    roles: ["source", "target"],
    presence: "unknown",
    reason: "no daemon runs",
  });
});

test("--watch without a terminal writes block after block; Ctrl-C ends it well", async (t) => {
  const world = new World(t);
  const config = await delivered(world);
  const watch = new Program(["status", "--watch", "--config", config]);
  t.after(() => watch.kill());
  const blocks = () => watch.events.filter(({ message }) => message.startsWith("everything that was found")).length;
  await watch.until(() => blocks() === 2, "two blocks");
  watch.signal("SIGINT");
  assert.equal(await watch.exited, 0);
});

for (const key of ["q", "\x03"])
  test(`--watch on a terminal draws in place and gives the screen back at ${JSON.stringify(key)}`, async (t) => {
    const world = new World(t);
    const config = await delivered(world);
    const pty = spawn(process.execPath, [mainJs, "status", "--watch", "--config", config], { cols: 60, rows: 8, cwd: world.dir });
    let seen = "";
    const code = await new Promise<number>((resolve) => {
      let pressed = false;
      pty.onData((data) => {
        seen += data;
        if (pressed || seen.split("\x1b[H").length < 3) return;
        pressed = true;
        pty.write(key);
      });
      pty.onExit(({ exitCode }) => resolve(exitCode));
    });
    assert.equal(code, 0, seen);
    assert.ok(seen.startsWith("\x1b[?1049h\x1b[?25l\x1b[H"), JSON.stringify(seen.slice(0, 40)));
    assert.ok(seen.endsWith("\x1b[?25h\x1b[?1049l"));
    const frames = seen.split("\x1b[H").slice(1);
    for (const frame of frames) {
      const lines = frame.replace(/\x1b\[[?0-9]*[A-Za-z]/g, "").split("\r\n"); // eslint-disable-line no-control-regex
      assert.ok(lines.length <= 8 && lines.every((line) => line.length <= 60), JSON.stringify(lines));
      assert.match(frame, /… \d+ lines more/);
      assert.ok(!frame.includes("\x1b[2J"));
    }
  });
