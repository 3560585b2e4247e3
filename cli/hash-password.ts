/** `hash-password`: a password from standard input → the `passwordHash` of a user of the FTP server. It is shown nowhere else. */
import { createInterface } from "node:readline";
import { hashPassword } from "../core/password.js";
import { UsageError } from "./config.js";

export async function hashPasswordCommand(): Promise<number> {
  if (process.stdin.isTTY) process.stderr.write("the password, then Enter (it is shown as you type; pipe it in to avoid that): ");
  const lines = createInterface({ input: process.stdin });
  let password = "";
  for await (const line of lines) {
    password = line;
    break;
  }
  lines.close();
  if (password === "") throw new UsageError("no password was given on standard input");
  process.stdout.write(`${await hashPassword(password)}\n`);
  return 0;
}
