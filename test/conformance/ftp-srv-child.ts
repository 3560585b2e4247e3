/** ftp-srv as a program of its own: `node ftp-srv-child.js DIR USER PASSWORD`; writes its port when it listens. */
import { createServer, type AddressInfo } from "node:net";
import { FtpSrv } from "ftp-srv";

const [dir = "", user = "", password = ""] = process.argv.slice(2);
const probe = createServer().listen(0, "127.0.0.1", () => {
  const { port } = probe.address() as AddressInfo;
  probe.close(() => void serve(port));
});

async function serve(port: number): Promise<void> {
  const server = new FtpSrv({ url: `ftp://127.0.0.1:${port}`, pasv_url: "127.0.0.1", anonymous: false });
  server.on("login", (login, resolve, reject) => {
    if (login.username === user && login.password === password) resolve({ root: dir });
    else reject(new Error("wrong user or password"));
  });
  await server.listen();
  process.stdout.write(`PORT ${port}\n`);
}
