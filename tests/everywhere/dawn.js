/** Runs in Node.js: computes a product on the GPU through Dawn, and prints the result as JSON. */
import { createDevice } from "@nanogpt/ts";
import { matmul } from "@nanogpt/ts/ops";

try {
  using device = await createDevice("webgpu:dawn:software");
  const x = device.tensor([[1, 2], [3, 4]]);
  console.log(JSON.stringify([...await matmul(x, x).data()]));
} catch (error) {
  console.log(JSON.stringify(error.message));
}
