/**
 * The helper that mounts for a service without the right to, as its client sees it: systemd starts it as root (`helper-main.ts`) for each question on
 * a socket that only the service's group may open (`filesync-mount.socket`). One line of JSON is asked, one is answered.
 */
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { createConnection } from "node:net";
import { join } from "node:path";
import { codeOf } from "../../core/errors.js";

export type HelperRequest =
  | { readonly do: "mount"; readonly device: string; readonly readOnly: boolean; readonly mountPoint?: string }
  | { readonly do: "unmount"; readonly dir: string; readonly lazy: boolean };

export type HelperAnswer = { readonly ok: true } | { readonly error: string };

/** What is the helper's own: root's, and readable to all. */
export const helperPaths = {
  top: "/run/filesync",
  socket: "/run/filesync/mount.sock",
  /** Where it mounts what has no `mountPoint`. */
  disks: "/run/filesync/disks",
  /** A note for each mount elsewhere: its name is that of the directory, shortened, its content what was mounted. */
  notes: "/run/filesync/mounted",
  locks: "/run/filesync/lock",
} as const;

export type HelperPaths = { readonly [K in keyof typeof helperPaths]: string };

/** Where it mounts a block of this name and number that has no `mountPoint`. */
export function helperDir(name: string, device: string, { disks }: HelperPaths): string {
  return join(disks, `${name}-${device.replace(":", ".")}`);
}

export function noteOf(dir: string, { notes }: HelperPaths): string {
  return join(notes, shortOf(dir));
}

/** A name for a file, of a text of any length. */
export function shortOf(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 32);
}

/** Whether the helper mounted what is at `dir`. */
export function isHelpers(dir: string, paths: HelperPaths): boolean {
  return dir.startsWith(`${paths.disks}/`) || existsSync(noteOf(dir, paths));
}

const answerMs = 70_000;

const missing =
  'this user may not mount: install udisks2 with a rule that lets it, or start the helper ("systemctl enable --now filesync-mount.socket"), or have it mounted by /etc/fstab';

/** undefined: it did it; else why not, with what to do. */
export function askHelper(path: string, request: HelperRequest): Promise<string | undefined> {
  return new Promise((resolve) => {
    let said = "";
    const socket = createConnection(path);
    const end = (text: string | undefined) => {
      socket.destroy();
      resolve(text);
    };
    socket.setTimeout(answerMs, () => end("the helper that mounts does not answer"));
    socket.on("error", (error) => {
      const code = codeOf(error);
      if (code === "ENOENT" || code === "ECONNREFUSED") end(missing);
      else if (code === "EACCES") end(`${path} may not be used by this user: it has to be in the socket's group`);
      else end(`the helper that mounts failed: ${error.message}`);
    });
    socket.setEncoding("utf8").on("data", (text: string) => (said += text));
    socket.on("end", () => {
      try {
        const answer = JSON.parse(said) as HelperAnswer;
        end("error" in answer ? answer.error : undefined);
      } catch {
        end(`the helper that mounts failed${said === "" ? "" : `: ${said.slice(0, 200)}`}`);
      }
    });
    socket.end(`${JSON.stringify(request)}\n`);
  });
}
