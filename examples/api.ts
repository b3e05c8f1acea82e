/**
 * Queries a model, fine-tunes it and saves the result, through the API of `deno task serve`, with nothing but `fetch`:
 *
 *     deno task serve --new_key=me                        # prints a key, once
 *     deno task serve --model=out --jobs=jobs
 *     export OPENAI_API_KEY=sk-…
 *     deno run --allow-net=127.0.0.1 --allow-env=OPENAI_API_KEY --allow-read --allow-write=out-api examples/api.ts FILE.jsonl
 *
 * FILE has the training data: rows with texts, chats, or prompts and completions, or a plain text (.txt). Further
 * arguments: `--url=http://127.0.0.1:8000`, `--model=NAME` (default: the first served model; `new:shakespeare_char_cpu`
 * trains a new one), `--prompt=TEXT`, `--out=FOLDER` (default: out-api). For a served model the result is an adapter in
 * PEFT's format, for a new model a Hugging Face folder.
 */

interface Options {
  readonly url: string;
  readonly key: string;
  /** Path of the training data. */ readonly file: string;
  readonly model?: string;
  readonly prompt: string;
  /** Folder for the result. */ readonly out: string;
}

/** A JSON answer of the server. */
type Answer = Record<string, unknown>;

class Client {
  constructor(readonly url: string, readonly key: string) {}

  /** Sends a request. @throws {Error} with the server's message, if the server refuses the request */
  async send(method: string, path: string, body?: unknown): Promise<Response> {
    const isForm = body instanceof FormData;
    const response = await fetch(`${this.url}/v1/${path}`, {
      method,
      headers: {
        ...this.key && { authorization: `Bearer ${this.key}` },
        ...body !== undefined && !isForm && { "content-type": "application/json" },
      },
      body: isForm ? body : body === undefined ? undefined : JSON.stringify(body),
    });
    if (response.ok) return response;
    const { error } = await response.json().catch(() => ({ error: {} }));
    throw new Error(`${method} ${path}: status ${response.status}: ${error.message}`);
  }
  async json<T = Answer>(method: string, path: string, body?: unknown): Promise<T> {
    return await (await this.send(method, path, body)).json();
  }
  async list(path: string): Promise<Answer[]> {
    return (await this.json<{ data: Answer[] }>("GET", path)).data;
  }

  /** Yields the pieces of a completion: server-sent events, the last of which is [DONE]. */
  async *write(request: Answer): AsyncGenerator<string> {
    const { body } = await this.send("POST", "completions", { ...request, stream: true });
    let text = "";
    for await (const part of body!.pipeThrough(new TextDecoderStream())) {
      const events = (text + part).split("\n\n");
      text = events.pop()!;
      for (const event of events) {
        const data = /^data: (.*)$/m.exec(event)?.[1]; // other lines are comments, which only keep the connection open
        if (data === undefined || data === "[DONE]") continue;
        const { choices, error } = JSON.parse(data);
        if (error) throw new Error(error.message);
        yield choices[0]?.text ?? "";
      }
    }
  }
}

/** Prints a model's completion of a prompt. */
async function show(client: Client, model: string, prompt: string): Promise<void> {
  const write = (text: string) => Deno.stdout.write(new TextEncoder().encode(text));
  await write(`${model}: ${prompt}`);
  for await (const piece of client.write({ model, prompt, max_tokens: 40, temperature: 0.8, seed: 1 })) {
    await write(piece);
  }
  await write("\n");
}

/** Uploads a file, fine-tunes a model on it, and waits. @returns the finished job */
async function tune(client: Client, { model, file }: { model: string; file: string }): Promise<Answer> {
  const form = new FormData();
  form.append("purpose", "fine-tune");
  form.append("file", new Blob([await Deno.readFile(file)]), file.split("/").at(-1));
  const { id: training_file } = await client.json("POST", "files", form);
  let job = await client.json("POST", "fine_tuning/jobs", { model, training_file, seed: 1, suffix: "api-example" });
  console.log(`${job.id}: ${job.status}`);
  const path = `fine_tuning/jobs/${job.id}`, told = new Set<unknown>();
  while (!["succeeded", "failed", "cancelled"].includes(job.status as string)) {
    await new Promise((resolve) => setTimeout(resolve, 1000));
    for (const { id, message } of (await client.list(`${path}/events?limit=1000`)).reverse()) {
      if (!told.has(id)) console.log(`  ${message}`);
      told.add(id);
    }
    job = await client.json("GET", path);
  }
  if (job.status !== "succeeded") {
    throw new Error(`${job.id} ${job.status}: ${(job.error as Answer | null)?.message ?? ""}`);
  }
  return job;
}

/** Saves a job's result files. @returns their names */
async function save(client: Client, job: Answer, folder: string): Promise<string[]> {
  await Deno.mkdir(folder, { recursive: true });
  const names: string[] = [];
  for (const id of job.result_files as string[]) {
    const { filename } = await client.json("GET", `files/${id}`),
      { body } = await client.send("GET", `files/${id}/content`);
    names.push(String(filename).replaceAll(/[^\w.-]/g, "_")); // a name from the server must not lead to another folder
    await Deno.writeFile(`${folder}/${names.at(-1)}`, body!);
  }
  return names;
}

async function run({ url, key, file, model: asked, prompt, out }: Options): Promise<void> {
  const client = new Client(url, key), served = (await client.list("models")).map(({ id }) => String(id));
  console.log(`served: ${served.join(", ")}`);
  const model = asked ?? served[0];
  if (!model.startsWith("new:")) await show(client, model, prompt);
  const job = await tune(client, { model, file });
  await show(client, String(job.fine_tuned_model), prompt);
  console.log(`${out}: ${(await save(client, job, out)).join(", ")}`);
}

if (import.meta.main) {
  const [file] = Deno.args.filter((arg) => !arg.startsWith("--"));
  const flag = (name: string) => Deno.args.find((arg) => arg.startsWith(`--${name}=`))?.slice(name.length + 3);
  if (!file) {
    console.error("Name a file to train on: examples/api.ts FILE.jsonl [--url=…] [--model=…] [--prompt=…] [--out=…]");
    Deno.exit(2);
  }
  const { url = "http://127.0.0.1:8000", model, prompt = "The ", out = "out-api" } = {
    ...{ url: flag("url"), model: flag("model"), prompt: flag("prompt"), out: flag("out") },
  };
  try {
    await run({ url, key: Deno.env.get("OPENAI_API_KEY") ?? "", file, model, prompt, out });
  } catch (error) {
    console.error(`error: ${(error as Error).message}`);
    Deno.exit(1);
  }
}
