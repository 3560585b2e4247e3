import assert from "node:assert/strict";
import { test } from "node:test";
import { beforeExt, bytesFromName, cutName, isOtherNameOf, isSafePath, nameFromBytes, otherName } from "./names.js";

const cases: readonly [string, Buffer, string][] = [
  ["plain", Buffer.from("log 1.ulg"), "log 1.ulg"],
  ["unicode", Buffer.from("полёт.ulg"), "полёт.ulg"],
  ["newline", Buffer.from("a\nb"), "a‛0Ab"],
  ["a control character of Unicode", Buffer.from("a\u009b2Jb"), "a‛C2‛9B2Jb"],
  ["the quote itself", Buffer.from("a‛0A"), "a‛‛0A"],
  ["Latin-1", Buffer.from([0x63, 0x61, 0x66, 0xe9]), "caf‛E9"],
  ["a cut sequence", Buffer.from([0xd0, 0x41]), "‛D0A"],
  ["byte order mark", Buffer.from([0xef, 0xbb, 0xbf, 0x41]), "\ufeffA"],
];
for (const [what, bytes, name] of cases) {
  test(`a name as text and back: ${what}`, () => {
    assert.equal(nameFromBytes(bytes), name);
    assert.deepEqual(bytesFromName(name), bytes);
  });
}

test("any bytes survive", () => {
  let seed = 1;
  for (let n = 0; n < 2000; n++) {
    const bytes = Buffer.alloc(n % 40);
    for (let i = 0; i < bytes.length; i++) bytes[i] = (seed = (seed * 48271) % 0x7fffffff) & 0xff || 1;
    const name = nameFromBytes(bytes);
    assert.deepEqual(bytesFromName(name), bytes);
    assert.ok(name.isWellFormed());
  }
});

test("paths that leave the root are unsafe", () => {
  for (const path of ["", "/a", "a//b", "../a", "a/..", "./a", "a\0b", "a/"]) assert.equal(isSafePath(path), false, path);
  for (const path of ["a", "a/b", "...", "a..b/.c"]) assert.equal(isSafePath(path), true, path);
});

test("a name is cut between characters", () => {
  assert.equal(cutName("ёёё", 5), "ёё");
  assert.equal(cutName("abc", 3), "abc");
});

test("a name beside another one is no longer than a name may be, also where all of it is behind a dot", () => {
  assert.equal(beforeExt("d/log.ulg", "~1"), "d/log~1.ulg");
  for (const name of [`${"a".repeat(251)}.txt`, `a.${"x".repeat(250)}`, `a.${"ё".repeat(126)}`]) {
    const other = beforeExt(`d/${name}`, ".conflict-plane-1");
    assert.ok(Buffer.byteLength(other) <= 2 + 255, other);
    assert.match(other, /^d\/a.*\.conflict-plane-1/);
  }
});

test("another name is known for one of the first, also where it is cut, or is itself one of another", () => {
  const digest = `sha256:${"1a2b3c4d".repeat(8)}`;
  for (const path of ["d/log.ulg", "log", "a~00000000.bin", ".hidden", "a".repeat(255), `d.x/${"a".repeat(251)}.txt`]) {
    for (const digits of [8, 16] as const) assert.ok(isOtherNameOf(path, otherName(path, digest, digits)), path);
    if (path.length < 50)
      for (const other of [path, `${path}~1a2b3c4d.gz`, `x${otherName(path, digest)}`, otherName(otherName(path, digest), digest)])
        assert.equal(isOtherNameOf(path, other), false, `${path} ${other}`);
  }
  assert.equal(isOtherNameOf("log.bin", "other/log~1a2b3c4d.bin"), false);
});
