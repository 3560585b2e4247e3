/**
 * V8's heap, held small: by itself it takes what memory it likes, and a companion computer has little. When 5,000 small files were sent, 57 MB
 * were taken for old objects of which 11 lived, and 34 for young ones of which 2 did. It costs up to a fifth
 * of the processor time of thousands of small files, and next to nothing of large ones.
 */
import { setFlagsFromString } from "node:v8";

/** For the whole process. Again whenever a thread has begun: V8 does not let a new one have less than its own least growth, and gives that to all. */
export function holdHeap(): void {
  setFlagsFromString("--heap-growing-percent=50");
  setFlagsFromString("--semi-space-growth-factor=1");
}
