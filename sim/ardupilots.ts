/** The three generations of ArduPilot that can be simulated. */
import { AUTOPILOT_ARDUPILOT, PARAM_INT16, PARAM_INT8 } from "../mavlink/messages.js";
import { ArdupilotFtp, LOG_DIR } from "./ardupilot.js";
import { release46, release47, release48 } from "./ardupilot-releases.js";
import type { Autopilot } from "./autopilot.js";

/** Copter 4.3 to 4.6: one session for all. */
export const ardupilot46: Autopilot = {
  name: "ardupilot-4.6",
  autopilot: AUTOPILOT_ARDUPILOT,
  version: [4, 6, 3],
  transmitRing: 16_384,
  serverPerLink: false,
  logDir: LOG_DIR,
  firstLog: "00000001.BIN",
  sessions: 1,
  parameterFile: "@PARAM/param.pck",
  // libraries/AP_Logger/AP_Logger.cpp, on a board with a card.
  settings: {
    LOG_BACKEND_TYPE: { type: PARAM_INT8, value: 1 },
    LOG_DISARMED: { type: PARAM_INT8, value: 0 },
    LOG_FILE_DSRMROT: { type: PARAM_INT8, value: 0 },
    LOG_FILE_MB_FREE: { type: PARAM_INT16, value: 500 },
    LOG_MAX_FILES: { type: PARAM_INT16, value: 500 },
  },
  tellsStorage: false,
  ftp: (surroundings) => new ArdupilotFtp(surroundings, release46),
};

/** Five sessions (pull request 30628), flow control on USB. */
export const ardupilot47: Autopilot = {
  ...ardupilot46,
  name: "ardupilot-4.7",
  version: [4, 7, 0],
  sessions: 5,
  ftp: (surroundings) => new ArdupilotFtp(surroundings, release47),
};

/** Sessions that the server numbers, bursts four times as long, listings with times. */
export const ardupilot48: Autopilot = {
  ...ardupilot46,
  name: "ardupilot-4.8",
  version: [4, 8, 0],
  sessions: 5,
  ftp: (surroundings) => new ArdupilotFtp(surroundings, release48),
};
