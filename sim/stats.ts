/** What a simulated flight controller counted: for tests, benchmarks and the curious. Plain numbers, never reset. */
export interface SimStats {
  framesIn: number;
  bytesIn: number;
  framesOut: number;
  bytesOut: number;
  /** Whole frames that found the transmit ring full. */
  droppedByRing: number;
  /** Requests that found the receive buffer full. */
  droppedByReceive: number;
  /** Requests that found the queue of the file server full (ArduPilot: five). */
  droppedByQueue: number;
  /** File bytes in answered reads and bursts, repeats included. */
  payloadBytes: number;
  /** File bytes that were written, repeats included. */
  writtenBytes: number;
  sessionsOpened: number;
  sessionsClosed: number;
  /** Of the closed ones: those that the autopilot closed because nobody used them. */
  sessionsTimedOut: number;
  /** What the second client (a ground station) loaded, each time. */
  readonly stationLoads: {
    readonly whole: boolean;
    readonly bytes: number;
    readonly refusals: number;
    readonly lost: number;
    readonly tookMs: number;
  }[];
  /** Requests of a replay that its trace does not have. */
  notInTrace: number;
  /** Requests of a replay that got no answer, as in the trace. */
  lostInTrace: number;
  /** Requests for one setting (PARAM_REQUEST_READ), answered or not. */
  settingsAsked: number;
  /** Requests for STORAGE_INFORMATION, likewise. */
  storageAsked: number;
  /** FTP requests taken in, by the name of their opcode. */
  readonly requests: Record<string, number>;
  /** Of them, those of other clients than the one that the simulator is for. */
  secondRequests: number;
  /** The most ReadFile requests that waited for their reply to leave at one time; exact only without faults. */
  peakReads: number;
}

export function emptyStats(): SimStats {
  return {
    framesIn: 0,
    bytesIn: 0,
    framesOut: 0,
    bytesOut: 0,
    droppedByRing: 0,
    droppedByReceive: 0,
    droppedByQueue: 0,
    payloadBytes: 0,
    writtenBytes: 0,
    sessionsOpened: 0,
    sessionsClosed: 0,
    sessionsTimedOut: 0,
    stationLoads: [],
    notInTrace: 0,
    lostInTrace: 0,
    settingsAsked: 0,
    storageAsked: 0,
    requests: {},
    secondRequests: 0,
    peakReads: 0,
  };
}
