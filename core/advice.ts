/** What each device says of its own settings, for a person. Changes nothing. */
import { asked } from "./asked.js";
import type { Engine } from "./engine.js";
import { throwIfAborted } from "./errors.js";
import type { Lane } from "./lane.js";
import type { Advice } from "./plugin.js";
import { reasonOf } from "./retry.js";

export interface Advised {
  /** The device's name. */
  readonly device: string;
  readonly advice: readonly Advice[];
  /** Why it could not be asked. */
  readonly unseen?: string;
}

/** Of the devices that are there, also where their files cannot be had: their settings may be the reason. Why one is not there is told elsewhere. */
export async function allAdvice(engine: Engine, signal: AbortSignal): Promise<Advised[]> {
  const all = await Promise.all([...engine.lanes.values()].filter(({ present }) => present).map((lane) => adviceOf(lane, signal)));
  throwIfAborted(signal);
  return all;
}

/** Never throws for the device: that it could not be asked is an answer. */
export async function adviceOf(lane: Lane, signal: AbortSignal): Promise<Advised> {
  const { name, device } = lane;
  if (device.advice === undefined) return { device: name, advice: [] };
  try {
    return { device: name, advice: (await asked(lane, signal, async (hosted) => device.advice?.(hosted), "present")) ?? [] };
  } catch (error) {
    return { device: name, advice: [], unseen: reasonOf(error) };
  }
}
