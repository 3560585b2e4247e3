/** Each way in which a port cannot be used is said in words that a person can act on; and addresses are those of MAVSDK. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmodSync, chownSync, mkdirSync, symlinkSync, unlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { SerialPort } from "serialport";
import * as v from "valibot";
import { Fault, isFault } from "../../core/errors.js";
import type { Clock } from "../../core/plugin.js";
import { openTransport } from "../../sim/transport.js";
import { parseAddress } from "./address.js";
import { eventually, freeUdpPort, listAll, makeDevice, makeDir, makeLogs, makeSim, never, readAll } from "./harness.test.js";
import { Link } from "./link.js";
import { plugin } from "./plugin.js";
import { permissionText } from "./serial.js";

test("addresses", () => {
  assert.deepEqual(parseAddress("serial:///dev/ttyACM0:115200"), { kind: "serial", path: "/dev/ttyACM0", baud: 115200 });
  assert.deepEqual(parseAddress("serial:///dev/serial/by-path/usb-0:1.0:57600"), {
    kind: "serial",
    path: "/dev/serial/by-path/usb-0:1.0",
    baud: 57600,
  });
  assert.deepEqual(parseAddress("serial:///dev/ttyACM0"), { kind: "serial", path: "/dev/ttyACM0", baud: 57600 });
  assert.deepEqual(parseAddress("tcpout://10.1.1.1:5760"), { kind: "tcpout", host: "10.1.1.1", port: 5760 });
  assert.deepEqual(parseAddress("udpin://:14550"), { kind: "udpin", host: "0.0.0.0", port: 14550 });
  assert.deepEqual(parseAddress("udpout://[::1]:14550"), { kind: "udpout", host: "::1", port: 14550 });
  for (const wrong of [
    "",
    "/dev/ttyACM0",
    "serial://ttyACM0",
    "udpout://:14550",
    "tcpout://h:0",
    "tcpout://h:65536",
    "udp://h:1",
    "tcpout://h",
  ])
    assert.equal(parseAddress(wrong), undefined, wrong);
});

test("options: defaults, and each mistake named", () => {
  const given = v.parse(plugin.options, { url: "udpin://0.0.0.0:14550", root: "/APM/LOGS/" });
  assert.deepEqual(
    [given.root, given.whenArmed, given.componentId, given.exclusive, given.crcMaxSize],
    ["/APM/LOGS", "pause", 191, false, 64 * 2 ** 20],
  );
  assert.equal(v.parse(plugin.options, { url: "udpin://:1" }).root, undefined);
  for (const [wrong, says] of [
    [{ url: "ttyACM0" }, /serial:/],
    [{ url: "udpin://:1", whenArmed: "stop" }, /pause/],
    [{ url: "udpin://:1", root: "log" }, /begins with/],
    [{ url: "udpin://:1", systemId: 256 }, /255/],
    [{ url: "udpin://:1", speed: 1 }, /speed/],
  ] as const)
    assert.match(JSON.stringify(v.safeParse(plugin.options, wrong).issues), says);
});

test("a port that is missing", async (t) => {
  const path = join(makeDir(t), "ttyACM0");
  const device = makeDevice(t, { url: `serial://${path}:57600` });
  await device.until((p) => p.reason?.includes(`${path} is missing`) === true);
});

test("a port that appears later is found", async (t) => {
  const { dir } = makeLogs(t, {});
  const path = join(makeDir(t), "ttyACM0");
  const device = makeDevice(t, { url: `serial://${path}:57600`, root: "/" });
  await device.until((p) => p.reason?.includes("is missing") === true);
  await makeSim(t, { dir, listen: `pty:${path}` });
  await device.attached();
});

test("a port that is plugged in is opened at a hint, without waiting for the next look", async (t) => {
  const { dir } = makeLogs(t, {});
  // As /dev/serial/by-id, which is not there before.
  const path = join(makeDir(t), "serial", "by-id", "usb-autopilot");
  const aborted = (signal?: AbortSignal) =>
    new Promise<never>((_, reject) => signal?.addEventListener("abort", () => reject(new Fault("aborted", "stopped")), { once: true }));
  const clock: Clock = { monotonicMs: () => 0, wallMs: () => 0, trusted: () => false, sleep: (_ms, signal) => aborted(signal) };
  const link = new Link({ kind: "serial", path, baud: 57600 }, 191, clock);
  t.after(() => link.close());
  const states: boolean[] = [];
  const opened = new Promise<void>((resolve) => {
    link.start({
      frame: () => undefined,
      state: ({ open }) => {
        states.push(open);
        if (open) resolve();
      },
    });
  });
  await eventually(() => states.length === 1, "that it is missing");
  mkdirSync(dirname(path), { recursive: true });
  await makeSim(t, { dir, listen: `pty:${path}` });
  await opened;
});

test("a serial port that is pulled is missing, and found again", async (t) => {
  const { dir } = makeLogs(t, {});
  const path = join(makeDir(t), "ttyACM0");
  const sim = await makeSim(t, { dir, listen: `pty:${path}` });
  const device = makeDevice(t, { url: sim.clientUrl, root: "/" });
  await device.attached();
  const from = device.states.length;
  let plug = (): void => undefined;
  const back = sim.dropLink(new Promise<void>((resolve) => (plug = resolve)));
  await device.until((p) => p.state === "detached", 5000, from);
  await device.until((p) => p.reason?.includes("is missing") === true, 5000, from);
  plug();
  await back;
  await device.until((p) => p.state === "attached", 8000, from);
});

test("a board that is pulled while it is read and comes back under another name is found by its by-id link, and read on, alone", async (t) => {
  const { dir, content } = makeLogs(t, { "a.ulg": 600_000 });
  const bytes = content.get("a.ulg") as Buffer;
  const dev = makeDir(t);
  const [first, second, byId] = [join(dev, "ttyACM0"), join(dev, "ttyACM1"), join(dev, "usb-PX4_FMU-if00")];
  const sim = await makeSim(t, { dir, link: "usb", listen: `pty:${first}` });
  symlinkSync(first, byId);
  const device = makeDevice(t, { url: `serial://${byId}:57600`, root: "/" });
  const { epoch } = await device.attached();
  const [entry] = await listAll(device.source);
  assert.ok(entry);
  const parts: Buffer[] = [];
  const stream = await device.source.open(entry, 0, never);
  const failed = new Promise<unknown>((resolve) => stream.once("error", resolve));
  stream.on("data", (part: Buffer) => parts.push(part));
  await eventually(() => parts.length > 0, "bytes come");
  const from = device.states.length;
  const back = sim.dropLink(300, second);
  const fault = await failed;
  assert.ok(isFault(fault, "offline"), String(fault));
  await device.until((p) => p.state === "detached", 1000, from);
  await back;
  // As udev does.
  unlinkSync(byId);
  symlinkSync(second, byId);
  const again = await device.until((p) => p.state === "attached", 8000, from);
  assert.notEqual(again.epoch, epoch);
  const had = Buffer.concat(parts);
  assert.ok(had.length < bytes.length);
  assert.ok(Buffer.concat([had, await readAll(device.source, entry, had.length)]).equals(bytes));
  // It has the new port for itself again.
  const other = new SerialPort({ path: second, baudRate: 57600, lock: true, autoOpen: false });
  const refused = await new Promise<Error | null>((resolve) => other.open(resolve));
  assert.match(refused?.message ?? "", /lock/i);
});

/** On Debian. */
const dialout = 20;

test("a port without permission names the group and the command that gives it", async (t) => {
  const dir = makeDir(t);
  chmodSync(dir, 0o755);
  const path = join(dir, "ttyACM0");
  writeFileSync(path, "");
  chmodSync(path, 0);
  const root = process.getuid?.() === 0;
  if (root) chownSync(path, 0, dialout);
  const serial = fileURLToPath(new URL("serial.js", import.meta.url));
  const script = `const { openSerial } = await import(${JSON.stringify(serial)});
    try { await openSerial(${JSON.stringify(path)}, 57600, { bytes() {}, lost() {} }); } catch (error) { console.log(error.kind, error.message); }`;
  // Root may open anything, so it is tried as somebody who may not.
  const asNobody = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : {};
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
    ...asNobody,
    cwd: "/",
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  child.stdout.on("data", (text: Buffer) => (said += text.toString()));
  child.stderr.on("data", (text: Buffer) => (said += text.toString()));
  await new Promise((resolve) => child.once("close", resolve));
  if (root)
    assert.match(said, /^denied no permission to use .*ttyACM0: it belongs to the group dialout; run "sudo usermod -aG dialout nobody"/);
  else assert.match(said, /^denied no permission to use .*ttyACM0: /);
});

test("a port that another program holds", async (t) => {
  const { dir } = makeLogs(t, {});
  const path = join(makeDir(t), "ttyACM0");
  const sim = await makeSim(t, { dir, listen: `pty:${path}` });
  const holder = new SerialPort({ path, baudRate: 57600, lock: true, autoOpen: false });
  await new Promise<void>((resolve, reject) => holder.open((error) => (error === null ? resolve() : reject(error))));
  const device = makeDevice(t, { url: sim.clientUrl, root: "/" });
  await device.until((p) => p.reason?.includes("held by another program") === true);
  holder.resume();
  await new Promise<void>((resolve) => holder.close(() => resolve()));
  await device.attached();
});

/** A terminal on which something writes every 50 ms. */
async function talker(t: TestContext, bytes: () => Buffer | undefined): Promise<string> {
  const path = join(makeDir(t), "ttyACM0");
  const terminal = await openTransport(`pty:${path}`, () => () => undefined);
  const timer = setInterval(() => {
    const said = bytes();
    if (said !== undefined) terminal.write(said);
  }, 50);
  t.after(async () => {
    clearInterval(timer);
    await terminal.close();
  });
  return path;
}

test("a port on which something else speaks", async (t) => {
  const path = await talker(t, () => randomBytes(100));
  const device = makeDevice(t, { url: `serial://${path}:57600` });
  await device.until((p) => p.reason === `${path} receives bytes but no MAVLink: wrong baud rate, or not an autopilot`);
});

test("something else speaks on a connection: there is no baud rate", async (t) => {
  const server = createServer((socket) => {
    const timer = setInterval(() => socket.write(randomBytes(100)), 50);
    socket.on("error", () => undefined).on("close", () => clearInterval(timer));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  const { port } = server.address() as { port: number };
  const device = makeDevice(t, { url: `tcpout://127.0.0.1:${port}` });
  await device.until((p) => p.reason?.endsWith("receives bytes but no MAVLink: wrong port, or not an autopilot") === true);
});

test("a port on which nobody speaks", async (t) => {
  const path = await talker(t, () => undefined);
  const device = makeDevice(t, { url: `serial://${path}:57600` });
  await device.until((p) => p.reason === `nothing is received on ${path}`);
});

test("a link without an autopilot, and one with another than the one that is wanted", async (t) => {
  const { dir } = makeLogs(t, {});
  const sim = await makeSim(t, { dir, systemId: 3 });
  const device = makeDevice(t, { url: sim.clientUrl, root: "/", systemId: 4 });
  await device.until((p) => p.reason?.startsWith("no heartbeat of system 4 on") === true);
  const right = makeDevice(t, { url: sim.clientUrl, root: "/", systemId: 3 });
  await right.attached();
});

test("two devices on one port: the second says that it is ours, and gets it once the first has gone", async (t) => {
  const path = await talker(t, () => undefined);
  for (const url of [`serial://${path}:57600`, `udpin://127.0.0.1:${await freeUdpPort()}`]) {
    const first = makeDevice(t, { url, systemId: 1 });
    await first.until((p) => p.reason?.startsWith("waiting for a heartbeat") === true);
    const second = makeDevice(t, { url, systemId: 2 });
    await second.until((p) => /is used by another device of this configuration: .*put a router between/.test(p.reason ?? ""));
    await first.device.close();
    await second.until((p) => p.reason?.startsWith("waiting for a heartbeat") === true);
  }
});

test("nothing listens there", async (t) => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  const device = makeDevice(t, { url: `tcpout://127.0.0.1:${port}` });
  await device.until((p) => p.reason?.includes("nothing listens there") === true);
  await assert.rejects(device.source.stat("a", new AbortController().signal), /nothing listens there/);
});

test("a port that the rules of the service keep away is no matter of groups", async () => {
  assert.match(
    await permissionText("/dev/null", "EPERM"),
    /^no permission to use \/dev\/null: the device rules of this service .*DeviceAllow=/,
  );
  assert.match(await permissionText("/dev/null", "EACCES"), /group/);
});
