/**
 * Opens data connections: EPSV, else PASV, always to the host of the control connection.
 *
 * The address in an answer to PASV is not used: behind NAT it is a private one, and an evil server could name anybody's. With TLS the
 * session of the control connection goes on, which many servers ask for; the certificate is checked again where it is pinned.
 */
import { connect as connectTcp, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { FTPError, type FTPContext, type FTPResponse } from "basic-ftp";

/** Contexts whose server does not know EPSV: it is not asked again. */
const onlyPasv = new WeakSet<FTPContext>();

export interface DataOptions {
  readonly timeoutMs: number;
  /** Throws when the other side is not who it should be. */
  readonly check: (socket: Socket) => void;
  /** Called when the connection takes bytes: with TLS, after the handshake, which servers begin with the transfer. */
  readonly ready: () => void;
}

/** Gives basic-ftp a data connection. */
export async function openData(ftp: FTPContext, { timeoutMs, check, ready }: DataOptions): Promise<FTPResponse> {
  const { response, port } = await askPort(ftp);
  const host = ftp.socket.remoteAddress;
  if (host === undefined) throw new Error("the control connection has ended");
  const raw = await connected(host, port, timeoutMs);
  if (!ftp.hasTLS) {
    ftp.dataSocket = raw;
    ready();
    return response;
  }
  const control = ftp.socket as Socket & { getSession?: () => Buffer | undefined };
  const session = ftp.tlsSessionStore ?? control.getSession?.();
  const secured = connectTls({ ...ftp.tlsOptions, socket: raw, ...(session === undefined ? {} : { session }) });
  // Servers give a new ticket with each connection, and take each one once.
  secured.on("session", (ticket) => {
    ftp.tlsSessionStore = ticket;
  });
  secured.once("secureConnect", () => {
    try {
      check(secured);
      ready();
    } catch (error) {
      ftp.closeWithError(error instanceof Error ? error : new Error(String(error)));
    }
  });
  ftp.dataSocket = secured;
  return response;
}

async function askPort(ftp: FTPContext): Promise<{ response: FTPResponse; port: number }> {
  if (!onlyPasv.has(ftp)) {
    try {
      const response = await ftp.request("EPSV");
      const port = /\(([!-~])\1\1(\d{1,5})\1\)/.exec(response.message)?.[2];
      if (response.code === 229 && port !== undefined) return { response, port: Number(port) };
    } catch (error) {
      if (!(error instanceof FTPError) || error.code < 500) throw error;
    }
    onlyPasv.add(ftp);
  }
  const response = await ftp.request("PASV");
  const match = /\d+,\d+,\d+,\d+,(\d+),(\d+)/.exec(response.message);
  if (match === null) throw new Error("the server's answer to PASV names no port");
  return { response, port: (Number(match[1]) & 255) * 256 + (Number(match[2]) & 255) };
}

function connected(host: string, port: number, timeoutMs: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connectTcp({ host, port, noDelay: true });
    const fail = (error: Error): void => {
      clearTimeout(timer);
      socket.destroy();
      // Whatever it was, it was not the server that is not there: its control connection is open.
      reject(new Error(`no data connection to port ${port}: ${error.message}`, { cause: error }));
    };
    const timer = setTimeout(() => fail(new Error("no answer")), timeoutMs);
    socket.once("error", fail);
    socket.once("connect", () => {
      clearTimeout(timer);
      socket.off("error", fail);
      resolve(socket);
    });
  });
}
