/** Targets of the shapes that are to come, each as small as it can be: what they are promised by core. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { Fault } from "../../core/errors.js";
import type { Device, Receipt, Upload } from "../../core/plugin.js";
import type { StoredReceipt } from "../../core/rows.js";
import { Bench, FakeDevice, sha256, until } from "../fake-device.js";

const t0 = Date.UTC(2026, 4, 1);

/** What rsync is: a program that is given a path, and copies that file by itself. */
class Copier extends FakeDevice {
  readonly given: (string | undefined)[] = [];

  constructor(name: string) {
    super(name, { target: { needs: "sealedPath", digests: ["sha256"] } });
  }

  override device(role: "source" | "target"): Device {
    const device = super.device(role);
    const { target } = device;
    if (target === undefined) return device;
    return {
      ...device,
      target: {
        ...target,
        write: async (upload: Upload, offset, signal, onBytes) => {
          this.given.push(upload.localPath);
          await this.call(`write ${upload.path} ${offset}`, signal);
          assert.equal(upload.sealed, true);
          const bytes = readFileSync(upload.localPath ?? "");
          if (bytes.length !== upload.size) throw new Fault("transient", `it has ${bytes.length} bytes, not ${upload.size}`);
          this.partials.set(upload.partialPath, bytes);
          onBytes(bytes.length);
        },
        commit: (upload, signal) => {
          const partial = this.partials.get(upload.partialPath) ?? Buffer.alloc(0);
          if (sha256(partial) !== upload.digest) throw new Fault("mismatch", "another digest");
          return target.commit(upload, signal);
        },
      },
    };
  }
}

function folder(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), "filesync-shapes-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

test("a sealed path is that of the spool's file", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new Copier("out");
  const bytes = randomBytes(300_000);
  card.put("a.bin", bytes);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "delivered", () => bench.states("out")[0] === "done");
  assert.ok(out.files.get("a.bin")?.bytes.equals(bytes));
  assert.match(out.given[0] ?? "", /\/spool\/[0-9a-f]{16}$/);
});

test("a sealed path is the file itself at a source that is read in place; nothing is copied", async (t) => {
  const bench = new Bench(t);
  const dir = folder(t);
  const card = new FakeDevice("card", { inPlace: true, localPath: (path) => join(dir, path) });
  const out = new Copier("out");
  const bytes = randomBytes(300_000);
  card.put("a.bin", bytes);
  writeFileSync(join(dir, "a.bin"), bytes);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "delivered", () => bench.states("out")[0] === "done");
  assert.deepEqual(out.given, [join(dir, "a.bin")]);
  assert.equal(bench.daemon.engine.spool.usedBytes, 0);
  const [receipt] = bench.daemon.status().recent;
  assert.equal(receipt?.digest, sha256(bytes));
});

test("a file that changes at its source while its path is given away gets no receipt for what it was", async (t) => {
  const bench = new Bench(t);
  const dir = folder(t);
  const card = new FakeDevice("card", { inPlace: true, localPath: (path) => join(dir, path) });
  const out = new Copier("out");
  const [first, second] = [randomBytes(1000), randomBytes(1000)];
  card.put("a.bin", first);
  writeFileSync(join(dir, "a.bin"), first);
  let changed = false;
  out.before = (call) => {
    if (!call.startsWith("write") || changed) return undefined;
    changed = true;
    card.put("a.bin", second, t0 + 1000);
    writeFileSync(join(dir, "a.bin"), second);
    return undefined;
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "delivered", () => bench.states("out").includes("done"));
  const receipts = bench.daemon.status().recent;
  assert.deepEqual(
    receipts.map(({ digest }) => digest),
    [sha256(second)],
  );
  assert.ok(out.files.get("a.bin")?.bytes.equals(second));
});

test("a file that grew once its path was given away, and has to be sent again, goes as it is by then: who is given a path cannot send its beginning", async (t) => {
  const bench = new Bench(t);
  const dir = folder(t);
  const card = new FakeDevice("card", { inPlace: true, localPath: (path) => join(dir, path) });
  const out = new Copier("out");
  const bytes = randomBytes(2000);
  const grows = (size: number) => {
    card.put("a.bin", bytes.subarray(0, size), t0 + size);
    writeFileSync(join(dir, "a.bin"), bytes.subarray(0, size));
  };
  grows(1000);
  let broken = false;
  out.before = async (call) => {
    if (!call.startsWith("write") || broken) return;
    broken = true;
    grows(2000);
    bench.daemon.engine.relist$.next("card");
    await until(bench, "the longer one is found", () => bench.states("out").length === 2);
    throw new Fault("transient", "the link broke");
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "it arrives", () => bench.states("out").includes("done"));
  assert.deepEqual([...out.files.keys()], ["a.bin"]);
  assert.ok(out.files.get("a.bin")?.bytes.equals(bytes));
  assert.deepEqual([...out.partials.keys()], []);
});

test("what a target holds whole, and its source no more, is published where the target proves it, and else told as lost", async (t) => {
  for (const became of ["whole", "cut", "other"] as const) {
    const bench = new Bench(t);
    const card = new FakeDevice("card", { inPlace: true });
    const out = new FakeDevice("out");
    const bytes = randomBytes(300_000);
    card.put("a.bin", bytes);
    let commits = 0;
    out.before = (call) => {
      const [partial] = out.partials.keys();
      if (!call.startsWith("commit") || partial === undefined) return undefined;
      if (commits++ === 0) {
        card.files.delete("a.bin");
        if (became === "cut") out.partials.set(partial, bytes.subarray(0, 1000));
        if (became === "other") out.partials.set(partial, randomBytes(300_000));
        return Promise.reject(new Fault("transient", "no answer"));
      }
      return sha256(out.partials.get(partial) ?? Buffer.alloc(0)) === sha256(bytes)
        ? undefined
        : Promise.reject(new Fault("mismatch", "another digest"));
    };
    await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
    await until(bench, "what becomes of it", () => ["done", "dropped"].includes(bench.states("out").join()));
    const whole = became === "whole";
    assert.equal(out.files.get("a.bin")?.bytes.equals(bytes), whole ? true : undefined, became);
    assert.equal(bench.events.filter(({ what }) => what === "lost").length, whole ? 0 : 1, became);
    assert.equal(out.partials.size, 0);
  }
});

test("deleted at its source between its last byte and its name at a second target, which digests nothing, it is published", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { inPlace: true });
  const [first, second] = [new FakeDevice("first"), new FakeDevice("second", { target: { digests: [] } })];
  second.presence$.next({ state: "detached", reason: "away" });
  const bytes = randomBytes(300_000);
  card.put("a.bin", bytes);
  await bench.start({ sources: [card], targets: [first, second] }, [{ from: "card", to: ["first", "second"] }]);
  await until(bench, "the first has it", () => bench.states("first").join() === "done");
  card.before = (call) => {
    const [partial] = second.partials.values();
    if (call !== "stat a.bin" || partial?.length !== bytes.length || !card.files.delete("a.bin")) return undefined;
    return Promise.reject(new Fault("transient", "the card does not answer"));
  };
  second.attach(true);
  await until(bench, "what becomes of it", () => ["done", "dropped"].includes(bench.states("second").join()));
  assert.ok(second.files.get("a.bin")?.bytes.equals(bytes));
  assert.equal(card.files.size, 0);
});

test("a file that has gone once its path was given away is told as lost, and not tried for ever", async (t) => {
  const bench = new Bench(t);
  const dir = folder(t);
  const card = new FakeDevice("card", { inPlace: true, localPath: (path) => join(dir, path) });
  const out = new Copier("out");
  const bytes = randomBytes(1000);
  card.put("a.bin", bytes);
  writeFileSync(join(dir, "a.bin"), bytes);
  out.before = (call) => {
    if (!call.startsWith("commit")) return undefined;
    card.files.delete("a.bin");
    return Promise.reject(new Fault("transient", "there is no such file to be compared with"));
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "lost", () => bench.events.some(({ what }) => what === "lost"));
  await until(bench, "given up", () => bench.states("out").join() === "dropped");
  assert.equal(out.calls.filter((call) => call.startsWith("commit")).length, 1);
});

test("a file in place without a path that could be given on is copied to the spool first; others still read it in place", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { inPlace: true });
  const out = new Copier("out");
  const other = new FakeDevice("other");
  const bytes = randomBytes(300_000);
  card.put("a.bin", bytes);
  await bench.start({ sources: [card], targets: [out, other] }, [{ from: "card", to: ["out", "other"] }]);
  await until(
    bench,
    "delivered",
    () => [...bench.states("out"), ...bench.states("other")].filter((state) => state === "done").length === 2,
  );
  assert.ok(out.files.get("a.bin")?.bytes.equals(bytes));
  assert.ok(other.files.get("a.bin")?.bytes.equals(bytes));
  assert.match(out.given[0] ?? "", /\/spool\//);
});

test("what the spool can never hold is set aside for who takes only whole files, and goes to who takes it as it comes", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new Copier("out");
  const other = new FakeDevice("other");
  card.put("a.bin", randomBytes(2000));
  await bench.start({ sources: [card], targets: [out, other] }, [{ from: "card", to: ["out", "other"] }], { maxSize: 1000 });
  await until(bench, "decided", () => bench.states("other")[0] === "done" && bench.states("out")[0] === "parked");
  assert.match(bench.daemon.status().parked[0]?.reason ?? "", /larger than the spool can ever hold \("maxSize"\), and out takes only/);
});

/** A server that gives each upload a directory of its own, as APSync's does. */
class Giver extends FakeDevice {
  given = 0;

  override device(role: "source" | "target"): Device {
    const device = super.device(role);
    const { target } = device;
    if (target === undefined) return device;
    const dirOf = async (upload: Upload, signal: AbortSignal): Promise<Upload> => {
      let dir = upload.memo.get("dir") as string | undefined;
      if (dir === undefined) {
        await this.call("ask for a directory", signal);
        dir = `dataflash-${++this.given}`;
        await upload.memo.set("dir", dir);
      }
      return { ...upload, path: `${dir}/${upload.path}`, partialPath: `${dir}/${upload.partialPath}`, expect: upload.expect };
    };
    return {
      ...device,
      target: {
        ...target,
        offset: async (upload, signal) => target.offset(await dirOf(upload, signal), signal),
        write: async (upload, offset, signal, onBytes) => {
          const there = await dirOf(upload, signal);
          await target.write({ ...there, read: (at, stop) => upload.read(at, stop) }, offset, signal, onBytes);
        },
        commit: async (upload, signal): Promise<Receipt> => (await target.commit(await dirOf(upload, signal), signal)) as Receipt,
        look: async (upload, signal) => target.look?.(await dirOf(upload, signal), signal),
        discard: async (upload, signal) => target.discard(await dirOf(upload, signal), signal),
      },
    };
  }
}

test("a directory that the server gave is asked for once, and the receipt names it", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new Giver("out", { target: { digests: [] } });
  const bytes = randomBytes(300_000);
  card.put("a.bin", bytes);
  const start = () => bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await bench.killedAt(out, "commit", start);
  await start();
  await until(bench, "delivered", () => bench.states("out")[0] === "done");
  assert.equal(out.given, 1);
  assert.deepEqual([...out.files.keys()], ["dataflash-1/a.bin"]);
  assert.equal(bench.daemon.status().recent[0]?.path, "dataflash-1/a.bin");
  assert.deepEqual(
    out.calls.filter((call) => call.startsWith("write")),
    ["write dataflash-1/a.bin 0"],
  );
});

test("a partial that is begun again keeps what the plugin noted of the upload", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new Giver("out");
  card.put("a.bin", "content");
  let commits = 0;
  out.before = (call) => {
    if (call.startsWith("commit") && ++commits === 1) throw new Fault("conflict", "not ours");
    return undefined;
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "delivered", () => bench.states("out")[0] === "done");
  assert.equal(commits, 2);
  assert.equal(out.given, 1);
});

test("what a plugin noted while it looked is still there when it writes, also of another generation", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new Giver("out");
  card.put("a.bin", randomBytes(300_000));
  const start = () => bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await bench.killedAt(out, "commit", start);
  rmSync(join(bench.dir, "spool"), { recursive: true });
  await start();
  await until(bench, "delivered", () => bench.states("out")[0] === "done");
  assert.equal(out.given, 2, "one for each generation");
  const [receipt] = bench.daemon.status().recent as StoredReceipt[];
  assert.equal(receipt?.path, "dataflash-2/a.bin");
  assert.deepEqual([...out.partials.keys()], []);
});

test("a plugin is told the rate of its device", async (t) => {
  const told: (number | undefined)[] = [];
  class Told extends FakeDevice {
    override plugin(role: "source" | "target"): ReturnType<FakeDevice["plugin"]> {
      const plugin = super.plugin(role);
      return {
        ...plugin,
        device: (options, context) => {
          told.push(context.maxRate);
          return plugin.device?.(options, context) as Device;
        },
      };
    }
  }
  const bench = new Bench(t);
  await bench.start({ sources: [new Told("s")], targets: [] }, [], { device: { maxRate: 5000 } });
  await bench.stop();
  await bench.start({ sources: [new Told("s")], targets: [] }, []);
  assert.deepEqual(told, [5000, undefined]);
});
