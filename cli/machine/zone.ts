/** The machine's time zone, which a person may set while this runs: V8 goes on with the one that it saw first. */
import { statSync } from "node:fs";
import { fileStamp } from "../../core/stat.js";

const place = "/etc/localtime";
let known: string | undefined;

/** From here on local times are those of the zone that is set now. Never throws. */
export function followZone(): void {
  // Then that is the zone.
  if (process.env["TZ"] !== undefined) return;
  const now = stampNow();
  // In node any change of TZ has the zone looked up anew.
  if (known !== undefined && known !== now) delete process.env["TZ"];
  known = now;
}

function stampNow(): string {
  try {
    return fileStamp(statSync(place, { bigint: true }));
  } catch {
    // UTC.
    return "";
  }
}
