/** bench/pytorch_gpu.py as a process that answers one question at a time. */

const script = decodeURIComponent(new URL("pytorch_gpu.py", import.meta.url).pathname);

interface Answer {
  device?: string;
  error?: string;
  rate?: number;
}

export class PyTorch {
  #process: Deno.ChildProcess | undefined;
  #input: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>> | undefined;
  #output: ReadableStreamDefaultReader<string> | undefined;
  #text = "";

  /** @param description version and device, or why there is no PyTorch */
  private constructor(public description: string) {}

  /** @param device cuda, cpu, or none: then every rate is undefined */
  static async start(device: string): Promise<PyTorch> {
    const pytorch = new PyTorch("PyTorch is left out: --pytorch=none");
    if (device === "none") return pytorch;
    try {
      const streams = { stdin: "piped", stdout: "piped", stderr: "piped" } as const;
      pytorch.#process = new Deno.Command("python3", { args: [script, device], ...streams }).spawn();
    } catch (error) {
      pytorch.description = `PyTorch is left out: ${(error as Error).message}`;
      return pytorch;
    }
    pytorch.#input = pytorch.#process.stdin.getWriter();
    pytorch.#output = pytorch.#process.stdout.pipeThrough(new TextDecoderStream()).getReader();
    const answer: Answer = await pytorch.#line().catch((error) => ({ error: error.message }));
    pytorch.description = answer.device ?? `PyTorch is left out: ${answer.error}`;
    if (!answer.device) await pytorch.close();
    return pytorch;
  }

  /** Products, steps or tokens a second. */
  async rate(request: Readonly<Record<string, unknown>>): Promise<number | undefined> {
    if (!this.#input) return undefined;
    await this.#input.write(new TextEncoder().encode(JSON.stringify(request) + "\n"));
    return (await this.#line()).rate;
  }

  /** The next line; where the process has ended instead, its last words are the error. */
  async #line(): Promise<Answer> {
    for (;;) {
      const end = this.#text.indexOf("\n");
      if (end >= 0) {
        const line = this.#text.slice(0, end);
        this.#text = this.#text.slice(end + 1);
        return JSON.parse(line);
      }
      const { value, done } = await this.#output!.read();
      if (done) throw new Error((await new Response(this.#process!.stderr).text()).trim().split("\n").at(-1));
      this.#text += value;
    }
  }

  async close(): Promise<void> {
    await this.#input?.close().catch(() => {});
    await this.#process?.status;
    this.#input = this.#process = undefined;
  }
}
