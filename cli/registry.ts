/** `registry`: what the operator of a ground station orders the vehicle registry. */
import type { Ordered } from "../core/plugin.js";
import { needsWord } from "../plugins/registry/order-words.js";
import { askOrDo, interruptible, whomToAsk } from "./ask.js";
import { configPath, UsageError } from "./config.js";

export async function registryCommand(given: string | undefined, words: readonly string[], json: boolean): Promise<number> {
  // Whoever asks what there is needs no configuration.
  if (words.length === 0) throw new UsageError(needsWord);
  const asked = await whomToAsk(configPath(given));
  const request = { command: "order", type: "registry", words };
  const { said, facts } = (await interruptible((signal) => askOrDo(asked, request, { signal }, "service"))) as Ordered;
  for (const line of json ? [JSON.stringify(facts)] : said) process.stdout.write(`${line}\n`);
  return 0;
}
