/** A vehicle that is to register: its configuration, with comments that have to stay, the logs that it brings home, and its owner's browser. */
import { randomBytes } from "node:crypto";
import { mkdirSync, renameSync, writeFileSync } from "node:fs";
import { request } from "node:https";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

export function planeIn(dir: string): { readonly config: string; readonly inbox: string } {
  const [config, inbox] = [join(dir, "config.json"), join(dir, "inbox")];
  mkdirSync(inbox, { recursive: true });
  writeFileSync(
    config,
    `{
  // The plane.
  "stateDir": "state",
  "devices": {
    "inbox": { "type": "local", "dir": "inbox", "archiveDir": "archive", "settle": "300ms", "interval": "1s" } // logs
  }, /* nothing is sent yet */
  "routes": []
}
`,
  );
  return { config, inbox };
}

/** Whole at once, as a download would be. */
export function fly(inbox: string, name: string, bytes: number): Buffer {
  const content = randomBytes(bytes);
  writeFileSync(join(inbox, "..", name), content);
  renameSync(join(inbox, "..", name), join(inbox, name));
  return content;
}

export async function until(seen: () => boolean, what: string, ms = 60_000): Promise<void> {
  for (const end = performance.now() + ms; !seen();) {
    if (performance.now() > end) throw new Error(`no ${what} in ${ms} ms`);
    await delay(20);
  }
}

/** Over TLS, whoever's the certificate is. */
export function page(port: number, path: string, method: string, localAddress = "127.0.0.1"): Promise<number> {
  return new Promise((resolve, reject) => {
    request({ host: "127.0.0.1", port, path, method, localAddress, agent: false, rejectUnauthorized: false }, (answer) => {
      answer.resume();
      resolve(answer.statusCode ?? 0);
    })
      .on("error", reject)
      .end();
  });
}
