// node node_llama.mjs FOLDER THREADS measures node-llama-cpp, installed in FOLDER, for bench/rows.ts. It answers
// requests as described in bench/answer.ts.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [folder, threads] = process.argv.slice(2);
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const failed = (error) => say({ error: error.message.split("\n")[0] });

/**
 * Generates texts greedily. Returns the seconds from the moment when all texts have their first token, because first
 * tokens come with reading the prompts.
 */
async function write(sequences, { prompt, tokens, vocabSize }) {
  let begun = 0, begin = 0;
  await Promise.all(sequences.map(async (sequence, row) => {
    await sequence.clearHistory();
    const ids = Array.from({ length: prompt }, (_, i) => (31 * row + i) % vocabSize);
    let count = 0;
    for await (const _ of sequence.evaluate(ids, { temperature: 0, yieldEogToken: true })) {
      if (++count === 1 && ++begun === sequences.length) begin = performance.now();
      if (count === tokens) break;
    }
  }));
  return (performance.now() - begin) / 1000;
}

async function main() {
  const packaged = `${folder}/node_modules/node-llama-cpp`;
  const { getLlama } = await import(pathToFileURL(`${packaged}/dist/index.js`));
  const llama = await getLlama({ gpu: false, build: "never", logLevel: "error", maxThreads: Number(threads) });
  const { version } = JSON.parse(readFileSync(`${packaged}/package.json`, "utf8"));
  say({ device: `node-llama-cpp ${version}, Node ${process.version}` });
  let made, model, sequences;
  for await (const line of createInterface({ input: process.stdin })) {
    const { seconds, ...request } = JSON.parse(line), { gguf, rows, prompt, tokens } = request;
    try {
      if (made !== JSON.stringify(request)) {
        await model?.dispose();
        model = await llama.loadModel({ modelPath: gguf });
        const contextSize = prompt + tokens, batchSize = rows * prompt;
        const context = await model.createContext({
          sequences: rows,
          contextSize,
          batchSize,
          threads: Number(threads),
        });
        sequences = Array.from({ length: rows }, () => context.getSequence());
        made = JSON.stringify(request);
      }
      let passed = 0, count = 0;
      while (count === 0 || passed < seconds) {
        passed += await write(sequences, request);
        count += rows * (tokens - 1);
      }
      say({ rate: count / passed });
    } catch (error) {
      failed(error);
    }
  }
}

await main().catch(failed);
process.exit(0);
