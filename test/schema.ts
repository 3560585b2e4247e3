/** The JSON Schema for editors, made from the one schema: core's tables and each plugin's options. */
import { toJsonSchema } from "@valibot/to-json-schema";
import * as v from "valibot";
import { configSchema, deviceCommon } from "../core/config.js";
import { routeSchema } from "../core/config-routes.js";
import { entriesOf } from "../core/config-problems.js";
import type { Plugin } from "../core/plugin.js";
import { mirrorSchema, twoWaySchema } from "../core/sync/options.js";
import { builtIn } from "../plugins/index.js";

type Json = Record<string, unknown>;

export async function schemaText(): Promise<string> {
  const plugins = await Promise.all(Object.values(builtIn).map((load) => load() as Promise<unknown> as Promise<Plugin<unknown>>));
  const json = plain(configSchema) as { properties: Record<string, Json> };
  const byType = (kind: "device" | "service") => ({ oneOf: plugins.filter((plugin) => kind in plugin).map(pluginJson) });
  json.properties.devices = { type: "object", description: "Devices by name.", additionalProperties: byType("device") };
  json.properties.services = { type: "object", description: "Services by name.", additionalProperties: byType("service") };
  json.properties.routes = {
    type: "array",
    description: "Which files go where.",
    items: { anyOf: [plain(routeSchema), plain(mirrorSchema), plain(twoWaySchema)] },
  };
  return `${JSON.stringify({ ...json, title: "FileSync configuration" }, null, 2)}\n`;
}

function pluginJson(plugin: Plugin<unknown>): Json {
  const own = plain(plugin.options) as { properties: Json; required?: string[] };
  const common = plain(v.strictObject(deviceCommon)) as { properties: Json };
  return {
    ...own,
    properties: { type: { const: plugin.type }, ...common.properties, ...own.properties },
    required: ["type", ...(own.required ?? [])],
  };
}

/** What a person may write: the input side, without what code makes of it. */
function plain(schema: v.GenericSchema): Json {
  const json = toJsonSchema(schema, { typeMode: "input", errorMode: "ignore" }) as Json;
  delete json.$schema;
  describe(schema, json);
  return json;
}

/** The help texts again: those behind a transformation are lost on the input side. */
function describe(schema: v.GenericSchema, json: Json): void {
  // What may be left out is wrapped.
  const { wrapped } = schema as { wrapped?: v.GenericSchema };
  const text = v.getDescription(schema) ?? (wrapped === undefined ? undefined : v.getDescription(wrapped));
  if (text !== undefined) json.description = text;
  for (const [key, entry] of Object.entries(entriesOf(schema) ?? {})) {
    const below = (json.properties as Record<string, Json> | undefined)?.[key];
    if (below !== undefined) describe(entry, below);
  }
}
