/** What a target does wrong costs that target's delivery, never the file, never the engine. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { retry } from "../../core/amend.js";
import { Fault } from "../../core/errors.js";
import { Journal } from "../../core/journal.js";
import type { TargetFeatures } from "../../core/plugin.js";
import { Bench, FakeDevice, until } from "../fake-device.js";
import { PostBox } from "../post-box.js";

const t0 = Date.UTC(2026, 4, 1);
const saidOf = (bench: Bench, what: string) => bench.events.filter((event) => event.what === what).map(({ message }) => message);

test("a partial that is not ours, on a target that goes away before it can be discarded, is discarded when it is back", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  card.put("a.bin", "content");
  let commits = 0;
  let discards = 0;
  out.before = (call) => {
    if (call.startsWith("commit") && ++commits === 1) throw new Fault("conflict", "not ours");
    if (call.startsWith("discard") && ++discards === 1) throw new Fault("offline", "unplugged");
    return undefined;
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "delivered", () => bench.states("out")[0] === "done");
  assert.deepEqual(saidOf(bench, "journal-failed"), []);
  assert.deepEqual(
    out.calls.filter((call) => /^(write|discard|commit)/.test(call)),
    ["write a.bin 0", "commit a.bin", "discard a.bin", "discard a.bin", "write a.bin 0", "commit a.bin"],
  );
});

for (const kind of ["missing", "changed"] as const)
  test(`a target that says "${kind}" of its own does not make core believe it of the source`, async (t) => {
    const bench = new Bench(t);
    const card = new FakeDevice("card", { inPlace: true });
    const out = new FakeDevice("out");
    card.put("a.bin", "content");
    let writes = 0;
    out.before = (call) => {
      if (call.startsWith("write") && ++writes === 1) throw new Fault(kind, "a directory of mine is gone");
      return undefined;
    };
    await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
    await until(bench, "delivered", () => bench.states("out").includes("done"));
    assert.deepEqual(saidOf(bench, "lost"), []);
    assert.deepEqual(bench.states("out"), ["done"]);
  });

test("what is only compared with the end of what a target has is read from there, not from its first byte for a digest", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { inPlace: true, chunk: 100_000 });
  const out = new FakeDevice("out", { target: { digests: [] } });
  const bytes = randomBytes(1_000_000);
  card.put("a.bin", bytes);
  out.compares = true;
  let breaks = 1;
  card.before = (call) =>
    call === "read a.bin 500000" && breaks-- > 0 ? Promise.reject(new Fault("transient", "it broke off")) : undefined;
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "delivered", () => bench.states("out")[0] === "done");
  assert.ok(out.files.get("a.bin")?.bytes.equals(bytes));
  assert.deepEqual(
    card.calls.filter((call) => call.startsWith("open")),
    ["open a.bin 0", "open a.bin 499999", "open a.bin 0"],
  );
});

test("what has gone from its source and is whole at a target that cannot name it yet stays there, though the target would have compared it", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { inPlace: true });
  const out = new FakeDevice("out", { target: { digests: [] } });
  card.put("a.bin", "content");
  card.before = (call) => {
    if (call.startsWith("open") && !card.files.has("a.bin")) throw new Fault("missing", "there is no such file");
    return undefined;
  };
  out.compares = "or not";
  let commits = 0;
  out.before = (call) => {
    if (!call.startsWith("commit") || ++commits > 3) return undefined;
    card.files.delete("a.bin");
    throw new Fault("transient", "locked");
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "named, or taken away", () => ["done", "dropped"].includes(bench.states("out")[0] ?? ""));
  assert.ok(card.calls.filter((call) => call.startsWith("open")).length > 1, "it was compared");
  assert.deepEqual([bench.states("out"), saidOf(bench, "lost"), out.files.get("a.bin")?.bytes.toString()], [["done"], [], "content"]);
});

test("a target that has no space, or asks for a pause, says so once until it takes a file, not for each file each time", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out", { target: { concurrency: 2 } });
  for (const name of ["a", "b", "c"]) card.put(`${name}.bin`, name);
  let kind: "throttled" | "full" | undefined = "throttled";
  let writes = 0;
  out.before = (call) => {
    if (!call.startsWith("write") || kind === undefined) return undefined;
    writes += 1;
    throw new Fault(kind, "no more now", { retryAfterMs: 100 });
  };
  const warned = () => bench.events.filter(({ what, level }) => what === "again" && level === "warn").length;
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "tried often", () => writes >= 10);
  assert.equal(warned(), 1);
  kind = "full";
  await until(bench, "it says something else", () => warned() > 1);
  kind = undefined;
  bench.daemon.engine.lanes.get("out")?.resumeTarget();
  await until(bench, "delivered", () => bench.states("out").every((state) => state === "done"));
  kind = "throttled";
  card.put("d.bin", "d");
  card.attach(false);
  card.attach(true);
  const before = warned();
  await until(bench, "said anew", () => warned() === before + 1);
});

test("what a target takes away for want of room goes there ever later, as each time costs all of it; a smaller file goes meanwhile", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out", { target: { concurrency: 1, resume: false } });
  card.put("big.bin", randomBytes(2_000_000), t0 + 1000);
  card.put("small.bin", "small", t0);
  let full = true;
  out.before = (call) => {
    if (!full || call !== "commit big.bin" || out.partials.size === 0) return undefined;
    out.partials.clear();
    throw new Fault("full", "the quota is used up: it was not saved");
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  const { engine } = bench.daemon;
  const lane = engine.lanes.get("out");
  const waits = (minutes: number) => () => {
    const [row] = engine.journal.all<{ atMs: number }>(
      "SELECT not_before AS atMs FROM deliveries WHERE path LIKE '%big.bin' AND fault = 'full'",
    );
    return row !== undefined && row.atMs - engine.clock.monotonicMs() > minutes * 60_000;
  };
  await until(bench, "a wait of two minutes", waits(1));
  assert.ok((lane?.pausedMs ?? 0) <= 10_000);
  lane?.resumeTarget();
  await until(bench, "the smaller one", () => out.files.has("small.bin"));
  out.attach(true);
  await until(bench, "a wait of four", waits(3));
  full = false;
  out.attach(true);
  await until(bench, "delivered", () => bench.states("out").every((state) => state === "done"));
});

test("a target that cannot be looked at is asked for the name of what may have it, before it is asked for room for it once more", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  out.blind = true;
  card.put("log.bin", "all that it may keep", t0);
  out.after = (call) => {
    if (call === "commit") throw new Fault("transient", "the answer was lost");
    return undefined;
  };
  out.before = (call) => {
    if (out.files.size > 0 && call.startsWith("offset")) throw new Fault("full", "its quota is used up");
    if (out.files.size > 0) out.after = () => undefined;
    return undefined;
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "delivered", () => bench.states("out")[0] === "done");
  assert.deepEqual(
    out.calls.filter((call) => call.startsWith("write")),
    ["write log.bin 0"],
  );
});

test("what a person wants sent again is sent, also where its name was asked for in vain before, and nothing can be looked at", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  out.blind = true;
  const ended = () => bench.states("out").every((state) => state === "done" || state === "dropped");
  card.put("log.bin", "the content", t0);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "delivered", () => bench.states("out")[0] === "done");
  // Only its time is another.
  card.put("log.bin", "the content", t0 + 1000);
  bench.daemon.engine.relist$.next("card");
  await until(bench, "the second", () => bench.states("out").length === 2 && ended());
  const { engine } = bench.daemon;
  const last = engine.journal.get<{ id: string }>(
    "SELECT d.id FROM deliveries d JOIN versions v ON v.id = d.version ORDER BY v.found_ms DESC LIMIT 1",
  );
  out.files.clear();
  let failed = false;
  out.before = (call) => {
    if (failed || !call.startsWith("commit")) return undefined;
    failed = true;
    throw new Fault("transient", "the link broke before that was asked");
  };
  await retry(engine, last?.id ?? "", new AbortController().signal);
  await until(bench, "done", () => failed && ended());
  assert.ok(out.files.has("log.bin"), "said to be delivered, and nothing is there");
});

test("what cannot be resumed is not broken off for what is more urgent", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out", { target: { concurrency: 1, resume: false } });
  card.put("big.bin", randomBytes(9_000_000), t0);
  let begun = (): void => undefined;
  const writing = new Promise<void>((resolve) => (begun = resolve));
  let go = (): void => undefined;
  const gate = new Promise<void>((resolve) => (go = resolve));
  out.before = (call) => {
    if (call !== "write big.bin 0") return undefined;
    begun();
    return gate;
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await writing;
  card.put("new.bin", "urgent", t0 + 1000);
  bench.daemon.engine.relist$.next("card");
  await until(bench, "the urgent one waits", () => bench.states("out")[1] === "ready");
  // Whoever gives way does so at this hint; the next one comes after it was dealt with.
  for (let n = 0; n < 2; n++) {
    bench.daemon.engine.work$.next();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  go();
  await until(bench, "both", () => bench.states("out").filter((state) => state === "done").length === 2);
  assert.equal(out.calls.filter((call) => call.startsWith("write big.bin")).length, 1);
});

test("what cannot be resumed is sent once it is whole here, not behind a pull that may break off", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out", { target: { resume: false } });
  const behind = new FakeDevice("behind");
  card.put("a.bin", randomBytes(9_000_000));
  let go = (): void => undefined;
  const gate = new Promise<void>((resolve) => (go = resolve));
  // The pull stands still near its end; the one that can resume follows it.
  card.before = (call) => (/^read a\.bin 8\d{6}$/.test(call) ? gate : undefined);
  await bench.start({ sources: [card], targets: [out, behind] }, [{ from: "card", to: ["out", "behind"] }]);
  await until(bench, "the other follows", () => behind.partials.size > 0);
  assert.deepEqual(
    out.calls.filter((call) => call.startsWith("write")),
    [],
  );
  go();
  await until(bench, "both", () => [...bench.states("out"), ...bench.states("behind")].filter((state) => state === "done").length === 2);
});

test("what cannot be resumed and arrived whole while nobody listened is not sent again; half of it is", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out", { target: { resume: false } });
  card.put("a.bin", randomBytes(300_000));
  let commits = 0;
  out.before = (call) => {
    if (!call.startsWith("commit") || ++commits > 2) return undefined;
    if (commits === 2) for (const [path, partial] of out.partials) out.partials.set(path, partial.subarray(0, 1000));
    throw new Fault("transient", "no answer came");
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "delivered", () => bench.states("out")[0] === "done");
  assert.deepEqual(
    out.calls.filter((call) => /^(write|discard|commit)/.test(call)),
    ["write a.bin 0", "commit a.bin", "commit a.bin", "discard a.bin", "write a.bin 0", "commit a.bin"],
  );
});

/** A file for a target that digests nothing. */
function undigested(t: TestContext, needs: TargetFeatures["needs"] = "stream") {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out", { target: { digests: [], needs } });
  const content = randomBytes(300_000);
  card.put("a.bin", content);
  const start = () => bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  const delivered = async (): Promise<void> => {
    await start();
    await until(bench, "delivered", () => bench.states("out")[0] === "done");
  };
  return { bench, card, out, content, start, delivered };
}

for (const left of [0, 1000])
  test(`what is only ${left} bytes long once it is to get its name, at a target that digests nothing, is sent from there`, async (t) => {
    const { out, content, delivered } = undigested(t);
    let commits = 0;
    out.before = (call) => {
      if (call.startsWith("commit") && ++commits === 1)
        for (const [path, partial] of out.partials) out.partials.set(path, partial.subarray(0, left));
      return undefined;
    };
    await delivered();
    assert.ok(out.files.get("a.bin")?.bytes.equals(content));
    assert.deepEqual(
      out.calls.filter((call) => /^(write|discard|commit)/.test(call)),
      ["write a.bin 0", "commit a.bin", "commit a.bin", `write a.bin ${left}`, "commit a.bin"],
    );
  });

test("what was given its name without an answer, at a target that digests nothing, is not sent again because the name cannot be asked for a while", async (t) => {
  const { out, delivered } = undigested(t);
  let commits = 0;
  out.before = (call) => {
    if (!call.startsWith("commit") || ++commits > 2) return undefined;
    for (const [path, bytes] of out.partials) {
      out.files.set("a.bin", { bytes, modifiedMs: 0 });
      out.partials.delete(path);
    }
    throw new Fault("transient", "the connection was reset");
  };
  await delivered();
  assert.deepEqual([...out.files.keys()], ["a.bin"]);
  assert.deepEqual(
    out.calls.filter((call) => /^(write|discard|commit)/.test(call)),
    ["write a.bin 0", "commit a.bin", "commit a.bin", "commit a.bin"],
  );
});

for (const [what, isNamed, content, needs] of [
  ["has its name already", true, "the same"],
  ["has its name already, and is given by its path", true, "the same", "sealedPath"],
  ["has not its name yet", false, "the same"],
  ["has its name already, but is of another content", true, "another"],
] as const)
  test(`given up by the spool while nobody knew whether it was given its name, at a target that digests nothing: what ${what}`, async (t) => {
    const { bench, card, out, content: first, delivered } = undigested(t, needs);
    out.before = (call) => {
      if (!call.startsWith("commit")) return undefined;
      for (const [path, bytes] of isNamed ? out.partials : []) {
        out.files.set("a.bin", { bytes, modifiedMs: 0 });
        out.partials.delete(path);
      }
      out.attach(false);
      throw new Fault("offline", "the ground is away");
    };
    await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
    await until(bench, "cut off", () => out.presence$.value.state === "detached" && bench.states("out")[0] === "ready");
    await bench.stop();
    rmSync(join(bench.dir, "spool"), { recursive: true });
    out.before = () => undefined;
    if (content === "another") card.put("a.bin", Buffer.alloc(first.length));
    out.attach(true);
    await delivered();
    if (content === "another") await until(bench, "so is the other one", () => out.files.size === 2);
    assert.ok(out.files.get("a.bin")?.bytes.equals(first));
    assert.equal(out.files.size, content === "another" ? 2 : 1);
    assert.equal(out.partials.size, 0);
    assert.equal(out.calls.filter((call) => call.startsWith("write")).length, content === "another" ? 2 : 1);
  });

test("what cannot be resumed and breaks off each time is waited with for longer each time: what went is lost, and no progress", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out", { target: { resume: false } });
  card.put("a.bin", randomBytes(300_000));
  out.before = (call) => {
    if (!call.startsWith("commit")) return undefined;
    out.partials.clear();
    throw new Fault("transient", "the connection was reset");
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  const tries = () => bench.daemon.engine.journal.get<{ tries: number }>("SELECT tries FROM deliveries")?.tries;
  await until(
    bench,
    "sent twice",
    () => out.calls.filter((call) => call.startsWith("write")).length === 2 && bench.states("out")[0] === "ready",
  );
  assert.equal(tries(), 2);
});

test("what can be resumed, and of which the target keeps nothing each time, is waited with for longer too, until something is kept", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  card.put("a.bin", randomBytes(300_000));
  let keeps = false;
  out.before = (call) => {
    if (!call.startsWith("commit")) return undefined;
    for (const [path, partial] of out.partials) {
      if (keeps) out.partials.set(path, partial.subarray(0, 100_000));
      else out.partials.delete(path);
    }
    throw new Fault("transient", "the connection was reset");
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  const tries = () => bench.daemon.engine.journal.get<{ tries: number }>("SELECT tries FROM deliveries")?.tries;
  const sent = (times: number) =>
    until(
      bench,
      `sent ${times} times`,
      () => out.calls.filter((call) => call.startsWith("commit")).length === times && bench.states("out")[0] === "ready",
    );
  await sent(3);
  assert.equal(tries(), 3);
  keeps = true;
  await sent(4);
  assert.equal(tries(), 4, "nobody knows yet that it keeps it");
  await sent(5);
  assert.equal(tries(), 1);
});

test("a disk that was pulled after the last byte, and is back with less of it, is asked anew and goes on from there", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const disk = new FakeDevice("disk");
  const bytes = randomBytes(300_000);
  card.put("a.bin", bytes);
  let pulled = false;
  disk.before = (call) => {
    if (!call.startsWith("commit") || pulled) return undefined;
    pulled = true;
    // The cache held the end of it, and the medium did not. It is back before the next call.
    for (const [path, partial] of disk.partials) disk.partials.set(path, partial.subarray(0, 131_072));
    disk.attach(false);
    disk.attach(true);
    return undefined;
  };
  await bench.start({ sources: [card], targets: [disk] }, [{ from: "card", to: ["disk"] }]);
  await until(bench, "delivered", () => bench.states("disk")[0] === "done");
  assert.deepEqual(
    disk.calls.filter((call) => /^(write|discard)/.test(call)),
    ["write a.bin 0", "write a.bin 131072"],
  );
  assert.ok(disk.files.get("a.bin")?.bytes.equals(bytes));
});

test("killed after the name was given, before the partial's name was taken away: the partial does not stay", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  card.put("a.bin", "content");
  const start = () => bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await bench.killedAt(out, "commit", start, () => {
    out.put("a.bin", "content");
    // None of its bytes was synced: what is there under the partial's name is not believed.
    for (const path of out.partials.keys()) out.partials.set(path, Buffer.alloc(0));
  });
  await start();
  await until(bench, "delivered", () => bench.states("out")[0] === "done");
  assert.deepEqual([...out.partials.keys()], []);
  assert.equal(out.calls.filter((call) => call.startsWith("write")).length, 1);
});

test("a card that is pulled in the middle and comes back is read on from what is durable", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  const bytes = randomBytes(9_000_000);
  card.put("a.bin", bytes);
  let pulled = false;
  card.before = (call) => {
    if (pulled || !/^read a\.bin 6\d{6}$/.test(call)) return undefined;
    pulled = true;
    card.attach(false);
    throw new Fault("offline", "unplugged");
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  await until(bench, "pulled", () => pulled && bench.daemon.engine.queue.pulling.size === 0);
  card.attach(true);
  await until(bench, "delivered", () => bench.states("out")[0] === "done");
  const opens = card.calls.filter((call) => call.startsWith("open a.bin")).map((call) => Number(call.split(" ")[2]));
  assert.ok((opens.at(-1) ?? 0) >= 4 * 2 ** 20, `opened at ${opens.join(", ")}`);
  assert.ok(out.files.get("a.bin")?.bytes.equals(bytes));
});

test("what becomes due a moment after the engine was woken for something else goes then, not a minute later", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const out = new FakeDevice("out");
  card.put("a.bin", "content");
  let writes = 0;
  out.before = (call) => {
    if (!call.startsWith("write")) return undefined;
    writes += 1;
    throw new Fault("transient", "a busy server");
  };
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
  const { engine } = bench.daemon;
  for (let round = 1; round <= 5; round++) {
    await until(bench, `try ${round}`, () => writes >= round && bench.states("out")[0] === "ready");
    await engine.journal.apply(() => engine.journal.run("UPDATE deliveries SET not_before = ?", engine.clock.monotonicMs() + 40));
    engine.work$.next();
  }
  await until(bench, "one more try", () => writes > 5);
});

for (const [what, resume] of [
  ["a target", true],
  ["a target that begins each file anew", false],
] as const)
  test(`a file that may not be written, at ${what} where others may, does not take the target away from those; it is tried again later, and less often`, async (t) => {
    const bench = new Bench(t);
    const card = new FakeDevice("card");
    const out = new FakeDevice("out", { target: { resume } });
    for (const name of ["a", "b", "c"]) card.put(`open/${name}.bin`, name, t0);
    for (const name of ["d", "e"]) card.put(`shut/${name}.bin`, name, t0 + 1000);
    let shut = true;
    out.before = (call) => {
      if (shut && call.startsWith("write shut/")) throw new Fault("denied", "permission denied");
      return undefined;
    };
    await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
    await until(bench, "the others", () => bench.states("out").filter((state) => state === "done").length === 3);
    assert.deepEqual(saidOf(bench, "detached"), []);
    const { engine } = bench.daemon;
    const waits = () =>
      engine.journal.all<{ fault: string; tries: number; ms: number }>(
        "SELECT fault, tries, not_before - ? AS ms FROM deliveries WHERE state = 'ready'",
        engine.clock.monotonicMs(),
      );
    await until(bench, "both were tried", () => waits().length === 2 && waits().every(({ tries }) => tries === 1));
    assert.ok(waits().every(({ fault, ms }) => fault === "denied" && ms > 50_000 && ms <= 60_000));
    const again = async () => {
      await engine.journal.apply(() => engine.journal.run("UPDATE deliveries SET not_before = 0"));
      engine.work$.next();
    };
    await again();
    await until(bench, "both were tried again", () => waits().length === 2 && waits().every(({ tries }) => tries === 2));
    assert.ok(waits().every(({ ms }) => ms > 110_000 && ms <= 120_000));
    shut = false;
    await again();
    await until(bench, "all", () => bench.states("out").every((state) => state === "done"));
  });

test("files that a single shot's server denies: nobody can tell whether it is the file or the key, so another goes first when the server is asked again, and they are tried less and less often", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card");
  const box = new PostBox("box");
  for (const name of ["a", "b"]) card.put(`denied ${name}`, name, t0 + 1000);
  for (const name of ["c", "d"]) card.put(`good ${name}`, name, t0);
  let opens = false;
  box.before = (call) => {
    if (!opens && call.startsWith("took denied")) throw new Fault("denied", "403");
    return undefined;
  };
  // Which goes first is decided among all of them.
  box.attach(false);
  await bench.start({ sources: [card], targets: [box] }, [{ from: "card", to: ["box"] }]);
  await until(bench, "all are whole here", () => bench.states("box").filter((state) => state === "ready").length === 4);
  box.attach(true);
  const { engine } = bench.daemon;
  const denials = () => box.calls.filter((call) => call.startsWith("took denied")).length;
  const waits = () =>
    engine.journal
      .all<{ tries: number; ms: number }>(
        "SELECT tries, not_before - ? AS ms FROM deliveries WHERE state = 'ready' AND fault = 'denied' ORDER BY tries",
        engine.clock.monotonicMs(),
      )
      .map(({ tries, ms }) => [tries, Math.ceil(ms / 60_000)]);
  const isAway = () => engine.lanes.get("box")?.attached === false;
  const denied = (times: number) =>
    until(bench, `denied ${times} times`, () => denials() === times && isAway() && waits().length === Math.min(times, 2));
  const back = () => engine.lanes.get("box")?.lookNow(new AbortController().signal);
  // As where so many were denied that the first are due again before the last was tried.
  const allDue = () => engine.journal.apply(() => engine.journal.run("UPDATE deliveries SET not_before = 0 WHERE fault = 'denied'"));
  await denied(1);
  await allDue();
  await back();
  await denied(2);
  await allDue();
  await back();
  await until(bench, "the others", () => bench.states("box").filter((state) => state === "done").length === 2);
  await denied(3);
  assert.deepEqual(
    box.posts.map(({ path }) => path),
    ["denied b", "denied a", "good d", "good c", "denied b"],
  );
  assert.deepEqual(waits().at(-1), [2, 4]);
  // That it is back says nothing of them.
  await back();
  await engine.journal.apply(() => undefined);
  assert.deepEqual(waits().at(-1), [2, 4]);
  await bench.stop();
  opens = true;
  await bench.start({ sources: [card], targets: [box] }, [{ from: "card", to: ["box"] }]);
  await until(bench, "all, at once after a start", () => bench.states("box").every((state) => state === "done"));
});

for (const kind of ["denied", "transient"] as const)
  test(`a target at which file after file fails (${kind}) says so of the first few and then once for all; status counts them; what fails after it took one is told again`, async (t) => {
    const bench = new Bench(t);
    const card = new FakeDevice("card");
    const out = new FakeDevice("out");
    for (let n = 0; n < 20; n++) card.put(`${n}.bin`, `${n}`, t0);
    let shut = true;
    out.before = (call) => {
      if (shut && call.startsWith("write")) throw new Fault(kind, `cannot write ${call.split(" ")[1] ?? ""}: permission denied`);
      return undefined;
    };
    await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }]);
    const failing = () => bench.daemon.status().failing;
    await until(bench, "all were tried", () => failing()[0]?.deliveries === 20);
    const warned = () => bench.events.filter(({ what, level }) => what === "again" && level === "warn").map(({ message }) => message);
    assert.equal(warned().length, 4, warned().join("\n"));
    assert.equal(
      warned().filter((message) => /^card:\d+\.bin → out: cannot write \d+\.bin: permission denied; again in \d+ s$/.test(message)).length,
      3,
    );
    assert.match(warned()[3] ?? "", /^out: 3 files in a row failed there: .*"status" counts them$/);
    assert.match(failing()[0]?.reason ?? "", /permission denied$/);
    shut = false;
    card.put("new.bin", "new", t0);
    card.attach(false);
    card.attach(true);
    await until(bench, "one is taken", () => bench.states("out").includes("done"));
    shut = true;
    card.put("newer.bin", "newer", t0 + 1000);
    card.attach(false);
    card.attach(true);
    await until(bench, "told by itself", () => warned().some((message) => message.startsWith("card:newer.bin")));
  });

for (const killed of [false, true])
  test(`what was given its other name ${killed ? "when power went" : "without an answer"}, at a target that digests nothing, is not taken for what has its own: a file as long`, async (t) => {
    const { bench, out, content, start, delivered } = undigested(t);
    const foreign = randomBytes(content.length);
    out.files.set("a.bin", { bytes: foreign, modifiedMs: 0 });
    let isNamed = false;
    out.before = (call) => {
      if (!call.startsWith("commit a~")) return undefined;
      for (const [path, bytes] of out.partials) {
        out.files.set(call.slice("commit ".length), { bytes, modifiedMs: 0 });
        out.partials.delete(path);
      }
      out.before = () => undefined;
      isNamed = true;
      return killed ? new Promise(() => undefined) : Promise.reject(new Fault("transient", "the connection was reset"));
    };
    if (killed) {
      await start();
      await until(bench, "it has its name", () => isNamed);
      await bench.kill();
    }
    await delivered();
    await until(bench, "told", () => saidOf(bench, "delivered").length > 0);
    const name = `a~${createHash("sha256").update(content).digest("hex").slice(0, 8)}.bin`;
    assert.deepEqual(
      [...out.files].map(([path, { bytes }]) => [path, bytes.equals(path === "a.bin" ? foreign : content)]),
      [
        ["a.bin", true],
        [name, true],
      ],
    );
    assert.equal(out.calls.filter((call) => call.startsWith("write")).length, 1);
    assert.deepEqual(saidOf(bench, "delivered"), [`card:a.bin → out:${name} (300000 bytes, proved by size)`]);
  });

/** All that was sent is lost, and somebody else puts a file as long under the name. */
function losesAll({ out, content }: ReturnType<typeof undigested>): Buffer {
  const foreign = randomBytes(content.length);
  out.partials.clear();
  out.files.set("a.bin", { bytes: foreign, modifiedMs: 0 });
  return foreign;
}

function assertBoth({ out, content }: ReturnType<typeof undigested>, foreign: Buffer | undefined): void {
  const name = `a~${createHash("sha256").update(content).digest("hex").slice(0, 8)}.bin`;
  assert.deepEqual(
    [...out.files].map(([path, { bytes }]) => [path, bytes.equals(path === "a.bin" ? (foreign ?? content) : content)]),
    [
      ["a.bin", true],
      [name, true],
    ],
  );
}

for (const [how, breaksFirst, lostAt] of [
  ["at once", false, 1],
  ["when the connection broke before that", true, 2],
  ["when the connection broke before that, and power went", true, 2],
  ["once it was sent anew", false, 3],
] as const)
  test(`what was lost before its name was ever asked for, at a target that digests nothing, is not what another put there, a file as long: ${how}`, async (t) => {
    const it = undigested(t);
    const { bench, out, start, delivered } = it;
    out.looksFirst = breaksFirst;
    let [foreign, commits]: [Buffer | undefined, number] = [undefined, 0];
    const commit = (): undefined => {
      if (++commits === lostAt) foreign = losesAll(it);
      if (commits > 1 || lostAt === 1) return undefined;
      if (!breaksFirst) for (const path of out.partials.keys()) out.partials.set(path, Buffer.alloc(0));
      throw new Fault("transient", "the connection was reset");
    };
    out.before = (call) => (call.startsWith("commit") ? commit() : undefined);
    if (how.endsWith("power went")) {
      let again = (): void => undefined;
      const asked = new Promise<void>((resolve) => (again = resolve));
      out.before = (call) => {
        if (call.startsWith("commit")) commit();
        if (!call.startsWith("offset") || commits === 0) return undefined;
        again();
        return new Promise(() => undefined);
      };
      await start();
      await asked;
      await bench.kill();
      out.before = (call) => (call.startsWith("commit") ? commit() : undefined);
    }
    await delivered();
    assertBoth(it, foreign);
  });

test("what an earlier program gave its other name when power went, of which it noted no more than of its own, is not taken for what has that; nor is that replaced once it grows", async (t) => {
  const it = undigested(t);
  const { bench, card, out, content, start, delivered } = it;
  const foreign = randomBytes(content.length);
  out.files.set("a.bin", { bytes: foreign, modifiedMs: 0 });
  await bench.killedAt(out, "commit a~", start, () => {
    for (const bytes of out.partials.values()) out.files.set(out.calls.at(-1)?.slice("commit ".length) ?? "", { bytes, modifiedMs: 0 });
    out.partials.clear();
  });
  const journal = await Journal.open(bench.dir);
  await journal.commit(() => journal.run("UPDATE deliveries SET marks = json_remove(marks, '$.elsewhere')"));
  await journal.close();
  await delivered();
  assertBoth(it, foreign);
  card.put("a.bin", Buffer.concat([content, randomBytes(1000)]), t0 + 1000);
  bench.daemon.engine.relist$.next("card");
  await until(bench, "the longer one", () => bench.states("out").join() === "done,done");
  assert.ok(out.files.get("a.bin")?.bytes.equals(foreign));
  assert.equal(out.files.size, 2);
});
