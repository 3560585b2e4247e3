/** What a plugin that lives outside imports as `filesync/plugin`: the contract, Faults, and the two libraries whose objects cross it, in core's own versions. */
export type * from "./plugin.js";
export { Fault, type FaultKind, type FaultOptions, faultOfErrno, isFault, throwIfAborted } from "./errors.js";
export { rxjs } from "./rxjs.js";
export * as v from "valibot";
