/**
 * What is asked of the autopilot beside its files: settings by their names, its version, the room on its card. A frame each, three times at most, a second apart; what does
 * not answer by then is not known. Nothing of it waits for the file session, and nothing of the files waits for it.
 */
import { throwIfAborted } from "../../core/errors.js";
import type { Clock } from "../../core/plugin.js";
import { joinSignals } from "../../core/signals.js";
import type { Frame } from "../../mavlink/frame.js";
import * as m from "../../mavlink/messages.js";
import type { Attachment, Peer } from "./peer.js";

const TRIES = 3;
const EACH_MS = 1000;

/** Throws what ends the stay, or the Fault of the signal. */
export class Questions {
  readonly #listening = new Set<(frame: Frame) => void>();

  constructor(
    readonly send: (messageId: number, payload: Buffer) => void,
    readonly peer: Pick<Peer, "attachment" | "autopilot" | "version">,
    readonly clock: Clock,
  ) {}

  /** A frame of the autopilot that we talk to, after the peer has seen it. */
  frame(frame: Frame): void {
    for (const listen of this.#listening) listen(frame);
  }

  /** The values of those that it has and tells; all are asked at once, so that silence costs no more for several than for one. */
  async settings(names: readonly string[], signal: AbortSignal): Promise<Map<string, number>> {
    const values = new Map<string, number>();
    await this.#ask(signal, {
      send: ({ systemId }) => {
        for (const name of names)
          if (!values.has(name)) {
            const asked = { targetSystem: systemId, targetComponent: m.COMPONENT_AUTOPILOT, name };
            this.send(m.PARAM_REQUEST_READ, m.encodeParamRequestRead(asked));
          }
      },
      heard: ({ messageId, payload }) => {
        if (messageId !== m.PARAM_VALUE) return false;
        const { name, value } = m.decodeParamValue(payload, this.peer.autopilot ?? m.AUTOPILOT_GENERIC);
        // A ground station may be loading all of them.
        if (names.includes(name)) values.set(name, value);
        return values.size === names.length;
      },
    });
    return values;
  }

  /** Until the peer knows its version, or it does not tell. */
  async version(signal: AbortSignal): Promise<void> {
    if (this.peer.version !== undefined) return;
    await this.#ask(signal, {
      send: ({ systemId }) => this.send(m.COMMAND_LONG, m.encodeMessageRequest(systemId, m.AUTOPILOT_VERSION)),
      heard: () => this.peer.version !== undefined,
    });
  }

  /** Its first card. */
  async storage(signal: AbortSignal): Promise<m.StorageInformation | undefined> {
    let told: m.StorageInformation | undefined;
    await this.#ask(signal, {
      send: ({ systemId }) => this.send(m.COMMAND_LONG, m.encodeMessageRequest(systemId, m.STORAGE_INFORMATION, 1)),
      heard: ({ messageId, payload }) => {
        if (messageId === m.STORAGE_INFORMATION) told = m.decodeStorageInformation(payload);
        return told !== undefined;
      },
    });
    return told;
  }

  /** Until `heard` says that all is there, or enough was tried. */
  async #ask(signal: AbortSignal, { send, heard }: { send: (to: Attachment) => void; heard: (frame: Frame) => boolean }): Promise<void> {
    const attachment = this.peer.attachment();
    const stay = joinSignals(signal, attachment.signal);
    const done = new AbortController();
    const over = joinSignals(stay.signal, done.signal);
    const listen = (frame: Frame): void => {
      if (heard(frame)) done.abort();
    };
    this.#listening.add(listen);
    try {
      for (let tries = 0; tries < TRIES && !done.signal.aborted; tries++) {
        throwIfAborted(stay.signal);
        send(attachment);
        await this.clock.sleep(EACH_MS, over.signal).catch((error: unknown) => {
          throwIfAborted(stay.signal);
          if (!done.signal.aborted) throw error;
        });
      }
    } finally {
      this.#listening.delete(listen);
      over.release();
      stay.release();
    }
  }
}
