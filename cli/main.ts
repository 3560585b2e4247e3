#!/usr/bin/env node
import { stat } from "node:fs";
import { holdHeap } from "../core/heap.js";
import { holdHangup } from "./hangup.js";

// The command is the first word that is neither an option nor an option's value: `filesync --config X run`.
if (process.argv.slice(2).find((word, n, all) => !word.startsWith("-") && all[n - 1] !== "--config") === "run") holdHangup();

/** The program. What an older Node would stumble over in the modules of the commands is told before any of them is loaded. */
const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  process.stderr.write(
    `filesync: FileSync needs Node.js 20.19 or newer; this is ${process.versions.node} (${process.execPath}). Install a newer one, then try again.\n`,
  );
  process.exitCode = 2;
} else {
  // The wake-up of the threads that read and write files gets lost at times (glibc before 2.41, https://sourceware.org/bugzilla/show_bug.cgi?id=25847):
  // what was asked waits then until something more is asked.
  setInterval(() => stat("/", () => undefined), 1000).unref();
  holdHeap();
  await import("./commands.js");
}
