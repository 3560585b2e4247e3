/**
 * A door in a process of its own, for tests that run it as another user, and kill it. Asked by lines of JSON on stdin ({ id, call, args }), answers by lines on stdout
 * ({ id, value } or { id, fault, message }); what it says are lines { said }. It ends with its stdin.
 */
import { statSync } from "node:fs";
import { createInterface } from "node:readline";
import { isFault } from "../../core/errors.js";
import { Door, type DoorOptions } from "../../plugins/registry/door.js";
import { realClock } from "../conformance/upload.js";

interface Asked {
  readonly id: number;
  readonly call: "start" | "probeStart" | "facts" | "setKeys" | "open" | "shut" | "isBusy" | "holds" | "close";
  readonly args: readonly never[];
}

const tell = (it: object): void => void process.stdout.write(`${JSON.stringify(it)}\n`);
const door = new Door(JSON.parse(process.argv[2] ?? "") as DoorOptions, {
  say: (level, message, facts = {}) => tell({ said: { level, message, facts } }),
  clock: realClock(),
});

async function answer({ id, call, args }: Asked): Promise<void> {
  try {
    let value: unknown;
    if (call === "facts") value = { port: door.port, user: door.user, hostKey: door.hostKey };
    else if (call === "holds") value = door.holds(args[0] ?? "", statSync(args[1] ?? "", { bigint: true }));
    else if (call === "start" || call === "probeStart") await door[call](new AbortController().signal);
    else value = await (door[call] as (...given: readonly never[]) => unknown).call(door, ...args);
    tell({ id, value: value ?? null });
  } catch (error) {
    tell({ id, fault: isFault(error) ? error.kind : "no fault", message: error instanceof Error ? error.message : String(error) });
  }
}

for await (const line of createInterface({ input: process.stdin })) void answer(JSON.parse(line) as Asked);
await door.close();
