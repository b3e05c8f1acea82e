/**
 * Damaged folders: loading neither crashes nor hangs, and never gives a model that differs from the files.
 *
 * safetensors has no checksum. A changed weight is loaded as it is in the file, and a header or config that is still
 * valid after the change is accepted. A second, independent reader checks that what was loaded is what the files say.
 * Contradictions within the files, with the file's length or with the model must be found.
 */
import { assert, assertEquals } from "@std/assert";
import { loadHuggingFace } from "../../src/checkpoint/mod.ts";
import { ReferenceDevice } from "../../src/device/reference.ts";
import { CheckpointError, DeviceError } from "../../src/errors.ts";
import type { GPT } from "../../src/gpt.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import { damaged, processorTime } from "../testing.ts";

/** Mutants of each file; `deno test FILE -- 20000` makes more. */
const MUTANTS = Number(Deno.args[0] ?? 250);
const saved = new URL("../golden/hugging_face", import.meta.url).pathname;

/** Replacements for a number. */
const NUMBERS = ["0", "-1", "1", "2", "255", "65536", "2147483648", "9007199254740993", "18446744073709551615", "1e308"]
  .concat(["1e400", "-0", "0.5", "null", "true", '""', "[]", "{}"]);
const LENGTHS = [0n, 1n, 7n, 8n, 2n ** 31n, 2n ** 32n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n, 100_000_001n];

/** Makes one to three changes within the first `end` bytes. */
function mutate(original: Uint8Array, end: number, random: RandomGenerator): Uint8Array<ArrayBuffer> {
  let bytes: Uint8Array<ArrayBuffer> = original.slice();
  for (let times = 1 + random.randint(3); times > 0; times--) {
    const at = random.randint(Math.max(1, Math.min(end, bytes.length)));
    bytes = damaged(bytes, at, random, [
      () => {
        const text = new TextDecoder("latin1").decode(bytes.subarray(0, end)), numbers = [...text.matchAll(/\d+/g)];
        if (numbers.length === 0) return bytes;
        const { index, 0: number } = numbers[random.randint(numbers.length)];
        const other = NUMBERS[random.randint(NUMBERS.length)], after = bytes.subarray(index + number.length);
        return Uint8Array.from([...bytes.subarray(0, index), ...new TextEncoder().encode(other), ...after]);
      },
      () => {
        if (bytes.length >= 8) {
          new DataView(bytes.buffer).setBigUint64(0, LENGTHS[random.randint(LENGTHS.length)], true);
        }
        return bytes;
      },
    ]);
    if (bytes.length === 0) break;
  }
  return bytes;
}

/** Decodes F16 and BF16 by their definition. */
function half(bits: number, exponentBits: number): number {
  const fractionBits = 15 - exponentBits, exponent = bits >> fractionBits & 2 ** exponentBits - 1;
  const fraction = (bits & 2 ** fractionBits - 1) / 2 ** fractionBits, sign = bits >> 15 ? -1 : 1;
  if (exponent === 2 ** exponentBits - 1) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 1 + fraction : 2 * fraction) * 2 ** (exponent - 2 ** (exponentBits - 1) + 1);
}
const ELEMENTS: Record<string, [width: number, (view: DataView, at: number) => number]> = {
  F32: [4, (view, at) => view.getFloat32(at, true)],
  F64: [8, (view, at) => Math.fround(view.getFloat64(at, true))],
  F16: [2, (view, at) => half(view.getUint16(at, true), 5)],
  BF16: [2, (view, at) => half(view.getUint16(at, true), 8)],
};

interface Entry {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data_offsets: readonly [number, number];
}

/** Reads the parameters of the model in a folder, without the library's own code for safetensors. */
async function parametersIn(folder: string, { config }: GPT): Promise<Map<string, number[]>> {
  const parameters = new Map<string, number[]>();
  for await (const { name: file } of Deno.readDir(folder)) {
    if (!file.endsWith(".safetensors")) continue;
    const view = new DataView((await Deno.readFile(`${folder}/${file}`)).buffer),
      length = Number(view.getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(view.buffer, 8, length)));
    for (const [name, entry] of Object.entries<Entry>(header)) {
      if (name === "__metadata__" || /^(transformer\.)?h\.\d+\.attn\.(masked_)?bias$/.test(name)) continue;
      const { dtype, shape, data_offsets: [begin, end] } = entry;
      const [width, read] = ELEMENTS[dtype], [rows, columns] = shape;
      const values = Array.from(
        { length: (end - begin) / width },
        (_, i) => read(view, 8 + length + begin + i * width),
      );
      const conv = /(c_attn|c_fc|c_proj)\.weight$/.test(name);
      const ours = conv ? values.map((_, i) => values[(i % rows) * columns + Math.floor(i / rows)]) : values;
      parameters.set(
        name.startsWith("lm_head") ? name : `transformer.${name.replace("transformer.", "")}`,
        ours,
      );
    }
  }
  if (config.tieWordEmbeddings) {
    if (!parameters.has("transformer.wte.weight")) {
      parameters.set("transformer.wte.weight", parameters.get("lm_head.weight")!);
    }
    parameters.delete("lm_head.weight");
  }
  return parameters;
}

async function checkLoaded(model: GPT, folder: string) {
  const json = JSON.parse(await Deno.readTextFile(`${folder}/config.json`));
  const { config } = model, alias = (field: string, other: string) => json[other] ?? json[field];
  assertEquals(config.nLayer, alias("n_layer", "num_hidden_layers") ?? 12);
  assertEquals(config.nHead, alias("n_head", "num_attention_heads") ?? 12);
  assertEquals(config.layerNormEpsilon, json.layer_norm_epsilon ?? 1e-5);
  const gelus = /^gelu(_python)?$/.test(json.activation_function) ? "gelu" : "gelu_new";
  assertEquals(config.activation, json.activation_function === "relu" ? "relu" : gelus);
  assert(
    (json.scale_attn_weights ?? true) === true && !json.scale_attn_by_inverse_layer_idx && !json.add_cross_attention,
  );
  const parameters = await parametersIn(folder, model);
  for (const [name, parameter] of model.namedParameters()) {
    assertEquals([...await parameter.data()], parameters.get(name), name);
    parameters.delete(name);
  }
  assertEquals([...parameters.keys()], []);
}

/** Loads mutants of a file. @returns the number of mutants that were loaded without an error */
async function fuzz(name: string, file: string, seed: number): Promise<number> {
  const random = new RandomGenerator(seed), device = new ReferenceDevice(), folder = await Deno.makeTempDir();
  let loaded = 0;
  try {
    for await (const { name: other } of Deno.readDir(`${saved}/${name}`)) {
      await Deno.copyFile(`${saved}/${name}/${other}`, `${folder}/${other}`);
    }
    const original = await Deno.readFile(`${folder}/${file}`), text = !file.endsWith(".safetensors");
    const header = text ? original.length : 8 + Number(new DataView(original.buffer).getBigUint64(0, true));
    for (let number = 0; number < MUTANTS; number++) {
      // Every fourth mutant of a weights file has its changes anywhere, all other mutants in the header.
      const mutant = mutate(original, number % 4 === 3 ? original.length : header, random), begin = processorTime();
      await Deno.writeFile(`${folder}/${file}`, mutant);
      try {
        const model = await loadHuggingFace(folder, { device });
        await checkLoaded(model, folder);
        model.dispose();
        loaded++;
      } catch (error) {
        if (!(error instanceof CheckpointError || error instanceof DeviceError)) {
          throw new Error(`mutant ${number} of ${name}/${file}`, { cause: error });
        }
      }
      assertEquals(device.memory().tensors, 0, `mutant ${number}`);
      const took = processorTime() - begin;
      assert(took < 2000, `mutant ${number} took ${took} ms`);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
  return loaded;
}

for (
  const [name, file, seed] of [
    ["older", "model.safetensors", 1],
    ["f16", "model.safetensors", 2],
    ["bf16_sharded", "model-00003-of-00004.safetensors", 3],
    ["bf16_sharded", "model.safetensors.index.json", 4],
    ["untied", "config.json", 5],
  ] as const
) {
  Deno.test(`${MUTANTS} mutants of ${name}/${file}`, async () => {
    const loaded = await fuzz(name, file, seed);
    console.log(`${name}/${file}: ${loaded} of ${MUTANTS} mutants loaded, as they say`);
    assert(loaded < MUTANTS);
  });
}
