/**
 * Figures in the text format of Prometheus, version 0.0.4 (https://prometheus.io/docs/instrumenting/exposition_formats/): per metric HELP, TYPE, then
 * its samples; names and units as https://prometheus.io/docs/practices/naming/ has them.
 */
import type { Figures } from "../../core/plugin.js";

export const contentType = "text/plain; version=0.0.4; charset=utf-8";

const lagParts = { p50: "half of the time", p99: "99 times of 100", max: "at most" } as const;

/** Of this process; seconds, bytes. */
export interface Process {
  readonly residentBytes: number;
  readonly cpuSeconds: number;
  /** Since 1970. */
  readonly startSeconds: number;
  /** Since the figures were last asked for. */
  readonly lagSeconds: Readonly<Record<keyof typeof lagParts, number>>;
}

type Labels = Readonly<Record<string, string>>;
type Sample = readonly [value: number, labels?: Labels];

export function metricsText(figures: Figures, { residentBytes, cpuSeconds, startSeconds, lagSeconds }: Process): string {
  const { mistakes, devices, deliveries, parked, bytes, moved, transfers, spool, journalBytes, events, lastDeliveryMs } = figures;
  const by = (label: string, values: Readonly<Record<string, number>>): Sample[] =>
    Object.entries(values).map(([name, value]) => [value, { [label]: name }]);
  return [
    gauge(
      "filesync_deliveries",
      "Files on their way to a target, by state; delivered are those with a receipt.",
      by("state", { ...deliveries }),
    ),
    gauge("filesync_parked_deliveries", "Deliveries that were set aside until a person acts, by fault.", by("fault", parked)),
    gauge(
      "filesync_files_bytes",
      "Bytes by where they are: only on their source, here and not yet everywhere, delivered (once for each target).",
      [
        [bytes.onSource, { place: "source" }],
        [bytes.here, { place: "here" }],
        [bytes.delivered, { place: "delivered" }],
      ],
    ),
    counter("filesync_pulled_bytes_total", "Bytes fetched from sources since the start; not what is read in place.", [[moved.pulled]]),
    counter("filesync_pushed_bytes_total", "Bytes sent to targets since the start.", [[moved.pushed]]),
    gauge(
      "filesync_device_attached",
      "1 while a device is there.",
      devices.map(({ name, type, attached }) => [attached ? 1 : 0, { device: name, type }]),
    ),
    gauge("filesync_configuration_mistakes", "Mistakes in the configuration that runs: what is wrong is left out.", [[mistakes]]),
    gauge(
      "filesync_transfers",
      "Transfers that run, by source and target.",
      perWay(transfers, () => 1),
    ),
    gauge(
      "filesync_transfer_bytes_per_second",
      "What these move in a second.",
      perWay(transfers, ({ bytesPerSecond }) => bytesPerSecond),
    ),
    gauge("filesync_spool_used_bytes", "Bytes that the spool takes.", [[spool.usedBytes]]),
    gauge("filesync_spool_max_bytes", "Bytes that it may take.", [[spool.maxBytes]]),
    gauge("filesync_spool_free_bytes", "Free bytes on its disk.", [[spool.freeBytes]]),
    gauge("filesync_journal_bytes", "Bytes of the journal with what was not yet merged into it.", [[journalBytes]]),
    counter("filesync_events_total", "Events that were said since the start, by level.", by("level", { ...events })),
    gauge(
      "filesync_last_delivery_timestamp_seconds",
      "When a file was last delivered, since 1970; absent before the first.",
      lastDeliveryMs === undefined ? [] : [[lastDeliveryMs / 1000]],
    ),
    ...Object.entries(lagSeconds).map(([part, seconds]) =>
      gauge(
        `filesync_event_loop_lag_${part}_seconds`,
        `How late the event loop was since the last scrape, ${lagParts[part as keyof typeof lagParts]}.`,
        [[seconds]],
      ),
    ),
    gauge("process_resident_memory_bytes", "Resident memory size in bytes.", [[residentBytes]]),
    counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", [[cpuSeconds]]),
    gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", [[startSeconds]]),
  ].join("");
}

function perWay(transfers: Figures["transfers"], value: (one: Figures["transfers"][number]) => number): Sample[] {
  const ways = new Map<string, { value: number; labels: Labels }>();
  for (const one of transfers) {
    const { from, to } = one;
    const key = JSON.stringify([from, to]);
    ways.set(key, { value: (ways.get(key)?.value ?? 0) + value(one), labels: { from, to } });
  }
  return [...ways.values()].map((way) => [way.value, way.labels]);
}

function gauge(name: string, help: string, samples: readonly Sample[]): string {
  return metric("gauge", name, help, samples);
}

function counter(name: string, help: string, samples: readonly Sample[]): string {
  return metric("counter", name, help, samples);
}

function metric(type: "gauge" | "counter", name: string, help: string, samples: readonly Sample[]): string {
  const lines = samples.map(([value, labels]) => `${name}${labels === undefined ? "" : labelText(labels)} ${value}`);
  return `${[`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, ...lines].join("\n")}\n`;
}

function labelText(labels: Labels): string {
  const one = ([name, value]: [string, string]) =>
    `${name}="${value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n")}"`;
  return `{${Object.entries(labels).map(one).join(",")}}`;
}
