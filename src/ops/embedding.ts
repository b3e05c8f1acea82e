import { embeddingBackward, embeddingForward } from "../../kernels/embedding/kernel.ts";
import { record } from "../autograd.ts";
import { ShapeError } from "../errors.ts";
import { launch } from "../launch.ts";
import type { Tensor } from "../tensor.ts";

/**
 * The rows of `weight` that `ids` name, as `torch.nn.functional.embedding`. The gradient of a row is the sum over all
 * places where it was taken.
 *
 * @param ids i32, any shape (…), from 0 to V − 1
 * @param weight (V, C)
 * @returns (…, C)
 * @throws {ShapeError} when an id that the host wrote is outside the table; those computed on the device are not looked
 * at, and the last row stands in for them
 */
export function embedding(ids: Tensor, weight: Tensor): Tensor {
  const [V, C] = weight.shape, n = [ids.size], { bounds } = ids.storage.block;
  const wrong = [bounds?.least, bounds?.greatest].find((id) => id !== undefined && !(id >= 0 && id < V));
  if (wrong !== undefined) {
    throw new ShapeError(`embedding: id ${wrong} is not among the ${V} rows of [${weight.shape}]`);
  }

  using scope = weight.device.scope();
  const y = launch(embeddingForward, { ids: ids.view(n), weight }).y.view([...ids.shape, C]);
  record("embedding", y, [ids, weight], [ids, weight], (dout, into) => {
    const dy = dout.view([ids.size, C]);
    return [undefined, launch(embeddingBackward, { ids: ids.view(n), dy, weight, dweight: into[1] }).dweight];
  });
  return scope.keep(y);
}
