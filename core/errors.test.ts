import assert from "node:assert/strict";
import { test } from "node:test";
import { codeOf, faultOfErrno } from "./errors.js";
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
