/** A directory on a disk that is not mounted: nothing is written into its mount point, a person is told, and what waits goes there once it is mounted. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync, statfsSync, symlinkSync } from "node:fs";
import { suite, test, type TestContext } from "node:test";
import { Client } from "basic-ftp";
import { until } from "../conformance/clause.js";
import { Program, runProgram } from "../faults/process.js";
import { World } from "../faults/world.js";
import { unmountIdle } from "../small-disk.js";
import { masked } from "./said.js";

const local = (dir: string, more = {}) => ({ type: "local", dir, ...more });

interface Said {
  readonly devices: readonly { readonly name: string; readonly presence: string; readonly reason?: string }[];
}

/** "detached: …" of a device. */
async function presenceOf(name: string, config: string, world: World): Promise<string> {
  const { devices } = JSON.parse((await runProgram(["status", "--json", "--config", config])).out) as Said;
  const { presence, reason } = devices.find((it) => it.name === name) ?? { presence: "none" };
  return masked(reason === undefined ? presence : `${presence}: ${reason}`, world.dir);
}

function withDisk(t: TestContext): { readonly world: World; mount(): void; unmount(): Promise<void> } | undefined {
  const world = new World(t);
  if (!world.mount("disk", 16)) {
    t.skip("no file system can be mounted here");
    return undefined;
  }
  const run = (...words: string[]) => assert.equal(spawnSync(words[0] ?? "", words.slice(1)).status, 0);
  return {
    world,
    mount: () => run("mount", "-o", "loop", world.path("disk.img"), world.path("disk")),
    unmount: () => unmountIdle(world.path("disk")),
  };
}

const tmpfs = 0x01021994;

const notMounted = `DIR/disk is not mounted: mount it, or say "mounted": false where DIR/disk/logs is to be used without`;

suite("a disk that is not mounted", { concurrency: true }, () => {
  for (const create of [false, true])
    test(`local, ${create ? "made where it is missing" : "also with its directory in the mount point"}: files wait until the disk is mounted`, async (t) => {
      const disk = withDisk(t);
      if (disk === undefined) return;
      const { world } = disk;
      world.mkdir("disk/logs");
      world.file("in/a", "content of a");
      const write = (more = {}) =>
        world.config({
          devices: { in: local("in", { interval: "1s" }), out: local("disk/logs", { create, ...more }) },
          routes: [{ from: "in", to: ["out"], into: "" }],
        });
      const config = write();
      const program = new Program(["run", "--json", "--config", config]);
      await program.until(({ message }) => message.startsWith("in:a → out:a"), "that it is delivered");
      await disk.unmount();
      if (!create) world.mkdir("disk/logs");
      await program.until(({ what, message }) => what === "detached" && message.startsWith("out"), "that the disk is missed");
      world.file("in/b", "content of b");
      await until("that b is found", () => program.events.filter(({ what }) => what === "found").length > 1);
      assert.equal(await presenceOf("out", config, world), `detached: ${notMounted}`);
      const doctor = await runProgram(["doctor", "--config", config]);
      assert.match(doctor.out, /^BAD {5}out: .* is not mounted: mount it.*\n {10}lsblk -f {3}# then mount it/m);
      program.signal("SIGTERM");
      await program.exited;
      // After a restart of the machine, which came up without it.
      assert.equal((await runProgram(["run", "--once", "--config", config])).code, 3);
      assert.deepEqual(readdirSync(world.path("disk"), { recursive: true }), create ? [] : ["logs"]);
      disk.mount();
      assert.equal((await runProgram(["run", "--once", "--config", config])).code, 0);
      assert.deepEqual(readdirSync(world.path("disk/logs")).sort(), ["a", "b"]);
      await disk.unmount();
      if (!create) world.mkdir("disk/logs");
      world.file("in/c", "content of c");
      write({ mounted: false });
      assert.equal((await runProgram(["run", "--once", "--config", config])).code, 0, "as was asked");
      assert.deepEqual(readdirSync(world.path("disk/logs")), ["c"]);
    });

  test("what is done by hand, check --probe and doctor know where it was mounted: also while no daemon runs", async (t) => {
    const disk = withDisk(t);
    if (disk === undefined) return;
    const { world } = disk;
    world.file("in/a", "content of a");
    const config = world.config({
      devices: { in: local("in"), out: local("disk/logs", { create: true }) },
      routes: [{ from: "in", to: ["out"], into: "" }],
      services: { ftp: { type: "ftp-server", listen: "127.0.0.1:0", root: "disk/ftp", users: { u: { password: "p" } } } },
    });
    assert.equal((await runProgram(["run", "--once", "--config", config])).code, 0);
    await disk.unmount();
    const put = await runProgram(["put", world.path("in/a"), "out:by-hand", "--config", config]);
    assert.equal(put.code, 3);
    assert.equal(masked(put.err, world.dir), `filesync: out: ${notMounted}`);
    assert.deepEqual(readdirSync(world.path("disk")), []);
    const probed = async () => masked((await runProgram(["check", "--probe", "--config", config])).out, world.dir).split("\n");
    const ftp = notMounted.replace("/logs", "/ftp");
    assert.deepEqual((await probed()).slice(0, 3), ["in: works", `out: ${notMounted}`, `ftp: ${ftp}`]);
    const doctor = masked((await runProgram(["doctor", "--config", config])).out, world.dir);
    for (const [name, said] of Object.entries({ out: notMounted, ftp })) assert.ok(doctor.includes(`BAD     ${name}: ${said}\n`), doctor);
    const program = new Program(["run", "--json", "--config", config]);
    await program.until(({ what }) => what === "service-failed", "that it cannot serve");
    assert.deepEqual((await probed()).slice(0, 3), ["in: works", `out: ${notMounted}`, `ftp: it is not served: ${ftp}`]);
  });

  test("a directory that has to be mounted is detached before it ever was", async (t) => {
    const disk = withDisk(t);
    if (disk === undefined) return;
    const { world } = disk;
    await disk.unmount();
    world.file("in/a", "content of a");
    const config = world.config({
      devices: { in: local("in"), out: local("disk", { mounted: true }) },
      routes: [{ from: "in", to: ["out"], into: "" }],
    });
    const { code, out, err } = await runProgram(["run", "--once", "--config", config]);
    assert.equal(code, 3);
    assert.match(masked(out + err, world.dir), /DIR\/disk is on no file system that is mounted: mount it, or say "mounted": false/);
    assert.deepEqual(readdirSync(world.path("disk")), []);
    disk.mount();
    assert.equal((await runProgram(["run", "--once", "--config", config])).code, 0);
    assert.deepEqual(readdirSync(world.path("disk")).sort(), ["a", "lost+found"]);
  });

  test("a directory to which a link of the disk leads is missed with the disk", async (t) => {
    const disk = withDisk(t);
    if (disk === undefined) return;
    const { world } = disk;
    world.mkdir("disk/first");
    symlinkSync("first", world.path("disk/current"));
    world.file("in/a", "content of a");
    const config = world.config({
      devices: { in: local("in"), out: local("disk/current/logs", { create: true }) },
      routes: [{ from: "in", to: ["out"], into: "" }],
    });
    assert.equal((await runProgram(["run", "--once", "--config", config])).code, 0);
    // Now that it is there it is seen where it is mounted.
    assert.equal((await runProgram(["run", "--once", "--config", config])).code, 0);
    await disk.unmount();
    world.file("in/b", "content of b");
    const { code, out, err } = await runProgram(["run", "--once", "--config", config]);
    assert.equal(code, 3);
    assert.ok(masked(out + err, world.dir).includes(notMounted.replace("disk/logs", "disk/current/logs")), out + err);
    assert.deepEqual(readdirSync(world.path("disk")), []);
  });

  test("a directory that has to be mounted may be one that is bound there", async (t) => {
    const disk = withDisk(t);
    if (disk === undefined) return;
    const { world } = disk;
    if (statfsSync(world.dir).type === tmpfs) {
      t.skip("the directory of temporary files is in memory");
      return;
    }
    for (const dir of ["kept/elsewhere", "bound"]) world.mkdir(dir);
    world.file("in/a", "content of a");
    const config = world.config({
      devices: { in: local("in"), out: local("bound", { mounted: true }) },
      routes: [{ from: "in", to: ["out"], into: "" }],
    });
    const bind = (from: string) => assert.equal(spawnSync("mount", ["--bind", world.path(from), world.path("bound")]).status, 0);
    // As the sandbox of a service of systemd does.
    bind("bound");
    const { code: none } = await runProgram(["run", "--once", "--config", config]);
    spawnSync("umount", [world.path("bound")]);
    assert.equal(none, 3);
    bind("kept/elsewhere");
    const { code } = await runProgram(["run", "--once", "--config", config]);
    spawnSync("umount", [world.path("bound")]);
    assert.equal(code, 0);
    assert.deepEqual(readdirSync(world.path("kept/elsewhere")), ["a"]);
  });

  test("a directory that has to be mounted is detached where its mount point is in memory, as below /run/media", async (t) => {
    let made: World | undefined;
    // Before what the world does then: it would find the directory busy.
    t.after(() => spawnSync("umount", [made?.path("run") ?? ""]));
    const world = (made = new World(t));
    world.mkdir("run");
    if (spawnSync("mount", ["-t", "tmpfs", "tmpfs", world.path("run")]).status !== 0) {
      t.skip("no file system can be mounted here");
      return;
    }
    world.mkdir("run/media/disk");
    world.file("in/a", "content of a");
    const config = world.config({
      devices: { in: local("in"), out: local("run/media/disk/logs", { mounted: true, create: true }) },
      routes: [{ from: "in", to: ["out"], into: "", afterDelivery: "delete" }],
    });
    assert.equal((await runProgram(["run", "--once", "--config", config])).code, 3);
    assert.deepEqual([readdirSync(world.path("run/media/disk")), readdirSync(world.path("in"))], [[], ["a"]]);
  });

  test("the FTP server takes nothing while its disk is not mounted, and does not start", async (t) => {
    const disk = withDisk(t);
    if (disk === undefined) return;
    const { world } = disk;
    const config = world.config({
      services: { ftp: { type: "ftp-server", listen: "127.0.0.1:0", root: "disk/logs", users: { u: { password: "p" } } } },
    });
    const start = () => new Program(["run", "--json", "--config", config]);
    const first = start();
    const { message } = await first.until(({ message }) => message.includes("listens on"), "the port");
    const client = new Client();
    t.after(() => client.close());
    const access = { host: "127.0.0.1", port: Number(/:(\d+)/.exec(message)?.[1]), user: "u", password: "p" };
    await client.access(access);
    await client.uploadFrom(world.path("config.json"), "one");
    await disk.unmount();
    await until(
      "that status says so",
      async () => (await presenceOf("ftp", config, world)) === `detached: it is not served: ${notMounted}`,
    );
    disk.mount();
    await until("that status says that it is back", async () => (await presenceOf("ftp", config, world)) === "attached");
    await disk.unmount();
    await assert.rejects(client.send("MKD two"), /451 The disk of this server is not mounted/);
    client.close();
    await assert.rejects(client.access(access), /451 The disk of this server is not mounted/);
    await first.until(({ level, message }) => level === "warn" && message.includes("is not mounted"), "that a person is told");
    first.signal("SIGTERM");
    await first.exited;
    const second = start();
    await second.until(({ what }) => what === "service-failed", "that it cannot serve");
    assert.equal(await presenceOf("ftp", config, world), `detached: it is not served: ${notMounted}`);
    assert.deepEqual(readdirSync(world.path("disk")), []);
    disk.mount();
    await second.until(({ message }) => message.includes("listens on"), "the port, once it is mounted");
    await until("that it serves", async () => (await presenceOf("ftp", config, world)) === "attached");
    assert.deepEqual(readdirSync(world.path("disk/logs/u")), ["one"]);
  });
  test("the registry is not served while its disk is not mounted", async (t) => {
    const disk = withDisk(t);
    if (disk === undefined) return;
    const { world } = disk;
    const config = world.config({
      services: {
        registry: {
          ...{ type: "registry", listen: "127.0.0.1:0", root: "disk/logs", publicUrl: "http://127.0.0.1:1", proxy: true },
          ...{ mounted: true, door: { listen: "127.0.0.1:0", host: "127.0.0.1" } },
        },
      },
    });
    await disk.unmount();
    const program = new Program(["run", "--json", "--config", config]);
    await program.until(({ what }) => what === "service-failed", "that it cannot serve");
    assert.equal(
      await presenceOf("registry", config, world),
      'detached: it is not served: DIR/disk/logs is on no file system that is mounted: mount it, or say "mounted": false where DIR/disk/logs is to be used without',
    );
    assert.deepEqual(readdirSync(world.path("disk")), []);
    disk.mount();
    await until("that it serves", async () => (await presenceOf("registry", config, world)) === "attached");
    await disk.unmount();
    await until("that it is missed", async () =>
      (await presenceOf("registry", config, world)).startsWith("detached: it is not served: DIR/disk"),
    );
  });
});
