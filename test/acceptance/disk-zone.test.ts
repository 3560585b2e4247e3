/** FAT, and exFAT as most cameras write it, hold a file's time as clocks on the wall showed it: the system tells it by a zone of its own, which may be another at the next mount. */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { isSafe, labFor } from "../disks/scene.js";
import { Program } from "../faults/process.js";
import { treeOf } from "../faults/trees.js";
import { World } from "../faults/world.js";

const entryBytes = 32;
const utcAt = [22, 23, 24];

/** The files on an exFAT get times without a zone, as of cameras that know none. */
function forgetZones(image: string): number {
  const bytes = readFileSync(image);
  let files = 0;
  for (let at = 0; at + 3 * entryBytes <= bytes.length; at += entryBytes) {
    if (bytes[at] !== 0x85 || bytes[at + entryBytes] !== 0xc0 || bytes[at + 2 * entryBytes] !== 0xc1) continue;
    for (const utc of utcAt) bytes[at + utc] = 0;
    let sum = 0;
    const end = (1 + (bytes[at + 1] ?? 0)) * entryBytes;
    for (let n = 0; n < end; n++) if (n !== 2 && n !== 3) sum = (((sum & 1) << 15) + (sum >> 1) + (bytes[at + n] ?? 0)) & 0xffff;
    bytes.writeUInt16LE(sum, at + 2);
    files += 1;
  }
  writeFileSync(image, bytes);
  return files;
}

test("a card whose files have other times by the clocks of winter than by those of summer is the same, and so are they; what is new on it comes once", async (t) => {
  const lab = await labFor(t);
  if (lab === undefined) return;
  const world = new World(t);
  world.mkdir("out");
  const files = { "DCIM/1.JPG": "first", "DCIM/2.JPG": "second", "DCIM/3.JPG": "third" };
  const card = await lab.make("card", { fs: "exfat", mib: 32, files });
  assert.equal(forgetZones(card.image), 4, "with their directory");
  const configured = (route: object) =>
    world.config({
      devices: { flir: { type: "disk", uuid: card.uuid }, out: { type: "local", dir: "out" } },
      routes: [{ from: "flir", to: ["out"], ...route }],
    });
  const config = configured({});
  const plugged = async (zone: string) => {
    const program = new Program(["run", "--json", "--config", config], { wrap: lab.wrap(), env: { ...process.env, TZ: zone } });
    t.after(() => program.kill());
    await program.until(({ message }) => message.includes("is ready"), "that it is ready");
    await lab.plug(card);
    await program.until(isSafe, "that it may be pulled");
    await lab.pull(card);
    await program.until(({ message }) => message.endsWith("was pulled"), "the pull");
    program.signal("SIGTERM");
    await program.exited;
    const found = program.events.filter(({ what }) => what === "found").map(({ message }) => message);
    const delivered = program.events.filter(({ what }) => what === "delivered").length;
    return { found, delivered, media: program.events.flatMap(({ message }) => /(\S+) is in: /.exec(message)?.slice(1) ?? []) };
  };
  assert.deepEqual(await plugged("UTC0"), { found: ["flir: 3 new files"], delivered: 3, media: [card.uuid] });
  assert.deepEqual(await plugged("CET-1"), { found: [], delivered: 0, media: [card.uuid] });
  await lab.plug(card);
  await lab.exec("mkdir", ["/run/camera"]);
  await lab.exec("mount", ["-t", "exfat", lab.nodeOf(card), "/run/camera"]);
  writeFileSync(lab.path("/run/camera/DCIM/4.JPG"), "fourth");
  await lab.exec("umount", ["/run/camera"]);
  await lab.pull(card);
  assert.equal(forgetZones(card.image), 5);
  assert.deepEqual(await plugged("CET-1"), { found: ["flir: 1 new file"], delivered: 1, media: [card.uuid] });
  assert.deepEqual(await plugged("UTC0"), { found: [], delivered: 0, media: [card.uuid] });
  configured({ afterDelivery: "delete" });
  assert.deepEqual(await plugged("CET-1"), { found: [], delivered: 0, media: [card.uuid] });
  assert.deepEqual([...(await lab.content(card)).keys()], []);
  assert.equal(treeOf(world.path("out")).size, 4);
});
