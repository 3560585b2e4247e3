/**
 * The files of a flight controller, by MAVLink FTP: a PX4, an ArduPilot or a MAVSDK server on a serial port, TCP or UDP.
 *
 * It only reads, unless `write` is set; then it is a target too, while the vehicle is disarmed. While it is armed the autopilot is left alone, unless
 * it is told to go on reading. One device holds one port; what it keeps between two calls is what it learned of the link.
 */
import * as v from "valibot";
import { path, size } from "../../core/options.js";
import type { Plugin } from "../../core/plugin.js";
import { parseAddress, type Address } from "./address.js";
import { MavftpDevice } from "./device.js";

export interface MavftpOptions {
  readonly url: Address;
  /** Undefined: where this autopilot keeps its logs. */
  readonly root?: string | undefined;
  readonly whenArmed: "pause" | "continue";
  readonly write: boolean;
  readonly systemId?: number | undefined;
  readonly componentId: number;
  readonly exclusive: boolean;
  readonly tellPilot: boolean;
  readonly crcMaxSize: number;
  readonly trace?: string | undefined;
}

const FORMS = '"serial:///dev/ttyACM0:57600", "tcpout://HOST:PORT", "tcpin://HOST:PORT", "udpin://HOST:PORT" or "udpout://HOST:PORT"';

const id = (what: string) =>
  v.pipe(v.number(what), v.integer(what), v.minValue(1, `${what}, from 1 to 255`), v.maxValue(255, `${what}, from 1 to 255`));

const options = v.strictObject({
  url: v.pipe(
    v.string(`an address: ${FORMS}`),
    v.rawTransform<string, Address>(({ dataset, addIssue, NEVER }) => {
      const address = parseAddress(dataset.value);
      if (address !== undefined) return address;
      addIssue({ message: `an address: ${FORMS}` });
      return NEVER;
    }),
    v.description(`Where the autopilot is reached, as MAVSDK writes it: ${FORMS}. Use the /dev/serial/by-id name of a USB port.`),
  ),
  root: v.optional(
    v.pipe(
      v.string("a path on the autopilot"),
      v.regex(/^[/@]/, 'a path on the autopilot that begins with "/", such as "/fs/microsd/log"'),
      v.transform((path) => path.replace(/\/+$/, "")),
      v.description(
        "The directory of logs on the autopilot. Else it is found: @MAV_LOG, /fs/microsd/log on PX4, /APM/LOGS or logs on ArduPilot.",
      ),
    ),
  ),
  whenArmed: v.optional(
    v.pipe(
      v.picklist(["pause", "continue"], '"pause" or "continue"'),
      v.description("What to do while the vehicle is armed: leave the autopilot alone, or go on reading."),
    ),
    "pause",
  ),
  write: v.optional(
    v.pipe(
      v.boolean("true or false"),
      v.description(
        "Files may be put on the autopilot, moved and removed there: by hand commands, by routes to it, and by a route's afterDelivery. Only while it is disarmed.",
      ),
    ),
    false,
  ),
  systemId: v.optional(
    v.pipe(id("a MAVLink system id"), v.description("Which autopilot, where several can be heard. Else the first one.")),
  ),
  componentId: v.optional(
    v.pipe(
      id("a MAVLink component id"),
      v.description("Who we are in the vehicle's system; another, if a second onboard computer is 191."),
    ),
    191,
  ),
  exclusive: v.optional(
    v.pipe(
      v.boolean("true or false"),
      v.description("No other program uses this link: a file session that is left open is reset, not waited for."),
    ),
    false,
  ),
  tellPilot: v.optional(
    v.pipe(
      v.boolean("true or false"),
      v.description(
        "Tells the pilot's ground station, through the autopilot, that the flight's logs have arrived, or that one stays and why.",
      ),
    ),
    false,
  ),
  crcMaxSize: v.optional(
    v.pipe(size(), v.description("Larger files are not verified by the autopilot's own checksum, which keeps it busy for seconds.")),
    "64MiB",
  ),
  trace: v.optional(
    v.pipe(
      path(),
      v.description(
        'Records what is asked and answered into this file, without contents, for a bug report: "filesync sim --replay FILE" plays it.',
      ),
    ),
  ),
});

export const plugin: Plugin<MavftpOptions> = {
  type: "mavftp",
  about: {
    what: "a flight controller, by MAVLink FTP",
    target: '`"write": true`',
    resumes: "at the byte, but not to a MAVSDK server",
    proves: "by the autopilot's CRC-32",
  },
  roles: ["source", "target"],
  withheld: ({ write }) =>
    write ? {} : { target: 'it is only read; "write": true on this device lets files be put, moved and removed there' },
  tellsArmed: true,
  options,
  device: (given, context) => new MavftpDevice(given, context),
};
