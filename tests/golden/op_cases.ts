/** The golden cases of ops and the calls that they record; used by ops_test.ts and by finite differences. */
import type { Device } from "../../src/engine/device.ts";
import type { Tensor } from "../../src/engine/tensor.ts";
import * as ops from "../../src/ops/mod.ts";
import { type Fixture, readFixture } from "./fixtures.ts";
import type { Kind } from "./tolerances.ts";

/**
 * A recorded call. {"tensor": NAME} among the arguments is a tensor of the fixture; the option `offset` is an i32 tensor of
 * one element.
 */
export interface OpCase {
  readonly name: string;
  readonly op: string;
  readonly kind: Kind;
  readonly args: readonly unknown[];
}

/** The fixtures of all ops, found by their file names. */
export function opFixtures(): Fixture<OpCase>[] {
  return Array.from(Deno.readDirSync(new URL("fixtures/", import.meta.url)), ({ name }) => name)
    .map((name) => name.match(/^(ops_.*)\.safetensors$/)?.[1]).filter((name) => name !== undefined).sort()
    .map((name) => readFixture<OpCase>(name));
}

/** Ops that must have a case. cachedAttention has no derivative; cached_attention_test.ts checks it. */
export const OPS: readonly string[] = Object.keys(ops).filter((op) => op !== "cachedAttention");

/** The name of the matrix among a case's arguments that can be stored in panels. */
export function matrixOf(fixture: Fixture<OpCase>, { op, args }: OpCase): string | undefined {
  if (!["linear", "matmul", "embedding"].includes(op)) return undefined;
  const [left, right] = args.map((arg) => String((arg as { tensor: string } | null)?.tensor));
  return fixture.get(right).shape.length === 2 && left !== right ? right : undefined;
}

/**
 * Prepares a case's call: the function to run, and the tensors among its arguments by name.
 *
 * @param replaced values to use instead of the fixture's, by the names of tensors
 * @param laid name of a matrix that is stored in panels, and then has no gradient
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
