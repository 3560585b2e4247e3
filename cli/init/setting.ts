/** Where a configuration is written, for whom, and what goes beside it. */
import { existsSync } from "node:fs";
import { link, rm } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { codeOf, faultOfErrno } from "../../core/errors.js";
import { mayWriteIn, renameDurable, syncName } from "../../core/fs.js";
import { deadLink } from "../../core/stat.js";
import { systemConfig, UsageError } from "../config.js";
import { unitOf } from "../machine/unit.js";
import { type Owner, ownerIn, placeDir, placeFile } from "../edit-config.js";
import { groupNumber, thisView, userNamed, type View } from "../machine/view.js";
import { packageRoot } from "../version.js";
import { shellWord } from "../../core/text.js";

/** What is written, where, and for whom. */
export interface Setting {
  readonly view: View;
  /** The configuration. */
  readonly path: string;
  readonly dir: string;
  /** It is that of the service of this machine. */
  readonly system: boolean;
  readonly force: boolean;
  /** What the service has to read is this one's; undefined: one's own. */
  readonly owner: Owner | undefined;
  readonly stateDir: string;
  readonly schema: string;
}

/** `config`: the one that was named. Throws UsageError where nothing can be written there. */
export async function settingOf(config: string | undefined, force = false): Promise<Setting> {
  const view = thisView();
  const root = view.me.uid === 0;
  const path = resolve(config ?? (root && existsSync(dirname(systemConfig)) ? systemConfig : "config.json"));
  const dir = dirname(path);
  if (!existsSync(dir)) throw new UsageError(`there is no directory ${dir}: make it first`);
  try {
    await mayWriteIn(dir);
  } catch (error) {
    const { message } = faultOfErrno(error, `nothing can be written in ${dir}`);
    throw new UsageError(
      `${message}; ${root || codeOf(error) === "EROFS" ? "" : "as root (sudo), or "}name another place with --config FILE`,
    );
  }
  const dead = await deadLink(path);
  if (dead !== undefined) throw new UsageError(dead);
  const system = root && dir === dirname(systemConfig);
  const group = system ? groupNumber(view, "filesync") : undefined;
  const owner = group === undefined ? ownerIn(dir) : { uid: 0, gid: group };
  const stateDir = system ? "/var/lib/filesync" : "state";
  return { view, path, dir, system, force, owner, stateDir, schema: join(packageRoot, "config.schema.json") };
}

/**
 * Puts passwords, each in a file of its own that root (or who owns the directory) alone may read, before `write` writes the configuration that names
 * them. → the files that were not there before, and what `write` gave. Where something fails these files go again, and the others are as they were: the configuration
 * that is still in place needs them. (What a power cut leaves of them then is ".NAME.filesync-old".)
 */
export async function withSecrets<T>(
  { dir, system, owner }: Setting,
  secrets: Readonly<Record<string, string | undefined>>,
  write: () => Promise<T>,
): Promise<{ fresh: readonly string[]; done: T }> {
  const place = join(dir, "credentials");
  const whose = system ? { uid: 0, gid: 0 } : owner;
  const fresh: string[] = [];
  const replaced: string[] = [];
  let done: T;
  try {
    for (const [name, secret] of Object.entries(secrets)) {
      if (secret === undefined) continue;
      await placeDir(place, 0o700, whose);
      const file = join(place, name);
      if (!existsSync(file)) fresh.push(file);
      else {
        await rm(oldOf(file), { force: true });
        await link(file, oldOf(file));
        await syncName(file);
        replaced.push(file);
      }
      await placeFile(file, `${secret}\n`, 0o600, whose, true);
    }
    done = await write();
  } catch (error) {
    for (const file of fresh) await rm(file, { force: true });
    for (const file of replaced) {
      await renameDurable(oldOf(file), file);
      // Two names of one file stay both (rename(2)).
      await rm(oldOf(file), { force: true });
    }
    throw error;
  }
  await Promise.all(replaced.map((file) => rm(oldOf(file))));
  return { fresh, done };
}

/** A name that nobody else gives, and that is no credential's. */
const oldOf = (file: string) => join(dirname(file), `.${basename(file)}.filesync-old`);

/** Makes a directory that the service writes in, where that may be done. → what a person should know of it. */
export async function directoryFor({ view, system }: Setting, dir: string): Promise<string> {
  const user = system ? userNamed(view, "filesync") : undefined;
  if (existsSync(dir))
    return system
      ? `${dir} is there: the user filesync has to be able to write in it (sudo chown filesync: ${shellWord(dir)})`
      : `${dir} is there`;
  const gid = user?.groups[0];
  await placeDir(dir, 0o750, user === undefined || gid === undefined ? undefined : { uid: user.uid, gid });
  return `Made: ${dir}`;
}

/** The end of a command that is typed. */
export function configOption({ path }: Setting): string {
  return path === systemConfig ? "" : ` --config ${shellWord(path)}`;
}

/** What is to be typed now. */
export async function nextSteps(setting: Setting): Promise<string[]> {
  const { path, view } = setting;
  const unit = path === systemConfig ? await unitOf(view) : undefined;
  if (unit === undefined) return ["Next:", `  filesync check --probe${configOption(setting)}`, `  filesync run${configOption(setting)}`];
  const service = typeof unit === "string" ? "filesync" : (unit.Id ?? "filesync").replace(/\.service$/, "");
  return ["Next:", `  sudo systemctl restart ${service}`, "  sudo filesync check --probe", "  sudo filesync status"];
}
