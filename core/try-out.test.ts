/** A server in memory that does one thing otherwise than it should; and one that fails at each request in turn. */
import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { test } from "node:test";
import { Fault, isFault } from "./errors.js";
import type { FileEntry, TreePromises } from "./plugin.js";
import { tryOut, type Tried } from "./try-out.js";

const calm = new AbortController().signal;

interface Ways {
  readonly renameReplaces?: true;
  /** A rename looks, and acts after others had their turn. */
  readonly renameLooksFirst?: true;
  readonly publishReplaces?: true;
  readonly mkdirSaysYes?: true;
  readonly rmdirTakesAll?: true;
  readonly moveMakesDirs?: true;
  /** Called before each request. */
  readonly before?: (request: string) => void;
}

type Node = Buffer | "directory";

class Memory implements Tried {
  readonly things = new Map<string, Node>([["here", "directory"]]);
  readonly asked: string[] = [];
  /** What is asked before the answers of a round come goes in that round. */
  rounds = 0;
  #round: Promise<void> | undefined;

  constructor(readonly ways: Ways = {}) {}

  async #turn(request: string): Promise<void> {
    this.#round ??= new Promise((resolve) =>
      setImmediate(() => {
        this.rounds += 1;
        this.#round = undefined;
        resolve();
      }),
    );
    await this.#round;
    this.asked.push(request);
    this.ways.before?.(request);
  }

  #told(path: string, node: Node): FileEntry {
    if (node === "directory") return { path, kind: "directory", size: 0 };
    return { path, kind: "file", size: node.length };
  }

  #below(dir: string): string[] {
    return [...this.things.keys()].filter((path) => path.startsWith(`${dir}/`));
  }

  #take(path: string): Node {
    const node = this.things.get(path);
    if (node === undefined) throw new Fault("missing", `no ${path}`);
    this.things.delete(path);
    return node;
  }

  readonly tree: Tried["tree"] = {
    list: (dir) => this.#list(dir),
    stat: async (path) => {
      await this.#turn(`stat ${path}`);
      const node = this.things.get(path);
      return node === undefined ? undefined : this.#told(path, node);
    },
    mkdir: async (path) => {
      await this.#turn(`mkdir ${path}`);
      this.things.set(path, "directory");
    },
    makeNew: async (path) => {
      await this.#turn(`mkdir ${path}`);
      if (this.things.has(path)) return this.ways.mkdirSaysYes === true;
      this.things.set(path, "directory");
      return true;
    },
    move: async (from, to, _expect, _signal, how) => {
      await this.#turn(`move ${from}`);
      const dir = to.slice(0, to.lastIndexOf("/"));
      if (how?.made === true && !this.things.has(dir)) {
        if (this.ways.moveMakesDirs !== true) throw new Fault("missing", dir);
        this.things.set(dir, "directory");
      }
      this.things.set(to, this.#take(from));
    },
    remove: async (path) => {
      await this.#turn(`remove ${path}`);
      this.#take(path);
    },
    rmdir: async (path) => {
      await this.#turn(`rmdir ${path}`);
      if (this.#below(path).length > 0) throw new Fault("conflict", "not empty");
      this.#take(path);
    },
  };

  async *#list(dir: string): AsyncGenerator<FileEntry> {
    await this.#turn(`list ${dir}`);
    if (!this.things.has(dir)) throw new Fault("missing", `no ${dir}`);
    for (const path of this.#below(dir))
      if (!path.slice(dir.length + 1).includes("/")) yield this.#told(path, this.things.get(path) ?? "directory");
  }

  readonly source = {
    open: async ({ path }: FileEntry): Promise<Readable> => {
      await this.#turn(`read ${path}`);
      const node = this.things.get(path);
      if (node === undefined || node === "directory") throw new Fault("missing", `no ${path}`);
      return Readable.from([node]);
    },
  };

  readonly publish: Tried["publish"] = async (upload) => {
    const { path } = upload;
    const content = await buffer(upload.read(0, calm));
    await this.#turn(`publish ${path}`);
    if (this.things.has(path) && this.ways.publishReplaces !== true) return false;
    this.things.set(path, content);
    return true;
  };

  readonly rename: NonNullable<Tried["rename"]> = async (from, to) => {
    await this.#turn(`rename ${from}`);
    if (this.things.has(to) && this.ways.renameReplaces !== true) return false;
    if (this.ways.renameLooksFirst === true) await this.#turn(`rename ${from}`);
    this.things.set(to, this.#take(from));
    return true;
  };

  readonly rmdir: NonNullable<Tried["rmdir"]> = async (path) => {
    await this.#turn(`rmdir ${path}`);
    if (this.#below(path).length > 0 && this.ways.rmdirTakesAll !== true) return false;
    for (const one of [path, ...this.#below(path)]) this.things.delete(one);
    return true;
  };
}

const all: TreePromises = { exclusive: "names", rmdirIsSafe: true };

const cases: readonly (readonly [string, Ways, Partial<Record<keyof TreePromises, unknown>>])[] = [
  ["one that keeps all", {}, {}],
  ["a rename that replaces", { renameReplaces: true }, { exclusive: "directories" }],
  ["a rename that looks first", { renameLooksFirst: true }, { exclusive: "directories" }],
  ["publishing that replaces", { publishReplaces: true }, { exclusive: "directories" }],
  ["that, and MKDIR says yes to what is there", { renameReplaces: true, mkdirSaysYes: true }, { exclusive: "nothing" }],
  ["that, and a move makes what is missing of a path", { renameReplaces: true, moveMakesDirs: true }, { exclusive: "nothing" }],
  ["rmdir takes all", { rmdirTakesAll: true }, { rmdirIsSafe: false }],
];

for (const [name, ways, changed] of cases)
  test(`tried out: ${name}`, async () => {
    const server = new Memory(ways);
    const wanted = Object.entries({ ...all, ...changed }).filter(([, value]) => value !== undefined);
    assert.deepEqual(await tryOut(server, "here", calm), Object.fromEntries(wanted));
    assert.deepEqual([...server.things.keys()], ["here"], "something is left");
    assert.ok(server.asked.length < 80, `${server.asked.length} requests`);
  });

test("what does not wait for another is asked at once: over a line with latency each round takes its time", async () => {
  const { rounds } = await tried();
  assert.ok(rounds <= 15, `${rounds} rounds`);
});

test("where the last steps cannot be tried alone, they are not relied on", async () => {
  const { tree, source, publish } = new Memory();
  assert.deepEqual(await tryOut({ tree, source, publish }, "here", calm), { exclusive: "directories", rmdirIsSafe: false });
});

/** Those of a trial, before it begins to take away what it made. */
async function work(): Promise<readonly string[]> {
  const { asked } = await tried();
  return asked.slice(
    0,
    asked.findLastIndex((request) => /^list here\/[^/]*$/.test(request)),
  );
}

async function tried(server = new Memory()): Promise<Memory> {
  await tryOut(server, "here", calm);
  return server;
}

test("a failure at any request is told as it is, and nothing is left or under way", async () => {
  for (const [n, what] of (await work()).entries()) {
    let left = n;
    const server: Memory = new Memory({
      before: () => {
        if (left-- === 0) throw new Fault("offline", `request ${n} failed`);
      },
    });
    await assert.rejects(tryOut(server, "here", calm), (error) => isFault(error, "offline") && error.message === `request ${n} failed`);
    assert.deepEqual([...server.things.keys()], ["here"], `after ${what}`);
    const { length } = server.asked;
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(server.asked.length, length, `after ${what}`);
  }
});

test("a failure of what was only asked because it was asked at once is none", async () => {
  for (const [ways, failing] of [
    [{ renameReplaces: true }, /^(rename .*\/[012]|publish .*\/published)$/],
    [{ mkdirSaysYes: true }, /^(mkdir .*\/dir-0|move .*\/stray)$/],
  ] as const) {
    const before = (request: string): void => {
      if (failing.test(request)) throw new Fault("denied", "no rights");
    };
    const known = await tryOut(new Memory(ways), "here", calm);
    assert.deepEqual(await tryOut(new Memory({ ...ways, before }), "here", calm), known, failing.source);
  }
});

test("what cannot be taken away is in the message, after a failure and after none", async () => {
  const failing = (why: string) => (request: string) => {
    if (request.startsWith("remove")) throw new Fault("denied", "no rights");
    if (why !== "" && request.startsWith("rename")) throw new Fault("offline", why);
  };
  for (const [why, kind, match] of [
    ["", "denied", /^here\/\.filesync-try-[0-9a-f]{16} could not be taken away: no rights$/],
    ["it has gone", "offline", /^it has gone; here\/\.filesync-try-[0-9a-f]{16} could not be taken away: no rights$/],
  ] as const)
    await assert.rejects(
      tryOut(new Memory({ before: failing(why) }), "here", calm),
      (error) => isFault(error, kind) && match.test(error.message),
    );
});

test("a stop at any request ends it, and what was made is taken away", async () => {
  for (const [n, what] of (await work()).entries()) {
    const stop = new AbortController();
    let stopped = 0;
    const server: Memory = new Memory({
      before: () => {
        if (server.asked.length === n + 1) stop.abort();
        if (stop.signal.aborted && stopped++ === 0) throw new Fault("aborted", "stopped");
      },
    });
    await assert.rejects(tryOut(server, "here", stop.signal), (error) => isFault(error, "aborted"), what);
    assert.deepEqual([...server.things.keys()], ["here"], what);
  }
});
