import { embeddingBackward, embeddingForward } from "../../kernels/embedding/kernel.ts";
import { record } from "../engine/autograd.ts";
import { ShapeError } from "../errors.ts";
import { launch } from "../engine/launch.ts";
import type { Tensor } from "../engine/tensor.ts";

/**
 * Looks up rows of a table: y[i] = weight[ids[i]], like `torch.nn.functional.embedding`. dweight[v] is the sum of dy
 * over all places with id v.
 *
 * @param ids i32, any shape (…), from 0 to V − 1
 * @param weight (V, C): f32, or a rounded type (bf16, q8_0), which gets no gradient
 * @returns f32 (…, C)
 * @throws {ShapeError} when an id written by the host is outside the table. Ids computed on the device are not checked;
 *   an id outside gets the last row
 * @see https://pytorch.org/docs/stable/generated/torch.nn.functional.embedding.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { embedding } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const weight = device.tensor([0, 1, 10, 11, 20, 21], [3, 2]), ids = device.tensor([2, 0], [2], { dtype: "i32" });
 * assertEquals([...await embedding(ids, weight).data()], [20, 21, 0, 1]);
 * device.close();
 * ```
 */
export function embedding(ids: Tensor, weight: Tensor): Tensor {
  using scope = weight.device.scope("embedding");
  const [V, C] = weight.shape, n = [ids.size], { bounds } = ids.storage.block;
  const wrong = [bounds?.least, bounds?.greatest].find((id) => id !== undefined && !(id >= 0 && id < V));
  if (wrong !== undefined) {
    throw new ShapeError(
      `Cannot apply embedding to [${ids.shape}] and [${weight.shape}]: id ${wrong} is not one of its ${V} rows`,
    );
  }

  const y = launch(embeddingForward, { ids: ids.alias(n), weight }).y.alias([...ids.shape, C]);
  record("embedding", y, [ids, weight], [ids, weight], (dout, into) => {
    const dy = dout.alias([ids.size, C]);
    return [undefined, launch(embeddingBackward, { ids: ids.alias(n), dy, weight, dweight: into[1] }).dweight];
  });
  return scope.keep(y);
}
