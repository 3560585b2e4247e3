import assert from "node:assert/strict";
import { test } from "node:test";
import { lastValueFrom, rxjs } from "../../core/rxjs.js";
import { progressOf } from "./progress.js";

const told = (...texts: string[]) => lastValueFrom(progressOf(rxjs.from(texts)).pipe(rxjs.toArray()));

test("progress as rsync 3 prints it, cut anywhere", async () => {
  const text =
    "\r              0   0%    0.00kB/s    0:00:00 (xfr#0, to-chk=1/4)\r          32768   1%    0.00kB/s    0:00:00  " +
    "\r        3000000 100%   22.11MB/s    0:00:00 (xfr#1, to-chk=0/4)\r        3000000 100%   18.62MB/s    0:00:00 (xfr#1, to-chk=0/4)\n";
  // Of what comes at once only the last says something new.
  assert.deepEqual(await told(text), [3000000]);
  assert.deepEqual(await told(...text.split(/(?<=.)/s)), [32768, 3000000]);
});

test("what is no progress is not counted", async () => {
  assert.deepEqual(await told("12345 files\n", ".d..t...... 77 70% no\n\r     5  10% x\r     3   6% x\r"), [5]);
});
