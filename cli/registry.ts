/** `registry`: what the operator of a ground station orders the vehicle registry. */
import type { Ordered } from "../core/plugin.js";
import { askOrDo, configForJournal, interruptible } from "./ask.js";

export async function registryCommand(config: string, words: readonly string[], json: boolean): Promise<number> {
  const usable = await configForJournal(config);
  const request = { command: "order", type: "registry", words };
  const { said, facts } = (await interruptible((signal) => askOrDo(usable, request, { signal }, "service"))) as Ordered;
  for (const line of json ? [JSON.stringify(facts)] : said) process.stdout.write(`${line}\n`);
  return 0;
}
