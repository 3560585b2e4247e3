#!/usr/bin/env node
/** The program. What an older Node would stumble over in the modules of the commands is told before any of them is loaded. */
const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  process.stderr.write(
    `filesync: FileSync needs Node.js 20.19 or newer; this is ${process.versions.node} (${process.execPath}). Install a newer one, then try again.\n`,
  );
  process.exitCode = 2;
} else await import("./commands.js");

export {};
