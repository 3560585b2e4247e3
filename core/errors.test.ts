import assert from "node:assert/strict";
import { test } from "node:test";
import { codeOf, Fault, faultOfErrno, textOfErrno } from "./errors.js";
import { isFull, isMedium } from "./tables.js";

/** As node throws what it has no name for: of a promise, of a call that waits. */
const said = (errno: number) =>
  [`Unknown system error -${errno}`, "UNKNOWN"].map((code) =>
    Object.assign(new Error(`${code}, write`), { code, errno: -errno, syscall: "write" }),
  );

test("what Linux says and node has no name for is known all the same", () => {
  for (const [errno, code, kind] of [
    [122, "EDQUOT", "full"],
    [116, "ESTALE", "offline"],
    [123, "ENOMEDIUM", "offline"],
    [117, "EIO", "transient"],
    [74, "EIO", "transient"],
  ] as const)
    for (const error of said(errno)) {
      assert.equal(codeOf(error), code);
      assert.equal(faultOfErrno(error, "cannot write a").kind, kind);
      assert.equal(isMedium(error), code === "EDQUOT" || code === "EIO");
      assert.equal(isFull(error), code === "EDQUOT");
    }
  assert.equal(faultOfErrno(said(122)[0], "cannot write a").message, "cannot write a: the disk quota is used up");
  assert.match(codeOf(said(4000)[0]), /^Unknown/);
});

test("a place's error is told in words, and by one line: no person reads node's", () => {
  const denied = Object.assign(new Error("EACCES: permission denied, open '/a'"), { code: "EACCES", syscall: "open", path: "/a" });
  assert.equal(textOfErrno(denied, "the spool file /a cannot be read"), "the spool file /a cannot be read: permission denied");
  assert.equal(textOfErrno(new Fault("full", "no room is left"), "/a cannot be made"), "/a cannot be made: no room is left");
  assert.equal(textOfErrno(new Error("odd\nand more"), "/a cannot be made"), "/a cannot be made: odd");
});
