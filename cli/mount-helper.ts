/** `filesync mount-helper`: one question from a socket that systemd gives it as standard input (filesync-mount@.service), one answer. */
import { fstatSync } from "node:fs";
import { answerTo } from "../plugins/disk/helper-main.js";
import type { HelperAnswer } from "../plugins/disk/helper.js";
import { thisMachine } from "../plugins/disk/mounting.js";
import { UsageError } from "./config.js";

/** No honest question is longer, or takes longer to be asked. */
const mostBytes = 4096;
const mostMs = 5000;

export async function mountHelperCommand(): Promise<number> {
  if (!fstatSync(0).isSocket()) throw new UsageError("mount-helper is started by systemd: systemctl enable --now filesync-mount.socket");
  const { env } = process;
  const given = {
    user: env["FILESYNC_MOUNT_USER"] ?? "",
    instance: env["FILESYNC_MOUNT_ASKER"] ?? "",
    fixed: (env["FILESYNC_MOUNT_FIXED"] ?? "").split(/[\s,]+/).filter((uuid) => uuid !== ""),
  };
  const line = await lineOf(process.stdin);
  const { answer, done } = typeof line === "string" ? await answerTo(line, given, thisMachine) : { answer: line, done: undefined };
  // For the system's log.
  process.stderr.write(`${done ?? ("error" in answer ? `refused: ${answer.error}` : "")}\n`);
  await new Promise<void>((resolve) => process.stdout.write(`${JSON.stringify(answer)}\n`, () => resolve()));
  process.stdin.destroy();
  return 0;
}

/** The first line; else what is wrong with it. */
function lineOf(input: NodeJS.ReadStream): Promise<string | HelperAnswer> {
  return new Promise((resolve) => {
    let said = Buffer.alloc(0);
    const end = (what: string | HelperAnswer) => {
      clearTimeout(timer);
      input.pause();
      resolve(what);
    };
    const timer = setTimeout(() => end({ error: `nothing whole was asked within ${mostMs / 1000} s` }), mostMs);
    input.on("data", (more: Buffer) => {
      said = Buffer.concat([said, more]);
      const line = said.indexOf(10);
      if (line > mostBytes || (line === -1 && said.length > mostBytes)) end({ error: `a question has at most ${mostBytes} bytes` });
      else if (line !== -1) end(said.toString("utf8", 0, line));
    });
    input.on("end", () => end(said.toString("utf8")));
    input.on("error", (error) => end({ error: error.message }));
  });
}
