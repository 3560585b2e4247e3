/**
 * A vehicle, and its station with a registry, whose route passes on what arrives in slots and deletes it: both killed, both links reset, at times that are drawn by a seed, while files grow and are replaced, slots
 * idle out, quotas are met, and the station's configuration is another. Each file is in the archive in the end, once as a content, and nothing stays behind. SEED=7 STEPS=500 is another, longer one.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { appendFileSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { codeOf } from "../../core/errors.js";
import { parseFingerprint } from "../../core/net.js";
import { RegistryClient } from "../../plugins/apsync/client.js";
import { newKey, readKey } from "../../plugins/apsync/key.js";
import { page } from "../acceptance/plane.js";
import { until } from "../conformance/clause.js";
import { freePort, hasOpenssl } from "../conformance/ftp-servers.js";
import { realClock } from "../conformance/upload.js";
import { whyNoDoor } from "../doubles/door-at-work.js";
import { linkIn, mailServer } from "../mail-server.js";
import { CountingRelay } from "./counting-relay.js";
import { Program } from "./process.js";
import { Random } from "./random.js";
import { treeOf } from "./trees.js";
import { World } from "./world.js";

const noDoor = whyNoDoor() ?? (hasOpenssl ? undefined : "openssl is not installed");
const signal = new AbortController().signal;
const contentOf = (bytes: Buffer) => `${bytes.length} ${createHash("sha256").update(bytes).digest("hex")}`;

function readIfThere(path: string): Buffer | undefined {
  try {
    return readFileSync(path);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

async function passedOn(t: TestContext, inPlace: boolean): Promise<void> {
  const random = new Random(Number(process.env.SEED ?? 1) + (inPlace ? 1000 : 0));
  t.diagnostic(`SEED=${process.env.SEED ?? 1}`);
  const world = new World(t);
  const post = await mailServer(t);
  const [apiPort, doorPort] = [await freePort(), await freePort()];
  const [api, door] = [await CountingRelay.start(apiPort), await CountingRelay.start(doorPort)];
  t.after(() => [api, door].forEach((relay) => relay.close()));
  for (const dir of ["in", "ground/archive"]) world.mkdir(dir);

  const run = (config: string) => new Program(["run", "--json", "--config", config]);
  const startStation = (given: object, slots: object = {}): Program => {
    const { host, port, from } = post.options;
    const registry = {
      ...{
        type: "registry",
        listen: `127.0.0.1:${apiPort}`,
        door: { listen: `127.0.0.1:${doorPort}`, port: door.port },
        root: "vehicles",
      },
      ...{ mail: { host, port, secure: false, user: "u", password: "p", from }, slotIdle: "6s", keepFree: 0, ...given },
    };
    const devices = {
      slots: { type: "local", dir: "vehicles", settle: 0, interval: "1s", ...slots },
      archive: { type: "local", dir: "archive" },
    };
    const routes = [{ from: "slots", to: ["archive"], into: "", afterDelivery: "delete" }];
    return run(world.config({ services: { registry }, devices, routes }, "ground/config.json"));
  };
  let station = startStation({});
  const { certificate } = (await station.until(({ facts }) => facts?.certificate !== undefined, "its certificate")).facts ?? {};

  writeFileSync(world.path("key"), newKey("plane"), { mode: 0o600 });
  const tls = { fingerprint: parseFingerprint(String(certificate)) };
  const key = () => readKey(world.path("key"));
  const client = new RegistryClient({ url: `https://127.0.0.1:${apiPort}`, tls, timeout: 5000 }, realClock(), key);
  const { id } = await client.register({ email: "pilot@example.org", vehicle: "plane" }, signal);
  await page(apiPort, linkIn(await post.next()), "POST");
  const { access } = await client.registration(id, signal);
  client.close();
  assert.ok(access !== undefined);
  const ground = {
    ...{
      type: "apsync",
      url: `https://127.0.0.1:${api.port}`,
      tls: { fingerprint: certificate },
      station: access.station,
      host: "127.0.0.1",
    },
    ...{ port: door.port, user: access.user, hostKey: access.hostKey, privateKey: "key", timeout: "5s" },
  };
  const cam = { type: "local", dir: "in", settle: 0, interval: "1s", inPlace };
  const routes = [{ from: "cam", to: ["ground"], into: "", afterDelivery: "delete" }];
  const config = world.config({ devices: { cam, ground }, routes });
  let vehicle = run(config);

  /** What has to arrive, and what may: another took its place, perhaps before it was read. */
  const [made, replaced] = [new Set<string>(), new Set<string>()];
  for (let step = Number(process.env.STEPS ?? 40); step > 0; step--) {
    const what = random.next();
    const name = `in/${random.pick(["", "DCIM/100/"])}${random.below(20)}.bin`;
    if (what < 0.6) {
      const bytes = random.bytes(random.pick([5, 1000, 20_000, 300_000, 2_000_000]));
      const before = readIfThere(world.path(name));
      if (before !== undefined) {
        made.delete(contentOf(before));
        replaced.add(contentOf(before));
      }
      if (before === undefined || random.below(2) === 0) world.file(name, bytes, step);
      else appendFileSync(world.path(name), bytes);
      // It may have been taken away right before that.
      const now = [bytes, Buffer.concat([before ?? Buffer.alloc(0), bytes])].map(contentOf);
      const is = readIfThere(world.path(name));
      if (is === undefined) now.forEach((content) => replaced.add(content));
      else made.add(contentOf(is));
    } else if (what < 0.69) {
      await vehicle.kill();
      vehicle = run(config);
    } else if (what < 0.78) {
      await station.kill();
      const quota = random.pick([{}, { vehicle: "3MB" }, { owner: "5MB" }]);
      station = startStation({ slotIdle: random.pick(["1s", "6s", "10min"]), quota }, { inPlace: random.below(2) === 0 });
    } else if (what < 0.85) api.cut();
    else if (what < 0.9) api.swallow();
    else if (what < 0.96) door.cut();
    else await sleep(random.below(4000));
    await sleep(random.below(300));
  }
  // What a quota kept out would wait for long.
  await station.kill();
  station = startStation({});
  const filesOf = (dir: string) =>
    readdirSync(world.path(dir), { recursive: true, withFileTypes: true }).flatMap((entry) =>
      entry.isFile() ? [join(entry.parentPath, entry.name)] : [],
    );
  const left = () => [...filesOf("in"), ...filesOf("ground/vehicles")];
  const said = () => [vehicle, station].map(({ events }) => events.map(({ message }) => message).join("\n")).join("\n\n");
  await until("nothing to be left", () => left().length === 0, 240_000).catch((error: unknown) => {
    assert.fail(`${String(error)}: ${left().join(", ")}\n${said()}`);
  });
  const archived = [...treeOf(world.path("ground/archive")).values()].sort();
  assert.deepEqual(archived, [...new Set(archived)], `each content once:\n${said()}`);
  const arrived = new Set(archived);
  const [missing, strange] = [[...made].filter((it) => !arrived.has(it)), archived.filter((it) => !made.has(it) && !replaced.has(it))];
  assert.deepEqual({ missing, strange }, { missing: [], strange: [] }, said());
}

for (const inPlace of [false, true])
  test(
    `a vehicle and a station with slots that passes on, killed and cut off at random (inPlace: ${inPlace})`,
    noDoor === undefined ? {} : { skip: noDoor },
    (t) => passedOn(t, inPlace),
  );
