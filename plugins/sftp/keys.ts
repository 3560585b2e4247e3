/** The ways to log in that the configuration gives, in the order in which they are tried. */
import { readFile } from "node:fs/promises";
import ssh2, { type AnyAuthMethod, type IdentityCallback, type ParsedKey } from "ssh2";
import { Fault, faultOfErrno } from "../../core/errors.js";
import type { SftpOptions } from "./options.js";
import { shellWord } from "../../core/text.js";

export interface Way {
  /** As the server names it. */
  readonly method: "publickey" | "password" | "keyboard-interactive";
  /** For a person: "the key /home/pi/.ssh/id_ed25519"; once it was tried, with what is wrong with it. */
  readonly what: string;
  readonly auth: AnyAuthMethod;
}

/** Throws "denied", with the file, where a key cannot be used. */
export async function waysOf(options: SftpOptions): Promise<Way[]> {
  const { user: username, password, privateKey, agent } = options;
  const ways: Way[] = [];
  if (privateKey !== undefined) {
    const key = await keyOf(options, privateKey);
    ways.push({ method: "publickey", what: `the key ${privateKey}`, auth: { type: "publickey", username, key } });
  }
  if (agent !== undefined) ways.push(wayBy(agent, username));
  if (password !== undefined) {
    const secret = password.reveal();
    ways.push({ method: "password", what: "the password", auth: { type: "password", username, password: secret } });
    ways.push({
      method: "keyboard-interactive",
      what: "the password as an answer",
      auth: {
        type: "keyboard-interactive",
        username,
        // A question that shows what is typed is no question for a password.
        prompt: (_name, _instructions, _language, prompts, answer) => answer(prompts.map(({ echo }) => (echo === true ? "" : secret))),
      },
    });
  }
  return ways;
}

function wayBy(socket: string, username: string): Way {
  const agent = new Agent(socket);
  return {
    method: "publickey",
    get what() {
      return `the agent ${socket}${agent.empty ? ", which holds no key (or is locked): ssh-add puts one in" : ""}`;
    },
    auth: { type: "agent", username, agent },
  };
}

class Agent extends ssh2.OpenSSHAgent {
  empty = false;

  override getIdentities(given: IdentityCallback<ParsedKey>): void {
    super.getIdentities((error, keys) => {
      this.empty = keys?.length === 0;
      given(error, keys);
    });
  }
}

/** What was read last. To open a key with a passphrase takes more than half a second, in which nothing else is done. */
const kept = new WeakMap<SftpOptions, { readonly content: Buffer; readonly key: ReturnType<typeof parsed> }>();

async function keyOf(options: SftpOptions, file: string): Promise<ReturnType<typeof parsed>> {
  let content: Buffer;
  try {
    content = await readFile(file);
  } catch (error) {
    throw new Fault("denied", faultOfErrno(error, `cannot read the private key ${file}`).message, { cause: error });
  }
  const before = kept.get(options);
  if (before?.content.equals(content) === true) return before.key;
  const key = parsed(content, file, options.passphrase?.reveal());
  kept.set(options, { content, key });
  return key;
}

function parsed(content: Buffer, file: string, passphrase: string | undefined) {
  const key = ssh2.utils.parseKey(content, passphrase);
  if (!(key instanceof Error)) {
    // A file may hold several; the first is the one that ssh takes.
    const one = Array.isArray(key) ? (key as (typeof key)[]).find((it) => it.isPrivateKey()) : key;
    if (one?.isPrivateKey() === true) return one;
    throw new Fault("denied", `${file} is a public key: "privateKey" is the file without ".pub"`);
  }
  const { message } = key;
  if (/no passphrase given/i.test(message)) throw new Fault("denied", `the private key ${file} has a passphrase: put it into "passphrase"`);
  if (passphrase !== undefined && /bad passphrase|integrity check|bad decrypt|wrong passphrase|unable to|malformed/i.test(message))
    throw new Fault("denied", `the "passphrase" does not open the private key ${file}`);
  const pkcs8 = content.includes("-----BEGIN ENCRYPTED PRIVATE KEY") || content.includes("-----BEGIN PRIVATE KEY");
  if (pkcs8)
    throw new Fault(
      "denied",
      `the private key ${file} is in the form PKCS#8, which is not read: "ssh-keygen -p -f ${shellWord(file)}" makes it anew`,
    );
  if (content.includes("PuTTY-User-Key-File-"))
    throw new Fault(
      "denied",
      `the private key ${file} is in a form of PuTTY's that is not read: "puttygen ${shellWord(file)} -O private-openssh -o NEW" (package putty-tools), ` +
        "or PuTTYgen's Conversions, Export OpenSSH key, makes one that is",
    );
  throw new Fault("denied", `${file} is no private key that can be used here (${message})`);
}
