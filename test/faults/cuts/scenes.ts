/** What runs while power is cut, and what has to be true after it: of the disks as they are found, and once it has run again. */
import assert from "node:assert/strict";
import {
  chmodSync,
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { dirname } from "node:path";
import { freePort } from "../../conformance/ftp-servers.js";
import { rsyncShell } from "../../conformance/rsync-servers.js";
import { openssh, type SftpServerKind } from "../../conformance/sftp-servers.js";
import { all, treeOf as namesOf } from "../../sync/replicas.js";
import { startGround } from "../ground.js";
import { killedAt } from "../killed-at.js";
import { runProgram } from "../process.js";
import { Random } from "../random.js";
import { assertReceiptsTrue, assertSameTree, treeOf } from "../trees.js";
import type { Scene, SceneIn } from "./disks.js";

type At = (...parts: string[]) => string;

/** Files of an age that has settled, one after the other. */
class Hands {
  readonly random = new Random(5);
  #seconds = 1_780_000_000;
  constructor(readonly at: At) {}

  file(path: string, content: string | Buffer): void {
    mkdirSync(dirname(this.at(path)), { recursive: true });
    writeFileSync(this.at(path), content);
    this.#seconds += 10;
    utimesSync(this.at(path), this.#seconds, this.#seconds);
  }

  config(name: string, config: object): string {
    writeFileSync(this.at(name), JSON.stringify({ vehicle: "v", spool: { keepFree: "1MiB" }, ...config }));
    return this.at(name);
  }
}

async function once(config: string): Promise<void> {
  const { code, out, err } = await runProgram(["run", "--once", "--json", "--config", config]);
  assert.equal(code, 0, out + err);
  assert.ok(!/journal-set-aside|internal error/.test(out + err), out + err);
}

const logs = (hands: Hands, dir = "in/logs"): void => {
  hands.file(`${dir}/empty`, "");
  hands.file(`${dir}/sub/small`, hands.random.bytes(40_000));
  hands.file(`${dir}/large`, hands.random.bytes(3_000_000));
};

/** Each receipt is true, and what has gone from the source is whole at each of the targets. */
function assertNothingLost(
  state: string,
  targets: Record<string, string>,
  expected: Map<string, string>,
  source: string,
  into: string,
): void {
  if (existsSync(`${state}/receipts.jsonl`)) assertReceiptsTrue(state, targets);
  const left = treeOf(source);
  for (const [path, content] of expected)
    if (left.get(path) !== content)
      for (const [target, root] of Object.entries(targets))
        assert.equal(treeOf(`${root}/${into}`).get(path), content, `${path} has gone from its source, and is not at ${target}`);
}

interface SentGiven {
  readonly inPlace: boolean;
  readonly archived?: boolean;
  readonly exfat?: readonly string[];
  /** Before a name, and before a removal, is on the medium: the next run finds both done. */
  readonly killed?: boolean;
}

/** To two directories, and taken away where it was. */
const sent =
  ({ inPlace, archived = false, exfat = [], killed = false }: SentGiven): SceneIn =>
  (at) => {
    const hands = new Hands(at);
    const targets = { a: at("a/to"), b: at("b/to") };
    const goneTo = archived ? "in/logs/old" : "in/logs";
    const config = hands.config("config.json", {
      stateDir: "state/s",
      devices: {
        in: { type: "local", dir: "in/logs", inPlace, ...(archived ? { archiveDir: "old" } : {}) },
        a: { type: "local", dir: "a/to" },
        b: { type: "local", dir: "b/to" },
      },
      routes: [{ from: "in", to: ["a", "b"], into: "x", afterDelivery: archived ? "archive" : "delete" }],
    });
    let expected = new Map<string, string>();
    return {
      disks: ["state", "in", "a", "b"],
      exfat,
      prepare: () => {
        for (const dir of ["a/to/x", "b/to", "state/s", goneTo]) mkdirSync(at(dir), { recursive: true });
        // Of several the next one's sync would do for the one before.
        if (killed) hands.file("in/logs/log", hands.random.bytes(40_000));
        else logs(hands);
        expected = treeOf(at("in/logs"));
      },
      go: async () => {
        const run = ["run", "--once", "--json", "--config", config];
        if (killed) for (const dir of ["a/to/x", goneTo]) await killedAt(run, "fsync", 1, at(dir));
        await once(config);
      },
      check: async () => {
        assertNothingLost(at("state/s"), targets, expected, at("in/logs"), "x");
        await once(config);
        for (const [target, root] of Object.entries(targets)) assertSameTree(treeOf(root), below("x", expected), target);
        assert.equal(assertReceiptsTrue(at("state/s"), targets).size, 2 * expected.size);
        assertSameTree(treeOf(at("in/logs")), archived ? below("old", expected) : new Map(), "where they were");
      },
    };
  };

/** A vehicle sends to the FTP server of a ground station, and takes away what has arrived. */
const ground: SceneIn = async (at) => {
  const hands = new Hands(at);
  const port = await freePort();
  const there = at("ground-files/to/plane");
  const station = { stateDir: "ground-state/s", root: "ground-files/to" };
  const config = hands.config("config.json", {
    stateDir: "state/s",
    devices: {
      in: { type: "local", dir: "in/logs" },
      ftp: { type: "ftp", host: "127.0.0.1", port, user: "plane", password: "secret", root: "/" },
    },
    routes: [{ from: "in", to: ["ftp"], into: "x", afterDelivery: "delete" }],
  });
  let expected = new Map<string, string>();
  const meanwhile = async (work: () => Promise<void>): Promise<void> => {
    const { program } = await startGround(at(), port, station);
    try {
      await work();
    } finally {
      program.signal("SIGTERM");
      await program.exited;
    }
  };
  return {
    disks: ["state", "in", "ground-state", "ground-files"],
    alone: { ground: ["ground-state", "ground-files"], "ground's files": ["ground-files"], vehicle: ["state", "in"] },
    prepare: () => {
      for (const dir of ["ground-files/to", "ground-state/s", "state/s"]) mkdirSync(at(dir));
      logs(hands);
      expected = treeOf(at("in/logs"));
    },
    go: () => meanwhile(() => once(config)),
    check: async () => {
      assertNothingLost(at("state/s"), { ftp: there }, expected, at("in/logs"), "x");
      await meanwhile(() => once(config));
      assertSameTree(treeOf(there), below("x", expected), "the ground");
      assert.equal(assertReceiptsTrue(at("state/s"), { ftp: there }).size, expected.size);
      assert.deepEqual(treeOf(at("in/logs")), new Map());
    },
  };
};

/** A server of another's. */
interface Others {
  readonly kind: SftpServerKind;
  readonly options: object;
}
const bySftp: Others = { kind: openssh, options: { type: "sftp", verify: "readback" } };
const byRsync: Others = { kind: rsyncShell, options: { type: "rsync" } };

/** A directory as a device at that server. */
async function served({ kind, options }: Others, dir: string, work: (device: object) => Promise<void>): Promise<void> {
  const server = await kind.start(dir);
  try {
    await work({ host: "127.0.0.1", port: server.port, root: server.seen, ...server.options, ...options });
  } finally {
    await server.stop();
  }
}

/** One that needs such a server. */
const needing = (server: Others | undefined, scene: SceneIn): SceneIn =>
  server?.kind.skip === undefined ? scene : Object.assign(scene, { skip: server.kind.skip });

/** To or from such a server, which may lose power alone, and taken away where it was. */
const others = (server: Others, way: "to" | "from"): SceneIn =>
  needing(server, (at) => {
    const hands = new Hands(at);
    const [logsAt, arrivedAt] = way === "to" ? [at("here/logs"), at("served/d")] : [at("served/d"), at("here/d")];
    let expected = new Map<string, string>();
    const synced = (): Promise<void> =>
      served(server, at("served/d"), async (server) => {
        const local = { type: "local", dir: way === "to" ? "here/logs" : "here/d" };
        const config = hands.config("config.json", {
          stateDir: "state/s",
          devices: way === "to" ? { in: local, out: server } : { in: server, out: local },
          routes: [{ from: "in", to: ["out"], into: "x", afterDelivery: "delete" }],
        });
        await once(config);
      });
    return {
      disks: ["state", "here", "served"],
      alone: { server: ["served"] },
      prepare: () => {
        // Some servers have users of their own.
        chmodSync(at(), 0o755);
        for (const dir of [arrivedAt, at("state/s")]) mkdirSync(dir);
        logs(hands, way === "to" ? "here/logs" : "served/d");
        expected = treeOf(logsAt);
      },
      go: synced,
      check: async () => {
        assertNothingLost(at("state/s"), { out: arrivedAt }, expected, logsAt, "x");
        await synced();
        assertSameTree(treeOf(arrivedAt), below("x", expected), "where it goes");
        assert.equal(assertReceiptsTrue(at("state/s"), { out: arrivedAt }).size, expected.size);
        assert.deepEqual(treeOf(logsAt), new Map());
      },
    };
  });

/** What a command said that it has done stands: each is noted, on a disk of its own, once it has ended. */
const byHand: SceneIn = (at) => {
  const hands = new Hands(at);
  const config = hands.config("config.json", { stateDir: "state/s", devices: { nas: { type: "local", dir: "nas/d" } }, routes: [] });
  const contents = { large: hands.random.bytes(3_000_000), up: hands.random.bytes(1_200_000) };
  const read = (path: string) => (existsSync(at(path)) ? readFileSync(at(path)) : undefined);
  const isThere = (path: string, content: Buffer) =>
    assert.ok(read(path)?.equals(content) === true, `${path} is not what it was said to be`);
  const isGone = (path: string) => assert.ok(!existsSync(at(path)), `${path} is there again`);
  const steps: readonly { readonly command: readonly string[]; readonly expect: () => void }[] = [
    { command: ["get", "nas:large", at("here/large")], expect: () => isThere("here/large", contents.large) },
    { command: ["put", at("here/up"), "nas:new/up"], expect: () => isThere("nas/d/new/up", contents.up) },
    {
      command: ["mv", "nas:old", "nas:other/name"],
      expect: () => {
        isThere("nas/d/other/name", Buffer.from("moved"));
        isGone("nas/d/old");
      },
    },
    { command: ["rm", "nas:gone"], expect: () => isGone("nas/d/gone") },
  ];
  const done = () => (read("notes/done")?.toString() ?? "").split("\n").length - 1;
  const run = async (): Promise<void> => {
    const first = done();
    for (let n = first; n < steps.length; n++) {
      const { code, out, err } = await runProgram([...(steps[n]?.command ?? []), "--config", config]);
      // What a cut came between was done already.
      assert.ok(code === 0 || n === first, out + err);
      const note = openSync(at("notes/done"), "a");
      writeSync(note, "done\n");
      fsyncSync(note);
      closeSync(note);
    }
  };
  return {
    disks: ["state", "nas", "here", "notes"],
    prepare: () => {
      mkdirSync(at("state/s"));
      writeFileSync(at("notes/done"), "");
      for (const [path, content] of Object.entries({
        "nas/d/large": contents.large,
        "here/up": contents.up,
        "nas/d/old": "moved",
        "nas/d/gone": "gone",
      }))
        hands.file(path, content);
    },
    go: run,
    check: async () => {
      const before = done();
      for (const { expect } of steps.slice(0, before)) expect();
      await run();
      for (const { expect } of steps) expect();
      assert.deepEqual([...treeOf(at("here")).keys(), ...treeOf(at("nas/d")).keys()].sort(), [
        "large",
        "large",
        "new/up",
        "other/name",
        "up",
      ]);
    },
  };
};

interface KeptGiven {
  readonly route: object;
  readonly edits: (hands: Hands) => void;
  /** Both changed something. */
  readonly conflicts?: boolean;
  /** The other one is at a server. */
  readonly server?: Others;
  /** Power may go before what the edits wrote is on a medium. */
  readonly unsynced?: boolean;
}

/** A directory kept the same as another, or both the same, after a day's edits. */
const kept = ({ route, edits, conflicts = false, server, unsynced = false }: KeptGiven): SceneIn =>
  needing(server, (at): Scene => {
    const hands = new Hands(at);
    const configured = (nas: object): string =>
      hands.config("config.json", {
        stateDir: "state/s",
        devices: { box: { type: "local", dir: "box/d", settle: "0s" }, nas: { settle: "0s", ...nas } },
        routes: [{ from: "box", to: ["nas"], into: "", maxDeletes: 100, ...route }],
      });
    const synced = (): Promise<void> =>
      server === undefined
        ? once(configured({ type: "local", dir: "nas/d" }))
        : served(server, at("nas/d"), (nas) => once(configured(nas)));
    const sides = ["box/d", "nas/d"];
    /** Content → a place of it. */
    let known = new Map<string, string>();
    /** Contents that the edits wrote. */
    let written: readonly string[] = [];
    const contents = () => new Map(sides.flatMap((side) => [...treeOf(at(side))].map(([path, content]) => [content, `${side}/${path}`])));
    const shown = () => new Set([...contents()].filter(([, place]) => !place.includes("/.filesync/")).map(([content]) => content));
    const edit = () => {
      const before = contents();
      edits(hands);
      if (written.length === 0) written = [...contents().keys()].filter((content) => !before.has(content));
    };
    const assertKept = (when: string) => {
      const now = contents();
      for (const [content, place] of known) assert.ok(now.has(content), `what was ${place} is nowhere ${when}`);
    };
    return {
      disks: ["state", "box", "nas"],
      alone: server === undefined ? {} : { server: ["nas"] },
      prepare: async () => {
        for (const dir of [...sides, "state/s"]) mkdirSync(at(dir));
        for (const [path, content] of Object.entries({
          replaced: "first",
          moved: "moved",
          "dir/inner": "inner",
          gone: "gone",
          a: "A",
          b: "BB",
        }))
          hands.file(`box/d/${path}`, content);
        hands.file("box/d/dir/deep/x", hands.random.bytes(20_000));
        hands.file("box/d/grown", hands.random.bytes(2_500_000));
        await synced();
        if (!unsynced) edit();
        known = contents();
      },
      go: async () => {
        if (unsynced) edit();
        await synced();
      },
      check: async () => {
        assertKept("after the cut");
        const before = shown();
        await synced();
        assertKept("once it has run again");
        // What the cut left of it at one side is no change of a person's.
        const after = shown();
        for (const content of written) assert.ok(!before.has(content) || after.has(content), "what was written and had arrived is gone");
        assert.deepEqual(namesOf(at("nas/d")), namesOf(at("box/d")));
        // A cut is no conflict.
        assert.equal(
          all(at("box/d")).some((path) => path.includes(".conflict-")),
          conflicts,
        );
        const litter = sides
          .flatMap((side) => all(at(side)))
          .filter((path) => path.endsWith(".part") || /^\.filesync\/away\/[^/]+\/./.test(path));
        assert.deepEqual(litter, []);
      },
    };
  });

/** What a person does in a day. */
function edited(hands: Hands, side: string): void {
  const { at, random } = hands;
  const rename = (from: string, to: string) => renameSync(at(side, from), at(side, to));
  hands.file(`${side}/replaced`, "second, longer");
  rename("moved", "moved-1");
  rename("dir", "dir-1");
  rmSync(at(side, "gone"));
  hands.file(`${side}/grown`, Buffer.concat([readFileSync(at(side, "grown")), random.bytes(400_000)]));
  rename("a", "between");
  rename("b", "a");
  rename("between", "b");
  hands.file(`${side}/new`, random.bytes(1_300_000));
  mkdirSync(at(side, "empty/dir"), { recursive: true });
}

/** Into files that are there, and into new ones, each time the same. */
const wrote =
  (...paths: readonly string[]) =>
  (hands: Hands): void => {
    for (const [n, path] of paths.entries()) hands.file(path, new Random(n).bytes(900_000));
  };

/** The same name at both sides, and what one side removed and the other changed. */
function editedAtBoth(hands: Hands): void {
  edited(hands, "box/d");
  hands.file("nas/d/there", hands.random.bytes(900_000));
  hands.file("nas/d/replaced", "changed there as well");
  hands.file("nas/d/dir/deep/x", "changed where it was");
  hands.file("nas/d/gone", "changed, and removed at the other side");
  rmSync(hands.at("nas/d/grown"));
}

export const scenes: Readonly<Record<string, SceneIn>> = {
  "in place": sent({ inPlace: true }),
  "in place, killed before syncs": sent({ inPlace: true, killed: true }),
  archived: sent({ inPlace: false, archived: true }),
  "archived, killed before syncs": sent({ inPlace: true, archived: true, killed: true }),
  "by hand": byHand,
  "through the spool": sent({ inPlace: false }),
  "from and to exFAT": sent({ inPlace: true, exfat: ["in", "b"] }),
  ground,
  "to an SFTP server": others(bySftp, "to"),
  "from an SFTP server": others(bySftp, "from"),
  "to a server by rsync": others(byRsync, "to"),
  mirror: kept({ route: { mode: "mirror", deletes: true }, edits: (hands) => edited(hands, "box/d") }),
  "two-way": kept({ route: { mode: "two-way" }, edits: editedAtBoth, conflicts: true }),
  "mirror at an SFTP server": kept({ route: { mode: "mirror", deletes: true }, edits: (hands) => edited(hands, "box/d"), server: bySftp }),
  "two-way with an SFTP server": kept({ route: { mode: "two-way" }, edits: editedAtBoth, conflicts: true, server: bySftp }),
  "mirror, written without a sync": kept({
    route: { mode: "mirror", deletes: true },
    edits: wrote("box/d/new", "box/d/replaced", "box/d/dir/inner"),
    unsynced: true,
  }),
  "two-way, written without a sync": kept({
    route: { mode: "two-way" },
    edits: wrote("box/d/new", "box/d/replaced", "nas/d/there", "nas/d/dir/inner"),
    unsynced: true,
  }),
  "two-way with an SFTP server, written without a sync": kept({
    route: { mode: "two-way" },
    edits: wrote("box/d/new", "box/d/replaced", "nas/d/there", "nas/d/dir/inner"),
    server: bySftp,
    unsynced: true,
  }),
  "two-way, from the other side": kept({ route: { mode: "two-way" }, edits: (hands) => edited(hands, "nas/d") }),
};

function below(into: string, tree: ReadonlyMap<string, string>): Map<string, string> {
  return new Map([...tree].map(([path, content]) => [`${into}/${path}`, content]));
}
