/** A session that was recorded is played again: the same listing, the same sizes, the same losses; with made-up bytes. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { crc32 } from "node:zlib";
import { readTrace } from "../mavlink/trace.js";
import { listAll, makeDir, makeLogs, makeRig, never, readAll, type Rig } from "../plugins/mavftp/harness.test.js";
import { autopilots } from "./autopilots.js";
import { madeBytes } from "./disk-file.js";

interface Session {
  readonly listed: (readonly [string, number])[];
  readonly bytes: readonly Buffer[];
}

async function session(rig: Rig): Promise<Session> {
  const entries = await listAll(rig.source);
  const bytes: Buffer[] = [];
  for (const entry of entries) bytes.push(await readAll(rig.source, entry));
  return { listed: entries.map(({ path, size }) => [path, size]), bytes };
}

const files = { "2026-05-02/09_10_57.ulg": 60_000, "2026-05-02/10_10_57.ulg": 956, "sess001/log001.ulg": 0, "zebra.txt": 7 };

for (const { name } of autopilots)
  test(`${name}: what was recorded is played`, async (t) => {
    const { dir } = makeLogs(t, files);
    const lines: string[] = [];
    const before = await session(await makeRig(t, { dir, autopilot: name, link: "usb", trace: (line) => void lines.push(line) }));
    const text = lines.join("\n");
    assert.ok(!text.includes("zebra"));
    const rig = await makeRig(t, { dir: makeDir(t), replay: text });
    const after = await session(rig);
    const shown = (listed: Session["listed"]) => listed.map(([path, size]) => [path.replace(/^[^/]*\.txt$/, "A.txt"), size]);
    assert.deepEqual(shown(after.listed), shown(before.listed));
    for (const [n, bytes] of after.bytes.entries()) assert.ok(bytes.equals(madeBytes(0, after.listed[n]?.[1] ?? 0)), after.listed[n]?.[0]);
    assert.equal(rig.sim.stats.requests.OpenFileRO, readTrace(text).rows.filter((r) => r.kind === "request" && r.opcode === 4).length);
    const digest = await rig.source.digest?.({ path: "2026-05-02/09_10_57.ulg", kind: "file", size: 60_000 }, "crc32-mavlink", never);
    const crc = (crc32(madeBytes(0, 60_000), 0xffffffff) ^ 0xffffffff) >>> 0;
    assert.equal(digest, `crc32-mavlink:${crc.toString(16).padStart(8, "0")}`, "that of what is served, though nobody asked for it then");
  });

test("replies that were lost then are lost again, and an arming comes when it came", async (t) => {
  const { dir } = makeLogs(t, { "a.ulg": 60_000 });
  const lines: string[] = [];
  const faults = { lose: "3@read:20" };
  const first = await makeRig(t, { dir, autopilot: "ardupilot-4.6", link: "usb", faults, trace: (line) => void lines.push(line) });
  await session(first);
  const cut = [...lines, JSON.stringify([1e9, "!", "armed"])];
  const rig = await makeRig(t, { dir: makeDir(t), replay: cut.join("\n") });
  const after = await session(rig);
  assert.ok(after.bytes[0]?.equals(madeBytes(0, 60_000)));
  assert.ok(rig.sim.stats.lostInTrace >= 3, `${rig.sim.stats.lostInTrace} lost`);
  assert.equal(rig.sim.armed, false);
  const at = lines.findIndex((line) => line.includes('">",4,'));
  const armedAt = [...lines.slice(0, at), JSON.stringify([0, "!", "armed"]), ...lines.slice(at)];
  const armed = await makeRig(t, { dir: makeDir(t), replay: armedAt.join("\n"), armed: true });
  assert.equal(armed.sim.armed, true);
});

test("what is not in a trace is answered plainly, and counted", async (t) => {
  const { dir } = makeLogs(t, { "a.ulg": 60_000 });
  const lines: string[] = [];
  await session(await makeRig(t, { dir, link: "none", trace: (line) => void lines.push(line) }));
  const rig = await makeRig(t, { dir: makeDir(t), replay: lines.join("\n") });
  const entry = (await listAll(rig.source))[0];
  assert.ok(entry !== undefined);
  assert.ok((await readAll(rig.source, entry, 1001)).equals(madeBytes(1001, 58_999)), "other offsets than then");
  assert.ok(rig.sim.stats.notInTrace > 200);
});
