/** A port that another program has is let go, with the address to use in its place. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { FrameWriter } from "../../mavlink/frame.js";
import { encodeHeartbeat, HEARTBEAT } from "../../mavlink/messages.js";
import { openTransport } from "../../sim/transport.js";
import { makeDevice, makeDir, makeLogs, makeSim } from "./harness.test.js";
import { OwnerWatch, type SystemRoots } from "./owners.js";
import { insteadOf, insteadOfUnknown, parseRouterConfig } from "./routers.js";
import { TornWatch } from "./torn.js";

const ROUTER = `# a router
[General]
TcpServerPort = 5790
[UartEndpoint alpha]
Device = /dev/ttyTEST0
Baud = 57600
[UdpEndpoint ground]
Mode = Normal
Address = 10.0.0.9
Port = 14550
[UdpEndpoint local]
Mode = Normal
Address = 127.0.0.1
Port = 14551
[UdpEndpoint waiting]
Mode=Server
Address=0.0.0.0
Port=14552 # for whoever comes
`;

/** A /proc and an /etc of our own; `put` adds a process with its open files. */
function makeSystem(t: TestContext) {
  const dir = makeDir(t);
  chmodSync(dir, 0o755);
  const roots: SystemRoots = { proc: join(dir, "proc"), etc: join(dir, "etc") };
  mkdirSync(join(roots.etc, "mavlink-router"), { recursive: true });
  mkdirSync(roots.proc);
  symlinkSync("100", join(roots.proc, "self"));
  writeFileSync(join(roots.proc, "uptime"), "1 1");
  const put = (pid: number, args: readonly string[], files: Readonly<Record<number, string>>, flags = "0100002"): void => {
    const own = join(roots.proc, String(pid));
    for (const sub of ["fd", "fdinfo"]) mkdirSync(join(own, sub), { recursive: true });
    writeFileSync(join(own, "cmdline"), args.join("\0") + "\0");
    for (const [fd, target] of Object.entries(files)) {
      symlinkSync(target, join(own, "fd", fd));
      writeFileSync(join(own, "fdinfo", fd), `pos:\t0\nflags:\t${flags}\n`);
    }
  };
  return { roots, put };
}

test("who has the port open is found by its open files, also one that opens it later; we ourselves and who only writes do not count", async (t) => {
  const { roots, put } = makeSystem(t);
  const port = "/dev/ttyTEST0";
  put(100, ["node", "filesync"], { 5: port });
  put(200, ["logger"], { 3: port }, "0100001");
  put(300, ["python3", "-u", "/usr/bin/mavproxy.py", "--out=127.0.0.1:14551"], { 0: "/dev/null" });
  const watch = new OwnerWatch(port, roots);
  assert.equal(await watch.look(), undefined);
  put(300, ["python3", "-u", "/usr/bin/mavproxy.py", "--out=127.0.0.1:14551"], { 9: port });
  const owner = await watch.look();
  assert.deepEqual([owner?.pid, owner?.name], [300, "mavproxy.py"]);
});

test("a port is known by each of its names", async (t) => {
  const { roots, put } = makeSystem(t);
  const dir = makeDir(t);
  const [port, byId] = [join(dir, "ttyACM0"), join(dir, "usb-PX4-if00")];
  writeFileSync(port, "");
  symlinkSync(port, byId);
  put(7, ["QGroundControl"], { 40: port });
  assert.equal((await new OwnerWatch(byId, roots).look())?.name, "QGroundControl");
});

test("whoever made a pseudo-terminal, or sits at it, is no owner", async (t) => {
  const { roots, put } = makeSystem(t);
  const port = "/dev/pts/99999";
  put(1, ["socat"], { 5: "/dev/ptmx", 6: port });
  put(2, ["bash"], { 0: port, 1: port, 2: port });
  assert.equal(await new OwnerWatch(port, roots).look(), undefined);
  put(3, ["reader"], { 4: port });
  assert.equal((await new OwnerWatch(port, roots).look())?.name, "reader");
});

test("of another user's process the arguments tell, and of a mavlink-routerd its configuration", async (t) => {
  const { roots, put } = makeSystem(t);
  writeFileSync(join(roots.etc, "mavlink-router/main.conf"), ROUTER);
  put(400, ["/usr/bin/mavlink-routerd"], { 5: "/dev/ttyTEST0" });
  put(500, ["/usr/bin/python3", "/usr/bin/mavproxy.py", "--master=/dev/ttyTEST1,57600"], { 5: "/dev/ttyTEST1" });
  for (const pid of [400, 500]) chmodSync(join(roots.proc, String(pid), "fd"), 0);
  const module = fileURLToPath(new URL("owners.js", import.meta.url));
  const script = `const { OwnerWatch } = await import(${JSON.stringify(module)});
    const roots = ${JSON.stringify(roots)};
    for (const port of ["/dev/ttyTEST0", "/dev/ttyTEST1", "/dev/ttyTEST"]) console.log((await new OwnerWatch(port, roots).look())?.name);`;
  // Root may look into everything, so it is tried as somebody who may not.
  const asNobody = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : {};
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
    ...asNobody,
    cwd: "/",
    stdio: ["ignore", "pipe", "inherit"],
  });
  let said = "";
  child.stdout.on("data", (text: Buffer) => (said += text.toString()));
  await new Promise((resolve) => child.once("close", resolve));
  assert.equal(said, "mavlink-routerd\nmavproxy.py\nundefined\n");
});

test("which address to use in place of the port", async (t) => {
  const { roots } = makeSystem(t);
  assert.deepEqual(parseRouterConfig(ROUTER), {
    devices: ["/dev/ttyTEST0"],
    urls: ["tcpout://127.0.0.1:5790", "udpin://127.0.0.1:14551", "udpout://127.0.0.1:14552"],
  });
  assert.deepEqual(parseRouterConfig("[General]\nTcpServerPort=0\n").urls, []);
  const say = (...args: string[]): Promise<string> =>
    insteadOf({ pid: 1, name: args.find((arg) => !arg.startsWith("python")) ?? "", args }, roots.etc);
  assert.equal(await say("mavlink-routerd"), 'use "url": "tcpout://127.0.0.1:5760" instead');
  assert.equal(
    await say("mavlink-routerd", "-t", "0"),
    'give it a UdpEndpoint (Mode = Normal, 127.0.0.1, port 14551) and use "url": "udpin://127.0.0.1:14551" instead',
  );
  writeFileSync(join(roots.etc, "mavlink-router/main.conf"), ROUTER);
  assert.match(await say("mavlink-routerd"), /"tcpout:\/\/127.0.0.1:5790" or "url": "udpin:\/\/127.0.0.1:14551"/);
  assert.match(await insteadOfUnknown(roots.etc), /tcpout:\/\/127.0.0.1:5790/);
  assert.equal(
    await say("mavproxy.py", "--master=/dev/ttyACM0", "--out", "udp:127.0.0.1:14560"),
    'use "url": "udpin://127.0.0.1:14560" instead',
  );
  assert.equal(await say("mavproxy.py", "--out=tcpin:0.0.0.0:5763"), 'use "url": "tcpout://127.0.0.1:5763" instead');
  assert.match(await say("mavproxy.py", "--out=10.0.0.2:14550"), /start it with --out=udpout:127.0.0.1:14551/);
  assert.equal(await say("mavros_node", "gcs_url:=udp://@127.0.0.1:14570"), 'use "url": "udpin://127.0.0.1:14570" instead');
  assert.match(await say("mavros_node"), /set its gcs_url/);
  assert.equal(await say("mavlink-server"), 'use "url": "tcpout://127.0.0.1:5777" instead');
  assert.match(await say("QGroundControl"), /^close it there/);
});

test("another program that opens the port is noticed, and the port is used again when that has gone", async (t) => {
  const { dir } = makeLogs(t, {});
  const path = join(makeDir(t), "ttyACM0");
  const sim = await makeSim(t, { dir, listen: `pty:${path}` });
  const device = makeDevice(t, { url: sim.clientUrl, root: "/" });
  await device.attached();
  const from = device.states.length;
  const script = `const { openSync, constants: c } = require("fs"); openSync(${JSON.stringify(path)}, c.O_RDWR | c.O_NOCTTY); console.log("open"); setInterval(() => {}, 1e6);`;
  // It never reads: it is seen before it has taken a byte.
  const other = spawn(process.execPath, ["-e", script], { argv0: "mavlink-routerd", stdio: ["ignore", "pipe", "inherit"] });
  t.after(() => other.kill());
  await new Promise((resolve) => other.stdout.once("data", resolve));
  const state = await device.until((p) => p.reason?.includes("is used by") === true, 2500, from);
  assert.match(
    state.reason ?? "",
    new RegExp(`^${path} is used by mavlink-routerd \\(process ${other.pid}\\): use "url": "tcpout://127.0.0.1:\\d+"`),
  );
  // It stays away, and says why to whoever asks.
  await assert.rejects(device.source.stat("a", new AbortController().signal), /is used by mavlink-routerd/);
  other.kill();
  await device.until((p) => p.state === "attached", 8000, from);
});

test("half of the frames torn, on a wire that was good", () => {
  const noisy = new TornWatch();
  for (let s = 1; s < 20; s++) assert.equal(noisy.look(s * 1000, s * 10, s * 10), false, "it never was good");
  const watch = new TornWatch();
  for (let s = 1; s < 10; s++) assert.equal(watch.look(s * 1000, s * 10, 0), false);
  for (let s = 10; s < 20; s++) assert.equal(watch.look(s * 1000, s * 10, (s - 9) * 4), false, "a third is a bad radio");
  watch.opened();
  assert.equal(watch.look(20_000, 0, 0), false);
  assert.equal(watch.look(21_000, 5, 6), false, "too few to tell");
  assert.equal(watch.look(22_000, 10, 12), true);
});

test("a port whose bytes somebody takes is let go", async (t) => {
  const path = join(makeDir(t), "ttyACM0");
  const terminal = await openTransport(`pty:${path}`, () => () => undefined);
  const writer = new FrameWriter(1, 1);
  // Good for three seconds, from when it is listened to.
  let whole = -Infinity;
  const timer = setInterval(() => {
    const beat = encodeHeartbeat({ customMode: 0, type: 2, autopilot: 12, baseMode: 1, systemStatus: 3 });
    const frame = writer.encode(HEARTBEAT, beat);
    terminal.write(frame);
    if (++whole > 60) terminal.write(Buffer.concat([frame.subarray(0, 12), frame.subarray(14), Buffer.alloc(12)]));
  }, 50);
  t.after(async () => {
    clearInterval(timer);
    await terminal.close();
  });
  const device = makeDevice(t, { url: `serial://${path}:57600` });
  await device.attached();
  whole = 0;
  await device.until(
    (p) => p.reason?.startsWith(`half of what comes on ${path} is torn: another program takes bytes from it`) === true,
    30_000,
  );
});
