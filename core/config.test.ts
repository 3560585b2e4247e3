import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { plugins } from "../cli/plugins.js";
import { loadConfig } from "./config.js";
import { problemText, suggestion } from "./config-problems.js";
import { parseDuration, parseSize, type Secret } from "./options.js";

const load = (text: string, baseDir = "/base", env: Record<string, string> = {}) =>
  loadConfig(text, plugins, { baseDir, env, hostName: "host", nowMs: 1_000_000 });
const problems = async (text: string) => (await load(text)).problems.map((problem) => problemText("c", problem));

test("a small configuration, with comments and trailing commas", async () => {
  const { config, problems: wrong } = await load(`{
    // comments are allowed
    "devices": { "a": { "type": "local", "dir": "in" }, "b": { "type": "local", "dir": "/out", "maxRate": "2MiB/s" }, },
    "routes": [ { "from": "a", "to": ["b"], "since": "1s" } ]
  }`);
  assert.deepEqual(wrong, []);
  assert.equal(config?.vehicle, "host");
  assert.deepEqual(config?.devices[0]?.options, { dir: "/base/in", inPlace: true, create: false });
  assert.equal(config?.devices[1]?.maxRate, 2 * 2 ** 20);
  assert.equal(config?.routes[0]?.since, 999_000);
  assert.deepEqual(config?.routes[0]?.to, [{ device: "b", required: true, requires: [] }]);
});

test("all errors at once, each with its line, its path and the nearest right word", async () => {
  assert.deepEqual(
    await problems(`{
  "devics": {},
  "devices": {
    "cam": { "type": "locl", "dir": "x" },
    "in": { "type": "local", "dri": "x" },
    "out": { "type": "local", "dir": "x", "intervall": "30s" },
    "slow": { "type": "local", "dir": "x", "interval": "soon" }
  },
  "routes": []
}`),
    [
      'c:2: devics: unknown key "devics"; did you mean "devices"?',
      `c:4: devices.cam.type: there is no plugin "locl"; did you mean "local"?; there are: ${plugins.types.join(", ")}`,
      'c:5: devices.in.dir: "dir" is missing: The directory.',
      'c:5: devices.in.dri: unknown key "dri"; did you mean "dir"?',
      'c:6: devices.out.intervall: unknown key "intervall"; did you mean "interval"?',
      'c:7: devices.slow.interval: expected a duration such as "500ms", "30s", "5min", "12h" or "7d", got "soon"',
    ],
  );
  assert.deepEqual(
    await problems(`{
  "devices": {
    "cam": { "type": "locl", "dir": "x" },
    "in": { "type": "local", "dri": "x" },
    "out": { "type": "local", "dir": "x", "intervall": "30s" },
    "slow": { "type": "local", "dir": "x",
              "interval": "soon" },
    "ok": { "type": "local", "dir": "x" }
  },
  "routes": [
    { "from": "okk", "to": ["ok"] },
    { "from": "ok", "to": [] },
    { "from": "ok", "to": ["ok"], "priority": "newst" },
    { "form": "ok", "to": ["slow"] }
  ]
}`),
    [
      `c:3: devices.cam.type: there is no plugin "locl"; did you mean "local"?; there are: ${plugins.types.join(", ")}`,
      'c:4: devices.in.dir: "dir" is missing: The directory.',
      'c:4: devices.in.dri: unknown key "dri"; did you mean "dir"?',
      'c:5: devices.out.intervall: unknown key "intervall"; did you mean "interval"?',
      'c:7: devices.slow.interval: expected a duration such as "500ms", "30s", "5min", "12h" or "7d", got "soon"',
      'c:11: routes[0].from: there is no device "okk"; did you mean "ok"?',
      "c:12: routes[1].to: expected at least one target",
      'c:13: routes[2].priority: expected "newest", "oldest" or "smallest", got "newst"; did you mean "newest"?',
      "c:13: routes[2].to[0]: a route cannot lead to where it comes from",
      'c:14: routes[3].from: "from" is missing: The source: a device, or a service that receives files.',
      'c:14: routes[3].form: unknown key "form"; did you mean "from"?',
    ],
  );
});

test("what is wrong takes only itself out; a route to it stays, and its files wait", async () => {
  const { config, problems: wrong } = await load(`{
    "devices": { "a": { "type": "local", "dir": "x" }, "b": { "type": "local" }, "c": { "type": "local", "dir": "y" } },
    "routes": [ { "from": "a", "to": ["b"] }, { "from": "a", "to": ["c"] } ]
  }`);
  assert.equal(wrong.length, 1);
  assert.deepEqual(
    config?.devices.map(({ name }) => name),
    ["a", "c"],
  );
  assert.deepEqual(
    config.routes.map(({ to }) => to[0]?.device),
    ["b", "c"],
  );
});

test("archiving without an archiveDir is a mistake of the route, not one that follows from another of the device", async () => {
  const given = (more: string) => `{ "devices": { "in": { "type": "local", "dir": "x"${more} }, "out": { "type": "local", "dir": "y" } },
    "routes": [{ "from": "in", "to": ["out"], "afterDelivery": "archive" }] }`;
  assert.deepEqual(await problems(given("")), ['c:2: routes[0].afterDelivery: "archive" needs "archiveDir" on the device "in"']);
  assert.deepEqual(await problems(given(', "archiveDir": "done"')), []);
  assert.deepEqual(await problems(given(', "archiveDir": "done", "interval": "soon"')), [
    'c:1: devices.in.interval: expected a duration such as "500ms", "30s", "5min", "12h" or "7d", got "soon"',
  ]);
});

test("what is no JSON is said with its line", async () => {
  assert.deepEqual(await problems('{\n  "devices": {\n    "a" { }\n  }\n}'), ["c:3: this is no JSON: colon expected (column 9)"]);
  assert.deepEqual(await problems(""), ["c:1: the file is empty; see config.example.json"]);
  assert.deepEqual(await problems('{\n "vehicle": "a",\n "vehicle": "b"\n}'), [
    'c:3: vehicle: "vehicle" is there twice; only one of them can count',
  ]);
});

test("a value beyond its bounds is said as it was written, with the bound in its units", async () => {
  assert.deepEqual(
    await problems(`{
  "journal": { "keep": "20s" },
  "devices": {
    "in": { "type": "local", "dir": "x", "interval": "200ms", "budget": { "day": "0 MB" } },
    "small": { "type": "webdav", "url": "https://h/", "chunkSize": "1 kB" },
    "large": { "type": "webdav", "url": "https://h/", "chunkSize": "6GiB" }
  },
  "routes": [
    { "from": "in", "to": ["small"], "mode": "two-way", "trashKeep": "90min" }
  ]
}`),
    [
      'c:2: journal.keep: expected at least 1d, got "20s"',
      'c:4: devices.in.interval: expected at least 1s, got "200ms"',
      'c:4: devices.in.budget.day: expected at least one byte, got "0 MB"',
      'c:5: devices.small.chunkSize: expected at least "1KiB", got "1 kB"',
      'c:6: devices.large.chunkSize: expected at most "5GiB", got "6GiB"',
      'c:9: routes[0].trashKeep: expected at least 1d, got "90min"',
    ],
  );
});

test("where nobody will use secrets, none is looked for, and none shows itself", async () => {
  const device = (password: object) => ({ type: "ftp", host: "h", user: "u", password });
  const text = JSON.stringify({ devices: { a: device({ env: "PW" }), b: device({ file: "x" }), c: device({ credential: "c" }) } });
  assert.equal((await load(text)).problems.length, 3);
  const { config, problems: wrong } = await loadConfig(text, plugins, {
    ...{ baseDir: "/base", env: {}, secrets: "unread", hostName: "host", nowMs: 0 },
  });
  assert.deepEqual(wrong, []);
  assert.equal(config?.wrong, undefined);
  for (const { options } of config?.devices ?? [])
    assert.throws(() => (options as { password: Secret }).password.reveal(), /this secret was not read/);
});

test("a credential comes from systemd, by either of its names, else from the directory beside the configuration", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "filesync-credentials-"));
  t.after(() => rmSync(dir, { recursive: true }));
  const text = `{ "devices": { "a": { "type": "ftp", "host": "h", "user": "u", "password": { "credential": "ground" } } } }`;
  const loaded = async (env: Record<string, string>) => {
    const { config, problems } = await load(text, dir, env);
    const options = config?.devices[0]?.options as { password?: Secret } | undefined;
    return options?.password?.reveal() ?? problems.map(({ message }) => message).join();
  };
  assert.equal(
    await loaded({}),
    `expected the credential ground: a file ${dir}/credentials/ground (then "systemctl restart filesync"), or LoadCredential=ground:PATH in the unit`,
  );
  mkdirSync(join(dir, "credentials"));
  writeFileSync(join(dir, "credentials/ground"), "beside\n");
  assert.equal(await loaded({}), "beside");
  const given = { CREDENTIALS_DIRECTORY: join(dir, "run") };
  mkdirSync(given.CREDENTIALS_DIRECTORY);
  assert.equal(await loaded(given), "beside");
  writeFileSync(join(dir, "run/filesync_ground"), "loaded with the directory\n");
  assert.equal(await loaded(given), "loaded with the directory");
  writeFileSync(join(dir, "run/ground"), "of the unit");
  assert.equal(await loaded(given), "of the unit");
  assert.match(
    await (async () => (await load(text.replace('"ground"', '"../x"'), dir)).problems.map(({ message }) => message).join())(),
    /without \//,
  );
});

test("secrets come from the environment or a file, and never show", async () => {
  const dir = mkdtempSync(join(tmpdir(), "filesync-config-"));
  try {
    writeFileSync(join(dir, "ftp.secret"), "top secret\n");
    const text = `{ "devices": {
      "a": { "type": "ftp", "host": "h", "user": "u", "password": { "file": "ftp.secret" } },
      "b": { "type": "ftp", "host": "h", "user": "u", "password": { "env": "PW" } } } }`;
    const { config } = await load(text, dir, { PW: "other secret" });
    assert.equal((config?.devices[0]?.options as { password: { reveal(): string } }).password.reveal(), "top secret");
    assert.doesNotMatch(
      `${JSON.stringify(config)}${String((config?.devices[1]?.options as { password: unknown }).password)}`,
      /top secret|other secret/,
    );
    const missing = await load(text, "/nowhere", {});
    assert.deepEqual(
      missing.problems.map(({ message }) => message.replace(/, got.*/, "")),
      ["expected a readable secret file; /nowhere/ftp.secret is not (ENOENT)", "expected the environment variable PW to be set"],
    );
  } finally {
    rmSync(dir, { recursive: true });
  }
});

test("roles and kinds are checked", async () => {
  assert.deepEqual(
    await problems(`{
  "devices": { "s": { "type": "ftp-server", "root": "x" }, "fc": { "type": "mavftp", "url": "tcpout://127.0.0.1:5760" } },
  "routes": [ { "from": "fc", "to": ["fc"] }, { "from": "fc", "to": ["s"], "into": "{vehicel}" } ]
}`),
    [
      'c:2: devices.s.type: "ftp-server" is a service: put it under "services"',
      'c:3: routes[0].to[0]: "fc" cannot be a target: it is only read; "write": true on this device lets files be put, moved and removed there',
      "c:3: routes[0].to[0]: a route cannot lead to where it comes from",
      "c:3: routes[1].into: {vehicel} is not known; there are {vehicle} {device} {installation} {date}",
    ],
  );
});

test("sizes, durations and near words", () => {
  assert.equal(parseSize("4MiB"), 4_194_304);
  assert.equal(parseSize("300 kB"), 300_000);
  assert.equal(parseSize(7), 7);
  assert.equal(parseSize("4 Mb"), undefined);
  assert.equal(parseDuration("1.5h"), 5_400_000);
  assert.equal(parseDuration("30"), undefined);
  assert.equal(suggestion("prot", ["port", "host"]), '; did you mean "port"?');
  assert.equal(suggestion("zzzz", ["port", "host"]), "");
});

test("two-way routes: what they take, whom they fight", async () => {
  const devices = `"devices": { "a": { "type": "local", "dir": "a" }, "b": { "type": "local", "dir": "b", "archiveDir": "done" }, "c": { "type": "local", "dir": "c" } },`;
  const routes = (...all: string[]) => problems(`{ ${devices}\n"routes": [\n${all.join(",\n")}\n] }`);
  const two = (more = "", from = "a", to = "b") => `{ "from": "${from}", "to": ["${to}"], "mode": "two-way"${more} }`;
  assert.deepEqual(await routes(two(), '{ "from": "c", "to": ["a"] }'), []);
  const { config } = await load(`{ ${devices} "routes": [${two(', "into": "/x//y/", "maxDeletes": "5 %"')}] }`);
  assert.deepEqual(config?.routes, []);
  assert.equal(config?.syncs[0]?.into, "x/y");
  assert.deepEqual(config?.syncs[0]?.maxDeletes, { share: 0.05, least: 20 });
  assert.deepEqual(await routes(two(', "maxDeletes": 3, "afterDelivery": "delete"')), [
    'c:3: routes[0].afterDelivery: unknown key "afterDelivery"',
  ]);
  assert.deepEqual(await routes(two(', "maxDeletes": "101%"')), [
    'c:3: routes[0].maxDeletes: expected a whole number, or a share such as "10%", got "101%"',
  ]);
  assert.deepEqual(await routes(two("", "a", "a")), ["c:3: routes[0].to[0]: a route cannot lead to where it comes from"]);
  assert.deepEqual(await routes(two(', "into": "x"'), two(', "into": "x/y"', "c", "b"), two(', "into": "y"', "c", "b")), [
    "c:4: routes[1]: another route keeps b:x the same as something else: they would undo one another's changes",
  ]);
  assert.deepEqual(await routes(two(), '{ "from": "b", "to": ["c"], "afterDelivery": "archive" }'), [
    'c:3: routes[0]: another route takes delivered files away from "a" or "b": here that would remove them on both sides',
  ]);
});

test("mirrors: one for each device that they lead to; what they may share, and what not", async () => {
  const devices = `"devices": { "a": { "type": "local", "dir": "a" }, "b": { "type": "local", "dir": "b", "archiveDir": "done" }, "c": { "type": "local", "dir": "c" } },`;
  const routes = (...all: string[]) => problems(`{ ${devices}\n"routes": [\n${all.join(",\n")}\n] }`);
  const mirror = (to: string, more = "", from = "a") => `{ "from": "${from}", "to": [${to}], "mode": "mirror"${more} }`;
  const { config } = await load(`{ ${devices} "routes": [${mirror('"b", "c"', ', "into": "x"')}] }`);
  assert.deepEqual(
    config?.syncs.map(({ from, to, into, deletes, mode }) => ({ from, to, into, deletes, mode })),
    ["b", "c"].map((to) => ({ from: "a", to, into: "x", deletes: false, mode: "mirror" })),
  );
  // A source is only read: several may follow it, and its files may be taken away where that is not followed.
  assert.deepEqual(
    await routes(mirror('"c"', "", "b"), mirror('"a"', ', "into": "y"', "b"), '{ "from": "b", "to": ["c"], "afterDelivery": "archive" }'),
    [],
  );
  assert.deepEqual(await routes(mirror('"c"', ', "deletes": true', "b"), '{ "from": "b", "to": ["c"], "afterDelivery": "archive" }'), [
    'c:3: routes[0]: another route takes delivered files away from "b" or "c": here that would remove them on both sides',
  ]);
  assert.deepEqual(await routes(mirror('"b"', ', "into": "x"'), mirror('"b"', ', "into": "x/y"', "c")), [
    "c:4: routes[1]: another route keeps b:x the same as something else: they would undo one another's changes",
  ]);
  // What follows another may be followed in turn, but not by that.
  assert.deepEqual(await routes(mirror('"b"'), mirror('"c"', "", "b")), []);
  assert.deepEqual(await routes(mirror('"b"'), mirror('"c"', "", "b"), mirror('"a"', "", "c")), [
    "c:5: routes[2]: mirrors lead in a circle: c would follow itself",
  ]);
  assert.deepEqual(await routes(mirror('"b"', ', "deletes": "yes"')), ['c:3: routes[0].deletes: expected true or false, got "yes"']);
});
