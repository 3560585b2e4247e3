/** The mail with the link that confirms a registration. It is tried until the mail server takes it, or refuses it for good. */
import { createTransport, type Transporter } from "nodemailer";
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
}

export interface Letter {
  readonly to: string;
  readonly subject: string;
  readonly text: string;
}

/** `refused`: no later try would help; `why` is the server's word. */
export type Sent = { readonly state: "sent" } | { readonly state: "refused" | "later"; readonly why: string };

const serverMs = 30_000;

export class Mailer {
  readonly #transport: Transporter;
  readonly #from: string;

  constructor({ host, port, secure, user, password, from }: MailOptions) {
    this.#from = from;
    this.#transport = createTransport({
      host,
      port,
      secure: secure === true,
      requireTLS: secure === "starttls",
      ...(user === undefined ? {} : { auth: { user, pass: password?.reveal() ?? "" } }),
      connectionTimeout: serverMs,
      greetingTimeout: serverMs,
      socketTimeout: serverMs,
      // Nothing of a letter is ever read from a file or a URL.
      disableFileAccess: true,
      disableUrlAccess: true,
    });
  }

  async send({ to, subject, text }: Letter): Promise<Sent> {
    try {
      await this.#transport.sendMail({ from: this.#from, to: { name: "", address: to }, subject, text });
      return { state: "sent" };
    } catch (error) {
      const why = error instanceof Error ? (error.message.split("\n")[0] ?? "") : String(error);
      const { responseCode = 0, code = "" } = error as { responseCode?: number; code?: string };
      // A login that fails is the operator's to mend; an address that is refused is not there.
      return { state: responseCode >= 500 && code !== "EAUTH" ? "refused" : "later", why };
    }
  }

  close(): void {
    this.#transport.close();
  }
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
