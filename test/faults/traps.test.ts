/** Three traps that a careless engine falls into: a card that was formatted, spool pages that a power cut took back, a spool smaller than the backlog. */
import assert from "node:assert/strict";
import { readFileSync, readdirSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { Program, runProgram } from "./process.js";
import { Random } from "./random.js";
import { assertReceiptsTrue, treeOf } from "./trees.js";
import { World } from "./world.js";

const once = (config: string) => runProgram(["run", "--once", "--json", "--config", config]);

test("the card is formatted and every name comes back with other content: both contents are at the target", async (t) => {
  const random = new Random(3);
  for (const inPlace of [true, false]) {
    const world = new World(t);
    world.mkdir("out");
    const config = world.config({
      devices: { card: { type: "local", dir: "card", inPlace }, out: { type: "local", dir: "out" } },
      routes: [{ from: "card", to: ["out"], into: "" }],
    });
    const first = new Map<string, Buffer>();
    const second = new Map<string, Buffer>();
    for (let n = 0; n < 5; n++) {
      const name = `0000000${n}.BIN`;
      first.set(name, random.bytes(random.between(1, 100_000)));
      world.file(`card/${name}`, first.get(name) ?? "", n);
    }
    assert.equal((await once(config)).code, 0);
    rmSync(world.path("card"), { recursive: true });
    for (let n = 0; n < 5; n++) {
      const name = `0000000${n}.BIN`;
      // Larger, smaller, and of the very same size.
      const before = first.get(name)?.length ?? 0;
      second.set(name, random.bytes(n === 0 ? before : n % 2 === 0 ? before + 50_000 : Math.max(1, before - 1)));
      world.file(`card/${name}`, second.get(name) ?? "", 1000 + n);
    }
    assert.equal((await once(config)).code, 0);
    const out = readdirSync(world.path("out")).sort();
    assert.equal(out.length, 10, out.join(" "));
    for (const [name, content] of first)
      assert.deepEqual(readFileSync(world.path("out", name)), content, `the first ${name} was not replaced`);
    const contents = new Set(treeOf(world.path("out")).values());
    const expected = treeOf(world.path("card"));
    for (const [name, content] of expected) assert.ok(contents.has(content), `the second ${name} is there under another name`);
    assert.ok(
      out.filter((name) => name.includes("~")).every((name) => /^0000000\d~[0-9a-f]{8}\.BIN$/.test(name)),
      out.join(" "),
    );
    assertReceiptsTrue(world.path("state"), { out: world.path("out") });
    // Once more: nothing new.
    assert.equal((await once(config)).code, 0);
    assert.equal(readdirSync(world.path("out")).length, 10);
  }
});

test("killed, the unsynced pages of the spool gone, then the source changes: the target never holds mixed bytes", async (t) => {
  const random = new Random(5);
  const world = new World(t);
  world.mkdir("out");
  const old = random.bytes(12_000_000);
  const next = random.bytes(12_000_000);
  world.file("card/a.BIN", old, 0);
  const config = world.config({
    devices: { card: { type: "local", dir: "card", inPlace: false, maxRate: "6MiB/s" }, out: { type: "local", dir: "out" } },
    routes: [{ from: "card", to: ["out"], into: "" }],
  });
  const program = new Program(["run", "--json", "--config", config]);
  await program.until(({ what }) => what === "ready", "ready");
  await world.partialOf(2_000_000);
  await program.kill();
  // A power cut: what lay behind the last sync is gone or zero. More than that is taken here: the checker trusts no offset.
  const spooled = readdirSync(world.path("state/spool")).find((name) => /^[0-9a-f]{16}$/.test(name));
  const spool = world.path("state/spool", spooled ?? "");
  truncateSync(spool, 1_000_000);
  writeFileSync(spool, Buffer.concat([readFileSync(spool), Buffer.alloc(500_000)]));
  // The same name, the same size, another content.
  world.file("card/a.BIN", next, 1000);
  assert.equal((await once(config)).code, 0);
  const out = treeOf(world.path("out"));
  assert.deepEqual([...out.keys()], ["a.BIN"], "no partial is left");
  assert.deepEqual(readFileSync(world.path("out/a.BIN")), next);
});

test("the same, but the source keeps size and time: the samples tell", async (t) => {
  const random = new Random(6);
  const world = new World(t);
  world.mkdir("out");
  const next = random.bytes(9_000_000);
  world.file("card/a.BIN", random.bytes(9_000_000), 0);
  const config = world.config({
    devices: { card: { type: "local", dir: "card", inPlace: false, maxRate: "4MiB/s" }, out: { type: "local", dir: "out" } },
    routes: [{ from: "card", to: ["out"], into: "" }],
  });
  const program = new Program(["run", "--json", "--config", config]);
  await world.partialOf(1_000_000);
  await program.kill();
  world.file("card/a.BIN", next, 0);
  assert.equal((await once(config)).code, 0);
  assert.deepEqual([...treeOf(world.path("out")).keys()], ["a.BIN"]);
  assert.deepEqual(readFileSync(world.path("out/a.BIN")), next);
});

test("a spool smaller than the backlog, one target down for good, one delivery parked: the third target still gets everything", async (t) => {
  const random = new Random(9);
  const world = new World(t);
  world.mkdir("third");
  world.mkdir("parking");
  // A file where a directory shall be: that delivery can never be made.
  world.file("parking/sub", "in the way");
  for (let n = 0; n < 29; n++) world.file(`card/${String(n).padStart(4, "0")}.bin`, random.bytes(1_000_000), n);
  world.file("card/sub/0029.bin", random.bytes(1_000_000), 29);
  const config = world.config({
    spool: { maxSize: "5MiB", keepFree: "1MiB", keep: "7d" },
    devices: {
      card: { type: "local", dir: "card", inPlace: false },
      down: { type: "ftp", host: "127.0.0.1", port: 1, user: "u", password: "p" },
      parking: { type: "local", dir: "parking" },
      third: { type: "local", dir: "third" },
    },
    routes: [{ from: "card", to: ["down", "parking", "third"], into: "" }],
  });
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  // Names only: a partial may be given its name while this looks, and for a moment has both.
  const names = () => readdirSync(world.path("third"), { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const arrived = () => names().filter(({ name }) => !name.endsWith(".part")).length;
  const before = Date.now();
  while (arrived() < 30 || names().length > 30) {
    if (Date.now() - before > 60_000)
      assert.fail(`only ${arrived()} of 30 arrived:\n${program.events.map(({ message }) => message).join("\n")}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.deepEqual(treeOf(world.path("third")), treeOf(world.path("card")));
  const status = JSON.parse((await runProgram(["status", "--json", "--config", config])).out) as {
    parked: { path: string; to: string; reason: string }[];
  };
  assert.deepEqual(
    status.parked.map(({ path, to }) => `${path} → ${to}`),
    ["sub/0029.bin → parking"],
  );
  assert.match(status.parked[0]?.reason ?? "", /is not a directory/);
  await program.kill();
  const spooled = readdirSync(world.path("state/spool")).reduce((sum, name) => sum + statSync(world.path("state/spool", name)).size, 0);
  assert.ok(spooled <= 5 * 2 ** 20 + 30 * 300, `the spool holds ${spooled} bytes`);
  assertReceiptsTrue(world.path("state"), { third: world.path("third"), parking: world.path("parking") });
});
