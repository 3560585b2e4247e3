/** `filesync sim` as a person starts it: its options reach the simulator, and what is wrong is said. */
import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { listAll, makeDevice, makeDir, makeLogs, makeSim, readAll } from "../plugins/mavftp/harness.test.js";
import { madeBytes } from "./disk-file.js";

const main = fileURLToPath(new URL("../cli/main.js", import.meta.url));

interface Started {
  readonly child: ChildProcess;
  readonly said: () => string;
  /** What follows this word, once it was said. */
  readonly after: (word: string) => Promise<string>;
  readonly code: Promise<number | null>;
}

function startCommand(t: TestContext, ...args: string[]): Started {
  const child = spawn(process.execPath, [main, "sim", ...(args.includes("--listen") ? [] : ["--listen", "tcpin://127.0.0.1:0"]), ...args], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  t.after(() => child.kill("SIGKILL"));
  let said = "";
  const watchers = new Set<() => void>();
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding("utf8").on("data", (text: string) => {
      said += text;
      for (const look of watchers) look();
    });
  const code = once(child, "close").then(([status]) => status as number | null);
  const after = (word: string): Promise<string> =>
    new Promise((resolve, reject) => {
      const look = (): void => {
        const found = new RegExp(`${word}(\\S+)\n`).exec(said)?.[1];
        if (found !== undefined) resolve(found);
      };
      watchers.add(look);
      look();
      void code.then(() => reject(new Error(`it ended: ${said}`)));
    });
  return { child, said: () => said, after, code };
}

test("every autopilot and link can be started, and ends by SIGTERM", async (t) => {
  const { dir, content } = makeLogs(t, { "00000001.BIN": 3000 });
  for (const [autopilot, link] of [
    ["ardupilot-4.6", "usb"],
    ["ardupilot-4.8", "radio:57600"],
    ["mavsdk", "udp"],
  ] as const) {
    const given = ["--autopilot", autopilot, "--link", link, "--fault", "dup=1%", "--seed", "7", "--ring", "2000"];
    const sim = startCommand(t, "--dir", dir, ...given);
    const url = await sim.after("listening on ");
    assert.match(sim.said(), /^faults are drawn from seed 7$/m);
    const rig = makeDevice(t, { url: url.replace("tcpin", "tcpout"), root: "/" });
    await rig.attached();
    const [entry] = await listAll(rig.source);
    assert.ok(entry !== undefined && (await readAll(rig.source, entry)).equals(content.get("00000001.BIN") ?? Buffer.alloc(0)), autopilot);
    await rig.device.close();
    sim.child.kill("SIGTERM");
    assert.equal(await sim.code, 0);
  }
});

test("SIGUSR1 arms and disarms", async (t) => {
  const sim = startCommand(t, "--dir", makeDir(t), "--autopilot", "ardupilot-4.7", "--fault", "grow=1kB,armed");
  await sim.after("listening on ");
  sim.child.kill("SIGUSR1");
  while (!/^armed$/m.test(sim.said())) await once(sim.child.stdout!, "data");
  sim.child.kill("SIGUSR1");
  while (!/^disarmed$/m.test(sim.said())) await once(sim.child.stdout!, "data");
});

test("--replay plays a trace", async (t) => {
  const { dir } = makeLogs(t, { "a.ulg": 10_000 });
  const lines: string[] = [];
  const recorded = await makeSim(t, { dir, autopilot: "ardupilot-4.6", trace: (line) => void lines.push(line) });
  const first = makeDevice(t, { url: recorded.clientUrl, root: "/" });
  await first.attached();
  for (const entry of await listAll(first.source)) await readAll(first.source, entry);
  const file = join(makeDir(t), "bug.trace");
  writeFileSync(file, lines.join("\n"));
  const sim = startCommand(t, "--replay", file);
  const rig = makeDevice(t, { url: (await sim.after("listening on ")).replace("tcpin", "tcpout"), root: "/" });
  await rig.attached();
  const [entry] = await listAll(rig.source);
  assert.ok(entry !== undefined && (await readAll(rig.source, entry)).equals(madeBytes(0, 10_000)));
});

test("a port that another program uses is named, with what to do", async (t) => {
  const url = await startCommand(t).after("listening on ");
  const second = startCommand(t, "--listen", url);
  assert.equal(await second.code, 2);
  assert.equal(
    second.said(),
    `filesync: --listen: another program uses the port of ${url}: stop that, or give another; 0 takes a free one\n`,
  );
});

test("what is wrong is said, with exit code 2", async (t) => {
  const none = join(makeDir(t), "none");
  const bad = join(makeDir(t), "bad");
  writeFileSync(bad, "[]\n");
  for (const [words, args] of [
    [/no autopilot "px5"; known: px4, .*ardupilot-4.6.*mavsdk/, ["--autopilot", "px5"]],
    [/no link model "radio"; known: .*radio:BAUD/, ["--link", "radio"]],
    [/fault busy=1: expected/, ["--fault", "busy=1"]],
    [/given twice/, ["--fault", "loss=1%", "--fault", "loss=2%"]],
    [/^filesync: px4 has no setting LOG_DISARMED here; there are SDLOG_MODE, /, ["--param", "LOG_DISARMED=1"]],
    [/^filesync: mavsdk has no setting X here; there are none\n$/, ["--autopilot", "mavsdk", "--param", "X=1"]],
    [/^filesync: --param SDLOG_MODE=off: expected a whole number, or "none"/, ["--param", "SDLOG_MODE=off"]],
    [/^filesync: --card-free much: expected a size such as "4GB", "none"/, ["--card-free", "much"]],
    [/^filesync: ardupilot-4.6 does not tell what is free on its card/, ["--autopilot", "ardupilot-4.6", "--card-free", "1GB"]],
    [/^filesync: cannot read .*\/none: there is no such file or directory\n$/, ["--replay", none]],
    [/^filesync: --dir: there is no directory .*\/none\n$/, ["--dir", none]],
    [/^filesync: --seed: expected a whole number, got "abc"\n$/, ["--seed", "abc"]],
    [/line 1 is not the head of a trace/, ["--replay", bad]],
    [/^filesync: --ring: expected bytes, 280 at least, got "10"\n$/, ["--ring", "10"]],
  ] as const) {
    const sim = startCommand(t, ...args);
    assert.equal(await sim.code, 2);
    assert.match(sim.said(), words);
  }
});
