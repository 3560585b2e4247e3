/** What the device says of the autopilot's settings, for each autopilot that can be simulated; and what asking for them costs. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault, isFault } from "../../core/errors.js";
import type { Advice, Clock } from "../../core/plugin.js";
import type { Frame } from "../../mavlink/frame.js";
import * as m from "../../mavlink/messages.js";
import type { Autopilot } from "../../sim/autopilot.js";
import { autopilots } from "../../sim/autopilots.js";
import type { SimOptions } from "../../sim/sim.js";
import { isOwnUsb, parseAddress } from "./address.js";
import { clock, eventually, listAll, makeDevice, makeDir, makeLogs, makeRig, makeSim, never, readAll } from "./harness.test.js";
import { Questions } from "./questions.js";
import { adviceOf, firmwareAdvice, settingsToAsk } from "./settings.js";
import { cardAdvice, freeOn } from "./storage.js";

const inWords = (advice: readonly Advice[]) => advice.map(({ severity, about, text }) => `${severity} ${about} ${text}`);
const px4 = { autopilot: m.AUTOPILOT_PX4, version: undefined, usb: true };
const ardupilot = { autopilot: m.AUTOPILOT_ARDUPILOT, version: undefined, usb: true };

test("an autopilot that nobody has changed: all is well; a MAVSDK server is asked for nothing", async (t) => {
  const fine = {
    px4: ["ok its firmware is PX4 1.15.4", "ok SDLOG_MODE is 0: a log from arming to disarming", "ok its card has 28 GB free of 32 GB"],
    "px4-1.18": [
      "ok its firmware is PX4 1.18.0",
      "ok SDLOG_MODE is 0: a log from arming to disarming",
      "ok SDLOG_BACKEND is 3: logs are written to the card",
      "ok its card has 28 GB free of 32 GB",
    ],
    ardupilot: [
      "ok LOG_BACKEND_TYPE is 1: logs are written to files",
      "ok LOG_DISARMED is 0: nothing is logged on the ground",
      "ok LOG_FILE_MB_FREE is 500: with less than 500 MB free on its card it deletes its oldest logs, whether they have arrived or not",
    ],
    mavsdk: [],
  };
  const firmwares: Readonly<Record<string, RegExp>> = {
    "ardupilot-4.6": /^ok its firmware is ArduPilot 4\.6\.3: one program at a time can move files/,
    "ardupilot-4.7": /^ok its firmware is ArduPilot 4\.7\.0$/,
    "ardupilot-4.8": /^ok its firmware is ArduPilot 4\.8\.0$/,
  };
  for (const { name } of autopilots) {
    const { device } = await makeRig(t, { dir: makeDir(t), autopilot: name });
    const told = inWords(await device.advice(never));
    if (name.startsWith("ardupilot")) assert.match(told.shift() ?? "", firmwares[name] ?? /^$/);
    assert.deepEqual(told, fine[name.startsWith("ardupilot") ? "ardupilot" : (name as keyof typeof fine)], name);
  }
});

test("settings that keep logs from coming are told from either kind of autopilot, with what to set", async (t) => {
  const off = await makeRig(t, { dir: makeDir(t), settings: { SDLOG_MODE: -1, SDLOG_DIRS_MAX: 2 } });
  const [mode, dirs] = (await off.device.advice(never)).filter(({ about }) => about.startsWith("SDLOG"));
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
    assert.match(told.find(({ about }) => about === "LOG_BACKEND_TYPE")?.text ?? "", /^is 4: logs are in a flash chip, not in files/);
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
  const links: Record<string, string> = { "/dev/autopilot/px4-1": "/dev/ttyACM1", "/dev/autopilot/telem": "/dev/ttyUSB0" };
  const usb = (url: string) => isOwnUsb(parseAddress(url)!, (path) => links[path] ?? path);
  assert.ok(usb("serial:///dev/autopilot/px4-1"));
  assert.ok(!usb("serial:///dev/autopilot/telem"));
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
    const told = (await device.advice(never)).filter(({ about }) => !about.startsWith("its "));
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
  const send = (id: number, payload: Buffer) => {
    assert.equal(id, m.PARAM_REQUEST_READ);
    sent.push(m.decodeParamRequestRead(payload)?.name ?? "");
  };
  const peer = { autopilot: m.AUTOPILOT_PX4, version: undefined, attachment: () => ({ systemId: 1, signal: never }) };
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
  const questions = new Questions(send, peer, sleeping);
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
  assert.ok((await reads.device.advice(never)).some(({ about }) => about === "SDLOG_MODE"));
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

test("the room on a PX4's card; none of an ArduPilot or a MAVSDK server, which are not asked", async (t) => {
  const { device, sim } = await makeRig(t, { dir: makeDir(t), cardFree: 5e9, settings: { SDLOG_MODE: undefined } });
  const room = (await device.room(never)) ?? 0;
  assert.ok(Math.abs(room - 5e9) < 2048, `${room} bytes: a float of MiB`);
  sim.setArmed(true);
  await assert.rejects(device.room(never), /the vehicle is armed/);
  for (const autopilot of ["ardupilot-4.8", "mavsdk"]) {
    const other = await makeRig(t, { dir: makeDir(t), autopilot });
    assert.equal(await other.device.room(never), undefined, autopilot);
    assert.equal(other.sim.stats.storageAsked, 0, autopilot);
  }
});

test("a card that is nearly full, or not in, is told; one that is not told is not known", async (t) => {
  const ofCard = async (cardFree: SimOptions["cardFree"]) => {
    const rig = await makeRig(t, { dir: makeDir(t), ...(cardFree === undefined ? {} : { cardFree }) });
    const told = await rig.device.advice(never);
    return { said: inWords(told.filter(({ about }) => about === "its card"))[0] ?? "", room: await rig.device.room(never) };
  };
  const full = await ofCard(100e6);
  assert.match(full.said, /^warn its card has 100 MB free of 32 GB: a PX4 makes room by deleting its oldest logs/);
  assert.deepEqual(await ofCard("none"), { said: "bad its card is not there, as the autopilot says: no log can be written", room: 0 });
  const silent = await ofCard("silent");
  assert.match(silent.said, /^unseen its card is not known: the autopilot did not answer three requests/);
  assert.equal(silent.room, undefined);
  const card = { bootMs: 1, totalMib: 100, usedMib: 95, availableMib: 5, id: 1, count: 1 };
  assert.equal(cardAdvice({ ...card, status: 1 }).severity, "bad");
  assert.equal(freeOn({ ...card, status: 3 }), undefined);
  assert.equal(freeOn({ ...card, status: m.STORAGE_READY, availableMib: NaN }), undefined);
  assert.equal(cardAdvice({ ...card, status: m.STORAGE_READY }).severity, "warn", "of a small card a tenth");
  assert.equal(cardAdvice({ ...card, status: m.STORAGE_READY, availableMib: 20 }).severity, "ok");
});

test("firmware that is older than what is known, or that does not tell", () => {
  const [old] = firmwareAdvice(m.AUTOPILOT_PX4, [1, 11, 3]);
  assert.deepEqual([old?.severity, old?.text], ["warn", "is PX4 1.11.3: how it moves files is known only from 1.12 on"]);
  assert.equal(firmwareAdvice(m.AUTOPILOT_PX4, [2, 0, 0])[0]?.severity, "ok");
  assert.equal(firmwareAdvice(m.AUTOPILOT_ARDUPILOT, [4, 2, 9])[0]?.severity, "warn");
  assert.equal(firmwareAdvice(m.AUTOPILOT_ARDUPILOT, [3, 9, 0])[0]?.severity, "warn");
  assert.equal(firmwareAdvice(m.AUTOPILOT_ARDUPILOT, undefined)[0]?.severity, "unseen");
  assert.deepEqual(firmwareAdvice(m.AUTOPILOT_GENERIC, [1, 0, 0]), []);
});
