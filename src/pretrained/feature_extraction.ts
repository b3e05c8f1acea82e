/** The hidden states of a text's tokens: transformers' pipeline `feature-extraction`. */
import { noGrad } from "../engine/autograd.ts";
import type { Tensor } from "../engine/tensor.ts";
import { DataError } from "../errors.ts";
import { evaluating } from "../nn/module.ts";
import type { Pretrained } from "./load.ts";

/** Options of feature extraction. */
export interface FeatureExtractionOptions {
  /** Whether to return a tensor (1, T, C), which the caller must dispose of. Default false: nested arrays. */
  readonly returnTensors?: boolean;
  /** Whether to cut the end of a text that is longer than the block size. Default false: such a text is an error. */
  readonly truncation?: boolean;
}

/** The last hidden state, [1][T][C]: a vector of width C for each of T tokens. */
export type TextFeatures = number[][][];

/** The pipeline that `pipeline("feature-extraction", …)` makes. */
export interface FeatureExtractionPipeline extends Disposable {
  /** The last hidden state of a text as a tensor. */
  (text: string, options: FeatureExtractionOptions & { readonly returnTensors: true }): Promise<Tensor>;
  /** The last hidden states of several texts as tensors. */
  (texts: readonly string[], options: FeatureExtractionOptions & { readonly returnTensors: true }): Promise<Tensor[]>;
  /** The last hidden state of a text. */
  (text: string, options?: FeatureExtractionOptions): Promise<TextFeatures>;
  /** The last hidden states of several texts. */
  (texts: readonly string[], options?: FeatureExtractionOptions): Promise<TextFeatures[]>;
  /** The model and its tokenizer. */ readonly loaded: Pretrained;
  /** Frees the model and closes its device, if the pipeline made them. `using` calls it. */ close(): void;
}

export function featureExtraction(loaded: Pretrained, close: () => void): FeatureExtractionPipeline {
  const { model, tokenizer } = loaded, { blockSize } = model.config;
  async function one(text: string, { returnTensors = false, truncation = false }: FeatureExtractionOptions) {
    const ids = tokenizer.encode(text, { allowedSpecial: "all" }), T = Math.min(ids.length, blockSize);
    if (T === 0) throw new DataError("the text is empty; expected at least one token");
    if (ids.length > blockSize && !truncation) {
      throw new DataError(
        `the text has ${ids.length} tokens, and the model's block size is ${blockSize}; { truncation: true } cuts its end`,
      );
    }
    const pass = () => {
      using scope = model.device.scope();
      return scope.keep(model.hidden(model.device.tensor(ids.subarray(0, T), [1, T], { dtype: "i32" })));
    };
    const states = evaluating(model, () => noGrad(pass));
    if (returnTensors) return states;
    const values = await states.data(), C = states.shape[2];
    states.dispose();
    return [Array.from({ length: T }, (_, t) => Array.from(values.subarray(t * C, (t + 1) * C)))];
  }
  async function extract(given: string | readonly string[], options: FeatureExtractionOptions = {}) {
    if (typeof given === "string") return await one(given, options);
    const found = [];
    for (const text of given) found.push(await one(text, options));
    return found;
  }
  return Object.assign(extract as FeatureExtractionPipeline, { loaded, close, [Symbol.dispose]: close });
}
