/** What a Raspberry Pi's firmware says of its power and heat: `get_throttled`, a number whose bits are told in words. */
import { type Finding, findingsOf } from "./finding.js";
import { isThere, read, textOf, type View } from "../machine/view.js";

const finding = findingsOf("power");
const file = "/sys/devices/platform/soc/soc:firmware/get_throttled";

/** Bits 0 to 3: now; the same 16 higher: since the start (raspberrypi.com/documentation, vcgencmd). */
const words = [
  ["the supply voltage is too low", "the supply voltage was too low"],
  ["the processor's clock is held down", "the processor's clock was held down"],
  ["the processor is throttled", "the processor was throttled"],
  ["the soft limit of the temperature is reached", "the soft limit of the temperature was reached"],
] as const;
const supply = "# a supply of 5.1 V and 3 A (Pi 5: 5 A), a short thick cable, and nothing hungry on its USB ports";
const heat = "# a heat sink, or air";

export function throttledText(bits: number): { readonly now: string[]; readonly before: string[] } {
  const set = (bit: number) => (bits & (1 << bit)) !== 0;
  return {
    now: words.flatMap(([text], n) => (set(n) ? [text] : [])),
    before: words.flatMap(([, text], n) => (set(n + 16) && !set(n) ? [text] : [])),
  };
}

export async function checkPower(view: View): Promise<Finding[]> {
  const model = textOf(view, "/proc/device-tree/model").replaceAll("\0", "");
  const isPi = model.startsWith("Raspberry Pi") || isThere(view, file);
  if (!isPi) return [];
  const about = model === "" ? "Raspberry Pi" : model;
  const said = await saidBits(view);
  if (typeof said === "string") return [finding("unseen", about, `whether its power is enough: ${said}`, "sudo vcgencmd get_throttled")];
  const { now, before } = throttledText(said);
  const todo = [...((said & 0x10001) === 0 ? [] : [supply]), ...((said & 0x80008) === 0 ? [] : [heat])];
  const volts = (said & 1) !== 0;
  const found: Finding[] = [];
  if (now.length > 0) found.push(finding(volts ? "bad" : "warn", about, `now ${now.join(", ")}`, ...todo));
  if (before.length > 0)
    found.push(
      finding("warn", about, `since it started ${before.join(", ")}: cards and USB devices fail of that`, ...(now.length > 0 ? [] : todo)),
    );
  return found.length > 0 ? found : [finding("ok", about, "its power is enough, and it is not too hot")];
}

/** The bits; or why nobody can say. */
async function saidBits(view: View): Promise<number | string> {
  const found = read(view, file);
  if (found !== undefined && "text" in found) return Number.parseInt(found.text.trim(), 16);
  const { code, out, complaint } = await view.run("vcgencmd", ["get_throttled"], 5000);
  const bits = /^throttled=0x([0-9a-f]+)/im.exec(out)?.[1];
  return code === 0 && bits !== undefined ? Number.parseInt(bits, 16) : complaint;
}
