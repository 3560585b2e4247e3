/** Budgets: kept to the byte, over kills and midnights, and while nobody knows the time. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Budget, type Spent } from "./budget.js";
import { RealClock } from "./clock.js";

class Calendar extends RealClock {
  now = new Date(2026, 10, 29, 12, 0, 0);
  known = true;
  override wallMs(): number {
    return this.now.getTime();
  }
  override trusted(): boolean {
    return this.known;
  }
}

function store(): { load: () => Spent | undefined; save: (spent: Spent) => Promise<void>; saved: Spent[] } {
  const saved: Spent[] = [];
  return { saved, load: () => saved.at(-1), save: (spent) => Promise.resolve(void saved.push(spent)) };
}

test("a budget is kept to the byte, and begins anew at midnight and with the month", async () => {
  const clock = new Calendar();
  const budget = new Budget({ day: 1000, month: 2500 }, store(), clock);
  assert.equal(await budget.take(700), 700);
  const held = () => budget.held;
  assert.equal(held(), undefined);
  assert.equal(await budget.take(700), 300);
  assert.equal(await budget.take(1), 0);
  assert.deepEqual(held(), { reason: "its budget of 1.0 kB a day is used up; the next begins in 12 h 0 min", inMs: 12 * 3_600_000 });
  clock.now = new Date(2026, 10, 30, 0, 0, 0);
  assert.equal(await budget.take(5000), 1000);
  clock.now = new Date(2026, 10, 30, 23, 0, 0);
  assert.equal(await budget.take(1), 0);
  clock.now = new Date(2026, 11, 1, 0, 0, 0);
  assert.equal(await budget.take(5000), 1000, "another month");
  clock.now = new Date(2026, 11, 2, 0, 0, 0);
  assert.equal(await budget.take(5000), 1000);
  clock.now = new Date(2026, 11, 3, 0, 0, 0);
  assert.equal(await budget.take(5000), 500, "the month's rest");
  assert.match(held()?.reason ?? "", /2\.5 kB a month is used up/);
  assert.equal(held()?.inMs, new Date(2027, 0, 1).getTime() - clock.now.getTime());
});

test("a kill costs at most one step of the budget, and never a byte beyond it; a stop costs nothing", async () => {
  const clock = new Calendar();
  const durable = store();
  const day = 1_000_000;
  let sent = 0;
  for (let kills = 0; kills < 20; kills++) {
    const budget = new Budget({ day }, durable, clock);
    for (let n = 0; n < 3; n++) sent += await budget.take(1234);
    assert.ok((durable.saved.at(-1)?.dayBytes ?? 0) >= sent);
  }
  const after = new Budget({ day }, durable, clock);
  assert.ok(day - after.left - sent <= 20 * (day / 100));
  sent += await after.take(5000);
  await after.close();
  const before = after.left;
  assert.equal(new Budget({ day }, durable, clock).left, before);
  for (let n = 0; n < 100; n++) sent += await after.take(123_456);
  assert.ok(sent <= day);
});

test("while nobody knows the time no new day begins; what was sent before counts to the first day that is known", async () => {
  const clock = new Calendar();
  const durable = store();
  clock.known = false;
  clock.now = new Date(1970, 0, 1);
  const budget = new Budget({ day: 1000 }, durable, clock);
  assert.equal(await budget.take(600), 600);
  clock.known = true;
  clock.now = new Date(2026, 10, 29);
  assert.equal(await budget.take(600), 400);
  clock.known = false;
  clock.now = new Date(2026, 10, 30);
  assert.equal(await budget.take(1), 0);
  assert.deepEqual(budget.held, { reason: "its budget of 1.0 kB a day is used up, and nobody knows the time, so no new day begins" });
  clock.known = true;
  assert.equal(await budget.take(1), 1);
});

test("a clock that goes back at each start, and is put right then, gives no day its budget twice", async () => {
  const clock = new Calendar();
  const durable = store();
  let sent = 0;
  for (let start = 0; start < 5; start++) {
    const budget = new Budget({ day: 1000, month: 1500 }, durable, clock);
    // The first is in the month before.
    for (const now of [new Date(2026, 10, 30, 23), new Date(2026, 11, 1, 1)]) {
      clock.now = now;
      sent += await budget.take(700);
    }
    await budget.close();
  }
  assert.equal(sent, 2000);
});
