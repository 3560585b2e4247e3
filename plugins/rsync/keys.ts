/** Why a server may not let the user in, as far as it can be found out here. */
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { connect } from "node:net";
import { Fault, faultOfErrno } from "../../core/errors.js";
import type { Children } from "./children.js";
import type { RsyncOptions } from "./options.js";

/** Throws "denied" where the file of the private key cannot be one. */
export async function expectKeyFile({ privateKey }: RsyncOptions): Promise<void> {
  if (privateKey === undefined) return;
  let text: string;
  try {
    text = await readFile(privateKey, "latin1");
  } catch (error) {
    throw new Fault("denied", faultOfErrno(error, `cannot read the private key ${privateKey}`).message, { cause: error });
  }
  if (/^(ssh|ecdsa|sk)-\S+ AAAA/.test(text))
    throw new Fault("denied", `${privateKey} is a public key: "privateKey" is the file without ".pub"`);
}

/** The Fault for a login that was refused, with what the refused way lacks. */
export async function notLetIn(options: RsyncOptions, refused: Fault, children: Children, signal: AbortSignal): Promise<Fault> {
  const { privateKey, agent, user } = options;
  if (agent !== undefined && !(await answers(agent)))
    return new Fault("offline", `the SSH agent at ${agent} is not there, so nobody can log in with its keys`, { cause: refused });
  if (privateKey !== undefined && agent === undefined) {
    const { code, err } = await children.run(["ssh-keygen", "-y", "-P", "", "-f", privateKey], { signal });
    if (code !== 0 && /passphrase/i.test(err))
      return new Fault(
        "denied",
        `the private key ${privateKey} has a passphrase, which nobody can type here: put the key into an SSH agent and name its socket in ` +
          '"agent", or use a key without one',
        { cause: refused },
      );
    if (code !== 0 && /invalid format|not a .*key|error in libcrypto/i.test(err))
      return new Fault("denied", `${privateKey} is no private key that ssh can use`, { cause: refused });
  }
  const ways = [privateKey === undefined ? [] : [`the key ${privateKey}`], agent === undefined ? [] : [`the agent ${agent}`]].flat();
  return new Fault("denied", `the server does not let the user "${user}" in with ${ways.join(" or ")} (${refused.message})`, {
    cause: refused,
  });
}

async function answers(socketPath: string): Promise<boolean> {
  const socket = connect(socketPath);
  try {
    await once(socket, "connect");
    return true;
  } catch {
    // Not there, or nobody listens.
    return false;
  } finally {
    socket.destroy();
  }
}
