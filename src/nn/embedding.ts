import { embedding } from "../ops/embedding.ts";
import type { Tensor } from "../engine/tensor.ts";
import { generatorOf, Module, type ModuleOptions, parameter } from "./module.ts";

/**
 * A table of vectors that are looked up by id, like `torch.nn.Embedding`: y = weight[id]. The weight (count, width) is
 * initialised from N(0, 1).
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
   * Makes a table and draws its vectors from N(0, 1).
   * @param count number of vectors: V
   * @param width length of each vector: C
   */
  constructor(count: number, width: number, options: ModuleOptions) {
    super();
    this.weight = parameter(options, [count, width], (values) => generatorOf(options).normal(values, 0, 1));
  }
  /**
   * Looks up the vector of each id.
   * @param ids i32 (…), from 0 to count − 1
   * @returns f32 (…, width)
   * @throws {ShapeError} when ids written by the host are outside the table; ids computed on the device are not checked
   */
  forward(ids: Tensor): Tensor {
    return embedding(ids, this.weight);
  }
}
