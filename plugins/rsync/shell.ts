/**
 * A shell at the server that stays, where one is allowed: what it is asked, of many files at once, costs no login and few processes. It needs what
 * POSIX asks of `sh`, `ls`, `ln`, `mv`, `rm`, `mkdir` and `touch`, and `sha256sum` or `shasum`. What `sync` is for, it does without where there is none.
 *
 * Names go between single quotes, in which a shell changes nothing: any bytes, line ends too.
 */
import { randomBytes } from "node:crypto";
import { Fault } from "../../core/errors.js";
import { endGroup, tailOf, type Child, type Children } from "./children.js";

/** `pub`: y the partial has its name, x another file has it, e why not. Never over anything: link(2), or mv -n where there are no links. */
const functions = `set -f
st() { for f do
  if [ -h "$f" ]; then echo o 0
  elif [ -f "$f" ]; then st1 "$f"
  elif [ -e "$f" ]; then echo o 0
  elif [ -d "\${f%/*}" ] && ! [ -x "\${f%/*}" ]; then echo p 0
  else echo - 0; fi; done; }
st1() { set -- $(ls -ldn -- "$1" 2>/dev/null); echo f "\${5:-?}"; }
if command -v sha256sum >/dev/null 2>&1; then S=sha256sum; elif command -v shasum >/dev/null 2>&1; then S="shasum -a 256"; else S=; fi
IFS=' 	
'
sums() { $S -- "$@" 2>/dev/null; }
sum1() { for f do $S <"$f" 2>/dev/null || echo -; done; }
pub() { while [ $# -gt 1 ]; do pub1 "$1" "$2"; shift 2; done; }
pub1() {
  if [ -e "$2" ] || [ -h "$2" ]; then if [ "$1" -ef "$2" ]; then echo y; else echo x; fi; return; fi
  ln -- "$1" "$2" 2>/dev/null && { echo y; return; }
  case $2 in */*) mkdir -p -- "\${2%/*}" 2>/dev/null;; esac
  m=$(ln -- "$1" "$2" 2>&1) && { echo y; return; }
  if [ -e "$2" ] || [ -h "$2" ]; then echo x; return; fi
  [ -e "$1" ] || { echo "e $m"; return; }
  m=$(mv -n -- "$1" "$2" 2>&1)
  if [ -e "$1" ]; then if [ -e "$2" ]; then echo x; else echo "e $m"; fi; else echo y; fi; }
lasts() { sync -- "$@" 2>/dev/null || :; }
last() { m=$(LC_ALL=C sync -- "$1" 2>&1) && { echo y; return; }
  case $m in *"Input/output error"*|*"No space left on device"*|*"quota exceeded"*) echo "e $m";; *) echo y;; esac; }
ok() { m=$("$@" 2>&1) && echo y || echo "e $m"; }
`;

interface Asked {
  readonly done: (answer: string) => void;
  readonly fail: (error: Fault) => void;
  readonly ms: number;
}

export class Shell {
  readonly #child: Child;
  readonly #fills: () => boolean;
  readonly #token = randomBytes(12).toString("hex");
  readonly #asked: Asked[] = [];
  readonly #tail: () => string;
  #timer: NodeJS.Timeout | undefined;
  #filled = false;
  #text = "";
  #over = false;

  /** `fills`: whether something else fills the connection now; over a slow link what a shell is asked waits behind that. */
  constructor(children: Children, argv: readonly string[], fills: () => boolean) {
    this.#fills = fills;
    this.#child = children.start([...argv, "exec sh"]);
    this.#tail = tailOf(this.#child);
    this.#child.stdout.on("data", (text: string) => this.#take(text));
    this.#child.once("error", () => this.#lost());
    this.#child.once("close", () => this.#lost());
    this.#child.stdin.write(functions, "latin1");
  }

  get closed(): boolean {
    return this.#over;
  }

  /** What it said beside its answers, at the end. */
  get said(): string {
    return this.#tail();
  }

  /** What a line of shell prints. Throws "transient" where the shell ends, or takes longer than `ms` with nothing else under way. */
  ask(line: string, ms: number): Promise<string> {
    if (this.#over) return Promise.reject(lost());
    return new Promise((done, fail) => {
      this.#asked.push({ done, fail, ms });
      if (this.#asked.length === 1) this.#watch();
      // What a command would read is the next question.
      this.#child.stdin.write(`{ ${line}\n} </dev/null; echo ${this.#token}\n`, "latin1");
    });
  }

  async end(): Promise<void> {
    this.#lost();
    await endGroup(this.#child);
  }

  #lost(why = lost()): void {
    this.#over = true;
    clearTimeout(this.#timer);
    for (const { fail } of this.#asked.splice(0)) fail(why);
  }

  #watch(): void {
    clearTimeout(this.#timer);
    const [first] = this.#asked;
    if (first === undefined) return;
    this.#filled = this.#fills();
    this.#timer = setTimeout(() => this.#silent(), first.ms);
  }

  #silent(): void {
    const before = this.#filled;
    this.#filled = this.#fills();
    if (before || this.#filled) {
      this.#timer?.refresh();
      return;
    }
    this.#lost(new Fault("transient", "the server's shell gave no answer"));
    void endGroup(this.#child);
  }

  #take(text: string): void {
    this.#text += text;
    const mark = `${this.#token}\n`;
    for (let at = this.#text.indexOf(mark); at >= 0; at = this.#text.indexOf(mark)) {
      const answer = this.#text.slice(0, at);
      this.#text = this.#text.slice(at + mark.length);
      this.#asked.shift()?.done(answer);
      this.#watch();
    }
    // A login that prints text without end.
    if (this.#text.length > 2 ** 20) {
      this.#lost();
      void endGroup(this.#child);
    }
  }
}

function lost(): Fault {
  return new Fault("transient", "the server's shell ended");
}

/** A name, as bytes, for a line of shell. */
export function quoted(path: Buffer): string {
  return `'${path.toString("latin1").replaceAll("'", `'\\''`)}'`;
}
