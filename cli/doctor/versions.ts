/** What runs here: FileSync, Node, the kernel, the operating system; and whether the daemon that runs is the one that is installed. */
import { type Finding, findingsOf } from "./finding.js";
import { textOf, type View } from "../machine/view.js";

const finding = findingsOf("versions");
/** As package.json has it ("engines"). */
const leastNode = [20, 19] as const;

export interface Versions {
  readonly filesync: string;
  /** Without "v". */
  readonly node: string;
  readonly arch: string;
  /** Of the daemon that runs. */
  readonly daemon: string | undefined;
}

export function checkVersions(view: View, { filesync, node, arch, daemon }: Versions): Finding[] {
  const [major = 0, minor = 0] = node.split(".").map(Number);
  const old = major < leastNode[0] || (major === leastNode[0] && minor < leastNode[1]);
  const kernel = textOf(view, "/proc/sys/kernel/osrelease").trim() || "unknown";
  const system = /^PRETTY_NAME="?([^"\n]*)"?$/m.exec(textOf(view, "/etc/os-release"))?.[1] ?? "unknown";
  const found = [finding("ok", "versions", `FileSync ${filesync}, Node ${node} (${arch}), kernel ${kernel}, ${system}`)];
  if (old)
    found.push(
      finding(
        "bad",
        "Node",
        `it is ${node}; FileSync needs ${leastNode.join(".")} or newer`,
        "# install a newer Node.js: https://nodejs.org/en/download",
      ),
    );
  if (daemon !== undefined && daemon !== filesync)
    found.push(
      finding(
        "warn",
        "the daemon",
        `the one that runs is FileSync ${daemon}, the one that is installed ${filesync}`,
        "sudo systemctl restart filesync",
      ),
    );
  return found;
}
