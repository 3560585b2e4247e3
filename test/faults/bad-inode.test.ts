/** A card whose file system is damaged at one file of the spool: nobody can look at that, nor remove it, before it is checked. Whatever is in other files goes on. */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { test } from "node:test";
import { Program } from "./process.js";
import { Random } from "./random.js";
import { World } from "./world.js";

const root = process.getuid?.() === 0 ? false : "needs root to mount a small file system";

for (const how of ["whole", "given up"] as const)
  test(`nobody can look at a file in the spool, which is ${how}: what is in others is delivered`, { skip: root }, async (t) => {
    const world = new World(t);
    if (!world.mount("small", 120)) {
      t.skip("no loop devices here");
      return;
    }
    world.mkdir("in");
    for (const [n, name] of ["a", "b"].entries()) world.file(`in/${name}`, new Random(n).bytes(200_000), n);
    const config = world.config({
      stateDir: "small/state",
      devices: { in: { type: "local", dir: "in", inPlace: false, interval: "1s" }, out: { type: "local", dir: "out", create: false } },
      routes: [{ from: "in", to: ["out"], into: "" }],
    });
    const first = new Program(["run", "--json", "--config", config]);
    t.after(() => first.kill());
    let pulled = 0;
    await first.until(({ what }) => what === "pulled" && ++pulled === 2, "both are whole here");
    first.signal("SIGTERM");
    assert.equal(await first.exited, 0, first.stderr);
    const names = readdirSync(world.path("small/state/spool")).filter((name) => /^[0-9a-f]{16}$/.test(name));
    const sidecar = (id: string) => JSON.parse(readFileSync(world.path("small/state/spool", `${id}.json`), "utf8")) as { path: string };
    const bad = names.find((id) => sidecar(id).path === "a") ?? "none";
    if (how === "given up") {
      for (const end of ["", "-wal"]) rmSync(world.path(`small/state/journal.db${end}`), { force: true });
      rmSync(world.path("small/state/spool", `${bad}.json`));
    }
    world.spoil("small", [`clri /state/spool/${bad}`]);
    world.mkdir("out");
    const second = new Program(["run", "--json", "--config", config]);
    t.after(() => second.kill());
    await second.until(({ what, message }) => what === "delivered" && message.includes("in:b"), "the other");
    assert.ok(second.events.some(({ what, message }) => what === "spool-damaged" && message.includes(bad)));
    second.signal("SIGTERM");
    assert.equal(await second.exited, 0, second.stderr);
    // The check takes away what cannot be mended.
    world.mend("small");
    const third = new Program(["run", "--json", "--config", config]);
    t.after(() => third.kill());
    await third.until(() => existsSync(world.path("out/a")), "what was damaged, from its source");
    third.signal("SIGTERM");
    assert.equal(await third.exited, 0, third.stderr);
    for (const name of ["a", "b"]) assert.ok(readFileSync(world.path("out", name)).equals(readFileSync(world.path("in", name))), name);
  });
