/** The daemon of `slow-card`, in a process that watches its own event loop. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { loadConfig } from "../core/config.js";
import { Daemon } from "../core/daemon.js";
import { Events } from "../core/events.js";
import { plugins } from "../cli/plugins.js";

const dir = process.argv[2] ?? "";
const text = JSON.stringify({
  stateDir: "state",
  spool: { keepFree: "1MiB" },
  devices: { in: { type: "local", dir: "in", inPlace: false }, out: { type: "local", dir: "out" } },
  routes: [{ from: "in", to: ["out"], into: "" }],
});
const { config } = await loadConfig(text, plugins, { baseDir: dir, env: {}, hostName: "bench" });
if (config === undefined) throw new Error("the configuration is wrong");
const daemon = new Daemon({ config, events: new Events(), programVersion: "bench" });
const delay = monitorEventLoopDelay({ resolution: 1 });
let late = 0;
let expected = performance.now() + 1000;
const heartbeat = setInterval(() => {
  late = Math.max(late, Math.abs(performance.now() - expected));
  expected = performance.now() + 1000;
}, 1000);
await daemon.start();
delay.enable();
const began = performance.now();
const left = await daemon.drained(new AbortController().signal);
const seconds = (performance.now() - began) / 1000;
delay.disable();
const { syncs } = daemon.engine.journal;
clearInterval(heartbeat);
await daemon.stop();
if (left.waiting + left.parked > 0) throw new Error("not all was delivered");
writeFileSync(
  join(dir, "result.json"),
  JSON.stringify({ seconds, longestBlockMs: delay.max / 1e6, heartbeatLateMs: late, journalSyncs: syncs }),
);
