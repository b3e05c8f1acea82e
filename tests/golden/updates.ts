/** Compares the trainer's updates with a recorded case: losses, gradient norms, and the weights afterwards. */
import type { Tensor } from "../../src/engine/tensor.ts";
import type { Trainer } from "../../src/train/trainer.ts";
import { assertClose } from "../testing.ts";
import type { Tolerance } from "./tolerances.ts";

/** Leaves out the keys' bias: its gradient is 0, so Adam would scale rounding errors. */
export function withoutKeyBias(key: string, values: ArrayLike<number>): number[] {
  const { length } = values, bias = key.endsWith("c_attn.bias");
  return Array.from(values).filter((_, i) => !bias || i < length / 3 || i >= 2 * length / 3);
}

/** Trains, and compares losses, norms and weights with a case's arrays. */
export async function assertUpdates(
  trainer: Trainer,
  { name, parameters, expected, limit }: {
    readonly name: string;
    /** The trained parameters, by their names in the case. */
    readonly parameters: Iterable<readonly [name: string, parameter: Tensor]>;
    readonly expected: (name: string) => ArrayLike<number>;
    readonly limit: (kind: "modules" | "trained") => Tolerance;
  },
): Promise<void> {
  const losses: number[] = [], norms: number[] = [];
  for await (const event of trainer.run()) {
    if (event.kind !== "step") continue;
    losses.push(event.loss);
    norms.push(event.gradNorm);
  }
  assertClose(losses, expected("losses"), limit("modules"), `${name}: losses`);
  assertClose(norms, expected("norms"), limit("modules"), `${name}: norms`);
  for (const [key, parameter] of parameters) {
    const found = withoutKeyBias(key, await parameter.data()), values = withoutKeyBias(key, expected(`p.${key}`));
    assertClose(found, values, limit("trained"), `${name}: ${key}`);
  }
}
