/** Another kind of server at the port than the one that is meant: what it says first tells. */
import { connect } from "node:net";
import { codeOf, Fault, isFault, orAborted } from "./errors.js";
import { withSignals } from "./signals.js";

/** Once it began to speak: what belongs together has come by then. */
const goMs = 1000;
/** Who is meant has let us in by then, as a rule. */
const patienceMs = 4000;
const mostChars = 512;
const leastChars = 4;

export interface Meant {
  /** "SSH" */
  readonly kind: string;
  /** What to look at: `"host" and "port"`. */
  readonly options: string;
}

/** No file goes there until somebody has looked at the options. */
export function strangerFault(said: string, { kind, options }: Meant): Fault {
  return new Fault("denied", `what answers there is no ${kind} server: ${shown(said)}; look at ${options}`);
}

/** The first line of it, that fits a terminal. */
function shown(said: string): string {
  // The record of TLS in which an alert is (RFC 8446 §5.1).
  if (said.startsWith("\x15\x03")) return "it speaks TLS";
  const line = said.trimStart().split(/[\r\n]/, 1)[0] ?? "";
  return `"${line.slice(0, 60).replace(/[^\x20-\x7e]/g, "?")}${line.length > 60 ? "…" : ""}"`;
}

export interface Door {
  readonly host: string;
  readonly port: number;
  /** What is said there, as one that waits for its client says nothing by itself. In it and in what comes each character is a byte. */
  readonly hello: string;
  /** Whether who says that is the one that is meant. */
  readonly isMeant: (said: string) => boolean;
  readonly meant: Meant;
  readonly timeoutMs: number;
}

/**
 * What `work` gives, which connects and logs in. Where that takes long, or ends with an error that `isDoubtful`, who answers at the door is looked at once, by a connection of its own:
 * throws "denied" where that is a stranger, with which the signal of `work` is given.
 */
export async function unlessStranger<T>(
  door: Door,
  signal: AbortSignal,
  work: (signal: AbortSignal) => Promise<T>,
  isDoubtful = isSilence,
): Promise<T> {
  const found = new AbortController();
  const over = new AbortController();
  let looking: Promise<Fault | undefined> | undefined;
  const look = () => (looking ??= strangerAt(door, over.signal));
  const timer = setTimeout(() => void look().then((fault) => fault !== undefined && found.abort(fault)), patienceOf(door));
  try {
    return await withSignals([signal, found.signal], work);
  } catch (error) {
    clearTimeout(timer);
    if (!found.signal.aborted && (signal.aborted || !isDoubtful(error))) throw error;
    throw (await orAborted(look(), signal)) ?? error;
  } finally {
    clearTimeout(timer);
    over.abort();
  }
}

/** Nobody is there, or who is says nothing that is understood. */
export function isSilence(error: unknown): boolean {
  return isFault(error, "offline") || ["ECONNRESET", "EPIPE", "ETIMEDOUT"].includes(codeOf(error));
}

function patienceOf({ timeoutMs }: Door): number {
  return Math.min(patienceMs, timeoutMs / 3);
}

async function strangerAt(door: Door, over: AbortSignal): Promise<Fault | undefined> {
  const said = await saidAt(door, over);
  // A link may break after the first letters of who is meant.
  return said.length < leastChars || door.isMeant(said) ? undefined : strangerFault(said, door.meant);
}

/** What comes from there at first; "" where nobody is there, or says anything in time. */
function saidAt(door: Door, over: AbortSignal): Promise<string> {
  const { host, port, hello, isMeant } = door;
  return new Promise((resolve) => {
    let said = "";
    const socket = connect({ host, port }).setEncoding("latin1");
    const end = () => socket.destroy();
    let timer = setTimeout(end, patienceOf(door));
    over.addEventListener("abort", end, { once: true });
    if (over.aborted) end();
    socket.once("connect", () => socket.write(hello));
    socket.on("data", (text: string) => {
      if (said === "") {
        clearTimeout(timer);
        timer = setTimeout(end, Math.min(goMs, patienceOf(door)));
      }
      said += text;
      if (said.length > mostChars || isMeant(said)) end();
    });
    socket.once("error", end);
    socket.once("end", end);
    socket.once("close", () => {
      clearTimeout(timer);
      over.removeEventListener("abort", end);
      resolve(said);
    });
  });
}
