/** A wall clock that a test sets: libfaketime (Debian's "faketime"). */
import { existsSync, writeFileSync } from "node:fs";

const library = ["x86_64", "aarch64", "arm"]
  .flatMap((arch) => ["", "eabihf"].map((abi) => `/usr/lib/${arch}-linux-gnu${abi}/faketime/libfaketimeMT.so.1`))
  .find((path) => existsSync(path));
export const hasFakeClock = library !== undefined;

/** For a program whose clock goes as the file says from now on: "+0", "-3d", "+10y". */
export function clockEnv(file: string): NodeJS.ProcessEnv {
  writeFileSync(file, "+0");
  return {
    LD_PRELOAD: library,
    FAKETIME_TIMESTAMP_FILE: file,
    FAKETIME_NO_CACHE: "1",
    FAKETIME_DONT_FAKE_MONOTONIC: "1",
    NO_FAKE_STAT: "1",
  };
}
