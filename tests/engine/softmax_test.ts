import { assertGradient } from "./gradients.ts";
import { logSoftmax } from "../../src/ops/log_softmax.ts";
import { softmax } from "../../src/ops/softmax.ts";

for (const [name, op] of [["softmax", softmax], ["log_softmax", logSoftmax]] as const) {
  Deno.test(`${name}: gradients are finite differences`, async () => {
    for (const [shape, axis] of [[[7], 0], [[3, 5], -1], [[3, 5], 0], [[2, 3, 4], 1], [[4, 1], 1]] as const) {
      await assertGradient(shape, (x) => op(x, { axis }), { what: `[${shape}] axis ${axis}` });
    }
  });
}
