/**
 * Three daemons keep three directories the same by one real server, while people edit all four, daemons are killed and the server goes away. Then it is quiet: all
 * directories have to be equal, and each content that nobody overwrote or deleted has to be in them.
 *
 * People work by renames only: what they take away goes to a directory of theirs, so that it is known which content that was.
 */
import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  existsSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  statSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { TestContext } from "node:test";
import { codeOf } from "../../core/errors.js";
import { Program } from "../faults/process.js";
import { Random } from "../faults/random.js";
import { World } from "../faults/world.js";
import { type Served, sharedIn } from "./servers.js";
import { approveAllGone, statusOf } from "./shared.js";

export interface ReplicasGiven extends Pick<Served, "device" | "dir" | "server"> {
  readonly seed: number;
  /** Edits. */
  readonly edits: number;
  /** At the server too: not where a rename replaces, as they take no turns. */
  readonly peopleWrite: boolean;
}

export interface ReplicasFound {
  readonly edits: number;
  readonly kills: number;
  readonly outages: number;
  readonly files: number;
  readonly conflicts: number;
}

const dirs = ["", "d", "d/e", "f"];
const names = ["a", "b", "c.txt", "d", "ü"];

/** Throws what is wrong. */
export async function replicas(t: TestContext, { seed, edits, device, dir, server, peopleWrite }: ReplicasGiven): Promise<ReplicasFound> {
  const random = new Random(seed);
  const world = new World(t);
  const stash = join(dir, "..", "stash");
  const served = sharedIn(dir);
  const { uid, gid } = statSync(dir);
  mkdirSync(stash, { mode: 0o777 });
  for (const made of [served, stash]) chownSync(made, uid, gid);
  const clients = [0, 1, 2].map((n) => {
    const box = world.mkdir(`box${n}`);
    const own = { settle: "0s", interval: "1s" };
    const config = world.config(
      {
        vehicle: `c${n}`,
        stateDir: `state${n}`,
        devices: { box: { type: "local", dir: `box${n}`, ...own }, nas: { ...device, ...own } },
        routes: [{ from: "box", to: ["nas"], mode: "two-way", into: "shared", maxDeletes: 10_000 }],
      },
      `c${n}.json`,
    );
    return { box, config, program: undefined as Program | undefined };
  });
  const begin = (n: number) => {
    const client = clients[n];
    if (client === undefined) return;
    client.program = new Program(["run", "--json", "--config", client.config]);
  };
  const stop = async () => {
    for (const { program } of clients) await program?.kill();
  };
  t.after(stop);
  clients.forEach((_, n) => begin(n));
  const roots = [served, ...clients.map(({ box }) => box)];
  const hands = roots.map((root, n) => new Hands(root, n === 0 ? stash : world.mkdir(`stash${n}`), n === 0 ? { uid, gid } : undefined));
  /** Contents that somebody made, and nobody took away. */
  const kept = new Set<string>();
  let content = 0;
  const place = () => {
    const at = random.pick(dirs);
    return at === "" ? random.pick(names) : `${at}/${random.pick(names)}`;
  };
  let [kills, outages, away] = [0, 0, 0];
  for (let made = 0; made < edits; made++) {
    const hand = random.pick(random.below(8) === 0 && peopleWrite ? hands.slice(0, 1) : hands.slice(1));
    switch (random.below(6)) {
      case 0:
      case 1:
      case 2: {
        const text = `content ${(content += 1)} ${"x".repeat(random.below(20) === 0 ? 300_000 : random.below(3))}`;
        const to = place();
        for (const gone of hand.take(to)) kept.delete(gone);
        if (hand.give(to, text)) kept.add(text);
        break;
      }
      case 3:
        for (const gone of hand.take(place())) kept.delete(gone);
        break;
      case 4:
        // What finds its new name taken is thrown away.
        for (const gone of hand.rename(place(), place())) kept.delete(gone);
        break;
      default:
        hand.makeDir(random.pick(dirs));
    }
    if (random.below(40) === 0) {
      const n = random.below(clients.length);
      await clients[n]?.program?.kill();
      kills += 1;
      begin(n);
    }
    if (away > 0 && --away === 0) await server.replug?.();
    else if (away === 0 && server.unplug !== undefined && random.below(150) === 0) {
      await server.unplug();
      outages += 1;
      away = 10;
    }
    await sleep(random.below(30));
  }
  if (away > 0) await server.replug?.();
  const trees = await quiet(clients, roots);
  const live = new Set(trees.flatMap((tree) => [...tree.values()]));
  const lost = [...kept].filter((text) => !live.has(text)).map((text) => text.trimEnd().slice(0, 20));
  if (lost.length > 0) throw new Error(`seed ${seed}: lost ${lost.join(", ")}\n${placesOf([...roots, stash], lost)}`);
  const litter = roots.flatMap((root) => all(root).filter((path) => path.endsWith(".part")));
  if (litter.length > 0) throw new Error(`seed ${seed}: left behind: ${litter.join(", ")}`);
  for (const { config } of clients) {
    const left = (await statusOf(config)).syncs[0]?.troubles ?? [];
    if (left.length > 0) throw new Error(`seed ${seed}: ${JSON.stringify(left)}`);
  }
  await stop();
  const files = [...(trees[0] ?? [])].filter(([path]) => !path.endsWith("/"));
  return { edits, kills, outages, files: files.length, conflicts: files.filter(([path]) => path.includes(".conflict-")).length };
}

/** Until all are the same, and stay so. */
async function quiet(clients: readonly { readonly config: string; readonly program: Program | undefined }[], roots: readonly string[]) {
  const until = Date.now() + 120_000;
  let same = 0;
  for (;;) {
    const trees = roots.map(treeOf);
    const texts = trees.map((tree) =>
      [...tree]
        .sort()
        .map(([path, text]) => `${path}=${text}`)
        .join("\n"),
    );
    same = texts.every((text) => text === texts[0]) ? same + 1 : 0;
    if (same >= 4) return trees;
    if (same === 0) for (const { config, program } of clients) if (program !== undefined) await approveAllGone(config);
    if (Date.now() > until) {
      const states = await Promise.all(clients.map(({ config }) => statusOf(config)));
      const short = trees.map((tree) =>
        [...tree]
          .sort()
          .map(([path, text]) => `${path}=${text.trimEnd().slice(0, 14)}`)
          .join(" "),
      );
      throw new Error(`they do not become the same:\n${short.join("\n")}\n${states.map(({ syncs }) => JSON.stringify(syncs)).join("\n")}`);
    }
    await sleep(1000);
  }
}

/** Path → content; directories end with "/". Without what is FileSync's own. What goes while it is read is not in it. */
export function treeOf(root: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const path of all(root)) {
    if (path === ".filesync/" || path.startsWith(".filesync/") || path.endsWith(".part")) continue;
    const text = path.endsWith("/") ? "" : ifThere(() => readFileSync(join(root, path), "utf8"));
    if (text !== undefined) found.set(path, text);
  }
  return found;
}

export function all(root: string): string[] {
  const listed = ifThere(() => readdirSync(root, { recursive: true, withFileTypes: true, encoding: "utf8" }));
  // A directory went away meanwhile.
  if (listed === undefined) return all(root);
  return listed.map((entry) => {
    const path = join(entry.parentPath, entry.name).slice(root.length + 1);
    return entry.isDirectory() ? `${path}/` : path;
  });
}

/** Undefined for what has gone since it was listed, with its directory perhaps, or has become something else. */
export function ifThere<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch (error) {
    if (["ENOENT", "ENOTDIR", "EISDIR"].includes(codeOf(error))) return undefined;
    throw error;
  }
}

function placesOf(roots: readonly string[], texts: readonly string[]): string {
  return roots
    .flatMap((root) =>
      all(root).flatMap((path) => {
        const at = join(root, path);
        const text = path.endsWith("/") ? "" : (ifThere(() => readFileSync(at, "utf8")) ?? "");
        return texts.some((lost) => text.startsWith(lost)) ? [`${text.trimEnd().slice(0, 20)} is at ${at}`] : [];
      }),
    )
    .join("\n");
}

/** A person at one directory. */
export class Hands {
  static #made = 0;
  #count = 0;

  constructor(
    readonly root: string,
    readonly stash: string,
    readonly owner: { readonly uid: number; readonly gid: number } | undefined,
  ) {}

  /** Takes a file, or a directory with all that is in it, away: the contents. */
  take(path: string): string[] {
    const aside = join(this.stash, String((this.#count += 1)));
    return this.#try(() => renameSync(join(this.root, path), aside)) ? contentsAt(aside) : [];
  }

  /** false: something else has that name. */
  give(path: string, text: string): boolean {
    const aside = join(this.stash, String((this.#count += 1)));
    writeFileSync(aside, text);
    // Older than a moment, as most files are, and of no other's second: what keeps size and time is not seen.
    const at = 1_780_000_000 + (Hands.#made += 1);
    utimesSync(aside, at, at);
    this.#own(aside);
    return this.#try(() => linkSync(aside, join(this.root, path)));
  }

  /** What found no place. */
  rename(from: string, to: string): string[] {
    const aside = join(this.stash, String((this.#count += 1)));
    if (!this.#try(() => renameSync(join(this.root, from), aside))) return [];
    if (statSync(aside).isDirectory()) {
      // A directory can only be moved to a name that is an empty directory, or none.
      return this.#try(() => renameSync(aside, join(this.root, to))) ? [] : contentsAt(aside);
    }
    return this.#try(() => linkSync(aside, join(this.root, to))) ? [] : contentsAt(aside);
  }

  /** To a file; nothing else is changed. */
  append(path: string, text: string): void {
    this.#try(() => {
      const file = openSync(join(this.root, path), constants.O_WRONLY | constants.O_APPEND);
      writeSync(file, text);
      closeSync(file);
    });
  }

  /** Each gets the other's name, where neither is in the other. */
  swap(one: string, two: string): void {
    const [at, there, aside] = [join(this.root, one), join(this.root, two), join(this.stash, String((this.#count += 1)))];
    if (`${at}/`.startsWith(`${there}/`) || `${there}/`.startsWith(`${at}/`) || !existsSync(there)) return;
    if (!this.#try(() => renameSync(at, aside))) return;
    renameSync(there, at);
    renameSync(aside, there);
  }

  makeDir(path: string): void {
    if (path === "") return;
    if (this.#try(() => mkdirSync(join(this.root, path)))) {
      this.#own(join(this.root, path));
      chmodSync(join(this.root, path), 0o777);
    } else this.#try(() => rmdirSync(join(this.root, path)));
  }

  #own(path: string): void {
    if (this.owner !== undefined) chownSync(path, this.owner.uid, this.owner.gid);
  }

  #try(work: () => void): boolean {
    try {
      work();
      return true;
    } catch (error) {
      const code = error instanceof Error && "code" in error ? String(error.code) : "";
      if (["ENOENT", "EEXIST", "ENOTDIR", "ENOTEMPTY", "EISDIR", "EINVAL", "EPERM"].includes(code)) return false;
      throw error;
    }
  }
}

function contentsAt(path: string): string[] {
  if (!statSync(path).isDirectory()) return [readFileSync(path, "utf8")];
  return readdirSync(path).flatMap((name) => contentsAt(join(path, name)));
}
