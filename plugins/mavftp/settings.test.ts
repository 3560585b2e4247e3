/** What the device says of the autopilot's settings, for each autopilot that can be simulated; and what asking for them costs. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault, isFault } from "../../core/errors.js";
import type { Advice, Clock } from "../../core/plugin.js";
import type { Frame } from "../../mavlink/frame.js";
import * as m from "../../mavlink/messages.js";
import type { Autopilot } from "../../sim/autopilot.js";
import { autopilots } from "../../sim/autopilots.js";
import { isOwnUsb, parseAddress } from "./address.js";
import { clock, eventually, listAll, makeDevice, makeDir, makeLogs, makeRig, makeSim, never, readAll } from "./harness.test.js";
import type { Link } from "./link.js";
import type { Peer } from "./peer.js";
import { Questions } from "./questions.js";
import { adviceOf, settingsToAsk } from "./settings.js";

const inWords = (advice: readonly Advice[]) => advice.map(({ severity, about, text }) => `${severity} ${about} ${text}`);
const px4 = { autopilot: m.AUTOPILOT_PX4, version: undefined, usb: true };
const ardupilot = { autopilot: m.AUTOPILOT_ARDUPILOT, version: undefined, usb: true };

test("an autopilot that nobody has changed: all is well; a MAVSDK server is asked for nothing", async (t) => {
  const fine = {
    px4: ["ok SDLOG_MODE is 0: a log from arming to disarming"],
    "px4-1.18": ["ok SDLOG_MODE is 0: a log from arming to disarming", "ok SDLOG_BACKEND is 3: logs are written to the card"],
    ardupilot: [
      "ok LOG_BACKEND_TYPE is 1: logs are written to files",
      "ok LOG_DISARMED is 0: nothing is logged on the ground",
      "ok LOG_FILE_MB_FREE is 500: with less than 500 MB free on its card it deletes its oldest logs, whether they have arrived or not",
    ],
    mavsdk: [],
  };
  for (const { name } of autopilots) {
    const { device } = await makeRig(t, { dir: makeDir(t), autopilot: name });
    const expected = fine[name.startsWith("ardupilot") ? "ardupilot" : (name as keyof typeof fine)];
    assert.deepEqual(inWords(await device.advice(never)), expected, name);
  }
});

test("settings that keep logs from coming are told from either kind of autopilot, with what to set", async (t) => {
  const off = await makeRig(t, { dir: makeDir(t), settings: { SDLOG_MODE: -1, SDLOG_DIRS_MAX: 2 } });
  const [mode, dirs] = await off.device.advice(never);
  assert.deepEqual(mode, {
    severity: "bad",
    about: "SDLOG_MODE",
    text: "is -1: no log is written",
    todo: ["# in a ground station: set SDLOG_MODE to 0, then restart the autopilot"],
  });
  assert.match(dirs === undefined ? "" : (inWords([dirs])[0] ?? ""), /^warn SDLOG_DIRS_MAX is 2: .* only the newest 2 stay/);
  for (const autopilot of ["ardupilot-4.6", "ardupilot-4.7", "ardupilot-4.8"]) {
    const settings = { LOG_BACKEND_TYPE: 4, LOG_DISARMED: 1, LOG_MAX_FILES: 5 };
    const { device } = await makeRig(t, { dir: makeDir(t), autopilot, settings });
    const told = await device.advice(never);
    assert.deepEqual(
      told.filter(({ severity }) => severity !== "ok").map(({ severity, about }) => `${severity} ${about}`),
      ["bad LOG_BACKEND_TYPE", "warn LOG_DISARMED", "warn LOG_MAX_FILES"],
      autopilot,
    );
    assert.match(told[0]?.text ?? "", /^is 4: logs are in a flash chip, not in files/);
  }
});

test("what each value means", () => {
  const says = (asked: typeof px4, values: Record<string, number>) => inWords(adviceOf(asked, new Map(Object.entries(values))));
  const mode = (value: number, more = {}) => says(px4, { SDLOG_MODE: value, ...more })[0];
  assert.match(mode(1) ?? "", /^ok .* from the start/);
  assert.match(mode(2) ?? "", /^warn .* comes after its next start/);
  assert.match(mode(4) ?? "", /^warn .* comes after its next start/);
  assert.match(mode(3) ?? "", /^warn .* AUX1/);
  assert.match(mode(-1, { SDLOG_BACKEND: 3 }) ?? "", /^warn .* means nothing to this version/);
  const backend = (value: number) => says(px4, { SDLOG_MODE: 0, SDLOG_BACKEND: value })[1];
  assert.match(backend(0) ?? "", /^bad SDLOG_BACKEND is 0: no log is written/);
  assert.match(backend(2) ?? "", /^bad SDLOG_BACKEND is 2: logs go out by MAVLink only/);
  assert.match(backend(1) ?? "", /^ok/);
  assert.match(says(px4, { SDLOG_MODE: 0, CBRK_USB_CHK: 0 })[1] ?? "", /^warn CBRK_USB_CHK is 0: a PX4 does not arm/);
  assert.equal(says(px4, { SDLOG_MODE: 0, CBRK_USB_CHK: 197_848 }).length, 1);
  assert.match(says(px4, { SDLOG_MODE: 0, SDLOG_DIRS_MAX: 30 })[1] ?? "", /^ok/);
  const backends = (value: number) => says(ardupilot, { LOG_BACKEND_TYPE: value })[0];
  assert.match(backends(0) ?? "", /^bad .* is 0: no log is written/);
  assert.match(backends(2) ?? "", /^bad .* by MAVLink only/);
  assert.match(backends(6) ?? "", /^bad .* flash chip/);
  assert.match(backends(5) ?? "", /^ok/);
  const disarmed = (value: number, rotates: number) =>
    says(ardupilot, { LOG_BACKEND_TYPE: 1, LOG_DISARMED: value, LOG_FILE_DSRMROT: rotates })[1];
  assert.match(disarmed(1, 0) ?? "", /^warn LOG_DISARMED is 1: the log goes on after the flight, so/);
  assert.match(disarmed(2, 0) ?? "", /^warn .*USB/);
  assert.match(disarmed(3, 1) ?? "", /^ok .* ends with its disarming/);
  assert.match(says(ardupilot, {})[0] ?? "", /^unseen LOG_BACKEND_TYPE is not known/);
});

test("what is asked for follows version and link", () => {
  const names = (version: [number, number, number] | undefined, usb: boolean) =>
    settingsToAsk({ autopilot: m.AUTOPILOT_PX4, version, usb });
  assert.deepEqual(names([1, 16, 2], false), ["SDLOG_MODE", "SDLOG_DIRS_MAX"]);
  assert.deepEqual(names([1, 17, 0], true), ["SDLOG_MODE", "SDLOG_BACKEND", "SDLOG_DIRS_MAX", "CBRK_USB_CHK"]);
  assert.deepEqual(names([2, 0, 0], false), names(undefined, false));
  assert.deepEqual(settingsToAsk({ autopilot: 0, version: undefined, usb: true }), []);
  const usb = (url: string) => isOwnUsb(parseAddress(url)!);
  assert.ok(usb("serial:///dev/ttyACM0:57600"));
  assert.ok(usb("serial:///dev/serial/by-id/usb-Auterion_PX4_FMU_v6X-if00"));
  assert.ok(!usb("serial:///dev/serial/by-id/usb-FTDI_FT232R-if00-port0"));
  assert.ok(!usb("serial:///dev/ttyUSB0"));
  assert.ok(!usb("tcpout://127.0.0.1:5760"));
});

test("an autopilot that answers none of it is not known, after three requests for each", async (t) => {
  const asked = autopilots.filter(({ settings }) => Object.keys(settings).length > 0);
  const each = async ({ name, settings }: Autopilot) => {
    const none = Object.fromEntries(Object.keys(settings).map((one) => [one, undefined]));
    const { device, sim } = await makeRig(t, { dir: makeDir(t), autopilot: name, settings: none });
    await eventually(() => device.version !== undefined, "its version is known");
    const told = await device.advice(never);
    assert.deepEqual(
      told.map(({ severity, about, text }) => [severity, about, text]),
      [["unseen", Object.keys(settings)[0], "is not known: the autopilot did not answer three requests for it"]],
      name,
    );
    assert.equal(sim.stats.settingsAsked, 3 * settingsToAsk({ ...px4, ...fact(name), version: device.version, usb: false }).length, name);
  };
  await Promise.all(asked.map(each));
});

const fact = (name: string) => ({ autopilot: name.startsWith("px4") ? m.AUTOPILOT_PX4 : m.AUTOPILOT_ARDUPILOT });

test("what is not answered is asked for again, and only that; others' answers count for nothing", async () => {
  const sent: string[] = [];
  let pauses = 0;
  const answer = (name: string, value: number): Frame => {
    const payload = m.encodeParamValue({ name, value, type: m.PARAM_INT32, count: 9, index: 1 }, m.AUTOPILOT_PX4);
    return { version: 2, seq: 0, systemId: 1, componentId: 1, messageId: m.PARAM_VALUE, payload, wireBytes: 0 };
  };
  const link = {
    send: (id: number, payload: Buffer) => {
      assert.equal(id, m.PARAM_REQUEST_READ);
      sent.push(m.decodeParamRequestRead(payload)?.name ?? "");
    },
  } as Link;
  const peer = { autopilot: m.AUTOPILOT_PX4, attachment: () => ({ systemId: 1, signal: never }) } as unknown as Peer;
  const sleeping: Clock = {
    ...clock,
    sleep: (ms, signal) => {
      assert.equal(ms, 1000);
      pauses += 1;
      questions.frame(answer("MPC_XY_P", 5));
      if (pauses < 3) questions.frame(answer(pauses === 1 ? "B" : "A", pauses));
      return signal?.aborted === true ? Promise.reject(new Fault("aborted", "stopped")) : Promise.resolve();
    },
  };
  const questions = new Questions(link, peer, sleeping);
  assert.deepEqual(
    [...(await questions.settings(["A", "B"], never))],
    [
      ["B", 1],
      ["A", 2],
    ],
  );
  assert.deepEqual(sent, ["A", "B", "A"]);
});

test("while it is armed nothing is asked, and arming ends the asking; with whenArmed continue it goes on", async (t) => {
  const armed = await makeSim(t, { dir: makeDir(t), armed: true });
  const paused = makeDevice(t, { url: armed.clientUrl, root: "/" });
  await paused.until(({ reason }) => reason === "the vehicle is armed");
  await assert.rejects(
    paused.device.advice(never),
    (error: unknown) => isFault(error, "offline") && error.message === "the vehicle is armed",
  );
  assert.equal(armed.stats.settingsAsked, 0);
  const reads = makeDevice(t, { url: armed.clientUrl, root: "/", whenArmed: "continue" });
  await reads.attached();
  assert.equal((await reads.device.advice(never)).length, 1);
  const silent = await makeRig(t, { dir: makeDir(t), settings: { SDLOG_MODE: undefined } });
  const asking = assert.rejects(silent.device.advice(never), /the vehicle is armed/);
  await eventually(() => silent.sim.stats.settingsAsked > 0, "it is asked");
  silent.sim.setArmed(true);
  await asking;
});

test("the signal of who asks ends it", async (t) => {
  const { device, sim } = await makeRig(t, { dir: makeDir(t), settings: { SDLOG_MODE: undefined } });
  const stop = new AbortController();
  const asking = assert.rejects(device.advice(stop.signal), (error: unknown) => isFault(error, "aborted"));
  await eventually(() => sim.stats.settingsAsked > 0, "it is asked");
  stop.abort();
  await asking;
});

test("beside a file that is being read: both come", async (t) => {
  for (const autopilot of ["px4", "ardupilot-4.6", "ardupilot-4.8"]) {
    const { dir, content } = makeLogs(t, { "00000001.BIN": 600_000 });
    const { device, source, sim } = await makeRig(t, { dir, autopilot, link: "usb" });
    const [entry] = await listAll(source);
    const reading = readAll(source, entry!);
    await eventually(() => sim.stats.payloadBytes > 0, "it is being read");
    const told = await device.advice(never);
    assert.ok(sim.openSessions() > 0, `${autopilot}: the file was still being read`);
    assert.ok(told.length > 0 && told.every(({ severity }) => severity === "ok"), inWords(told).join("\n"));
    assert.ok((await reading).equals(content.get("00000001.BIN")!), autopilot);
  }
});
