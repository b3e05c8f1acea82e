/** Compares the trainer's updates with a recorded case: losses, gradient norms, measures, and the weights afterwards. */
import type { Tensor } from "../../src/engine/tensor.ts";
import type { Trainer } from "../../src/train/trainer.ts";
import { assertClose } from "../testing.ts";
import { type Kind, limitOf, type Tolerance } from "./tolerances.ts";

/** Leaves out the keys' bias: its gradient is 0, so Adam would scale rounding errors. */
export function withoutKeyBias(key: string, values: ArrayLike<number>): number[] {
  const { length } = values, bias = key.endsWith("c_attn.bias");
  return Array.from(values).filter((_, i) => !bias || i < length / 3 || i >= 2 * length / 3);
}

/** Trains, and compares each update's numbers, and the weights afterwards, with a case's arrays. */
export async function assertUpdates(
  trainer: Trainer,
  {
    name,
    parameters,
    expected,
    numbers = { losses: "modules", norms: "modules" },
    limit = (kind) => limitOf(trainer.model.device, kind),
  }: {
    readonly name: string;
    /** The trained parameters, by their names in the case. */
    readonly parameters: Iterable<readonly [name: string, parameter: Tensor]>;
    readonly expected: (name: string) => ArrayLike<number>;
    /** `losses`, `norms` and the names of measures, each with the kind of its limits. */
    readonly numbers?: Readonly<Record<string, Kind>>;
    readonly limit?: (kind: Kind) => Tolerance;
  },
): Promise<void> {
  const steps: Record<string, number>[] = [];
  for await (const event of trainer.run()) {
    if (event.kind === "step") steps.push({ losses: event.loss, norms: event.gradNorm, ...event.measures });
  }
  for (const [key, kind] of Object.entries(numbers)) {
    assertClose(steps.map((step) => step[key]), expected(key), limit(kind), `${name}: ${key}`);
  }
  for (const [key, parameter] of parameters) {
    const found = withoutKeyBias(key, await parameter.data()), values = withoutKeyBias(key, expected(`p.${key}`));
    assertClose(found, values, limit("trained"), `${name}: ${key}`);
  }
}
