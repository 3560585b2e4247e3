import assert from "node:assert/strict";
import { test } from "node:test";
import { parseFacts, parseListLine, parseTime, timeText } from "./listing.js";
import { nameFromWire, wirePath } from "./wire.js";

test("times of MLSD and MDTM", () => {
  assert.equal(parseTime("20210517030405"), Date.UTC(2021, 4, 17, 3, 4, 5));
  assert.equal(parseTime("20210517030405.25"), Date.UTC(2021, 4, 17, 3, 4, 5, 250));
  assert.equal(parseTime("May 17"), undefined);
  for (const none of ["20210231000000", "99999999999999", "00000000000000"]) assert.equal(parseTime(none), undefined, none);
  assert.equal(timeText(Date.UTC(2021, 4, 17, 3, 4, 5, 999)), "20210517030405");
});

test("facts of MLSD", () => {
  assert.deepEqual(parseFacts("Type=file;Size=12;Modify=20210517030405;Unique=8g1; a b.bin"), {
    name: "a b.bin",
    kind: "file",
    size: 12,
    modifiedMs: Date.UTC(2021, 4, 17, 3, 4, 5),
  });
  assert.equal(parseFacts("type=cdir;modify=20210517030405; ."), undefined);
  assert.equal(parseFacts("type=dir; sub")?.kind, "directory");
  assert.equal(parseFacts("type=OS.unix=slink:/etc; link")?.reason, "a symbolic link");
  assert.equal(parseFacts("type=file;size=x; odd")?.kind, "unreadable");
  assert.equal(parseFacts("nonsense")?.kind, "unreadable");
  for (const size of ["", "-5", "1e3", "0x10", "99999999999999999999"])
    assert.equal(parseFacts(`type=file;size=${size}; odd`)?.reason, "listed without a size", size);
  for (const kind of ["file", "dir"]) {
    assert.deepEqual(parseFacts(`type=${kind};size=1; ../up/x`), {
      name: "..|up|x",
      kind: "unreadable",
      reason: "the server lists it with a path in place of a name",
      size: 0,
    });
    assert.equal(parseFacts(`type=${kind};size=1; ${"x".repeat(2 ** 20)}`)?.reason, "its name has 1048576 characters");
  }
  assert.equal(parseListLine(`-rw-r--r-- 1 u g 99999999999999999999 Nov 20 08:49 x`)?.reason, "listed without a size");
  assert.equal(parseFacts("type=file;size=1;  leading")?.name, " leading");
});

test("what is listed under a name with control characters is told with why: it could be asked for by another name alone, and would count as lost", () => {
  const bytes = (name: string): string => Buffer.from(name).toString("latin1");
  for (const [name, shown] of [
    ["tab\t.bin", "tab\u201b09.bin"],
    ["red\x1b[31m", "red\u201b1B[31m"],
    ["C1\u009b", "C1\u201bC2\u201b9B"],
    ["end\r", "end\u201b0D"],
  ] as const)
    for (const found of [
      parseFacts(bytes(`type=file;size=7; ${name}`)),
      parseFacts(bytes(`type=dir; ${name}`)),
      parseListLine(bytes(`-rw-r--r--    1 1000     1000            7 Nov 20 08:49 ${name}`)),
    ])
      assert.deepEqual(found, {
        name: shown,
        kind: "unreadable",
        reason: "its name holds control characters, which are never sent to an FTP server",
        size: 0,
      });
  // Our own server writes bytes that are no UTF-8 so, and takes them as they are.
  for (const name of ["a\u201b0Ab", "caf\u201bE9", "полёт", "\u201b"])
    assert.equal(parseFacts(bytes(`type=file;size=7; ${name}`))?.name, name);
  assert.equal(parseFacts("type=file;size=7; caf\xe9")?.name, "caf\u201bE9");
});

const lines: readonly (readonly [string, string, string, number])[] = [
  ["vsftpd", "-rw-r--r--    1 1000     1000      3000000 Nov 20 08:49 a b.bin", "file a b.bin", 3_000_000],
  ["vsftpd, an old file", "-rw-------    1 0        0               5 Feb 29  2020  leading", "file  leading", 5],
  ["ftp-srv", "-rw-r--r-- 1 1000 1000 0 Nov 20 08:49 empty.bin", "file empty.bin", 0],
  ["ProFTPD", "drwxr-xr-x+  2 tb       tb           4096 Jan  1 00:00 sub dir", "directory sub dir", 0],
  ["without a group", "-rw-rw-rw-   1 owner         700 Jan 02 2019 log.bin", "file log.bin", 700],
  ["a link", "lrwxrwxrwx    1 0        0              11 Nov 20 08:49 link -> /etc/passwd", "unreadable link", 0],
  ["a device", "crw-rw-rw-    1 0        0               1 Nov 20 08:49 null", "unreadable null", 0],
  ["DOS", "11-20-26  08:49AM              1234567 log 1.bin", "file log 1.bin", 1_234_567],
  ["DOS, a directory", "11-20-2026  08:49       <DIR>          DCIM", "directory DCIM", 0],
  ["nonsense", "?? what is this", "unreadable ?? what is this", 0],
];
for (const [what, line, wanted, size] of lines)
  test(`a line of LIST: ${what}`, () => {
    const found = parseListLine(line);
    assert.equal(`${found?.kind ?? ""} ${found?.name ?? ""}`, wanted);
    assert.equal(found?.size, size);
  });

test("lines of LIST that tell of no entry", () => {
  for (const line of [
    "total 12",
    "drwxr-xr-x    2 0        0            4096 Nov 20 08:49 .",
    "drwxr-xr-x    2 0   0   4096 Nov 20 08:49 ..",
  ])
    assert.equal(parseListLine(line), undefined);
});

test("names over the line and back", () => {
  const bytesOf = (wire: string): Buffer => Buffer.from(wire, "latin1");
  assert.deepEqual(bytesOf(wirePath("", "полёт 1.bin")), Buffer.from("/полёт 1.bin"));
  assert.deepEqual(bytesOf(wirePath("/r", "caf\u201bE9")), Buffer.from([...Buffer.from("/r/caf"), 0xe9]));
  assert.deepEqual(bytesOf(wirePath("", "a\u201b0Ab")), Buffer.from("/a\u201b0Ab"), "a newline is never sent");
  assert.deepEqual(bytesOf(wirePath("", "\u201b2E\u201b2E/x")), Buffer.from("/\u201b2E\u201b2E/x"), "no way up by an escape");
  for (const name of ["полёт", "caf\u201bE9", "a\u201b0Ab", "plain", " both "])
    assert.equal(nameFromWire(wirePath("", name).slice(1)), name);
  assert.equal(wirePath("/r", ""), "/r");
  for (const bad of ["..", "a/../b", "/a", "a//b", "a\0", "./a"]) assert.throws(() => wirePath("", bad), /cannot be used/);
  assert.throws(() => wirePath("", "a\nDELE x"), /control characters/);
});
