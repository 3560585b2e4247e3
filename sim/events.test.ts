/** Scripted faults happen at their moment, and do what they say, over a real socket. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { Nak, Op } from "../mavlink/ftp.js";
import * as m from "../mavlink/messages.js";
import { autopilots } from "./autopilots.js";
import { HandClock } from "./clock.js";
import { madeBytes } from "./disk-file.js";
import { checkFaults } from "./faults.js";
import { makeDir, pattern, says } from "./harness.test.js";
import { Radio } from "./radio.js";
import { parseWhen, Script } from "./script.js";
import { startSim, type Sim, type SimOptions } from "./sim.js";
import { makeClient, start, type Client } from "./socket.test.js";

const flavours = autopilots.map((autopilot) => autopilot.name);

async function withFile(t: TestContext, options: Partial<SimOptions>, size = 10_000): Promise<Awaited<ReturnType<typeof start>>> {
  const dir = makeDir(t);
  mkdirSync(join(dir, "logs"));
  writeFileSync(join(dir, "logs", "00000001.BIN"), pattern(size));
  return start(t, { dir, ...options });
}

const path = "/logs/00000001.BIN";
const armedOf = (payload: Buffer | undefined): boolean =>
  payload !== undefined && (m.decodeHeartbeat(payload).baseMode & m.MODE_ARMED) !== 0;

test("a moment is a time, bytes served, or an event with its number", () => {
  assert.deepEqual(parseWhen("10s"), { kind: "time", ms: 10_000 });
  assert.deepEqual(parseWhen("500kB"), { kind: "bytes", bytes: 500_000 });
  assert.deepEqual(parseWhen("read:100"), { kind: "event", event: "read", nth: 100 });
  assert.deepEqual(parseWhen("open"), { kind: "event", event: "open", nth: 1 });
  for (const wrong of ["", "soon", "read:0", "read:", "10 s", "-5s"]) assert.equal(parseWhen(wrong), undefined, wrong);
  const script = new Script(() => assert.fail("no time is waited for"));
  const said: string[] = [];
  for (const moment of ["read:3", "500B", "open", "1kB"]) script.at(parseWhen(moment), () => said.push(moment));
  script.happened("read");
  script.happened("read");
  script.served(499);
  assert.equal(said.length, 0);
  script.served(500);
  script.happened("read");
  script.happened("read");
  script.happened("open");
  script.served(5000);
  script.at(parseWhen("2kB"), () => said.push("at once"));
  assert.deepEqual(said, ["500B", "read:3", "open", "1kB", "at once"], "each once");
});

test("every fault has a form that is checked", () => {
  const right = {
    ...{ loss: "10%", dup: "0.1", reorder: "1%", delay: "20ms", corrupt: "1%", junk: "5%", reboot: "500kB,10s,read:7" },
    ...{ busy: "3s@open:2", exhaust: "10s", "no-log": "5s@arm", grow: "20kB,armed,same", noise: "20kB", "second-client": "500kB,own" },
    ...{ arm: "5s", disarm: "arm", unplug: "2s,/tmp/x@500kB", eio: "500kB,3@read:2", crc: "50kB", short: "48", nak: "1@open,2.5@read:9" },
    ...{ full: "20kB@write:5", radio: "20,2s@read:100" },
    ...{ lose: "3@read:100", "stale-errno": "1%", "lost-eof": "100%", "bad-complete": "1%", "wrong-session": "1%", late: "1%" },
  };
  checkFaults(right);
  for (const name of Object.keys(right))
    assert.throws(() => checkFaults({ [name]: "nonsense" }), new RegExp(`fault ${name}=nonsense: expected`));
});

test("the vehicle is armed and disarmed at its moments, and says so at once", async (t) => {
  const { client } = await withFile(t, { faults: { arm: "open", disarm: "read:2" } });
  const armed = (): boolean => armedOf(client.seen.filter((s) => s.id === m.HEARTBEAT).at(-1)?.payload);
  await client.until(() => client.seen.some((s) => s.id === m.HEARTBEAT), "a heartbeat");
  assert.equal(armed(), false);
  await client.ask(Op.OpenFileRO, { data: path });
  await client.until(armed, "armed");
  await client.ask(Op.ReadFile, { size: 10 });
  assert.equal(armed(), true);
  await client.ask(Op.ReadFile, { size: 10 });
  await client.until(() => !armed(), "disarmed");
  assert.equal(m.decodeSysStatus(client.seen.filter((s) => s.id === m.SYS_STATUS).at(-1)?.payload ?? Buffer.alloc(43)).enabled, 0);
});

for (const autopilot of flavours) {
  test(`${autopilot}: power goes after so many bytes: sessions are gone, time begins anew`, async (t) => {
    const { client, sim } = await withFile(t, { autopilot, faults: { reboot: "900B" } });
    const { session } = await client.ask(Op.OpenFileRO, { session: 9, data: path });
    for (let i = 0; i < 4; i++) {
      client.send(Op.ReadFile, { session, offset: i * 239, size: 239 });
      if (i < 3) await client.until(() => client.answers.length === i + 2, "data");
    }
    await client.until(() => client.seen.filter((s) => s.id === m.STATUSTEXT).length === 2, "a new start");
    assert.equal(sim.openSessions(), 0);
    await client.until(() => client.seen.some((s) => s.id === m.SYSTEM_TIME && m.decodeSystemTime(s.payload).bootMs < 10), "a new boot");
    assert.notEqual(says(await client.ask(Op.ReadFile, { session, size: 10 })), "ACK");
  });

  test(`${autopilot}: a byte that cannot be read is an I/O error, to reads and to bursts; the rest is there`, async (t) => {
    const { client } = await withFile(t, { autopilot, faults: { eio: "1000,2" } });
    const { session } = await client.ask(Op.OpenFileRO, { session: 9, data: path });
    const failed = autopilot === "mavsdk" ? "NAK 1" : "NAK 2 5";
    assert.equal(says(await client.ask(Op.ReadFile, { session, offset: 900, size: 239 })), failed);
    if (autopilot !== "mavsdk") {
      assert.deepEqual((await client.ask(Op.ReadFile, { session, offset: 800, size: 200 })).data, pattern(10_000).subarray(800, 1000));
      client.send(Op.BurstReadFile, { session, size: 239 });
      await client.until(() => client.answers.at(-1)?.opcode === Op.Nak, "the end of the burst");
      assert.equal(says(client.answers.at(-1)!), failed);
      assert.equal(says(await client.ask(Op.ReadFile, { session, offset: 900, size: 239 })), "ACK", "the third time it works");
    }
  });

  test(`${autopilot}: a card that is busy answers later, and nothing is lost that there is room for`, async (t) => {
    const { client } = await withFile(t, { autopilot, faults: { busy: "300ms@open" } });
    client.send(Op.OpenFileRO, { session: 9, data: path });
    client.send(Op.ListDirectory, { session: 9, data: "/" });
    await client.until(() => client.answers.length === 2, "both answers");
    assert.deepEqual(
      client.answers.map((a) => [a.reqOpcode, a.opcode]),
      [
        [Op.OpenFileRO, Op.Ack],
        [Op.ListDirectory, Op.Ack],
      ],
    );
  });

  test(`${autopilot}: while others have every session nothing is opened; afterwards it is`, async (t) => {
    const clock = new HandClock();
    const { client, sim } = await withFile(t, { autopilot, clock, faults: { exhaust: "400ms" } });
    const sessions = autopilots.find((a) => a.name === autopilot)?.sessions ?? 0;
    const refused = { "ardupilot-4.6": "NAK 4", mavsdk: "ACK" }[autopilot] ?? "NAK 5";
    /** Others ask once they are answered. */
    const pass = async (): Promise<void> => {
      clock.advance(5);
      await new Promise((resolve) => setImmediate(resolve));
    };
    for (let n = 0; sim.openSessions() < sessions && n < 60; n++) await pass();
    const opened = async (): Promise<string> => {
      const answer = client.ask(Op.OpenFileRO, { session: 9, data: path });
      await comeIn(sim);
      clock.advance(20);
      return says(await answer);
    };
    assert.equal(await opened(), refused);
    for (let answer = refused; answer !== "ACK"; answer = await opened()) await pass();
  });

  for (const own of [false, true])
    test(`${autopilot}: a ground station loads its parameters${own ? " over its own link" : ""}, by the autopilot's rules`, async (t) => {
      const { client, sim } = await withFile(t, { autopilot });
      const alone = await sim.load({ own });
      assert.deepEqual([alone.whole, alone.refusals, alone.lost], [true, 0, 0]);
      assert.ok(alone.bytes.equals(madeBytes(0, alone.bytes.length)) && alone.bytes.length > 10_000);
      const seen = (): number => client.answers.filter((a) => a.toSystem === 255).length;
      if (!own) await client.until(() => seen() > 80, "what goes over this link is heard here");
      assert.equal(seen() > 0, !own);
      client.answers.length = 0;
      const { session } = await client.ask(Op.OpenFileRO, { session: 9, data: path });
      const loading = sim.load({ own });
      // It is refused where the one session is taken: PX4's of this link, ArduPilot's for all links.
      const waits = autopilot === "ardupilot-4.6" || (autopilot.startsWith("px4") && !own);
      if (waits) {
        await client.until(() => (sim.stats.requests.OpenFileRO ?? 0) >= 3, "it has asked");
        await client.ask(Op.TerminateSession, { session });
      }
      const loaded = await loading;
      assert.deepEqual([loaded.whole, loaded.refusals > 0], [true, waits]);
      assert.equal(sim.stats.stationLoads.length, 2);
    });

  test(`${autopilot}: replies that are lost, refused or changed at a moment`, async (t) => {
    const { client } = await withFile(t, { autopilot, faults: { lose: "1@open:2", nak: "2.5@read:2,1@list" } });
    const { session } = await client.ask(Op.OpenFileRO, { session: 9, data: path });
    assert.equal(says(await client.ask(Op.ReadFile, { session, size: 10 })), "ACK");
    assert.equal(says(await client.ask(Op.ReadFile, { session, size: 10 })), "NAK 2 5");
    assert.equal(says(await client.ask(Op.ReadFile, { session, size: 10 })), "ACK");
    assert.equal(says(await client.ask(Op.ListDirectory, { session, data: "/" })), "NAK 1");
    client.answers.length = 0;
    client.send(Op.OpenFileRO, { session, seq: 9000, data: path });
    client.send(Op.ReadFile, { session, seq: 9010, size: 10 });
    await client.until(() => client.answers.length === 1, "the second answer");
    assert.equal(client.answers[0]?.reqOpcode, Op.ReadFile);
  });
}

test("replies that are wrong by chance: session, errno, end, completeness, late ones", async (t) => {
  const wrong = async (faults: Record<string, string>, autopilot = "ardupilot-4.6") => {
    const { client } = await withFile(t, { autopilot, faults }, 1000);
    await client.ask(Op.OpenFileRO, { session: 9, data: path });
    client.answers.length = 0;
    client.send(Op.BurstReadFile, { session: 9, size: 239 });
    return client;
  };
  const session = await wrong({ "wrong-session": "100%" });
  await session.until(() => session.answers.length === 6, "a burst");
  assert.ok(session.answers.every((a) => a.session !== 9));
  const errno = await wrong({ "stale-errno": "100%" });
  await errno.until(() => errno.answers.length === 6, "a burst");
  assert.equal(says(errno.answers[5]!), `NAK ${Nak.FileExists}`);
  const end = await wrong({ "lost-eof": "100%" });
  await end.until(() => end.answers.length === 5, "a burst");
  assert.equal((await end.ask(Op.None, { session: 9 })).reqOpcode, Op.None, "nothing comes between");
  const complete = await wrong({ "bad-complete": "100%" });
  await complete.until(() => complete.answers.length === 6, "a burst");
  assert.deepEqual(
    complete.answers.map((a) => a.burstComplete),
    [1, 1, 1, 1, 1, 0],
  );
  const late = await wrong({ late: "100%" });
  await late.until(() => late.answers.length === 11, "a burst, and its packets again");
});

test("an RP2350, and a checksum that takes its time, by faults", async (t) => {
  const { client } = await withFile(t, { autopilot: "ardupilot-4.8", faults: { short: "48", crc: "50kB" } });
  await client.ask(Op.OpenFileRO, { session: 9, data: path });
  assert.equal((await client.ask(Op.ReadFile, { session: 9, size: 239 })).data.length, 48);
  client.send(Op.CalcFileCRC32, { session: 9, data: path });
  client.send(Op.None, { session: 9 });
  await client.until(() => client.answers.at(-1)?.reqOpcode === Op.None, "what waited");
  assert.equal(client.answers.at(-2)?.reqOpcode, Op.CalcFileCRC32);
});

test("a pulled cable: clients are cut off, and a pseudo-terminal comes back under another name", async (t) => {
  const dir = makeDir(t);
  const [first, second] = [join(dir, "ttyACM0"), join(dir, "ttyACM1")];
  const sim = await startSim({ listen: `pty:${first}`, dir, faults: { unplug: `10ms,${second}@50ms` } });
  t.after(() => sim.close());
  assert.ok(existsSync(first));
  for (let i = 0; !existsSync(second) && i < 1000; i++) await new Promise((resolve) => setTimeout(resolve, 5));
  assert.ok(existsSync(second) && !existsSync(first));
  assert.equal(sim.clientUrl, `serial://${second}:57600`);
  await assert.rejects(startSim({ listen: "tcpin://127.0.0.1:0", dir, faults: { unplug: "1s,/tmp/x" } }), /another name/);
  const tcp = await withFile(t, { faults: { unplug: "20ms@open" } });
  tcp.client.send(Op.OpenFileRO, { data: path });
  await tcp.client.gone;
  for (;;)
    try {
      const again = await makeClient(t, tcp.sim);
      assert.equal(says(await again.ask(Op.ListDirectory, { data: "/" })), "ACK");
      break;
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "ECONNREFUSED")) throw error;
    }
});

test("a log that grows is told of by SYS_STATUS, armed or not; the listing and the read follow it", async (t) => {
  const { client, sim } = await withFile(t, { autopilot: "ardupilot-4.6", faults: { grow: "5kB" } }, 100);
  const logging = (): boolean => {
    const last = client.seen.filter((s) => s.id === m.SYS_STATUS).at(-1);
    return last !== undefined && (m.decodeSysStatus(last.payload).health & m.SENSOR_LOGGING) !== 0;
  };
  await client.until(logging, "it logs");
  assert.equal(sim.armed, false);
  const sizeOf = async (): Promise<number> => {
    const text = (await client.ask(Op.ListDirectory, { session: 9, data: "/logs" })).data.toString();
    return Number(/00000001\.BIN\t(\d+)/.exec(text)?.[1]);
  };
  while ((await sizeOf()) < 5100) await client.until(() => true, "more");
  const { session } = await client.ask(Op.OpenFileRO, { session: 9, data: path });
  assert.deepEqual((await client.ask(Op.ReadFile, { session, offset: 5000, size: 100 })).data, madeBytes(5000, 100));
});

test("a log that cannot be written stands still, and SYS_STATUS says so", async (t) => {
  const { client, sim } = await withFile(t, { autopilot: "ardupilot-4.6", faults: { grow: "5kB", "no-log": "10s@list" } }, 100);
  const logging = (): boolean | undefined => {
    const last = client.seen.filter((s) => s.id === m.SYS_STATUS).at(-1);
    return last === undefined ? undefined : (m.decodeSysStatus(last.payload).health & m.SENSOR_LOGGING) !== 0;
  };
  await client.until(() => logging() === true, "it logs");
  const sizes = async (): Promise<string> => (await client.ask(Op.ListDirectory, { session: 9, data: "/logs" })).data.toString();
  const before = await sizes();
  await client.until(() => logging() === false, "it does not");
  assert.equal(await sizes(), before);
  assert.equal(sim.armed, false);
});

test("nothing is left of a simulator that is closed in the middle of everything", async (t) => {
  const faults = { exhaust: "10s", "second-client": "open", grow: "1kB", delay: "50ms", noise: "20kB", busy: "5s@read:3", late: "100%" };
  const { client, sim } = await withFile(t, { autopilot: "ardupilot-4.8", link: "radio:57600", faults });
  for (let i = 0; i < 5; i++) client.send(Op.OpenFileRO, { session: i + 1, data: path });
  await client.until(() => client.answers.length > 0, "an answer");
  await sim.close();
  await sim.close();
  // The test file ends by itself only where no timer stays.
});

/** Sends a request, and resolves when it has come in; the time that is moved by hand stands still. */
async function sendIn(sim: Sim, client: Client): Promise<void> {
  client.send(Op.None, { session: 9 });
  await comeIn(sim);
}

/** What was sent just now has. */
async function comeIn(sim: Sim): Promise<void> {
  const before = sim.stats.framesIn;
  for (const untilMs = performance.now() + 5000; sim.stats.framesIn === before;) {
    assert.ok(performance.now() < untilMs, "no request came in within 5 s");
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** Frames that leave within so much time that is moved by hand. */
function framesIn(sim: Sim, clock: HandClock, ms: number): number {
  const before = sim.stats.framesOut;
  clock.advance(ms);
  return sim.stats.framesOut - before;
}

for (const [autopilot, slowed] of [
  ["ardupilot-4.6", true],
  ["ardupilot-4.8", true],
  ["px4", false],
] as const)
  test(`${autopilot}: beside files telemetry is ${slowed ? "a quarter of what it was, and whole a second later" : "what it was"}`, async (t) => {
    const clock = new HandClock();
    const { sim, client } = await start(t, { autopilot, clock, faults: { noise: "20kB" } });
    // What it says of itself to whoever connects.
    clock.advance(1);
    // 500 frames of 40 bytes, and three each second that say how it is.
    assert.equal(framesIn(sim, clock, 2000), 2 * 503);
    // Its heartbeat is never slower; the other two come every fourth time.
    for (const others of slowed ? [125 + 3, 125 + 1] : [503, 503]) {
      await sendIn(sim, client);
      clock.advance(1);
      assert.equal(framesIn(sim, clock, 999), others);
    }
    clock.advance(1);
    assert.equal(framesIn(sim, clock, 2000), 2 * 503);
  });

test("a radio that says that it is full stops an ArduPilot's answers, and no PX4's", async (t) => {
  for (const [autopilot, stops] of [
    ["ardupilot-4.6", true],
    ["ardupilot-4.7", true],
    ["px4", false],
  ] as const) {
    const clock = new HandClock();
    const { sim, client } = await start(t, { autopilot, clock, faults: { radio: "33,2s@5s" } });
    const answered = async (ms: number): Promise<boolean> => {
      const before = client.answers.length;
      await sendIn(sim, client);
      clock.advance(ms);
      await client.until(() => client.seen.length === sim.stats.framesOut - 3, "all frames but those before it connected");
      return client.answers.length > before;
    };
    assert.equal(await answered(4900), true);
    clock.advance(100);
    assert.equal(await answered(1900), !stops);
    clock.advance(110);
    assert.equal(await answered(10), true, "afterwards it is asked and answered as before");
  }
});

test("a radio tells how full it is after each heartbeat, and what it said 5 s ago counts no more", () => {
  const clock = new HandClock();
  let waiting = 0;
  const said: number[] = [];
  const radio: Radio = new Radio({
    ...{ now: () => clock.now(), after: (ms, run) => void clock.after(ms, run), waiting: () => waiting },
    tell: (payload) => {
      said.push(m.decodeRadioStatus(payload).txbuf);
      radio.heard(payload);
    },
  });
  radio.beat();
  assert.deepEqual([said, radio.free], [[], 100], "it has not been told to speak");
  radio.speak();
  for (waiting of [0, 512, 1400, 2048, 16_000]) radio.beat();
  assert.deepEqual(said, [100, 75, 31, 0, 0]);
  clock.advance(5000);
  assert.equal(radio.free, 0);
  clock.advance(1);
  assert.equal(radio.free, 100);
  radio.claim(20, 1500);
  assert.equal(radio.free, 20);
  clock.advance(1499);
  assert.equal(radio.free, 20);
  clock.advance(1);
  assert.equal(radio.free, 100);
});

test("a radio that tells how full it is has to be one", async (t) => {
  await assert.rejects(startSim({ listen: "tcpin://127.0.0.1:0", dir: makeDir(t), faults: { radio: "own" } }), /only a link radio:BAUD/);
});
