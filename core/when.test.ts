/** Conditions, each met and not met, on machines and at times that are made up. */
import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import type { NetworkInterfaceInfo } from "node:os";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";
import * as v from "valibot";
import { RealClock } from "./clock.js";
import { interfacesNow, Machine, runsWithin, waysOut, type Runs } from "./machine.js";
import { heldBy, whenSchema, type Facts } from "./when.js";

const clock = new RealClock(false);
class Later extends RealClock {
  aheadMs = 0;
  override monotonicMs(): number {
    return super.monotonicMs() + this.aheadMs;
  }
}

const none: Runs = () => Promise.resolve(undefined);

function facts(given: Partial<Facts> = {}): Facts {
  return { wallMs: new Date(2026, 5, 1, 12, 0, 0).getTime(), trusted: true, machine: new Machine(clock, []), armed: new Map(), ...given };
}

const held = async (when: unknown, given: Partial<Facts> = {}) => heldBy(v.parse(whenSchema, when), facts(given));
const at = (hours: number, minutes: number, seconds = 0) => ({ wallMs: new Date(2026, 5, 1, hours, minutes, seconds).getTime() });

test("in a night in which the clocks change a window begins an hour sooner, or later", async (t) => {
  const { TZ } = process.env;
  t.after(() => {
    if (TZ === undefined) delete process.env.TZ;
    else process.env.TZ = TZ;
  });
  process.env.TZ = "Europe/Berlin";
  const begins = async (text: string, time = "04:00-05:00") => (await held({ time }, { wallMs: Date.parse(text) }))?.inMs;
  assert.equal(await begins("2026-03-29T01:00:00+01:00"), 2 * 3_600_000);
  assert.equal(await begins("2026-10-25T01:00:00+02:00"), 4 * 3_600_000);
  assert.equal(await begins("2026-10-24T05:00:00+02:00"), 24 * 3_600_000);
  assert.equal(await begins("2026-10-26T00:30:30+01:00"), 3.5 * 3_600_000 - 30_000);
  assert.equal(await begins("2026-10-25T02:10:00+01:00", "02:30-02:45"), 20 * 60_000);
  assert.equal(await begins("2026-10-25T02:46:00+02:00", "02:30-02:45"), 44 * 60_000);
  // That night has no such quarter of an hour; of a longer window it has the end.
  assert.equal(await begins("2026-03-29T01:29:00+01:00", "02:30-02:45"), 24 * 3_600_000 + 60_000);
  assert.equal(await begins("2026-03-29T01:29:00+01:00", "02:30-04:00"), 31 * 60_000);
});

test("a program that heeds no request to end is not waited for, nor what it began", async () => {
  const within = async (ms: number, script: string) =>
    Promise.race([runsWithin(ms)("sh", ["-c", script], new AbortController().signal), setTimeout(20_000, "waited", { ref: false })]);
  assert.equal(await within(300, "trap '' TERM; echo begun; sleep 30; sleep 30"), undefined);
  // What ends well by itself has the time to begin, on a machine that is busy.
  assert.equal(await within(3000, "sleep 30 & echo begun"), "begun\n");
  assert.equal(await within(15_000, "echo $LC_ALL"), "C\n");
  assert.equal(await within(15_000, "echo no; exit 8"), undefined);
});

test("a window of the day, also over midnight; how long it takes until it begins", async () => {
  const day = { time: "8:00-16:30" };
  assert.equal(await held(day, at(8, 0)), undefined);
  assert.equal(await held(day, at(16, 29, 59)), undefined);
  assert.equal((await held(day, at(16, 30)))?.inMs, 15.5 * 3_600_000);
  assert.equal((await held(day, at(7, 59, 59)))?.inMs, 1000);
  const night = { time: ["22:00-06:00", "12:00-13:00"] };
  assert.equal(await held(night, at(23, 59)), undefined);
  assert.equal(await held(night, at(5, 59)), undefined);
  assert.equal(await held(night, at(12, 0)), undefined);
  assert.deepEqual(await held(night, at(6, 0)), {
    reason: 'only at 22:00-06:00, 12:00-13:00 ("time"), which begins in 6 h 0 min',
    inMs: 6 * 3_600_000,
  });
  assert.equal(await held({ time: "00:00-24:00" }, at(3, 0)), undefined);
});

test("while nobody knows the time a window waits, or is open where that is wanted", async () => {
  assert.match((await held({ time: "22:00-06:00" }, { ...at(23, 0), trusted: false }))?.reason ?? "", /nobody knows the time/);
  assert.equal(await held({ time: "22:00-06:00", whenClockUnknown: "go" }, { ...at(12, 0), trusted: false }), undefined);
});

test("a time that no day has is named; two that are the same are told apart from it", () => {
  const said = (time: unknown) => v.safeParse(whenSchema, { time }).issues?.[0]?.message;
  const none = (time: string) => `times from 00:00 to 23:59, or to 24:00: ${time} is none of them`;
  assert.equal(said("25:00-06:00"), none("25:00"));
  assert.equal(said("22:00-6:60"), none("6:60"));
  assert.equal(said("24:00-06:00"), none("24:00"));
  assert.equal(said(["22:00-06:00", "22:00-25:00"]), none("25:00"));
  assert.equal(said("22:00-24:00"), undefined);
  for (const time of ["22:00-22:00", "22-6"]) assert.equal(said(time), 'two times that differ, such as "22:00-06:00"');
});

test("what is no condition is told with what it should be", () => {
  for (const wrong of [
    { time: "22-6" },
    { time: "22:00-25:00" },
    { time: "10:00-10:00" },
    { time: "10:60-11:00" },
    { time: [] },
    { interface: [] },
    { ssid: "" },
    { metered: "no" },
    { disarmed: false },
    { reach: { url: "ftp://x" } },
    { reach: { url: "http://x" } },
    { whenClockUnknown: "maybe" },
    { windows: "x" },
  ])
    assert.equal(v.safeParse(whenSchema, wrong).success, false, JSON.stringify(wrong));
});

test("all conditions that are not met are told, and how long only where each says it; the server is asked once the others are met", async () => {
  const reach = { url: "https://127.0.0.1:1/" };
  const when = { time: "22:00-06:00", disarmed: true, interface: "eth7", reach };
  const both = await held({ time: "22:00-06:00", disarmed: true });
  assert.match(both?.reason ?? "", /^only at 22:00-06:00 .*; no device says whether the vehicle is armed/);
  assert.equal(both?.inMs, undefined);
  const machine = new Machine(clock, [], none, () => []);
  assert.match(
    (await held(when, { machine }))?.reason ?? "",
    /only at .*; no device .*; eth7 is not up, or without an address other than fe80::… \("interface"\)$/,
  );
});

test("an interface that has only the address that IPv6 gives it is on no network yet", () => {
  const of = (...all: string[]) => all.map((address) => ({ address }) as NetworkInterfaceInfo);
  assert.deepEqual(interfacesNow({ lo: of("127.0.0.1", "::1"), wlan0: of("fe80::ba27:ebff:fe12:1"), eth0: of("fe80::1", "fd00::2") }), [
    "lo",
    "eth0",
  ]);
});

test("the vehicle: known to be disarmed, or nothing is sent", async () => {
  const reason = async (...armed: [string, boolean | undefined][]) => (await held({ disarmed: true }, { armed: new Map(armed) }))?.reason;
  assert.equal(await reason(["fc", false]), undefined);
  assert.match((await reason(["fc", false], ["other", true])) ?? "", /^other says that the vehicle is armed$/);
  assert.match((await reason(["fc", undefined])) ?? "", /counts as armed/);
  assert.match((await reason()) ?? "", /counts as armed/);
});

test("interfaces, and whether the way out is metered", async () => {
  const machine = (metered: string[], out: string | undefined, up = ["lo", "wlan0"], v6 = "") =>
    new Machine(
      clock,
      metered,
      () => Promise.resolve(out),
      () => up,
      () => Promise.resolve({ v4: routes, v6 }),
    );
  const routes = [
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT",
    "wlan0\t00000000\t0102A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0",
    "wwan0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0",
    "eth0\t00000000\t0100000A\t0002\t0\t0\t1\t00000000\t0\t0\t0",
    "wlan0\t0002A8C0\t00000000\t0001\t0\t0\t600\t00FFFFFF\t0\t0\t0",
    "",
  ].join("\n");
  // As Linux prints them: of the loopback, of a network, of a router with a worse metric, and of one with a better.
  const zero = "0".repeat(32);
  const v6 = [
    `${zero} 00 ${zero} 00 ${zero} ffffffff 00000001 00000000 00200200       lo`,
    `fd000000000000000000000000000000 40 ${zero} 00 ${zero} 00000100 00000001 00000000 00000001    wlan0`,
    `${zero} 00 ${zero} 00 fe800000000000000000000000000001 00000400 00000002 00000000 00450003    wlan0`,
    `${zero} 00 ${zero} 00 fe800000000000000000000000000002 00000064 00000002 00000000 00000003    wwan1`,
    "",
  ].join("\n");
  assert.deepEqual(waysOut({ v4: routes, v6: "" }), ["wwan0"]);
  assert.deepEqual(waysOut({ v4: "", v6 }), ["wwan1"]);
  assert.deepEqual(waysOut({ v4: routes, v6: v6.replaceAll("wwan1", "wwan0") }), ["wwan0"]);
  assert.deepEqual(waysOut({ v4: "", v6: "" }), []);
  const nmcli =
    "GENERAL.DEVICE:wlan0\nGENERAL.METERED:no (guessed)\n\nGENERAL.DEVICE:wwan0\nGENERAL.METERED:yes\n\nGENERAL.DEVICE:lo\nGENERAL.METERED:unknown\n";
  const reason = async (when: unknown, it: Machine) => (await held(when, { machine: it }))?.reason;
  assert.equal(await reason({ interface: ["eth0", "wlan0"] }, machine([], undefined)), undefined);
  assert.equal(
    await reason({ interface: "eth0" }, machine([], undefined)),
    'eth0 is not up, or without an address other than fe80::… ("interface")',
  );
  assert.equal(await reason({ metered: false }, machine([], nmcli)), 'the way out, wwan0, is metered ("metered")');
  assert.equal(await reason({ metered: true }, machine([], nmcli)), undefined);
  assert.equal(await reason({ metered: false, interface: "wlan0" }, machine([], nmcli)), undefined);
  assert.equal(
    await reason({ metered: true, interface: "eth9" }, machine([], nmcli)),
    'eth9 is not up, or without an address other than fe80::… ("interface")',
  );
  assert.equal(await reason({ metered: false }, machine(["ww*"], undefined)), 'the way out, wwan0, is metered ("metered")');
  assert.equal(await reason({ metered: false }, machine(["ppp*"], undefined)), undefined, "who lists names lists all");
  assert.equal(
    await reason({ metered: false }, machine(["wwan1"], undefined, undefined, v6)),
    'the way out, wwan1, is metered ("metered")',
    "a server with an IPv6 address is reached by that",
  );
  assert.match((await reason({ metered: false }, machine([], undefined))) ?? "", /nobody can say whether wwan0 is metered/);
});

test("the wireless network, as nmcli or iw says it", async () => {
  const machine = (out: (command: string) => string | undefined) => new Machine(clock, [], (command) => Promise.resolve(out(command)));
  const reason = async (out: (command: string) => string | undefined) =>
    (await held({ ssid: ["hangar", "home"] }, { machine: machine(out) }))?.reason;
  assert.equal(await reason((command) => (command === "nmcli" ? "no:other\nyes:home\n" : undefined)), undefined);
  assert.equal(await reason((command) => (command === "iw" ? "phy#0\n\tInterface wlan0\n\t\tssid hangar\n" : undefined)), undefined);
  assert.equal(await reason((command) => (command === "iw" ? "\t\tssid hangar\n" : "no:hangar\n")), undefined, "not NetworkManager's");
  assert.equal(await reason(() => "yes:cafe\n"), 'connected to cafe, not to hangar or home ("ssid")');
  assert.equal(await reason(() => ""), 'not connected to a wireless network, not to hangar or home ("ssid")');
  assert.match((await held({ ssid: "home" }, { machine: new Machine(clock, [], none) }))?.reason ?? "", /neither nmcli nor iw answers/);
});

test("the right server is known by its answer: a portal that answers 200 or redirects is not it", async (t) => {
  let answer = { status: 200, body: "<html>welcome to the hotel</html>", headers: {} };
  let asked = 0;
  const server = createServer((_, response) => {
    asked += 1;
    response.writeHead(answer.status, answer.headers).end(answer.body);
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  t.after(() => server.close());
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/health`;
  const reason = async (reach: object) => (await held({ reach: { url, ...reach } }, { machine: new Machine(clock, []) }))?.reason;
  assert.match((await reason({ contains: "filesync ground" })) ?? "", /answers something else than expected/);
  answer = { status: 302, body: "", headers: { location: "/login" } };
  assert.match((await reason({ contains: "x" })) ?? "", /answers with 302, not 200/);
  answer = { status: 200, body: `${"x".repeat(50_000)} filesync ground 7`, headers: {} };
  const later = new Later(false);
  const machine = new Machine(later, []);
  const reach = { reach: { url, contains: "filesync ground" } };
  assert.equal(await held(reach, { machine }), undefined);
  asked = 0;
  for (let n = 0; n < 14; n++) {
    later.aheadMs += 2000;
    assert.equal(await held(reach, { machine }), undefined);
  }
  assert.equal(asked, 0, "believed for a while");
  answer = { status: 200, body: "<html>welcome to the hotel</html>", headers: {} };
  later.aheadMs += 2000;
  assert.match((await held(reach, { machine }))?.reason ?? "", /answers something else than expected/);
  assert.equal(asked, 1, "also where it is looked at all the time");
  server.close();
  server.closeAllConnections();
  assert.match((await reason({ contains: "x" })) ?? "", /cannot be reached: .*ECONNREFUSED/);
});

test("of however many servers that are asked at once none is warned of, and none is waited for at the end", async (t) => {
  const server = createServer(() => undefined);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => (server.closeAllConnections(), server.close()));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const warned: string[] = [];
  const onWarning = ({ message }: Error) => void warned.push(message);
  process.on("warning", onWarning);
  t.after(() => process.removeListener("warning", onWarning));
  const machine = new Machine(clock, []);
  const asked = Array.from({ length: 20 }, (_, n) => held({ reach: { url: `${url}/${n}`, contains: "x" } }, { machine }));
  await setTimeout(50);
  machine.end();
  for (const told of await Promise.all(asked)) assert.match(told?.reason ?? "", /stopped/);
  assert.deepEqual(warned, []);
});
