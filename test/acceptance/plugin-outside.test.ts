/** The plugin of docs/plugins.md, as it stands there, beside a configuration and against a real HTTP server. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { until } from "../conformance/clause.js";
import { Program, runProgram, statusNow } from "../faults/process.js";
import { Random } from "../faults/random.js";
import { World } from "../faults/world.js";

const root = fileURLToPath(new URL("../../..", import.meta.url));

interface Camera {
  readonly url: string;
  /** Where each request for a file began, in order. */
  readonly begun: { readonly path: string; readonly offset: number }[];
  /** `held`: after this many bytes of an answer nothing more comes. */
  held: number;
}

async function cameraWith(t: TestContext, files: ReadonlyMap<string, Buffer>): Promise<Camera> {
  const camera = { url: "", begun: [] as Camera["begun"], held: Infinity };
  const answer = (request: IncomingMessage, response: ServerResponse) => {
    const path = decodeURIComponent(request.url ?? "").replace(/^\/files\/?/, "");
    if (path === "") {
      response.end(JSON.stringify([...files].map(([name, { length: size }]) => ({ path: name, size, modified: "2026-05-28T10:00:00Z" }))));
      return;
    }
    const bytes = files.get(path);
    const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") ?? [];
    if (bytes === undefined || from === undefined || to === undefined) {
      response.writeHead(bytes === undefined ? 404 : 400).end();
      return;
    }
    camera.begun.push({ path, offset: Number(from) });
    const part = bytes.subarray(Number(from), Number(to) + 1);
    response.writeHead(206, { "content-range": `bytes ${from}-${to}/${bytes.length}`, "content-length": part.length });
    if (part.length > camera.held) response.write(part.subarray(0, camera.held));
    else response.end(part);
  };
  const server = createServer(answer).listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return Object.assign(camera, { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` });
}

/** The documented plugin in a world; `filesync` is found from there as the page says. */
function withPlugin(t: TestContext, url: string): { world: World; config: string } {
  const world = new World(t);
  const [, text = ""] = /```js\n(.*?)```/s.exec(readFileSync(join(root, "docs/plugins.md"), "utf8")) ?? [];
  writeFileSync(world.path("http-camera.js"), text);
  writeFileSync(world.path("package.json"), '{ "type": "module" }');
  world.mkdir("node_modules");
  symlinkSync(root, world.path("node_modules/filesync"));
  world.mkdir("out");
  const config = world.config({
    devices: { camera: { type: "./http-camera.js", url, settle: "0s" }, out: { type: "local", dir: "out" } },
    routes: [{ from: "camera", to: ["out"] }],
  });
  return { world, config };
}

test("its files arrive, and one that a kill broke off goes on at the byte", async (t) => {
  const random = new Random(7);
  const files = new Map([
    ["DCIM/1.JPG", random.bytes(3_000_000)],
    ["DCIM/a b#ü.JPG", random.bytes(10)],
    ["big.mp4", random.bytes(20_000_000)],
  ]);
  const camera = await cameraWith(t, files);
  camera.held = 12_000_000;
  const { world, config } = withPlugin(t, camera.url);
  const start = () => {
    const program = new Program(["run", "--json", "--config", config]);
    t.after(() => program.kill());
    return program;
  };
  let program = start();
  await program.until(() => program.events.filter(({ what }) => what === "delivered").length === 2, "the small ones");
  const isFar = async () => (await statusNow(config))?.transfers.some(({ offset }) => offset >= 11_000_000) === true;
  await until("most of the big one", isFar, 60_000);
  await program.kill();
  camera.held = Infinity;
  program = start();
  await program.until(({ what, message }) => what === "delivered" && message.includes("big.mp4"), "the big one");
  program.signal("SIGTERM");
  await program.exited;
  for (const [path, bytes] of files) assert.ok(readFileSync(world.path("out/v/camera", path)).equals(bytes), path);
  const last = camera.begun.filter(({ path }) => path === "big.mp4").at(-1);
  assert.ok((last?.offset ?? 0) >= 11_000_000 - 4 * 2 ** 20, String(last?.offset));
});

test("its mistakes and faults are told as those of any plugin", async (t) => {
  const camera = await cameraWith(t, new Map());
  const { world, config } = withPlugin(t, camera.url);
  assert.equal((await runProgram(["check", "--probe", "--config", config])).code, 0);
  const bad = world.config(
    { devices: { camera: { type: "./http-camera.js", url: "nowhere", speed: 1 } }, routes: [{ from: "camera", to: [] }] },
    "bad.json",
  );
  const said = await runProgram(["check", "--config", bad]);
  assert.equal(said.code, 2);
  assert.match(said.err + said.out, /an address, http:\/\//);
  assert.match(said.err + said.out, /speed/);
  const away = world.config({ devices: { camera: { type: "./http-camera.js", url: "http://127.0.0.1:3" } }, routes: [] }, "away.json");
  const probed = await runProgram(["check", "--probe", "--config", away]);
  assert.match(probed.err + probed.out, /http:\/\/127\.0\.0\.1:3\/ does not answer: connect ECONNREFUSED/);
});

test("a plugin that lacks a part, or breaks the contract at once, costs only its own device", async (t) => {
  const camera = await cameraWith(t, new Map());
  const { world } = withPlugin(t, camera.url);
  const plugin = (device: string) => `import { rxjs, v } from "filesync/plugin";
    const base = { presence$: new rxjs.BehaviorSubject({ state: "attached" }), probe: async () => {}, close: async () => {} };
    const source = { features: { ranges: true, digests: [], inPlace: false, concurrency: 1 }, async *list() {} };
    export const plugin = { type: "x", roles: ["source"], options: v.strictObject({}), device: () => (${device}) };`;
  const wrong = {
    none: plugin("{ source: {} }"),
    part: plugin("base"),
    later: plugin("Promise.resolve(base)"),
    throws: plugin("base.nosuch.bus"),
    errs: plugin("{ ...base, source, presence$: new rxjs.Observable((all) => all.error(new Error('no bus'))) }"),
  };
  for (const [name, text] of Object.entries(wrong)) writeFileSync(world.path(`${name}.js`), text);
  world.file("in/a.bin", "abc");
  const configWith = (names: readonly string[], file: string) =>
    world.config(
      {
        devices: {
          ...Object.fromEntries(names.map((name) => [name, { type: `./${name}.js` }])),
          in: { type: "local", dir: "in" },
          out: { type: "local", dir: "out" },
        },
        routes: [...names, "in"].map((from) => ({ from, to: ["out"] })),
      },
      file,
    );
  const config = configWith(Object.keys(wrong), "wrong.json");
  const probed = (await runProgram(["check", "--probe", "--config", config])).out;
  assert.match(probed, /none: what the plugin ".\/none.js" makes has no presence\$/);
  assert.match(probed, /part: what the plugin ".\/part.js" makes has no source$/m);
  const program = new Program(["run", "--json", "--config", config]);
  for (const words of [
    /^none: cannot be started: what the plugin ".\/none.js" makes has no presence\$, no probe, no close, no source.features; the rest runs/,
    /^later: cannot be started: .*has no presence\$/,
    /^in:a.bin → out/,
    /^errs: its plugin cannot tell any more whether it is there: no bus/,
  ])
    await program.until(({ message }) => words.test(message), String(words));
  program.signal("SIGTERM");
  assert.equal(await program.exited, 0);
  assert.equal(readFileSync(world.path("out/v/in/a.bin"), "utf8"), "abc");
  const { code, out } = await runProgram(["run", "--once", "--config", configWith(["throws"], "once.json")]);
  assert.match(out, /finished, but .*throws could not be listed/);
  assert.equal(code, 3);
});

test("without the link of its page the mistake says what is missing and the command that mends it, which does", async (t) => {
  const camera = await cameraWith(t, new Map());
  const { world, config } = withPlugin(t, camera.url);
  rmSync(world.path("node_modules"), { recursive: true });
  const said = await runProgram(["check", "--config", config]);
  assert.equal(said.code, 2);
  const [, command] =
    /"\.\/http-camera\.js" cannot be loaded: it uses filesync\/plugin, which is not found from there: (mkdir -p .*)$/m.exec(said.out) ?? [];
  assert.ok(command !== undefined, said.out);
  assert.equal(spawnSync("sh", ["-c", command]).status, 0);
  assert.equal((await runProgram(["check", "--config", config])).code, 0);
  writeFileSync(world.path("http-camera.js"), 'import "nosuch";');
  assert.match((await runProgram(["check", "--config", config])).out, /cannot be loaded: .*nosuch/);
});
