/**
 * Writes files for PyTorch to open. check_torch_files.py runs this module, compares the results of torch.load with the
 * expected values, and stores the files' checksums in torch_files/verified.json. The test compares checksums.
 */
import { NanoGPTFile } from "../../src/checkpoint/nanogpt.ts";
import { writeNanoGPT } from "../../src/checkpoint/nanogpt_save.ts";
import type { CharacterTokenizer } from "../../src/tokenizer/character.ts";
import { readMetaPkl, writeMetaPkl } from "../../src/tokenizer/meta_pkl.ts";
import { PickleFloat } from "../../src/files/pickle_writer.ts";
import { writeTorchFile } from "../../src/files/torch_writer.ts";

export const FOLDER = new URL("torch_files", import.meta.url).pathname;

/** Returns 0, 0.5, 1, 1.5, … */
const halves = (size: number) => Float32Array.from({ length: size }, (_, i) => i / 2);

/** Writes every file into `folder`. */
export async function writeTorchFiles(folder: string): Promise<void> {
  const weight = { dtype: "F32", shape: [3, 4], data: () => halves(12) } as const;
  await writeTorchFile(`${folder}/values.pt`, {
    tensors: {
      weight,
      tied: weight,
      scalar: { dtype: "F32", shape: [], data: () => Float32Array.of(30) },
      empty: { dtype: "F32", shape: [0, 3], data: () => new Float32Array() },
      f64: { dtype: "F64", shape: [2], data: () => Promise.resolve(Float64Array.of(Math.PI, -0)) },
      f16: { dtype: "F16", shape: [2, 2], data: () => halves(4) },
      bf16: { dtype: "BF16", shape: [4], data: () => Float32Array.of(1, 1.00390625, 1.01171875, -Infinity) },
      i32: { dtype: "I32", shape: [1, 2], data: () => Int32Array.of(-1, 2 ** 31 - 1) },
      i64: { dtype: "I64", shape: [2], data: () => BigInt64Array.of(-1n, 2n ** 62n) },
      bool: { dtype: "BOOL", shape: [2], data: () => Uint8Array.of(1, 0) },
    },
    list: [null, true, false, 0, 255, -1, 2 ** 31, -(2 ** 31) - 1, 2n ** 70n, 0.5, -0, 1e300, new PickleFloat(1)],
    tuple: Object.freeze([1, Object.freeze([]), [], {}]),
    keys: new Map<string | number | boolean, string>([["a", "naïve \ufeff 🙂\n\0"], [7, ""], [-1, "x".repeat(300)]]),
  });
  using file = await NanoGPTFile.open(`${FOLDER}/ckpt.pt`);
  const { config, iter, bestValLoss, flags } = file;
  const all = { config, iter, bestValLoss, flags, weights: file.weights(), optimizer: await file.optimizer() };
  await writeNanoGPT(`${folder}/ckpt.pt`, all);
  await writeMetaPkl(`${folder}/meta.pkl`, await readMetaPkl(`${FOLDER}/meta.pkl`) as CharacterTokenizer);
}

if (import.meta.main) await writeTorchFiles(Deno.args[0]);
