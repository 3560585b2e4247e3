/** A strict reader of Prometheus' text format 0.0.4, for machines without `promtool`: throws where it, or the naming conventions, are not kept. */
export interface Metric {
  readonly type: string;
  readonly help: string;
  /** Labels in their order, as they stand between the braces → value. */
  readonly samples: ReadonlyMap<string, number>;
}

const label = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"/y;

export function readMetrics(text: string): Map<string, Metric> {
  if (!text.endsWith("\n")) throw new Error("the last line has no end");
  const metrics = new Map<string, { type: string; help: string; samples: Map<string, number> }>();
  let help: [string, string] | undefined;
  let now: { name: string; samples: Map<string, number>; type: string } | undefined;
  for (const line of text.slice(0, -1).split("\n")) {
    const wrong = (why: string) => new Error(`${why}: ${line}`);
    const helps = /^# HELP ([a-z_:][a-z0-9_:]*) ((?:[^\\\n]|\\[\\n])+)$/.exec(line);
    const types = /^# TYPE ([a-z_:][a-z0-9_:]*) (counter|gauge)$/.exec(line);
    const sample = /^([a-z_:][a-z0-9_:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (helps !== null) {
      if (help !== undefined) throw wrong("a HELP without TYPE before it");
      help = [helps[1] ?? "", helps[2] ?? ""];
    } else if (types !== null) {
      const [, name = "", type = ""] = types;
      if (help?.[0] !== name) throw wrong("its HELP is not right before it");
      if (metrics.has(name)) throw wrong("a second time");
      if ((type === "counter") !== name.endsWith("_total")) throw wrong("a counter, and nothing else, ends with _total");
      if (/_(milliseconds|ms|kilobytes|mb|percent)(_|$)/.test(name)) throw wrong("no base unit");
      now = { name, type, samples: new Map() };
      metrics.set(name, { type, help: help[1], samples: now.samples });
      help = undefined;
    } else if (sample !== null && !line.startsWith("#")) {
      const [, name = "", labels = "", value = ""] = sample;
      if (now?.name !== name || help !== undefined) throw wrong("a sample apart from its TYPE");
      const seen = new Set<string>();
      for (let at = 0; at < labels.length;) {
        label.lastIndex = at;
        const match = label.exec(labels);
        if (match === null) throw wrong("no label");
        if (seen.has(match[1] ?? "")) throw wrong("a label twice");
        seen.add(match[1] ?? "");
        if (match[1] === "quantile" || match[1] === "le") throw wrong("a label of summaries and histograms");
        at = label.lastIndex;
        if (at < labels.length && labels[at++] !== ",") throw wrong("no comma");
      }
      if (value === "" || !Number.isFinite(Number(value))) throw wrong("no number");
      if (now.type === "counter" && Number(value) < 0) throw wrong("a counter below 0");
      if (now.samples.has(labels)) throw wrong("a series twice");
      now.samples.set(labels, Number(value));
    } else throw wrong("no line of the format");
  }
  if (help !== undefined) throw new Error("a HELP without TYPE at the end");
  return metrics;
}
