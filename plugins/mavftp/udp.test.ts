/** UDP, to which several may send: what is asked goes to who speaks for the autopilot. */
import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { test } from "node:test";
import { FrameWriter } from "../../mavlink/frame.js";
import { AUTOPILOT_PX4, COMPONENT_AUTOPILOT, encodeHeartbeat, HEARTBEAT } from "../../mavlink/messages.js";
import { freeUdpPort, lastly, listAll, makeDevice, makeLogs, makeSim, readAll } from "./harness.test.js";

test("another vehicle that sends to the same UDP port gets nothing of what is asked of ours", async (t) => {
  const { dir, content } = makeLogs(t, { "a.ulg": 300_000 });
  const port = await freeUdpPort();
  const rig = makeDevice(t, { url: `udpin://127.0.0.1:${port}`, root: "/", systemId: 1 });
  const first = await makeSim(t, { dir, listen: `udpout://127.0.0.1:${port}` });
  await rig.attached();
  const other = createSocket("udp4");
  let strayed = 0;
  other.on("message", () => (strayed += 1));
  const writer = new FrameWriter(2, COMPONENT_AUTOPILOT);
  const beat = encodeHeartbeat({ customMode: 0, type: 2, autopilot: AUTOPILOT_PX4, baseMode: 0, systemStatus: 3 });
  const timer = setInterval(() => other.send(writer.encode(HEARTBEAT, beat), port, "127.0.0.1"), 2);
  lastly(t, () => {
    clearInterval(timer);
    other.close();
  });
  const readsIt = async () => {
    const [entry] = await listAll(rig.source);
    assert.ok(entry !== undefined);
    assert.deepEqual(await readAll(rig.source, entry), content.get("a.ulg"));
  };
  await readsIt();
  assert.equal(strayed, 0);
  // Started anew it sends from another port.
  await first.close();
  const before = rig.states.length;
  await rig.until(({ state }) => state === "detached", 8000, before);
  await makeSim(t, { dir, listen: `udpout://127.0.0.1:${port}` });
  await rig.until(({ state }) => state === "attached", 8000, before);
  await readsIt();
  assert.equal(strayed, 0);
});
