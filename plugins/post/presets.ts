/** What is known of servers that take logs by a POST. Facts: PX4/flight_review (app/tornado_handlers/upload.py), ARK's fork of it, flight-review-rs. */

export interface Preset {
  /** The form's field that holds the file. */
  readonly file: string;
  /** What is sent where the configuration says nothing. */
  readonly fields: Readonly<Record<string, string>>;
  /** What the server knows; anything else is a slip of the pen. */
  readonly known: readonly string[];
  /** Of them, what it heeds only with `type` "flightreport". */
  readonly reportOnly: readonly string[];
  /** Words that stand for a field's. */
  readonly aliases: Readonly<Record<string, string>>;
  readonly only: "ulog";
  /** JSON pointers into the answer. */
  readonly url?: string;
  readonly id?: string;
  readonly secret?: string;
  /** Where a log can be looked at, with {id}; below the server's origin. */
  readonly page?: string;
  /** Where its bytes can be had again, with {id} and {name}. */
  readonly download?: string;
  readonly wantsKey: boolean;
  /** The application's own limit in bytes, which `?expected_size=N` lifts for one request. */
  readonly cap?: number;
}

const reportOnly = ["public", "windSpeed", "rating", "videoUrl", "vehicleName"];
const aliases = { additional_feedback: "feedback", allow_for_analysis: "allowForAnalysis" };

const v1: Preset = {
  file: "filearg",
  fields: { description: "", email: "", type: "personal", redirect: "false" },
  known: ["description", "email", "type", "feedback", "source", "allowForAnalysis", "obfuscated", "redirect", ...reportOnly],
  reportOnly,
  aliases,
  only: "ulog",
  url: "/url",
  download: "/download?log={id}",
  wantsKey: false,
  cap: 300 * 2 ** 20,
};

export const presets = {
  "flight-review": v1,
  "flight-review-key": { ...v1, wantsKey: true },
  "flight-review-v2": {
    file: "file",
    fields: { description: "", is_public: "false" },
    known: ["description", "email", "source", "feedback", "is_public", "wind_speed", "rating", "video_url", "vehicle_name", "type"],
    reportOnly: [],
    aliases: {
      additional_feedback: "feedback",
      public: "is_public",
      windSpeed: "wind_speed",
      videoUrl: "video_url",
      vehicleName: "vehicle_name",
    },
    only: "ulog",
    id: "/id",
    secret: "/delete_token",
    page: "/logs/{id}",
    download: "/api/logs/{id}/data/{name}",
    wantsKey: false,
  },
} as const satisfies Record<string, Preset>;

export type PresetName = keyof typeof presets;
