/** Plugins by type: the built-in ones, "./my-plugin.js" beside the configuration, and packages. */
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import type { PluginList } from "../core/config.js";
import type { Plugin } from "../core/plugin.js";
import { builtIn } from "../plugins/index.js";
import { packageRoot } from "./version.js";
import { shellWord } from "../core/text.js";

export const plugins: PluginList = {
  types: Object.keys(builtIn),
  async load(type, baseDir) {
    const own = Object.hasOwn(builtIn, type) ? builtIn[type] : undefined;
    if (own !== undefined) return await own();
    const file =
      type.startsWith("./") || type.startsWith("../") || type.startsWith("/") ? resolve(baseDir, type) : installed(type, baseDir);
    if (file === undefined) return undefined;
    const loaded = (await import(pathToFileURL(file).href).catch((error: unknown) => {
      throw withoutUs(error) ? new Error(`it uses filesync/plugin, which is not found from there: ${linking(dirname(file))}`) : error;
    })) as { plugin?: Partial<Plugin<unknown>> };
    const { plugin } = loaded;
    if (plugin?.options === undefined || plugin.roles === undefined || (plugin.device ?? plugin.service) === undefined)
      throw new Error('it has to export "plugin" with type, options, roles, and device or service (see filesync/plugin)');
    return plugin as Plugin<unknown>;
  },
};

/** A package beside the configuration; undefined when there is none of that name. */
function installed(name: string, baseDir: string): string | undefined {
  if (!/^(@[a-z0-9._-]+\/)?[a-z0-9._-]+$/i.test(name)) return undefined;
  try {
    return createRequire(join(baseDir, "config.json")).resolve(name);
  } catch {
    // No such package: the caller says so, with the nearest right word.
    return undefined;
  }
}

/** What the plugin imports of us is not found: by Node's words, for it has one code for every module that is missing. */
function withoutUs(error: unknown): boolean {
  return error instanceof Error && /^Cannot find (package 'filesync'|module 'filesync\/plugin')/.test(error.message);
}

/** The command of docs/plugins.md, for the directory of a plugin. */
function linking(dir: string): string {
  const modules = shellWord(`${dir}/node_modules`);
  return `mkdir -p ${modules} && ln -sfn ${shellWord(packageRoot)} ${modules}/filesync`;
}
