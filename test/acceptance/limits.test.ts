/** Limits seen from outside: a configuration, the program, its words. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync, readdirSync, renameSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { until } from "../conformance/clause.js";
import { apache, nginx, password, user } from "../conformance/dav-servers.js";
import { freePort } from "../conformance/ftp-servers.js";
import { clockEnv, hasFakeClock } from "../faults/fake-clock.js";
import { Program, runProgram } from "../faults/process.js";
import { Random } from "../faults/random.js";
import { World } from "../faults/world.js";

const local = (dir: string, more = {}) => ({ type: "local", dir, ...more });

test("an interface that is not up: nothing is sent, status and why say so; up again by a reload, it goes", async (t) => {
  const world = new World(t);
  world.mkdir("out");
  world.file("in/a.bin", "content");
  const config = (name: string) =>
    world.config({
      devices: { in: local("in"), out: local("out", { when: { interface: name } }) },
      routes: [{ from: "in", to: ["out"], into: "" }],
    });
  const path = config("nosuch0");
  const ran = await runProgram(["run", "--once", "--config", path]);
  assert.match(ran.out, /out: nothing is sent: nosuch0 is not up, or without an address other than fe80::… \("interface"\)/);
  assert.equal(ran.code, 3, ran.out);
  const program = new Program(["run", "--config", path]);
  t.after(() => program.kill());
  await program.until(({ message }) => message.includes("nothing is sent"), "held");
  const status = await runProgram(["status", "--config", path]);
  assert.match(
    status.out,
    /^out +attached, nothing is sent to it: nosuch0 is not up, or without an address other than fe80::… \("interface"\)/m,
  );
  const why = await runProgram(["why", "in:a.bin", "--config", path]);
  assert.match(why.out, /nothing is sent to out now: nosuch0 is not up, or without an address other than fe80::… \("interface"\)/);
  config("lo");
  program.signal("SIGHUP");
  await program.until(({ message }) => message.includes("in:a.bin → out:a.bin"), "delivered");
});

test("a captive portal is not the ground station; a budget cuts to the byte, whatever the program is told", async (t) => {
  const world = new World(t);
  world.mkdir("out");
  const bytes = new Random(7).bytes(3_000_000);
  world.file("in/a.bin", bytes);
  let body = "<html>Please log in</html>";
  const server = createServer((_, response) => void response.end(body)).listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  const path = world.config({
    devices: {
      in: local("in"),
      out: local("out", { when: { reach: { url, contains: "this is ground 7" } }, budget: { day: "1MB" } }),
    },
    routes: [{ from: "in", to: ["out"], into: "" }],
  });
  const first = await runProgram(["run", "--once", "--config", path]);
  assert.equal(first.code, 3, first.out);
  assert.match(first.out, /answers something else than expected: this is not the right server/);
  assert.deepEqual(readdirSync(world.path("out")), []);
  body = "this is ground 7";
  const second = await runProgram(["run", "--once", "--config", path]);
  assert.equal(second.code, 3, second.out);
  assert.match(second.out, /out: nothing is sent: its budget of 1\.0 MB a day is used up/);
  const [partial = ""] = readdirSync(world.path("out"));
  assert.equal(statSync(world.path("out", partial)).size, 1_000_000);
  assert.ok(readFileSync(world.path("out", partial)).equals(bytes.subarray(0, 1_000_000)));
});

for (const kind of [apache, nginx])
  test(
    `${kind.name}: a file larger than a day's budget is begun where the server goes on with it; where it does not, it is not sent`,
    { skip: kind.skip ?? false },
    async (t) => {
      const world = new World(t);
      const server = await kind.start();
      t.after(() => server.stop());
      world.file("in/a.bin", new Random(8).bytes(3_000_000));
      const path = world.config({
        devices: { in: local("in"), out: { type: "webdav", url: server.url, user, password, budget: { day: "1MB" } } },
        routes: [{ from: "in", to: ["out"], into: "" }],
      });
      const ran = await runProgram(["run", "--once", "--config", path]);
      assert.equal(ran.code, 3, ran.out);
      const sizes = readdirSync(server.dir).map((name) => statSync(join(server.dir, name)).size);
      const why = await runProgram(["why", "in:a.bin", "--config", path]);
      if (kind === nginx) {
        assert.deepEqual(sizes, []);
        assert.match(why.out, /more than the budget of out ever allows, and out cannot take it in parts/);
      } else {
        // The server may still have the last of it in its hands.
        assert.equal(sizes.length, 1);
        assert.doesNotMatch(why.out, /in parts/);
        assert.match(ran.out, /its budget of 1\.0 MB a day is used up/);
      }
    },
  );

for (const mode of ["mirror", "two-way"])
  test(`a ${mode} route keeps to the budget of its target, to the byte; then it waits, and says so`, async (t) => {
    const world = new World(t);
    world.mkdir("out");
    const bytes = new Random(9).bytes(3_000_000);
    world.file("in/a.bin", bytes);
    const path = world.config({
      devices: { in: local("in", { settle: "0s" }), out: local("out", { budget: { day: "1MB" } }) },
      routes: [{ from: "in", to: ["out"], mode, into: "" }],
    });
    const staged = () =>
      readdirSync(world.path("out/.filesync/staged")).map((name) => readFileSync(world.path("out/.filesync/staged", name)));
    for (let run = 0; run < 2; run++) {
      const program = new Program(["run", "--config", path]);
      t.after(() => program.kill());
      await until("it waits", async () => {
        const { out } = await runProgram(["status", "--config", path]);
        return /^in:out {2}waits.*: out: its budget of 1\.0 MB a day is used up; the next begins in/m.test(out);
      });
      // What is allowed counts before it is written.
      await until("all that is allowed is written", () => staged()[0]?.length === 1_000_000);
      assert.ok(staged()[0]?.equals(bytes.subarray(0, 1_000_000)));
      await program.kill();
    }
  });

test("nginx: a mirror sends only what the budget of a target that takes no parts still holds", { skip: nginx.skip ?? false }, async (t) => {
  const world = new World(t);
  const server = await nginx.start();
  t.after(() => server.stop());
  world.file("in/a.bin", new Random(8).bytes(3_000_000));
  world.file("in/b.bin", new Random(9).bytes(600_000));
  world.file("in/c.bin", new Random(10).bytes(600_000));
  const path = world.config({
    devices: { in: local("in", { settle: "0s" }), out: { type: "webdav", url: server.url, user, password, budget: { day: "1MB" } } },
    routes: [{ from: "in", to: ["out"], mode: "mirror", into: "" }],
  });
  const ran = await runProgram(["run", "--once", "--config", path]);
  assert.equal(ran.code, 3, ran.out);
  assert.match(ran.out, /a\.bin: .*3\.0 MB, more than the budget of out ever allows, and out cannot take it in parts/);
  assert.match(
    ran.out,
    /[bc]\.bin: .*600 kB, (more than the budget of out still allows|and out, which cannot take it in parts, is being sent)/,
  );
  const whole = readdirSync(server.dir).filter((name) => name.endsWith(".bin"));
  assert.equal(whole.length, 1, String(whole));
});

test(
  "nginx: what did not fit into a mirror's budget goes when the next day begins",
  { skip: nginx.skip ?? (hasFakeClock ? false : "faketime is missing") },
  async (t) => {
    const world = new World(t);
    const server = await nginx.start();
    t.after(() => server.stop());
    for (const name of ["b", "c"]) world.file(`in/${name}.bin`, new Random(9).bytes(600_000));
    const path = world.config({
      devices: {
        in: local("in", { settle: "0s", interval: "1h" }),
        out: { type: "webdav", url: server.url, user, password, budget: { day: "1MB" } },
      },
      routes: [{ from: "in", to: ["out"], mode: "mirror", into: "" }],
    });
    const whole = () => readdirSync(server.dir).filter((name) => name.endsWith(".bin"));
    const program = new Program(["run", "--json", "--config", path], { env: { ...process.env, ...clockEnv(world.path("clock")) } });
    t.after(() => program.kill());
    await program.until(({ what, message }) => what === "sync-trouble" && message.includes("budget of out still"), "that one is left");
    assert.equal(whole().length, 1, String(whole()));
    writeFileSync(world.path("clock"), "+1d");
    await until("the other", () => whole().length === 2);
  },
);

test("a mirror's condition is looked at all the time: what it says at the start does not count for ever, and a round stops where it ends", async (t) => {
  const world = new World(t);
  world.mkdir("out");
  world.mkdir("fc/fs/microsd/log");
  world.file("in/a.bin", "content");
  const port = await freePort();
  const sim = new Program(["sim", "--dir", world.path("fc"), "--listen", `tcpin://127.0.0.1:${port}`, "--armed"]);
  t.after(() => sim.kill());
  await sim.until(({ message }) => message.startsWith("listening"), "the simulator");
  const path = world.config({
    devices: {
      fc: { type: "mavftp", url: `tcpout://127.0.0.1:${port}` },
      in: local("in", { interval: "1s", settle: "0s" }),
      out: local("out", { when: { disarmed: true }, maxRate: "1MiB/s" }),
    },
    routes: [{ from: "in", to: ["out"], mode: "mirror", into: "" }],
  });
  const program = new Program(["run", "--json", "--config", path]);
  t.after(() => program.kill());
  const armed = async () => /^in:out {2}waits.*: out: .*armed/m.test((await runProgram(["status", "--config", path])).out);
  await until("held", armed);
  sim.signal("SIGUSR1");
  await until("mirrored", () => world.size("out/a.bin") === 7);
  // Whole at once: nothing is waited for here, and the beginning of it would be brought.
  world.file("large.bin", Buffer.alloc(30_000_000, 1), 1);
  renameSync(world.path("large.bin"), world.path("in/large.bin"));
  const staged = () => readdirSync(world.path("out/.filesync/staged")).map((name) => world.size(`out/.filesync/staged/${name}`));
  await until("it goes", () => (staged()[0] ?? 0) > 1_000_000);
  sim.signal("SIGUSR1");
  await until("held again", armed);
  const before = staged();
  assert.ok((before[0] ?? 0) > 0 && world.size("out/large.bin") === -1, String(before));
  world.file("in/b.bin", "content", 2);
  await new Promise((resolve) => setTimeout(resolve, 3000));
  assert.deepEqual([staged(), world.size("out/b.bin")], [before, -1]);
  sim.signal("SIGUSR1");
  await until("all of it", () => world.size("out/large.bin") === 30_000_000 && world.size("out/b.bin") === 7, 90_000);
});

test("what cannot work is said with its place", async (t) => {
  const world = new World(t);
  const path = world.config({
    devices: {
      in: local("in", { when: { disarmed: true } }),
      fc: { type: "mavftp", url: "tcpout://127.0.0.1:1", budget: { day: "1MB" } },
      out: local("out", { when: { time: "10-11", reach: { url: "http://x/" } }, budget: {} }),
      other: local("other"),
    },
    routes: [
      { from: "in", to: [{ device: "other", requires: ["out"] }] },
      {
        from: "fc",
        to: [
          { device: "other", requires: ["in"] },
          { device: "in", requires: ["other"] },
        ],
      },
    ],
  });
  const { code, out, err } = await runProgram(["check", "--config", path]);
  assert.equal(code, 2);
  for (const words of [
    /devices\.fc\.budget: nothing is sent to "fc": it cannot be a target/,
    /devices\.out\.when\.time: expected two times that differ, such as "22:00-06:00", got "10-11"/,
    /devices\.out\.when\.reach: expected with "contains": over http:/,
    /devices\.out\.budget: expected "day" or "month"/,
    /routes\[0\]\.to\[0\]: "requires" names "out", which is no other target of this route/,
    /routes\[1\]\.to: "requires" leads in a circle/,
  ])
    assert.match(out + err, words);
});
