/** The end of sd_notify(3) that systemd has: what is told, as it comes. */
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

const listen = `
import json, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
print(json.dumps(""), flush=True)
while True:
    print(json.dumps(s.recv(65536).decode()), flush=True)
`;

export class NotifySocket {
  /** Each message, in its lines. */
  readonly told: (readonly string[])[] = [];
  readonly #watchers = new Set<() => void>();

  private constructor(
    readonly path: string,
    readonly child: ChildProcess,
  ) {}

  /** At `path`. A string says why it cannot be had here. */
  static async open(path: string): Promise<NotifySocket | string> {
    if (spawnSync("systemd-notify", ["--version"]).status !== 0) return "systemd-notify is not here (package systemd)";
    if (spawnSync("python3", ["--version"]).status !== 0) return "python3 is not here";
    const child = spawn("python3", ["-c", listen, path], { stdio: ["ignore", "pipe", "inherit"] });
    const socket = new NotifySocket(path, child);
    const lines = createInterface({ input: child.stdout });
    await once(lines, "line");
    lines.on("line", (line) => {
      const words = (JSON.parse(line) as string).split("\n");
      // How systemd-notify learns that it was taken.
      if (words[0] === "BARRIER=1") return;
      socket.told.push(words);
      for (const watcher of [...socket.#watchers]) watcher();
    });
    return socket;
  }

  /** Resolves with the first message after the first `from` that has this line, by its beginning. */
  until(line: string, from = 0): Promise<readonly string[]> {
    return new Promise((resolve, reject) => {
      const end = (work: () => void) => {
        clearTimeout(timer);
        this.#watchers.delete(look);
        work();
      };
      const look = () => {
        const found = this.told.slice(from).find((words) => words.some((word) => word.startsWith(line)));
        if (found !== undefined) end(() => resolve(found));
      };
      const timer = setTimeout(
        () => end(() => reject(new Error(`not told within 60 s: ${line}; told: ${JSON.stringify(this.told)}`))),
        60_000,
      );
      this.#watchers.add(look);
      look();
    });
  }

  async close(): Promise<void> {
    const closed = once(this.child, "close");
    this.child.kill("SIGKILL");
    await closed;
  }
}
