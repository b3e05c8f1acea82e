import { embedding } from "../ops/embedding.ts";
import type { Tensor } from "../engine/tensor.ts";
import { generatorOf, Module, type ModuleOptions, parameter } from "./module.ts";

/**
 * A table of vectors, looked up by id, as `torch.nn.Embedding`: y = weight[id]. The weight (count, width) begins standard
 * normal.
 *
 * @see https://pytorch.org/docs/stable/generated/torch.nn.Embedding.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { Embedding } from "@nanogpt/ts/nn";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const table = new Embedding(65, 8, { device });
 * assertEquals(table.forward(device.tensor([3, 1, 4], [3], { dtype: "i32" })).shape, [3, 8]);
 * device.close();
 * ```
 */
export class Embedding extends Module {
  /** (count, width) */
  weight: Tensor;

  /**
   * A table with initial vectors from N(0, 1).
   * @param count how many vectors there are: V
   * @param width how long each is: C
   */
  constructor(count: number, width: number, options: ModuleOptions) {
    super();
    this.weight = parameter(options, [count, width], (values) => generatorOf(options).normal(values, 0, 1));
  }
  /**
   * The vectors of ids.
   * @param ids i32 (…), from 0 to count − 1
   * @returns f32 (…, width)
   * @throws {ShapeError} when an id that the host wrote is outside the table
   */
  forward(ids: Tensor): Tensor {
    return embedding(ids, this.weight);
  }
}
