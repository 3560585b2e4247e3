/** A radio whose buffer is full holds back what an ArduPilot answers: that is waited for, not asked for again and again. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { eventually, listAll, makeLogs, makeRig, readAll } from "./harness.test.js";

const path = "00000042.BIN";
/** What is asked again while nothing is answered: five requests, further and further apart, and what is overtaken when it begins again; 5 * 66 without that. */
const AGAIN = 5 * 14;

for (const autopilot of ["ardupilot-4.6", "ardupilot-4.7", "ardupilot-4.8"])
  for (const [link, at] of [
    ["usb", "read:100"],
    ["usb", "open"],
    ["usb", "list"],
    ["radio:57600", "read:40"],
  ] as const)
    test(`${autopilot} over ${link}: for 2 s, from the ${at} on, nothing is sent: the file comes whole, and little is asked again`, async (t) => {
      const size = link === "usb" ? 100_000 : 20_000;
      const { dir, content } = makeLogs(t, { [path]: size });
      const { source, sim } = await makeRig(t, { dir, autopilot, link, faults: { radio: `20,2s@${at}` } });
      const [entry] = await listAll(source);
      assert.ok(entry);
      assert.ok((await readAll(source, entry)).equals(content.get(path) as Buffer));
      await eventually(() => sim.openSessions() === 0, "the session is ended");
      const { ReadFile = 0, OpenFileRO = 0, ListDirectory = 0 } = sim.stats.requests;
      assert.ok(ReadFile <= Math.ceil(size / 239) + AGAIN, `${ReadFile} reads for ${Math.ceil(size / 239)}`);
      assert.ok(OpenFileRO <= 1 + 5 && ListDirectory <= 2 + 5, `${OpenFileRO} opens, ${ListDirectory} listings`);
      assert.equal(sim.stats.sessionsOpened, 1);
    });

test("a radio that tells how full it is costs a file nothing but time", async (t) => {
  const { dir, content } = makeLogs(t, { [path]: 20_000 });
  const { source } = await makeRig(t, { dir, autopilot: "ardupilot-4.7", link: "radio:57600", faults: { radio: "own", noise: "1kB" } });
  const [entry] = await listAll(source);
  assert.ok(entry);
  assert.ok((await readAll(source, entry)).equals(content.get(path) as Buffer));
});
