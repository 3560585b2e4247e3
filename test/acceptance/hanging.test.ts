/** A file system that hangs (an NFS whose server is away, a card that dies): what is on it waits, a person is told, and nothing else does. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { suite, test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Client } from "basic-ftp";
import { until } from "../conformance/clause.js";
import { Program, runProgram } from "../faults/process.js";
import { World } from "../faults/world.js";
import { mountExfat, unmount } from "../small-disk.js";
import { masked } from "./said.js";

const root = fileURLToPath(new URL("../../..", import.meta.url));

const local = (dir: string, more = {}) => ({ type: "local", dir, interval: "1s", ...more });

interface Hanging {
  readonly world: World;
  readonly hang: () => void;
  /** With nothing under way there: who waits for what the driver has taken already cannot be killed by anybody. */
  readonly hangAtRest: (program: Program) => Promise<void>;
  readonly goOn: () => void;
}

/** Its driver is a process, which is stopped. */
function withHanging(t: TestContext): Hanging | undefined {
  let made: World | undefined;
  let driver = 0;
  const signal = (name: "SIGSTOP" | "SIGCONT") => driver !== 0 && process.kill(driver, name);
  // Before what the world does then: what hangs there could not be killed.
  t.after(() => {
    signal("SIGCONT");
    if (made !== undefined) unmount(made.path("disk"));
  });
  const world = (made = new World(t));
  const why = mountExfat(world.path("disk.img"), world.mkdir("disk"));
  if (why !== undefined) {
    t.skip(why);
    return undefined;
  }
  const { stdout } = spawnSync("pgrep", ["-f", `mount.exfat-fuse .* ${world.path("disk")}$`], { encoding: "utf8" });
  // Where a link leads is known without a look at what hangs.
  symlinkSync(".", world.path("way"));
  driver = Number(stdout.trim());
  assert.ok(driver > 0, stdout);
  const hang = (): void => void signal("SIGSTOP");
  const hangAtRest = async (program: Program): Promise<void> => {
    program.signal("SIGSTOP");
    await until("that the program stands still", () => statesOf(program.pid).every((state) => state === "T"));
    await until("that the driver waits for something to do", () => statesOf(driver).every((state) => state === "S"));
    hang();
    program.signal("SIGCONT");
  };
  return { world, hang, hangAtRest, goOn: () => void signal("SIGCONT") };
}

/** Of its threads, as proc(5) tells them: "S" sleeps until something is asked of it, "D" waits for a disk, "T" is stopped. */
function statesOf(pid: number): string[] {
  const tasks = `/proc/${pid}/task`;
  return readdirSync(tasks).map((task) => /\) (\S)/.exec(readFileSync(`${tasks}/${task}/stat`, "utf8"))?.[1] ?? "");
}

/** As it is started where it is installed. */
const threads = /UV_THREADPOOL_SIZE:-(\d+)/.exec(readFileSync(join(root, "deploy/filesync"), "utf8"))?.[1];
const env = { ...process.env, UV_THREADPOOL_SIZE: threads };

interface Said {
  readonly devices: readonly { readonly name: string; readonly presence: string; readonly reason?: string }[];
}

/** The others arrive, it is told, and once it answers all is in `last`. */
async function goesOn({ world, goOn }: Hanging, program: Program, last: string): Promise<void> {
  const arrived = (dir: string) => readdirSync(world.path(dir)).filter((name) => !name.startsWith(".")).length;
  for (let n = 0; n < 10; n++) world.file(`other/${n}`, Buffer.alloc(100_000, n));
  await until("that the others arrive", () => arrived("there") === 10);
  await program.until(({ what, message }) => what === "detached" && message.startsWith("hung"), "that it is told");
  const { code, out } = await runProgram(["status", "--json", "--config", world.path("config.json")]);
  assert.equal(code, 0);
  const hung = (JSON.parse(out) as Said).devices.find(({ name }) => name === "hung");
  assert.equal(masked(hung?.reason ?? "", world.dir), "DIR/way/disk does not answer: its file system hangs");
  goOn();
  await until("that all arrive", () => arrived(last) === 30);
  for (let n = 0; n < 30; n++) assert.deepEqual(readFileSync(world.path(last, `${n}`)), Buffer.alloc(500_000, n));
}

suite("a file system that hangs", { concurrency: true }, () => {
  for (const [role, devices, routes] of [
    ["target", { away: local("in"), hung: local("way/disk") }, { from: "away", to: ["hung"] }],
    ["source", { hung: local("way/disk", { inPlace: false }), away: local("out") }, { from: "hung", to: ["away"] }],
    ["source read in place", { hung: local("way/disk"), away: local("out") }, { from: "hung", to: ["away"] }],
  ] as const)
    for (const when of ["before the start", "while it is used"] as const)
      test(`${role}, ${when}`, async (t) => {
        const disk = withHanging(t);
        if (disk === undefined) return;
        const { world } = disk;
        for (const dir of ["in", "out", "other", "there"]) world.mkdir(dir);
        const [first, last] = role === "target" ? ["in", "disk"] : ["disk", "out"];
        for (let n = 0; n < 30; n++) world.file(`${first}/${n}`, Buffer.alloc(500_000, n));
        const config = world.config({
          devices: { ...devices, other: local("other", { inPlace: false }), there: local("there") },
          routes: [
            { ...routes, into: "" },
            { from: "other", to: ["there"], into: "" },
          ],
        });
        if (when === "before the start") disk.hang();
        const program = new Program(["run", "--json", "--config", config], { env });
        if (when === "while it is used") {
          await program.until(({ what }) => what === "delivered", "that something is delivered");
          disk.hang();
        }
        await goesOn(disk, program, last);
      });

  test("what the FTP server serves there is refused, and served once it answers", async (t) => {
    const disk = withHanging(t);
    if (disk === undefined) return;
    const { world } = disk;
    world.file("disk/ftp/a", "content of a");
    const config = world.config({
      services: { ftp: { type: "ftp-server", listen: "127.0.0.1:0", root: "disk/ftp", users: { u: { password: "p", root: "" } } } },
    });
    const program = new Program(["run", "--json", "--config", config], { env });
    const port = (await program.until(({ message }) => message.startsWith("ftp: FTP server listens"), "that it listens")).facts
      ?.port as number;
    const client = new Client(0);
    t.after(() => client.close());
    await client.access({ host: "127.0.0.1", port, user: "u", password: "p" });
    disk.hang();
    await program.until(({ what, message }) => what === "detached" && message.startsWith("ftp"), "that it is told");
    await assert.rejects(client.list(), /451 The disk of this server is not mounted, or does not answer/);
    disk.goOn();
    await program.until(
      ({ what }) => what === "attached" && program.events.filter((it) => it.what === "attached").length > 1,
      "that it is there again",
    );
    assert.deepEqual(
      (await client.list()).map(({ name }) => name),
      ["a"],
    );
  });

  test("it ends when it is asked to", async (t) => {
    const disk = withHanging(t);
    if (disk === undefined) return;
    const { world } = disk;
    world.file("in/a", "content of a");
    const config = world.config({
      devices: { in: local("in"), hung: local("way/disk") },
      routes: [{ from: "in", to: ["hung"], into: "" }],
    });
    const program = new Program(["run", "--json", "--config", config], { env });
    await program.until(({ what }) => what === "delivered", "that it is delivered");
    await disk.hangAtRest(program);
    world.file("in/b", "content of b");
    await program.until(({ what, message }) => what === "detached" && message.startsWith("hung"), "that it is told");
    program.signal("SIGTERM");
    assert.match(await program.ending(20_000), /^it ended with SIGKILL/);
    disk.goOn();
    assert.equal((await runProgram(["run", "--once", "--config", config])).code, 0);
    assert.deepEqual(readdirSync(world.path("disk")).sort(), ["a", "b"]);
  });

  test("without a daemon: what is asked of it is told, and each command ends", async (t) => {
    const disk = withHanging(t);
    if (disk === undefined) return;
    const { world } = disk;
    world.file("disk/a", "content of a");
    world.mkdir("out");
    // Each with a state of its own: what runs would be asked by the others.
    const config = (stateDir: string) =>
      world.config(
        { stateDir, devices: { hung: local("disk"), out: local("out") }, routes: [{ from: "hung", to: ["out"], into: "" }] },
        `${stateDir}.json`,
      );
    disk.hang();
    const [probed, once, listed] = await Promise.all(
      [
        ["check", "--probe"],
        ["run", "--once"],
        ["ls", "hung:"],
      ].map((words) => runProgram([...words, "--config", config(words[0] ?? "")])),
    );
    const hangs = /disk does not answer: its file system hangs/;
    assert.match(probed?.out ?? "", hangs);
    assert.match(once?.out ?? "", /hung could not be listed/);
    assert.match(listed?.err ?? "", hangs);
    assert.deepEqual([probed?.code, once?.code, listed?.code], ["SIGKILL", "SIGKILL", "SIGKILL"]);
    disk.goOn();
    assert.equal((await runProgram(["run", "--once", "--config", config("run")])).code, 0);
    assert.deepEqual(readdirSync(world.path("out")), ["a"]);
  });

  for (const role of ["target", "source"] as const)
    test(`run --once waits for a ${role} that takes its time, as a disk that spins up does`, async (t) => {
      const disk = withHanging(t);
      if (disk === undefined) return;
      const { world } = disk;
      const [from, to] = role === "target" ? ["other", "disk"] : ["disk", "other"];
      world.mkdir("other");
      world.file(`${from}/a`, "content of a");
      const config = world.config({ devices: { from: local(from), to: local(to) }, routes: [{ from: "from", to: ["to"], into: "" }] });
      disk.hang();
      const ended = runProgram(["run", "--once", "--config", config], { env });
      // A look that hangs for longer is given up.
      let isOver = false;
      void ended.then(() => (isOver = true));
      await sleep(18_000);
      assert.ok(!isOver);
      disk.goOn();
      const { code, out } = await ended;
      assert.deepEqual([code, readdirSync(world.path(to))], [0, ["a"]], out);
    });
});
