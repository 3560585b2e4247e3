/** Words for a shell are what the shell makes of them. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { shellWord } from "./text.js";

test("a word for a shell is one word there, and is not quoted without need", () => {
  const words = ["", "sp ace", "it's", "$HOME", "`id`", 'a"b', "~", "*", "a\\b", "ü", "-n", "a;b", "line\nend", "#"];
  const { stdout } = spawnSync("sh", ["-c", `printf '%s\\0' ${words.map(shellWord).join(" ")}`], { encoding: "utf8" });
  assert.deepEqual(stdout.split("\0").slice(0, -1), words);
  assert.equal(shellWord("/etc/filesync/config.json"), "/etc/filesync/config.json");
});
