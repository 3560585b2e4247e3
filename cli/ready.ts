/** `ready`: whether the cards, the spool and the ground have room for the next flights. */
import { parseSize } from "../core/options.js";
import type { Place, Readiness } from "../core/ready.js";
import { sizeText } from "../core/text.js";
import { askOrDo, interruptible, whomToAsk } from "./ask.js";
import { UsageError } from "./config.js";

const words: Readonly<Record<Place["state"], string>> = { ready: "ready", "not-ready": "NOT READY", "not-known": "not known" };
const order: readonly Place["state"][] = ["not-ready", "not-known", "ready"];

/** 0: nothing is known to be in the way; 3: something is. */
export async function readyCommand(path: string, options: { need?: string; json: boolean }): Promise<number> {
  const need = options.need === undefined ? undefined : parseSize(options.need);
  if (options.need !== undefined && need === undefined)
    throw new UsageError(`--need ${options.need}: expected a size such as "4GiB" or "300MB" (units: B kB MB GB KiB MiB GiB)`);
  const asked = await whomToAsk(path, "own");
  const request = { command: "ready", ...(need === undefined ? {} : { need }) };
  const said = (await interruptible((signal) => askOrDo(asked, request, { signal }, "device"))) as Readiness;
  process.stdout.write(`${options.json ? JSON.stringify(said) : readyText(said)}\n`);
  return said.ready ? 0 : 3;
}

function readyText({ ready, need, places }: Readiness): string {
  const lines = order.flatMap((state) =>
    places
      .filter((place) => place.state === state)
      .flatMap(({ name, text, todo = [] }) => [
        `${words[state].padEnd(9)}  ${name}: ${text}`,
        ...todo.map((line) => `             ${line}`),
      ]),
  );
  const not = places.filter(({ state }) => state === "not-ready").length;
  const unknown = places.filter(({ state }) => state === "not-known").map(({ name }) => name);
  const beside = unknown.length === 0 ? "" : `; not known: ${[...new Set(unknown)].join(", ")}`;
  return [
    ...lines,
    "",
    `${ready ? `ready for ${sizeText(need)}${beside === "" ? "" : ", as far as is known"}` : `not ready for ${sizeText(need)}: ${not} in the way`}${beside}`,
  ].join("\n");
}
