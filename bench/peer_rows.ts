/** The measurements of bench/peers.ts. */
import { adapter, decoding, type Measure, type Product, product, training } from "./measures.ts";
import { babyGPT, cpuSetting, gpt2 } from "./settings.ts";

export interface Section {
  readonly title: string;
  readonly measures: readonly Measure[];
}

/**
 * M, K and N of products: two in nanoGPT's CPU setting (768 = 12 · 64 tokens), a square product, and a larger one. Each
 * is also measured in the forms that gradients need.
 */
const SHAPES = [[768, 128, 512], [768, 512, 128], [512, 512, 512], [4096, 384, 1536]] as const;
const SMALL_SHAPES = [[48, 16, 20]] as const;
/** The product that computes logits over 65 characters. */
const LOGITS: Product = ["NT", 768, 128, 65];

export function sections(small: boolean): Section[] {
  const cpu = cpuSetting({ small, log_interval: 1 }), baby = babyGPT({ small, log_interval: 1 });
  const dropout = { ...cpuSetting({ small, log_interval: 1, dropout: 0.1 }), name: `${cpu.name}, dropout 0.1` };
  const big = { ...gpt2({ small }), name: `GPT-2 (124M), context ${small ? 16 : 64}` };
  const products = (small ? SMALL_SHAPES : SHAPES).flatMap((shape) =>
    (["NN", "NT", "TN"] as const).map((form): Product => [form, ...shape])
  );
  return [
    {
      title: "training, ms a step",
      measures: [...[cpu, dropout, baby, big].map((setting) => training(setting, "ms")), adapter(big, 8)],
    },
    { title: "products, GF/s", measures: (small ? products : [...products, LOGITS]).map(product) },
    { title: "decoding, tokens/s", measures: [cpu, baby, big].map(decoding) },
  ];
}
