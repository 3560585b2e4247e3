/** `report`: one text for a bug report, without a secret in it. Changes nothing but that file. */
import { existsSync, promises as fs, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { parse } from "jsonc-parser";
import type { Config } from "../core/config.js";
import { problemText } from "../core/config-problems.js";
import { codeOf, faultOfErrno } from "../core/errors.js";
import type { Plugin } from "../core/plugin.js";
import { reasonOf } from "../core/retry.js";
import type { Status } from "../core/status.js";
import { sizeText } from "../core/text.js";
import type { WhyFile } from "../core/why.js";
import { runCommand } from "../core/program.js";
import { builtIn } from "../plugins/index.js";
import { whyText } from "./amend.js";
import { askedWith, askOrDo } from "./ask.js";
import { findConfig, type Found, UsageError } from "./config.js";
import { diagnosis } from "./doctor.js";
import { findingsText } from "./doctor/finding.js";
import { addressesIn, Redactor, secretsOf } from "./report/secrets.js";
import { shownConfig } from "./report/shown.js";
import { statusNow } from "./status.js";
import { programVersion } from "./version.js";

const mostParked = 20;
const mostReceipts = 20;
const mostLines = 300;

interface Section {
  readonly name: string;
  /** Throws what it could not do: that is told in its place. */
  readonly text: () => string | Promise<string>;
}

/** Exit code 0, also where a part could not be had: the report says which. */
export async function reportCommand(given: string | undefined, out: string | undefined): Promise<number> {
  const time = new Date().toISOString();
  const path = resolve(out ?? `filesync-report-${time.slice(0, 19).replaceAll(/[-:]/g, "").replace("T", "-")}.txt`);
  if (existsSync(path)) throw new UsageError(`--out ${path} is there already: name another file, or remove it`);
  const found = await findConfig(given);
  const redactor = redactorOf(found);
  const texts: string[] = [];
  const sections = sectionsOf(found);
  for (const { name, text } of sections) texts.push(`== ${name}\n\n${await textOrWhy(text)}\n`);
  const head = `FileSync report, ${time}\nPasswords, keys, tokens and the names of people in addresses are taken out. Read it before you send it.\n\n`;
  const whole = redactor.clean(head + texts.join("\n"));
  try {
    await fs.writeFile(path, whole, { flag: "wx", mode: 0o600 });
  } catch (error) {
    // A beginning of it, on a full disk.
    if (codeOf(error) !== "EEXIST") await fs.rm(path, { force: true }).catch(() => undefined);
    throw new UsageError(faultOfErrno(error, `--out ${path} cannot be written`).message);
  }
  process.stdout.write(
    `${path} (${sizeText(Buffer.byteLength(whole))}) is written; only its owner may read it. It has: ${sections.map(({ name }) => name).join("; ")}.\nPasswords, keys and tokens are taken out. Read it before you send it.\n`,
  );
  return 0;
}

async function textOrWhy(text: Section["text"]): Promise<string> {
  try {
    return await text();
  } catch (error) {
    return `not there: ${reasonOf(error)}`;
  }
}

function configOf(found: Found | undefined): Config | undefined {
  return typeof found?.loaded === "object" ? found.loaded.config : undefined;
}

function rawOf(found: Found): unknown {
  // What can be read of it, where it is broken.
  return parse(found.text, [], { allowTrailingComma: true });
}

function redactorOf(found: Found | undefined): Redactor {
  if (found === undefined) return new Redactor([]);
  const dir = dirname(found.path);
  const parsed = configOf(found)?.devices.map(({ options }) => options);
  const files = new Map<string, string>();
  const lookup = (where: { readonly env: string } | { readonly file: string }) => {
    if ("env" in where) return process.env[where.env];
    const path = resolve(dir, where.file.replace(/^~\//, `${homedir()}/`));
    try {
      if (!files.has(path)) files.set(path, readFileSync(path, "utf8"));
    } catch {
      // What this user may not read cannot come into the report from there.
      files.set(path, "");
    }
    return files.get(path);
  };
  return new Redactor(secretsOf(parsed, rawOf(found), lookup), addressesIn(found.text));
}

function sectionsOf(found: Found | undefined): Section[] {
  const config = configOf(found);
  const withConfig = (work: (config: Config) => string | Promise<string>) => () => {
    if (config === undefined) throw new Error("there is no configuration that can be used");
    return work(config);
  };
  let status: Status | undefined;
  return [
    { name: "versions", text: () => `FileSync ${programVersion}, Node ${process.version}, ${process.platform} ${process.arch}` },
    { name: "configuration", text: () => configurationText(found) },
    { name: "doctor", text: async () => findingsText((await diagnosis(found)).findings) },
    {
      name: "status",
      text: withConfig(async (usable) => {
        status = await statusNow(askedWith(usable));
        return JSON.stringify(status, undefined, 1);
      }),
    },
    { name: "what is set aside, and why", text: withConfig((usable) => whyParked(usable, status)) },
    { name: `the last ${mostReceipts} receipts`, text: withConfig(({ stateDir }) => receipts(stateDir)) },
    {
      name: `the last ${mostLines} lines of the log`,
      text: () =>
        printed("journalctl", [
          "-u",
          "filesync",
          "-u",
          "filesync-ground",
          "-u",
          "filesync-mount@*",
          "-n",
          String(mostLines),
          "--no-pager",
          "-o",
          "short-iso",
        ]),
    },
    { name: "disks", text: () => printed("lsblk", ["-o", "NAME,MAJ:MIN,SIZE,RO,RM,TYPE,FSTYPE,LABEL,UUID,MOUNTPOINT"]) },
    { name: "free space", text: () => printed("df", ["-hTP"]) },
    { name: "mounts", text: () => fs.readFile("/proc/self/mountinfo", "utf8") },
  ];
}

async function configurationText(found: Found | undefined): Promise<string> {
  if (found === undefined) throw new Error("there is no configuration here, and none in /etc/filesync");
  const { path, loaded } = found;
  if (typeof loaded === "string") throw new Error(loaded);
  const problems = loaded.problems.map((problem) => problemText(path, problem));
  // Of what is no JSON nobody knows which part is a secret.
  const broken = loaded.config === undefined && problems.some((line) => /this is no JSON|the file is empty/.test(line));
  const plugins = new Map<string, Plugin<never>>();
  for (const [type, load] of Object.entries(builtIn)) plugins.set(type, await load());
  const shown = broken
    ? "(not shown: it cannot be read)"
    : JSON.stringify(
        shownConfig(rawOf(found), (type) => plugins.get(type)?.options),
        undefined,
        2,
      );
  return [path, ...problems, "", shown].join("\n");
}

async function whyParked(config: Config, status: Status | undefined): Promise<string> {
  if (status === undefined) throw new Error("the status is not known");
  const asked = askedWith(config);
  const texts: string[] = [];
  for (const { id } of status.parked.slice(0, mostParked))
    texts.push(await textOrWhy(async () => ((await askOrDo(asked, { command: "why", what: id })) as WhyFile[]).map(whyText).join("\n")));
  const more = status.parked.length - mostParked;
  if (more > 0) texts.push(`… and ${more} more`);
  return texts.length === 0 ? "nothing" : texts.join("\n");
}

async function receipts(stateDir: string): Promise<string> {
  const path = join(stateDir, "receipts.jsonl");
  if (!existsSync(path)) return "none";
  const handle = await fs.open(path, "r");
  try {
    const { size } = await handle.stat();
    const from = Math.max(0, size - 128 * 1024);
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(size - from), 0, size - from, from);
    const lines = buffer.toString("utf8", 0, bytesRead).trimEnd().split("\n");
    // The first may be a part of one.
    return (from === 0 ? lines : lines.slice(1)).slice(-mostReceipts).join("\n");
  } finally {
    await handle.close();
  }
}

async function printed(command: string, args: readonly string[]): Promise<string> {
  const { code, out, complaint } = await runCommand(command, args, 15_000);
  if (code !== 0) throw new Error(complaint);
  return out.trimEnd();
}
