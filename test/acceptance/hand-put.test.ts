/** `put` to what takes a file only by its path (rsync), and to what takes it in one request (post): with a daemon and without one, cut and killed. */
import assert from "node:assert/strict";
import { chownSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { until } from "../conformance/clause.js";
import { rsyncOnly, rsyncShell } from "../conformance/rsync-servers.js";
import { chrooted, openssh, type SftpServerKind } from "../conformance/sftp-servers.js";
import { FlightReviewDouble, ulog } from "../doubles/flight-review.js";
import { Program, runProgram } from "../faults/process.js";
import { Random } from "../faults/random.js";
import { World } from "../faults/world.js";
import { masked } from "./said.js";

async function begun(t: TestContext, config: string): Promise<Program> {
  const daemon = new Program(["run", "--json", "--config", config]);
  t.after(() => daemon.kill());
  await daemon.until(({ what }) => what === "ready", "ready");
  return daemon;
}

function inWorld(world: World, config: string) {
  return async (...args: string[]) => {
    const { code, out, err } = await runProgram([...args, "--config", config], { cwd: world.path("cwd") });
    return { code, out: masked(out, world.dir), err: masked(err, world.dir) };
  };
}

/** A server, its directory for this test, and a configuration that has it as "depot". */
async function depot(t: TestContext, kind: SftpServerKind, type = "rsync") {
  const server = await kind.start();
  t.after(() => server.stop());
  const world = new World(t);
  world.mkdir("cwd");
  const to = join(server.dir, "to");
  mkdirSync(to);
  const { uid, gid } = statSync(server.dir);
  chownSync(to, uid, gid);
  const device = { type, host: "127.0.0.1", port: server.port, root: `${server.seen}/to`, ...server.options };
  const configured = (options: object = {}, more: object = {}) => world.config({ devices: { depot: { ...device, ...options } }, ...more });
  return { world, to, configured };
}

for (const kind of [rsyncShell, rsyncOnly])
  for (const running of [true, false])
    test(
      `put on a server with ${kind.name}, ${running ? "through the daemon" : "without a daemon"}`,
      { skip: kind.skip ?? false },
      async (t) => {
        const { world, to, configured } = await depot(t, kind);
        const config = configured();
        if (running) await begun(t, config);
        const filesync = inWorld(world, config);
        world.file("cwd/a.bin", Buffer.alloc(300_000, 7), 5);
        assert.deepEqual(await filesync("put", "a.bin", "depot:sub/a.bin"), {
          code: 0,
          out: "a.bin → depot:sub/a.bin (300000 bytes in TIME, proved by digest)",
          err: "",
        });
        assert.ok(readFileSync(join(to, "sub/a.bin")).equals(readFileSync(world.path("cwd/a.bin"))));
        assert.equal(statSync(join(to, "sub/a.bin")).mtimeMs, statSync(world.path("cwd/a.bin")).mtimeMs);
        assert.equal(
          (await filesync("put", "a.bin", "depot:sub/")).out,
          "a.bin → depot:sub/a.bin (300000 bytes, was there already, proved by digest)",
        );
        writeFileSync(world.path("cwd/other"), "other");
        assert.deepEqual(await filesync("put", "other", "depot:sub/a.bin"), {
          code: 2,
          out: "",
          err: "filesync: depot:sub/a.bin is there already, with another content; --force replaces it",
        });
        assert.equal(
          (await filesync("put", "--force", "other", "depot:sub/a.bin")).out,
          "other → depot:sub/a.bin (5 bytes in TIME, in the place of another, proved by digest)",
        );
        assert.deepEqual(readdirSync(join(to, "sub")), ["a.bin"]);
        assert.equal(readFileSync(join(to, "sub/a.bin"), "utf8"), "other");
        if (running) assert.deepEqual(readdirSync(world.path("state/spool")), []);
      },
    );

const skipRsync = { skip: rsyncShell.skip ?? false };

test("a copy in the spool has its room there, goes with a kill, and the put goes on where it was", skipRsync, async (t) => {
  const { world, to, configured } = await depot(t, rsyncShell);
  world.file("cwd/a.bin", new Random(5).bytes(6_000_000));
  const small = configured({}, { spool: { keepFree: "1MiB", maxSize: "4MiB" } });
  const first = await begun(t, small);
  const refused = await inWorld(world, small)("put", "a.bin", "depot:");
  assert.equal(refused.code, 3);
  assert.match(
    refused.err,
    /^filesync: depot: it is copied to the spool first, where it has no room: 0 MB of 4 MB \("maxSize"\) are taken;/,
  );
  await first.kill();

  const slow = configured({ maxRate: "1MiB/s" });
  const second = await begun(t, slow);
  const put = inWorld(world, slow)("put", "a.bin", "depot:");
  const partial = () => readdirSync(to).map((name) => statSync(join(to, name), { throwIfNoEntry: false })?.size ?? 0);
  await until("a part to be there", () => partial().some((size) => size > 1_000_000));
  const copies = () => readdirSync(world.path("state/spool"));
  assert.equal(copies().length, 1);
  await second.kill();
  assert.deepEqual(await put, { code: 3, out: "", err: "filesync: the daemon stopped before it answered" });
  assert.equal(copies().length, 1);
  const config = configured();
  await begun(t, config);
  assert.deepEqual(copies(), []);
  const again = await inWorld(world, config)("put", "a.bin", "depot:");
  assert.match(again.err, /^a\.bin → depot: goes on at byte \d{7} of 6000000$/);
  assert.equal(again.out, "a.bin → depot:a.bin (6000000 bytes in TIME, proved by digest)");
  assert.deepEqual(readdirSync(to), ["a.bin"]);
  assert.ok(readFileSync(join(to, "a.bin")).equals(readFileSync(world.path("cwd/a.bin"))));
  assert.deepEqual(copies(), []);
});

test("without a daemon a file that was written while it was sent does not get its name", skipRsync, async (t) => {
  const { world, to, configured } = await depot(t, rsyncShell);
  world.file("cwd/a.bin", new Random(6).bytes(3_000_000));
  // Nobody else would notice.
  const config = configured({ maxRate: "1MiB/s", verify: "size" });
  const put = inWorld(world, config)("put", "a.bin", "depot:");
  await until("a part to be there", () =>
    readdirSync(to).some((name) => (statSync(join(to, name), { throwIfNoEntry: false })?.size ?? 0) > 0),
  );
  // In its place, as who writes into it does.
  writeFileSync(world.path("cwd/a.bin"), new Random(7).bytes(3_000_000));
  assert.deepEqual(await put, {
    code: 2,
    out: "",
    err: "filesync: DIR/cwd/a.bin was written while it was read; the same command begins anew",
  });
  assert.equal(existsSync(join(to, "a.bin")), false);
});

for (const kind of [openssh, chrooted])
  for (const running of [true, false])
    test(
      `put on ${kind.name} goes on after a kill ${running ? "of the daemon" : "without a daemon"}, where what is there is read back, and ends`,
      { skip: kind.skip ?? false },
      async (t) => {
        const { world, to, configured } = await depot(t, kind, "sftp");
        world.file("cwd/a.bin", new Random(8).bytes(12_000_000));
        const config = configured({ maxRate: "4MiB/s" });
        const begin = (...args: string[]) => {
          const program = new Program([...args, "--config", config], { cwd: world.path("cwd") });
          t.after(() => program.kill());
          return program;
        };
        const daemon = running ? await begun(t, config) : undefined;
        const first = begin("put", "a.bin", "depot:");
        await until("a part to be there", () =>
          readdirSync(to).some((name) => (statSync(join(to, name), { throwIfNoEntry: false })?.size ?? 0) > 6_000_000),
        );
        if (daemon === undefined) await first.kill();
        else {
          await daemon.kill();
          assert.equal(await first.exited, 3);
          await begun(t, config);
        }
        assert.match(
          await begin("put", "a.bin", "depot:").ending(60_000),
          /^it ended with 0:\na\.bin → depot:a\.bin \(12000000 bytes in [^,]*, [^,]*, proved by (digest|size)\)\na\.bin → depot: goes on at byte [3-9]\d{6} of 12000000\n$/,
        );
        assert.deepEqual(readdirSync(to), ["a.bin"]);
        assert.ok(readFileSync(join(to, "a.bin")).equals(readFileSync(world.path("cwd/a.bin"))));
      },
    );

/** Each test of it runs twice: through a daemon, and without one. */
function review(
  name: string,
  run: (it: {
    world: World;
    server: FlightReviewDouble;
    filesync: ReturnType<typeof inWorld>;
    daemon: Program | undefined;
    config: string;
    t: TestContext;
  }) => Promise<void>,
  options: object = {},
): void {
  for (const running of [true, false])
    test(`${name}, ${running ? "through the daemon" : "without a daemon"}`, async (t) => {
      const server = await FlightReviewDouble.start();
      t.after(() => server.stop());
      const world = new World(t);
      world.mkdir("cwd");
      const config = world.config({ devices: { review: { type: "post", preset: "flight-review", url: server.url, ...options } } });
      const daemon = running ? await begun(t, config) : undefined;
      const plain = inWorld(world, config);
      const host = new URL(server.url).host;
      const filesync = async (...args: string[]) => {
        const { code, out, err } = await plain(...args);
        return { code, out: out.replaceAll(host, "HOST"), err: err.replaceAll(host, "HOST") };
      };
      await run({ world, server, filesync, daemon, config, t });
    });
}

review("a log is posted, and its URL is printed and listed", async ({ world, server, filesync }) => {
  const log = ulog(60, 200_000);
  world.file("cwd/a.ulg", log);
  const { code, out, err } = await filesync("put", "a.ulg", "review:");
  const id = server.logs[0]?.id ?? "";
  assert.deepEqual(
    { code, out, err },
    { code: 0, out: `a.ulg → review:a.ulg (${log.length} bytes in TIME, proved by answer): http://HOST/plot_app?log=${id}`, err: "" },
  );
  assert.ok(server.logs[0]?.bytes.equals(log));
  assert.equal(server.logs[0]?.filename, "a.ulg");
  const page = readFileSync(world.path("state/devices/review/index.html"), "utf8");
  assert.ok(page.includes(`log=${id}`), page);
  // A second time is what was asked for: nothing is in doubt.
  assert.equal((await filesync("put", "a.ulg", "review:other.ulg")).code, 0);
  assert.deepEqual(
    server.logs.map(({ filename }) => filename),
    ["a.ulg", "other.ulg"],
  );
  const said = JSON.parse((await filesync("put", "--json", "a.ulg", "review:")).out) as { url: string; replaced: boolean };
  assert.equal(said.url, `http://HOST/plot_app?log=${server.logs[2]?.id ?? ""}`);
});

review(
  "what a target does not want, and what a server refuses, is said",
  async ({ world, server, filesync }) => {
    world.file("cwd/notes.txt", "no log");
    assert.deepEqual(await filesync("put", "notes.txt", "review:"), {
      code: 2,
      out: "",
      err: "filesync: review: notes.txt is not for this target: it is no ULog",
    });
    world.file("cwd/short.ulg", ulog(5, 40_000));
    assert.deepEqual(await filesync("put", "short.ulg", "review:"), {
      code: 2,
      out: "",
      err: 'filesync: review: short.ulg is not for this target: the log lasts 5 s, less than "minDuration", 30 s',
    });
    world.file("cwd/a.ulg", ulog(60, 40_000));
    server.tricks.push({ status: 500, text: "<h1>no disk</h1>" });
    assert.deepEqual(await filesync("put", "a.ulg", "review:"), {
      code: 3,
      out: "",
      err: "filesync: review: HOST answers 500: no disk",
    });
    assert.equal(server.logs.length, 0);
    // It was an answer: nothing is in doubt.
    assert.equal((await filesync("put", "a.ulg", "review:")).code, 0);
    assert.equal(server.logs.length, 1);
    assert.equal(server.requests, 2);
  },
  { minDuration: "30s" },
);

review("an answer that was lost is in doubt, and only a person sends it again", async ({ world, server, filesync }) => {
  world.file("cwd/a.ulg", ulog(60, 200_000));
  const ask = "and the answer was lost; whether it arrived cannot be known: look there; --force sends it again";
  for (const _ of ["first", "forced"]) {
    server.tricks.push("cut-answer");
    const { code, err } = await filesync("put", "a.ulg", "review:", ...(server.requests === 0 ? [] : ["--force"]));
    assert.equal(code, 3);
    assert.match(
      err,
      /^filesync: review: a\.ulg was sent whole, and the answer was lost \([^)]+\); whether it arrived cannot be known: look there; --force sends it again$/,
    );
    const again = await filesync("put", "a.ulg", "review:");
    assert.equal(again.code, 3);
    assert.equal(
      again.err.replace(/ at TIME|, and/, (found) => (found === ", and" ? found : "")),
      `filesync: review: a.ulg was sent whole, ${ask}`,
    );
  }
  assert.equal(server.requests, 2);
  const forced = await filesync("put", "a.ulg", "review:", "--force");
  assert.equal(forced.code, 0, forced.err);
  assert.match(forced.out, /^a\.ulg → review:a\.ulg \(\d+ bytes in TIME, sent before at TIME, proved by answer\): http:/);
  assert.equal(server.requests, 3);
  assert.deepEqual(readdirSync(world.path("state/hand")), []);
});

review("cut in the middle it was not taken; a kill while the answer is waited for leaves it in doubt", async (it) => {
  const { world, server, filesync, config, t } = it;
  // More than the system's buffers on both sides take: the end of it must not have gone out when the server cuts.
  world.file("cwd/a.ulg", ulog(60, 32_000_000));
  server.tricks.push({ cutAfter: 1_000_000 });
  const cut = await filesync("put", "a.ulg", "review:");
  assert.equal(cut.code, 3);
  assert.doesNotMatch(cut.err, /was sent whole/);
  assert.equal(existsSync(world.path("state/hand")) && readdirSync(world.path("state/hand")).length > 0, false);

  server.tricks.push("silent");
  const put = new Program(["put", "a.ulg", "review:", "--config", config], { cwd: world.path("cwd") });
  t.after(() => put.kill());
  await until("the server to have it", () => server.logs.length === 1);
  await (it.daemon ?? put).kill();
  await put.exited;
  if (it.daemon !== undefined) await begun(t, config);
  const again = await filesync("put", "a.ulg", "review:");
  assert.equal(again.code, 3);
  assert.match(again.err, /^filesync: review: a\.ulg was sent whole( at TIME)?, and the answer was lost; whether/);
  assert.equal(server.logs.length, 1);
});

test("what is posted by hand is noted by the daemon's user", { skip: process.getuid?.() !== 0 }, async (t) => {
  const server = await FlightReviewDouble.start();
  t.after(() => server.stop());
  const world = new World(t);
  world.mkdir("cwd");
  world.file("cwd/a.ulg", ulog(60, 20_000));
  const config = world.config({ devices: { review: { type: "post", preset: "flight-review", url: server.url } } });
  chownSync(world.mkdir("state"), 4321, 4321);
  assert.deepEqual(await inWorld(world, config)("put", "a.ulg", "review:"), {
    code: 2,
    out: "",
    err: "filesync: nothing is put on review: it is noted in DIR/state first, which belongs to the user with id 4321: run this as that user",
  });
  assert.equal(server.requests, 0);
});
