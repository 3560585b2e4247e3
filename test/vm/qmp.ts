/** QEMU's machine protocol over its socket: commands with their answers, and events that can be waited for. */
import { createConnection, type Socket } from "node:net";

interface Message {
  readonly QMP?: unknown;
  readonly id?: number;
  readonly return?: unknown;
  readonly error?: { readonly desc: string };
  readonly event?: string;
  readonly data?: Readonly<Record<string, unknown>>;
}

export class Qmp {
  readonly #waiting = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  readonly #watchers = new Set<{ seen: (message: Message) => boolean; resolve: () => void; reject: (error: Error) => void }>();
  #last = 0;

  private constructor(readonly socket: Socket) {
    let rest = "";
    socket.setEncoding("utf8").on("data", (text: string) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) if (line.trim() !== "") this.#heard(JSON.parse(line) as Message);
    });
    socket.on("error", () => undefined);
    socket.on("close", () => {
      const error = new Error("QEMU has ended");
      for (const { reject } of [...this.#waiting.values(), ...this.#watchers]) reject(error);
      this.#waiting.clear();
      this.#watchers.clear();
    });
  }

  static async open(path: string): Promise<Qmp> {
    const qmp = new Qmp(createConnection(path));
    await qmp.execute("qmp_capabilities");
    return qmp;
  }

  execute(command: string, args: object = {}): Promise<unknown> {
    const id = ++this.#last;
    return new Promise((resolve, reject) => {
      if (this.socket.destroyed) {
        reject(new Error(`${command}: QEMU has ended`));
        return;
      }
      this.#waiting.set(id, { resolve, reject: (error) => reject(new Error(`${command}: ${error.message}`)) });
      this.socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    });
  }

  /** Resolves with the next event of that name whose data has these. */
  event(name: string, wanted: Readonly<Record<string, unknown>>): Promise<void> {
    return new Promise((resolve, reject) => {
      const seen = ({ event, data }: Message) => event === name && Object.entries(wanted).every(([key, value]) => data?.[key] === value);
      this.#watchers.add({ seen, resolve, reject });
    });
  }

  close(): void {
    this.socket.destroy();
  }

  #heard(message: Message): void {
    if (message.event !== undefined) {
      for (const watcher of [...this.#watchers]) {
        if (!watcher.seen(message)) continue;
        this.#watchers.delete(watcher);
        watcher.resolve();
      }
      return;
    }
    const waiting = message.id === undefined ? undefined : this.#waiting.get(message.id);
    if (waiting === undefined) return;
    this.#waiting.delete(message.id ?? 0);
    if (message.error === undefined) waiting.resolve(message.return);
    else waiting.reject(new Error(message.error.desc));
  }
}
