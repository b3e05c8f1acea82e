/**
 * The GPT language model, in the order of nanoGPT's model.py: LayerNorm (see nn/), CausalSelfAttention, MLP, Block,
 * GPTConfig, GPT.
 *
 * Radford et al. 2019, "Language Models are Unsupervised Multitask Learners" (GPT-2). Letters in shapes: B sequences, T
 * tokens, C channels (nEmbd), V entries of the vocabulary. Two things are elsewhere on purpose: generating text
 * (generate/) and loading checkpoints of other programs (pretrained/).
 */
import { noGrad } from "./engine/autograd.ts";
import type { Device } from "./engine/device.ts";
import { ConfigError, nearest, ShapeError } from "./errors.ts";
import { type CacheType, KeyValueCache } from "./nn/cache.ts";
import { Dropout, DropoutNoise, Embedding, LayerNorm, Linear, Module, type ModuleOptions } from "./nn/mod.ts";
import { add } from "./ops/add.ts";
import { cachedAttention, type Places } from "./ops/cached_attention.ts";
import { causalSelfAttention } from "./ops/causal_self_attention.ts";
import { concat } from "./ops/concat.ts";
import { crossEntropy } from "./ops/cross_entropy.ts";
import { embedding } from "./ops/embedding.ts";
import { gelu } from "./ops/gelu.ts";
import { maximum } from "./ops/maximum.ts";
import { mean } from "./ops/mean.ts";
import { slice } from "./ops/slice.ts";
import { zeros } from "./ops/zeros.ts";
import { AdamW } from "./optim/adamw.ts";
import { RandomGenerator } from "./random/mod.ts";
import { Tensor, untrainable } from "./engine/tensor.ts";

/** Activation functions of the MLP, under their names in Hugging Face transformers. */
export const ACTIVATIONS = {
  gelu: (x: Tensor): Tensor => gelu(x),
  gelu_new: (x: Tensor): Tensor => gelu(x, { approximate: "tanh" }),
  relu: (x: Tensor): Tensor => maximum(x, x.device.tensor([0], [])),
};

/** Options that every layer of this model takes. */
interface LayerOptions extends ModuleOptions {
  readonly config: Required<GPTConfig>;
  readonly noise: DropoutNoise;
}

/** The tokens that attention sees. Default: in each row, every token sees itself and all tokens before it. */
interface Seen {
  /** The layer's cached keys and values, and the slot and position of each new token in that cache. */
  readonly cached?: Places & { readonly layer: Tensor };
  /** Where each token's document begins: see {@linkcode causalSelfAttention}. */
  readonly starts?: Tensor;
}

/**
 * @internal Each token attends to itself and to the tokens before it, in `nHead` heads (Vaswani et al. 2017,
 *   arXiv:1706.03762).
 */
export class CausalSelfAttention extends Module {
  c_attn: Linear;
  c_proj: Linear;
  readonly attn_dropout: Dropout;
  readonly resid_dropout: Dropout;
  readonly #heads: number;

  constructor({ config: { nEmbd, nHead, dropout, bias }, noise, ...options }: LayerOptions) {
    super();
    this.c_attn = new Linear(nEmbd, 3 * nEmbd, { ...options, bias }); // queries, keys and values of all heads at once
    this.c_proj = new Linear(nEmbd, nEmbd, { ...options, bias });
    this.attn_dropout = new Dropout(dropout, noise);
    this.resid_dropout = new Dropout(dropout, noise);
    this.#heads = nHead;
  }
  /** @param seen this layer's cache and the tokens' places in it, or where each token's document begins */
  forward(x: Tensor, { cached, starts }: Seen = {}): Tensor {
    const qkv = this.c_attn.forward(x); // (B, T, 3C)
    const heads = this.#heads;
    const y = cached // (B, T, C)
      ? cachedAttention(qkv, cached.layer, cached)
      : causalSelfAttention(qkv, { heads, dropout: this.attn_dropout.next(), starts });
    return this.resid_dropout.forward(this.c_proj.forward(y));
  }
}

/** @internal The feed-forward network: two linear layers with an activation in between. */
export class MLP extends Module {
  c_fc: Linear;
  c_proj: Linear;
  readonly dropout: Dropout;
  readonly #activation: (x: Tensor) => Tensor;

  constructor({ config: { nEmbd, nInner, activation, dropout, bias }, noise, ...options }: LayerOptions) {
    super();
    this.c_fc = new Linear(nEmbd, nInner, { ...options, bias });
    this.c_proj = new Linear(nInner, nEmbd, { ...options, bias });
    this.dropout = new Dropout(dropout, noise);
    this.#activation = ACTIVATIONS[activation];
  }
  forward(x: Tensor): Tensor {
    const hidden = this.#activation(this.c_fc.forward(x)); // (B, T, 4C)
    return this.dropout.forward(this.c_proj.forward(hidden));
  }
}

/** @internal Attention, then an MLP, each added to the residual stream. */
export class Block extends Module {
  ln_1: LayerNorm;
  attn: CausalSelfAttention;
  ln_2: LayerNorm;
  mlp: MLP;

  constructor(options: LayerOptions) {
    super();
    const { nEmbd, bias, layerNormEpsilon: epsilon } = options.config;
    this.ln_1 = new LayerNorm(nEmbd, { ...options, bias, epsilon });
    this.attn = new CausalSelfAttention(options);
    this.ln_2 = new LayerNorm(nEmbd, { ...options, bias, epsilon });
    this.mlp = new MLP(options);
  }
  forward(x: Tensor, seen?: Seen): Tensor {
    using scope = x.device.scope(); // frees the intermediates that backward does not need
    x = add(x, this.attn.forward(this.ln_1.forward(x), seen));
    return scope.keep(add(x, this.mlp.forward(this.ln_2.forward(x))));
  }
}

/** The sizes of a model. The defaults are nanoGPT's: GPT-2 (124M). */
export interface GPTConfig {
  /** Context length in tokens; default 1024. */
  readonly blockSize: number;
  /** Size of the vocabulary; default 50304, which is GPT-2's 50257 padded to a multiple of 64. */
  readonly vocabSize: number;
  /** Number of blocks; default 12. */
  readonly nLayer: number;
  /** Number of attention heads in a block; default 12. */
  readonly nHead: number;
  /** Width of the residual stream, C; default 768. */
  readonly nEmbd: number;
  /** Probability that dropout zeroes an element in training; default 0. */
  readonly dropout: number;
  /**
   * Whether linear layers and layer norms have biases, as in GPT-2; default true. False is slightly better and faster.
   */
  readonly bias: boolean;
  /**
   * Activation of the MLP; default `gelu`, the exact one, as in nanoGPT. GPT-2 was trained with `gelu_new`, the tanh
   * approximation.
   */
  readonly activation?: "gelu" | "gelu_new" | "relu";
  /** Width of the MLP's hidden layer; default 4 · nEmbd. */
  readonly nInner?: number;
  /** Epsilon of the layer norms; default 1e-5. */
  readonly layerNormEpsilon?: number;
  /** Whether the token embeddings and the head share one weight; default true. */
  readonly tieWordEmbeddings?: boolean;
}

const DEFAULTS: Omit<Required<GPTConfig>, "nInner"> = {
  blockSize: 1024,
  vocabSize: 50304,
  nLayer: 12,
  nHead: 12,
  nEmbd: 768,
  dropout: 0,
  bias: true,
  activation: "gelu",
  layerNormEpsilon: 1e-5,
  tieWordEmbeddings: true,
};

/** Options of a new model: its device, the type of its weights, and how they are initialised. */
export interface GPTOptions {
  /** The device that holds and runs the model. */ readonly device: Device;
  /** Seed of the initial weights and of dropout; default 1337, as in nanoGPT. */ readonly seed?: number;
  /**
   * The type in which matrices are stored; default `f32`. The other two round each value when it is written:
   *
   * - `bf16` takes half the memory and generates up to twice the tokens a second.
   * - `q8_0` takes about a quarter of the memory: GGUF's blocks of 32 values with one scale. nEmbd and nInner must be
   *   multiples of 32.
   *
   * Position embeddings, biases and layer norms are always stored in f32, and everything is computed in f32. A rounded
   * model starts frozen, and its matrices cannot be trained. Gradients still flow through it, which is what LoRA
   * adapters need.
   */
  readonly weights?: "f32" | "bf16" | "q8_0";
  /**
   * Whether the model will only generate text or be evaluated; default false. If true, it starts frozen, in f32 too.
   * The CPU multiplies faster with reordered matrices: if true, only the reordered matrices are stored; if false, the
   * CPU makes reordered copies when the model first generates, which take memory besides the originals.
   */
  readonly inference?: boolean;
  /** Generator that draws the initial weights, from its current state; default: a new one, seeded with `seed`. */
  readonly generator?: RandomGenerator;
  /**
   * Whether to draw initial weights; default true. Pass false if you will load every weight: until then they are
   * undefined.
   */
  readonly initialize?: boolean;
}

/** The result of {@linkcode GPT.forward}. */
export interface GPTOutput<Loss extends Tensor | undefined = Tensor | undefined> {
  /**
   * (B, T, V) with targets; (B, 1, V) without, for the last token of each sequence; (R, 1, V) for the tokens in `of`.
   */
  readonly logits: Tensor;
  /** Mean cross-entropy in nats per token, shape (); undefined without targets. */
  readonly loss: Loss;
}

/** Options of {@linkcode GPT.hidden}. */
export interface HiddenOptions {
  /**
   * Keys and values of the earlier tokens. The pass adds its own tokens to the cache, and records nothing for backward.
   */
  readonly cache?: KeyValueCache;
  /**
   * The slot and the position in the cache of each of the B · T tokens, for texts of different lengths: a pass may
   * bring any number of tokens for each text, in any order. Default: the next T positions of slots 0 to B − 1.
   */
  readonly places?: Places;
  /**
   * i32 (B, T): where each token's document begins, as an index into its row. This lets a row hold several documents,
   * which do not see each other: see {@linkcode causalSelfAttention}. Cannot be combined with a cache. Default: a row
   * is one document.
   */
  readonly starts?: Tensor;
  /**
   * i32 (B, T): the position of each token, which selects its position embedding; below the block size. If a row holds
   * several documents, count from the start of each. Cannot be combined with a cache. Default: the token's index in its
   * row.
   */
  readonly positions?: Tensor;
  /**
   * Called with the input of every block, x (B, T, C), and its number `layer`, from 0; then with the output of the
   * final layer norm and `layer` = nLayer. The tensors that it sees or makes live until the scope around the call ends.
   */
  readonly each?: (x: Tensor, layer: number) => void;
}

/** Options of {@linkcode GPT.forward}. */
export interface ForwardOptions extends Omit<HiddenOptions, "each"> {
  /**
   * i32 (R): indices, from 0 to B · T − 1, of the tokens to compute logits for. Only without targets. Default: each
   * row's last token.
   */
  readonly of?: Tensor;
}

/**
 * The GPT language model. With the same seed, its initial weights are nanoGPT's.
 *
 * @example
 * ```ts
 * import { assertAlmostEquals } from "@std/assert";
 * import { createDevice, GPT } from "@nanogpt/ts";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const model = new GPT({ vocabSize: 65, blockSize: 8, nLayer: 2, nHead: 2, nEmbd: 16 }, { device });
 * const tokens = device.tensor([1, 2, 3, 4], [1, 4], { dtype: "i32" });
 * const targets = device.tensor([2, 3, 4, 5], [1, 4], { dtype: "i32" });
 * const { loss } = model.forward(tokens, targets);
 * loss.backward();
 * assertAlmostEquals(await loss.item(), Math.log(65), 0.1); // untrained: all 65 tokens are about equally likely
 * device.close();
 * ```
 */
export class GPT extends Module {
  /** The config, with its defaults filled in. */ readonly config: Required<GPTConfig>;
  /** The random numbers of all dropout layers. */ readonly noise: DropoutNoise;
  /** All layers before the head, under nanoGPT's names. */
  transformer: { wte: Embedding; wpe: Embedding; drop: Dropout; h: Block[]; ln_f: LayerNorm };
  /** Computes the logits; by default it shares its weight with wte. */ lm_head: Linear;

  /**
   * Makes a model with initial weights.
   * @param config sizes; the fields left out are GPT-2's (124M)
   * @param options the device, the type of the weights, and how to initialise them
   * @throws {ConfigError} when a size is not a whole number above 0, nEmbd is not a multiple of nHead, dropout is not
   *   from 0 to 1, or another field is not valid or not known
   * @throws {DeviceError} when the weights do not fit into the device's memory; no memory stays allocated then
   */
  constructor(
    config: Partial<GPTConfig>,
    { device, seed = 1337, generator = new RandomGenerator(seed), initialize = true, weights = "f32", inference }:
      GPTOptions,
  ) {
    super();
    this.config = checked(completeConfig(config));
    for (const name of weights === "q8_0" ? ["nEmbd", "nInner"] as const : []) {
      if (this.config[name] % 32 === 0) continue;
      throw new ConfigError(
        `${name} is ${this.config[name]}, not a multiple of 32, which weights in q8_0 need; use f32 or bf16`,
      );
    }
    using scope = device.scope(); // if the weights do not fit, frees what was allocated
    this.noise = new DropoutNoise(device, seed | 0);
    const { vocabSize, blockSize, nEmbd, nLayer, dropout, bias, layerNormEpsilon: epsilon } = this.config;
    const options: LayerOptions = {
      config: this.config,
      noise: this.noise,
      device,
      generator,
      initialize,
      weights,
      inference,
    };
    this.transformer = {
      wte: new Embedding(vocabSize, nEmbd, options),
      wpe: new Embedding(blockSize, nEmbd, { ...options, weights: "f32", inference: false }),
      drop: new Dropout(dropout, this.noise),
      h: Array.from({ length: nLayer }, () => new Block(options)),
      ln_f: new LayerNorm(nEmbd, { ...options, bias, epsilon }),
    };
    const { wte } = this.transformer, tied = this.config.tieWordEmbeddings;
    if (tied) wte.weight.dispose(); // frees its memory for the head's weight
    this.lm_head = new Linear(nEmbd, vocabSize, { ...options, bias: false });
    if (tied) wte.weight = this.lm_head.weight; // Press and Wolf 2016, arXiv:1608.05859
    if (initialize) this.#initialize(generator);
    if (inference || weights !== "f32") this.freeze();
    scope.keepAll();
  }

  /**
   * Draws GPT-2's initial weights: N(0, 0.02), scaled by 1/√(2·nLayer) for the matrices that write to the residual
   * stream. Biases are zero.
   *
   * Every weight is drawn twice, and `c_proj` three times. nanoGPT's layers draw when PyTorch makes them, then
   * `_init_weights` draws all of them again, then a loop draws `c_proj` once more. Only if the generator takes the same
   * steps does a seed give nanoGPT's weights.
   */
  #initialize(generator: RandomGenerator): void {
    const draw = ({ device, storage }: Tensor, std: number) =>
      device.fill(storage, (values) => generator.normal(values, 0, std));
    for (const module of this.modules()) {
      if (module instanceof Linear || module instanceof Embedding) draw(module.weight, 0.02);
      if (module instanceof Linear && module.bias) {
        module.bias.device.fill(module.bias.storage, () => {}); // zeros
      }
    }
    for (const [name, weight] of this.namedParameters()) {
      if (name.endsWith("c_proj.weight")) draw(weight, 0.02 / Math.sqrt(2 * this.config.nLayer));
    }
  }

  /** The device that holds the weights. */
  get device(): Device {
    return this.lm_head.weight.device;
  }

  /** Frees every parameter and its gradient, and dropout's counter. */
  override dispose(): void {
    super.dispose();
    this.noise.offset.dispose();
  }

  /**
   * Computes the logits and, with targets, the loss: {@linkcode hidden}, then the head.
   *
   * @param tokens i32 (B, T), T at most the block size
   * @param targets i32 (B, T); the loss ignores tokens with target −1
   * @param options.cache see {@linkcode hidden}, also for `places`, `starts` and `positions`
   * @param options.of the tokens to compute logits for; only without targets
   * @returns with targets, logits (B, T, V) and the loss; without, logits (B, 1, V) of each row's last token, or (R, 1,
   *   V) of the tokens in `of`
   * @throws {ShapeError} when T exceeds the block size, targets have another shape than tokens, or an id is not valid
   * @throws {ConfigError} when `of` is given together with targets
   */
  forward(tokens: Tensor, targets: Tensor, options?: ForwardOptions): GPTOutput<Tensor>;
  /** Computes the logits only. */
  forward(tokens: Tensor, targets?: undefined, options?: ForwardOptions): GPTOutput<undefined>;
  /** Computes the logits and, if there are targets, the loss. */
  forward(tokens: Tensor, targets?: Tensor, options?: ForwardOptions): GPTOutput;
  forward(tokens: Tensor, targets?: Tensor, options: ForwardOptions = {}): GPTOutput {
    if (targets && `${targets.shape}` !== `${tokens.shape}`) {
      throw new ShapeError(`GPT: targets are [${targets.shape}], tokens [${tokens.shape}]`);
    }
    if (targets && options.of) {
      throw new ConfigError(
        "GPT: of cannot be combined with targets, because the loss needs the logits of all tokens; " +
          "leave out of, or call forward(tokens, undefined, { of })",
      );
    }
    const T = tokens.shape[1];
    const pass = () => {
      using scope = this.device.scope();
      let x = this.hidden(tokens, options); // (B, T, C)
      if (!targets && options.of) {
        x = embedding(options.of, x.alias([tokens.size, x.shape[2]])).alias([options.of.size, 1, x.shape[2]]);
      } else if (!targets && T > 1) x = slice(x, { axis: 1, start: T - 1, end: T }); // (B, 1, C): the last token
      const logits = this.lm_head.forward(x); // (B, T, V)
      const loss = targets && crossEntropy(logits, targets, { ignoreIndex: -1 });
      return { logits: scope.keep(logits), loss: scope.keep(loss) };
    };
    return options.cache ? noGrad(pass) : pass();
  }

  /**
   * Computes the final hidden states: the output of the last layer norm, which is the input of the head.
   *
   * @param tokens i32 (B, T), T at most the block size
   * @returns (B, T, C)
   * @throws {ShapeError} when T exceeds the block size, an id is not valid, or `starts` or `positions` have another
   *   shape than tokens, hold a number outside the row or the block size, or are combined with a cache
   */
  hidden(tokens: Tensor, options: HiddenOptions = {}): Tensor {
    return options.cache ? noGrad(() => this.#hidden(tokens, options)) : this.#hidden(tokens, options);
  }

  #hidden(tokens: Tensor, { cache, places, starts, positions, each }: HiddenOptions): Tensor {
    const T = tokens.shape[1], { blockSize } = this.config, { h, ln_f } = this.transformer;
    const before = cache?.length ?? 0;
    if (tokens.shape.length !== 2) throw new ShapeError(`GPT: tokens are [${tokens.shape}], expected [B, T]`);
    if (!places && before + T > blockSize) {
      throw new ShapeError(`GPT: ${before + T} tokens do not fit into the block size of ${blockSize}`);
    }
    if (places && !cache) throw new ShapeError("GPT: places are given without a cache; pass the cache, too");
    for (const [name, numbers] of Object.entries({ starts, positions })) {
      if (!numbers) continue;
      if (cache) {
        throw new ShapeError(`GPT: ${name} cannot be combined with a cache, in which each text has its own slot`);
      }
      if (`${numbers.shape}` === `${tokens.shape}`) continue;
      throw new ShapeError(`GPT: ${name} are [${numbers.shape}], tokens [${tokens.shape}]`);
    }
    using scope = this.device.scope();
    if (this.training && this.noise.used) this.noise.begin();
    const at = places ?? cache?.places(T);
    let x = this.#embed(tokens, at?.position.alias(tokens.shape) ?? positions); // (B, T, C)
    for (const [layer, block] of h.entries()) {
      const input = x;
      each?.(input, layer);
      x = block.forward(input, { cached: at && { ...at, layer: cache!.layers[layer] }, starts });
      if (!each) input.dispose(); // the next block reuses its memory, unless the tape holds it for backward
    }
    const end = ln_f.forward(x);
    x.dispose();
    if (!places) cache?.advance(T);
    each?.(end, h.length);
    if (each) scope.keepAll(); // the tensors that `each` saw or made belong to the caller
    return scope.keep(end);
  }

  #embed(tokens: Tensor, given?: Tensor): Tensor {
    const T = tokens.shape[1], { wte, wpe, drop } = this.transformer;
    using scope = this.device.scope();
    const positions = given ??
      this.device.tensor(Int32Array.from({ length: T }, (_, t) => t), [T], { dtype: "i32" });
    return scope.keep(drop.forward(add(wte.forward(tokens), wpe.forward(positions)))); // (B, T, C) + (B, T, C) or (T, C)
  }

  /**
   * Makes an empty key-value cache.
   *
   * @param slots number of texts that the cache holds
   * @param options.dtype how keys and values are stored: `f32`, the default, or `bf16`, which takes half the memory
   */
  createCache(slots = 1, { dtype }: { readonly dtype?: CacheType } = {}): KeyValueCache {
    const { nLayer, nHead, nEmbd, blockSize } = this.config;
    const sizes = { slots, layers: nLayer, length: blockSize, heads: nHead, width: nEmbd / nHead };
    return new KeyValueCache(this.device, { ...sizes, dtype });
  }

  /**
   * Returns the number of parameters. A tied weight counts once.
   *
   * @param options.nonEmbedding whether to leave out the position embeddings, as nanoGPT does; default true
   */
  numParameters({ nonEmbedding = true }: { readonly nonEmbedding?: boolean } = {}): number {
    const all = this.parameters().reduce((sum, { size }) => sum + size, 0);
    return nonEmbedding ? all - this.transformer.wpe.weight.size : all;
  }

  /**
   * Reduces the block size, for example to use a checkpoint with 1024 positions on shorter texts. Call it before you
   * make an optimizer.
   *
   * @param blockSize in tokens, at most the current block size
   * @throws {ConfigError} when `blockSize` is not a whole number from 1 to the current block size
   */
  cropBlockSize(blockSize: number): void {
    if (!(blockSize >= 1 && blockSize <= this.config.blockSize && Number.isInteger(blockSize))) {
      throw new ConfigError(`cropBlockSize: ${blockSize} is not from 1 to ${this.config.blockSize}`);
    }
    const { wpe } = this.transformer, old = wpe.weight;
    using scope = this.device.scope();
    const { storage, shape } = noGrad(() => slice(old, { axis: 0, end: blockSize }));
    wpe.weight = scope.keep(new Tensor(storage, shape, { requiresGrad: old.requiresGrad }));
    old.grad?.dispose();
    old.dispose();
    (this as { config: Required<GPTConfig> }).config = { ...this.config, blockSize };
    this.changed();
  }

  /**
   * Adds tokens to the vocabulary: rows of the token embeddings and of the head, tied or not. Each new row is the mean
   * of the known rows, which makes a new token about as likely as an average one (Hewitt 2021,
   * nlp.stanford.edu/~johnhew/vocab-expansion.html). Call it before you make an optimizer.
   *
   * @param vocabSize the new number of tokens. Rows are added only if the model has fewer
   * @param options.known how many of the model's rows stand for tokens; default: all. The rows after them are padding:
   *   rows `known` to vocabSize − 1 are overwritten with the mean
   * @throws {ConfigError} when a number is not a whole number above 0, `known` exceeds the number of rows, or the
   *   embeddings are not stored in f32
   */
  resizeTokenEmbeddings(vocabSize: number, { known = this.config.vocabSize }: { readonly known?: number } = {}): void {
    const rows = this.config.vocabSize, { wte } = this.transformer;
    for (const [name, value, most] of [["vocabSize", vocabSize, 2 ** 31 - 1], ["known", known, rows]] as const) {
      if (Number.isInteger(value) && value > 0 && value <= most) continue;
      throw new ConfigError(`resizeTokenEmbeddings: ${name} is ${value}; expected a whole number from 1 to ${most}`);
    }
    if (vocabSize <= known) return;
    for (const [name, { storage }] of [["wte", wte.weight], ["lm_head", this.lm_head.weight]] as const) {
      const stored = untrainable(storage);
      if (!stored) continue;
      throw new ConfigError(
        `resizeTokenEmbeddings: ${name}.weight is stored in ${stored}, and rows can only be added to f32` +
          (stored === "panels"
            ? "; load the model without `inference`"
            : "; leave out --weights (the option `weights`)"),
      );
    }
    const grow = (old: Tensor): Tensor => {
      using scope = this.device.scope();
      const { storage, shape } = noGrad(() => {
        const part = (start: number, end: number) => slice(old, { axis: 0, start, end }), tokens = part(0, known);
        const row = mean(tokens, { axis: 0, keepDim: true }), count = vocabSize - known;
        const made = add(zeros(this.device, [count, row.shape[1]]), row); // (count, C) + (1, C)
        return concat(vocabSize < rows ? [tokens, made, part(vocabSize, rows)] : [tokens, made], { axis: 0 });
      });
      const grown = scope.keep(new Tensor(storage, shape, { requiresGrad: old.requiresGrad }));
      old.grad?.dispose();
      old.dispose();
      return grown;
    };
    const tied = wte.weight === this.lm_head.weight;
    wte.weight = grow(wte.weight);
    this.lm_head.weight = tied ? wte.weight : grow(this.lm_head.weight);
    (this as { config: Required<GPTConfig> }).config = { ...this.config, vocabSize: Math.max(vocabSize, rows) };
    this.changed();
  }

  /**
   * Makes an AdamW optimizer over the trainable parameters. Weight decay applies to matrices and embeddings, not to
   * biases and layer norms.
   *
   * @param options.weightDecay λ: each step multiplies a decayed weight by 1 − learningRate · λ
   * @param options.learningRate in weight units per step
   * @param options.betas decay rates of the moving averages of the gradient and of its square, from 0 to below 1
   * @throws {ConfigError} when an option is out of range, or every parameter is frozen
   */
  configureOptimizers(
    options: { weightDecay: number; learningRate: number; betas: readonly [number, number] },
  ): AdamW {
    const trained = [...this.namedParameters({ trainable: true })];
    if (trained.length > 0) return new AdamW(trained, options);
    throw new ConfigError(
      "configureOptimizers: no parameter is trainable; all are frozen, or the model was made for inference",
    );
  }

  /**
   * Estimates the model FLOPs utilisation: training's share of a machine's peak FLOP/s (PaLM, arXiv:2204.02311,
   * appendix B).
   *
   * @param options.sequences number of sequences as long as the block size that went forward and backward in `seconds`
   * @param options.seconds the time that they took
   * @param options.peakFlops the machine's peak in FLOP/s, e.g. 312e12 for an A100 in bfloat16
   * @returns a ratio; 1 is the peak
   */
  estimateMfu({ sequences, seconds, peakFlops }: Record<"sequences" | "seconds" | "peakFlops", number>): number {
    const { nLayer, nHead, nEmbd, blockSize } = this.config;
    const perToken = 6 * this.numParameters() + 12 * nLayer * nHead * (nEmbd / nHead) * blockSize;
    return perToken * blockSize * sequences / seconds / peakFlops;
  }
}

/** Fills the defaults into a config, such as one from an older checkpoint. Checks nothing. */
export function completeConfig(config: Partial<GPTConfig>): Required<GPTConfig> {
  return { ...DEFAULTS, nInner: 4 * (config.nEmbd ?? DEFAULTS.nEmbd), ...config };
}

function checked(config: Required<GPTConfig>): Required<GPTConfig> {
  const names = [...Object.keys(DEFAULTS), "nInner"];
  for (const name of Object.keys(config)) {
    if (names.includes(name)) continue;
    // nanoGPT and transformers write n_embd for nEmbd.
    const meant = nearest(name.replaceAll("_", ""), names);
    throw new ConfigError(
      `${name} is not a field of GPTConfig${meant ? `; did you mean ${meant}?` : `: ${names.join(", ")}`}`,
    );
  }
  const { activation, layerNormEpsilon, tieWordEmbeddings } = config;
  for (const name of ["blockSize", "vocabSize", "nLayer", "nHead", "nEmbd", "nInner"] as const) {
    if (!Number.isInteger(config[name]) || config[name] < 1) {
      throw new ConfigError(`${name} is ${config[name]}; expected a whole number above 0`);
    }
  }
  if (config.nEmbd % config.nHead !== 0) {
    throw new ConfigError(`nEmbd is ${config.nEmbd}, not a multiple of nHead, which is ${config.nHead}`);
  }
  if (!Object.hasOwn(ACTIVATIONS, activation)) {
    throw new ConfigError(`activation is ${activation}; expected one of ${Object.keys(ACTIVATIONS).join(", ")}`);
  }
  if (!(layerNormEpsilon > 0 && layerNormEpsilon < Infinity)) {
    throw new ConfigError(`layerNormEpsilon is ${layerNormEpsilon}; expected a number above 0`);
  }
  if (typeof tieWordEmbeddings !== "boolean") {
    throw new ConfigError(`tieWordEmbeddings is ${tieWordEmbeddings}; expected true or false`);
  }
  return config;
}
