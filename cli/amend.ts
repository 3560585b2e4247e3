/** `why`, `retry`, `forget`, `verify`, `eject`, `plan` and `approve`: what a person asks about files on their way, and does with them. */
import type { Forgotten, Retried, Told } from "../core/amend.js";
import { dateText } from "../core/route.js";
import { sizeText } from "../core/text.js";
import type { PlannedRoute } from "../core/sync/commands.js";
import type { Verified, VerifySum } from "../core/verify.js";
import type { WhyFile } from "../core/why.js";
import { askOrDo, interruptible, whomToAsk } from "./ask.js";

const write = (line: string) => process.stdout.write(`${line}\n`);

export async function whyCommand(config: string, what: string, json: boolean): Promise<number> {
  const asked = await whomToAsk(config);
  const files = (await interruptible((signal) => askOrDo(asked, { command: "why", what }, { signal }))) as WhyFile[];
  if (json) write(JSON.stringify({ files }));
  else for (const file of files) write(whyText(file));
  return 0;
}

export function whyText(file: WhyFile): string {
  const about = [
    ...(file.size === undefined ? [] : [sizeText(file.size)]),
    ...(file.modifiedMs === undefined ? [] : [dateText(file.modifiedMs)]),
  ].join(", ");
  const lines = file.reasons.map(({ id, to, text }) => (id === undefined ? `  ${text}` : `  → ${to ?? ""}: ${text}  [${id}]`));
  return [`${file.source}:${file.path}${about === "" ? "" : `  (${about})`}`, ...lines].join("\n");
}

export async function retryCommand(config: string, what: string | undefined, json: boolean): Promise<number> {
  const asked = await whomToAsk(config);
  const request = { command: "retry", ...(what === undefined ? {} : { what }) };
  const done = (await interruptible((signal) => askOrDo(asked, request, { signal }))) as Retried;
  if (json) {
    write(JSON.stringify(done));
    return 0;
  }
  for (const told of done.retried) write(`${toldText(told)}: tried again`);
  for (const told of done.again) write(`${toldText(told)}: sent again, unless the target has it`);
  if (done.due > 0)
    write(`${done.due} ${done.due === 1 ? "delivery that waited for its time is" : "deliveries that waited for their time are"} due now`);
  if (done.inDoubt > 0)
    write(
      `${done.inDoubt} of them may have arrived: ${done.inDoubt === 1 ? "it is" : "they are"} looked for, and sent again now only by name: filesync retry ID ("filesync why" tells the id)`,
    );
  for (const told of done.leaving)
    write(
      `${toldText(told)}: was given up, and what was sent of it is still to be taken away at ${told.to}; it can be sent again after that: filesync retry ${told.id}`,
    );
  for (const file of done.releases) write(`${file}: to delete or archive it at its source, as its route asks, is tried again`);
  const all = done.retried.length + done.again.length + done.due + done.leaving.length + done.releases.length;
  if (all + done.looks.length === 0) write(`nothing${what === undefined ? "" : ` of ${what}`} is set aside, or waits for its time`);
  if (all > 0 && !done.running) write('nothing moves while no daemon runs: start it with "filesync run"');
  for (const [name, said] of Object.entries(done.devices)) write(`${name}: ${said}`);
  for (const route of done.looks) write(`${route}: looks again now`);
  return 0;
}

export async function forgetCommand(config: string, what: string, json: boolean): Promise<number> {
  const asked = await whomToAsk(config);
  const done = (await interruptible((signal) => askOrDo(asked, { command: "forget", what }, { signal }))) as Forgotten;
  if (json) {
    write(JSON.stringify(done));
    return 0;
  }
  for (const told of done.forgotten) write(`${toldText(told)}: given up; ${partialText(told)}`);
  for (const file of done.kept) write(`${file} stays at its source: not every required target has it`);
  for (const file of done.alone) write(`${file} stays in the spool, because nobody got it; to remove that copy too, say it again`);
  for (const told of done.lost) write(`${toldText(told)}: was lost at its source; status tells it no more`);
  for (const file of done.removed) write(`${file}: its copy in the spool is removed`);
  if (done.forgotten.length + done.removed.length + done.lost.length === 0)
    write(`nothing of ${what} was set aside, or waits for what has left the configuration`);
  for (const told of done.left)
    if (told.state !== "done")
      write(
        `${toldText(told)}: left as it is, because it ${told.state === "active" ? 'is being sent at this moment: to stop it, exclude it in its route ("exclude"), reload (SIGHUP), and say this again' : "can still be delivered"}`,
      );
  return 0;
}

function partialText({ to, partial }: Forgotten["forgotten"][number]): string {
  if (partial === undefined) return "no file was touched";
  const what = `what ${to} may have of an unfinished upload`;
  return partial === "goes" ? `${what} is taken away there` : `${what} stays there, as it is not in the configuration`;
}

export async function ejectCommand(config: string, device: string, json: boolean): Promise<number> {
  const asked = await whomToAsk(config, "own");
  const done = (await interruptible((signal) => askOrDo(asked, { command: "eject", what: device }, { signal }, "device"))) as {
    said: string;
  };
  write(json ? JSON.stringify(done) : `${device}: ${done.said}`);
  return 0;
}

/** Exit code 3 when something is wrong, or could not be looked at. */
export async function verifyCommand(config: string, what: string | undefined, json: boolean): Promise<number> {
  const asked = await whomToAsk(config, "own");
  const said = (fact: unknown) => {
    write(json ? JSON.stringify(fact) : verifiedText(fact as Verified));
    return undefined;
  };
  const request = { command: "verify", ...(what === undefined ? {} : { what }) };
  const sum = (await interruptible((signal) => askOrDo(asked, request, { signal, said }, "device"))) as VerifySum;
  if (json) write(JSON.stringify(sum));
  else {
    const { deliveries, proved, wrong, unreachable } = sum;
    const rest = [...(wrong > 0 ? [`${wrong} wrong`] : []), ...(unreachable > 0 ? [`${unreachable} could not be looked at`] : [])];
    write(
      deliveries === 0
        ? "there is no receipt to prove again"
        : `${deliveries} ${deliveries === 1 ? "delivery" : "deliveries"}: ${proved} proved${rest.map((text) => `, ${text}`).join("")}`,
    );
  }
  return sum.wrong + sum.unreachable === 0 ? 0 : 3;
}

function verifiedText({ file, at, path, verdict, text, todo }: Verified): string {
  const mark = verdict === "missing" || verdict === "differs" ? "WRONG  " : verdict === "unreachable" ? "unknown  " : "";
  const proved = verdict === "digest" || verdict === "readback" || verdict === "size" ? ` (by ${verdict})` : "";
  return `${mark}${file} ${path === undefined ? `at ${at}` : `→ ${at}:${path}`}: ${text}${proved}${todo === undefined ? "" : `; ${todo}`}`;
}

function toldText({ file, to, id }: Told): string {
  return `${file} → ${to} [${id}]`;
}

export async function planCommand(config: string, what: string | undefined, json: boolean): Promise<number> {
  const asked = await whomToAsk(config, "own");
  const request = { command: "plan", ...(what === undefined ? {} : { what }) };
  const routes = (await interruptible((signal) => askOrDo(asked, request, { signal }, "device"))) as PlannedRoute[];
  if (json) write(JSON.stringify({ routes }));
  else for (const route of routes) write(planText(route));
  return 0;
}

function planText({ route, state, reason, first, unseen, paths }: PlannedRoute): string {
  const open = paths.filter(({ actions, left }) => actions.length > 0 || left !== undefined);
  const lines = open.map(({ path, row, base, here, there, actions, left }) => {
    const known = row === undefined ? "" : `  [row ${row}: ${base} | ${here} | ${there}]`;
    return `  ${path}: ${left === undefined ? actions.join(", then ") : `left as it is: ${left}`}${known}`;
  });
  const same = paths.length - open.length;
  return [
    `${route}  ${state}${reason === undefined ? "" : `: ${reason}`}`,
    ...(first === undefined ? [] : [`  ${first}`]),
    ...lines,
    ...(state === "refused" || unseen === true ? [] : [`  ${same} ${same === 1 ? "path is" : "paths are"} the same on both sides`]),
  ].join("\n");
}

export async function approveCommand(config: string, what: string, json: boolean): Promise<number> {
  const asked = await whomToAsk(config, "own");
  const done = (await interruptible((signal) => askOrDo(asked, { command: "approve", what }, { signal }, "device"))) as { said: string };
  write(json ? JSON.stringify(done) : done.said);
  return 0;
}
