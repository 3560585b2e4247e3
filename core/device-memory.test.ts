import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { deviceMemory } from "./device-memory.js";
import { Journal } from "./journal.js";

test("what was set is known at once and after a restart, to that device alone; a name that was never set is not asked for, nor kept", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "filesync-memory-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const journal = await Journal.open(dir);
  const memory = deviceMemory(journal, "fc");
  assert.equal(memory.get("board"), undefined);
  await memory.set("board", { serial: 7 });
  await memory.set("root", "/APM");
  await memory.set("root", undefined);
  const queries = [t.mock.method(journal, "all"), t.mock.method(journal, "get")];
  for (let n = 0; n < 1000; n++) assert.equal(memory.get(`file ${n}`), undefined);
  assert.deepEqual([memory.get("board"), memory.get("root")], [{ serial: 7 }, undefined]);
  for (const query of queries) assert.equal(query.mock.callCount(), 0);
  assert.equal(deviceMemory(journal, "other").get("board"), undefined);
  await journal.close();
  const again = await Journal.open(dir);
  const later = deviceMemory(again, "fc");
  assert.deepEqual([later.get("board"), later.get("root")], [{ serial: 7 }, undefined]);
  await again.close();
});
