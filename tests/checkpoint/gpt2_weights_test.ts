/**
 * Tests with GPT-2's own weights. They run if NANOGPT_GPT2 names a folder with the hub's config.json and
 * model.safetensors of `gpt2` (548 MB), which `downloadModel` downloads.
 */
import { loadHuggingFace } from "../../src/checkpoint/mod.ts";
import { createDevice } from "../../src/device/create.ts";
import { add } from "../../src/ops/add.ts";
import { assertClose } from "../testing.ts";

/** "Summarize the history of the Roman Empire:" */
const TOKENS = [13065, 3876, 1096, 262, 2106, 286, 262, 7993, 8065, 25];
/** The first values of the last hidden state, to four decimals, from transformers' documentation of GPT-2. */
const PRINTED = [-0.1643, -0.0088, -0.3804];

const folder = Deno.env.get("NANOGPT_GPT2");

Deno.test({
  name: "gpt2 gives the last hidden state that transformers' documentation prints",
  ignore: folder === undefined,
  fn: async () => {
    const device = await createDevice("cpu"), model = await loadHuggingFace(folder!, { device });
    const { wte, wpe, h, ln_f } = model.transformer, T = TOKENS.length;
    const ids = (values: number[]) => device.tensor(values, [1, T], { dtype: "i32" });
    let x = add(wte.forward(ids(TOKENS)), wpe.forward(ids([...TOKENS.keys()])));
    for (const block of h) x = block.forward(x);
    const first = (await ln_f.forward(x).data()).subarray(0, PRINTED.length);
    device.close();
    assertClose(first, PRINTED, { atol: 6e-5, rtol: 0 }, "the last hidden state of the first token");
  },
});
