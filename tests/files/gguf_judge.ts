/** Loads a damaged GGUF file and reports the result. */
import { assert, assertEquals } from "@std/assert";
import { ggufName } from "../../src/checkpoint/gguf.ts";
import { ReferenceDevice } from "../../src/device/reference.ts";
import { CheckpointError } from "../../src/errors.ts";
import { GgufFile } from "../../src/files/gguf.ts";
import { loadPretrained } from "../../src/pretrained/load.ts";
import { byteString } from "../../src/tokenizer/byte_pair.ts";
import { letterBytes } from "../../src/tokenizer/byte_letters.ts";
import { processorTime } from "../testing.ts";
import { checksum, mutant } from "./gguf_mutants.ts";

export interface Judged {
  /** Checksum of the file's metadata and tensors. */
  readonly checksum: string;
  /** Whether the file could also be loaded as a model. */
  readonly model: boolean;
}

/** The maximum processor time in milliseconds for loading a mutant, a file of 50 KB. */
const LIMIT = 2000;

/**
 * Writes a mutant to `path` and opens it as a GGUF file and as a model. Checks that the model has the file's weights.
 *
 * @returns undefined if the file is rejected
 * @throws when loading throws an unexpected error, takes too long, or leaves tensors on the device
 */
export async function judge(number: number, path: string): Promise<Judged | undefined> {
  await Deno.writeFile(path, mutant(number));
  const begin = processorTime(), device = new ReferenceDevice();
  try {
    using file = await GgufFile.open(path);
    const sum = await checksum(file);
    const model = await loaded(path, device, file);
    return { checksum: sum, model };
  } catch (error) {
    if (error instanceof CheckpointError) return undefined;
    throw new Error(`mutant ${number}`, { cause: error });
  } finally {
    assertEquals(device.memory().tensors, 0, `mutant ${number} left tensors`);
    const took = processorTime() - begin;
    assert(took < LIMIT, `mutant ${number} took ${took} ms`);
  }
}

async function loaded(path: string, device: ReferenceDevice, file: GgufFile): Promise<boolean> {
  let found;
  try {
    found = await loadPretrained(path, { device });
  } catch (error) {
    if (error instanceof CheckpointError) return false;
    throw error;
  }
  const { model, tokenizer } = found;
  try {
    const said = (key: string) => file.metadata.get(key)?.value, { config } = model;
    const { blockSize, nLayer, nEmbd, nInner, nHead, layerNormEpsilon } = config;
    const sizes = ["context_length", "block_count", "embedding_length", "feed_forward_length", "attention.head_count"];
    assertEquals([blockSize, nLayer, nEmbd, nInner, nHead], sizes.map((key) => said(`gpt2.${key}`)));
    assertEquals(Math.fround(layerNormEpsilon), Math.fround(said("gpt2.attention.layer_norm_epsilon") as number));
    for (const [name, parameter] of model.namedParameters()) {
      assertEquals(Float32Array.from(await parameter.data()), await file.readTensor(ggufName(name)), name);
      assertEquals(parameter.shape, file.tensors.get(ggufName(name))!.shape);
    }
    const tokens = said("tokenizer.ggml.tokens") as string[], types = said("tokenizer.ggml.token_type") as number[];
    assertEquals(tokens.length, config.vocabSize);
    for (const [id, token] of tokens.entries()) {
      if (types?.[id] === 5) continue;
      const bytes = (types?.[id] ?? 1) === 1 && letterBytes(token) || byteString(token);
      assertEquals(
        tokenizer.decode([id]),
        new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes, (c) => c.charCodeAt(0))),
      );
    }
  } finally {
    model.dispose();
  }
  return true;
}
