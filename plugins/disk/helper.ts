/**
 * The helper that mounts for a service without the right to: systemd starts it as root for each question on a socket that only the service's group
 * may open (`filesync-mount.socket`). One line of JSON is asked, one is answered. It mounts only file systems that are mounted nowhere and belong to nothing
 * of the system, never with set-uid programs or devices, and only below its own directory or where nothing else is.
 */
import { createConnection } from "node:net";

export type HelperRequest =
  | { readonly do: "mount"; readonly device: string; readonly readOnly: boolean; readonly mountPoint?: string }
  | { readonly do: "unmount"; readonly dir: string; readonly lazy: boolean };

export type HelperAnswer = { readonly ok: true } | { readonly error: string };

const answerMs = 70_000;

const missing =
  'this user may not mount: install udisks2 with a rule that lets it, or "filesync-mount.socket" (deploy/), or mount it yourself (fstab) and name that as "mountPoint"';

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
      const code = "code" in error ? error.code : "";
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
