import { assertEquals, assertThrows } from "@std/assert";
import { CpuDevice } from "../../src/device/cpu.ts";
import type { Device } from "../../src/engine/device.ts";
import { ReferenceDevice } from "../../src/device/reference.ts";
import { ConfigError } from "../../src/errors.ts";
import { mul } from "../../src/ops/mul.ts";
import { AdamW } from "../../src/optim/adamw.ts";
import type { Tensor } from "../../src/engine/tensor.ts";
import { assertClose } from "../testing.ts";
import { assertAgrees, normal } from "./agree.ts";

const leaf = (device: Device, shape: number[], seed = 1) =>
  device.tensor(normal(shape.reduce((a, b) => a * b, 1), seed), shape, { requiresGrad: true });

Deno.test("AdamW: the CPU agrees with the reference at odd sizes, on any number of threads", async () => {
  // Shapes of parameters: sizes around multiples of 64, with weight decay (matrices) and without (vectors), and more
  // elements than one thread's share.
  for (const shapes of [[[1]], [[3, 21], [64], [5, 13], [65]], [[7, 1], [1]], [[300, 301], [1023], [40_000]]]) {
    await assertAgrees(`${shapes.join(" and ")}`, { atol: 2e-6, rtol: 2e-6 }, (device) => {
      const parameters = shapes.map((shape, i) => [`${i}`, leaf(device, shape, i + 1)] as const);
      const optimizer = new AdamW(parameters, { learningRate: 0.01, betas: [0.9, 0.95], weightDecay: 0.1 });
      for (let step = 0; step < 3; step++) {
        for (const [i, [, { grad, size }]] of parameters.entries()) {
          device.write(grad!.storage, normal(size, 10 * step + i + 5));
        }
        optimizer.step({ learningRate: 0.01 / (step + 1), gradClip: step === 1 ? 0.5 : 0 });
      }
      const state = [...optimizer.namedState()].map(([, tensor]) => tensor);
      return [...parameters.map(([, tensor]) => tensor), ...state].map((tensor) => tensor.alias(tensor.shape));
    });
  }
});

for (const device of [new ReferenceDevice(), await CpuDevice.create({ threads: 2, guards: true })]) {
  const test = (name: string, body: () => void | Promise<void>) => Deno.test(`AdamW: ${name} (${device.name})`, body);
  const close = async (actual: Tensor, expected: number[], what: string) =>
    assertClose(await actual.data(), expected, { atol: 0, rtol: 5e-7 }, what);

  test("the first step, by hand", async () => {
    // Gradients 3 and 4 have the norm 5; clipped to 1 they are 0.6 and 0.8. In the first step m is 0.1 g and v is 0.01
    // g², which bias correction turns into g and g². So a parameter moves by the learning rate, 0.1, against its
    // gradient. Before that, weight decay shrinks the matrix by the factor 1 − 0.1 · 0.5.
    const matrix = device.tensor([2], [1, 1], { requiresGrad: true });
    const vector = device.tensor([-2], [1], { requiresGrad: true });
    const options = { learningRate: 0.1, betas: [0.9, 0.99], weightDecay: 0.5 } as const;
    const optimizer = new AdamW([["vector", vector], ["matrix", matrix]], options);
    device.write(matrix.grad!.storage, [3]);
    device.write(vector.grad!.storage, [4]);
    optimizer.step({ gradClip: 1 });
    await close(optimizer.gradNorm, [5], "norm");
    await close(matrix, [2 * (1 - 0.05) - 0.1], "matrix");
    await close(vector, [-2 - 0.1], "vector");
    const state = new Map(optimizer.namedState());
    assertEquals([...state.keys()].sort(), [
      "matrix.exp_avg",
      "matrix.exp_avg_sq",
      "vector.exp_avg",
      "vector.exp_avg_sq",
    ]);
    assertClose(await state.get("matrix.exp_avg")!.data(), [0.06], { atol: 0, rtol: 1e-6 }, "m"); // norm: 5 + 1e-6
    assertClose(await state.get("vector.exp_avg_sq")!.data(), [0.0064], { atol: 0, rtol: 1e-6 }, "v");
    await close(matrix.grad!, [3], "the gradient stays as it is");
    assertEquals(optimizer.t, 1);
  });

  test("a norm below the limit, or no limit, clips nothing", async () => {
    for (const gradClip of [0, 5.1, 1e6]) {
      const x = device.tensor([0], [1], { requiresGrad: true }), optimizer = new AdamW([["x", x]]);
      device.write(x.grad!.storage, [5]);
      optimizer.step({ gradClip });
      await close([...optimizer.namedState()][0][1], [0.5], `clipped to ${gradClip}`);
    }
  });

  test("parameters and gradients move into its storage, backward adds there, zeroGrad clears", async () => {
    const values = normal(70, 3), x = device.tensor(values, [7, 10], { requiresGrad: true }), y = leaf(device, [3]);
    mul(x, x).backward(device.tensor(new Float32Array(70).fill(1), [7, 10]));
    const optimizer = new AdamW([["y", y], ["x", x]]), twice = Array.from(values, (value) => 2 * value);
    await close(x, [...values], "contents");
    await close(x.grad!, twice, "gradient");
    assertEquals(x.storage.block === y.storage.block, true);
    assertEquals([x.storage.offset, y.storage.offset], [0, 128]); // x, a matrix, has weight decay, so it is first
    mul(x, x).backward(device.tensor(new Float32Array(70).fill(1), [7, 10]));
    await close(x.grad!, twice.map((value) => 2 * value), "gradients of two passes");
    optimizer.zeroGrad();
    assertEquals([...await x.grad!.data()], Array(70).fill(0));
  });

  test("it descends", async () => {
    const x = device.tensor([3, -2], [2], { requiresGrad: true }), optimizer = new AdamW([["x", x]]);
    for (let i = 0; i < 300; i++) {
      using _ = device.scope();
      mul(x, x).backward(device.tensor([1, 1], [2]));
      optimizer.step({ learningRate: 0.05 });
      optimizer.zeroGrad();
    }
    assertClose(await x.data(), [0, 0], { atol: 0.01, rtol: 0 }, "minimum of x²");
  });

  test("it outlives the scope that made it, and dispose frees its memory", async () => {
    const before = device.memory();
    const x = leaf(device, [5, 5]), contents = [...await x.data()];
    const made = () => {
      using _ = device.scope();
      return new AdamW([["x", x]]);
    };
    const optimizer = made();
    optimizer.step();
    optimizer.dispose();
    assertClose(await x.data(), contents, { atol: 1e-4, rtol: 0 }, "a step of a zero gradient"); // decay: 1e-5
    x.dispose();
    const { tensors, bytes } = device.memory();
    assertEquals({ tensors, bytes }, { tensors: before.tensors, bytes: before.bytes });
  });

  test("groups have rates and decays of their own, and one norm", async () => {
    // In the first step a gradient of any size moves a parameter by its group's learning rate.
    const [a, b, c] = [2, 4, 6].map((value) => device.tensor([value], [1, 1], { requiresGrad: true }));
    const groups = [{ parameters: [["a", a]], learningRate: 0.1, weightDecay: 0 }, { parameters: [["b", b]] }, {
      parameters: [["c", c]],
      weightDecay: 1,
    }] as const;
    const optimizer = new AdamW(groups, { learningRate: 0.2, weightDecay: 0.5 });
    for (const [i, { grad }] of [a, b, c].entries()) device.write(grad!.storage, [[2, 3, 6][i]]);
    optimizer.step({ gradClip: 1 });
    await close(optimizer.gradNorm, [7], "norm");
    await close(a, [2 - 0.1], "a");
    await close(b, [4 * (1 - 0.2 * 0.5) - 0.2], "b");
    await close(c, [6 * (1 - 0.2) - 0.2], "c");
    const before = [...await a.data(), ...await b.data()];
    optimizer.step({ learningRate: 0.02, gradClip: 1 }); // a tenth of the default: a's rate becomes a tenth, too
    await close(a, [before[0] - 0.01], "a by a tenth");
    await close(b, [before[1] * (1 - 0.02 * 0.5) - 0.02], "b by a tenth");
    optimizer.step({ learningRate: 0 });
    await close(a, [before[0] - 0.01], "a by nothing");
    assertEquals([...optimizer.namedState()].length, 6);
    optimizer.zeroGrad();
    assertEquals([...await a.grad!.data(), ...await c.grad!.data()], [0, 0]);
  });

  test("disposing of an older optimizer leaves the gradients of a newer one", async () => {
    const x = leaf(device, [3]), older = new AdamW([["x", x]]), newer = new AdamW([["x", x]]);
    older.dispose();
    mul(x, x).backward(device.tensor([1, 1, 1], [3]));
    newer.step();
    await close(x.grad!, [...await x.grad!.data()], "the gradient is there");
    newer.dispose();
    assertEquals(x.grad, undefined);
  });

  test("invalid parameters, groups and rates are rejected", () => {
    const x = leaf(device, [2]);
    assertThrows(() => new AdamW([]), ConfigError, "AdamW: no parameters");
    assertThrows(() => new AdamW([["x", x]], { betas: [0.9, 1] }), ConfigError, "AdamW: betas are 0.9,1");
    assertThrows(() => new AdamW([["x", x]], { weightDecay: -1 }), ConfigError, "AdamW: weightDecay is -1");
    const group = { parameters: [["x", x]] } as const;
    assertThrows(() => new AdamW([group, group]), ConfigError, "AdamW: x is there twice");
    assertThrows(() => new AdamW([{ ...group, learningRate: -1 }]), ConfigError, "AdamW: a group: learningRate is -1");
    const frozen = device.tensor([1], [1]), refusal = "AdamW: frozen requires no gradient";
    assertThrows(() => new AdamW([["x", x], ["frozen", frozen]]), ConfigError, refusal);
    const optimizer = new AdamW([["x", x]]);
    x.requiresGrad = false;
    assertThrows(() => optimizer.step(), TypeError, "AdamW: x was frozen");
    x.requiresGrad = true;
    assertThrows(() => optimizer.step({ learningRate: NaN }), ConfigError, "step: learningRate is NaN");
    x.grad = undefined;
    assertThrows(() => optimizer.step(), TypeError, "AdamW: x.grad was replaced");
  });
}
