import assert from "node:assert/strict";
import { test } from "node:test";
import { parseIn } from "../../core/options.js";
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

test("options: users may be in a file of their own alone", () => {
  const parsed = parse({ root: "srv", usersFile: "users.json" });
  assert.ok(parsed.success);
  assert.deepEqual([parsed.output.users, parsed.output.usersFile], [{}, "/etc/filesync/users.json"]);
});

test("options: what cannot be is said", () => {
  const bad: readonly (readonly [string, unknown])[] = [
    ["no user", { users: {} }],
    ["nobody at all", {}],
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
