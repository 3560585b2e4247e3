/** Questions to a person at a terminal, each with a default that Enter takes; or to nobody, who takes all defaults. */
import { createInterface } from "node:readline";
import { Writable } from "node:stream";
import { Fault } from "../core/errors.js";
import { UsageError } from "./config.js";

export interface Asker {
  /** Given when the person stops it, for what runs between two questions. */
  readonly signal: AbortSignal;
  /** Somebody is there who answers. */
  readonly answers: boolean;
  /** A line for the person. */
  say(text: string): void;
  /** `objection`: what is wrong with an answer; it is asked again then. Nobody answers `byDefault`, whatever that is. */
  ask(question: string, byDefault: string, objection?: (answer: string) => string | undefined): Promise<string>;
  /** What is typed is not shown. `ifEmpty`: why nothing is no answer; it is asked again then. Else "" where nothing is typed; from nobody in any case. */
  secret(question: string, ifEmpty?: string): Promise<string>;
  close(): void;
}

/** So often nothing is typed where an answer is needed: nobody may be there (a key that is held down, a program that types). */
const mostEmpty = 3;

export async function yes(asker: Asker, question: string, byDefault: boolean): Promise<boolean> {
  const objection = (answer: string) => (/^(y|yes|n|no)$/i.test(answer) ? undefined : "y or n");
  return /^y/i.test(await asker.ask(`${question} (y/n)`, byDefault ? "y" : "n", objection));
}

/** The place of the chosen one in `choices`. */
export async function choose(asker: Asker, question: string, choices: readonly string[], byDefault: number): Promise<number> {
  if (asker.answers) for (const line of [question, ...choices.map((text, i) => `  ${i + 1}  ${text}`)]) asker.say(line);
  const objection = (answer: string) =>
    /^\d+$/.test(answer) && Number(answer) >= 1 && Number(answer) <= choices.length ? undefined : `a number from 1 to ${choices.length}`;
  return Number(await asker.ask("Number", String(byDefault + 1), objection)) - 1;
}

/** Takes every default; what is said goes to `output`. */
export function nobody(output: NodeJS.WritableStream): Asker {
  return {
    signal: new AbortController().signal,
    answers: false,
    say: (text) => void output.write(`${text}\n`),
    ask: (_question, byDefault) => Promise.resolve(byDefault),
    secret: () => Promise.resolve(""),
    close: () => undefined,
  };
}

/** Ctrl-C, and the end of the input, end a question: nothing is answered for the person then. */
export function terminal(input: NodeJS.ReadStream, output: NodeJS.WriteStream): Asker {
  let hidden = false;
  const shown = new Writable({
    write(chunk: Buffer, _encoding, done) {
      if (!hidden) output.write(chunk);
      done();
    },
  });
  // Of what was typed, a password too, an arrow would show the last at the next question.
  const lines = createInterface({ input, output: shown, terminal: true, historySize: 0 });
  // What comes faster than it is asked for (a paste) waits.
  const typed: string[] = [];
  let waiting: { take: (line: string) => void; fail: (error: Error) => void } | undefined;
  let ended: Error | undefined;
  const stop = new AbortController();
  lines.on("line", (line) => {
    const { take } = waiting ?? {};
    waiting = undefined;
    if (take === undefined) typed.push(line);
    else take(line);
  });
  const end = (error: Error) => {
    ended ??= error;
    stop.abort(ended);
    waiting?.fail(ended);
    waiting = undefined;
  };
  lines.on("SIGINT", () => end(new Fault("aborted", "stopped; nothing was written")));
  lines.on("close", () => end(new UsageError("the questions were not answered to the end: nothing was written")));
  const line = (): Promise<string> => {
    if (ended !== undefined) return Promise.reject(ended);
    const before = typed.shift();
    return before !== undefined ? Promise.resolve(before) : new Promise((take, fail) => (waiting = { take, fail }));
  };
  const prompt = async (text: string): Promise<string> => {
    lines.setPrompt(text);
    lines.prompt();
    return line();
  };
  const untilGood = async (question: string, next: () => Promise<string>, objection?: (answer: string) => string | undefined) => {
    for (let empty = 0; ;) {
      const answer = await next();
      const wrong = objection?.(answer);
      if (wrong === undefined) return answer;
      output.write(`  ${answer === "" ? "an answer is needed" : `"${answer}"`}: ${wrong}\n`);
      if (answer === "" && ++empty === mostEmpty)
        throw new UsageError(`${question}: ${mostEmpty} times nothing was typed where an answer is needed; nothing was written`);
    }
  };
  const unseen = async (question: string): Promise<string> => {
    output.write(`${question}: `);
    hidden = true;
    try {
      const typed = await prompt("");
      return typed.trim() === "" ? "" : typed;
    } finally {
      hidden = false;
      output.write("\n");
    }
  };
  return {
    signal: stop.signal,
    answers: true,
    say: (text) => void output.write(`${text}\n`),
    ask: (question, byDefault, objection) =>
      untilGood(
        question,
        async () => (await prompt(`${question}${byDefault === "" ? "" : ` [${byDefault}]`}: `)).trim() || byDefault,
        objection,
      ),
    secret: (question, ifEmpty) =>
      untilGood(
        question.replace(/ \(.*/, ""),
        () => unseen(question),
        (answer) => (answer === "" ? ifEmpty : undefined),
      ),
    close: () => {
      ended ??= new Error("closed");
      lines.close();
    },
  };
}
