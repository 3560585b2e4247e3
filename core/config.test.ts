import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { plugins } from "../cli/plugins.js";
import { loadConfig } from "./config.js";
import { problemText, suggestion } from "./config-problems.js";
import { parseDuration, parseSize, type Secret } from "./options.js";

const load = (text: string, baseDir = "/base", env: Record<string, string> = {}) =>
  loadConfig(text, plugins, { baseDir, env, hostName: "host" });
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
  assert.deepEqual(config?.routes[0]?.since, { ageMs: 1000 });
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

test("each of several unknown keys is told, with its line; and in one line what holds control characters", async () => {
  assert.deepEqual(
    await problems(`{
    "devices": {
      "in": { "type": "local", "dir": "x", "setle": "1s",
        "a\\nb\\u001b[31m": 1 },
      "out": { "type": "local", "dir": "y" } },
    "routes": [{ "from": "in", "to": ["out"], "excludes": [],
      "includes": [] }],
    "vehicel": "plane-1"
  }`),
    [
      'c:3: devices.in.setle: unknown key "setle"; did you mean "settle"?',
      'c:4: devices.in.a‛0Ab‛1B[31m: unknown key "a‛0Ab‛1B[31m"',
      'c:6: routes[0].excludes: unknown key "excludes"; did you mean "exclude"?',
      'c:7: routes[0].includes: unknown key "includes"; did you mean "include"?',
      'c:8: vehicel: unknown key "vehicel"; did you mean "vehicle"?',
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
  for (const dir of ["", "/", ".", "../done", "a/../b", "x/.filesync"])
    assert.match(
      (await problems(given(`, "archiveDir": ${JSON.stringify(dir)}`))).join(),
      /^c:1: devices\.in\.archiveDir: expected a directory below the source's root, without "\.\.", and none that is named "\.filesync", got "[^"]*"$/,
      dir,
    );
  const { config } = await load(given(', "archiveDir": "/sent//./to/"'));
  assert.equal(config?.devices[0]?.archiveDir, "sent/to");
  assert.deepEqual(await problems(given(', "archiveDir": "done", "interval": "soon"')), [
    'c:1: devices.in.interval: expected a duration such as "500ms", "30s", "5min", "12h" or "7d", got "soon"',
  ]);
});

test("the vehicle's name has to be one that a directory may have", async () => {
  const said = async (name: string) => problems(JSON.stringify({ vehicle: name, devices: {}, routes: [] }));
  for (const name of ["v\0x", "a\nb"])
    assert.deepEqual(await said(name), [`c:1: vehicle: expected a text without control characters, got ${JSON.stringify(name)}`]);
  for (const name of [".", "..", ".filesync", "x".repeat(101), "é".repeat(51)])
    assert.deepEqual(await said(name), [
      `c:1: vehicle: expected a name that a directory may have: at most 100 bytes, and not ".", ".." or ".filesync", got "${name}"`,
    ]);
  for (const name of ["plane 1/b", "..x", "é".repeat(50)]) assert.deepEqual(await said(name), []);
});

test("what is too deep for any reader is said with its line; what only looks so is not", async () => {
  for (const open of ["[", '{"a":'])
    for (const close of [false, true]) {
      const text = `{\n"x": ${open.repeat(20_000)}${close ? (open === "[" ? "]" : "1}").repeat(20_000) : ""}}`;
      assert.deepEqual(await problems(text), ["c:2: more than 100 lists and objects are in one another here"]);
    }
  assert.deepEqual(await problems(`{ "$schema": "${"[{".repeat(500)}" } // ${"[{".repeat(500)}`), []);
});

test("what is no JSON is said with its line", async () => {
  assert.deepEqual(await problems('{\n  "devices": {\n    "a" { }\n  }\n}'), ["c:3: this is no JSON: colon expected (column 9)"]);
  assert.deepEqual(await problems(""), ["c:1: the file is empty; see config.example.json"]);
  assert.deepEqual(await problems('{\n "vehicle": "a",\n "vehicle": "b"\n}'), [
    'c:3: vehicle: "vehicle" is there twice; only one of them can count',
  ]);
});

test("a text in another encoding than UTF-8 is told by its place, and not said again; a comment may be as it is", async () => {
  const text =
    '{\n "vehicle": "Fl\u00fcgel", // Fl\u00fcgel\n "devices": { "g": { "type": "ftp", "host": "h", "user": "u", "password": "p\u00e4ss" } }\n}';
  const latin = Buffer.from(text, "latin1").toString("utf8");
  assert.deepEqual(await problems(latin), [
    "c:2: vehicle: this has the sign \uFFFD, which stands where a text is no UTF-8: write it anew, and save the file as UTF-8",
    "c:3: devices.g.password: this has the sign \uFFFD, which stands where a text is no UTF-8: write it anew, and save the file as UTF-8",
  ]);
  assert.deepEqual(await problems(text), []);
  assert.deepEqual(await problems(latin.replaceAll(/"[^"]*\uFFFD[^"]*"/g, '"x"')), []);
});

test("a number that no JSON can hold is said as what it is", async () => {
  assert.deepEqual(await problems('{ "spool": { "maxSize": 1e400 } }'), [
    'c:1: spool.maxSize: expected a size such as "4MiB" or "300kB" (units: B kB MB GB KiB MiB GiB), got Infinity',
  ]);
});

test("what would be left out without a word, because JavaScript has a meaning for its name, is said", async () => {
  for (const name of ["constructor", "prototype", "__proto__"])
    assert.deepEqual(await problems(`{\n "devices": {\n  "${name}": { "type": "local", "dir": "x" }\n }\n}`), [
      `c:3: ${name}: nothing can be called so; take another name`,
    ]);
});

test("a value beyond its bounds is said as it was written, with the bound in its units", async () => {
  assert.deepEqual(
    await problems(`{
  "journal": { "keep": "20s" },
  "devices": {
    "in": { "type": "local", "dir": "x", "interval": "200ms", "budget": { "day": "0 MB" } },
    "small": { "type": "webdav", "url": "https://h/", "chunkSize": "1 kB", "budget": "1 GB" },
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
      'c:5: devices.small.budget: expected an object, as { "day": "500 MB" }, got "1 GB"',
      'c:5: devices.small.chunkSize: expected at least "1KiB", got "1 kB"',
      'c:6: devices.large.chunkSize: expected at most "5GiB", got "6GiB"',
      'c:9: routes[0].trashKeep: expected at least 1d, got "90min"',
    ],
  );
});

test("what a timer waits for is bounded: Node.js's fire at once where they are to wait longer, and nobody answers within nothing", async () => {
  const ftp = { type: "ftp", host: "h" };
  const devices = {
    in: { type: "local", dir: "x", interval: "30d", settle: "25d" },
    none: { ...ftp, timeout: "0s" },
    long: { ...ftp, timeout: "600h" },
    most: { ...ftp, timeout: "24d", interval: "24d", settle: 0 },
  };
  const web = { type: "webdav", url: "https://h/", answerTimeout: "5w" };
  const limits = { login: "0s", idle: "30d", stall: "25d" };
  const served = { type: "ftp-server", root: "r", users: { u: { password: "p" } }, limits };
  assert.deepEqual(await problems(JSON.stringify({ devices: { ...devices, web }, routes: [], services: { ftp: served } })), [
    'c:1: devices.in.interval: expected at most "24d", got "30d"',
    'c:1: devices.in.settle: expected at most "24d", got "25d"',
    'c:1: devices.none.timeout: expected more than "0s", got "0s"',
    'c:1: devices.long.timeout: expected at most "24d", got "600h"',
    'c:1: devices.web.answerTimeout: expected at most "24d", got "5w"',
    'c:1: services.ftp.limits.login: expected more than "0s", got "0s"',
    'c:1: services.ftp.limits.idle: expected at most "24d", got "30d"',
    'c:1: services.ftp.limits.stall: expected at most "24d", got "25d"',
  ]);
});

test("where nobody will use secrets, none is looked for, and none shows itself", async () => {
  const device = (password: object) => ({ type: "ftp", host: "h", user: "u", password });
  const text = JSON.stringify({ devices: { a: device({ env: "PW" }), b: device({ file: "x" }), c: device({ credential: "c" }) } });
  assert.equal((await load(text)).problems.length, 3);
  const { config, problems: wrong } = await loadConfig(text, plugins, {
    ...{ baseDir: "/base", env: {}, secrets: "unread", hostName: "host" },
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
    `expected the credential ground: a file ${dir}/credentials/ground (then restart the service), or LoadCredential=ground:PATH in the unit`,
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
    writeFileSync(join(dir, "ftp.secret"), "\uFEFFtop secret\r\n");
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
    const inherited = await load(text.replace('"PW"', '"toString"'), dir, {});
    assert.match(inherited.problems.map(({ message }) => message).join(), /^expected the environment variable toString to be set/);
  } finally {
    rmSync(dir, { recursive: true });
  }
});

test("roles and kinds are checked", async () => {
  assert.deepEqual(
    await problems(`{
  "devices": { "s": { "type": "ftp-server", "root": "x" }, "fc": { "type": "mavftp", "url": "tcpout://127.0.0.1:5760" } },
  "routes": [ { "from": "fc", "to": ["fc"] }, { "from": "fc", "to": ["s"], "into": "{vehicel}" }, { "from": "fc", "to": ["s"], "into": "../{date}" } ]
}`),
    [
      'c:2: devices.s.type: "ftp-server" is a service: put it under "services"',
      'c:3: routes[0].to[0]: "fc" cannot be a target: it is only read; "write": true on this device lets files be put, moved and removed there',
      "c:3: routes[0].to[0]: a route cannot lead to where it comes from",
      "c:3: routes[1].into: {vehicel} is not known; there are {vehicle} {device} {installation} {date}",
      'c:3: routes[2].into: "../{date}" leads out of the device: a directory below its root, without ".."',
    ],
  );
});

test("who cannot be written cannot be a side that is written, and the message says why that is one", async () => {
  const wrong = async (route: string) =>
    problems(
      `{ "devices": { "fc": { "type": "mavftp", "url": "tcpout://127.0.0.1:5760" }, "d": { "type": "local", "dir": "d" } }, "routes": [{ "from": "fc", "to": ["d"], ${route} }] }`,
    );
  const readOnly = '"fc" cannot be written: it is only read; "write": true on this device lets files be put, moved and removed there';
  assert.deepEqual(await wrong('"mode": "mirror", "deletes": true'), [
    `c:1: routes[0].from: a mirror with "deletes" puts a mark there, and ${readOnly}`,
  ]);
  assert.deepEqual(await wrong('"mode": "two-way"'), [`c:1: routes[0].from: both sides of a two-way route are written, and ${readOnly}`]);
  assert.deepEqual(await wrong('"mode": "mirror"'), []);
});

test("what can never be true of a file, a day that no month has, and a brace without its other", async () => {
  const route = async (more: string) =>
    (
      await problems(`{
  "vehicle": "v", "stateDir": "s", "devices": { "a": { "type": "local", "dir": "a" }, "b": { "type": "local", "dir": "b" } },
  "routes": [ { "from": "a", "to": ["b"], ${more} } ]
}`)
    ).map((text) => text.replace(/^c:3: /, ""));
  assert.deepEqual(await route('"minSize": "2KiB", "maxSize": "1KiB"'), [
    'routes[0].maxSize: no file is as large as "minSize" (2048) and no larger than this (1024)',
  ]);
  assert.deepEqual(await route('"minSize": "1KiB", "maxSize": "1KiB"'), []);
  const since = (given: string) => [
    `routes[0].since: expected "install", a date such as "2026-05-01", or an age such as "30d", got ${JSON.stringify(given)}`,
  ];
  for (const wrong of ["2026-02-31", "2026-02-30T10:00:00Z", "5", "May", "2026-13-01", "2026-05-011"])
    assert.deepEqual(await route(`"since": ${JSON.stringify(wrong)}`), since(wrong));
  for (const right of ["2024-02-29", "2026-05-01T10:00:00+02:00", "2026-05-01 10:00", "install", "30d"])
    assert.deepEqual(await route(`"since": ${JSON.stringify(right)}`), []);
  assert.deepEqual(await route('"into": "{vehicle/x"'), ['routes[0].into: "{vehicle/x" has a "{" without its "}"']);
  assert.deepEqual(await route('"into": "x}"'), ['routes[0].into: "x}" has a "}" without its "{"']);
  assert.deepEqual(await route('"mode": "mirror", "into": "{vehicle"'), ['routes[0].into: "{vehicle" has a "{" without its "}"']);
});

test("sizes, durations and near words", () => {
  assert.equal(parseSize("4MiB"), 4_194_304);
  assert.equal(parseSize("300 kB"), 300_000);
  assert.equal(parseSize(7), 7);
  assert.equal(parseSize("4 Mb"), undefined);
  assert.equal(parseSize("999999999TB"), undefined);
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
    'c:3: routes[0].afterDelivery: unknown key "afterDelivery" in a route of this mode: it belongs to "mode": "copy"',
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

test("a two-way route whose from is of a kind that never promises what that takes", async () => {
  const server = `{ "type": "ftp", "host": "h", "user": "u", "password": "p" }`;
  const route = (from: string, to: string, mode = "two-way") =>
    problems(
      `{ "devices": { "a": { "type": "local", "dir": "a" }, "s": ${server} },\n"routes": [{ "from": "${from}", "to": ["${to}"], "mode": "${mode}" }] }`,
    );
  assert.deepEqual(await route("s", "a"), [
    'c:2: routes[0].from: "s" cannot be this side of a two-way route: at no ftp server a name is surely nobody else\'s; make it the other side ("to")',
  ]);
  assert.deepEqual(await route("a", "s"), []);
  assert.deepEqual(await route("s", "a", "mirror"), []);
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

test("a server's directory that two devices name is one: host, port, user and path", async () => {
  const server = (type: string, more: object = {}) => ({ type, host: "nas.local", user: "box", ...more });
  const key = { privateKey: "k", knownHosts: "kh" };
  const devices = {
    ...{ a: { type: "local", dir: "a" }, b: { type: "local", dir: "b" } },
    ...{
      s1: server("sftp", { ...key, root: "/srv/box" }),
      s2: server("sftp", { ...key, host: "NAS.local", port: 22, root: "/srv//box/" }),
    },
    ...{ s3: server("sftp", { ...key, root: "/srv/box", user: "other" }), s4: server("sftp", { ...key, root: "box" }) },
    ...{ f1: server("ftp"), f2: server("ftp", { port: 21 }), f3: server("ftp", { secure: "implicit" }) },
    ...{ w1: { type: "webdav", url: "https://dav.local/x/" }, w2: { type: "webdav", url: "https://dav.local:443", root: "x" } },
    w3: { type: "webdav", url: "http://dav.local/x/" },
  };
  const both = async (one: string, two: string, into = "") => {
    const mirrored = (from: string, to: string) => ({ from, to: [to], mode: "mirror", into });
    const found = await problems(JSON.stringify({ devices, routes: [mirrored("a", one), mirrored("b", two)] }));
    return found.map((text) => text.replace(/^c:\d+: /, ""));
  };
  const fights = (one: string) => [
    `routes[1]: another route keeps ${one}:x the same as something else: they would undo one another's changes`,
  ];
  for (const [one, two] of [
    ["s1", "s2"],
    ["f1", "f2"],
    ["w1", "w2"],
  ] as const)
    assert.deepEqual(await both(one, two, "x"), fights(one));
  for (const [one, two] of [
    ["s1", "s3"],
    ["s1", "s4"],
    ["f1", "f3"],
    ["w1", "w3"],
  ] as const)
    assert.deepEqual(await both(one, two, "x"), []);
  const copied = { devices, routes: [{ from: "s1", to: ["s2"], into: "in" }] };
  assert.match((await problems(JSON.stringify(copied))).join(), /s2:in is in s1 \(ssh:\/\/box@nas\.local:22\/srv\/box\/in\)/);
});

test("a directory that is another, or in another: what would come back without end is refused, also by links", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "places-"));
  t.after(() => rmSync(dir, { recursive: true }));
  mkdirSync(join(dir, "box/sub"), { recursive: true });
  mkdirSync(join(dir, "oth"));
  symlinkSync(join(dir, "box"), join(dir, "link"));
  symlinkSync(join(dir, "box/sub"), join(dir, "deep"));
  const local = Object.fromEntries(
    Object.entries({ box: "box", same: "oth/../box/", link: "link", sub: "box/sub", deep: "deep", oth: "oth" }).map(([name, at]) => [
      name,
      { type: "local", dir: at, archiveDir: "done" },
    ]),
  );
  const devices = { ...local, card: { type: "disk", any: true }, stick: { type: "disk", uuid: "u", mountPoint: "box", root: "sub" } };
  const wrong = async (...routes: readonly object[]) =>
    (await load(JSON.stringify({ vehicle: "v", devices, routes }), dir)).problems.map(({ path, message }) =>
      `${path}: ${message}`.replaceAll(dir, "").replace(/ \(.*/, ""),
    );
  const one = (message: string) => [`routes[0].to[0]: ${message}`];
  const isIn = (inner: string, outer: string) => one(`${inner} is in ${outer}`);
  for (const mode of ["mirror", "two-way"]) {
    const route = (from: string, to: string, more = {}) => wrong({ from, to: [to], mode, ...more });
    assert.deepEqual(await route("box", "same"), one("same and box are one directory"));
    assert.deepEqual(await route("box", "link"), one("link and box are one directory"));
    assert.deepEqual(await route("box", "link", { into: "sub" }), isIn("link:sub", "box"));
    assert.deepEqual(await route("link", "sub"), isIn("sub", "link"));
    assert.deepEqual(await route("box", "deep"), isIn("deep", "box"));
    assert.deepEqual(await route("box", "stick"), isIn("stick", "box"));
    assert.deepEqual(await route("sub", "box"), isIn("sub", "box"));
    assert.deepEqual(await route("sub", "box", { into: "sub/in" }), isIn("box:sub/in", "sub"));
    // What is left out does not come back.
    assert.deepEqual(await route("box", "sub", { exclude: ["sub"] }), []);
    assert.deepEqual(await route("box", "sub", { exclude: ["s*/**"] }), []);
    assert.deepEqual(await route("sub", "box", { into: "other" }), []);
    assert.deepEqual(await route("box", "oth"), []);
  }
  const copy = (from: string, to: string, more = {}) => wrong({ from, to: [to], ...more });
  assert.deepEqual(await copy("box", "same", { into: "" }), one("same and box are one directory"));
  assert.deepEqual(await copy("box", "same"), isIn("same:v/box", "box"));
  assert.deepEqual(await copy("box", "deep", { into: "{date}/{installation}" }), isIn("deep", "box"));
  assert.deepEqual(await copy("box", "sub", { include: ["**/*.ulg"] }), isIn("sub:v/box", "box"));
  assert.deepEqual(await copy("box", "sub", { include: ["*.ulg", "flights/**", "s?b/*"] }), []);
  assert.deepEqual(await copy("box", "sub", { exclude: ["sub"] }), []);
  assert.deepEqual(await copy("box", "box2", { exclude: ["sub"] }), one('there is no device "box2"; did you mean "box"?'));
  assert.deepEqual(await copy("box", "same", { into: "done/{date}" }), []);
  assert.deepEqual(await copy("sub", "box"), []);
  assert.deepEqual(await copy("sub", "box", { into: "sub" }), one("box:sub and sub are one directory"));
  // By other routes, and by more than one.
  const round = (path: string) => [`${path}: what it brings comes back by other routes`];
  assert.deepEqual(await wrong({ from: "box", to: ["oth"] }, { from: "oth", to: ["link"] }), round("routes[1].to"));
  assert.deepEqual(
    await wrong(
      { from: "box", to: ["oth"] },
      { from: "oth", to: ["card"], into: "" },
      { from: "card", to: ["box"], include: ["**/*.ulg"] },
    ),
    round("routes[2].to"),
  );
  for (const [there, back] of [
    [{ into: "" }, { into: "" }],
    [{ include: ["**/*.ulg"] }, { include: ["**/*.lua"] }],
    [{}, { exclude: ["v"] }],
    [{ include: ["*.ulg"] }, {}],
    [{ into: "done" }, {}],
    [{}, { into: "done" }],
  ])
    assert.deepEqual(await wrong({ from: "box", to: ["oth"], ...there }, { from: "oth", to: ["link"], ...back }), []);
  // One directory by two names is one, also between routes.
  assert.deepEqual(await wrong({ from: "card", to: ["box"], mode: "mirror" }, { from: "oth", to: ["link"], mode: "mirror", into: "x" }), [
    "routes[1]: another route keeps box: the same as something else: they would undo one another's changes",
  ]);
  assert.deepEqual(await wrong({ from: "card", to: ["box"], mode: "mirror", into: "a" }, { from: "link", to: ["card"], mode: "mirror" }), [
    "routes[1]: mirrors lead in a circle: link would follow itself",
  ]);
  assert.deepEqual(await wrong({ from: "box", to: ["oth"], mode: "two-way" }, { from: "link", to: ["card"], afterDelivery: "delete" }), [
    'routes[0]: another route takes delivered files away from "box" or "oth": here that would remove them on both sides',
  ]);
  // So it is with a directory in it, or above it, but for what one of them leaves out.
  for (const mode of [{ mode: "two-way" }, { mode: "mirror", deletes: true }]) {
    const taken = (sync: object, from: string, more: object = {}) =>
      wrong({ ...mode, ...sync }, { from, to: ["card"], afterDelivery: "delete", ...more });
    const refused = (one: string, two: string) => [
      `routes[0]: another route takes delivered files away from "${one}" or "${two}": here that would remove them on both sides`,
    ];
    assert.deepEqual(await taken({ from: "box", to: ["oth"] }, "deep"), refused("box", "oth"));
    assert.deepEqual(await taken({ from: "sub", to: ["oth"] }, "link"), refused("sub", "oth"));
    assert.deepEqual(await taken({ from: "oth", to: ["box"], into: "sub" }, "sub"), refused("oth", "box"));
    assert.deepEqual(await taken({ from: "oth", to: ["box"], into: "sub" }, "box"), refused("oth", "box"));
    assert.deepEqual(await taken({ from: "box", to: ["oth"], exclude: ["sub"] }, "sub"), []);
    assert.deepEqual(await taken({ from: "sub", to: ["oth"] }, "box", { exclude: ["sub"] }), []);
    assert.deepEqual(await taken({ from: "sub", to: ["oth"] }, "box", { include: ["*.ulg"] }), []);
    assert.deepEqual(await taken({ from: "oth", to: ["box"], into: "other" }, "sub"), []);
    const [first = "", ...others] = await taken({ from: "box", to: ["oth"] }, "sub", { exclude: [""] });
    assert.deepEqual([first], refused("box", "oth"));
    assert.match(others.join(), /^routes\[1\]\.exclude\[0\]: /);
  }
});

test("two devices over one directory, or one in the other: a route that takes away what another one wants there is refused", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "same-source-"));
  t.after(() => rmSync(dir, { recursive: true }));
  for (const name of ["box/sub/deep", "oth"]) mkdirSync(join(dir, name), { recursive: true });
  symlinkSync(join(dir, "box"), join(dir, "link"));
  const local = Object.fromEntries(
    Object.entries({ box: "box", link: "link", sub: "box/sub", oth: "oth" }).map(([name, at]) => [
      name,
      { type: "local", dir: at, archiveDir: "done" },
    ]),
  );
  const devices = { ...local, card: { type: "disk", any: true }, stick: { type: "disk", uuid: "u" } };
  const services = { ground: { type: "ftp-server", root: "box/sub", users: { plane: { password: "x" } } } };
  const wrong = async (taking: object, other: object) => {
    const routes = [
      { to: ["card"], afterDelivery: "delete", ...taking },
      { to: ["stick"], ...other },
    ];
    return (await load(JSON.stringify({ vehicle: "v", devices, services, routes }), dir)).problems.map(
      ({ path, message }) => `${path}: ${message.replace(/:.*/, "")}`,
    );
  };
  const refused = (other: string, n = 0) => [
    `routes[${n}].afterDelivery: another route brings files of the same directory from "${other}"`,
  ];
  assert.deepEqual(await wrong({ from: "box" }, { from: "link" }), refused("link"));
  assert.deepEqual(await wrong({ from: "box", afterDelivery: "archive" }, { from: "sub" }), refused("sub"));
  assert.deepEqual(await wrong({ from: "sub" }, { from: "link" }), refused("link"));
  assert.deepEqual(await wrong({ from: "link" }, { from: "ground" }), refused("ground"));
  assert.deepEqual(await wrong({ from: "ground" }, { from: "box" }), refused("box"));
  const both = await wrong({ from: "box" }, { from: "link", afterDelivery: "delete" });
  assert.deepEqual(both, [...refused("link"), ...refused("box", 1)]);
  assert.deepEqual(await wrong({ from: "box", include: ["**/*.ulg"] }, { from: "link", include: ["*.{ulg,bin}"] }), refused("link"));
  assert.deepEqual(await wrong({ from: "box", include: ["**/*.ulg"] }, { from: "sub" }), refused("sub"));
  assert.deepEqual(await wrong({ from: "box", include: ["sub/deep/*"] }, { from: "sub", include: ["deep/**"] }), refused("sub"));
  assert.deepEqual(await wrong({ from: "sub", minSize: "1MB" }, { from: "box", include: ["sub/**"], minSize: "2MB" }), refused("box"));
  // Nothing is wanted by both, or none of it is taken away.
  for (const [taking, other] of [
    [{ from: "box" }, { from: "box" }],
    [{ from: "box" }, { from: "oth" }],
    [{ from: "box", afterDelivery: "keep" }, { from: "link" }],
    [
      { from: "box", include: ["**/*.ulg"] },
      { from: "link", include: ["**/*.jpg"] },
    ],
    [{ from: "box", include: ["*.ulg"] }, { from: "sub" }],
    [{ from: "box", exclude: ["sub"] }, { from: "sub" }],
    [{ from: "sub" }, { from: "box", exclude: ["sub/**"] }],
    [
      { from: "box", minSize: "1MB" },
      { from: "link", maxSize: "900kB" },
    ],
    [{ from: "box" }, { from: "link", include: ["done/**"] }],
    [{ from: "box" }, { from: "link", mode: "mirror" }],
  ] as const)
    assert.deepEqual(await wrong(taking, other), [], JSON.stringify([taking, other]));
});

test("a route that would bring the program's own state is refused, also by way of links, unless it leaves that out", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "state-in-"));
  t.after(() => rmSync(dir, { recursive: true }));
  for (const name of ["box/sub", "oth"]) mkdirSync(join(dir, name), { recursive: true });
  symlinkSync(join(dir, "box"), join(dir, "link"));
  const devices = Object.fromEntries(["box", "link", "oth", "far"].map((at) => [at, { type: "local", dir: at, archiveDir: "done" }]));
  const wrong = async (stateDir: string, route: object) =>
    (await load(JSON.stringify({ vehicle: "v", stateDir, devices, routes: [route] }), dir)).problems.map(({ path, message }) =>
      `${path}: ${message}`.replaceAll(dir, ""),
    );
  for (const mode of ["mirror", "two-way"]) {
    const [there, back] = [
      { from: "box", to: ["oth"], mode },
      { from: "oth", to: ["box"], mode },
    ];
    assert.deepEqual(await wrong("box/sub/state", there), [
      'routes[0]: "stateDir" is in box (/box/sub/state): the journal would be brought too, and each time that is written there it has changed, without end; leave it out ("exclude": ["sub/state"]), or choose another "stateDir"',
    ]);
    assert.match((await wrong("box/sub/state", back)).join(), /^routes\[0\]: "stateDir" is in box \(.*\["sub\/state"\]/);
    assert.match((await wrong("link/state", there)).join(), /^routes\[0\]: "stateDir" is in box \(\/box\/state\)/);
    assert.match((await wrong("box/state", { ...there, from: "link" })).join(), /^routes\[0\]: "stateDir" is in link /);
    assert.match((await wrong("box/sub/state", { ...back, into: "sub" })).join(), /^routes\[0\]: "stateDir" is in box:sub .*\["state"\]/);
    assert.match(
      (await wrong("box", there)).join(),
      /^routes\[0\]: "stateDir" and box are one directory \(.*without end; choose another "stateDir"$/,
    );
    // What is left out, or beside it, is not brought.
    assert.deepEqual(await wrong("box/sub/state", { ...there, exclude: ["sub"] }), []);
    assert.deepEqual(await wrong("box/sub/state", { ...there, exclude: ["sub/state"] }), []);
    assert.deepEqual(await wrong("box/state", { ...back, into: "sub" }), []);
    assert.deepEqual(await wrong("state", there), []);
  }
  // Once, however many follow.
  assert.equal((await wrong("box/state", { from: "box", to: ["oth", "far"], mode: "mirror" })).length, 1);
  const copy = (stateDir: string, more = {}) => wrong(stateDir, { from: "box", to: ["oth", "far"], ...more });
  assert.match((await copy("box/state")).join(" "), /^routes\[0\]\.from: "stateDir" is in box \(\/box\/state\): (?!.*routes)/);
  assert.match((await copy("link/state", { include: ["**/*.ulg"] })).join(), /^routes\[0\]\.from: "stateDir" is in box/);
  assert.deepEqual(await copy("box/state", { include: ["*.ulg", "flights/**"] }), []);
  assert.deepEqual(await copy("box/state", { exclude: ["state"] }), []);
  assert.deepEqual(await copy("oth/state"), []);
});

test("where a mirror or two-way route leads at its target: templates that stay the same, and nothing that cannot be", async () => {
  const devices = Object.fromEntries(["a", "b", "c"].map((name) => [name, { type: "local", dir: name }]));
  const loaded = (...routes: readonly object[]) => load(JSON.stringify({ vehicle: "v/1", devices, routes }));
  const wrong = async (...routes: readonly object[]) =>
    (await loaded(...routes)).problems.map(({ path, message }) => `${path}: ${message}`);
  for (const mode of ["mirror", "two-way"]) {
    const route = { from: "a", to: ["b"], mode };
    const { config, problems: none } = await loaded({ ...route, into: "/in//{vehicle}/./{device}/" });
    assert.deepEqual(none, []);
    assert.deepEqual(
      config?.syncs.map(({ into }) => into),
      ["in/v_1/a"],
    );
    const into = async (text: string) => (await wrong({ ...route, into: text })).map((said) => said.replace("routes[0].into: ", ""));
    assert.deepEqual(await into("../x"), ['"../x" leads out of the device: a directory below its root, without ".."']);
    assert.deepEqual(await into("x/.filesync"), ['a directory named ".filesync" is the program\'s own']);
    assert.deepEqual(await into("x\0y"), ['expected a text without control characters, got "x\\u0000y"']);
    assert.deepEqual(await into("{date}"), [
      "{date} is not the same every day, and this route keeps one directory: there are {vehicle} {device}",
    ]);
    assert.deepEqual(await into("{installation}"), [
      "{installation} is another one after a card was copied, and this route keeps one directory: there are {vehicle} {device}",
    ]);
    assert.deepEqual(await into("{vehicel}"), ["{vehicel} is not known; there are {vehicle} {device}"]);
  }
  assert.deepEqual(await wrong({ from: "a", to: ["b", "c"], mode: "two-way" }), [
    'routes[0].to[1]: expected a list of one device name: each other device has a route of its own, got "c"',
  ]);
  // What is taken away where it was made has to be safe where it is.
  const filled = { from: "a", to: ["b"], mode: "mirror", into: "x", deletes: true };
  const copied = { from: "c", to: ["b"], into: "x/y", afterDelivery: "delete" };
  const said = (n: number) => [
    `routes[${n}].to[0]: a mirror with "deletes" fills b:x: what is delivered there may be replaced or removed, and "afterDelivery" would have taken away the other copy; choose another directory, or "keep"`,
  ];
  assert.deepEqual(await wrong(filled, copied), said(1));
  assert.deepEqual(await wrong(copied, filled), said(0));
  assert.deepEqual(await wrong(filled, { ...copied, afterDelivery: "keep" }), []);
  assert.deepEqual(await wrong(filled, { ...copied, into: "z" }), []);
});

test("what is wrong with a device or a key of a mirror or two-way route is said once, and for the role that it has there", async () => {
  const devices = {
    box: { type: "local", dir: "box" },
    web: { type: "post", url: "http://127.0.0.1:1/x" },
    rs: {
      type: "rsync",
      host: "127.0.0.1",
      user: "u",
      privateKey: "k",
      hostKey: "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
      root: "/x",
    },
    nas: { type: "local", dir: "nas" },
  };
  const wrong = async (route: object) =>
    (await load(JSON.stringify({ devices, routes: [{ from: "box", to: ["nas"], ...route }] }))).problems.map(
      ({ path, message }) => `${path}: ${message}`,
    );
  for (const mode of ["mirror", "two-way"]) {
    for (const name of ["web", "rs"])
      assert.deepEqual(await wrong({ mode, to: [name] }), [
        `routes[0].to[0]: "${name}" cannot be kept the same as another device: what it holds cannot be listed; a copy route can lead there`,
      ]);
    assert.deepEqual(await wrong({ mode, to: ["nope"] }), ['routes[0].to[0]: there is no device "nope"']);
    assert.deepEqual(await wrong({ mode, from: "nope" }), ['routes[0].from: there is no device "nope"']);
    assert.deepEqual(await wrong({ mode, from: "web" }), ['routes[0].from: "web" cannot be a source']);
    assert.deepEqual(await wrong({ mode, settle: "1s" }), ['routes[0].settle: unknown key "settle" in a route: it belongs to a device']);
    assert.deepEqual(await wrong({ mode, maxDeletes: -1 }), ["routes[0].maxDeletes: expected at least 0, got -1"]);
  }
  for (const [route, key, modes] of [
    [{ deletes: true }, "deletes", '"mirror"'],
    [{ maxDeletes: 5 }, "maxDeletes", '"mirror" or "two-way"'],
    [{ mode: "two-way", deletes: true }, "deletes", '"mirror"'],
    [{ mode: "mirror", afterDelivery: "delete" }, "afterDelivery", '"copy"'],
  ] as const)
    assert.deepEqual(await wrong(route), [
      `routes[0].${key}: unknown key "${key}" in a route of this mode: it belongs to "mode": ${modes}`,
    ]);
  assert.deepEqual(await wrong({ interval: "1s" }), ['routes[0].interval: unknown key "interval" in a route: it belongs to a device']);
});

test("a root or a url of WebDAV of which each file would be refused is a mistake of the configuration", async () => {
  assert.deepEqual(
    await problems(`{ "devices": {
    "a": { "type": "webdav", "url": "https://h/", "root": "../up" },
    "b": { "type": "webdav", "url": "https://h/a%4Zb" },
    "c": { "type": "webdav", "url": "https://h/100%25", "root": "/a//b/./c/" }
  }, "routes": [] }`),
    [
      'c:2: devices.a.root: expected a path without "..", got "../up"',
      'c:3: devices.b.url: expected a URL such as "https://cloud.example.org/remote.php/dav/files/me", with nothing after "?" or "#" (the user and password have options of their own), got "https://h/a%4Zb"',
    ],
  );
});

test("a password of WebDAV without a user, with which nothing would be sent, is a mistake of the configuration", async () => {
  assert.deepEqual(
    await problems(`{ "devices": {
    "a": { "type": "webdav", "url": "https://h/",
      "password": "x" },
    "b": { "type": "webdav", "url": "https://h/", "user": "", "password": "x" },
    "c": { "type": "webdav", "url": "https://h/", "user": "u" }
  }, "routes": [] }`),
    ['c:3: devices.a.password: expected the "user" whose password this is ("" where the server wants none)'],
  );
});

test("a list where an object is needed is told, wherever it stands; so is a route from nowhere", async () => {
  assert.deepEqual(
    await problems(`{ "spool": [], "devices": {
    "a": { "type": "local", "dir": "a", "when": [] },
    "b": { "type": "post", "url": "https://h/x", "headers": ["Authorization: SecretPw9"], "answer": [] },
    "c": { "type": "ftp", "host": "h", "tls": ["SHA256:x"] }
  }, "routes": [
    { "from": "", "to": ["b"] }
  ] }`),
    [
      "c:1: spool: expected an object, got a list",
      "c:2: devices.a.when: expected an object, got a list",
      "c:3: devices.b.headers: expected headers by name, got a list",
      "c:3: devices.b.answer: expected an object, got a list",
      "c:4: devices.c.tls: expected an object, got a list",
      'c:6: routes[0].from: there is no device ""; did you mean "a"?',
    ],
  );
});

test("what may be a secret is not said again", async () => {
  const wrong = await problems(`{ "devices": {
    "a": { "type": "ftp", "host": "h", "password": 123456789 },
    "b": { "type": "ftp", "host": "h", "password": ["SecretPw9"] },
    "c": { "type": "post", "url": "https:/h/up?key=SecretPw9" },
    "d": { "type": "webdav", "url": "https:/h/#SecretPw9" },
    "e": { "type": "ftp", "host": "ftp://u:SecretPw9@h" },
    "f": { "type": "sftp", "host": "u:SecretPw9@h", "user": "u", "password": "x" },
    "g": { "type": "rsync", "host": "h", "user": "u", "privateKey": "/key", "root": "/r", "password": "SecretPw9" },
    "h": { "type": "sftp", "host": "h", "user": "u", "privateKey": "-----BEGIN OPENSSH PRIVATE KEY-----\\nSecretPw9" }
  }, "routes": [], "services": { "ftp": { "type": "ftp-server", "root": "r", "passivePorts": "x", "users": {
    "one": "SecretPw9", "two": { "passwordHash": "SecretPw9" } } } } }`);
  const secret = 'a text, { "env": "NAME" }, { "file": "PATH" } or { "credential": "NAME" }';
  assert.deepEqual(
    wrong.map((text) => text.replace(/^c:\d+: /, "")),
    [
      `devices.a.password: expected ${secret}`,
      `devices.b.password: expected ${secret}`,
      'devices.c.url: expected a URL that begins with "https://" or "http://", got "https:/h/up?***"',
      'devices.d.url: expected a URL such as "https://cloud.example.org/remote.php/dav/files/me", with nothing after "?" or "#" (the user and password have options of their own), got "https:/h/#***"',
      'devices.e.host: expected a host name or an address: no URL, no user, no spaces, got "ftp://***@h"',
      'devices.f.host: expected a host name or an address: no URL, no user, no spaces, got "***@h"',
      'devices.g.password: expected no password: ssh takes none from a program; use a key, by "privateKey" or "agent"',
      "devices.h.privateKey: expected a text without control characters",
      'services.ftp.passivePorts: expected ports such as "30000-30099", from 1 to 65535, got "x"',
      "services.ftp.users.one: expected an object",
      'services.ftp.users.two.passwordHash: expected a hash such as "scrypt$16384$8$1$…"',
    ],
  );
  assert.doesNotMatch(wrong.join("\n"), /SecretPw9|123456789/);
});

test("a list where names are needed ends the start", async () => {
  assert.deepEqual((await load("[]")).problems, [{ line: 1, path: "", message: "expected an object, got a list" }]);
  const { config, problems: wrong } = await load('{ "devices": [], "routes": [] }');
  assert.equal(config, undefined);
  assert.deepEqual(
    wrong.map(({ path, message }) => `${path}: ${message}`),
    ["devices: expected devices by name, got a list"],
  );
});

test("routes are counted as they are written, also where one runs as several", async () => {
  const devices = {
    box: { type: "local", dir: "box" },
    nas: { type: "local", dir: "nas" },
    two: { type: "local", dir: "two" },
    web: { type: "post", url: "http://127.0.0.1:1/x" },
  };
  const counts = async (...routes: readonly object[]) => {
    const { config } = await load(JSON.stringify({ devices, routes }));
    return [config?.routeCount, config?.routes.length];
  };
  assert.deepEqual(await counts({ from: "box", to: ["nas", "web"] }), [1, 2]);
  assert.deepEqual(await counts({ from: "box", to: ["nope"] }, { from: "box", to: ["nas", "two"], mode: "mirror" }), [1, 0]);
});
