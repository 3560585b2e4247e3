/** Makes directories at a server. Those known to be there cost nothing; the others one look, and one command for each that is missing. */
import { Fault } from "../../core/errors.js";
import { parentOf } from "../../core/paths.js";
import { isUnknownCommand, Refusal, type Connection } from "./connection.js";
import { saysWhy } from "./faults.js";

/** Makes `dir` (text of bytes, absolute) and its parents, and adds them to `known`. True where it was not there. Throws Refusal when the server refuses. */
export async function ensureDir(connection: Connection, dir: string, known: Set<string>): Promise<boolean> {
  if (dir === "" || known.has(dir)) return false;
  if ((await connection.enter(dir)).code < 400) {
    known.add(dir);
    return false;
  }
  const above = parentOf(dir);
  if (above !== dir) await ensureDir(connection, above, known);
  const made = await connection.ask(`MKD ${dir}`);
  if (made.code >= 400) {
    // Another client may have made it in between.
    const there = await connection.enter(dir);
    if (there.code >= 400) {
      // 550 is also what vsftpd says on a full disk. Where no file stands in the way, and the server names no other reason, it may be made another time.
      if (made.code === 550 && !saysWhy(made.text) && (await connection.size(dir)) === undefined)
        throw new Fault("transient", `cannot make the directory ${dir}: the server said "${made.text}"`);
      throw new Refusal(isUnknownCommand(made) ? there : made);
    }
  }
  known.add(dir);
  return true;
}
