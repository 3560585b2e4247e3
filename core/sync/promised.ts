/** What the sides of a two-way route promise, and whether that is enough: tried once for each attachment. */
import { isDeepStrictEqual } from "node:util";
import { Fault, isFault } from "../errors.js";
import type { Lane } from "../lane.js";
import type { Memo, TreePromises } from "../plugin.js";
import type { Side } from "../reconcile.js";
import type { DeviceReplica } from "./device-replica.js";

/** In what the route remembers: why it was refused. */
const refusedKey = "refused";

export interface PromisedGiven {
  readonly lanes: Readonly<Record<Side, Lane>>;
  readonly replicas: Readonly<Record<Side, DeviceReplica>>;
  /** Of the route. */
  readonly memo: Memo;
}

export class Promised {
  /** By device: both sides may be one. */
  readonly #known = new Map<string, { readonly epoch: string | undefined; readonly refusal: string | undefined }>();

  constructor(readonly given: PromisedGiven) {}

  /** Why the route was refused when that was tried last, perhaps in another run. */
  get refusal(): string | undefined {
    return this.given.memo.get(refusedKey) as string | undefined;
  }

  /** Has a side take turns where it promises too little without. Throws Fault "config" where that is not enough; the Fault of the device. */
  async tryOut(side: Side, signal: AbortSignal): Promise<void> {
    const { lanes, replicas, memo } = this.given;
    const { name, state } = lanes[side];
    const { epoch } = state;
    const known = this.#known.get(name);
    if (known === undefined || known.epoch !== epoch) {
      const replica = replicas[side];
      const promises = await this.#tried(side, signal);
      replica.takesTurns = side === "there" && !isAlwaysSafe(promises);
      const refusal = replica.takesTurns ? withTurns(name, promises) : refusalOf(name, promises);
      this.#known.set(name, { epoch, refusal });
      if (this.refusal !== refusal) await memo.set(refusedKey, refusal);
    }
    this.expect();
  }

  /** As far as it was tried. Throws "config". */
  expect(): void {
    const { here, there } = this.given.lanes;
    for (const { name, state } of [here, there]) {
      const known = this.#known.get(name);
      if (known !== undefined && known.epoch === state.epoch && known.refusal !== undefined) throw new Fault("config", known.refusal);
    }
  }

  /** Where there is no room to try it, as it was: it is still the directory that was agreed with. */
  async #tried(side: Side, signal: AbortSignal): Promise<TreePromises> {
    const { replicas, memo } = this.given;
    const replica = replicas[side];
    const key = `promises ${side}`;
    const noted = memo.get(key) as TreePromises | undefined;
    try {
      const promises = await replica.tryOut(signal);
      if (!isDeepStrictEqual(promises, noted)) await memo.set(key, promises);
      return promises;
    } catch (error) {
      if (!isFault(error, "full") || noted === undefined || !(await replica.isMarked(signal))) throw error;
      return noted;
    }
  }
}

const isAlwaysSafe = ({ exclusive, rmdirIsSafe }: TreePromises) => exclusive === "names" && rmdirIsSafe;

/** At a server that clients share: even by turns. */
function withTurns(name: string, { exclusive }: TreePromises): string | undefined {
  return exclusive === "nothing"
    ? wouldLose(name, ", and the same new directory to several who make it at once, or makes a directory again that has gone")
    : undefined;
}

/** On this machine, where programs that know of no turns write. */
function refusalOf(name: string, { exclusive, rmdirIsSafe }: TreePromises): string | undefined {
  if (exclusive !== "names") return wouldLose(name, "");
  return rmdirIsSafe
    ? undefined
    : `${name} removes directories with what is in them (tried): a file that comes at that moment would be lost, so that it cannot be kept the same both ways`;
}

const wouldLose = (name: string, also: string) =>
  `${name} may give a name that something has to something else${also} (tried): two who write there at once would lose one another's files, so that it cannot be kept the same both ways`;
