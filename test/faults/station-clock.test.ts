/**
 * The clock of a ground station that jumps (1970 at its start, years ahead, years back, over a day and back again), while vehicles send to it by both ways that it serves, and it passes on what arrives and deletes it.
 * Nothing is lost, nothing comes twice, nothing stays behind, and nobody is kept out by what has gone long ago.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { parseFingerprint } from "../../core/net.js";
import { RegistryClient } from "../../plugins/apsync/client.js";
import { newKey, readKey } from "../../plugins/apsync/key.js";
import { page } from "../acceptance/plane.js";
import { until } from "../conformance/clause.js";
import { freePort, hasOpenssl } from "../conformance/ftp-servers.js";
import { realClock } from "../conformance/upload.js";
import { whyNoDoor } from "../doubles/door-at-work.js";
import { linkIn, mailServer } from "../mail-server.js";
import { clockEnv, hasFakeClock } from "./fake-clock.js";
import { Program } from "./process.js";
import { Random } from "./random.js";
import { treeOf } from "./trees.js";
import { World } from "./world.js";

const missing = whyNoDoor() ?? (hasOpenssl ? undefined : "openssl is not installed") ?? (hasFakeClock ? undefined : "faketime is missing");
const signal = new AbortController().signal;
const contentOf = (bytes: Buffer) => `${bytes.length} ${createHash("sha256").update(bytes).digest("hex")}`;

/** After its first start, in 1970; `restarts`: by a power cut. */
const jumps: readonly { readonly to: string; readonly restarts?: true }[] = [
  { to: "+0" },
  { to: "+3650d" },
  { to: "+0" },
  { to: "@1970-01-01 00:00:20", restarts: true },
  { to: "+0" },
  { to: "-3650d" },
  { to: "+400d", restarts: true },
  { to: "+1d" },
  { to: "+0" },
];

test(
  "a station that passes on what vehicles send, with a clock that is 1970 at its start, years ahead and years back",
  missing === undefined ? { timeout: 540_000 } : { skip: missing },
  async (t) => {
    const random = new Random(41);
    const world = new World(t);
    const post = await mailServer(t);
    const [api, door, ftp] = [await freePort(), await freePort(), await freePort()];
    for (const dir of ["byRegistry", "byFtp", "ground/archive"]) world.mkdir(dir);

    const clock = world.path("clock");
    const env = { ...process.env, ...clockEnv(clock), TZ: "UTC" };
    const { host, port, from } = post.options;
    const registry = {
      ...{ type: "registry", listen: `127.0.0.1:${api}`, door: { listen: `127.0.0.1:${door}` }, root: "vehicles", keepFree: 0 },
      ...{ mail: { host, port, secure: false, user: "u", password: "p", from }, slotIdle: "2s", quota: { vehicle: "4MB" } },
    };
    const inbox = { type: "ftp-server", listen: `127.0.0.1:${ftp}`, root: "files", users: { plane: { password: "secret" } } };
    const devices = {
      // Each copy goes by the spool.
      slots: { type: "local", dir: "vehicles", settle: "1s", interval: "1s", inPlace: false },
      archive: { type: "local", dir: "archive" },
    };
    const routes = [
      { from: "slots", to: ["archive"], into: "slots", afterDelivery: "delete" },
      { from: "ftp", to: ["archive"], into: "ftp", afterDelivery: "delete" },
    ];
    const stationConfig = world.config({ services: { registry, ftp: inbox }, devices, routes }, "ground/config.json");
    const start = () => new Program(["run", "--json", "--config", stationConfig], { env });
    writeFileSync(clock, "@1970-01-01 00:00:10");
    let station = start();
    const { certificate } = (await station.until(({ facts }) => facts?.certificate !== undefined, "its certificate")).facts ?? {};
    await station.until(({ message }) => message.includes(`listens on 127.0.0.1:${ftp}`), "that it listens");

    writeFileSync(world.path("key"), newKey("plane"), { mode: 0o600 });
    const tls = { fingerprint: parseFingerprint(String(certificate)) };
    const client = new RegistryClient({ url: `https://127.0.0.1:${api}`, tls, timeout: 5000 }, realClock(), () =>
      readKey(world.path("key")),
    );
    t.after(() => client.close());
    const { id } = await client.register({ email: "pilot@example.org", vehicle: "plane" }, signal);
    await page(api, linkIn(await post.next()), "POST");
    const { access } = await client.registration(id, signal);
    assert.ok(access !== undefined);
    const vehicle = new Program([
      ...["run", "--json", "--config"],
      world.config({
        devices: {
          one: { type: "local", dir: "byRegistry", settle: 0, interval: "1s" },
          two: { type: "local", dir: "byFtp", settle: 0, interval: "1s" },
          slots: {
            ...{ type: "apsync", url: `https://127.0.0.1:${api}`, tls: { fingerprint: certificate }, station: access.station },
            ...{ host: "127.0.0.1", port: door, user: access.user, hostKey: access.hostKey, privateKey: "key", timeout: "5s" },
          },
          ftp: { type: "ftp", host: "127.0.0.1", port: ftp, user: "plane", password: "secret" },
        },
        routes: [
          { from: "one", to: ["slots"], into: "", afterDelivery: "delete" },
          { from: "two", to: ["ftp"], into: "", afterDelivery: "delete" },
        ],
      }),
    ]);

    const made: string[] = [];
    const fly = (step: number) => {
      for (const dir of ["byRegistry", "byFtp"])
        // Names come again, as of a card that was formatted.
        for (const name of ["00000001.BIN", `${step}.BIN`]) {
          const bytes = random.bytes(random.pick([1000, 300_000, 1_500_000]));
          world.file(join(dir, name), bytes, step);
          made.push(contentOf(bytes));
        }
    };
    const filesOf = (dir: string) =>
      readdirSync(world.path(dir), { recursive: true, withFileTypes: true }).flatMap((entry) =>
        entry.isFile() ? [join(entry.parentPath, entry.name)] : [],
      );
    const left = () => ["byRegistry", "byFtp", "ground/vehicles", "ground/files"].flatMap(filesOf);
    const arrive = (when: string) =>
      until(`all to be passed on: ${when}`, () => left().length === 0, 90_000).catch((error: unknown) => {
        const said = [vehicle, station].map(({ events }) => events.map(({ message }) => message).join("\n"));
        assert.fail(`${String(error)}: ${left().join(", ")}\n${said.join("\n\n")}`);
      });

    fly(0);
    await arrive("1970");
    for (const [n, { to, restarts }] of jumps.entries()) {
      fly(n + 1);
      if (restarts === true) await station.kill();
      // While it comes.
      writeFileSync(clock, to);
      if (restarts === true) station = start();
      await arrive(`${n}: ${to}`);
      t.diagnostic(`${to}: ${made.length} files`);
    }
    assert.deepEqual([...treeOf(world.path("ground/archive")).values()].sort(), made.sort());
    // A station that had the right time all along proves nothing.
    const year = (days: number) => new Date(Date.now() + days * 86_400_000).getUTCFullYear();
    const receipts = readFileSync(world.path("ground/state/receipts.jsonl"), "utf8");
    for (const seen of [1970, year(0), year(3650), year(-3650), year(400)])
      assert.ok(receipts.includes(`"at":"${seen}-`), `nothing arrived in ${seen}`);
  },
);
