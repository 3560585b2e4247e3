/** The example configurations: loaded as they stand, with every key that exists; the JSON Schema is the one that the code makes. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { configSchema, deviceCommon, loadConfig } from "../core/config.js";
import { routeSchema } from "../core/config-routes.js";
import { entriesOf } from "../core/config-problems.js";
import { plugins } from "../cli/plugins.js";
import { pluginTable, withTable } from "./plugin-table.js";
import { schemaText } from "./schema.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
const examples = ["config.example.json", "config.ground.example.json"];
const read = (name: string) => readFileSync(join(root, name), "utf8");

/** An example without its comments, and with its secrets where a test has them. */
function usable(name: string): string {
  return read(name).replace(/\{ *"file": *"[^"]*\.secret" *\}/g, '"a secret"');
}

for (const name of examples)
  test(`${name} is right`, async () => {
    const { config, problems } = await loadConfig(usable(name), plugins, {
      baseDir: root,
      env: { CAM_PW: "x" },
      hostName: "host",
    });
    assert.deepEqual(problems, []);
    assert.ok(config !== undefined && config.devices.length > 0);
  });

test("the README's configuration is right, and with the ground's example a vehicle has one directory, not plane-1/plane-1", async () => {
  const [, block = ""] = /```jsonc\n(.*?)```/s.exec(read("README.md")) ?? [];
  const text = block.replace(/\{ *"file": *"[^"]*\.secret" *\}/g, '"a secret"').replace("SHA256:…", `SHA256:${"a".repeat(43)}`);
  const given = { baseDir: root, env: {}, hostName: "host" };
  const { config, problems } = await loadConfig(text, plugins, given);
  assert.deepEqual(problems, []);
  const ground = (await loadConfig(usable("config.ground.example.json"), plugins, given)).config;
  const users = (ground?.devices.find(({ name }) => name === "ftp")?.options as { users: Record<string, { root?: string }> }).users;
  const { vehicle = "", routes = [] } = config ?? {};
  assert.equal(users[vehicle]?.root, vehicle, "its user has a directory of its own");
  for (const { into } of routes) assert.ok(!into.includes("{vehicle}"), into);
});

test("the examples have every key that exists", async () => {
  const text = examples.map(read).join("\n");
  const missing: string[] = [];
  const look = (schema: unknown, where: string) => {
    for (const [key, entry] of Object.entries(entriesOf(schema) ?? {})) {
      if (!text.includes(`"${key}"`)) missing.push(`${where}.${key}`);
      look(entry, `${where}.${key}`);
      const { value } = entry as { value?: unknown };
      if (value !== undefined) look(value, `${where}.${key}.*`);
    }
  };
  look(configSchema, "");
  look(routeSchema, "routes[]");
  for (const key of Object.keys(deviceCommon)) if (!text.includes(`"${key}"`)) missing.push(`devices.*.${key}`);
  for (const type of plugins.types) {
    if (!text.includes(`"type": "${type}"`)) missing.push(`the type ${type}`);
    look((await plugins.load(type, root))?.options, type);
  }
  assert.deepEqual(missing, []);
});

test("config.schema.json is what the code makes (npm run schema)", async () => {
  assert.ok(read("config.schema.json") === (await schemaText()), "it is out of date: npm run schema");
});

test("the README's table of plugins is the one that they declare", async () => {
  const text = read("README.md");
  const table = await pluginTable();
  assert.ok(text.includes(table), "npm run schema writes it");
  assert.equal(withTable(text, table), text);
});
