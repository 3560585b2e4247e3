/** The plugin "metrics": figures for Prometheus, and whether all is well, over HTTP. */
import * as v from "valibot";
import { described, listenAddress } from "../../core/options.js";
import type { Plugin } from "../../core/plugin.js";
import { MetricsServer } from "./server.js";

const options = v.strictObject({
  listen: v.optional(
    described(listenAddress(), "The address and port. It asks for no password, and names devices: keep it where only yours reach it."),
    "127.0.0.1:9470",
  ),
});
export type MetricsOptions = v.InferOutput<typeof options>;

export const plugin: Plugin<MetricsOptions> = {
  type: "metrics",
  about: { what: "figures for Prometheus, and whether all is well" },
  options,
  roles: ["service"],
  service: (given, context) => new MetricsServer(given, context),
};
