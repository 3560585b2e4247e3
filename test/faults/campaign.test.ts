/** The short form of the campaign. The long one: npm run campaign -- --kills 30 */
import { test } from "node:test";
import { campaign } from "./campaign.js";

test("a flight controller's logs reach an FTP server and a second target through kills", async (t) => {
  const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));
  t.diagnostic(`SEED=${seed}`);
  const report = await campaign({ seed, kills: 8, files: 12, longestMs: 3000 });
  t.diagnostic(JSON.stringify(report));
});
