/** Another kind of server at the port of a device: told within its timeout, as what it is, with what to look at; and the device is set aside, not each file. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { promises as fs } from "node:fs";
import http from "node:http";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import type { Plugin } from "../../core/plugin.js";
import { plugin as ftp } from "../../plugins/ftp/plugin.js";
import { plugin as post } from "../../plugins/post/plugin.js";
import { plugin as rsync } from "../../plugins/rsync/plugin.js";
import { plugin as sftp } from "../../plugins/sftp/plugin.js";
import { plugin as webdav } from "../../plugins/webdav/plugin.js";
import { expectFault } from "./clause.js";
import { rsyncShell } from "./rsync-servers.js";
import { deviceOf } from "./served.js";
import { makeKey } from "./sftp-servers.js";
import { context } from "./upload.js";

/** As vsftpd: it speaks first, refuses what it does not know, and waits for more. */
const ftpServer = () =>
  serving((socket) => {
    socket.write("220 (vsFTPd 3.0.3)\r\n");
    socket.on("data", () => socket.write("530 Please login with USER and PASS.\r\n"));
  });
const sshServer = () => serving((socket) => socket.write("SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"));
const webServer = () => http.createServer((request, response) => response.writeHead(request.method === "PROPFIND" ? 405 : 200).end("page"));
const tlsServer = () =>
  http.createServer((_request, response) => response.writeHead(400).end("<p>The plain HTTP request was sent to HTTPS port</p>"));

function serving(serve: (socket: Socket) => void): Server {
  return createServer((socket) => {
    socket.on("error", () => undefined);
    serve(socket);
  });
}

async function portOf(t: TestContext, server: Server): Promise<number> {
  const sockets = new Set<Socket>();
  server.on("connection", (socket: Socket) => sockets.add(socket));
  t.after(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  return (server.address() as AddressInfo).port;
}

const login = { host: "127.0.0.1", user: "pi", password: "x" };
const hostKey = `SHA256:${"A".repeat(43)}`;
const ssh = (port: number) => ({ ...login, hostKey, port });
const withKey = (port: number, dir: string) => ({ host: login.host, user: "pi", privateKey: join(dir, "key"), hostKey, port });
const at = (url: string) => (port: number) => ({ url: url.replace("PORT", String(port)) });

type Case = readonly [
  type: string,
  of: string,
  () => Server,
  words: RegExp,
  options: (port: number, dir: string) => Readonly<Record<string, unknown>>,
];
const cases: readonly Case[] = [
  ["sftp", "FTP", ftpServer, /no SSH server: "220 \(vsFTPd 3\.0\.3\)"; look at "host" and "port"/, ssh],
  ["sftp", "the web", webServer, /no SSH server: "HTTP\/1\.1 400 Bad Request"; look at/, ssh],
  ["rsync", "FTP", ftpServer, /no SSH server: "220 \(vsFTPd 3\.0\.3\)"; look at/, withKey],
  ["rsync", "the web", webServer, /no SSH server: "HTTP\/1\.1 400 Bad Request"; look at/, withKey],
  ["ftp", "SSH", sshServer, /no FTP server: "SSH-2\.0-OpenSSH_9\.2p1 Debian-2"; look at "host" and "port"/, (port) => ({ ...login, port })],
  ["ftp", "the web", webServer, /no FTP server: "HTTP\/1\.1 200 OK"; look at/, (port) => ({ ...login, port })],
  ["webdav", "SSH", sshServer, /no web server: "SSH-2\.0-OpenSSH_9\.2p1 Debian-2"; look at "url"/, at("http://127.0.0.1:PORT")],
  ["post", "FTP", ftpServer, /no web server: "220 \(vsFTPd 3\.0\.3\)"; look at "url"/, at("http://127.0.0.1:PORT/in")],
  ["webdav", "the web, without TLS", webServer, /no TLS .*look at "url".*"http:/, at("https://127.0.0.1:PORT")],
  ["webdav", "the web, with TLS", tlsServer, /is for TLS; look at "url".*"https:/, at("http://127.0.0.1:PORT")],
  ["post", "the web, with TLS", tlsServer, /is for TLS; look at "url".*"https:/, at("http://127.0.0.1:PORT/in")],
];

const made = { ftp, post, rsync, sftp, webdav } as Readonly<Record<string, Plugin<unknown>>>;

for (const [type, of, server, words, options] of cases)
  test(`${type} at a server of ${of}`, { skip: type === "rsync" ? (rsyncShell.skip ?? false) : false }, async (t) => {
    const dir = await fs.mkdtemp(join(tmpdir(), "filesync-stranger-"));
    t.after(() => fs.rm(dir, { recursive: true }));
    if (type === "rsync") makeKey(join(dir, "key"));
    const port = await portOf(t, server());
    const device = deviceOf(made[type] as Plugin<unknown>, { timeout: "6s", ...options(port, dir) }, context({ stateDir: dir }));
    t.after(() => device.close());
    assert.match(await expectFault(device.probe(AbortSignal.timeout(6000)), "denied"), words);
  });
