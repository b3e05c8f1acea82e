/** A thousand clients disconnect at random moments. The server stops computing for them, and stores nothing of them. */
import { assert, assertEquals } from "@std/assert";
import { saveHuggingFace } from "../../src/checkpoint/hugging_face_save.ts";
import { createDevice } from "../../src/device/create.ts";
import { GPT } from "../../src/gpt.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import { Access } from "../../src/server/auth.ts";
import { serveRoutes } from "../../src/server/server.ts";
import { openEngine } from "../../src/server/worker_engine.ts";
import { CharacterTokenizer } from "../../src/tokenizer/character.ts";
import { inFolder } from "../testing.ts";

const CLIENTS = 1000, AT_ONCE = 40, letters = new CharacterTokenizer([..."abcdefghijklmnopqrstuvw"]);
const wait = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));
/** Reads until the first event of an answer. */
async function firstToken(socket: Deno.Conn): Promise<void> {
  const bytes = new Uint8Array(4096);
  for (let text = "", read; !text.includes("data: ") && (read = await socket.read(bytes)) !== null;) {
    text += new TextDecoder().decode(bytes.subarray(0, read));
  }
}

Deno.test(`kills: ${CLIENTS} clients leave in the queue, in the prompt, in the text, before a plain answer`, () =>
  inFolder(async (folder) => {
    {
      using device = await createDevice("cpu", { threads: 1 });
      using model = new GPT({ blockSize: 128, nLayer: 2, nHead: 2, nEmbd: 32, vocabSize: 23 }, { device, seed: 1 });
      await saveHuggingFace(model, `${folder}/m`, { tokenizer: letters });
    }
    const spec = { weights: "f32", device: "cpu", threads: 1, slots: 8, cache: "f32" } as const;
    await using engine = await openEngine({ models: [{ ...spec, id: "m", path: `${folder}/m` }], queue: 4096 });
    const errors: unknown[] = [], onError = (error: unknown) => errors.push(error);
    const served = { engine, access: new Access({ hostname: "127.0.0.1" }), onError };
    await using listener = await serveRoutes(served, { port: 0 });
    const ask = async (max_tokens: number, prompt = "a", stream = false) => {
      const body = JSON.stringify({ model: "m", prompt, max_tokens, stream, temperature: 0 });
      const length = `content-type: application/json\r\ncontent-length: ${body.length}`;
      const socket = await Deno.connect({ port: listener.port });
      const head = `POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n${length}\r\n\r\n`;
      await socket.write(new TextEncoder().encode(head + body));
      return socket;
    };
    const whole = async () => {
      const response = await fetch(`http://127.0.0.1:${listener.port}/v1/completions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ model: "m", prompt: "abc", max_tokens: 20, temperature: 0 }),
      });
      return (await response.json()).choices[0].text;
    };
    const alone = await whole(), { tensors } = engine.counts, random = new RandomGenerator(5);
    for (let i = 0; i < CLIENTS; i += AT_ONCE) {
      await Promise.all(Array.from({ length: AT_ONCE }, async (_, k) => {
        const inText = k % 4 === 0, stream = inText || random.randint(2) === 1;
        const socket = await ask(100, "abcdefghij".repeat(1 + random.randint(2)), stream);
        if (inText) await firstToken(socket);
        else await wait(random.randint(60));
        socket.close();
      }));
    }
    // Afterwards, a client that waits gets the same answer as before.
    assertEquals(await whole(), alone);
    const busy = () => engine.counts.running + engine.counts.waiting + listener.running > 0;
    for (let i = 0; i < 600 && busy(); i++) await wait(100);
    const { running, waiting, aborted, generationTokens, tensors: left } = engine.counts;
    assertEquals([running, waiting, left, listener.running], [0, 0, tensors, 0]);
    await wait(300);
    assertEquals(engine.counts.generationTokens, generationTokens);
    assertEquals(errors, []);
    assert(aborted.queued > 50 && aborted.decode > 50, JSON.stringify(aborted));
  }));
