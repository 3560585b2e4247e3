/**
 * Runs inside the machine beside the daemon, and prints what happens there as lines of JSON, all by one clock (CLOCK_MONOTONIC, in ms):
 *
 *     {"t":…,"seen":"block","by":"kernel"|"udev","action":"add","node":"/dev/sda","uuid":"…"}       udevadm monitor
 *     {"t":…,"seen":"hint","uuids":[…]}                    the hint that the plugin disk works with, and the names that are there then
 *     {"t":…,"seen":"said","event":{…}}                    an event of the daemon (its journal)
 *     {"t":…,"seen":"moved","pulled":N,"transfers":[…]}    `status`, when it has changed
 *
 * `node observer.js STATE-DIR UNIT SINCE`; SINCE: what was said before is left out
 */
import { spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import { createInterface } from "node:readline";
import { ask } from "../../core/control.js";
import type { Status } from "../../core/status.js";
import { NameWatch } from "../../core/name-watch.js";

const pollMs = 250;
const byUuid = "/dev/disk/by-uuid";
const [stateDir = "", unit = "", since = ""] = process.argv.slice(2);

const now = () => Number(process.hrtime.bigint() / 1000n) / 1000;
const tell = (seen: string, facts: object, t = now()) => process.stdout.write(`${JSON.stringify({ t, seen, ...facts })}\n`);

function uuids(): string[] {
  try {
    return readdirSync(byUuid);
  } catch {
    return [];
  }
}

function lines(command: string, args: readonly string[], heard: (line: string) => void): void {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"] });
  createInterface({ input: child.stdout }).on("line", heard);
  child.on("close", () => process.exit(1));
  process.on("exit", () => child.kill());
}
// Whoever started it has gone.
process.stdin.resume().on("close", () => process.exit());

/** `KERNEL[17.241] add      /devices/… (block)`, then NAME=VALUE lines, then an empty one. */
let block: { by: string; t: number; action: string; node?: string; uuid?: string } | undefined;
lines("udevadm", ["monitor", "--kernel", "--udev", "--property", "--subsystem-match=block"], (line) => {
  const head = /^(KERNEL|UDEV)\s*\[(\d+\.\d+)\] (\w+)/.exec(line);
  if (head !== null) block = { by: (head[1] ?? "").toLowerCase(), t: Number(head[2]) * 1000, action: head[3] ?? "" };
  if (block === undefined) return;
  const [name, value = ""] = line.split("=", 2);
  if (name === "DEVNAME") block.node = value;
  if (name === "ID_FS_UUID") block.uuid = value;
  if (line === "") {
    const { t, ...facts } = block;
    tell("block", facts, t);
    block = undefined;
  }
});
// It starts with what was said before this began.
lines("journalctl", ["-f", "-b", "-n", "all", "-o", "json", "--output-fields=MESSAGE", "-u", unit], (line) => {
  const { MESSAGE: message, __MONOTONIC_TIMESTAMP: us } = JSON.parse(line) as { MESSAGE: string; __MONOTONIC_TIMESTAMP: string };
  const event: unknown = message.startsWith("{") ? JSON.parse(message) : { level: "text", what: "line", message };
  if (Number(us) >= 1000 * Number(since)) tell("said", { event }, Number(us) / 1000);
});
new NameWatch(byUuid, () => tell("hint", { uuids: uuids() }));

let last = "";
let asked = false;
setInterval(() => {
  if (asked) return;
  asked = true;
  ask(stateDir, { command: "status" })
    .then((answer) => {
      if (answer === undefined) return;
      const { moved, transfers, queue } = answer.ok as Status;
      const facts = { ...moved, queue, transfers: transfers.map(({ from, to, path, offset, size }) => ({ from, to, path, offset, size })) };
      const text = JSON.stringify(facts);
      if (text !== last) tell("moved", facts);
      last = text;
    })
    // A daemon that starts or stops just now.
    .catch((error: unknown) => tell("unanswered", { why: String(error) }))
    .finally(() => (asked = false));
}, pollMs);
tell("ready", {});
