/** What the tests over a real socket share: a simulated vehicle, and a client that asks it one thing at a time. */
import { connect } from "node:net";
import type { TestContext } from "node:test";
import { dataOf, decodeFtp, emptyPacket, encodeFtp, FTP_PAYLOAD } from "../mavlink/ftp.js";
import { FrameParser, FrameWriter } from "../mavlink/frame.js";
import * as m from "../mavlink/messages.js";
import { makeDir, type Answer } from "./harness.test.js";
import { startSim, type Sim, type SimOptions } from "./sim.js";

export interface Client {
  readonly answers: Answer[];
  readonly seen: { readonly id: number; readonly payload: Buffer }[];
  send(opcode: number, fields?: { seq?: number; session?: number; offset?: number; size?: number; data?: string | Buffer }): void;
  /** One request, and its answer. */
  readonly ask: (opcode: number, fields?: Parameters<Client["send"]>[1]) => Promise<Answer>;
  command(message: number): void;
  /** Resolves when the connection is cut. */
  readonly gone: Promise<void>;
  until(holds: () => boolean, what: string): Promise<void>;
}

/** A client of component 191; gone after the test. */
export async function makeClient(t: TestContext, sim: Sim): Promise<Client> {
  const socket = connect(Number(sim.url.split(":").at(-1)), "127.0.0.1");
  t.after(() => socket.destroy());
  await new Promise<void>((resolve, reject) => {
    socket.once("connect", () => resolve());
    socket.once("error", reject);
  });
  // A reset is an end like any other.
  socket.on("error", () => undefined);
  const gone = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  const writer = new FrameWriter(1, 191);
  const out = Buffer.alloc(FTP_PAYLOAD);
  const packet = emptyPacket();
  const answers: Answer[] = [];
  const seen: Client["seen"] = [];
  const watchers = new Set<() => void>();
  let seq = 100;
  const parser = new FrameParser((frame) => {
    seen.push({ id: frame.messageId, payload: Buffer.from(frame.payload) });
    if (frame.messageId === m.FILE_TRANSFER_PROTOCOL) {
      const { targetSystem, targetComponent, ...rest } = decodeFtp(frame.payload, packet);
      answers.push({ ...rest, data: dataOf(packet), toSystem: targetSystem, toComponent: targetComponent });
    }
    for (const look of watchers) look();
  });
  socket.on("data", (chunk) => parser.push(chunk));
  const client: Client = {
    answers,
    seen,
    gone,
    send(opcode, fields = {}) {
      seq = fields.seq ?? seq + 7;
      const data = Buffer.from(fields.data ?? "");
      const { session = 0, offset = 0, size = data.length } = fields;
      const length = encodeFtp({ targetSystem: 1, targetComponent: 1, seq, opcode, session, offset, size, data }, out);
      socket.write(writer.encode(m.FILE_TRANSFER_PROTOCOL, out, length));
    },
    async ask(opcode, fields) {
      const own = (): Answer[] => answers.filter((answer) => answer.toComponent === 191);
      const before = own().length;
      client.send(opcode, fields);
      await client.until(() => own().length > before, `an answer to ${opcode}`);
      return own()[before] as Answer;
    },
    command(message) {
      const asked = { command: m.COMMAND_REQUEST_MESSAGE, targetSystem: 1, targetComponent: 1, confirmation: 0, params: [message] };
      socket.write(writer.encode(m.COMMAND_LONG, m.encodeCommandLong(asked)));
    },
    until: (holds, what) =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          if (!holds()) return;
          clearTimeout(timer);
          watchers.delete(look);
          resolve();
        };
        const timer = setTimeout(() => {
          watchers.delete(look);
          reject(new Error(`not within 5 s: ${what}`));
        }, 5000);
        watchers.add(look);
        look();
      }),
  };
  return client;
}

/** Both, over TCP without a wire unless told. */
export async function start(t: TestContext, options: Partial<SimOptions> = {}): Promise<{ sim: Sim; client: Client; dir: string }> {
  const dir = options.dir ?? makeDir(t);
  const sim = await startSim({ listen: "tcpin://127.0.0.1:0", link: "none", ...options, dir });
  t.after(() => sim.close());
  return { sim, dir, client: await makeClient(t, sim) };
}
