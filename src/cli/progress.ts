/** Progress of long work: lines, and on a terminal a bar below them that is redrawn in place. */
import { DataError } from "../errors.ts";
import { reason } from "../files/reason.ts";

/** What the progress bar of a training run shows. */
export interface ProgressState {
  done: number;
  total: number;
  loss: number;
  /** Other measures, after the loss. */
  more?: string;
  tokensPerSecond: number;
  /** Remaining time in seconds. */
  left: number;
}

type Output = Pick<typeof Deno.stdout, "isTerminal" | "writeSync">;

export class Progress {
  #bar = "";
  #drawnAt = -Infinity;
  #lost = false;

  terminal: boolean;

  /**
   * Called once when writing to the output fails; lines then go to standard error. If it is not set, a failed write
   * throws.
   */
  onLost?: () => void;

  /** @param output where lines and the bar are written */
  constructor(readonly output: Output = Deno.stdout) {
    this.terminal = output.isTerminal();
  }

  /** Prints a line; the bar moves below it. */
  line(text: string): void {
    this.#write(`${this.#erase()}${text}\n${this.#bar}`);
  }

  /** Draws the bar, at most twenty times a second. Does nothing if the output is not a terminal. */
  status(text: (columns: number) => string): void {
    if (!this.terminal || performance.now() - this.#drawnAt < 50) return;
    const columns = width() - 1, erase = this.#erase();
    this.#drawnAt = performance.now();
    this.#bar = text(columns).slice(0, columns);
    this.#write(erase + this.#bar);
  }

  /** Removes the bar. */
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
      // A closed terminal closes standard error too. The work goes on without its lines.
    }
  }
}

/**
 * Width of the terminal in columns; 80 if it is unknown. A terminal that was just closed has no width; the next write
 * then fails.
 */
function width(): number {
  try {
    return Deno.consoleSize().columns || 80;
  } catch {
    return 80;
  }
}

/**
 * Writes all of a text.
 *
 * @throws {Deno.errors.BrokenPipe} if the reader has closed the pipe
 * @throws {DataError} if writing fails, as on a full disk
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

/** Writes a line to standard output. Throws a {@linkcode DataError} if that fails, unlike `console.log`. */
export function print(line: string): void {
  write(Deno.stdout, `${line}\n`);
}

export function count(n: number): string {
  return n.toLocaleString("en-US");
}

/** The progress bar: a line of at most `columns` characters. */
export function bar({ done, total, loss, more = "", tokensPerSecond, left }: ProgressState, columns: number): string {
  const numbers = ` ${done}/${total}  loss ${loss.toFixed(4)}${more}  ${rate(tokensPerSecond)}  ${duration(left)} left`;
  return share(done / Math.max(1, total), numbers, columns);
}

/** A bar of which the share `filled` (0 to 1) is filled, followed by a text. */
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
