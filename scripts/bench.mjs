// `npm run bench [-- NAME…]`: makes the clone ready, then runs benchmarks.
import { makeReady } from "./ready.mjs";

makeReady();
await import("../dist/bench/run.js");
