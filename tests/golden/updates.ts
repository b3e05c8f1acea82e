/** Updates of a recorded case: its losses, its gradients' norms, and the weights after them. */
import type { Tensor } from "../../src/engine/tensor.ts";
import type { Trainer } from "../../src/train/trainer.ts";
import { assertClose } from "../testing.ts";
import type { Tolerance } from "./tolerances.ts";

/** A layer's values without its keys' biases: their gradient is 0, and Adam scales its roundings. */
export function withoutKeyBias(key: string, values: ArrayLike<number>): number[] {
  const { length } = values, bias = key.endsWith("c_attn.bias");
  return Array.from(values).filter((_, i) => !bias || i < length / 3 || i >= 2 * length / 3);
}

/** Trains, and holds what comes of it to a case's arrays. */
export async function assertUpdates(
  trainer: Trainer,
  { name, parameters, expected, limit }: {
    readonly name: string;
    /** By the names that the case has for them. */
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
