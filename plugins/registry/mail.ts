/** The mail with the link that confirms a registration. It is tried until the mail server takes it, or refuses it for good. */
import { createTransport, type Transporter } from "nodemailer";
import { Fault } from "../../core/errors.js";
import { hostAndPort, netFault, tlsOptions } from "../../core/net.js";
import type { Clock } from "../../core/plugin.js";
import type { Secret } from "../../core/options.js";

export interface MailOptions {
  readonly host: string;
  readonly port: number;
  /** true: TLS from the first byte; "starttls": nothing is sent without; false: as the server can. */
  readonly secure: boolean | "starttls";
  readonly user?: string | undefined;
  readonly password?: Secret | undefined;
  readonly from: string;
  /** Believed in place of the system's. */
  readonly tls: { readonly ca?: string | undefined };
}

export interface Letter {
  readonly to: string;
  readonly subject: string;
  readonly text: string;
}

/** `refused`: there is no such address, and no later try would help; `why` is the server's word. */
export type Sent = { readonly state: "sent" } | { readonly state: "refused" | "later"; readonly why: string };

const serverMs = 30_000;
const probeMs = 5000;

export class Mailer {
  readonly #transport: Transporter;
  readonly #from: string;
  readonly #at: string;
  readonly #secure: MailOptions["secure"];
  /** What a server may repeat of a login: the password, and the forms in which it goes out. */
  readonly #secrets: readonly string[];

  private constructor({ host, port, secure, from, user = "", password }: MailOptions, transport: Transporter) {
    this.#from = from;
    this.#at = hostAndPort(host, port);
    this.#secure = secure;
    this.#transport = transport;
    const plain = password?.reveal() ?? "";
    const coded = [plain, `\0${user}\0${plain}`].map((text) => Buffer.from(text).toString("base64"));
    this.#secrets = plain.length < 3 ? [] : [...coded, plain];
  }

  /** Throws "config" where the file of certificates cannot be read. */
  static async of(options: MailOptions, patienceMs = serverMs): Promise<Mailer> {
    const { host, port, secure, user, password, tls } = options;
    const transport = createTransport({
      host,
      port,
      secure: secure === true,
      requireTLS: secure === "starttls",
      tls: await tlsOptions(host, tls),
      ...(user === undefined ? {} : { auth: { user, pass: password?.reveal() ?? "" } }),
      dnsTimeout: patienceMs,
      connectionTimeout: patienceMs,
      greetingTimeout: patienceMs,
      socketTimeout: patienceMs,
      // Nothing of a letter is ever read from a file or a URL.
      disableFileAccess: true,
      disableUrlAccess: true,
    });
    return new Mailer(options, transport);
  }

  /** Whether the server lets it in; nothing is sent. Throws "offline", with the server's word, and "config". */
  static async probe(options: MailOptions): Promise<void> {
    const mailer = await Mailer.of(options, probeMs);
    try {
      await mailer.#transport.verify();
    } catch (error) {
      const at = `${mailer.#at}: `;
      const word = mailer.#wordOf(error);
      throw new Fault("offline", `no mail can be sent by ${word.startsWith(at) ? "" : at}${word}`, { cause: error });
    } finally {
      mailer.close();
    }
  }

  async send({ to, subject, text }: Letter): Promise<Sent> {
    try {
      // No holiday's notice comes back (RFC 3834).
      const headers = { "Auto-Submitted": "auto-generated" };
      await this.#transport.sendMail({ from: this.#from, to: { name: "", address: to }, subject, text, headers });
      return { state: "sent" };
    } catch (error) {
      return { state: isNoAddress(error) ? "refused" : "later", why: this.#wordOf(error) };
    }
  }

  close(): void {
    this.#transport.close();
  }

  #wordOf(error: unknown): string {
    const said = this.#ofSocket(error) ?? error;
    const word = said instanceof Error ? (said.message.split("\n")[0] ?? "") : String(said);
    return this.#secrets.reduce((text, secret) => text.replaceAll(secret, "***"), word);
  }

  /** An error of node, over whose code nodemailer put its own. */
  #ofSocket(error: unknown): Fault | undefined {
    const { originalCode: code, reason } = error as { originalCode?: unknown; reason?: unknown };
    if (!(error instanceof Error) || typeof code !== "string") return undefined;
    const noTls = (why: string) =>
      `what answers on this port speaks no TLS from the first byte (${why}); "secure": "starttls" asks for TLS (usually at port 587)`;
    return netFault(Object.assign(new Error(error.message), { code, reason }), {
      ...{ what: this.#at, connecting: true, clockTrusted: true },
      ...(this.#secure === true ? { noTls } : {}),
    });
  }
}

/** Servers without codes of RFC 3463 (Exim, qmail) refuse by words, to any address, who sends. */
const ofWhoSends = /relay|sender|authenti|not permitted|denied|prohibit|block|list|spam|polic/i;

/** RFC 5321, section 4.2.3, and RFC 3463: 5.7 is about who sends, which is the operator's to mend, as is all that is refused before or after the address. */
function isNoAddress(error: unknown): boolean {
  const { command = "", responseCode = 0, response = "" } = error as { command?: string; responseCode?: number; response?: string };
  if (command !== "RCPT TO" || ![550, 551, 553].includes(responseCode)) return false;
  const code = /^\d{3}[ -](5\.\d+\.\d+)\b/.exec(response)?.[1];
  // Addresses may have any of those words in them.
  if (code === undefined) return !ofWhoSends.test(response.replaceAll(/\S+@\S+/g, ""));
  // Postfix refuses a sender when the address comes: 5.1.7 and 5.1.8, and 5.1.0 with these words.
  return !/^5\.(7\.|1\.[78]$)/.test(code) && !/sender address/i.test(response);
}

/** Tries again later and later: 10 s doubling to 10 min. */
export class MailTries {
  readonly #clock: Clock;
  readonly #tries = new Map<string, { count: number; atMs: number }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  isDue(id: string): boolean {
    return (this.#tries.get(id)?.atMs ?? 0) <= this.#clock.monotonicMs();
  }

  failed(id: string): void {
    const count = (this.#tries.get(id)?.count ?? 0) + 1;
    this.#tries.set(id, { count, atMs: this.#clock.monotonicMs() + Math.min(600_000, 10_000 * 2 ** (count - 1)) });
  }

  done(id: string): void {
    this.#tries.delete(id);
  }
}
