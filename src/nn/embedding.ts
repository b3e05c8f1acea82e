import { embedding } from "../ops/embedding.ts";
import type { Tensor } from "../tensor.ts";
import { generatorOf, Module, type ModuleOptions, parameter } from "./module.ts";

/** A table of vectors, looked up by id, as `torch.nn.Embedding`: the weight (count, width) begins standard normal. */
export class Embedding extends Module {
  /** (count, width) */
  weight: Tensor;

  constructor(count: number, width: number, options: ModuleOptions) {
    super();
    this.weight = parameter(options, [count, width], (values) => generatorOf(options).normal(values, 0, 1));
  }
  /** @param ids (…) i32 @returns (…, width) */
  forward(ids: Tensor): Tensor {
    return embedding(ids, this.weight);
  }
}
