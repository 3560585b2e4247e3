/** report: whatever place of a configuration, a log or a receipt a secret may stand in, the report holds it in no form. */
import assert from "node:assert/strict";
import { appendFileSync, chmodSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { runProgram } from "../faults/process.js";
import { World } from "../faults/world.js";

const local = (dir: string, more = {}) => ({ type: "local", dir, ...more });

/** Each is found nowhere but in its place. */
const secrets = {
  text: "Ze!ta-9/word one",
  file: "Fi+le&secret=77",
  env: "En?viron#ment 88",
  passphrase: "Pass%phrase:99",
  user: "Server-user-pw\\11",
  header: "Head-er/token~22",
  key: "fr-key-33-44-55",
  hash: "scrypt$16384$8$1$c2FsdHNhbHRzYWx0$" + "aGFzaGhhc2hoYXNoaGFzaA",
  field: "field-value-66666",
  query: "query-value-77777",
  hook: "T0KEN0hook0path0x9z8y7",
  argument: "Bearer-argument-88888",
  misspelt: "miss-pelt-password-9",
  comment: "comment-secret-10101",
  outside: "outside-plugin-own-121212",
  number: "4711471147",
  local: "anna.ivanova",
} as const;

/** As programs write it, with a user before it or not; and what must then not be found, which is what the secret alone decides of that. */
function formsOf(secret: string): { readonly said: string[]; readonly sought: string[] } {
  const bytes = Buffer.from(secret);
  const url = encodeURIComponent(secret);
  const plain = [secret, JSON.stringify(secret).slice(1, -1), url, url.toLowerCase(), url.replaceAll("%20", "+"), bytes.toString("hex")];
  const base64 = ["", "u", "us"].map((user) => ({ user, text: Buffer.concat([Buffer.from(user), bytes]) }));
  const inside = base64.map(({ user, text }) =>
    text.toString("base64").slice(user === "" ? 0 : 4, Math.floor(((user.length + bytes.length) * 4) / 3)),
  );
  return {
    said: [...plain, ...base64.flatMap(({ text }) => [text.toString("base64"), text.toString("base64url")])],
    sought: [...plain, ...inside],
  };
}

function written(world: World) {
  world.mkdir("out");
  world.file("in/a.ulg", "content");
  writeFileSync(world.path("ftp.secret"), `${secrets.file}\n`);
  writeFileSync(
    world.path("own.mjs"),
    `export const plugin = { type: "own", roles: ["target"], device: () => { throw new Error("none"); }, options: (await import(${JSON.stringify(import.meta.resolve("valibot"))})).looseObject({}) };`,
  );
  const at = { host: "127.0.0.1", port: 1, user: `${secrets.local}@example.org` };
  const config = {
    vehicle: "v",
    stateDir: "state",
    spool: { keepFree: "1MiB" },
    devices: {
      in: local("in"),
      out: local("out"),
      a: { ...at, type: "ftp", password: secrets.text },
      b: { ...at, type: "ftp", password: { file: "ftp.secret" } },
      c: { type: "webdav", url: "http://127.0.0.1:1/dav", user: "u", password: { env: "REPORT_PW" } },
      d: { ...at, type: "sftp", privateKey: "~/.ssh/id", passphrase: secrets.passphrase, hostKey: "SHA256:" + "A".repeat(43) },
      e: {
        type: "post",
        url: `http://127.0.0.1:1/hook/${secrets.hook}/in?sig=${secrets.query}`,
        fields: { note: secrets.field },
        headers: { "X-Any": secrets.header },
      },
      f: { type: "post", preset: "flight-review-key", url: "http://127.0.0.1:1/", key: secrets.key },
      g: { ...at, type: "ftp", pasword: secrets.misspelt },
      h: { ...at, type: "ftp", password: Number(secrets.number) },
      i: { type: "disk", uuid: "5C3D-DD9E", onSafe: ["/usr/bin/notify", "--say", secrets.argument] },
      j: { type: "./own.mjs", anything: secrets.outside },
    },
    services: {
      srv: {
        type: "ftp-server",
        listen: "127.0.0.1:0",
        root: "served",
        users: { one: { password: secrets.user }, two: { passwordHash: secrets.hash } },
      },
    },
    routes: [{ from: "in", to: ["out"] }],
    onEvent: [{ event: ["parked"], command: ["/usr/bin/notify", "--say", secrets.argument] }],
  };
  const path = world.path("config.json");
  writeFileSync(path, `// the old password was ${secrets.comment}\n${JSON.stringify(config, undefined, 1)}`);
  return path;
}

test("a configuration with a secret in every place, a log and receipts that repeat them: the report has none, in no form", async (t) => {
  const world = new World(t);
  const config = written(world);
  // The log has all that is known of the configuration; what only a comment has nobody can know.
  const known = Object.entries(secrets).filter(([name]) => !["comment", "field", "misspelt", "outside", "hash", "local"].includes(name));
  const lines = known.flatMap(([name, secret]) => formsOf(secret).said.map((form) => `${name} said ${form} to the server`));
  const mail = Buffer.from(`${secrets.local}@example.org`).toString("base64");
  writeFileSync(
    world.path("log"),
    [...lines, `PASS ${secrets.hash}`, `the login of ${secrets.local}@example.org: ${mail}`, "filesync started"].join("\n"),
  );
  world.mkdir("bin");
  writeFileSync(world.path("bin/journalctl"), `#!/bin/sh\ncat "${world.path("log")}"\n`);
  chmodSync(world.path("bin/journalctl"), 0o755);
  const env = { ...process.env, REPORT_PW: secrets.env, PATH: `${world.path("bin")}:${process.env["PATH"] ?? ""}` };
  await runProgram(["run", "--once", "--config", config], { env });
  const receipt = {
    url: `https://review.example.org/edit?action=delete&token=${secrets.query}`,
    answer: `thanks, ${secrets.local}@example.org`,
    is: lines,
  };
  appendFileSync(world.path("state/receipts.jsonl"), `${JSON.stringify(receipt)}\n`);
  const out = world.path("report.txt");
  const { code, out: said, err } = await runProgram(["report", "--config", config, "--out", out], { env });
  assert.equal(code, 0, err);
  assert.match(
    said,
    /report\.txt \([\d.]+ kB\) is written; only its owner may read it\. It has: versions; configuration; doctor; status; /,
  );
  assert.equal(statSync(out).mode & 0o777, 0o600);
  const text = readFileSync(out, "utf8");
  for (const [name, secret] of Object.entries(secrets))
    for (const form of formsOf(secret).sought) {
      const at = text.indexOf(form);
      assert.equal(at, -1, `${name} as ${form}: …${text.slice(Math.max(0, at - 60), at + 60)}…`);
    }
  assert.ok(!text.includes(mail.slice(0, 20)), "the address in base64");
  for (const there of [
    '"type": "ftp-server"',
    '"file": "ftp.secret"',
    '"env": "REPORT_PW"',
    '"privateKey": "~/.ssh/id"',
    "…@example.org",
    'unknown key "pasword"',
    "filesync started",
    '"proof":',
    "== mounts",
    "the connection is refused",
    "/proc ",
  ])
    assert.ok(text.includes(there), `${there} is in\n${text.slice(0, 6000)}`);
});

test("another file is never replaced; without a configuration, or with one that is no JSON, there is a report too", async (t) => {
  const world = new World(t);
  const taken = world.path("taken.txt");
  writeFileSync(taken, "mine");
  const refused = await runProgram(["report", "--out", taken], { cwd: world.dir });
  assert.equal(refused.code, 2);
  assert.match(refused.err, /^filesync: --out .*taken\.txt is there already: name another file, or remove it/);
  assert.equal(readFileSync(taken, "utf8"), "mine");
  writeFileSync(world.path("torn.json"), `{ "devices": { "a": { "password": "${secrets.text}", nonsense ${secrets.comment}`);
  const { code } = await runProgram(["report", "--config", world.path("torn.json"), "--out", world.path("r.txt")]);
  assert.equal(code, 0);
  const text = readFileSync(world.path("r.txt"), "utf8");
  assert.match(text, /torn\.json:1: this is no JSON/);
  for (const secret of [secrets.text, secrets.comment]) assert.ok(!text.includes(secret));
});
