/** A side of a comparison: a process that answers one question at a time, as bench/answer.ts and bench/pytorch.py do. */

interface Answer {
  device?: string;
  error?: string;
  rate?: number;
}

export interface PeerOptions {
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/** bench/pytorch.py. */
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
  /** Version and device, where it runs. */
  device: string | undefined;
  /** Why it does not run, or does not answer any more. */
  error: string | undefined;

  private constructor() {}

  /** One that does not run. */
  static absent(error: string): Peer {
    const peer = new Peer();
    peer.error = error;
    return peer;
  }

  /** Never throws: a peer that does not start has its `error`. */
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
    peer.#errors = new Response(peer.#process.stderr).text(); // read at once, or a full pipe would stop the process
    const { device, error } = await peer.#line();
    peer.device = device;
    if (error) await peer.#fail(error);
    return peer;
  }

  /** Products, steps or tokens a second; undefined when there is an `error`. */
  async rate(request: Readonly<Record<string, unknown>>): Promise<number | undefined> {
    if (this.error) return undefined;
    await this.#input!.write(new TextEncoder().encode(JSON.stringify(request) + "\n")).catch(() => {}); // then no line comes
    const { rate, error } = await this.#line();
    if (error) await this.#fail(error);
    return rate;
  }

  /** The next line; where the process has ended instead, its last words are the error. */
  async #line(): Promise<Answer> {
    for (;;) {
      const end = this.#text.indexOf("\n");
      if (end >= 0) {
        const line = this.#text.slice(0, end);
        this.#text = this.#text.slice(end + 1);
        if (line.startsWith("{")) return JSON.parse(line);
        continue; // what a library prints
      }
      const { value, done } = await this.#output!.read();
      if (done) return { error: (await this.#errors!).trim().split("\n").at(-1) || "it has ended without a word" };
      this.#text += value;
    }
  }

  async #fail(error: string): Promise<void> {
    this.error = error;
    await this.close();
  }

  async close(): Promise<void> {
    const timer = setTimeout(() => this.#process?.kill(), 10_000); // whom the end of its input does not end
    await this.#input?.close().catch(() => {});
    await this.#process?.status;
    clearTimeout(timer);
    this.#input = this.#process = undefined;
  }
}
