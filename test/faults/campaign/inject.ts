/** Carries out the faults of the schedule. Each says whether it could be done: only what was done is counted. */
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, renameSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { failCalls, filesLike, type Life } from "./life.js";
import type { Scene } from "./scene.js";
import type { FaultKind, PlannedFault } from "./schedule.js";
import { finalPath, type RoughRelay } from "./relay.js";
import type { Place } from "./place.js";

type Done = string | undefined;

/** Calls that fail, on which files of the world. */
const media: Partial<Record<FaultKind, (scene: Scene, draw: number) => { files: string[]; calls: string; errno: string }>> = {
  "spool EIO": (scene, draw) => ({
    files: filesLike(join(scene.stateDir, "spool"), /^[0-9a-f]{16}$/),
    calls: draw < 0.5 ? "pwrite64" : "read,pread64",
    errno: "EIO",
  }),
  "spool ENOSPC": (scene) => ({ files: filesLike(join(scene.stateDir, "spool"), /^[0-9a-f]{16}$/), calls: "pwrite64", errno: "ENOSPC" }),
  "spool sync": (scene) => ({ files: filesLike(join(scene.stateDir, "spool"), /^[0-9a-f]{16}$/), calls: "fdatasync", errno: "EIO" }),
  "journal ENOSPC": (scene) => ({ files: filesLike(scene.stateDir, /^journal\.db/), calls: "pwrite64", errno: "ENOSPC" }),
  "journal sync": (scene, draw) => ({
    files: [join(scene.stateDir, draw < 0.3 ? "receipts.jsonl" : "journal.db-wal")],
    calls: "fdatasync",
    errno: "EIO",
  }),
  "state EIO": (scene) => ({ files: filesLike(scene.stateDir, /^(journal|receipts)/), calls: "pwrite64,write,pread64", errno: "EIO" }),
  "source EIO": (scene) => ({
    files: [...filesLike(scene.origins.inbox.dir, /\.bin$/), ...filesLike(scene.origins.outbox.dir, /\.bin$/)].slice(-40),
    calls: "read,pread64",
    errno: "EIO",
  }),
  "target EIO": (scene) => ({ files: filesLike(scene.rootOf("disk"), /\.part$/), calls: "pwrite64,pread64,read", errno: "EIO" }),
  "target ENOSPC": (scene) => ({ files: filesLike(scene.rootOf("disk"), /\.part$/), calls: "pwrite64", errno: "ENOSPC" }),
  "target sync": (scene) => ({ files: filesLike(scene.rootOf("disk"), /\.part$/), calls: "fsync,fdatasync", errno: "EIO" }),
};

interface Configuration {
  readonly devices: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  readonly routes: readonly { readonly from: string; readonly to: readonly string[] }[];
}

/** Configurations with which the daemon runs as well, for a while. */
const others: readonly (readonly [string, (own: Configuration) => Configuration])[] = [
  ["without the ground", (own) => without(own, "ground")],
  ["without the camera", (own) => without(own, "camera")],
  ["without the inbox", (own) => without(own, "inbox")],
  [
    "the ground slower",
    (own) => ({ ...own, devices: { ...own.devices, ground: { ...own.devices.ground, maxRate: "1MiB/s", concurrency: 1 } } }),
  ],
  ["routes the other way round", (own) => ({ ...own, routes: [...own.routes].reverse() })],
];

function without(own: Configuration, name: string): Configuration {
  const devices = Object.fromEntries(Object.entries(own.devices).filter(([device]) => device !== name));
  const routes = own.routes.map((route) => ({ ...route, to: route.to.filter((target) => target !== name) }));
  return { ...own, devices, routes: routes.filter(({ from, to }) => from !== name && to.length > 0) };
}

const clocks = ["+1h", "-1h", "+400d", "-400d", "@1970-01-02 00:00:00", "+0"];

export class Injector {
  readonly #lied = new Set<string>();
  #tracing = false;
  #reconfigured = false;
  /** The one that began last. */
  living: Life | undefined;
  readonly #served: readonly Place[];

  constructor(readonly scene: Scene) {
    this.#served = [scene.ground, scene.camera];
  }

  /** Does it, and takes it back after its time; resolves with what was done, or undefined where it could not be. */
  async inject(fault: PlannedFault, life: Life): Promise<Done> {
    const { kind, forMs, draw } = fault;
    const served = this.#served[draw < 0.7 ? 0 : 1] ?? this.scene.ground;
    const { relay } = served;
    const during = async (on: () => unknown, off: () => unknown): Promise<string> => {
      on();
      await sleep(forMs);
      off();
      return `${served.name}, ${forMs} ms`;
    };
    const medium = media[kind];
    if (medium !== undefined) return this.#medium(medium(this.scene, draw), forMs, draw, life);
    switch (kind) {
      case "reset":
        return relay.cut() ? served.name : undefined;
      case "reset data":
        return relay.cut("data") ? served.name : undefined;
      case "freeze":
        return during(
          () => relay.freeze(true),
          () => relay.freeze(false),
        );
      case "swallow":
        return during(
          () => relay.swallow(["up", "down"]),
          () => relay.swallow([]),
        );
      case "half-open up":
        return during(
          () => relay.swallow(["up"]),
          () => relay.swallow([]),
        );
      case "half-open down":
        return during(
          () => relay.swallow(["down"]),
          () => relay.swallow([]),
        );
      case "flap":
        for (let n = 0; n < 6; n++) {
          relay.refuse(true);
          await sleep(forMs / 12);
          relay.refuse(false);
          await sleep(forMs / 12);
        }
        return `${served.name}, 6 times`;
      case "delay":
        return during(
          () => relay.delay(5 + draw * 60),
          () => relay.delay(0),
        );
      case "refuse":
        return during(
          () => relay.refuse(true),
          () => relay.refuse(false),
        );
      case "wrong size":
        return this.#lie(served, relay, draw, forMs);
      case "server killed":
        await served.kill();
        await sleep(forMs);
        await served.run(served.kind);
        return `${served.name} (${served.kind}), away for ${forMs} ms`;
      case "server swapped": {
        // The camera stays what it is: another server tells other times, and so other versions.
        const kinds = this.scene.ground.kinds.filter((it) => it !== this.scene.ground.kind);
        const next = kinds[Math.floor(draw * kinds.length)];
        if (next === undefined) return undefined;
        await this.scene.ground.run(next);
        return `ground is ${next} now`;
      }
      case "server full":
        return this.#fill(join(this.scene.dir, "ground"), forMs);
      case "target full":
        return this.#fill(join(this.scene.dir, "disk"), forMs);
      case "state full":
        return this.#fill(join(this.scene.dir, "state"), forMs);
      case "stopped":
        if (!life.signal("SIGSTOP")) return undefined;
        await life.lives(forMs);
        life.signal("SIGCONT");
        return `${forMs} ms`;
      case "clock": {
        const offset = clocks[Math.floor(draw * clocks.length)] ?? "+0";
        life.setClock(offset);
        return offset;
      }
      case "link dropped":
        await this.scene.sim.dropLink(forMs);
        return `${forMs} ms`;
      case "vehicle reboot":
        this.scene.sim.reboot(forMs);
        return `${forMs} ms`;
      case "unplugged":
        return this.#unplug(forMs);
      case "reconfigured":
        return this.#reconfigure(draw, forMs);
      default:
        return undefined;
    }
  }

  async #medium(what: { files: string[]; calls: string; errno: string }, forMs: number, draw: number, life: Life): Promise<Done> {
    const files = what.files.filter((file) => existsSync(file));
    const { pid } = life;
    if (files.length === 0 || pid === 0 || this.#tracing) return undefined;
    this.#tracing = true;
    try {
      const when = draw < 0.7 ? "1" : "1+2";
      const log = join(this.scene.dir, "failed-calls.log");
      const hits = await failCalls(pid, files, { ...what, when, forMs: Math.max(1500, forMs), log });
      return hits > 0 ? `${hits} × ${what.errno} of ${what.calls}` : undefined;
    } finally {
      this.#tracing = false;
    }
  }

  /** Once for each file: a server that lies about one file again and again is one that nobody can deliver to. */
  async #lie(served: Place, relay: RoughRelay, draw: number, forMs: number): Promise<Done> {
    let told: string | undefined;
    const delta = draw < 0.5 ? -(1 + Math.floor(draw * 1e6)) : 1 + Math.floor(draw * 1e6);
    relay.lie(
      delta,
      (path) => !this.#lied.has(`${served.name}${finalPath(path)}`),
      (path) => {
        told = finalPath(path);
        this.#lied.add(`${served.name}${told}`);
        relay.uploads.excuse(told);
        relay.downloads.excuse(told);
      },
    );
    for (let waited = 0; told === undefined && waited < forMs + 2000; waited += 100) await sleep(100);
    relay.lie(
      0,
      () => false,
      () => undefined,
    );
    return told === undefined ? undefined : `${served.name}${told} by ${delta}`;
  }

  async #fill(dir: string, forMs: number): Promise<Done> {
    if (!this.scene.mounted) return undefined;
    const ballast = join(dir, "ballast");
    if (existsSync(ballast)) return undefined;
    const { bavail, bsize } = statfsSync(dir);
    spawnSync("fallocate", ["-l", String(bavail * bsize), ballast]);
    // What the size of the ballast's own map left over.
    spawnSync("dd", ["if=/dev/zero", `of=${ballast}2`, "bs=4096"], { stdio: "ignore" });
    await sleep(forMs);
    rmSync(ballast, { force: true });
    rmSync(`${ballast}2`, { force: true });
    return `${forMs} ms`;
  }

  async #unplug(forMs: number): Promise<Done> {
    const { dir } = this.scene.origins.inbox;
    if (!existsSync(dir)) return undefined;
    renameSync(dir, `${dir}.away`);
    await sleep(forMs);
    renameSync(`${dir}.away`, dir);
    return `${forMs} ms`;
  }

  async #reconfigure(draw: number, forMs: number): Promise<Done> {
    const other = others[Math.floor(draw * others.length)];
    if (this.#reconfigured || other === undefined) return undefined;
    const [what, change] = other;
    const { config } = this.scene;
    const own = readFileSync(config, "utf8");
    // Whole at once: a life may begin just then.
    const run = (text: string) => {
      writeFileSync(`${config}.new`, text);
      renameSync(`${config}.new`, config);
      return this.living?.signal("SIGHUP") === true;
    };
    this.#reconfigured = true;
    const heard = run(JSON.stringify(change(JSON.parse(own) as Configuration)));
    await sleep(forMs);
    run(own);
    this.#reconfigured = false;
    return heard ? `${what}, ${forMs} ms` : undefined;
  }
}
