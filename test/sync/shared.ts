/** A directory of this machine and one of a real server, and a person at both. */
import assert from "node:assert/strict";
import { chownSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import type { TestContext } from "node:test";
import { isDeepStrictEqual } from "node:util";
import { codeOf } from "../../core/errors.js";
import type { Status } from "../../core/status.js";
import { Program, runProgram, statusNow } from "../faults/process.js";
import { World } from "../faults/world.js";
import { openssh, type Served } from "./servers.js";

/** A person's hands on both directories. */
export class Shared {
  readonly box: string;
  readonly nas: string;
  readonly #uid: number;
  readonly #gid: number;

  constructor(
    readonly world: World,
    readonly served: Pick<Served, "dir" | "device">,
  ) {
    this.box = world.mkdir("box");
    this.nas = join(served.dir, "shared");
    ({ uid: this.#uid, gid: this.#gid } = statSync(served.dir));
    mkdirSync(this.nas);
    this.#own(this.nas);
  }

  config(route: object, more: object = {}, nas: object = {}): string {
    const often = { settle: "0s", interval: "1s" };
    return this.world.config({
      devices: {
        box: { type: "local", dir: "box", ...often },
        nas: { ...this.served.device, ...often, ...nas },
      },
      routes: [{ from: "box", to: ["nas"], into: "shared", ...route }],
      ...more,
    });
  }

  /** undefined removes it. */
  put(side: "here" | "there", path: string, content: string | undefined): void {
    const at = join(side === "here" ? this.box : this.nas, path);
    if (content === undefined) {
      rmSync(at, { force: true, recursive: true });
      return;
    }
    if (side === "here") {
      this.world.comes(at, content);
      return;
    }
    this.world.comes(at, content, (written) => this.#own(written), this.served.dir);
    for (let dir = dirname(at); dir !== this.nas; dir = dirname(dir)) this.#own(dir);
  }

  /** Path → content, without what is FileSync's own; directories end with "/". */
  tree(side: "here" | "there"): Record<string, string> {
    return treeOf(side === "here" ? this.box : this.nas, (path) => path !== ".filesync");
  }

  /** Both hold the same. */
  isEven(): boolean {
    return isDeepStrictEqual(this.tree("here"), this.tree("there"));
  }

  /** Contents in the trash, by the path that they had; the last of each. */
  trash(side: "here" | "there"): Record<string, string> {
    return Object.fromEntries(this.trashed(side));
  }

  /** All of them. */
  trashed(side: "here" | "there"): [path: string, content: string][] {
    const dir = join(side === "here" ? this.box : this.nas, ".filesync/trash");
    const all = existsSync(dir) ? treeOf(dir, () => true) : {};
    return Object.entries(all).flatMap(([path, content]) => (path.endsWith("/") ? [] : [[path.split("/").slice(2).join("/"), content]]));
  }

  /** Sizes at the server of what has no name yet. */
  parts(): number[] {
    const dir = join(this.nas, ".filesync/staged");
    const names = existsSync(dir) ? readdirSync(dir) : [];
    return names.map((name) => statSync(join(dir, name), { throwIfNoEntry: false })?.size ?? 0);
  }

  #own(path: string): void {
    chownSync(path, this.#uid, this.#gid);
  }
}

/** Without what is moved or removed while it is looked at. */
function treeOf(root: string, wanted: (path: string) => boolean): Record<string, string> {
  const found: Record<string, string> = {};
  const walk = (dir: string) => {
    for (const entry of readdirSync(join(root, dir), { withFileTypes: true })) {
      const path = dir === "" ? entry.name : `${dir}/${entry.name}`;
      if (!wanted(path)) continue;
      try {
        if (entry.isDirectory()) {
          walk(path);
          found[`${path}/`] = "";
        } else found[path] = readFileSync(join(root, path), "utf8");
      } catch (error) {
        if (codeOf(error) !== "ENOENT") throw error;
      }
    }
  };
  walk("");
  return found;
}

/** By OpenSSH that allows nothing but SFTP, or by another server. */
export async function shared(t: TestContext, kind = openssh): Promise<Shared> {
  const served = await kind.start();
  t.after(() => served.stop());
  return new Shared(new World(t), served);
}

export async function once(config: string, code = 0): Promise<string> {
  const ran = await runProgram(["run", "--once", "--config", config]);
  assert.equal(ran.code, code, ran.out + ran.err);
  return ran.out + ran.err;
}

/** Of a1 to a6, the same on both sides, half are removed here: a program whose `maxDeletes` is 2 stops. What it says. */
export async function stopped(
  t: TestContext,
  both: Shared,
  config: string,
): Promise<{ readonly program: Program; readonly message: string }> {
  for (let n = 1; n <= 6; n++) both.put("here", `a${n}`, String(n));
  await once(config);
  for (let n = 1; n <= 3; n++) both.put("here", `a${n}`, undefined);
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  const { message } = await program.until(({ what }) => what === "sync-stopped", "it stops");
  assert.equal(Object.keys(both.tree("there")).length, 6);
  return { program, message };
}

export async function statusOf(config: string): Promise<Status> {
  const { out, err } = await runProgram(["status", "--json", "--config", config]);
  assert.notEqual(out, "", err);
  return JSON.parse(out) as Status;
}

/** A person says yes where a route waits because all of it would be removed: what is edited at random may be two files, and both go. */
export async function approveAllGone(config: string): Promise<void> {
  // Where a daemon is being started on a busy machine nobody answers: who calls this asks again.
  const [sync] = (await statusNow(config).catch(() => undefined))?.syncs ?? [];
  if (sync?.state !== "stopped" || sync.reason?.startsWith("everything (") !== true) return;
  const { code, out, err } = await runProgram(["approve", sync.route, "--config", config]);
  // It may have gone on by itself, or is another question by now.
  assert.ok(code === 0 || /does not wait for an approval|nothing is approved/.test(err), out + err);
}
