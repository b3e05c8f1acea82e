/** Invalid calls: each is rejected before a kernel runs, and leaks nothing. */
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { noGrad } from "../../src/engine/autograd.ts";
import { createDevice } from "../../src/device/create.ts";
import { type Device, Storage } from "../../src/engine/device.ts";
import { ConfigError, DeviceError, ShapeError } from "../../src/errors.ts";
import { launch } from "../../src/engine/launch.ts";
import { matmulNN } from "../../kernels/matmul/kernel.ts";
import * as ops from "../../src/ops/mod.ts";
import { AdamW } from "../../src/optim/adamw.ts";
import { sizeOf, type Tensor } from "../../src/engine/tensor.ts";

/** A valid call of an op: the shapes of its operands, and the indices of operands that are integers. */
interface Call {
  readonly shapes: readonly (readonly number[])[];
  readonly integers?: readonly number[];
  readonly run: (...operands: Tensor[]) => Tensor;
}

const binary = (run: (a: Tensor, b: Tensor) => Tensor): Call => ({ shapes: [[2, 3], [3]], run });
const unary = (run: (x: Tensor) => Tensor): Call => ({ shapes: [[2, 3]], run });

const calls: Partial<Record<keyof typeof ops, Call>> = {
  add: binary(ops.add),
  sub: binary(ops.sub),
  mul: binary(ops.mul),
  div: binary(ops.div),
  maximum: binary(ops.maximum),
  neg: unary(ops.neg),
  exp: unary(ops.exp),
  log: unary(ops.log),
  sqrt: unary(ops.sqrt),
  tanh: unary(ops.tanh),
  pow: unary((x) => ops.pow(x, 2)),
  gelu: unary((x) => ops.gelu(x)),
  softmax: unary((x) => ops.softmax(x)),
  logSoftmax: unary((x) => ops.logSoftmax(x)),
  sum: unary((x) => ops.sum(x)),
  mean: unary((x) => ops.mean(x, { axis: 0 })),
  max: unary((x) => ops.max(x)),
  dropout: unary((x) => ops.dropout(x, { p: 0.5, seed: 0, offset: 0, stream: 0 })),
  where: { shapes: [[2, 3], [2, 3], [3]], integers: [0], run: ops.where },
  crossEntropy: { shapes: [[2, 3], [2]], integers: [1], run: (logits, targets) => ops.crossEntropy(logits, targets) },
  logprobs: { shapes: [[2, 3], [2]], integers: [1], run: (logits, targets) => ops.logprobs(logits, targets) },
  layerNorm: { shapes: [[2, 3], [3], [3]], run: (x, weight, bias) => ops.layerNorm(x, weight, bias) },
  embedding: { shapes: [[2], [5, 3]], integers: [0], run: ops.embedding },
  matmul: binary((a, b) => ops.matmul(a, b)),
  linear: { shapes: [[2, 3], [4, 3], [4]], run: ops.linear },
  causalSelfAttention: {
    shapes: [[1, 2, 12], [1, 2]],
    integers: [1],
    run: (qkv, starts) => ops.causalSelfAttention(qkv, { heads: 2, starts }),
  },
  cachedAttention: {
    shapes: [[1, 2, 12], [1, 2, 4, 2, 2], [2], [2]],
    integers: [2, 3],
    run: (qkv, cache, slot, position) => ops.cachedAttention(qkv, cache, { slot, position }),
  },
  gather: { shapes: [[2, 3], [2, 2]], integers: [1], run: (x, index) => ops.gather(x, index, { axis: 1 }) },
  concat: { shapes: [[2, 3], [1, 3]], run: (a, b) => ops.concat([a, b], { axis: 0 }) },
  reshape: unary((x) => ops.reshape(x, [6])),
  transpose: unary((x) => ops.transpose(x, [0, 1])),
  permute: unary((x) => ops.permute(x, [1, 0])),
  slice: unary((x) => ops.slice(x, { axis: 1, start: 1 })),
};
/** Ops that only move elements, and therefore take integers as well as floats. */
const MOVES = ["reshape", "transpose", "permute", "slice"];

/** For each op, the indices of operands that may be stored in bf16. */
const WEIGHTS: Readonly<Record<string, readonly number[]>> = {
  linear: [1],
  embedding: [1],
  matmul: [1],
  cachedAttention: [1],
};

function operands({ shapes, integers = [] }: Call, device: Device, wrong = -1, other = device): Tensor[] {
  return shapes.map((shape, i) => {
    const dtype = integers.includes(i) !== (i === wrong && other === device) ? "i32" : "f32";
    return (i === wrong ? other : device).tensor(new Float32Array(sizeOf(shape)), shape, { dtype });
  });
}

/** Runs `body` outside of any scope, and checks that it leaves no more tensors than before. */
function leavesNothing(device: Device, what: string, body: () => void): void {
  const before = device.memory().tensors;
  body();
  assertEquals(device.memory().tensors, before, `${what} leaked tensors`);
}

const one = await createDevice("cpu", { threads: 1, guards: true }), other = await createDevice("reference");

for (const [name, call] of Object.entries(calls)) {
  Deno.test(`${name} rejects operands of another device, of another dtype, and freed operands`, () => {
    const right = operands(call, one);
    call.run(...right);
    for (let i = 0; i < call.shapes.length; i++) {
      if (call.shapes.length > 1) {
        const given = operands(call, one, i, other);
        assertThrows(() => call.run(...given), DeviceError, `Cannot apply ${name} to `);
        assertThrows(() => call.run(...given), DeviceError, "device");
      }
      const given = operands(call, one, i);
      if (!MOVES.includes(name)) {
        leavesNothing(one, name, () => assertThrows(() => call.run(...given), DeviceError, `Cannot apply ${name} to `));
      }
      right[i].dispose();
      leavesNothing(one, name, () => assertThrows(() => call.run(...right), DeviceError, "it has been freed"));
      assertThrows(() => call.run(...right), DeviceError, `Cannot apply ${name} to `);
      right[i] = operands(call, one)[i];
    }
  });
}

for (const [name, { shapes, run }] of Object.entries(calls)) {
  Deno.test(`${name} rejects operands in bf16${name in WEIGHTS ? ", except its weight" : ""}`, () => {
    for (const device of [one, other]) {
      shapes.forEach((shape, i) => {
        if (WEIGHTS[name]?.includes(i)) return;
        const given = operands(calls[name as keyof typeof ops]!, device);
        given[i] = device.tensor(new Float32Array(sizeOf(shape)), shape, { dtype: "bf16" });
        leavesNothing(
          device,
          name,
          () => assertThrows(() => run(...given), DeviceError, `Cannot apply ${name} to `),
        );
      });
    }
  });
}

Deno.test("host values are rejected if there are too few or too many, or if they should be integers and are not", () => {
  for (const device of [one, other]) {
    leavesNothing(device, "tensor", () => {
      assertThrows(
        () => device.tensor([1, 2], [3]),
        ShapeError,
        "Cannot apply tensor to 2 values and [3]: expected 3 values",
      );
      assertThrows(
        () => device.tensor([], []),
        ShapeError,
        "Cannot apply tensor to 0 values and []: expected 1 values",
      );
      assertThrows(() => device.tensor([1], [-1]), ShapeError, "[-1]");
      for (const value of [0.5, NaN, 2 ** 32, -(2 ** 31) - 1]) {
        assertThrows(
          () => device.tensor([value], [1], { dtype: "i32" }),
          DeviceError,
          `${value} is not a 32-bit integer`,
        );
      }
      assertThrows(
        () => device.tensor([1], [1], { dtype: "i32", requiresGrad: true }),
        TypeError,
        "i32 can have no gradient",
      );
      assertThrows(
        () => device.tensor([1], [1], { dtype: "bf16", requiresGrad: true }),
        TypeError,
        "bf16 can have no gradient",
      );
    });
  }
});

Deno.test("an alias must have a shape that fits, and a tensor's checked shape cannot change", () => {
  const shape = [2, 3], x = one.tensor([1, 2, 3, 4, 5, 6], shape);
  shape[0] = 1000;
  assertEquals(x.shape, [2, 3]);
  for (const wrong of [[-2, -3], [0.5, 12], [7]]) assertThrows(() => x.alias(wrong), ShapeError);
});

Deno.test("a storage outside its block is rejected, and so are operands of other ranks and sizes", () => {
  for (const device of [one, other]) {
    const { storage: { block } } = device.empty([40]), { capacity } = block;
    new Storage(block, 8, capacity - 8);
    for (
      const [length, offset] of [[8, capacity - 7], [capacity + 1, 0], [1, -1], [0, 0], [0.5, 0], [1, NaN], [
        2 ** 32,
        0,
      ]]
    ) {
      const message = `storage: ${length} elements from ${offset} on are not inside a block of ${capacity}`;
      assertThrows(() => new Storage(block, length, offset), DeviceError, message);
    }
    const tensor = (...shape: number[]) => device.empty(shape);
    leavesNothing(device, "launch", () => {
      using _ = device.scope();
      const a = tensor(1, 4, 3);
      const refused = (b: Tensor, c: Tensor | undefined, message: string) =>
        assertThrows(() => launch(matmulNN, { a, b, c }), ShapeError, message);
      refused(
        tensor(1, 2, 5),
        undefined,
        "Cannot apply matmul_nn to a [1,4,3] and b [1,2,5]: b is [1,2,5], expected [batch,K,N] with K = 3",
      );
      refused(
        tensor(2, 3, 5),
        undefined,
        "Cannot apply matmul_nn to a [1,4,3] and b [2,3,5]: b is [2,3,5], expected [batch,K,N] with batch = 1",
      );
      refused(
        tensor(3, 5),
        undefined,
        "Cannot apply matmul_nn to a [1,4,3] and b [3,5]: b is [3,5], expected [batch,K,N]",
      );
      refused(
        tensor(1, 3, 5),
        tensor(1, 4, 6),
        "Cannot apply matmul_nn to a [1,4,3] and b [1,3,5]: c is [1,4,6], expected [batch,M,N] with N = 5",
      );
      refused(
        tensor(1, 3, 5),
        tensor(20),
        "Cannot apply matmul_nn to a [1,4,3] and b [1,3,5]: c is [20], expected [batch,M,N]",
      );
    });
  }
});

Deno.test("crossEntropy finds an invalid target after an ignored one", () => {
  const logits = one.tensor(new Float32Array(9), [3, 3]);
  const targets = (...values: number[]) => one.tensor(values, [3], { dtype: "i32" });
  const message = (target: number) => `: ${target} is not a class`;
  assertThrows(() => ops.crossEntropy(logits, targets(-100, -1, 2)), ShapeError, message(-1));
  assertThrows(() => ops.crossEntropy(logits, targets(5, 1, 4), { ignoreIndex: 5 }), ShapeError, message(4));
  ops.crossEntropy(logits, targets(-100, -100, -100));
  ops.crossEntropy(logits, targets(0, 2, -100));
});

Deno.test("an unknown approximation and a parameter with two names are rejected", () => {
  const x = one.tensor([1], [1], { requiresGrad: true });
  assertThrows(() => ops.gelu(x, { approximate: "erf" as "none" }), ConfigError, "expected none or tanh");
  assertThrows(() => new AdamW([["a", x], ["b", x]]), ConfigError, "AdamW: b is there twice");
});

Deno.test("noGrad nests, and ends when its body throws", () => {
  const x = other.tensor([1], [], { requiresGrad: true }), records = () => ops.add(x, x).requiresGrad;
  noGrad(() => {
    assertThrows(() =>
      noGrad(() => {
        throw new RangeError("inner");
      }), RangeError);
    assertEquals(records(), false);
  });
  assertThrows(() =>
    noGrad(() => {
      throw new RangeError("outer");
    }), RangeError);
  assertEquals(records(), true);
});

Deno.test("a result is rejected after its scope, unless it was passed to keep; its gradient still flows", async () => {
  for (const device of [one, other]) {
    const x = device.tensor([3], [], { requiresGrad: true });
    let lost: Tensor, kept: Tensor;
    {
      using scope = device.scope();
      lost = ops.add(x, x);
      kept = scope.keep(ops.mul(lost, x)); // 2x², whose tape needs `lost`
    }
    kept.backward();
    assertEquals(await x.grad!.item(), 12);
    assertThrows(() => ops.neg(lost), DeviceError, "Cannot apply neg to []: it has been freed");
  }
});

Deno.test("an exception ends the scopes from which it is thrown", () => {
  leavesNothing(one, "scope", () =>
    assertThrows(() => {
      using _ = one.scope();
      one.empty([2]);
      using __ = one.scope();
      one.empty([3]);
      throw new RangeError("inside");
    }, RangeError));
  const outside = one.empty([1]);
  assertEquals(outside.freed, false);
  assertEquals(outside.scope, undefined);
});

Deno.test("in an engine without relaxed SIMD the CPU device names what is missing", async () => {
  const { validate } = WebAssembly;
  WebAssembly.validate = () => false;
  try {
    const message = "cpu: this WebAssembly engine has no relaxed SIMD, which kernels need; use a newer one";
    await assertRejects(() => createDevice("cpu", { threads: 1 }), DeviceError, message);
  } finally {
    WebAssembly.validate = validate;
  }
});

Deno.test("nested arrays determine a shape, and errors name the place that does not fit", async () => {
  for (const device of [one, other]) {
    const x = device.tensor([[1, 2, 3], [4, 5, 6]]);
    assertEquals([x.shape, x.dtype, [...await x.data()]], [[2, 3], "f32", [1, 2, 3, 4, 5, 6]]);
    assertEquals(device.tensor(7).shape, []);
    assertEquals(device.tensor([[[1], [2]]], [1, 2, 1]).shape, [1, 2, 1]);
    const ids = device.tensor(Int32Array.of(1, 2)), given = { dtype: "i32", requiresGrad: false } as const;
    assertEquals([ids.shape, ids.dtype, device.tensor([[1]], given).dtype], [[2], "i32", "i32"]);
    const leaf = device.tensor([1, 2], { requiresGrad: true });
    assertEquals([leaf.shape, leaf.requiresGrad], [[2], true]);
    leavesNothing(device, "tensor", () => {
      const refused = (make: () => unknown, message: string) => assertThrows(make, ShapeError, message);
      refused(
        () => device.tensor([[1, 2], [3]]),
        "Cannot apply tensor to values[1]: it is a list of 1, expected a list of 2",
      );
      refused(() => device.tensor([[[1], [2]], [[3], 4]]), "values[1][1]: it is 4, expected a list of 1");
      refused(() => device.tensor([1, [2]]), "values[1]: it is a list of 1, expected a number");
      refused(() => device.tensor([[1], ["2" as unknown as number]]), "values[1][0]: it is 2, expected a number");
      refused(() => device.tensor([[1, 2]], [2, 1]), "values of [1,2] and [2,1]: the shapes differ");
      refused(() => device.tensor([]), "[0] is not a valid shape");
      refused(() => device.tensor([[]]), "[1,0] is not a valid shape");
      refused(() => x.set([1, 2, 3]), "Cannot apply set to 3 values and [2,3]: expected 6 values");
      refused(() => x.set([[1, 2, 3], [4, 5]]), "Cannot apply set to values[1]: it is a list of 2");
      refused(() => x.set([[1, 2], [3, 4], [5, 6]]), "Cannot apply set to values of [3,2] and [2,3]");
    });
    x.set([[6, 5, 4], [3, 2, 1]]);
    assertEquals([...await x.data()], [6, 5, 4, 3, 2, 1]);
    x.set(Float32Array.of(1, 1, 2, 2, 3, 3));
    assertEquals([...await x.data()], [1, 1, 2, 2, 3, 3]);
    assertThrows(() => ids.set([0.5, 1]), DeviceError, "0.5");
    x.dispose();
    assertThrows(() => x.set([1, 1, 1, 1, 1, 1]), DeviceError, "it has been freed");
  }
});

Deno.test("a tensor shows its shape, dtype and device", () => {
  const x = one.tensor([[1, 2, 3], [4, 5, 6]], { dtype: "i32" });
  assertEquals(`${x}`, "Tensor [2, 3] i32 on cpu");
  assertEquals(Deno.inspect({ x }), "{ x: Tensor [2, 3] i32 on cpu }");
  assertEquals(Deno.inspect(other.tensor(1)), "Tensor [] f32 on reference");
  x.dispose();
  assertEquals(`${x}`, "Tensor [2, 3] i32 on cpu, freed");
});

Deno.test("a device, a tensor and a program are disposed of at the end of their block", async () => {
  let device: Device, tensor: Tensor;
  {
    using made = await createDevice("cpu", { threads: 2 });
    device = made;
    using x = made.tensor([1, 2]);
    tensor = x;
    using program = made.capture(() => ops.neg(x));
    assertEquals(program.launches, 1);
  }
  assertEquals([tensor.freed, device.closed], [true, true]);
  device.close(); // a second call has no effect
});

Deno.test("createDevice rejects options that the device does not have", async () => {
  const refused = (make: () => Promise<Device>, message: string) => assertRejects(make, DeviceError, message);
  const misspelt = { thread: 2 } as { threads?: number };
  await refused(() => createDevice("cpu", misspelt), "The device cpu has no option thread; did you mean threads?");
  await refused(() => createDevice("auto", misspelt), "did you mean threads?");
  // @ts-expect-error: the options are the CPU's
  await refused(() => createDevice("reference", { guards: true }), "has no option guards; it has none");
  // @ts-expect-error: the options are the CPU's
  await refused(() => createDevice("webgpu", { threads: 2 }), "The device webgpu has no option threads; it has none");
  (await createDevice("reference", { threads: undefined })).close();
  using device = await createDevice();
  assertEquals(device.name, "cpu");
  // The mode is a field, so that code does not have to parse the description.
  assertEquals([device.mode === "wide" || device.mode === "narrow", other.mode], [true, undefined]);
  assertEquals(device.description, `cpu (${device.mode}), threads: ${navigator.hardwareConcurrency}`);
});
