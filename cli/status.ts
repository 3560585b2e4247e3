/** `status`: asks the running daemon; without one, reads what its journal says. */
import { ask } from "../core/control.js";
import { durationText, sizeText, statusOf, type Status } from "../core/status.js";
import { load, problemLines, UsageError } from "./config.js";
import { withJournal } from "./offline.js";
import { programVersion } from "./version.js";

const watchMs = 1000;

export async function statusCommand(path: string, options: { json: boolean; watch: boolean }): Promise<number> {
  const { config, ...loaded } = await load(path);
  if (config === undefined) throw new UsageError(problemLines(path, loaded).join("\n"));
  for (;;) {
    const answer = await ask(config.stateDir, { command: "status" });
    const status =
      answer === undefined ? await withJournal(config, (engine) => statusOf(engine, programVersion, false)) : (answer.ok as Status);
    if (options.watch && process.stdout.isTTY) process.stdout.write("\x1b[2J\x1b[H");
    process.stdout.write(options.json ? `${JSON.stringify(status)}\n` : `${statusText(status)}\n`);
    if (!options.watch) return 0;
    await new Promise((resolve) => setTimeout(resolve, watchMs));
  }
}

export function statusText(status: Status): string {
  const lines = [status.ready ? status.summary : `${status.summary} (no daemon runs)`];
  if (status.devices.length > 0) lines.push("");
  const width = Math.max(0, ...status.devices.map(({ name }) => name.length));
  for (const device of status.devices)
    lines.push(
      `${device.name.padEnd(width)}  ${device.presence}${device.reason === undefined ? "" : `: ${device.reason}`}  (${device.type}, since ${device.since.slice(0, 19)}Z)`,
    );
  const { waiting, active, parked, delivered } = status.queue;
  lines.push(
    "",
    `deliveries: ${waiting} waiting, ${active} active, ${parked} set aside, ${delivered} done; spool ${sizeText(status.spool.used)} of ${sizeText(status.spool.maxSize)}`,
  );
  if (status.spool.waiting !== undefined) lines.push(status.spool.waiting);
  for (const transfer of status.transfers) {
    const percent = transfer.size === 0 ? 100 : Math.floor((transfer.offset / transfer.size) * 100);
    const left = transfer.secondsLeft === undefined ? "" : `, ${durationText(transfer.secondsLeft)} left`;
    lines.push(
      `  ${transfer.from} → ${transfer.to}  ${transfer.path}  ${percent} % of ${sizeText(transfer.size)}, ${sizeText(transfer.bytesPerSecond)}/s${left}`,
    );
  }
  if (status.parked.length > 0) lines.push("", "set aside:");
  for (const { path, to, reason, id } of status.parked) lines.push(`  ${path} → ${to}: ${reason}  [${id}]`);
  if (status.recent.length > 0) lines.push("", "delivered last:");
  for (const receipt of status.recent.slice(0, 10))
    lines.push(
      `  ${receipt.at.slice(0, 19)}Z  ${receipt.from}:${receipt.source} → ${receipt.to}:${receipt.path}  ${sizeText(receipt.size)}, proved by ${receipt.proof}`,
    );
  return lines.join("\n");
}
