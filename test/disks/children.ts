/** What the laboratory waits for of the processes that it starts. */
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";

/** What a stream has said so far. */
export function gather(stream: NodeJS.ReadableStream | null): () => string {
  let text = "";
  stream?.setEncoding("utf8").on("data", (more: string) => (text += more));
  return () => text;
}

/** The first line that a process prints; "" if it ends without one, and then what it complained of. */
export function firstLine(child: ChildProcess): Promise<{ line: string; errors: string }> {
  const errors = gather(child.stderr);
  return new Promise((resolve, reject) => {
    let text = "";
    child.stdout?.setEncoding("utf8").on("data", (more: string) => {
      text += more;
      if (text.includes("\n")) resolve({ line: text.slice(0, text.indexOf("\n")).trim(), errors: "" });
    });
    child.once("error", reject);
    child.once("close", () => {
      resolve({ line: "", errors: errors() });
    });
  });
}

/** Resolves once it is dead, and all that it held is closed. */
export async function killed(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const closed = once(child, "close");
  child.kill("SIGKILL");
  await closed;
}
