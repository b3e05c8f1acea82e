/**
 * The GPT language model, in the order of nanoGPT's model.py: LayerNorm (see nn/), CausalSelfAttention, MLP, Block,
 * GPTConfig, GPT.
 *
 * Radford et al. 2019, "Language Models are Unsupervised Multitask Learners" (GPT-2). Letters in shapes: B sequences, T
 * tokens, C channels (nEmbd), V entries of the vocabulary. Left out on purpose: generation (sampler.ts) and foreign
 * checkpoints, which are not the model's business.
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

/** The functions between an MLP's two matrices, by the names that transformers gives them. */
export const ACTIVATIONS = {
  gelu: (x: Tensor): Tensor => gelu(x),
  gelu_new: (x: Tensor): Tensor => gelu(x, { approximate: "tanh" }),
  relu: (x: Tensor): Tensor => maximum(x, x.device.tensor([0], [])),
};

/** What a layer of this model is made with. */
interface LayerOptions extends ModuleOptions {
  readonly config: Required<GPTConfig>;
  readonly noise: DropoutNoise;
}

/** What a pass's attention looks at. */
interface Seen {
  /** A layer's keys and values, and where the tokens of the pass stand in them. */
  readonly cached?: Places & { readonly layer: Tensor };
  /** As {@linkcode causalSelfAttention} takes them. */
  readonly starts?: Tensor;
}

/** @internal Every token looks at itself and those before it, `nHead` times in parallel (Vaswani et al. 2017, arXiv:1706.03762). */
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
  /** @param seen where the tokens stand in this layer's cache, or where their documents begin */
  forward(x: Tensor, { cached, starts }: Seen = {}): Tensor {
    const qkv = this.c_attn.forward(x); // (B, T, 3C)
    const heads = this.#heads;
    const y = cached // (B, T, C)
      ? cachedAttention(qkv, cached.layer, cached)
      : causalSelfAttention(qkv, { heads, dropout: this.attn_dropout.next(), starts });
    return this.resid_dropout.forward(this.c_proj.forward(y));
  }
}

/** @internal Two matrices with an activation in between. */
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
    using scope = x.device.scope(); // what backward needs lives on, on the tape
    x = add(x, this.attn.forward(this.ln_1.forward(x), seen));
    return scope.keep(add(x, this.mlp.forward(this.ln_2.forward(x))));
  }
}

/** The sizes of a model; defaults are nanoGPT's, which are those of GPT-2 (124M). */
export interface GPTConfig {
  /** Tokens that the model sees at once: 1024. */
  readonly blockSize: number;
  /** 50304: GPT-2's 50257 padded to a multiple of 64. */
  readonly vocabSize: number;
  /** 12 */
  readonly nLayer: number;
  /** 12 */
  readonly nHead: number;
  /** 768 */
  readonly nEmbd: number;
  /** 0 */
  readonly dropout: number;
  /** Biases in linear layers and layer norms, as GPT-2 has them: true. Without, a bit better and faster. */
  readonly bias: boolean;
  /** Between an MLP's two matrices: `gelu`, the exact one, as nanoGPT has it; GPT-2 was trained with `gelu_new`, by tanh. */
  readonly activation?: "gelu" | "gelu_new" | "relu";
  /** Width between them: 4 · nEmbd. */
  readonly nInner?: number;
  /** 1e-5 */
  readonly layerNormEpsilon?: number;
  /** Whether the token embeddings are the head's weights too: true. */
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

/** Where a model lives, and what its initial weights are drawn from. */
export interface GPTOptions {
  /** Where the model is made. */ readonly device: Device;
  /** Of initialisation and dropout; default 1337, what nanoGPT seeds with. */ readonly seed?: number;
  /**
   * How matrices are stored: `f32` (the default), or rounded as they are written: `bf16`, half the memory and up to twice the
   * tokens a second, or `q8_0`, GGUF's blocks of 32 with a scale, about a quarter of the memory; nEmbd and nInner are multiples of
   * 32 then. Positions, biases and layer norms stay f32, as does all that is computed. The model begins frozen: gradients pass
   * through it to what is put on it, and its matrices cannot be trained.
   */
  readonly weights?: "f32" | "bf16" | "q8_0";
  /**
   * Whether the model is only going to generate and to be evaluated: then it begins frozen in f32 too, and a device that multiplies
   * faster with matrices in another order (the CPU) stores them in that order alone, where it would make copies when the model first
   * generates. Default false.
   */
  readonly inference?: boolean;
  /** Draws the initial weights instead of a generator made from `seed`, and goes on from there. */
  readonly generator?: RandomGenerator;
  /** Whether the initial weights are drawn; false leaves them undefined, for one who is going to write them all. */
  readonly initialize?: boolean;
}

/** What {@linkcode GPT.forward} gives. */
export interface GPTOutput<Loss extends Tensor | undefined = Tensor | undefined> {
  /** (B, T, V), or (B, 1, V), the last position's, where there are no targets; (R, 1, V) where some tokens were named. */
  readonly logits: Tensor;
  /** Mean cross-entropy in nats a token, shape (), where there are targets. */
  readonly loss: Loss;
}

/** What {@linkcode GPT.hidden} takes besides the tokens. */
export interface HiddenOptions {
  /** Keys and values of the tokens before these; takes these too, and nothing is recorded. */
  readonly cache?: KeyValueCache;
  /**
   * Where each of these tokens stands in the cache, (B, T) numbers each: for texts that do not go on in step, whose tokens come
   * in any number, in any order of the texts. Default: the T next places of slots 0 to B − 1.
   */
  readonly places?: Places;
  /**
   * For rows that hold several documents side by side, which do not see each other: i32 (B, T), for each token the place in its row
   * at which its document begins, as {@linkcode causalSelfAttention} takes them. Without a cache. Default: a row is one document.
   */
  readonly starts?: Tensor;
  /**
   * i32 (B, T): the number of each token's position embedding, below the block size; with documents that of its place in its own.
   * Without a cache. Default: its place in the row.
   */
  readonly positions?: Tensor;
  /**
   * Sees the input of every block, x (B, T, C) with `layer` from 0, and with `layer` = nLayer what comes out at the end, behind
   * the last layer norm. What it has seen and made is the caller's, in the scope around the call.
   */
  readonly each?: (x: Tensor, layer: number) => void;
}

/** What {@linkcode GPT.forward} takes besides tokens and targets. */
export interface ForwardOptions extends Omit<HiddenOptions, "each"> {
  /** i32 (R): which of the B · T tokens logits are wanted of. Default: the last of each sequence, or with targets all. */
  readonly of?: Tensor;
}

/**
 * A GPT with nanoGPT's initial weights for a seed.
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
 * assertAlmostEquals(await loss.item(), Math.log(65), 0.1); // it knows nothing yet: every token is as likely
 * device.close();
 * ```
 */
export class GPT extends Module {
  /** With defaults filled in. */ readonly config: Required<GPTConfig>;
  /** What dropout draws from. */ readonly noise: DropoutNoise;
  /** Everything before the head, by nanoGPT's names. */
  transformer: { wte: Embedding; wpe: Embedding; drop: Dropout; h: Block[]; ln_f: LayerNorm };
  /** Logits from the normed end; by default its weight is wte's. */ lm_head: Linear;

  /**
   * Makes a model with initial weights.
   * @param config sizes; what is left out is GPT-2's (124M)
   * @param options the device, and where the initial weights come from
   * @throws {ConfigError} when a size is not a whole number above 0, nEmbd not a multiple of nHead, dropout not from 0 to 1,
   *   another field has a value that it cannot have, or there is a field that a config does not have
   * @throws {DeviceError} when the weights do not fit into the device's memory
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
        `${name} is ${this.config[name]}, no multiple of 32, which weights in q8_0 need; take f32 or bf16`,
      );
    }
    using scope = device.scope(); // what does not fit leaves nothing behind
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
    if (tied) wte.weight.dispose(); // what it took is free for the head
    this.lm_head = new Linear(nEmbd, vocabSize, { ...options, bias: false });
    if (tied) wte.weight = this.lm_head.weight; // Press and Wolf 2016, arXiv:1608.05859
    if (initialize) this.#initialize(generator);
    if (inference || weights !== "f32") this.freeze();
    scope.keepAll();
  }

  /**
   * GPT-2's initial weights: N(0, 0.02), biases zero, and the matrices that write to the residual stream smaller, by
   * 1/√(2·nLayer).
   *
   * Every weight is drawn twice, and `c_proj` three times. nanoGPT's layers draw when PyTorch makes them, then `_init_weights`
   * draws all of them again, then a loop draws `c_proj` once more. Only if the generator takes the same steps does a seed give
   * nanoGPT's weights.
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

  /** Where the weights are. */
  get device(): Device {
    return this.lm_head.weight.device;
  }

  /** Frees every parameter and its gradient, and the count of dropout's draws. */
  override dispose(): void {
    super.dispose();
    this.noise.offset.dispose();
  }

  /**
   * Logits and, with targets, the loss: {@linkcode hidden}, then the head.
   *
   * @param tokens i32 (B, T), T at most the block size
   * @param targets i32 (B, T); −1 where the loss should not look
   * @param options.cache as {@linkcode hidden} takes it, and `places`, or `starts` and `positions`
   * @param options.of the tokens whose logits are wanted; without targets
   * @returns logits (B, T, V) and the loss, or without targets the last position's logits (B, 1, V), or (R, 1, V)
   * @throws {ShapeError} when there are more tokens than the block size, targets of another shape, or ids that are none
   */
  forward(tokens: Tensor, targets: Tensor, options?: ForwardOptions): GPTOutput<Tensor>;
  /** Without targets: only logits. */
  forward(tokens: Tensor, targets?: undefined, options?: ForwardOptions): GPTOutput<undefined>;
  /** With targets where there are any. */
  forward(tokens: Tensor, targets?: Tensor, options?: ForwardOptions): GPTOutput;
  forward(tokens: Tensor, targets?: Tensor, options: ForwardOptions = {}): GPTOutput {
    if (targets && `${targets.shape}` !== `${tokens.shape}`) {
      throw new ShapeError(`GPT: targets are [${targets.shape}], tokens [${tokens.shape}]`);
    }
    const T = tokens.shape[1];
    const pass = () => {
      using scope = this.device.scope();
      let x = this.hidden(tokens, options); // (B, T, C)
      if (!targets && options.of) {
        x = embedding(options.of, x.alias([tokens.size, x.shape[2]])).alias([options.of.size, 1, x.shape[2]]);
      } else if (!targets && T > 1) x = slice(x, { axis: 1, start: T - 1, end: T }); // (B, 1, C): only the last one is sampled
      const logits = this.lm_head.forward(x); // (B, T, V)
      const loss = targets && crossEntropy(logits, targets, { ignoreIndex: -1 });
      return { logits: scope.keep(logits), loss: scope.keep(loss) };
    };
    return options.cache ? noGrad(pass) : pass();
  }

  /**
   * The final hidden states, behind the last layer norm: what the head, or another one, makes its numbers of.
   *
   * @param tokens i32 (B, T), T at most the block size
   * @returns (B, T, C)
   * @throws {ShapeError} when there are more tokens than the block size, ids that are none, or starts or positions of another shape,
   *   outside the row or the block size, or beside a cache
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
    if (places && !cache) throw new ShapeError("GPT: places are given, and no cache that has them");
    for (const [name, numbers] of Object.entries({ starts, positions })) {
      if (!numbers) continue;
      if (cache) throw new ShapeError(`GPT: ${name} are given with a cache, whose texts have a slot each`);
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
      if (!each) input.dispose(); // where the tape does not need it, the next block has its place
    }
    const end = ln_f.forward(x);
    x.dispose();
    if (!places) cache?.advance(T);
    each?.(end, h.length);
    if (each) scope.keepAll(); // and what it has made of it
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
   * An empty key-value cache for so many texts.
   *
   * @param options.dtype how keys and values are stored: `f32`, the default, or `bf16`, in half the memory
   */
  createCache(slots = 1, { dtype }: { readonly dtype?: CacheType } = {}): KeyValueCache {
    const { nLayer, nHead, nEmbd, blockSize } = this.config;
    const sizes = { slots, layers: nLayer, length: blockSize, heads: nHead, width: nEmbd / nHead };
    return new KeyValueCache(this.device, { ...sizes, dtype });
  }

  /**
   * Number of parameters, the tied weight once.
   *
   * @param options.nonEmbedding whether to leave out the position embeddings, as nanoGPT counts; default true
   */
  numParameters({ nonEmbedding = true }: { readonly nonEmbedding?: boolean } = {}): number {
    const all = this.parameters().reduce((sum, { size }) => sum + size, 0);
    return nonEmbedding ? all - this.transformer.wpe.weight.size : all;
  }

  /**
   * Makes the block size smaller: a checkpoint with 1024 positions, used with fewer. Before an optimizer is made.
   *
   * @param blockSize in tokens, at most what it is
   * @throws {ConfigError} when it is not a whole number from 1 to that
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
   * Makes room for more tokens: rows of the token embeddings and of the head, tied or not. Each new row is the mean of the old ones,
   * which makes a new token as likely as an average one (Hewitt 2021, nlp.stanford.edu/~johnhew/vocab-expansion.html). Before an
   * optimizer is made.
   *
   * @param vocabSize how many tokens there are to be; a model that has as many rows gets no more
   * @param options.known how many of the rows stand for tokens; those after them, which pad a vocabulary, are made anew where they
   *   become tokens. Default: all
   * @throws {ConfigError} when one is not a whole number above 0, or `known` is more than there are rows; and when the embeddings are
   *   not stored as f32
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
        `resizeTokenEmbeddings: ${name}.weight is stored in ${stored}, and rows are added to f32 alone` +
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
   * AdamW over the parameters that are trained: matrices and embeddings decay, biases and layer norms do not.
   *
   * @param options.weightDecay share that a weight of those loses a step, times the learning rate
   * @param options.learningRate in weight units a step
   * @param options.betas of the moving averages of the gradient and of its square, from 0 to below 1
   * @throws {ConfigError} when one of them is out of range, or every parameter is frozen
   */
  configureOptimizers(
    options: { weightDecay: number; learningRate: number; betas: readonly [number, number] },
  ): AdamW {
    const trained = [...this.namedParameters({ trainable: true })];
    if (trained.length > 0) return new AdamW(trained, options);
    throw new ConfigError(
      "configureOptimizers: no parameter is trainable: all are frozen, or stored for inference alone",
    );
  }

  /**
   * Model FLOPs utilisation: what part of a machine's peak the training reaches (PaLM, arXiv:2204.02311, appendix B).
   *
   * @param options.sequences forward and backward passes over a full block in the time
   * @param options.seconds the time
   * @param options.peakFlops the machine's peak in FLOP/s, e.g. 312e12 for an A100 in bfloat16
   * @returns a ratio, 1 at the peak
   */
  estimateMfu({ sequences, seconds, peakFlops }: Record<"sequences" | "seconds" | "peakFlops", number>): number {
    const { nLayer, nHead, nEmbd, blockSize } = this.config;
    const perToken = 6 * this.numParameters() + 12 * nLayer * nHead * (nEmbd / nHead) * blockSize;
    return perToken * blockSize * sequences / seconds / peakFlops;
  }
}

/** The config with the defaults where it says nothing: an older checkpoint's, too. Nothing is checked. */
export function completeConfig(config: Partial<GPTConfig>): Required<GPTConfig> {
  return { ...DEFAULTS, nInner: 4 * (config.nEmbd ?? DEFAULTS.nEmbd), ...config };
}

function checked(config: Required<GPTConfig>): Required<GPTConfig> {
  const names = [...Object.keys(DEFAULTS), "nInner"];
  for (const name of Object.keys(config)) {
    if (names.includes(name)) continue;
    // Names of nanoGPT's and transformers' have lines between words.
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
    throw new ConfigError(`nEmbd is ${config.nEmbd}, no multiple of nHead, which is ${config.nHead}`);
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
