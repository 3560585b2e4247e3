/** The plugin "registry": vehicles register once, with a key that they make themselves, and send their files into slots by rsync from then on. */
import type { Plugin } from "../../core/plugin.js";
import { options, type RegistryOptions } from "./options.js";
import { Registry } from "./registry.js";

export type { RegistryOptions } from "./options.js";

export const plugin: Plugin<RegistryOptions> = {
  type: "registry",
  about: { what: "vehicles register once, and send by rsync from then on" },
  options,
  roles: ["service"],
  dirOf: ({ root }) => root,
  service: (given, context) => new Registry(given, context),
};
