/**
 * A vehicle, and its ground station, which passes on what arrives and deletes it: both killed, and the link between them reset, at times that are drawn by a seed. Each
 * file is in the archive in the end, once as a content, and nothing stays behind. SEED=7 STEPS=500 is another, longer one.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { until } from "../conformance/clause.js";
import { FtpRelay } from "./relay.js";
import { Program } from "./process.js";
import { Random } from "./random.js";
import { treeOf } from "./trees.js";
import { World } from "./world.js";

class Station {
  program: Program;
  port = 0;

  constructor(
    readonly world: World,
    readonly overwrite: boolean,
  ) {
    world.mkdir("ground/archive");
    this.program = this.start();
  }

  start(): Program {
    const users = { plane: { password: "secret" } };
    const services = { ftp: { type: "ftp-server", listen: `127.0.0.1:${this.port}`, root: "files", overwrite: this.overwrite, users } };
    const devices = { archive: { type: "local", dir: "archive" } };
    const routes = [{ from: "ftp", to: ["archive"], into: "", afterDelivery: "delete" }];
    const config = this.world.config({ services, devices, routes }, "ground/config.json");
    return (this.program = new Program(["run", "--json", "--config", config]));
  }

  async listens(): Promise<number> {
    const { message } = await this.program.until(({ message }) => /listens on 127\.0\.0\.1:\d+/.test(message), "that it listens");
    return (this.port = Number(/127\.0\.0\.1:(\d+)/.exec(message)?.[1]));
  }
}

async function passedOn(t: TestContext, overwrite: boolean): Promise<void> {
  const random = new Random(Number(process.env.SEED ?? 1) + (overwrite ? 1000 : 0));
  t.diagnostic(`SEED=${process.env.SEED ?? 1}`);
  const world = new World(t);
  const station = new Station(world, overwrite);
  const relay = await FtpRelay.start(await station.listens());
  t.after(() => relay.close());
  world.mkdir("in");
  const config = world.config({
    devices: {
      cam: { type: "local", dir: "in", settle: 0, inPlace: random.below(2) === 0 },
      ground: { type: "ftp", host: "127.0.0.1", port: relay.port, user: "plane", password: "secret" },
    },
    routes: [{ from: "cam", to: ["ground"], afterDelivery: "delete" }],
  });
  const start = () => new Program(["run", "--json", "--config", config]);
  let vehicle = start();
  const made = new Set<string>();
  for (let step = Number(process.env.STEPS ?? 60); step > 0; step--) {
    const what = random.next();
    const name = `in/${random.pick(["", "DCIM/100/"])}${random.below(20)}.bin`;
    // A name is used again once its file is gone, as by a card that begins anew.
    if (what < 0.7 && !existsSync(world.path(name))) {
      const bytes = random.bytes(random.pick([5, 1000, 20_000, 300_000, 2_000_000]));
      world.file(name, bytes, step);
      made.add(`${bytes.length} ${createHash("sha256").update(bytes).digest("hex")}`);
    } else if (what < 0.78) {
      await vehicle.kill();
      vehicle = start();
    } else if (what < 0.86) {
      await station.program.kill();
      station.start();
    } else relay.cut();
    await sleep(random.below(300));
  }
  await station.listens();
  const filesOf = (dir: string) =>
    readdirSync(world.path(dir), { recursive: true, withFileTypes: true }).flatMap((entry) =>
      entry.isFile() ? [join(entry.parentPath, entry.name)] : [],
    );
  const left = () => [...filesOf("in"), ...filesOf("ground/files")];
  await until("nothing to be left", () => left().length === 0, 120_000).catch((error: unknown) => {
    const said = [vehicle, station.program].map(({ events }) => events.map(({ message }) => message).join("\n"));
    assert.fail(`${String(error)}: ${left().join(", ")}\n${said.join("\n\n")}`);
  });
  assert.deepEqual(new Set(treeOf(world.path("ground/archive")).values()), made);
}

for (const overwrite of [false, true])
  test(`a vehicle and a station that passes on, killed and cut off at random (overwrite: ${overwrite})`, (t) => passedOn(t, overwrite));
