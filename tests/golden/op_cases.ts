/** The ops' golden cases, and the calls that they stand for: what ops_test.ts and the finite differences share. */
import type { Device } from "../../src/engine/device.ts";
import type { Tensor } from "../../src/engine/tensor.ts";
import * as ops from "../../src/ops/mod.ts";
import { type Fixture, readFixture } from "./fixtures.ts";
import type { Kind } from "./tolerances.ts";

/** A call; {"tensor": NAME} among the arguments stands for a tensor of the fixture, an `offset` for one of one element. */
export interface OpCase {
  readonly name: string;
  readonly op: string;
  readonly kind: Kind;
  readonly args: readonly unknown[];
}

/** Every op's fixture: a file that generate.py wrote is found by its name. */
export function opFixtures(): Fixture<OpCase>[] {
  return Array.from(Deno.readDirSync(new URL("fixtures/", import.meta.url)), ({ name }) => name)
    .map((name) => name.match(/^(ops_.*)\.safetensors$/)?.[1]).filter((name) => name !== undefined).sort()
    .map((name) => readFixture<OpCase>(name));
}

/** Ops that must have a case; decoding has no derivative, and its golden numbers are the model's logits with a cache. */
export const OPS: readonly string[] = Object.keys(ops).filter((op) => op !== "cachedAttention");

/** The matrix among a case's arguments that may lie in panels. */
export function matrixOf(fixture: Fixture<OpCase>, { op, args }: OpCase): string | undefined {
  if (!["linear", "matmul", "embedding"].includes(op)) return undefined;
  const [left, right] = args.map((arg) => String((arg as { tensor: string } | null)?.tensor));
  return fixture.get(right).shape.length === 2 && left !== right ? right : undefined;
}

/**
 * A case's call, ready to run, and its tensors by name.
 *
 * @param replaced values in place of the fixture's
 * @param laid name of a matrix that lies in panels, and so has no gradient
 */
export function call(
  device: Device,
  fixture: Fixture<OpCase>,
  { op, args }: OpCase,
  replaced: ReadonlyMap<string, ArrayLike<number>> = new Map(),
  laid?: string,
): { leaves: Map<string, Tensor>; forward: () => Tensor } {
  const leaves = new Map<string, Tensor>();
  const decode = (arg: unknown): unknown => {
    if (Array.isArray(arg)) return arg.map(decode);
    if (!(arg instanceof Object)) return arg;
    if (!("tensor" in arg)) {
      return Object.fromEntries(
        Object.entries(arg).map(([key, value]) => [
          key,
          key === "offset" ? device.tensor([value | 0], [1], { dtype: "i32" }) : decode(value),
        ]),
      );
    }
    const name = String(arg.tensor), { values, shape, dtype } = fixture.get(name);
    const panels = name === laid, requiresGrad = !panels && fixture.tensors.has(`${name}.grad`);
    const options = { dtype: dtype === "i32" ? "i32" : "f32", requiresGrad, panels } as const;
    const leaf = leaves.get(name) ?? device.tensor(replaced.get(name) ?? values, shape, options);
    leaves.set(name, leaf);
    return leaf;
  };
  const decoded = args.map(decode);
  const run = (ops as unknown as Record<string, (...args: unknown[]) => Tensor>)[op];
  if (!run) throw new Error(`src/ops/mod.ts exports no ${op}`);
  return { leaves, forward: () => run(...decoded) };
}
