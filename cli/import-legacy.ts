/** `import-legacy`: the configuration of the FileSync in Python → one of this program, with what it cannot take over said. */
import { parse, type ParseError } from "jsonc-parser";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { hostname } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { problemText, syntaxProblem } from "../core/config-problems.js";
import { UsageError } from "./config.js";
import { placeConfig, isUntouched } from "./edit-config.js";
import { nextSteps, settingOf, withSecrets } from "./init/setting.js";
import { configText } from "./init/text.js";
import { serverOf, translated } from "./legacy/translate.js";
import { packageRoot } from "./version.js";

/** 0: all was taken over; 3: some of it was not. */
export async function importLegacyCommand(old: string, config: string | undefined): Promise<number> {
  const write = (line: string) => void process.stdout.write(`${line}\n`);
  const from = resolve(old);
  const given = readOld(from);
  const setting = await settingOf(config);
  const { path, schema, stateDir, dir } = setting;
  const over = existsSync(path);
  if (over && (path === from || !isUntouched(readFileSync(path, "utf8"))))
    throw new UsageError(
      `${path} is there already, and ${path === from ? "is the old one itself" : "is not replaced"}: name another file with --config FILE`,
    );
  const { devices, routes, services, secrets, notes } = translated(given, dirname(from), new Set(namesOfSecrets(dir)));
  if (devices.length + services.length === 0)
    throw new UsageError(`${old} holds no configuration of the old FileSync: no "source", "target" or FTP server is in it`);
  const text = configText({
    head: [
      `What ${basename(old)} of the FileSync in Python said, in the words of this one. Every key there is: ${join(packageRoot, "config.example.json")}`,
      ...notes.map((note) => `Not taken over: ${note}`),
    ],
    schema,
    vehicle: hostname(),
    stateDir,
    devices,
    routes,
    noRoutes: ["The old one named no source with a target."],
    services,
  });
  const { fresh } = await withSecrets(setting, secrets, () => placeConfig(path, text, { over }));
  write(`Written: ${[path, ...fresh].join(", ")}`);
  if (notes.length > 0) write("Not taken over:");
  for (const note of notes) write(`  ${note}`);
  for (const line of await nextSteps(setting)) write(line);
  return notes.length === 0 ? 0 : 3;
}

function namesOfSecrets(dir: string): string[] {
  const place = join(dir, "credentials");
  return existsSync(place) ? readdirSync(place) : [];
}

/** ftp_server.py; JSON, or the pieces of it that its documentation has: without the outer braces, and with a comma at the end. Throws UsageError. */
function readOld(path: string): unknown {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw new UsageError(`cannot read ${path}: ${error instanceof Error ? error.message : String(error)}`);
  }
  const server = serverOf(text);
  if (server !== undefined) return server;
  const errors: ParseError[] = [];
  for (const before of ["", "{"]) {
    const found: ParseError[] = [];
    const value: unknown = parse(before === "" ? text : `{${text}}`, found, { allowTrailingComma: true });
    if (found.length === 0 && typeof value === "object" && value !== null) return value;
    errors.push(...found.slice(0, 1).map((error) => ({ ...error, offset: Math.min(text.length, error.offset - before.length) })));
  }
  // The form that it was meant in is the one that goes further.
  const [first] = errors.sort((one, other) => other.offset - one.offset);
  throw new UsageError(
    `${first === undefined ? `${path} is no JSON` : problemText(path, syntaxProblem(text, first))}; nor is it ftp_server.py`,
  );
}
