// node llama.mjs MODEL PROMPTS: prints llama.cpp's ten most probable next tokens as [id, probability], for each prompt in the JSON
// array PROMPTS of arrays of ids.
const name = "node-llama-cpp"; // a variable, so that deno check does not look for the package
const { getLlama } = await import(name);

const [modelPath, prompts] = process.argv.slice(2);
const llama = await getLlama({ gpu: false, build: "never", logLevel: "error" });
const model = await llama.loadModel({ modelPath });
const results = [];
for (const ids of JSON.parse(prompts)) {
  const context = await model.createContext({ contextSize: 256 });
  const last = [ids.at(-1), { generateNext: { probabilities: true } }];
  const output = await context.getSequence().controlledEvaluate([...ids.slice(0, -1), last]);
  results.push([...output.at(-1).next.probabilities].slice(0, 10));
  await context.dispose();
}
console.log(JSON.stringify(results));
process.exit(0);
