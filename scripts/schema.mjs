// `npm run schema`: writes config.schema.json from the one schema (core/config.ts and each plugin's options). A test holds the file to it.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { makeReady, root } from "./ready.mjs";

makeReady();
const { schemaText } = await import("../dist/test/schema.js");
writeFileSync(join(root, "config.schema.json"), await schemaText());
