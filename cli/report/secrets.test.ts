/** What is taken out of a report, in each of its forms; and what stays. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { addressesIn, Redactor, secretsOf } from "./secrets.js";

const secret = "p@ss wörd/47+11?";
const clean = (text: string, secrets: readonly string[] = [secret], addresses: readonly string[] = []) =>
  new Redactor(secrets, addresses).clean(text);

test("a known secret goes in every form: plain, in JSON, in a URL, in base64 behind anything, in hexadecimal", () => {
  const forms = [
    secret,
    JSON.stringify(JSON.stringify({ a: secret })),
    encodeURIComponent(secret),
    encodeURIComponent(secret).toLowerCase(),
    encodeURIComponent(secret).replaceAll("%20", "+"),
    Buffer.from(secret).toString("hex"),
    Buffer.from(secret).toString("base64"),
    Buffer.from(secret).toString("base64url"),
    ...["", "u", "us", "use", "user"].map((user) => Buffer.from(`${user}:${secret}`).toString("base64")),
  ];
  // What a reader could look for: the middle of each form, that the secret alone decides.
  for (const form of forms) {
    const out = clean(`it said ${form} to me`);
    assert.ok(out.includes("[secret]"), form);
    assert.ok(!out.includes(form.slice(8, -6)), out);
  }
});

test("what looks like a secret goes too; what a report is for stays", () => {
  const gone = [
    ["Authorization: Basic dXNlcjpwYXNzd29yZA==", "dXNlcjpw"],
    ["Bearer eyJhbGciOiJIUzI1NiJ9.e30.abc", "eyJ"],
    ["ftp://pilot:hunter2@nas.local/x", "hunter2"],
    ["https://x.org/plot?log=5f0c-77&token=qwe", "5f0c"],
    ["https://hooks.example.org/services/T0AB12CD34EF56GH78/in", "T0AB12"],
    ["password=hunter2", "hunter2"],
    ['{"api_key":"hunter2"}', "hunter2"],
    ["scrypt$16384$8$1$c2FsdA$aGFzaA", "c2FsdA"],
    ["-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaA\n-----END OPENSSH PRIVATE KEY-----", "b3Blb"],
    ["for anna.ivanova+logs@example.org, or анна@example.org", "anna"],
    ["for анна@example.org", "анна"],
    ["email=anna%40example.org", "anna"],
  ] as const;
  for (const [text, part] of gone) assert.ok(!clean(text, []).includes(part), clean(text, []));
  assert.equal(clean("for anna@example.org", []), "for …@example.org");
  for (const text of [
    "serial-getty@ttyAMA0.service, filesync-mount@3-4711-990.service failed",
    "pixhawk:2026-05-02/09_10_57.ulg → ground: the digest differs: sha256:5c0a4e1d9b7f2a365c0a4e1d9b7f2a36",
    "serial:///dev/serial/by-id/usb-3D_Robotics_PX4_FMU_v5.x_0-if00:57600",
    "https://cloud.example.org/remote.php/dav/files/me",
    '  "password": { "file": "ground.secret" },',
    "24 1 8:1 / /mnt ro,noatime shared:1 - ext4 /dev/sda1 rw",
  ])
    assert.equal(clean(text, []), text);
});

test("an address goes in its encoded forms, and keeps its domain where it is plain", () => {
  const address = "anna@example.org";
  assert.deepEqual(addressesIn(`{"user": "${address}"}`), [address]);
  const out = clean(`${address} ${Buffer.from(`x:${address}`).toString("base64")} ${encodeURIComponent(address)}`, [], [address]);
  assert.match(out, /^…@example\.org /);
  assert.ok(!out.includes(Buffer.from(`x:${address}`).toString("base64").slice(4, 14)), out);
  assert.ok(!out.includes("anna"), out);
});

test("secrets are found by the name of their key, through env and file, in URLs, in arguments; paths are none", () => {
  const raw = {
    a: { password: "hunter2", passwordHash: "scrypt$1$2", privateKey: "/home/pi/.ssh/id_ed25519", port: 2121 },
    ground: { type: "ftp", password: { credential: "ground" } },
    b: { password: { env: "PW" }, passphrase: { file: "x.secret" }, pin: 1, token: 123456 },
    c: { url: "https://x.org/in?key=qwertz", headers: { "X-Any": "tell-nobody" } },
    d: { onSafe: ["/usr/bin/curl", "-H", "X-Auth: abcdef0123456789abc", "--user=me:word"] },
    onEvent: [{ event: "*", command: ["mosquitto_pub", "-P", "brokerword"] }],
  };
  const found = secretsOf(undefined, raw, (where) => ("env" in where ? "from-env" : "from-file\n"));
  for (const one of [
    "hunter2",
    "scrypt$1$2",
    "from-env",
    "from-file",
    "123456",
    "qwertz",
    "tell-nobody",
    "abcdef0123456789abc",
    "me:word",
    "brokerword",
  ])
    assert.ok(found.includes(one), `${one} of ${found.join(" ")}`);
  for (const one of ["/home/pi/.ssh/id_ed25519", "2121", "PW", "x.secret", "ground", "/usr/bin/curl"]) assert.ok(!found.includes(one), one);
});
