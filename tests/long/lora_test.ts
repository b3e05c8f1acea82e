/**
 * Opens our adapters and merged models in PEFT and transformers, if python3 has both (PyTorch is too large to install
 * for a test). `deno task test:long` runs this.
 */
import { saveHuggingFace } from "../../src/checkpoint/hugging_face_save.ts";
import { createDevice } from "../../src/device/create.ts";
import { saveAdapter } from "../../src/finetune/adapter.ts";
import { applyLora, type LoraOptions } from "../../src/finetune/lora.ts";
import { GPT } from "../../src/gpt.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import { assertClose, inFolder } from "../testing.ts";

const SCRIPT = `
import json, sys, torch
from peft import PeftModel
from transformers import GPT2LMHeadModel
folder, ids = sys.argv[1], torch.tensor([json.loads(sys.argv[2])])
base = GPT2LMHeadModel.from_pretrained(folder + "/base").double()
tuned = PeftModel.from_pretrained(base, folder + "/adapter", autocast_adapter_dtype=False).double().eval()
merged = GPT2LMHeadModel.from_pretrained(folder + "/merged").double().eval()
with torch.no_grad():
    print(json.dumps([model(ids).logits.flatten().tolist() for model in (tuned, merged)]))
`;

async function python(script: string, ...args: string[]): Promise<string | undefined> {
  const { success, stdout, stderr } = await new Deno.Command("python3", { args: ["-c", script, ...args] }).output();
  if (success) return new TextDecoder().decode(stdout);
  const error = new TextDecoder().decode(stderr);
  if (/No module named|not found/.test(error)) return undefined;
  throw new Error(error);
}

const missing = await python("import peft, transformers, torch") === undefined;
const CASES: Record<string, LoraOptions> = {
  "two targets, rslora and a pattern": {
    rank: 3,
    rslora: true,
    targets: ["c_attn", "mlp.c_proj"],
    rankPattern: { c_attn: 5 },
  },
  "all linear layers of a block": { rank: 2, targets: ".*\\.h\\.1\\.(attn|mlp)\\.c_.*" },
  "modules that are saved whole": { rank: 2, modulesToSave: ["ln_f", "wpe"] },
  "rows of tokens": { rank: 2, trainableTokens: [11, 2] },
};
for (const [name, options] of Object.entries(CASES)) {
  Deno.test({
    name: `PEFT opens our adapter, and transformers the merged model: ${name}`,
    ignore: missing,
    fn: () =>
      inFolder(async (folder) => {
        const device = await createDevice("cpu", { threads: 1 }), random = new RandomGenerator(5);
        using model = new GPT({ blockSize: 8, vocabSize: 13, nLayer: 2, nHead: 2, nEmbd: 16, activation: "gelu_new" }, {
          device,
        });
        await saveHuggingFace(model.eval(), `${folder}/base`);
        const lora = applyLora(model, options);
        for (const [, { storage }] of lora.namedParameters()) {
          device.fill(storage, (values) => random.normal(values, 0, 0.3));
        }
        await saveAdapter(`${folder}/adapter`, lora, { base: `${folder}/base` });
        const ids = [3, 11, 2, 7, 11, 0], tokens = device.tensor(ids, [1, ids.length], { dtype: "i32" });
        const own = await model.forward(tokens, tokens).logits.data();
        lora.merge();
        await saveHuggingFace(model, `${folder}/merged`);
        const theirs: number[][] = JSON.parse((await python(SCRIPT, folder, JSON.stringify(ids)))!);
        for (const [i, what] of ["PEFT's logits", "the merged model's logits"].entries()) {
          assertClose(own, theirs[i], { atol: 1e-6, rtol: 1e-6 }, what);
        }
        device.close();
      }),
  });
}
