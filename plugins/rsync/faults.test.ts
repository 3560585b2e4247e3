import assert from "node:assert/strict";
import { test } from "node:test";
import { upload } from "../../test/conformance/upload.js";
import { faultsByFile, isOfOneFile, rsyncFault } from "./faults.js";

const kind = (code: number, err: string, connecting = false) => rsyncFault("cannot write a", { code, err }, connecting).kind;

test("words decide, where they say more than the code", () => {
  assert.equal(kind(11, 'rsync: [receiver] write failed on "/a": No space left on device (28)'), "full");
  assert.equal(kind(11, 'rsync: write failed on "/a": Disk quota exceeded (122)'), "full");
  // Words in a name are no words of the program.
  assert.equal(kind(23, 'rsync: [receiver] open "/srv/quota/.a.part" failed: Permission denied (13)'), "denied");
  assert.equal(kind(11, 'rsync: [receiver] write failed on "/srv/quota.bin": Input/output error (5)'), "transient");
  assert.equal(kind(23, 'rsync: [receiver] mkstemp "/srv/vanished/a" failed: Permission denied (13)'), "denied");
  assert.equal(kind(11, 'rsync: [receiver] write failed on "/srv/x timed out/a": Input/output error (5)'), "transient");
  const quoted = Buffer.from("mkdir: cannot create directory \u2018/srv/quota\u2019: Permission denied").toString("latin1");
  assert.equal(kind(11, quoted), "denied");
  for (const err of [
    "ln: 'x': Disk quota exceeded",
    'rsync: [receiver] write failed on "/a": Quota exceeded (69)',
    "mkdir: cannot create directory 'a': Disk quota exceeded",
  ])
    assert.equal(kind(11, err), "full", err);
  assert.equal(kind(23, 'rsync: [Receiver] mkdir "/srv/a" failed: Permission denied (13)'), "denied");
  assert.equal(kind(23, 'rsync: [sender] send_files failed to open "/spool/a": Permission denied (13)'), "changed");
  assert.equal(kind(23, 'rsync: [receiver] mkstemp "/srv/a" failed: File name too long (36)'), "rejected");
  assert.equal(kind(23, 'rsync: [receiver] open "/srv/ro/.a.part" failed: No such file or directory (2)'), "denied");
  assert.equal(
    kind(23, 'rsync: [generator] recv_generator: failed to stat "/srv/l/.a.part": Too many levels of symbolic links (40)'),
    "rejected",
  );
  assert.equal(kind(12, "bash: line 1: rsync: command not found"), "config");
  assert.equal(kind(127, "env: 'rsync': No such file or directory"), "config");
  assert.equal(kind(255, "u@h: Permission denied (publickey)."), "denied");
  assert.equal(kind(255, "Host key verification failed."), "denied");
  assert.equal(kind(255, "ssh: connect to host h port 22: Connection refused"), "offline");
  assert.equal(kind(255, "ssh: Could not resolve hostname h: Name or service not known"), "offline");
  assert.equal(kind(255, "ssh: connect to host h port 22: Connection timed out"), "offline");
  assert.match(rsyncFault("x", { code: 255, err: "ssh: connect to host h port 22: Connection refused\r\n" }).message, /refused[^?]*$/);
  const aside = "default_perms_for_dir: sys_acl_get_file(a, ACL_TYPE_DEFAULT): Permission denied, falling back on umask\n";
  assert.equal(kind(23, `${aside}rsync: [receiver] open "/srv/a/b" failed: Not a directory (20)`), "rejected");
  for (const err of [
    "bash: line 1: /usr/bin/rrsync: cannot execute: required file not found",
    "sh: 1: /usr/bin/rrsync: not found",
    "bash: /usr/bin/rrsync: /usr/bin/python3: bad interpreter: No such file or directory",
    "/usr/bin/env: \u2018python3\u2019: No such file or directory",
  ])
    assert.match(rsyncFault("x", { code: 127, err }).message, /rrsync cannot be run on the server.*apt install rsync python3/);
  for (const said of ["sending to read-only server is not allowed", "option --delete-missing-args has been disabled on this server."]) {
    const { kind, message } = rsyncFault("x", { code: 12, err: `/usr/bin/rrsync error: ${said}\nrsync: connection unexpectedly closed` });
    assert.ok(kind === "denied" && /take "-ro", "-wo" and "-no-del" out/.test(message), message);
  }
  const trace = "Traceback (most recent call last):\n  ^^^^\nFileNotFoundError: [Errno 2] No such file or directory: '/srv/logs'\n";
  assert.match(rsyncFault("x", { code: 12, err: trace }).message, /directory that rrsync is to serve is not there.*'\/srv\/logs'/);
  const busy = rsyncFault("x", { code: 12, err: "rrsync error: Another instance of rrsync is already accessing this directory." });
  assert.ok(busy.kind === "throttled" && (busy.retryAfterMs ?? 0) > 0);
});

test("every code of rsync(1) has its kind; one that nobody knows is tried again", () => {
  const kinds: Record<string, number[]> = {
    config: [1, 2, 4, 126, 127],
    transient: [3, 5, 11, 12, 13, 14, 20, 21, 22, 23, 30, 99, 124, 125, 255],
    offline: [10, 35],
    changed: [24],
  };
  assert.match(rsyncFault("cannot use the root", { code: 2, err: "is your shell clean?" }).message, /or this account may start none/);
  for (const [wanted, codes] of Object.entries(kinds)) for (const code of codes) assert.equal(kind(code, ""), wanted, String(code));
  // Before anything was said the same break says that the server is not there.
  assert.equal(kind(255, "", true), "offline");
});

test("the message has the line that decided, in one line of plain signs", () => {
  const err = "@@@@@@@@@@\nwelcome\u0007\nrsync: write failed: No space left on device (28)\nrsync error: error in file IO (code 11)\n";
  const { message } = rsyncFault("cannot write a", { code: 11, err });
  assert.equal(message, 'cannot write a: no space is left at the server ("rsync: write failed: No space left on device (28)")');
  assert.equal(rsyncFault("x", { code: 5, err: "@@@\na\u0007b\n" }).message, 'x: rsync could not start its conversation ("a?b")');
});

test("of many files those that rsync names, and all below a directory that it could not make, fail with its word of them", () => {
  const files = ["a/one", "a/two", "b/a/é", "b/a/\u{201b}FF", "c"].map((path) => ({
    ...upload(path, Buffer.alloc(1)),
    partialPath: `${path}.part`,
  }));
  const err = [
    'rsync: [generator] recv_generator: mkdir "/srv/logs/a" failed: Permission denied (13)',
    "*** Skipping any contents from this failed directory ***",
    'rsync: [receiver] open "/srv/logs/b/a/\\#303\\#251.part" failed: Is a directory (21)',
    'rsync: [receiver] open "/srv/logs/b/a/\\#377.part" failed: No such file or directory (2)',
    "rsync error: some files/attrs were not transferred (see previous errors) (code 23) at main.c(1394) [sender=3.5.0]",
  ].join("\n");
  const found = [...faultsByFile(rsyncFault("cannot write many", { code: 23, err }), files)];
  assert.deepEqual(
    found.map(([{ path }, { kind, message }]) => [
      path,
      kind,
      message.startsWith(`cannot write ${path}: `),
      isOfOneFile(found[0]?.[1] ?? assert.fail()),
    ]),
    [
      ["a/one", "denied", true, true],
      ["a/two", "denied", true, true],
      ["b/a/é", "rejected", true, true],
      ["b/a/\u{201b}FF", "denied", true, true],
    ],
  );
  assert.equal(faultsByFile(rsyncFault("cannot write many", { code: 23, err: "rsync: something else" }), files).size, 0);
});
