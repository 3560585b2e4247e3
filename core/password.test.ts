import assert from "node:assert/strict";
import { test } from "node:test";
import { Secret } from "./options.js";
import { hashPassword, isPasswordHash, newPassword, passwordIs } from "./password.js";

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

test("a password that is made: long enough that nobody guesses it, and no letter that is taken for another", () => {
  const made = new Set(Array.from({ length: 200 }, newPassword));
  assert.equal(made.size, 200);
  const seen = new Set([...made].join(""));
  assert.equal(/[^A-Za-z0-9]|[0O1lI5S2Z8B]/.test([...seen].join("")), false, [...seen].join(""));
  for (const one of made) assert.ok(one.length * Math.log2(seen.size) >= 128, one);
});
