/** A registration that waits for a person: as the station tells it, and asked for now and then. */
import { RealClock } from "../core/clock.js";
import { isFault } from "../core/errors.js";
import { Problem, type RegistryClient } from "../plugins/apsync/client.js";
import type { Access, Registration } from "../plugins/registry/wire.js";
import { UsageError } from "./config.js";

/** While the station says nothing by itself. */
const pollMs = 5000;
const longestPollMs = 30_000;

const say = (line: string): void => void process.stdout.write(`${line}\n`);

/** Waits for the owner. Throws UsageError where nobody will confirm any more. */
export async function confirmed(client: RegistryClient, first: Registration, email: string, signal: AbortSignal): Promise<Access> {
  let now = first;
  let told = false;
  for (let waitMs = pollMs; ; waitMs = Math.min(longestPollMs, waitMs * 1.5)) {
    if (now.access !== undefined && now.state === "confirmed") return now.access;
    if (now.state === "refused") throw new UsageError(`the registration was refused: ${now.reason ?? "no reason was given"}`);
    if (now.state === "expired") throw new UsageError("nobody confirmed the registration in time: the same command begins it anew");
    if (!told)
      say(
        now.by === "operator"
          ? `Waiting for the station's operator, who types: filesync registry confirm ${now.id}`
          : `Waiting: ${email} gets a mail; the page that its link opens has a button.`,
      );
    told = true;
    const heard = await watched(client, now, signal);
    if (heard.state === "waiting") {
      await new RealClock().sleep(waitMs, signal);
      now = await client.registration(now.id, signal).catch((error: unknown) => {
        // The station or the link is away: it is asked again.
        if (error instanceof Problem && error.code === "not-found")
          throw new UsageError("the station does not know this registration any more: somebody removed it");
        if (isFault(error, "offline", "transient", "throttled")) return heard;
        throw error;
      });
    } else now = heard;
  }
}

/** As the station tells it; as it was where it does not. */
async function watched(client: RegistryClient, now: Registration, signal: AbortSignal): Promise<Registration> {
  let last = now;
  try {
    for await (const next of client.watch(now.id, signal)) last = next;
  } catch (error) {
    if (isFault(error, "aborted", "denied", "config", "rejected")) throw error;
  }
  return last;
}
