/** A "no" that a vehicle is told. */
import { Taken } from "./catalogue.js";
import type { ProblemCode } from "./wire.js";

export const statusOf: Readonly<Record<ProblemCode, 400 | 401 | 403 | 404 | 409 | 410 | 413 | 429 | 500 | 507>> = {
  "bad-request": 400,
  challenge: 401,
  signature: 401,
  "unknown-key": 403,
  revoked: 403,
  "not-found": 404,
  "name-taken": 409,
  "key-taken": 409,
  "slot-busy": 409,
  "slot-closed": 409,
  quota: 413,
  full: 507,
  "too-many": 429,
  expired: 410,
  gone: 410,
  internal: 500,
};

/** What is told of any error: of one that is no "no", and no vehicle that has the key, nothing but that it is here. */
export function refusalOf(error: Error): Refused {
  if (error instanceof Refused) return error;
  if (error instanceof Taken) return new Refused("key-taken", "another vehicle has this key");
  return new Refused("internal", "the registry has a trouble of its own; it is in its log");
}

export class Refused extends Error {
  constructor(
    readonly code: ProblemCode,
    message: string,
    readonly retryAfterMs?: number,
  ) {
    super(message);
  }
}
