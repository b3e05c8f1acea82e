/** Long work on a screen: lines, and on a terminal a bar below them that is drawn over itself. */
import { DataError } from "../errors.ts";
import { reason } from "../files/reason.ts";

/** What the bar of a training shows. */
export interface ProgressState {
  done: number;
  total: number;
  loss: number;
  /** Behind the loss: other measures. */
  more?: string;
  tokensPerSecond: number;
  /** Seconds. */
  left: number;
}

type Output = Pick<typeof Deno.stdout, "isTerminal" | "writeSync">;

export class Progress {
  #bar = "";
  #drawnAt = -Infinity;
  #lost = false;

  terminal: boolean;

  /** Called once when the output cannot be written to: lines go to standard error from then on. Without it that throws. */
  onLost?: () => void;

  /** @param output where it is written */
  constructor(readonly output: Output = Deno.stdout) {
    this.terminal = output.isTerminal();
  }

  /** Prints a line; the bar moves below it. */
  line(text: string): void {
    this.#write(`${this.#erase()}${text}\n${this.#bar}`);
  }

  /** Draws the bar, at most twenty times a second; nothing where the output is no terminal. */
  status(text: (columns: number) => string): void {
    if (!this.terminal || performance.now() - this.#drawnAt < 50) return;
    const columns = width() - 1, erase = this.#erase();
    this.#drawnAt = performance.now();
    this.#bar = text(columns).slice(0, columns);
    this.#write(erase + this.#bar);
  }

  /** Takes the bar away. */
  end(): void {
    this.#write(this.#erase());
    this.#bar = "";
  }

  #erase(): string {
    return this.#bar && "\r\x1b[K";
  }

  #write(text: string): void {
    if (!text) return;
    try {
      if (!this.#lost) return write(this.output, text);
    } catch (error) {
      if (!this.onLost) throw error;
      this.#lost = true;
      this.terminal = false;
      this.#bar = "";
      const closed = error instanceof Deno.errors.BrokenPipe;
      this.line(closed ? "Standard output was closed." : (error as Error).message);
      this.#write(text);
      return this.onLost();
    }
    try {
      write(Deno.stderr, text);
    } catch {
      // A closed terminal takes both; what is being done matters more than its lines.
    }
  }
}

/** Of the terminal, in columns; one that has just closed has none, and the next write says so. */
function width(): number {
  try {
    return Deno.consoleSize().columns;
  } catch {
    return 80;
  }
}

/**
 * Writes all of a text.
 *
 * @throws {Deno.errors.BrokenPipe} where nobody reads any more
 * @throws {DataError} where it cannot be written, as on a full disk
 */
export function write(output: Output, text: string): void {
  let bytes = new TextEncoder().encode(text);
  try {
    while (bytes.length > 0) bytes = bytes.subarray(output.writeSync(bytes));
  } catch (error) {
    if (error instanceof Deno.errors.BrokenPipe) throw error;
    const name = output === Deno.stderr ? "standard error" : "standard output";
    throw new DataError(`Cannot write to ${name}: ${reason(error)}`);
  }
}

/** Writes a line to standard output; unlike console.log's, its failure has a name. */
export function print(line: string): void {
  write(Deno.stdout, `${line}\n`);
}

export function count(n: number): string {
  return n.toLocaleString("en-US");
}

/** One line of at most `columns` characters; the bar takes what the numbers leave. */
export function bar({ done, total, loss, more = "", tokensPerSecond, left }: ProgressState, columns: number): string {
  const numbers = ` ${done}/${total}  loss ${loss.toFixed(4)}${more}  ${rate(tokensPerSecond)}  ${duration(left)} left`;
  return share(done / Math.max(1, total), numbers, columns);
}

/** A bar that is filled so far, 0 to 1, and the text behind it. */
export function share(filled: number, text: string, columns: number): string {
  const width = Math.min(40, columns - text.length - 2);
  if (width < 5) return text.trimStart().slice(0, columns);
  const marks = Math.round(width * Math.min(1, filled));
  return `[${"#".repeat(marks)}${"-".repeat(width - marks)}]${text}`;
}

export function rate(tokensPerSecond: number): string {
  return tokensPerSecond < 1000
    ? `${tokensPerSecond.toFixed(0)} tokens/s`
    : `${(tokensPerSecond / 1000).toFixed(1)}k tokens/s`;
}

export function duration(seconds: number): string {
  const s = Math.round(seconds), m = Math.floor(s / 60), h = Math.floor(m / 60);
  if (h > 0) return `${h}h${String(m % 60).padStart(2, "0")}m`;
  return m > 0 ? `${m}m${String(s % 60).padStart(2, "0")}s` : `${s}s`;
}
