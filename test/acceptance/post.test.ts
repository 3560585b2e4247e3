/** The plugin `post` against a double of Flight Review (test/doubles/flight-review.ts: not the real one), through the program as a person runs it. */
import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import { FlightReviewDouble, ulog, type Trick } from "../doubles/flight-review.js";
import { Program, runProgram } from "../faults/process.js";
import { World } from "../faults/world.js";

interface Scene {
  readonly world: World;
  readonly server: FlightReviewDouble;
  readonly config: string;
  /** Runs until nothing more can be done; what was said. */
  once(): Promise<{ code: number | NodeJS.Signals; out: string }>;
  delivered(): { url?: string; path: string; proof: string; answer?: string; sentBefore?: string }[];
}

async function scene(t: TestContext, more: object = {}, { v2 = false, route = {} } = {}): Promise<Scene> {
  const world = new World(t);
  const server = await FlightReviewDouble.start(v2);
  t.after(() => server.stop());
  world.mkdir("in");
  const config = world.config({
    devices: {
      in: { type: "local", dir: "in", settle: "0s", interval: "1s" },
      review: { type: "post", preset: v2 ? "flight-review-v2" : "flight-review", url: server.url, ...more },
    },
    routes: [{ from: "in", to: ["review"], since: "2001-01-01", into: "", ...route }],
  });
  return {
    world,
    server,
    config,
    once: () => runProgram(["run", "--once", "--json", "--config", config]),
    delivered: () =>
      existsSync(world.path("state/receipts.jsonl"))
        ? readFileSync(world.path("state/receipts.jsonl"), "utf8")
            .split("\n")
            .filter((line) => line.includes('"proof"'))
            .map((line) => JSON.parse(line) as { path: string; proof: string })
        : [],
  };
}

test("a log arrives privately, with its fields; its URL is in the receipt, in status and on a page", async (t) => {
  const it = await scene(t, {
    fields: {
      description: "{vehicle}: {name} {toString}",
      additional_feedback: "windy",
      allow_for_analysis: false,
      email: "a@example.org",
    },
  });
  const log = ulog(60, 200_000);
  it.world.file("in/a/10_00_00.ulg", log);
  const { code, out } = await it.once();
  assert.equal(code, 0, out);
  const [stored] = it.server.logs;
  assert.ok(stored !== undefined && stored.bytes.equals(log));
  assert.equal(stored.filename, "10_00_00.ulg");
  assert.deepEqual(stored.fields, {
    description: "v: 10_00_00.ulg {toString}",
    email: "a@example.org",
    type: "personal",
    redirect: "false",
    feedback: "windy",
    allowForAnalysis: "false",
  });
  const url = `${new URL(it.server.url).origin}/plot_app?log=${stored.id}`;
  assert.equal(it.delivered()[0]?.url, url);
  assert.equal(it.delivered()[0]?.proof, "answer");
  assert.ok((await runProgram(["status", "--config", it.config])).out.includes(url));
  assert.ok(readFileSync(it.world.path("state/devices/review/index.html"), "utf8").includes(`<a href="${url}">`));
});

test("what is no ULog, or lasts too short, is nothing for this target: not parked, and nobody waits for it", async (t) => {
  const it = await scene(t, { minDuration: "30s" });
  it.world.file("in/long.ulg", ulog(31));
  it.world.file("in/short.ulg", ulog(12));
  it.world.file("in/torn.ulg", ulog(31).subarray(0, 10));
  it.world.file("in/broken.ulg", "no ULog at all, but long enough to be looked at");
  it.world.file("in/empty.ulg", "");
  const { code, out } = await it.once();
  assert.equal(code, 0, out);
  assert.deepEqual(
    it.server.logs.map(({ filename }) => filename),
    ["long.ulg"],
  );
  const why = async (path: string) => (await runProgram(["why", `in:${path}`, "--config", it.config])).out;
  assert.match(await why("short.ulg"), /is nothing for review: the log lasts 12 s, less than "minDuration", 30 s/);
  assert.match(await why("torn.ulg"), /is nothing for review: the log lasts 0 s/);
  assert.match(await why("broken.ulg"), /is nothing for review: it is no ULog/);
  assert.match(await why("empty.ulg"), /is nothing for review: it is no ULog/);
});

test("a target that a file is nothing for does not hold back what becomes of the source's copy", async (t) => {
  const it = await scene(t, {}, { route: { to: ["review", "out"], afterDelivery: "delete" } });
  it.world.config({
    devices: {
      in: { type: "local", dir: "in", settle: "0s" },
      review: { type: "post", preset: "flight-review", url: it.server.url, verify: "readback" },
      out: { type: "local", dir: "out", create: true },
    },
    routes: [{ from: "in", to: ["review", "out"], since: "2001-01-01", into: "", afterDelivery: "delete" }],
  });
  it.world.file("in/a.BIN", "not for review");
  it.world.file("in/b.ulg", ulog(60));
  const { code, out } = await it.once();
  assert.equal(code, 0, out);
  assert.equal(it.world.size("in/a.BIN"), -1);
  assert.equal(it.world.size("out/a.BIN"), 14);
  assert.equal(it.world.size("in/b.ulg"), -1, "proved by what was read back");
});

test("a route to it begins at its first run: older logs go only where the route says since or newest", async (t) => {
  for (const [route, count] of [
    [{ since: undefined }, 0],
    [{ since: undefined, newest: 1 }, 1],
    [{ since: "2001-01-01" }, 3],
  ] as const) {
    const it = await scene(t, {}, { route });
    for (let n = 0; n < 3; n++) it.world.file(`in/old${n}.ulg`, ulog(60, n));
    const { code, out } = await it.once();
    assert.equal(code, 0, out);
    assert.equal(it.server.logs.length, count, JSON.stringify(route));
    if (count > 0) continue;
    it.world.file("in/new.ulg", ulog(61), Date.now() / 1000 + 5);
    assert.equal((await it.once()).code, 0);
    assert.deepEqual(
      it.server.logs.map(({ filename }) => filename),
      ["new.ulg"],
    );
  }
});

test("another vehicle name, directory or route posts nothing again; what comes then is posted under the new ones", async (t) => {
  const it = await scene(t);
  it.world.file("in/a.ulg", ulog(60));
  assert.equal((await it.once()).code, 0);
  const config = JSON.parse(readFileSync(it.config, "utf8")) as { vehicle: string; routes: Record<string, unknown>[] };
  config.vehicle = "another";
  config.routes = [
    { ...config.routes[0], into: "{vehicle}" },
    { ...config.routes[0], into: "more", include: ["*.ulg"] },
  ];
  writeFileSync(it.config, JSON.stringify(config));
  it.world.file("in/b.ulg", ulog(61));
  assert.equal((await it.once()).code, 0);
  assert.deepEqual(
    it.delivered().map(({ path }) => path),
    ["a.ulg", "another/b.ulg"],
  );
  assert.equal(it.server.logs.length, 2);
});

for (const [what, tricks, words, logs, bytes] of [
  ["503: asked to wait", [{ status: 503, headers: { "retry-after": "1" } }], undefined, 1],
  ["cut in the middle, twice", [{ cutAfter: 100_000 }, { cutAfter: 3_000_000 }], undefined, 1, 30_000_000],
  ["a message: this file will never be taken", [{ status: 400, text: "<h3>Invalid File</h3>" }], /answers 400: Invalid File/, 0],
  ["413 of a proxy", [{ status: 413 }], /it has 500 kB, more than .* takes \(413\)/, 0],
  ["413 with Retry-After: it is so only now", [{ status: 413, headers: { "retry-after": "1" } }], undefined, 1],
  ["an empty 400 means too large, not corrupt", [{ status: 400 }], /it has 500 kB, more than .* takes \(it answers an empty 400\)/, 0],
] as const)
  test(what, async (t) => {
    const it = await scene(t);
    it.server.tricks.push(...(tricks as readonly Trick[]));
    it.world.file("in/a.ulg", ulog(60, bytes ?? 500_000));
    const { code, out } = await it.once();
    assert.equal(it.server.logs.length, logs, out);
    assert.equal(code, logs > 0 ? 0 : 3, out);
    if (words !== undefined) assert.match((await runProgram(["why", "in:a.ulg", "--config", it.config])).out, words);
    assert.equal(it.delivered().length, logs);
  });

for (const [what, trick, words] of [
  ["a portal", { status: 302, headers: { location: "http://portal.example/login" } }, /does not answer as the right server does/],
  ["503 for a quarter of an hour", { status: 503, headers: { "retry-after": "900" } }, /answers 503; again in 900 s/],
  ["503 for a second, each time", { status: 503, headers: { "retry-after": "1" } }, /answers 503; again in 1 s/],
  ["413 for a quarter of an hour", { status: 413, headers: { "retry-after": "900" } }, /now \(413\); again in 900 s/],
  ["500", { status: 500 }, /answers 500; again in 60 s/],
] as const)
  test(`--once does not wait for what its target wants later (${what}): it says what is left, with 3; other targets have it`, async (t) => {
    const it = await scene(t);
    it.server.tricks.push(...Array<Trick>(20).fill(trick));
    const config = it.world.config({
      devices: {
        in: { type: "local", dir: "in", settle: "0s" },
        review: { type: "post", preset: "flight-review", url: it.server.url },
        out: { type: "local", dir: "out", create: true },
      },
      routes: [
        { from: "in", to: ["out"], into: "" },
        { from: "in", to: [{ device: "review", required: false }], since: "2001-01-01", into: "" },
      ],
    });
    for (let n = 0; n < 3; n++) it.world.file(`in/${n}.ulg`, ulog(60, n));
    const program = new Program(["run", "--once", "--json", "--config", config]);
    const ending = await program.ending(60_000);
    assert.match(ending, /^it ended with 3:/);
    assert.match(ending, words);
    assert.match(ending, /finished, but 3 deliveries could not be made now/);
    assert.equal(program.events.filter(({ message }) => message.includes(" → out:")).length, 3, ending);
    assert.deepEqual([it.server.logs, it.delivered().length], [[], 3]);
  });

test("over its cap the size is announced, and it is taken; over a proxy's it is refused before it is sent", async (t) => {
  const it = await scene(t);
  it.server.cap = 1_000_000;
  it.server.proxyCap = 5_000_000;
  it.world.file("in/huge.ulg", ulog(60, 6_000_000));
  const { code, out } = await it.once();
  assert.equal(code, 3, out);
  assert.match((await runProgram(["why", "in:huge.ulg", "--config", it.config])).out, /more than .* takes \(413\)/);
  assert.equal(it.server.logs.length, 0);
});

test("500 is tried a few times, then the log is set aside with the server's words; other targets have it", async (t) => {
  const it = await scene(t);
  it.server.tricks.push({ status: 500, text: "Internal Server Error" });
  it.world.config({
    devices: {
      in: { type: "local", dir: "in", settle: "0s" },
      review: { type: "post", preset: "flight-review", url: it.server.url },
      out: { type: "local", dir: "out", create: true },
    },
    routes: [{ from: "in", to: ["review", "out"], since: "2001-01-01", into: "" }],
  });
  it.world.file("in/a.ulg", ulog(60));
  const program = new Program(["run", "--json", "--config", it.config]);
  t.after(() => program.kill());
  await program.until(({ message }) => message.includes("answers 500: Internal Server Error"), "500");
  await program.until(({ message }) => message.includes("in:a.ulg → out:a.ulg"), "the other target");
  const retried = await runProgram(["retry", "review", "--config", it.config]);
  assert.equal(retried.code, 0, retried.out + retried.err);
  await program.until(({ message }) => message.includes("in:a.ulg → review:a.ulg"), "taken at last");
});

for (const lost of ["cut-answer", "silent"] as const)
  test(`an answer that is lost (${lost}): never blindly sent again; told as in doubt`, async (t) => {
    const it = await scene(t, { answerTimeout: "5s", whenInDoubt: "ask" });
    it.server.tricks.push(lost);
    it.world.file("in/a.ulg", ulog(60, 100_000));
    const { code, out } = await it.once();
    assert.equal(code, 3, out);
    assert.equal(it.server.logs.length, 1);
    assert.equal((await it.once()).code, 3);
    assert.equal(it.server.requests, 1);
    assert.match((await runProgram(["why", "in:a.ulg", "--config", it.config])).out, /sent whole.*the answer was lost/);
    // Who means all does not say that it may be sent twice; who names it does, also after that.
    const all = await runProgram(["retry", "--all", "--config", it.config]);
    assert.equal(all.code, 0);
    assert.match(all.out, /\n1 of them may have arrived: it is looked for, and sent again now only by name: filesync retry ID/);
    const sent = await runProgram(["retry", "in:a.ulg", "--config", it.config]);
    assert.equal(sent.code, 0, sent.err);
    const again = await it.once();
    assert.equal(again.code, 0, again.out);
    assert.equal(it.server.logs.length, 2);
    assert.ok(it.delivered()[0]?.sentBefore !== undefined);
  });

test("kill -9 at every stage of a request: never lost, never twice without a word", async (t) => {
  // More than the kernel's buffers between the two take (tcp_wmem, tcp_rmem): what the server has not read has not all been sent.
  const log = ulog(60, 24_000_000);
  for (const at of [0, 1000, 500_000, 5_000_000, "silent"] as const) {
    const it = await scene(t, { whenInDoubt: "ask" });
    it.world.file("in/a.ulg", log);
    // The server stops reading at that byte, or has all and says nothing.
    let met = (): void => undefined;
    const there = new Promise<void>((resolve) => (met = resolve));
    const wall = createServer({ highWaterMark: 1024 }, (request) => {
      let size = 0;
      request.on("data", (chunk: Buffer) => {
        size += chunk.length;
        if (at !== "silent" && size > at) {
          request.pause();
          met();
        }
      });
      request.on("end", () => met());
    }).listen(0, "127.0.0.1");
    await once(wall, "listening");
    const address = wall.address() as AddressInfo;
    const config = (url: string) =>
      it.world.config({
        devices: {
          in: { type: "local", dir: "in", settle: "0s" },
          review: { type: "post", preset: "flight-review", url, whenInDoubt: "ask" },
        },
        routes: [{ from: "in", to: ["review"], since: "2001-01-01", into: "" }],
      });
    const program = new Program(["run", "--json", "--config", config(`http://127.0.0.1:${address.port}/upload`)]);
    await there;
    await program.kill();
    wall.close();
    wall.closeAllConnections();
    config(it.server.url);
    const { out } = await it.once();
    const why = (await runProgram(["why", "in:a.ulg", "--config", it.config])).out;
    if (at === "silent") assert.match(why, /sent whole.*the answer was lost/, out);
    assert.equal(it.server.logs.length, at === "silent" ? 0 : 1, `${at}: ${out}`);
    assert.equal(it.delivered().length, it.server.logs.length, `${at}: ${out}`);
  }
});

test("a captive portal answers 200, or leads elsewhere: nothing counts as posted", async (t) => {
  for (const trick of [
    { status: 200, text: "<html>Welcome! Please log in.</html>" },
    { status: 302, headers: { location: "http://portal.example/login" } },
    { status: 200, text: '{"url":"/somewhere"}' },
  ]) {
    const it = await scene(t);
    it.server.tricks.push(trick, trick);
    it.world.file("in/a.ulg", ulog(60));
    const program = new Program(["run", "--json", "--config", it.config]);
    await program.until(({ message }) => message.includes("does not answer as the right server does"), "noticed");
    assert.deepEqual(it.delivered(), []);
    await program.kill();
  }
});

test("a form that is no preset: over http:// it is said that any 200 counts, a portal's too, until a text or URL tells the right server", async (t) => {
  for (const [answer, words] of [
    [{}, /any server's 200 counts as posted/],
    [{ contains: "<h1>Thank you" }, undefined],
    [{ url: "location" }, undefined],
  ] as const) {
    const it = await scene(t);
    const config = it.world.config({
      devices: { in: { type: "local", dir: "in" }, form: { type: "post", url: "http://form.invalid/", answer } },
      routes: [{ from: "in", to: ["form"] }],
    });
    const { out } = await runProgram(["run", "--once", "--json", "--config", config]);
    if (words !== undefined) assert.match(out, words);
    else assert.doesNotMatch(out, /counts as posted/);
  }
});

test("a key, and flight-review-rs; what is read back proves it", async (t) => {
  const keyed = await scene(t, { preset: "flight-review-key", key: "k3y", verify: "readback" });
  keyed.server.key = "k3y";
  keyed.world.file("in/a.ulg", ulog(60));
  assert.equal((await keyed.once()).code, 0);
  assert.equal(keyed.delivered()[0]?.proof, "readback");
  const wrong = await scene(t, { preset: "flight-review-key", key: "wrong" });
  wrong.server.key = "k3y";
  wrong.world.file("in/a.ulg", ulog(60));
  const refused = await wrong.once();
  assert.equal(refused.code, 3, refused.out);
  assert.match(refused.out, /answers 403: API key required; look at \\"key\\"/);
  assert.ok(!refused.out.includes('wrong"'));
  const rs = await scene(t, { fields: { public: true } }, { v2: true });
  rs.world.file("in/a.ulg", ulog(60));
  assert.equal((await rs.once()).code, 0);
  const [log] = rs.server.logs;
  assert.deepEqual(log?.fields, { description: "", is_public: "true" });
  assert.match(rs.delivered()[0]?.url ?? "", /\/logs\/[0-9a-f-]{36}$/);
  assert.ok(!JSON.stringify(rs.delivered()).includes("secret-"), "with that anybody could delete it");
  assert.match(readFileSync(rs.world.path("state/devices/review/posted.jsonl"), "utf8"), /"secret":"secret-/);
});

test("what cannot be read back at once is read back before it counts as posted, and is not posted again for that", async (t) => {
  const it = await scene(t, { verify: "readback" });
  it.server.keeps = 2;
  it.world.file("in/a.ulg", ulog(60));
  const program = new Program(["run", "--json", "--config", it.config]);
  t.after(() => program.kill());
  await program.until(({ what }) => what === "delivered", "it is delivered");
  assert.equal(it.delivered()[0]?.proof, "readback");
  assert.equal(it.server.logs.length, 1);
});

test("other bytes that are read back later prove nothing: it is posted again, then set aside", async (t) => {
  const it = await scene(t, { verify: "readback" });
  Object.assign(it.server, { keeps: 1, corrupts: true });
  it.world.file("in/a.ulg", ulog(60));
  const program = new Program(["run", "--json", "--config", it.config]);
  t.after(() => program.kill());
  const { message } = await program.until(({ what }) => what === "parked" || what === "delivered", "an end");
  assert.match(message, /set aside: the server gives other bytes back/);
  assert.deepEqual(it.delivered(), []);
  assert.ok(it.server.logs.length <= 3, `${it.server.logs.length} times`);
});

test("a page that cannot be written takes no receipt away from what was posted", async (t) => {
  const it = await scene(t, { index: "page/index.html" });
  it.world.file("page", "is a file");
  it.world.file("in/a.ulg", ulog(60));
  const { code, out } = await it.once();
  assert.equal(code, 0, out);
  assert.match(out, /the page .*page\/index\.html cannot be written: \w/);
  assert.equal(it.server.logs.length, 1);
  assert.equal(it.delivered().length, 1);
  assert.match(readFileSync(it.world.path("state/devices/review/posted.jsonl"), "utf8"), /"path":"a\.ulg"/);
});

test("what cannot work is said with its place", async (t) => {
  const world = new World(t);
  const path = world.config({
    devices: {
      in: { type: "local", dir: "in" },
      a: { type: "post", url: "https://user:pass@logs.example/upload" },
      b: { type: "post", preset: "flight-review", url: "https://logs.example/upload", fields: { feedbak: "x" } },
      c: { type: "post", preset: "flight-review", url: "https://logs.example/upload", fields: { public: true } },
      d: { type: "post", preset: "flight-review-key", url: "https://logs.example/upload" },
      e: { type: "post", url: "ftp://logs.example", verify: "readback", answer: { url: "url" } },
      f: { type: "post", url: "https://logs.example/", fields: { description: "x".repeat(10_241) } },
      g: { type: "post", url: "https://logs.example/", headers: { "X-Pilot": "Łukasz", "X Plane": "1" } },
      h: { type: "post", preset: "flight-review-key", url: "https://logs.example/upload", key: "a\nb" },
    },
    routes: [{ from: "in", to: ["a"] }],
  });
  const { code, out, err } = await runProgram(["check", "--config", path]);
  assert.equal(code, 2);
  for (const words of [
    /devices\.a\.url: expected a URL without a user or password/,
    /devices\.b\.fields: expected a field that this server knows instead of "feedbak"/,
    /devices\.c\.fields: expected "type": "flightreport" with "public"/,
    /devices\.d\.key: expected the key of this server/,
    /devices\.e\.url: expected a URL that begins with/,
    /devices\.e\.answer\.url: expected "location", or a JSON pointer/,
    /devices\.f\.fields\.description: expected at most 10 KiB/,
    /devices\.g\.headers\.X-Pilot: expected a text that a header can hold/,
    /devices\.g\.headers\.X Plane: expected the name of a header/,
    /devices\.h\.key: expected a text that a header can hold/,
  ])
    assert.match(out + err, words);
  assert.ok(!(out + err).includes("pass@"), out + err);
});
