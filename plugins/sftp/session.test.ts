/** What is asked of a server, without one. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Session } from "./session.js";
import { Cursor, type Part, Type, type Wire } from "./wire.js";

test("a time that version 3 cannot tell becomes the nearest that it can", async () => {
  const asked: (readonly Part[])[] = [];
  const wire = {
    start: () => Promise.resolve(new Map()),
    ask: (_type: number, parts: readonly Part[]) => {
      asked.push(parts);
      return Promise.resolve({ type: Type.status, body: new Cursor(Buffer.alloc(4)) });
    },
  } as unknown as Wire;
  const session = await Session.start(wire, "/srv");
  for (const at of [Date.UTC(2150, 0), Date.UTC(2026, 0), Date.UTC(1950, 0)]) await session.setTime(Buffer.from("/srv/x"), at);
  assert.deepEqual(
    asked.map((parts) => parts[3]),
    [2 ** 32 - 1, Date.UTC(2026, 0) / 1000, 0],
  );
});
