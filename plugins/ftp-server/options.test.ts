import assert from "node:assert/strict";
import { test } from "node:test";
import { parseIn } from "../../core/options.js";
import { Secret } from "../../core/options.js";
import { hashPassword, isPasswordHash, passwordIs } from "./password.js";
import { plugin } from "./plugin.js";

const parse = (input: unknown) => parseIn({ baseDir: "/etc/filesync", env: {} }, plugin.options, input);
const users = { "plane-1": { password: "p" } };

test("options: defaults", () => {
  const parsed = parse({ root: "srv", users });
  assert.ok(parsed.success);
  const { listen, root, overwrite, limits, passivePorts } = parsed.output;
  assert.deepEqual([listen, root, overwrite, passivePorts], [{ host: "0.0.0.0", port: 2121 }, "/etc/filesync/srv", true, undefined]);
  assert.deepEqual([limits.idle, limits.stall, limits.maxConnections], [300_000, 60_000, 100]);
});

test("options: what cannot be is said", () => {
  const bad: readonly (readonly [string, unknown])[] = [
    ["no user", { users: {} }],
    ["a user without a password", { users: { u: {} } }],
    ["a user with two", { users: { u: { password: "p", passwordHash: "scrypt$2$1$1$AA==$AA==" } } }],
    ["a hash that is none", { users: { u: { passwordHash: "p" } } }],
    ["a root that leaves", { users: { u: { password: "p", root: "../x" } } }],
    ["a name that is no directory", { users: { "../x": { password: "p" } } }],
    ["ports the wrong way round", { users, passivePorts: "30099-30000" }],
    ["an unknown key", { users, passivePort: "1-2" }],
    ["a host that is none", { users, passiveHost: "example" }],
  ];
  for (const [what, given] of bad) assert.equal(parse({ root: "srv", ...(given as object) }).success, false, what);
});

test("passwords: hashed, compared, and bounded in cost", async () => {
  const hash = await hashPassword("pä ss");
  assert.notEqual(hash, await hashPassword("pä ss"), "salted");
  assert.ok(isPasswordHash(hash));
  assert.equal(await passwordIs(Buffer.from("pä ss"), undefined, hash), true);
  assert.equal(await passwordIs(Buffer.from("pa ss"), undefined, hash), false);
  assert.equal(await passwordIs(Buffer.from("p"), new Secret("p"), undefined), true);
  assert.equal(await passwordIs(Buffer.from(""), new Secret("p"), undefined), false);
  assert.equal(await passwordIs(Buffer.from(""), undefined, undefined), false, "nobody has an empty password");
  for (const text of ["scrypt$3$8$1$AA==$AA==", "scrypt$1073741824$8$1$AA==$AA==", "scrypt$16384$8$1$$", "md5$x"])
    assert.equal(isPasswordHash(text), false, text);
});
