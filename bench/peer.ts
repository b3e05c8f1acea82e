/**
 * A process that measures one library for a comparison. It answers one request at a time (see bench/answer.ts and
 * bench/pytorch.py).
 */

interface Answer {
  device?: string;
  error?: string;
  rate?: number;
}

export interface PeerOptions {
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/** Starts bench/pytorch.py. */
export function startPyTorch({ args, env }: PeerOptions): Promise<Peer> {
  const script = decodeURIComponent(new URL("pytorch.py", import.meta.url).pathname);
  return Peer.start("python3", { args: [script, ...args], env });
}

export class Peer {
  #process: Deno.ChildProcess | undefined;
  #input: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>> | undefined;
  #output: ReadableStreamDefaultReader<string> | undefined;
  #errors: Promise<string> | undefined;
  #text = "";
  /** The library's version and device; undefined if the process does not run. */
  device: string | undefined;
  /** Why the process does not run, or does not answer any more. */
  error: string | undefined;

  private constructor() {}

  /** Makes a peer without a process, whose `error` is the given reason. */
  static absent(error: string): Peer {
    const peer = new Peer();
    peer.error = error;
    return peer;
  }

  /** Starts a process. Never throws: if the process does not start, the peer's `error` is set. */
  static async start(command: string, { args, env }: PeerOptions): Promise<Peer> {
    const peer = new Peer();
    try {
      const streams = { stdin: "piped", stdout: "piped", stderr: "piped" } as const;
      peer.#process = new Deno.Command(command, { args: [...args], env, ...streams }).spawn();
    } catch (error) {
      return Peer.absent((error as Error).message);
    }
    peer.#input = peer.#process.stdin.getWriter();
    peer.#output = peer.#process.stdout.pipeThrough(new TextDecoderStream()).getReader();
    peer.#errors = new Response(peer.#process.stderr).text(); // read now: a full pipe would block the process
    const { device, error } = await peer.#line();
    peer.device = device;
    if (error) await peer.#fail(error);
    return peer;
  }

  /** Sends a request. Returns the products, steps or tokens a second, or undefined if there is an `error`. */
  async rate(request: Readonly<Record<string, unknown>>): Promise<number | undefined> {
    if (this.error) return undefined;
    await this.#input!.write(new TextEncoder().encode(JSON.stringify(request) + "\n")).catch(() => {}); // see #line
    const { rate, error } = await this.#line();
    if (error) await this.#fail(error);
    return rate;
  }

  /** The next line of JSON. If the process has ended instead, the last line of its standard error is the error. */
  async #line(): Promise<Answer> {
    for (;;) {
      const end = this.#text.indexOf("\n");
      if (end >= 0) {
        const line = this.#text.slice(0, end);
        this.#text = this.#text.slice(end + 1);
        if (line.startsWith("{")) return JSON.parse(line);
        continue; // a line that some library printed
      }
      const { value, done } = await this.#output!.read();
      if (done) {
        return { error: (await this.#errors!).trim().split("\n").at(-1) || "it ended without an error message" };
      }
      this.#text += value;
    }
  }

  async #fail(error: string): Promise<void> {
    this.error = error;
    await this.close();
  }

  async close(): Promise<void> {
    const timer = setTimeout(() => this.#process?.kill(), 10_000); // in case it does not exit at the end of its input
    await this.#input?.close().catch(() => {});
    await this.#process?.status;
    clearTimeout(timer);
    this.#input = this.#process = undefined;
  }
}
