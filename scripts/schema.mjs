// `npm run schema`: writes config.schema.json from the one schema (core/config.ts and each plugin's options), and the README's table of plugins from what they
// declare. A test holds both files to it.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { makeReady, root } from "./ready.mjs";

makeReady();
const { schemaText } = await import("../dist/test/schema.js");
writeFileSync(join(root, "config.schema.json"), await schemaText());
const { pluginTable, withTable } = await import("../dist/test/plugin-table.js");
const readme = join(root, "README.md");
writeFileSync(readme, withTable(readFileSync(readme, "utf8"), await pluginTable()));
