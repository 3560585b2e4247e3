/** What came while the machine was busy is not late. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { test } from "node:test";
import { Later } from "./later.js";

/** This process stands still, as one that has to wait for its processor. */
const standStill = (ms: number) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);

test("what lies there when the time is up is taken first", async () => {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const near = connect((server.address() as AddressInfo).port, "127.0.0.1");
  const [far] = (await once(server, "connection")) as [Socket];
  const said: string[] = [];
  const both = new Promise<void>((resolve) => {
    const say = (word: string) => {
      said.push(word);
      if (said.length === 2) resolve();
    };
    near.on("data", () => say("it came"));
    new Later(() => say("time is up")).in(5);
  });
  far.write("x");
  standStill(50);
  await both;
  assert.deepEqual(said, ["it came", "time is up"]);
  near.destroy();
  far.destroy();
  server.close();
});

test("set anew it runs once; stopped it does not run, also between its time and the look", async () => {
  let runs = 0;
  const later = new Later(() => (runs += 1));
  later.in(1);
  later.in(2);
  assert.equal(later.set, true);
  while (later.set) await new Promise((resolve) => setTimeout(resolve, 1));
  assert.equal(runs, 1);
  later.in(1);
  await new Promise<void>((resolve) => {
    setTimeout(() => {
      assert.equal(later.set, true, "its time is up, it has not looked yet");
      later.stop();
      resolve();
    }, 1);
    standStill(10);
  });
  assert.equal(later.set, false);
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(runs, 1);
});
