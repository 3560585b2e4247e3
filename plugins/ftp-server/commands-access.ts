/**
 * Commands around a session: login, TLS, modes, ports for data, and what a client may ask about the server.
 *
 * RFC 959, 2228/4217 (AUTH, PBSZ, PROT), 2389 (FEAT, OPTS), 2428 (EPSV), AVBL (draft-peterson-streamlined-ftp-command-extensions). Only stream mode, file structure and bytes as they are: TYPE A
 * is accepted and changes nothing, as common servers do, so a size is the same in both types.
 */
import { passwordIs } from "../../core/password.js";
import { Answer } from "./answer.js";
import { factNames, type Fact } from "./listing.js";
import type { User } from "./options.js";
import type { Login, Session, Verbs } from "./session.js";

const wrongPasswordsPerConnection = 3;

export const accessVerbs: Verbs = {
  USER: { open: true, words: "<name>", run: user },
  PASS: { open: true, words: "<password>", run: pass },
  AUTH: { open: true, words: "TLS", run: auth },
  PBSZ: {
    open: true,
    words: "0",
    run: async (session) => {
      if (!session.secure) throw new Answer(503, "AUTH TLS comes first.");
      await session.reply(200, "PBSZ=0");
    },
  },
  PROT: { open: true, words: "C | P", run: prot },
  QUIT: {
    open: true,
    run: async (session) => {
      await session.reply(221, "Goodbye.");
      session.hangUp();
    },
  },
  NOOP: { open: true, run: (session) => session.reply(200, "OK.") },
  SYST: { open: true, run: (session) => session.reply(215, "UNIX Type: L8") },
  FEAT: { open: true, run: feat },
  OPTS: { open: true, words: "UTF8 ON | MLST <facts> | HASH [SHA-256]", run: opts },
  HELP: { open: true, run: help },
  TYPE: {
    words: "I | A",
    run: async (session, arg) => {
      if (!/^(I|A( N)?|L ?8)$/i.test(text(arg))) throw new Answer(504, "Only types I, A and L 8.");
      await session.reply(200, "Type set; bytes are sent as they are.");
    },
  },
  MODE: { words: "S", run: (session, arg) => only(session, arg, "S", "stream mode") },
  STRU: { words: "F", run: (session, arg) => only(session, arg, "F", "file structure") },
  ALLO: { words: "<bytes>", run: allo },
  AVBL: {
    words: "[<directory>]",
    run: async (session, arg) => {
      const { rights, root } = session.login();
      const free = await root.freeBytes(session.place(arg));
      await session.reply(213, String(rights.full === undefined ? free : 0));
    },
  },
  REST: {
    words: "<offset>",
    run: async (session, arg) => {
      const offset = Number(text(arg));
      if (!/^\d+$/.test(text(arg)) || !Number.isSafeInteger(offset)) throw new Answer(501, "REST takes a number of bytes.");
      session.restAt = offset;
      await session.reply(350, `Restarting at ${offset}.`);
    },
  },
  PASV: { run: pasv },
  EPSV: { words: "[1 | 2 | ALL]", run: epsv },
  // Connecting to an address that a client names would let it use this server against others.
  PORT: { run: refusePort },
  EPRT: { run: refusePort },
  ABOR: { run: (session) => session.reply(226, "Nothing is being transferred.") },
  STAT: { run: stat },
};

const text = (arg: Buffer): string => arg.toString().trim();

async function only(session: Session, arg: Buffer, letter: string, what: string): Promise<void> {
  if (text(arg).toUpperCase() !== letter) throw new Answer(504, `Only ${what}.`);
  await session.reply(200, "OK.");
}

async function user(session: Session, arg: Buffer): Promise<void> {
  const { tls } = session.shared.options;
  if (tls?.required === true && !session.secure) throw new Answer(530, "This server wants TLS: AUTH TLS first.");
  session.logOut();
  session.named = arg.toString();
  // The same answer for a name that nobody has: names cannot be tried out.
  await session.reply(331, "Password, please.");
}

async function pass(session: Session, arg: Buffer): Promise<void> {
  const { shared, named: name } = session;
  if (name === undefined) throw new Answer(503, "USER comes first.");
  session.named = undefined;
  let rights: User | undefined;
  const right = await shared.doorkeeper.attempt(session.address, name, session.ended, async () => {
    // Once it is its turn: it may have had to wait for others.
    rights = await shared.userOf(name);
    return passwordIs(arg, rights?.password, rights?.passwordHash);
  });
  if (!right || rights === undefined) {
    session.wrongPasswords += 1;
    shared.complain(`login refused: wrong password or user, from ${session.address}`, { user: name, address: session.address });
    const enough = session.wrongPasswords >= wrongPasswordsPerConnection;
    throw enough ? new Answer(421, "Too many wrong passwords.") : new Answer(530, "Wrong user or password.");
  }
  const login: Login = { name, rights, root: await shared.rootOf(name, rights) };
  if (!shared.admit(login)) {
    shared.complain(`login refused: ${name} is logged in too many times`, { user: name, address: session.address });
    throw new Answer(421, "This user is logged in too many times.");
  }
  session.user = login;
  session.cwd = [];
  shared.loggedIn(login, session);
  await session.reply(230, "Logged in.");
}

async function auth(session: Session, arg: Buffer): Promise<void> {
  const secureContext = await session.shared.secureContext();
  if (secureContext === undefined) throw new Answer(502, "TLS is not set up on this server.");
  if (session.secure) throw new Answer(503, "TLS is on already.");
  if (!/^(TLS|TLS-C|SSL)$/i.test(text(arg))) throw new Answer(504, "Only AUTH TLS.");
  session.logOut();
  await session.startTls(secureContext);
}

async function prot(session: Session, arg: Buffer): Promise<void> {
  if (!session.secure) throw new Answer(503, "AUTH TLS comes first.");
  const level = text(arg).toUpperCase();
  if (level !== "C" && level !== "P") throw new Answer(504, "Only PROT C and PROT P.");
  if (level === "C" && session.shared.options.tls?.required === true) throw new Answer(534, "Data must be protected here.");
  session.protectData = level === "P";
  await session.reply(200, level === "P" ? "Data is protected." : "Data is sent in clear.");
}

async function feat(session: Session): Promise<void> {
  const facts = factNames.map((fact) => `${fact}${session.facts.has(fact) ? "*" : ""};`).join("");
  const tls = session.shared.options.tls === undefined ? [] : ["AUTH TLS", "PBSZ", "PROT"];
  const list = [
    "AVBL",
    ...tls,
    "EPSV",
    "HASH SHA-256*",
    "MDTM",
    "MFMT",
    `MLST ${facts}`,
    "PASV",
    "REST STREAM",
    "SITE COPY",
    "SIZE",
    "TVFS",
    "UTF8",
  ];
  await session.reply(211, "Features:", ...list, "End");
}

async function opts(session: Session, arg: Buffer): Promise<void> {
  const [what = "", ...rest] = text(arg).split(/\s+/);
  const value = rest.join(" ");
  switch (what.toUpperCase()) {
    case "UTF8":
    case "UTF-8":
      if (!/^(ON)?$/i.test(value)) throw new Answer(504, "Names are always UTF-8.");
      return session.reply(200, "Names are UTF-8.");
    case "HASH":
      if (!/^(SHA-256)?$/i.test(value)) throw new Answer(504, "Only SHA-256.");
      return session.reply(200, "SHA-256");
    case "MLST": {
      const wanted = value.toLowerCase().split(";");
      session.facts = new Set<Fact>(factNames.filter((fact) => wanted.includes(fact)));
      return session.reply(200, `MLST OPTS ${[...session.facts].map((fact) => `${fact};`).join("")}`);
    }
    default:
      throw new Answer(501, "There is no such option.");
  }
}

async function help(session: Session): Promise<void> {
  const names = session.shared.verbs.map(([name, words]) => (words === undefined ? name : `${name} ${words}`));
  await session.reply(214, "Commands:", ...names, "End.");
}

async function allo(session: Session, arg: Buffer): Promise<void> {
  const bytes = Number(/^\d+/.exec(text(arg))?.[0] ?? NaN);
  if (!Number.isFinite(bytes)) throw new Answer(501, "ALLO takes a number of bytes.");
  const { rights, root } = session.login();
  if (rights.full !== undefined) throw new Answer(552, rights.full);
  if (bytes > (await root.freeBytes([]))) throw new Answer(552, "Not that much space is left.");
  await session.reply(200, "There is space.");
}

async function pasv(session: Session): Promise<void> {
  if (session.onlyEpsv) throw new Answer(501, "EPSV ALL was sent.");
  const host = session.shared.options.passiveHost ?? session.localAddress;
  if (host.includes(":")) throw new Answer(425, "PASV cannot tell an IPv6 address: use EPSV.");
  const { port } = await session.openPassive();
  await session.reply(227, `Entering Passive Mode (${host.replaceAll(".", ",")},${port >> 8},${port & 255}).`);
}

async function epsv(session: Session, arg: Buffer): Promise<void> {
  const wanted = text(arg).toUpperCase();
  if (wanted === "ALL") {
    session.onlyEpsv = true;
    return session.reply(200, "Only EPSV from now on.");
  }
  const family = session.localAddress.includes(":") ? "2" : "1";
  if (wanted !== "" && wanted !== family) throw new Answer(522, `Network protocol not supported, use (${family})`);
  const { port } = await session.openPassive();
  await session.reply(229, `Entering Extended Passive Mode (|||${port}|)`);
}

function refusePort(session: Session): Promise<void> {
  session.shared.complain(`PORT refused to ${session.address}: only passive mode`, {
    user: session.user?.name,
    address: session.address,
  });
  return Promise.reject(new Answer(502, "Only passive mode: use EPSV or PASV."));
}

async function stat(session: Session, arg: Buffer): Promise<void> {
  if (arg.length > 0) throw new Answer(504, "STAT of a path is not known here: use MLST.");
  const tls = session.secure ? "with TLS" : "without TLS";
  await session.reply(211, "FileSync FTP server", `Logged in as ${session.login().name} ${tls}`, "Type I, mode S, structure F", "End.");
}
