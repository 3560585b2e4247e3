/**
 * A daemon mirrors a directory to a real server while people edit it; it is killed, also for a while, and the server goes away. Then it is quiet: the server has to hold what
 * the directory does, with nothing left over.
 */
import { statSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { TestContext } from "node:test";
import { Program } from "../faults/process.js";
import { Random } from "../faults/random.js";
import { World } from "../faults/world.js";
import { type Served, sharedIn } from "./servers.js";
import { all, Hands, ifThere, treeOf } from "./replicas.js";
import { approveAllGone, statusOf } from "./shared.js";

export interface MirroredGiven extends Pick<Served, "device" | "dir" | "server"> {
  readonly seed: number;
  /** Edits. */
  readonly edits: number;
}

export interface MirroredFound {
  readonly edits: number;
  readonly kills: number;
  readonly outages: number;
  readonly files: number;
  /** Things that were renamed at the server, by inode. */
  readonly moved: number;
}

const dirs = ["", "d", "d/e", "f", "g"];
const names = ["a", "b", "c.txt", "d", "ü", "e", "g"];

/** Throws what is wrong. */
export async function mirrored(t: TestContext, { seed, edits, device, dir, server }: MirroredGiven): Promise<MirroredFound> {
  const random = new Random(seed);
  const world = new World(t);
  const served = sharedIn(dir);
  const box = world.mkdir("box");
  const own = { settle: "0s", interval: "1s" };
  const config = world.config({
    devices: { box: { type: "local", dir: "box", ...own }, nas: { ...device, ...own, interval: "5s" } },
    routes: [{ from: "box", to: ["nas"], mode: "mirror", into: "shared", deletes: true, maxDeletes: 10_000 }],
  });
  let program: Program | undefined = new Program(["run", "--json", "--config", config]);
  t.after(() => program?.kill());
  const hands = new Hands(box, world.mkdir("stash"), undefined);
  const place = () => {
    const at = random.pick(dirs);
    return at === "" ? random.pick(names) : `${at}/${random.pick(names)}`;
  };
  /** Where each thing of the server is, by inode. */
  const places = new Map<number, string>();
  let [kills, outages, away, down, content, moved] = [0, 0, 0, 0, 0, 0];
  const look = () => {
    for (const path of all(served)) {
      if (path.startsWith(".filesync/") || path.endsWith("/") || path.endsWith(".part")) continue;
      const { ino, nlink } = ifThere(() => statSync(join(served, path))) ?? { ino: 0, nlink: 0 };
      if (places.has(ino) && places.get(ino) !== path && nlink === 1) moved += 1;
      places.set(ino, path);
    }
  };
  for (let made = 0; made < edits; made++) {
    switch (random.below(8)) {
      case 0:
      case 1: {
        const to = place();
        hands.take(to);
        hands.give(to, `content ${(content += 1)} ${"x".repeat(random.below(20) === 0 ? 300_000 : random.below(3))}`);
        break;
      }
      case 2:
        hands.take(place());
        break;
      case 3:
        hands.append(place(), " more");
        break;
      case 4:
        hands.swap(place(), place());
        break;
      case 5:
        hands.makeDir(random.pick(dirs));
        break;
      default:
        hands.rename(place(), place());
    }
    if (program !== undefined && random.below(25) === 0) {
      await program.kill();
      kills += 1;
      program = undefined;
      // At once, or after some edits.
      down = random.below(2) * 10;
    }
    if (program === undefined && down-- <= 0) program = new Program(["run", "--json", "--config", config]);
    if (away > 0 && --away === 0) await server.replug?.();
    else if (away === 0 && server.unplug !== undefined && random.below(100) === 0) {
      await server.unplug();
      outages += 1;
      away = 10;
    }
    look();
    // Now and then it comes to do what there is to do.
    await sleep(random.below(15) === 0 ? 1500 : random.below(60));
  }
  if (away > 0) await server.replug?.();
  program ??= new Program(["run", "--json", "--config", config]);
  const tree = await quiet(config, box, served, look);
  const litter = all(served).filter((path) => path.endsWith(".part") || /^\.filesync\/away\/[^/]+\/./.test(path));
  if (litter.length > 0) throw new Error(`seed ${seed}: left behind: ${litter.join(", ")}`);
  const troubles = (await statusOf(config)).syncs[0]?.troubles ?? [];
  if (troubles.length > 0) throw new Error(`seed ${seed}: ${JSON.stringify(troubles)}`);
  await program.kill();
  return { edits, kills, outages, files: [...tree.keys()].filter((path) => !path.endsWith("/")).length, moved };
}

/** Until both are the same, and stay so. */
async function quiet(config: string, box: string, served: string, look: () => void): Promise<Map<string, string>> {
  const until = Date.now() + 120_000;
  const text = (root: string) =>
    [...treeOf(root)]
      .sort()
      .map(([path, content]) => `${path}=${content}`)
      .join("\n");
  for (let same = 0; ;) {
    same = text(box) === text(served) ? same + 1 : 0;
    look();
    if (same >= 4) return treeOf(box);
    if (same === 0) await approveAllGone(config);
    if (Date.now() > until) {
      const short = (root: string) =>
        text(root)
          .replaceAll(/x{10,}/g, "x…")
          .replaceAll("\n", " ");
      throw new Error(`it does not follow:\n${short(box)}\n${short(served)}\n${JSON.stringify((await statusOf(config)).syncs)}`);
    }
    await sleep(1000);
  }
}
