/** A real SMTP server that keeps what it is given: user "u", password "p". */
import assert from "node:assert/strict";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import type { TestContext } from "node:test";
import { SMTPServer } from "smtp-server";
import { Secret } from "../core/options.js";
import type { MailOptions } from "../plugins/registry/mail.js";

export interface MailServer {
  readonly options: MailOptions;
  readonly letters: { readonly to: string; readonly text: string }[];
  next(): Promise<{ readonly to: string; readonly text: string }>;
}

export interface MailServerGiven {
  /** Of an address that it takes no mail for, at the moment or for good. */
  readonly refuse?: (address: string) => Error | undefined | Promise<Error | undefined>;
  /** Of senders. */
  readonly sender?: () => Error | undefined;
  /** It offers STARTTLS. */
  readonly tls?: { readonly cert: string; readonly key: string };
}

export async function mailServer(t: TestContext, { refuse, sender, tls }: MailServerGiven = {}): Promise<MailServer> {
  const letters: { to: string; text: string }[] = [];
  const waiting: (() => void)[] = [];
  let read = 0;
  const server = new SMTPServer({
    ...(tls ?? { disabledCommands: ["STARTTLS"] }),
    authOptional: true,
    onAuth: (auth, _, done) =>
      auth.username === "u" && auth.password === "p" ? done(null, { user: "u" }) : done(new Error("wrong password")),
    onMailFrom: (_, __, done) => done(sender?.() ?? null),
    onRcptTo: (address, _, done) => void Promise.resolve(refuse?.(address.address)).then((error) => done(error ?? null)),
    onData: (stream, session, done) => {
      let text = "";
      stream.on("data", (chunk: Buffer) => (text += chunk.toString()));
      stream.on("end", () => {
        for (const { address } of session.envelope.rcptTo) letters.push({ to: address, text });
        done();
        waiting.splice(0).forEach((wake) => wake());
      });
    },
  });
  server.listen(0, "127.0.0.1");
  await once(server.server, "listening");
  t.after(() => new Promise<void>((resolve) => server.close(() => resolve())));
  const { port } = server.server.address() as AddressInfo;
  return {
    options: { host: "127.0.0.1", port, secure: false, user: "u", password: new Secret("p"), from: "ground@example.org", tls: {} },
    letters,
    next: async () => {
      while (letters.length <= read)
        await new Promise<void>((resolve, reject) => {
          const late = setTimeout(() => reject(new Error("no mail came within a minute")), 60_000);
          waiting.push(() => {
            clearTimeout(late);
            resolve();
          });
        });
      return letters[read++]!;
    },
  };
}

/** The path of the link in a mail, as it went over the wire. */
export function linkIn({ text }: { readonly text: string }): string {
  const plain = text.replace(/=\r?\n/g, "").replace(/=3D/g, "=");
  const found = /https:\/\/[^/\s]+(\/confirm\/[\w-]+)/.exec(plain)?.[1];
  assert.ok(found, plain);
  return found;
}
